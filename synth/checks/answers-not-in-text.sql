-- description: A closed answer whose words do not occur in the reply, so that reading the reply cannot recover it.
-- severity: warning
-- scope: pair
-- needs: pairs, templates
WITH closed AS (
    SELECT p.pair_id, p.template_id, p.answers, lower(p.messages[-1].content) AS reply
    FROM pairs AS p JOIN templates AS t USING (template_id)
    WHERE len(p.messages) = 2 AND (len(t.vocabulary) > 0 OR len(p.options) > 0)
)
SELECT pair_id, template_id, answers, reply FROM closed
WHERE len(list_filter(answers, lambda a: NOT contains(reply, lower(a)))) > 0
  AND NOT (len(answers) = 12 AND regexp_matches(reply, '\ball (?:twelve |12 )?leads\b'))
