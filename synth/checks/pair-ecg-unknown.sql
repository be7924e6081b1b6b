-- description: A pair about an ECG that the table ecgs does not have, or about the same ECG twice.
-- severity: error
-- scope: pair
-- needs: pair_ecgs, pairs, ecgs
SELECT p.pair_id, p.template_id, p.ecg_id, 'not in ecgs' AS problem
FROM pair_ecgs AS p ANTI JOIN ecgs USING (ecg_id)
UNION ALL
SELECT pair_id, template_id, ecg_ids[1], 'named twice'
FROM pairs WHERE len(list_distinct(ecg_ids)) <> len(ecg_ids)
