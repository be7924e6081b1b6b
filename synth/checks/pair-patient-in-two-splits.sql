-- description: A patient who appears in pairs of two splits.
-- severity: error
-- scope: corpus
-- needs: pairs
SELECT patient_id, list(DISTINCT split) AS splits, count(*) AS pairs
FROM (SELECT DISTINCT unnest(patient_ids) AS patient_id, split FROM pairs)
WHERE patient_id IS NOT NULL GROUP BY patient_id HAVING count(DISTINCT split) > 1
