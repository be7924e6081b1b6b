-- description: A choice whose question does not name all its options.
-- severity: warning
-- scope: pair
-- needs: pairs
SELECT pair_id, template_id, options, messages[1].content AS question FROM pairs
WHERE question_type LIKE '%-choose' AND len(messages) = 2
  AND len(list_filter(options, lambda o: NOT contains(lower(messages[1].content), lower(o)))) > 0
