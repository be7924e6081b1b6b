-- description: Something rejected without a reason to count by, at an unknown stage, or by an unknown template.
-- severity: error
-- scope: corpus
-- needs: rejected, templates
SELECT stage, ecg_ids, template_id, reason FROM rejected
WHERE reason IS NULL OR NOT regexp_full_match(reason, '[a-z][a-z0-9_]*') OR stage IS NULL
   OR stage NOT IN ('source', 'signal', 'render')
   OR (stage = 'render') <> (template_id IS NOT NULL)
   OR (template_id IS NOT NULL AND template_id NOT IN (SELECT template_id FROM templates))
