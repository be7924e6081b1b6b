-- description: An answer that says a criterion is met, or not met, where the evidence it gives was decided otherwise.
-- severity: error
-- scope: pair
-- needs: pair_evidence, meanings, decided
WITH asked AS (
    SELECT p.pair_id, p.template_id, p.ecg_ids, p.answers[1] AS answer, p.sources, p.evidence, m.meaning
    FROM pair_evidence AS p JOIN meanings AS m ON m.template_id = p.template_id AND m.answer = p.answers[1]
    WHERE m.meaning IN ('met', 'not_met') AND p.evidence."limit" IS NOT NULL
),
keyed AS (
    SELECT a.pair_id, a.template_id, a.ecg_ids, a.answer, a.meaning, a.evidence,
           evidence_key(e.ecg_id, c.code, a.evidence) AS key
    FROM asked AS a, unnest(a.ecg_ids) AS e(ecg_id), unnest(a.sources) AS c(code)
),
known AS (
    SELECT key, bool_or(met) AS any_met, bool_or(NOT met) AS any_not_met
    FROM decided SEMI JOIN keyed USING (key) GROUP BY key
),
verdicts AS (
    SELECT k.pair_id, k.template_id, k.ecg_ids, k.answer, k.meaning, k.evidence,
           bool_or(known.any_met) AS any_met, bool_or(known.any_not_met) AS any_not_met
    FROM keyed AS k JOIN known USING (key) GROUP BY ALL
)
SELECT pair_id, template_id, ecg_ids, answer, meaning, evidence FROM verdicts
WHERE CASE meaning WHEN 'met' THEN any_met IS NOT true ELSE any_not_met IS NOT true END
