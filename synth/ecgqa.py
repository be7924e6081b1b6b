"""What ECG-QA's questions are answered from: its names of statements, its ranges, and one row per ECG in its words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ecglm.synth.database import LockedConnection, quote_identifier, quote_text
from ecglm.synth.guidelines import GuidelineSet
from ecglm.synth.schema import ECGQA_ECGS, NOISE_COLUMNS
from ecglm.synth.yaml_files import read_yaml

_Words = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class Statement(BaseModel):
    """A statement of PTB-XL under its name in ECG-QA."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: _Words
    option: bool = True
    """Whether the answers of ECG-QA name it; the rarest it only asks about."""
    ask_absent: float = Field(ge=0, le=1)
    """Of the ECGs without it, the part that is asked about it."""


class Feature(BaseModel):
    """A measured interval with the range ECG-QA's questions call normal; ends included."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    column: _Words
    lowest: float | None
    highest: float
    highest_women: float | None = None
    source: _Words


class Attributes(BaseModel):
    """templates/ecgqa/attributes.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    statements: dict[str, Statement]
    superclasses: dict[str, _Words]
    features: dict[str, Feature]
    noises: dict[str, _Words]
    """Column of `ecgs` → its name in ECG-QA."""


@cache
def attributes() -> Attributes:
    """ECG-QA's words, as they come with ecglm."""
    path = Path(str(resources.files("ecglm.templates"))) / "ecgqa" / "attributes.yaml"
    return Attributes.model_validate(read_yaml(path))


def ecgqa_statements(guidelines: GuidelineSet) -> pa.Table:
    """View `ecgqa_statements`: one row per statement ECG-QA asks about."""
    rows = [
        {
            "code": code,
            "attribute": statement.name,
            "kinds": list(guidelines.by_code[code].kinds) if code in guidelines.by_code else [],
            "is_option": statement.option,
            "ask_absent": statement.ask_absent,
        }
        for code, statement in sorted(attributes().statements.items())
    ]
    texts = pa.list_(pa.string())
    kinds = {"code": pa.string(), "attribute": pa.string(), "kinds": texts}
    return pa.Table.from_pylist(rows, pa.schema({**kinds, "is_option": pa.bool_(), "ask_absent": pa.float64()}))


def derive_ecgqa(views: Mapping[str, pa.Table], guidelines: GuidelineSet, listed: pa.Table | None) -> pa.Table:
    """View `ecgqa`: one row per ECG with what ECG-QA asks about, in its words.

    Args:
        views: `facts`, `labels` and `findings` of the ECGs.
        guidelines: say of which kinds a statement is, and which overlap.
        listed: the table `ecgqa_ecgs`; None where no list was given: then the ECGs are split as in the corpus.
    """
    overlaps = {(code, other) for code, guideline in guidelines.by_code.items() for other in guideline.overlaps}
    pairs = sorted(overlaps | {(other, code) for code, other in overlaps})
    tables = {
        **{name: views[name] for name in ("facts", "labels", "findings")},
        "overlapping": pa.table({"code": [a for a, _ in pairs], "other_code": [b for _, b in pairs]}),
        "ecgqa_statements": ecgqa_statements(guidelines),
        "listed": ECGQA_ECGS.empty_table() if listed is None else listed,
    }
    split = "l.ecgqa_split"
    if listed is None:
        split = "CASE f.split WHEN 'validation' THEN 'valid' ELSE f.split END"
    with LockedConnection(tables) as connection:
        return connection.select(_ECGQA.replace("$split", split))


def derive_compared(ecgqa: pa.Table) -> pa.Table:
    """View `ecgqa_compared`: two ECGs of one patient in a row (`consecutive`), or of two patients (`irrelevant`)."""
    with LockedConnection({"ecgqa": ecgqa}) as connection:
        return connection.select(_COMPARED)


def _named(condition: str, name: str) -> str:
    listed = f"list(s.attribute ORDER BY l.label_index) FILTER ({condition})"
    return f"coalesce({listed}, []) AS {name}"


def _superclass_words() -> str:
    cases = " ".join(
        f"WHEN {quote_text(code)} THEN {quote_text(name)}" for code, name in attributes().superclasses.items()
    )
    return f"CASE l.superclass {cases} END"


