-- description: A finding of an unknown ECG or guideline, with an unknown verdict, or decided without a value.
-- severity: error
-- scope: corpus
-- needs: findings, ecgs, guidelines
SELECT ecg_id, code, criterion, verdict, evidence FROM findings
WHERE ecg_id NOT IN (SELECT ecg_id FROM ecgs) OR code NOT IN (SELECT code FROM guidelines)
   OR verdict IS NULL OR verdict NOT IN ('met', 'not_met', 'not_assessable')
   OR len(list_filter(evidence, lambda item: item.value IS NULL OR NOT isfinite(item.value))) > 0
