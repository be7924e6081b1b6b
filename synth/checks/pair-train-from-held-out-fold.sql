-- description: A pair for training that shows an ECG of fold 9 or 10, or a held-out pair from folds 1 to 8.
-- severity: error
-- scope: pair
-- needs: pair_ecgs, ecgs
SELECT p.pair_id, p.template_id, p.split, p.ecg_id, coalesce(e.strat_fold, p.strat_fold) AS strat_fold
FROM pair_ecgs AS p LEFT JOIN ecgs AS e USING (ecg_id)
WHERE p.split <> CASE WHEN coalesce(e.strat_fold, p.strat_fold) BETWEEN 1 AND 8 THEN 'train'
                      WHEN coalesce(e.strat_fold, p.strat_fold) = 9 THEN 'validation'
                      WHEN coalesce(e.strat_fold, p.strat_fold) = 10 THEN 'test' ELSE 'none' END
