-- description: A question to choose from options that does not name them all.
-- severity: warning
-- scope: pair
-- needs: pairs
SELECT pair_id, template_id, options, messages[1].content AS question FROM pairs
WHERE family = 'choose' AND len(messages) = 2
  AND len(list_filter(options, lambda o: NOT contains(lower(messages[1].content), lower(o)))) > 0
