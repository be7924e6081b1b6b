-- description: A criterion decided twice for the same ECG.
-- severity: error
-- scope: corpus
-- needs: findings
WITH repeated AS (SELECT hash(ecg_id, code, criterion) AS key FROM findings GROUP BY key HAVING count(*) > 1)
SELECT ecg_id, code, criterion, list(verdict) AS verdicts
FROM findings WHERE hash(ecg_id, code, criterion) IN (SELECT key FROM repeated)
GROUP BY ecg_id, code, criterion HAVING count(*) > 1
