-- description: A pair without what it rests on: a measured answer without a value, a limit or general knowledge without a guideline.
-- severity: error
-- scope: pair
-- needs: pairs
SELECT pair_id, template_id, family, codes, evidence, guideline_ids,
       CASE WHEN family = 'knowledge' THEN 'no guideline'
            WHEN family IN ('measurement', 'rationale') AND len(evidence) = 0 AND len(codes) = 0 THEN 'no evidence'
            ELSE 'a limit without its guideline' END AS problem
FROM pairs
WHERE (family IN ('measurement', 'rationale') AND len(evidence) = 0 AND len(codes) = 0)
   OR (len(guideline_ids) = 0
       AND (family = 'knowledge' OR len(list_filter(evidence, lambda e: e."limit" IS NOT NULL)) > 0))
