-- description: A message with a control, invisible or replacement character; only line breaks are allowed.
-- severity: error
-- scope: pair
-- needs: texts
SELECT pair_id, template_id, role, times, content FROM texts
WHERE regexp_matches(content, '[\x00-\x09\x0b-\x1f\x7f-\x{9f}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{feff}\x{fffd}]')
