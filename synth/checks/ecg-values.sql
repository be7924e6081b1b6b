-- description: An ECG named twice, or with an impossible age, sex, fold, split, sampling rate or predecessor.
-- severity: error
-- scope: corpus
-- needs: ecgs
SELECT ecg_id, 'named twice' AS problem, count(*)::VARCHAR AS found FROM ecgs GROUP BY ecg_id HAVING count(*) > 1
UNION ALL
SELECT ecg_id, 'age_years', age_years::VARCHAR FROM ecgs
WHERE NOT (age_years BETWEEN 0 AND 90) OR (age_capped AND age_years IS DISTINCT FROM 90)
UNION ALL
SELECT ecg_id, 'sex', sex FROM ecgs WHERE sex NOT IN ('male', 'female')
UNION ALL
SELECT ecg_id, 'split', split FROM ecgs
WHERE split IS DISTINCT FROM CASE WHEN strat_fold BETWEEN 1 AND 8 THEN 'train' WHEN strat_fold = 9 THEN 'validation'
                                  WHEN strat_fold = 10 THEN 'test' END
UNION ALL
SELECT ecg_id, 'sampling_hz, n_samples or leads', concat_ws(' ', sampling_hz, n_samples, len(leads)) FROM ecgs
WHERE NOT coalesce(sampling_hz > 0 AND n_samples > 0 AND len(leads) > 0, false)
UNION ALL
SELECT e.ecg_id, 'previous_ecg_id', e.previous_ecg_id FROM ecgs AS e JOIN ecgs AS b ON b.ecg_id = e.previous_ecg_id
WHERE b.patient_id IS DISTINCT FROM e.patient_id OR e.days_since_previous < 0 OR e.previous_ecg_id = e.ecg_id
