-- description: Evidence whose value its ECG does not have: neither a finding under a statement the pair names, nor a measurement.
-- severity: error
-- scope: pair
-- needs: pair_evidence, decided, measured
WITH named AS (
    -- "HR__Global (first)" is the value of the first ECG of two
    SELECT *, regexp_replace(evidence.name, ' \((first|second)\)$', '') AS name,
           CASE WHEN ends_with(evidence.name, ' (first)') THEN ecg_ids[1:1]
                WHEN ends_with(evidence.name, ' (second)') THEN ecg_ids[2:2] ELSE ecg_ids END AS meant
    FROM pair_evidence
),
keyed AS (
    SELECT p.pair_id, p.template_id, p.ecg_ids, p.evidence, measured_key(e.ecg_id, p.name, p.evidence.value) AS key
    FROM named AS p, unnest(p.meant) AS e(ecg_id)
    UNION ALL
    SELECT p.pair_id, p.template_id, p.ecg_ids, p.evidence, evidence_key(e.ecg_id, c.code, p.evidence)
    FROM named AS p, unnest(p.meant) AS e(ecg_id), unnest(p.sources) AS c(code)
    WHERE p.evidence."limit" IS NOT NULL
),
known AS (
    SELECT key FROM measured SEMI JOIN keyed USING (key)
    UNION
    SELECT key FROM decided SEMI JOIN keyed USING (key)
),
found AS (SELECT k.*, n.key IS NOT NULL AS is_known FROM keyed AS k LEFT JOIN known AS n USING (key))
SELECT pair_id, template_id, ecg_ids, evidence FROM found GROUP BY ALL HAVING NOT bool_or(is_known)
