-- description: A pair that names a guideline the table guidelines does not have, or a code nobody knows.
-- severity: error
-- scope: pair
-- needs: pairs, guidelines, labels
WITH known AS (SELECT code FROM guidelines UNION SELECT code FROM labels),
named AS (
    SELECT pair_id, template_id, code, 'guideline_ids' AS field FROM pairs, unnest(guideline_ids) AS g(code)
    UNION ALL
    SELECT pair_id, template_id, code, 'codes' FROM pairs, unnest(codes) AS c(code)
)
SELECT n.* FROM named AS n
WHERE n.code IS NULL OR (n.field = 'codes' AND n.code NOT IN (SELECT code FROM known))
   OR (n.field = 'guideline_ids' AND n.code NOT IN (SELECT code FROM guidelines))
