-- description: Evidence with a limit that no criterion of a statement the pair names has in these words.
-- severity: warning
-- scope: pair
-- needs: pair_evidence, decided
WITH items AS MATERIALIZED (
    SELECT *, row_number() OVER () AS item FROM pair_evidence
    WHERE evidence."limit" IS NOT NULL AND len(sources) > 0
),
keys AS MATERIALIZED (
    SELECT i.item, evidence_key(e.ecg_id, c.code, i.evidence) AS key
    FROM items AS i, unnest(i.ecg_ids) AS e(ecg_id), unnest(i.sources) AS c(code)
),
known AS (SELECT DISTINCT key FROM decided SEMI JOIN keys USING (key)),
found AS (SELECT item FROM keys SEMI JOIN known USING (key))
SELECT pair_id, template_id, ecg_ids, sources, evidence FROM items ANTI JOIN found USING (item)
