-- description: Evidence whose value its ECG does not have: no finding under a statement the pair names, no measurement, no annotation.
-- severity: error
-- scope: pair
-- needs: pair_evidence, decided, measured, noted
WITH items AS MATERIALIZED (
    -- "HR__Global (first)" is the value of the first ECG of two
    SELECT *, row_number() OVER () AS item, regexp_replace(evidence.name, ' \((first|second)\)$', '') AS name,
           CASE WHEN ends_with(evidence.name, ' (first)') THEN ecg_ids[1:1]
                WHEN ends_with(evidence.name, ' (second)') THEN ecg_ids[2:2] ELSE ecg_ids END AS meant
    FROM pair_evidence
),
measured_keys AS MATERIALIZED (
    SELECT i.item, measured_key(e.ecg_id, i.name, i.evidence.value) AS key
    FROM items AS i, unnest(i.meant) AS e(ecg_id)
),
known_values AS (
    SELECT DISTINCT key FROM (FROM measured UNION ALL FROM noted) SEMI JOIN measured_keys USING (key)
),
values_found AS (SELECT item FROM measured_keys SEMI JOIN known_values USING (key)),
decided_keys AS MATERIALIZED (
    SELECT i.item, evidence_key(e.ecg_id, c.code, i.evidence) AS key
    FROM (SELECT * FROM items ANTI JOIN values_found USING (item)) AS i,
         unnest(i.meant) AS e(ecg_id), unnest(i.sources) AS c(code)
    WHERE i.evidence."limit" IS NOT NULL
),
known_findings AS (SELECT DISTINCT key FROM decided SEMI JOIN decided_keys USING (key)),
findings_found AS (SELECT item FROM decided_keys SEMI JOIN known_findings USING (key))
SELECT pair_id, template_id, ecg_ids, evidence
FROM items ANTI JOIN values_found USING (item) ANTI JOIN findings_found USING (item)
