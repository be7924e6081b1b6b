-- description: A message that is empty, or begins or ends with white space.
-- severity: error
-- scope: pair
-- needs: texts
SELECT pair_id, template_id, role, times, content FROM texts
WHERE content IS NULL OR content = '' OR starts_with(content, ' ') OR ends_with(content, ' ')
   OR starts_with(content, E'\n') OR ends_with(content, E'\n') OR starts_with(content, E'\t') OR ends_with(content, E'\t')
