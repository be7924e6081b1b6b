-- description: The same closed question about the same ECGs, with different answers.
-- severity: error
-- scope: corpus
-- needs: pairs, pair_keys
WITH repeated AS (
    SELECT asked FROM pair_keys WHERE asked IS NOT NULL GROUP BY asked HAVING min(answered) <> max(answered)
)
SELECT ecg_ids, messages[1].content AS question, list(DISTINCT list_sort(answers)) AS answers,
       list(pair_id ORDER BY pair_id) AS pair_ids, list(DISTINCT template_id) AS template_ids
FROM pairs WHERE hash(ecg_ids, messages[1].content) IN (SELECT asked FROM repeated)
GROUP BY ecg_ids, question HAVING count(DISTINCT list_sort(answers)) > 1
