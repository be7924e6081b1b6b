-- description: A closed question without an answer, or an answer that is blank.
-- severity: error
-- scope: pair
-- needs: pairs, templates
SELECT p.pair_id, p.template_id, p.answers
FROM pairs AS p LEFT JOIN templates AS t USING (template_id)
WHERE p.answers IS NULL
   OR (len(p.answers) = 0 AND (len(t.vocabulary) > 0 OR len(p.options) > 0))
   OR len(list_filter(p.answers, lambda a: a IS NULL OR trim(a) = '')) > 0
