-- description: A message with doubled spaces or stops, a space before a comma or stop, or an unbalanced bracket or quote.
-- severity: error
-- scope: pair
-- needs: texts
SELECT pair_id, template_id, role, times, content FROM texts
WHERE contains(content, '  ') OR regexp_matches(content, ' [,.;:?!)](?:\s|$)|\( |,[,.]|[.]{2}|[;:?!][,.;:]|\?\?|\n\n\n')
   OR strlen(replace(content, '(', '')) <> strlen(replace(content, ')', ''))
   OR strlen(replace(content, '[', '')) <> strlen(replace(content, ']', ''))
   OR (strlen(content) - strlen(replace(content, '"', ''))) % 2 = 1
