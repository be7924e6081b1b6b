-- description: The same closed question about the same ECGs, with different answers.
-- severity: error
-- scope: corpus
-- needs: pairs, templates
WITH closed AS (SELECT list(template_id) AS ids FROM templates WHERE len(vocabulary) > 0),
asked AS (
    SELECT hash(ecg_ids, messages[1].content) AS key, hash(list_sort(answers)) AS answer FROM pairs
    WHERE len(messages) = 2 AND (len(options) > 0 OR list_contains((SELECT ids FROM closed), template_id))
),
repeated AS (SELECT key FROM asked GROUP BY key HAVING min(answer) <> max(answer))
SELECT ecg_ids, messages[1].content AS question, list(DISTINCT list_sort(answers)) AS answers,
       list(pair_id ORDER BY pair_id) AS pair_ids, list(DISTINCT template_id) AS template_ids
FROM pairs
WHERE len(messages) = 2 AND (len(options) > 0 OR list_contains((SELECT ids FROM closed), template_id))
  AND hash(ecg_ids, messages[1].content) IN (SELECT key FROM repeated)
GROUP BY ecg_ids, question HAVING count(DISTINCT list_sort(answers)) > 1
