-- description: A message with a calendar date or a time of day: recording dates are never printed.
-- severity: error
-- scope: pair
-- needs: texts
SELECT pair_id, template_id, role, times, content FROM texts
WHERE regexp_matches(content, '\b\d{4}-\d{1,2}-\d{1,2}\b|\b\d{1,2}\.\d{1,2}\.(?:\d{4}|\d{2})\b|\b\d{1,2}/\d{1,2}/\d{2,4}\b|\b\d{1,2}:\d{2}:\d{2}\b')
