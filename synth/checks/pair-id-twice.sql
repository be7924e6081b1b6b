-- description: Two pairs with the same pair_id.
-- severity: error
-- scope: corpus
-- needs: pairs
WITH repeated AS (SELECT hash(pair_id) AS key FROM pairs GROUP BY key HAVING count(*) > 1)
SELECT pair_id, any_value(template_id) AS template_id, count(*) AS times
FROM pairs WHERE hash(pair_id) IN (SELECT key FROM repeated) GROUP BY pair_id HAVING count(*) > 1
