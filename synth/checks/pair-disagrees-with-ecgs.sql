-- description: A pair whose split, fold or patient is not that of its ECG.
-- severity: error
-- scope: pair
-- needs: pair_ecgs, ecgs
SELECT p.pair_id, p.template_id, p.ecg_id, p.split, e.split AS ecg_split, p.strat_fold, e.strat_fold AS ecg_fold,
       p.patient_id, e.patient_id AS ecg_patient_id
FROM pair_ecgs AS p JOIN ecgs AS e USING (ecg_id)
WHERE p.split IS DISTINCT FROM e.split OR p.strat_fold IS DISTINCT FROM e.strat_fold
   OR p.patient_id IS DISTINCT FROM e.patient_id
