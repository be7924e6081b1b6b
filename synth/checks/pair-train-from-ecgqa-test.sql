-- description: A pair for training about an ECG, or a patient, that was left out because ECG-QA tests on this patient.
-- severity: error
-- scope: pair
-- needs: pairs, ecgqa_ecgs
SELECT pair_id, template_id, ecg_ids FROM pairs
WHERE split = 'train' AND len(list_intersect(ecg_ids, (SELECT coalesce(list(ecg_id), []) FROM ecgqa_ecgs
    WHERE of_test_patient AND (SELECT bool_or(excluded) FROM ecgqa_ecgs)))) > 0
