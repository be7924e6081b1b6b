-- description: A pair without what its answer rests on: a measured answer without evidence, a limit without its guideline, general knowledge without a guideline.
-- severity: error
-- scope: pair
-- needs: pairs
SELECT pair_id, template_id, family, codes, evidence, guideline_ids,
       CASE WHEN family IN ('measurement', 'axis', 'rationale') AND len(evidence) = 0 AND len(codes) = 0 THEN 'no evidence'
            WHEN family = 'knowledge' AND len(guideline_ids) = 0 THEN 'no guideline'
            ELSE 'a limit without its guideline' END AS problem
FROM pairs
WHERE (family IN ('measurement', 'axis', 'rationale') AND len(evidence) = 0 AND len(codes) = 0)
   OR (family = 'knowledge' AND len(guideline_ids) = 0)
   OR (len(guideline_ids) = 0 AND len(list_filter(evidence, lambda e: e."limit" IS NOT NULL)) > 0)