def _features() -> str:
    parts = []
    for name, feature in attributes().features.items():
        value = f"f.{quote_identifier(feature.column)}"
        women = feature.highest_women
        highest = f"{feature.highest}"
        if women is not None:
            highest = f"CASE f.sex WHEN 'female' THEN {women} WHEN 'male' THEN {highest} END"
        lowest = "false" if feature.lowest is None else f"{value} < {feature.lowest}"
        place = (
            f"CASE WHEN {lowest} THEN 'below the normal range' WHEN {value} > {highest} THEN 'above the normal range'"
            f" WHEN {value} <= {highest} THEN 'within the normal range' END"
        )
        parts.append(
            f"{{'feature': {quote_text(name)}, 'column': {quote_text(feature.column)}, 'value': {value},"
            f" 'place': {place}}}"
        )
    return f"[{', '.join(parts)}]"


_ECTOPY_IN_REPORT = (
    r"extrasyst|extraslag|premature|ectop|ektop|bigem|trigem|couplet|(^|[^a-z])(sv|v)?es([^a-z]|$)|vorhof-es"
)
_NOISES = ", ".join(
    f"CASE WHEN f.{column} IS NOT NULL THEN {quote_text(attributes().noises[column])} END" for column in NOISE_COLUMNS
)
_NOISY_LEADS = ", ".join(f"coalesce(f.{column}, [])" for column in NOISE_COLUMNS)
_CERTAIN = "l.certainty IN ('certain', 'stated', 'unknown')"

_ECGQA = f"""
WITH shown AS (
    SELECT l.ecg_id,
        {_named("list_contains(l.kinds, 'diagnostic')", "diagnostic")},
        {_named("list_contains(l.kinds, 'form')", "form")},
        {_named("list_contains(l.kinds, 'rhythm')", "rhythm")},
        {_named("true", "statements")},
        {_named(f"NOT ({_CERTAIN})", "uncertain")},
        coalesce(list(DISTINCT kind ORDER BY kind) FILTER (NOT s.is_option), []) AS kinds_without_option,
        coalesce(list(DISTINCT {_superclass_words()}) FILTER (l.superclass <> 'NORM'), []) AS superclasses,
        coalesce(list(DISTINCT {_superclass_words()}) FILTER (l.superclass <> 'NORM' AND {_CERTAIN}), [])
            AS superclasses_certain
    FROM (SELECT *, kinds[1] AS kind FROM labels) AS l JOIN ecgqa_statements AS s USING (code) GROUP BY l.ecg_id
), measured AS (
    SELECT f.ecg_id, list_filter({_features()}, lambda x: x.place IS NOT NULL AND f.age_years >= 18) AS features
    FROM facts AS f
), doubts AS (
    SELECT ecg_id, list(DISTINCT s.attribute ORDER BY s.attribute) AS doubtful FROM (
        SELECT l.ecg_id, o.other_code AS code FROM labels AS l JOIN overlapping AS o USING (code)
        UNION ALL SELECT ecg_id, unnest(['PAC', 'PRC(S)', 'PVC']) FROM facts WHERE extra_beats IS NOT NULL
        UNION ALL SELECT ecg_id, unnest(['SARRH', 'SBRAD', 'SR', 'STACH']) FROM facts WHERE len(rhythm_codes) = 0
    ) AS d JOIN ecgqa_statements AS s USING (code)
    WHERE NOT EXISTS (SELECT 1 FROM labels AS p WHERE p.ecg_id = d.ecg_id AND p.code = d.code)
      AND NOT EXISTS (SELECT 1 FROM findings AS r WHERE r.ecg_id = d.ecg_id AND r.code = d.code
                      AND r.role = 'defining' AND r.verdict = 'not_met')
    GROUP BY ecg_id
), extra AS (
    SELECT f.ecg_id, list_filter([
            CASE WHEN regexp_matches(f.extra_beats, '(^|[^VS])ES|^[0-9]+,') THEN 'extrasystoles' END,
            CASE WHEN contains(f.extra_beats, 'SVES') THEN 'supraventricular extrasystoles' END,
            CASE WHEN regexp_matches(f.extra_beats, '(^|[^S])VES') THEN 'ventricular extrasystoles' END
        ], lambda x: x IS NOT NULL) AS extra_systoles
    FROM facts AS f
)
SELECT f.ecg_id, f.ecg_index, f.patient_id, f.split, f.previous_ecg_id, $split AS ecgqa_split,
    coalesce(s.diagnostic, []) AS diagnostic, coalesce(s.form, []) AS form, coalesce(s.rhythm, []) AS rhythm,
    coalesce(s.statements, []) AS statements, coalesce(s.uncertain, []) AS uncertain,
    coalesce(d.doubtful, []) AS doubtful,
    coalesce(s.kinds_without_option, []) AS kinds_without_option,
    coalesce(s.superclasses, []) AS superclasses, coalesce(s.superclasses_certain, []) AS superclasses_certain,
    f.labelled_normal, f.normal_assertable,
    CASE f.axis_class WHEN 'normal' THEN 'normal heart axis' WHEN 'left' THEN 'left axis deviation'
        WHEN 'right' THEN 'right axis deviation' WHEN 'extreme' THEN 'extreme axis deviation' END AS axis,
    f.QRS_AxisFront_Global AS axis_degrees,
    coalesce((f.heart_axis = 'MID' AND f.axis_class <> 'normal') OR (f.heart_axis = 'ALAD' AND f.axis_class <> 'left')
        OR (f.heart_axis = 'ARAD' AND f.axis_class <> 'right'), false) AS axis_disputed,
    list_distinct(list_transform(coalesce(f.infarction_stages, []), lambda x:
        CASE WHEN x IN ('I', 'I-II') THEN 'early stage of myocardial infarction'
             WHEN x IN ('II', 'II-III') THEN 'middle stage of myocardial infarction'
             WHEN x = 'III' THEN 'old stage of myocardial infarction'
             ELSE 'unknown stage of myocardial infarction' END)) AS stages,
    coalesce(list_contains(s.superclasses, 'myocardial infarction'), false) AS infarction_stated,
    list_filter([{_NOISES}], lambda x: x IS NOT NULL) AS noises,
    {", ".join(f"coalesce(f.{column}, []) AS {column}" for column in NOISE_COLUMNS)},
    list_distinct(list_concat({_NOISY_LEADS})) AS noisy_leads,
    x.extra_systoles,
    coalesce(contains(f.extra_beats, '?'), false) OR (f.extra_beats IS NOT NULL AND len(x.extra_systoles) = 0)
        OR (f.extra_beats IS NULL AND (len(list_intersect(f.codes, ['PVC', 'PAC', 'PRC(S)', 'BIGU', 'TRIGU'])) > 0
            OR coalesce(regexp_matches(lower(f.report), {quote_text(_ECTOPY_IN_REPORT)}), false)))
        OR (f.extra_beats IS NOT NULL AND list_contains(f.codes, 'PVC')
            AND NOT list_contains(x.extra_systoles, 'ventricular extrasystoles'))
        OR (f.extra_beats IS NOT NULL AND list_contains(f.codes, 'PAC')
            AND NOT list_contains(x.extra_systoles, 'supraventricular extrasystoles')) AS extra_systoles_disputed,
    m.features,
    list_transform(list_filter(m.features, lambda x: x.place = 'within the normal range'), lambda x: x.feature)
        AS normal_features,
    list_transform(list_filter(m.features, lambda x: x.place <> 'within the normal range'), lambda x: x.feature)
        AS abnormal_features
FROM facts AS f JOIN measured AS m USING (ecg_id) JOIN extra AS x USING (ecg_id)
LEFT JOIN shown AS s USING (ecg_id) LEFT JOIN doubts AS d USING (ecg_id) LEFT JOIN listed AS l USING (ecg_id)
ORDER BY f.ecg_index
"""

