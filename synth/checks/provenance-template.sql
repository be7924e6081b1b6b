-- description: A pair whose template the table templates does not have as built, or has in another version.
-- severity: error
-- scope: pair
-- needs: pairs, templates
SELECT p.pair_id, p.template_id, p.template_hash, t.template_hash AS table_hash, t.status, p.family, t.family AS table_family
FROM pairs AS p LEFT JOIN templates AS t USING (template_id)
WHERE t.template_id IS NULL OR t.status <> 'built' OR p.template_hash IS DISTINCT FROM t.template_hash
   OR p.family IS DISTINCT FROM t.family OR p.question_type IS DISTINCT FROM t.question_type
   OR p.variant IS NULL OR p.source IS NULL OR p.language IS NULL
