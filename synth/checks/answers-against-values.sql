-- description: An answer that is a number which no value of its evidence rounds to, nor what they give together: a difference, an angle, a QTc.
-- severity: error
-- scope: pair
-- needs: pairs
WITH numbers AS (
    SELECT pair_id, template_id, ecg_ids, answers, evidence, messages[1].content AS question,
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
           -- the angle between two axes
           WHEN len(list_filter(evidence, lambda e: e.unit = '°' AND e."limit" IS NULL)) = 2
           THEN abs(acos(greatest(-1, least(1, cos(radians(evidence[2].value - evidence[1].value))))) * 180 / pi() - number) > 2 * tolerance
           -- QTc by Bazett at another rate of a measured QT, as the question gives it
           WHEN template_id = 'counterfactual-qtc-at-rate'
           THEN abs(evidence[1].value * sqrt(regexp_extract(question, '\b(\d{2,3})\b', 1)::DOUBLE / 60) - number) > tolerance
           -- depths of S waves are given without their sign
           ELSE len(list_filter(evidence, lambda e: abs(e.value - number) <= tolerance
                                                    OR (e.unit = 'mV' AND abs(abs(e.value) - number) <= tolerance)
                                                    -- how far a value is from its limit
                                                    OR abs(abs(e.value - regexp_extract(e."limit", '-?\d+(?:\.\d+)?')::DOUBLE) - number) <= tolerance)) = 0 END
