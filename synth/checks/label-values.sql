-- description: A label of an unknown ECG, a label made twice, a likelihood outside 0 to 100, or a certainty that does not follow from it.
-- severity: error
-- scope: corpus
-- needs: labels, ecgs
SELECT l.ecg_id, l.code, 'not in ecgs' AS problem, NULL AS found FROM labels AS l ANTI JOIN ecgs USING (ecg_id)
UNION ALL
SELECT ecg_id, code, 'made twice', count(*)::VARCHAR FROM labels GROUP BY ecg_id, code HAVING count(*) > 1
UNION ALL
SELECT ecg_id, code, 'likelihood', likelihood::VARCHAR FROM labels
WHERE likelihood IS NULL OR NOT likelihood BETWEEN 0 AND 100
UNION ALL
SELECT ecg_id, code, 'certainty', certainty || ' at ' || likelihood FROM labels
WHERE certainty IS DISTINCT FROM CASE
    WHEN NOT list_contains(kinds, 'diagnostic') THEN 'stated'
    WHEN likelihood >= 100 THEN 'certain' WHEN likelihood >= 80 THEN 'probable' WHEN likelihood >= 50 THEN 'possible'
    WHEN likelihood > 0 THEN 'not_excluded' WHEN len(kinds) > 1 THEN certainty ELSE 'unknown' END
