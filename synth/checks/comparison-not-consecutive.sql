-- description: A comparison that is not of two ECGs of one patient, the earlier first and none between them.
-- severity: error
-- scope: pair
-- needs: pairs, ecgs
SELECT p.pair_id, p.template_id, p.ecg_ids, p.patient_ids, e.previous_ecg_id
FROM pairs AS p LEFT JOIN ecgs AS e ON e.ecg_id = p.ecg_ids[2]
WHERE p.family = 'comparison'
  AND (len(p.ecg_ids) <> 2 OR len(list_distinct(p.patient_ids)) <> 1
       OR e.previous_ecg_id IS DISTINCT FROM p.ecg_ids[1])
