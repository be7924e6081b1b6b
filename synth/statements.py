"""The statements made of an ECG, and those that can be called absent, beside what the criteria say of them.

SQL that fills tables of `ecglm.synth.facts.Derivation`. It needs the tables `measured_ecgs`, `source_labels` and
`norm_findings`, the views `verdicts`, `shortfalls` and `unsure`, and the guidelines.
"""

from __future__ import annotations

from ecglm.synth.reports import REMARK_SQL

_CERTAINTY_PHRASE = (
    "CASE certainty WHEN 'probable' THEN 'probable ' || name WHEN 'possible' THEN 'possible ' || name"
    " WHEN 'not_excluded' THEN name || ' (cannot be excluded)' WHEN 'unknown' THEN name || ' (likelihood not given)'"
    " ELSE phrase END"
)

SUREST_FIRST = (
    "((CASE certainty WHEN 'probable' THEN 1 WHEN 'possible' THEN 2 WHEN 'not_excluded' THEN 3 WHEN 'unknown' THEN 4"
    " ELSE 0 END)::BIGINT * 1000000000 + label_index)"
)
"""Order of statements in a sentence: `possible` before one statement must not seem to qualify those after it."""

MOST = 1000
"""Statements or criteria of one ECG, at most; `arg_min(…, place, MOST)` lists them in order, and sorts no group."""

CONTRADICTIONS = f"""
SELECT ecg_id, code, and_join(arg_min(evidence_text, place, {MOST})) AS contradiction,
       array_to_string(list_sort(list(DISTINCT citation)), '; ') AS contradiction_citation,
       flatten(arg_min(evidence, place, {MOST})) AS contradiction_evidence
FROM (
    SELECT * FROM (
        SELECT *, bool_or(role = 'defining') OVER (PARTITION BY ecg_index, code) AS some_defining,
            abs(evidence[1].value - try_cast(regexp_extract(evidence[1].limit, '-?[0-9.]+') AS DOUBLE)) AS missed_by
        FROM shortfalls
    )
    WHERE role = 'defining' OR NOT some_defining
    -- one value that misses several limits is quoted once, with the nearest; what falls short of two rules, once
    QUALIFY (len(evidence) <> 1 OR row_number() OVER (
        PARTITION BY ecg_index, code, len(evidence), evidence[1].name, evidence[1].value ORDER BY missed_by, place
    ) = 1) AND row_number() OVER (
        PARTITION BY ecg_index, code, evidence_text ORDER BY len(evidence), place
    ) = 1
)
SEMI JOIN (FROM verdicts WHERE labelled AND support = 'contradicted') USING (ecg_index, code)
GROUP BY ecg_id, code
"""

LABELS = f"""
SELECT *, {_CERTAINTY_PHRASE} AS certainty_phrase FROM (
    SELECT l.ecg_id, e.ecg_index, l.label_index, l.code, l.likelihood, l.certainty, l.kinds, l.superclass, l.subclass,
           coalesce(g.name, l.code) AS name, coalesce(g.phrase, l.code) AS phrase,
           coalesce(s.support, CASE WHEN g.criteria_text IS NULL THEN 'no_criteria' ELSE 'not_assessable' END)
               AS support, e.annotation_text,
           [{{'name': 'annotated ' || l.code, 'unit': '%', 'limit': NULL::VARCHAR,
              'value': CASE WHEN l.certainty NOT IN ('stated', 'unknown') THEN l.likelihood::DOUBLE END}}] AS evidence,
           c.contradiction, c.contradiction_citation, c.contradiction_evidence
    FROM source_labels l
    JOIN measured_ecgs e USING (ecg_id)
    LEFT JOIN guidelines g ON g.code = l.code
    LEFT JOIN (FROM verdicts WHERE labelled) s ON s.ecg_index = e.ecg_index AND s.code = l.code
    LEFT JOIN contradictions c ON c.ecg_id = l.ecg_id AND c.code = l.code
)
"""

