-- description: A message with template syntax in it, or with a missing value printed as None, nan, null or <NA>.
-- severity: error
-- scope: pair
-- needs: texts
SELECT pair_id, template_id, role, times, content FROM texts
WHERE contains(content, '{') OR contains(content, '}') OR contains(content, '{%') OR contains(content, '<NA>')
   OR contains(content, '\n')
   OR (regexp_matches(content, '(?i)\b(?:none|nan|null|nil|undefined|inf)\b')
       AND regexp_matches(content, '\b(?:nan|NaN|NAN|null|NULL|nil|undefined|inf)\b|[^.?!:\s]\s+None\b|\bNone(?: ?ms| ?mV|/min|°|%)'))
