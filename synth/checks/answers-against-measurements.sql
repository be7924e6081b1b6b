-- description: An answer that says criteria are met, or not met, where the evidence it gives was decided otherwise.
-- severity: error
-- scope: pair
-- needs: pair_evidence, meanings, decided
WITH asked AS (
    SELECT p.pair_id, p.template_id, p.ecg_ids, p.answers, p.sources, p.evidence, m.meaning
    FROM pair_evidence AS p
    JOIN meanings AS m ON m.template_id = p.template_id
        AND (m.answer = p.answers[1] OR (m.answer = '*' AND NOT list_contains(m.named_answers, p.answers[1])))
    WHERE m.meaning IN ('met', 'not_met', 'some_met', 'some_not_met') AND p.evidence."limit" IS NOT NULL
),
keyed AS (
    SELECT a.* EXCLUDE (sources), evidence_key(e.ecg_id, c.code, a.evidence) AS key
    FROM asked AS a, unnest(a.ecg_ids) AS e(ecg_id), unnest(a.sources) AS c(code)
),
known AS (
    SELECT key, bool_or(met) AS any_met, bool_or(NOT met) AS any_not_met
    FROM decided SEMI JOIN keyed USING (key) GROUP BY key
),
verdicts AS (
    SELECT k.pair_id, k.template_id, k.ecg_ids, k.answers, k.meaning, k.evidence,
           coalesce(bool_or(known.any_met), false) AS any_met, coalesce(bool_or(known.any_not_met), false) AS any_not_met
    FROM keyed AS k JOIN known USING (key) GROUP BY ALL
)
SELECT pair_id, template_id, ecg_ids, answers, meaning, list(evidence) AS evidence
FROM verdicts GROUP BY ALL
HAVING CASE meaning WHEN 'met' THEN NOT bool_and(any_met) WHEN 'not_met' THEN NOT bool_and(any_not_met)
                    WHEN 'some_met' THEN NOT bool_or(any_met) ELSE NOT bool_or(any_not_met) END