NEGATIVES = """
WITH candidates AS (
    SELECT l.ecg_index, c.other_code AS code, arg_min(l.label_index, stable_hash(l.ecg_id || l.code)) AS label_index
    FROM labels l JOIN confusions c ON c.code = l.code JOIN guidelines g ON g.code = c.other_code
    WHERE c.other_code <> 'NORM' AND l.certainty <> 'unknown'
      AND len(list_intersect(g.kinds, ['diagnostic', 'form', 'rhythm'])) > 0  -- what a source could have stated
    GROUP BY ALL
),
absent AS (
    FROM candidates
    ANTI JOIN labels USING (ecg_index, code)
    ANTI JOIN (SELECT l.ecg_index, o.code FROM labels l JOIN overlapping o ON o.other_code = l.code) AS overlapped
        USING (ecg_index, code)
    ANTI JOIN unsure USING (ecg_index, code)
),
judged AS (
    FROM verdicts SEMI JOIN absent USING (ecg_index, code)
)
SELECT l.ecg_id, l.ecg_index, n.code, c.other_name AS name, c.other_phrase AS phrase,
       l.code AS because_code, l.name AS because_name, l.phrase AS because_phrase, c.how, l.annotation_text,
       coalesce(v.refuted, false) AS refuted, coalesce(v.support = 'met', false) AS suggested,
       v.refuted_evidence AS evidence, v.refuted_text AS evidence_text, v.refuted_citation AS citation,
       CASE WHEN v.support = 'met' THEN v.met_text END AS suggestion,
       CASE WHEN v.support = 'met' THEN v.met_citation END AS suggestion_citation,
       CASE WHEN v.support = 'met' THEN v.met_evidence END AS suggestion_evidence,
       stable_hash(l.ecg_id || ':' || n.code) AS draw
FROM absent n
JOIN labels l ON l.label_index = n.label_index
JOIN confusions c ON c.code = l.code AND c.other_code = n.code
LEFT JOIN judged v ON v.ecg_index = n.ecg_index AND v.code = n.code
"""

NORMALITY = f"""
WITH named AS (
    SELECT ecg_id, 0 AS part, label_index AS place, certainty_phrase AS words FROM labels
    WHERE code <> 'NORM' AND (list_contains(kinds, 'diagnostic') OR list_contains(kinds, 'form')
                              OR code NOT IN ('SR', 'SARRH'))
    UNION ALL
    SELECT ecg_id, 1, row_number() OVER (PARTITION BY ecg_id ORDER BY criterion), evidence_text FROM norm_findings
    WHERE verdict = 'not_met' AND evidence_text IS NOT NULL
    UNION ALL
    SELECT ecg_id, 2, 0, 'extra beats' FROM measured_ecgs
    WHERE extra_beats IS NOT NULL
      AND ecg_id NOT IN (SELECT ecg_id FROM labels WHERE code IN ('PVC', 'PAC', 'PRC(S)', 'BIGU', 'TRIGU'))
    UNION ALL
    SELECT ecg_id, 3, 0, 'a pacemaker' FROM measured_ecgs WHERE pacemaker
), exceptions AS (
    FROM named
    UNION ALL
    SELECT ecg_id, 4, 0, 'a further remark in the report' FROM measured_ecgs
    WHERE {REMARK_SQL} AND ecg_id NOT IN (SELECT ecg_id FROM named)
)
SELECT n.ecg_id, x.words IS NULL AND n.likelihood >= 80 AS normal_assertable,
       CASE WHEN n.likelihood >= 80 THEN x.words END AS normal_exceptions  -- a doubtful "normal" is not called one
FROM (SELECT ecg_id, likelihood FROM labels WHERE code = 'NORM') n
LEFT JOIN (SELECT ecg_id, and_join(list(words ORDER BY part, place)) AS words FROM exceptions GROUP BY ecg_id) x
USING (ecg_id)
"""
