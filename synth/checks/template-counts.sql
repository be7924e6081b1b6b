-- description: A template whose rows do not add up to the pairs and rejections that are there.
-- severity: error
-- scope: corpus
-- needs: templates, pairs, rejected
WITH made AS (SELECT template_id, count(*) AS n FROM pairs GROUP BY template_id),
refused AS (SELECT template_id, count(*) AS n FROM rejected WHERE template_id IS NOT NULL GROUP BY template_id)
SELECT template_id, t.status, t.n_rows, t.n_pairs, coalesce(made.n, 0) AS pairs_found, t.n_rejected,
       coalesce(refused.n, 0) AS rejected_found, t.n_capped
FROM templates AS t LEFT JOIN made USING (template_id) LEFT JOIN refused USING (template_id)
WHERE t.n_pairs <> coalesce(made.n, 0) OR t.n_rejected <> coalesce(refused.n, 0)
   OR t.n_rows <> t.n_pairs + t.n_rejected + t.n_capped OR (t.status <> 'built' AND t.n_rows > 0)
