-- description: A closed answer whose words do not occur in the reply, so that reading the reply cannot recover it.
-- severity: warning
-- scope: pair
-- needs: pairs, templates
SELECT p.pair_id, p.template_id, p.answers, p.messages[-1].content AS text
FROM pairs AS p JOIN templates AS t USING (template_id)
WHERE len(p.messages) = 2 AND (len(t.vocabulary) > 0 OR len(p.options) > 0)
  AND len(list_filter(p.answers, lambda a: NOT contains(lower(p.messages[-1].content), lower(a)))) > 0
