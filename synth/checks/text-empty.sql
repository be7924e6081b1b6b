-- description: A message that is empty, or begins or ends with white space.
-- severity: error
-- scope: pair
-- needs: messages
SELECT pair_id, template_id, turn, role, content FROM messages WHERE content IS NULL OR content = '' OR trim(content, E' \t\r\n') <> content
