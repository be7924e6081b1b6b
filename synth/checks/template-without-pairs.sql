-- description: A template that was built and made no pair.
-- severity: warning
-- scope: corpus
-- needs: templates
SELECT template_id, n_rows, n_rejected, n_capped FROM templates WHERE status = 'built' AND n_pairs = 0
