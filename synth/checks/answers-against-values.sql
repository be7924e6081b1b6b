-- description: An answer that is a number which no value of its evidence rounds to, nor, of two ECGs, their difference.
-- severity: error
-- scope: pair
-- needs: pairs
WITH numbers AS (
    SELECT pair_id, template_id, ecg_ids, answers, evidence,
           regexp_extract(answers[1], '^(-?\d+(?:\.\d+)?) ?(?:ms|mV|°|/min|beats)?$', 1) AS digits
    FROM pairs WHERE len(answers) = 1 AND len(evidence) > 0
),
rounded AS (
    SELECT *, digits::DOUBLE AS number, 0.5000001 / pow(10, length(split_part(digits, '.', 2))) AS tolerance
    FROM numbers WHERE digits <> ''
)
SELECT pair_id, template_id, answers, evidence FROM rounded
WHERE CASE WHEN len(ecg_ids) = 2 AND len(evidence) = 2
           -- a difference may be taken before or after rounding
           THEN abs(evidence[2].value - evidence[1].value - number) > 2 * tolerance
           -- depths of S waves are given without their sign
           ELSE len(list_filter(evidence, lambda e: abs(e.value - number) <= tolerance
                                                    OR (e.unit = 'mV' AND abs(abs(e.value) - number) <= tolerance))) = 0 END