_OF_BOTH = (
    "statements",
    "uncertain",
    "doubtful",
    "kinds_without_option",
    "features",
    "normal_features",
    "abnormal_features",
)
_COMPARED = f"""
WITH ranked AS (
    SELECT ecg_id, patient_id, split, ecgqa_split,
        row_number() OVER (PARTITION BY split, ecgqa_split ORDER BY stable_hash(ecg_id || ':irrelevant'), ecg_id)
            AS place
    FROM ecgqa
), linked AS (
    SELECT 'consecutive' AS kind, previous_ecg_id AS first_ecg_id, ecg_id AS second_ecg_id FROM ecgqa
    WHERE previous_ecg_id IS NOT NULL
    UNION ALL
    SELECT 'irrelevant', a.ecg_id, b.ecg_id FROM ranked AS a JOIN ranked AS b
        ON b.place BETWEEN a.place + 1 AND a.place + 2 AND b.split = a.split
        AND b.ecgqa_split IS NOT DISTINCT FROM a.ecgqa_split AND b.patient_id <> a.patient_id
)
SELECT k.kind, k.second_ecg_id AS ecg_id, k.first_ecg_id, [k.first_ecg_id, k.second_ecg_id] AS ecg_ids, b.ecg_index,
    {", ".join(f"a.{name} AS first_{name}, b.{name} AS second_{name}" for name in _OF_BOTH)}
FROM linked AS k JOIN ecgqa AS a ON a.ecg_id = k.first_ecg_id JOIN ecgqa AS b ON b.ecg_id = k.second_ecg_id
ORDER BY b.ecg_index, k.kind, k.first_ecg_id
"""
