-- description: A pair about no ECG outside the family knowledge, or a knowledge pair about an ECG.
-- severity: error
-- scope: pair
-- needs: pairs
SELECT pair_id, template_id, family, ecg_ids FROM pairs WHERE (len(ecg_ids) = 0) <> (family = 'knowledge')
