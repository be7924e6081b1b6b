-- description: A pair_id or content_hash that is not 32 hexadecimal digits.
-- severity: error
-- scope: pair
-- needs: pairs
SELECT pair_id, template_id, content_hash FROM pairs
WHERE NOT coalesce(regexp_full_match(pair_id, '[0-9a-f]{32}') AND regexp_full_match(content_hash, '[0-9a-f]{32}'), false)
