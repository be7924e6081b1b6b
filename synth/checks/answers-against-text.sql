-- description: A yes/no question whose answer and text disagree, or whose text says neither yes nor no.
-- severity: error
-- scope: pair
-- needs: pairs, templates
SELECT p.pair_id, p.template_id, p.answers, p.messages[-1].content AS text
FROM pairs AS p JOIN templates AS t USING (template_id)
WHERE list_sort(t.vocabulary) = ['no', 'yes'] AND len(p.messages) = 2
  AND regexp_extract(lower(p.messages[-1].content), '^(yes|no)\b') <> p.answers[1]
