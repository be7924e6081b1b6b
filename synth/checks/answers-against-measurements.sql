-- description: An answer that says criteria are met, or not met, where the evidence it gives was decided otherwise.
-- severity: error
-- scope: pair
-- needs: pairs, pair_evidence, meanings, decided
WITH items AS MATERIALIZED (
    SELECT p.pair_id, p.template_id, p.ecg_ids, p.answers, p.sources, p.evidence, m.meaning, row_number() OVER () AS item
    FROM pair_evidence AS p
    JOIN meanings AS m ON m.template_id = p.template_id
        AND (m.answer = p.answers[1] OR (m.answer = '*' AND NOT list_contains(m.named_answers, p.answers[1])))
    WHERE m.meaning IN ('met', 'not_met', 'some_met', 'some_not_met', 'met_or_disputed', 'not_met_or_disputed') AND p.evidence."limit" IS NOT NULL
),
keys AS MATERIALIZED (
    SELECT i.item, evidence_key(e.ecg_id, c.code, i.evidence) AS key
    FROM items AS i, unnest(i.ecg_ids) AS e(ecg_id), unnest(i.sources) AS c(code)
),
known AS (
    SELECT key, bool_or(met) AS any_met, bool_or(NOT met) AS any_not_met
    FROM decided SEMI JOIN keys USING (key) GROUP BY key
),
verdicts AS (
    SELECT keys.item, coalesce(bool_or(known.any_met), false) AS any_met,
           coalesce(bool_or(known.any_not_met), false) AS any_not_met
    FROM keys JOIN known USING (key) GROUP BY keys.item
),
disputed AS (
    -- the reply says itself that the measurement speaks against the annotation, or against its silence
    SELECT pair_id FROM pairs
    WHERE regexp_matches(messages[2].content, 'the measurement disagrees|does not bear it out|measured otherwise|by measurement a criterion is met|A criterion is met all the same|meets one of its criteria')
),
judged AS (
    SELECT i.pair_id, i.meaning, CASE i.meaning WHEN 'met' THEN bool_and(v.any_met)
           WHEN 'met_or_disputed' THEN bool_and(v.any_met) OR i.pair_id IN (FROM disputed)
           WHEN 'not_met_or_disputed' THEN bool_and(v.any_not_met) OR i.pair_id IN (FROM disputed)
           WHEN 'not_met' THEN bool_and(v.any_not_met) WHEN 'some_met' THEN bool_or(v.any_met)
           ELSE bool_or(v.any_not_met) END AS holds
    FROM items AS i JOIN verdicts AS v USING (item) GROUP BY i.pair_id, i.meaning
)
SELECT i.pair_id, i.template_id, i.ecg_ids, i.answers, i.meaning, i.evidence
FROM items AS i SEMI JOIN (SELECT * FROM judged WHERE NOT holds) AS j USING (pair_id, meaning)
