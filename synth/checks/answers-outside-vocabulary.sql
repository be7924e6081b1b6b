-- description: An answer that the vocabulary of its template does not have.
-- severity: error
-- scope: pair
-- needs: pairs, templates
SELECT p.pair_id, p.template_id, p.answers, t.vocabulary
FROM pairs AS p JOIN templates AS t USING (template_id)
WHERE len(t.vocabulary) > 0 AND NOT list_has_all(t.vocabulary, p.answers)
