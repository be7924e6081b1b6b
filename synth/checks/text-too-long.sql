-- description: A message of more than 8,000 characters.
-- severity: error
-- scope: pair
-- needs: texts
SELECT pair_id, template_id, role, times, length(content) AS characters, left(content, 200) AS beginning
FROM texts WHERE strlen(content) > 8000 AND length(content) > 8000
