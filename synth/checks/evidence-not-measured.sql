-- description: Evidence without a limit whose value no measurement of its ECG has under that name.
-- severity: error
-- scope: pair
-- needs: pair_evidence, measured
WITH keyed AS (
    SELECT p.pair_id, p.template_id, p.ecg_ids, p.evidence, measured_key(e.ecg_id, p.evidence.name, p.evidence.value) AS key
    FROM pair_evidence AS p, unnest(p.ecg_ids) AS e(ecg_id)
    WHERE p.evidence."limit" IS NULL
),
known AS (SELECT DISTINCT key FROM measured SEMI JOIN keyed USING (key))
SELECT k.pair_id, k.template_id, k.ecg_ids, k.evidence FROM keyed AS k LEFT JOIN known USING (key)
GROUP BY ALL HAVING count(known.key) = 0
