-- description: A patient whose ECGs are in two splits or two folds.
-- severity: error
-- scope: corpus
-- needs: ecgs
SELECT patient_id, list(DISTINCT split) AS splits, list(DISTINCT strat_fold) AS folds, list(ecg_id) AS ecg_ids
FROM ecgs WHERE patient_id IS NOT NULL GROUP BY patient_id
HAVING count(DISTINCT split) > 1 OR count(DISTINCT strat_fold) > 1
