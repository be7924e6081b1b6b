-- description: Evidence with a limit that no criterion of a statement the pair names has in these words.
-- severity: warning
-- scope: pair
-- needs: pair_evidence, decided
WITH keyed AS (
    SELECT p.pair_id, p.template_id, p.ecg_ids, p.sources, p.evidence,
           evidence_key(e.ecg_id, c.code, p.evidence) AS key
    FROM pair_evidence AS p, unnest(p.ecg_ids) AS e(ecg_id), unnest(p.sources) AS c(code)
    WHERE p.evidence."limit" IS NOT NULL AND len(p.sources) > 0
),
known AS (SELECT DISTINCT key FROM decided SEMI JOIN keyed USING (key))
SELECT k.pair_id, k.template_id, k.ecg_ids, k.sources, k.evidence FROM keyed AS k LEFT JOIN known USING (key)
GROUP BY ALL HAVING count(known.key) = 0
