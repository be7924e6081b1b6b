-- description: A question in ECG-QA's own words in the training split about an ECG of its test patients: not for training; build with --exclude-ecgqa-test.
-- severity: warning
-- scope: pair
-- needs: pairs, ecgqa_ecgs
SELECT pair_id, template_id, ecg_ids FROM pairs
WHERE split = 'train' AND family = 'ecgqa' AND len(list_intersect(ecg_ids,
    (SELECT coalesce(list(ecg_id), []) FROM ecgqa_ecgs WHERE of_test_patient))) > 0
