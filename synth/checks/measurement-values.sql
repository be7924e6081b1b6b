-- description: Measurements of an unknown ECG, given twice by one provider, or not finite.
-- severity: error
-- scope: corpus
-- needs: measurements, ecgs
SELECT ecg_id, provider, 'not in ecgs' AS problem FROM measurements WHERE ecg_id NOT IN (SELECT ecg_id FROM ecgs)
UNION ALL
SELECT ecg_id, provider, 'given twice' FROM measurements GROUP BY ecg_id, provider HAVING count(*) > 1
UNION ALL
SELECT ecg_id, provider, 'not finite'
FROM (SELECT ecg_id, provider, [*COLUMNS(lambda c: c NOT IN ('ecg_id', 'provider', 'used'))]::DOUBLE[] AS measured_values FROM measurements)
WHERE len(list_filter(measured_values, lambda v: NOT isfinite(v))) > 0
