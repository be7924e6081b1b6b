-- description: An answer that states what the ECG's labels do not have, or denies what they have.
-- severity: error
-- scope: pair
-- needs: pairs, labels, meanings
WITH asked AS (
    SELECT p.pair_id, p.template_id, p.ecg_ids, p.answers, p.codes, m.meaning,
           p.ecg_ids[CASE WHEN starts_with(m.meaning, 'previous_') THEN 1 ELSE -1 END] AS ecg_id
    FROM pairs AS p
    JOIN meanings AS m ON m.template_id = p.template_id
        AND (m.answer = p.answers[1] OR (m.answer = '*' AND NOT list_contains(m.named_answers, p.answers[1])))
    WHERE m.meaning IN ('labelled', 'not_labelled', 'not_all_labelled', 'previous_labelled', 'previous_not_labelled')
),
stated AS (SELECT ecg_id, list(code) AS stated_codes FROM labels GROUP BY ecg_id),
judged AS (
    SELECT a.*, coalesce(s.stated_codes, []) AS stated_codes
    FROM asked AS a LEFT JOIN stated AS s USING (ecg_id)
)
SELECT pair_id, template_id, ecg_id, answers, meaning, codes, stated_codes FROM judged
WHERE CASE WHEN meaning IN ('labelled', 'previous_labelled') THEN len(codes) = 0 OR NOT list_has_all(stated_codes, codes)
           WHEN meaning = 'not_all_labelled' THEN len(codes) = 0 OR list_has_all(stated_codes, codes)
           ELSE list_has_any(stated_codes, codes) END
