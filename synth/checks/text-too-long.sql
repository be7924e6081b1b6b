-- description: A message of more than 8,000 characters.
-- severity: error
-- scope: pair
-- needs: messages
SELECT pair_id, template_id, turn, role, length(content) AS characters, left(content, 200) AS beginning
FROM messages WHERE strlen(content) > 8000 AND length(content) > 8000
