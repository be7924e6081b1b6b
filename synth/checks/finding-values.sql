-- description: A finding of an unknown ECG or guideline, made twice, with an unknown verdict, or decided without a value.
-- severity: error
-- scope: corpus
-- needs: findings, ecgs, guidelines
SELECT ecg_id, code, criterion, 'not in ecgs' AS problem FROM findings WHERE ecg_id NOT IN (SELECT ecg_id FROM ecgs)
UNION ALL
SELECT ecg_id, code, criterion, 'not in guidelines' FROM findings WHERE code NOT IN (SELECT code FROM guidelines)
UNION ALL
SELECT any_value(ecg_id), any_value(code), any_value(criterion), 'made twice' FROM findings
GROUP BY hash(ecg_id, code, criterion) HAVING count(*) > 1
UNION ALL
SELECT ecg_id, code, criterion, 'verdict ' || coalesce(verdict, 'absent') FROM findings
WHERE verdict IS NULL OR verdict NOT IN ('met', 'not_met', 'not_assessable')
UNION ALL
SELECT ecg_id, code, criterion, 'value absent or not finite' FROM findings
WHERE len(list_filter(evidence, lambda e: e.value IS NULL OR NOT isfinite(e.value))) > 0
