-- description: Two pairs with the same pair_id.
-- severity: error
-- scope: corpus
-- needs: pairs, pair_keys
SELECT pair_id, count(*) AS times, list(DISTINCT template_id) AS template_ids FROM pairs
WHERE hash(pair_id) IN (SELECT pair FROM pair_keys GROUP BY pair HAVING count(*) > 1)
GROUP BY pair_id HAVING count(*) > 1
