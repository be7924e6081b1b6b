-- description: A conversation that is not user and assistant in turn, from user to assistant.
-- severity: error
-- scope: pair
-- needs: pairs
SELECT pair_id, template_id, list_transform(messages, lambda m: m.role) AS roles FROM pairs
WHERE len(messages) = 0 OR len(messages) % 2 = 1
   OR len(list_filter(messages, lambda m, i: m.role IS DISTINCT FROM CASE WHEN i % 2 = 1 THEN 'user' ELSE 'assistant' END)) > 0
