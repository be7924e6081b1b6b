-- description: A message with a calendar date or a time of day: recording dates are never printed.
-- severity: error
-- scope: pair
-- needs: messages
SELECT pair_id, template_id, turn, role, content FROM messages
WHERE regexp_matches(content, '\b\d{4}-\d{1,2}-\d{1,2}\b|\b\d{1,2}\.\d{1,2}\.(?:\d{4}|\d{2})\b|\b\d{1,2}/\d{1,2}/\d{2,4}\b|\b\d{1,2}:\d{2}:\d{2}\b')
