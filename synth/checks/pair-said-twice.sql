-- description: Two pairs that say the same words about the same ECGs.
-- severity: error
-- scope: corpus
-- needs: pairs, pair_keys
SELECT ecg_ids, content_hash, list(pair_id ORDER BY pair_id) AS pair_ids, list(DISTINCT template_id) AS template_ids
FROM pairs
WHERE hash(content_hash, ecg_ids) IN (SELECT said FROM pair_keys GROUP BY said HAVING count(*) > 1)
GROUP BY ecg_ids, content_hash HAVING count(*) > 1
