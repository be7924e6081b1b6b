-- description: An answer naming a statement the ECG's labels do not have, or passing over an option they do have.
-- severity: error
-- scope: pair
-- needs: pairs, labels, guidelines, meanings
WITH asked AS (
    SELECT p.pair_id, p.template_id, p.ecg_ids[-1] AS ecg_id, p.answers, p.options, m.meaning
    FROM pairs AS p
    JOIN meanings AS m ON m.template_id = p.template_id
        AND (m.answer = p.answers[1] OR (m.answer = '*' AND NOT list_contains(m.named_answers, p.answers[1])))
    WHERE m.meaning IN ('names_labelled', 'others_not_labelled')
),
stated AS (
    SELECT l.ecg_id, list(g.name) AS stated_names
    FROM labels AS l JOIN guidelines AS g ON g.code = l.code GROUP BY l.ecg_id
),
known AS (SELECT list(name) AS names FROM guidelines),
judged AS (
    SELECT a.*, coalesce(s.stated_names, []) AS stated_names
    FROM asked AS a LEFT JOIN stated AS s USING (ecg_id)
)
SELECT pair_id, template_id, ecg_id, answers, meaning, stated_names FROM judged, known
WHERE CASE meaning
    WHEN 'names_labelled' THEN NOT list_has_all(stated_names, list_intersect(answers, names))
    ELSE len(list_filter(list_intersect(options, stated_names), lambda o: NOT list_contains(answers, o))) > 0 END
