"""The one place that joins sources, measurements and guidelines into what templates see.

Everything here is SQL on the locked connection, or runs over whole columns; no Python runs per row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.criteria import empty_measured_ecgs
from ecglm.synth.database import PLAN_FAST, LockedConnection
from ecglm.synth.explained import unexplained, width_explained
from ecglm.synth.findings import Decided, decide, rules_of
from ecglm.synth.findings_view import FINDINGS_OF, findings_view
from ecglm.synth.gate import DOUBTS
from ecglm.synth.guideline_tables import relation_tables, rows_of_rules
from ecglm.synth.guidelines import GuidelineSet
from ecglm.synth.lead_values import LEAD_FINDINGS, LEAD_VALUES
from ecglm.synth.measure.dictionary import columns_of, measurements
from ecglm.synth.reports import REPORTS_SQL
from ecglm.synth.schema import NOISE_COLUMNS
from ecglm.synth.statements import CONTRADICTIONS, LABELS, MOST, NEGATIVES, NORMALITY, SUREST_FIRST
from ecglm.synth.steps import STEPS
from ecglm.synth.verdicts import codes_of, criteria_of, statement_of, verdicts_view

ECG_VIEWS = (
    "facts",
    "lead_values",
    "labels",
    "negatives",
    "findings",
    "verdicts",
    "comparisons",
    "ecgqa",
    "ecgqa_compared",
)
"""Views with rows per ECG."""
KNOWLEDGE_VIEWS = (
    "guidelines",
    "guideline_criteria",
    "confusions",
    "overlapping",
    "synonyms",
    "walls",
    "statement_walls",
    "ecgqa_statements",
    "gate",
)
"""Views without rows per ECG."""
ACROSS_BLOCKS = ("comparisons", "ecgqa_compared")
"""Views of two ECGs, which may be of two blocks."""
OVER_VIEWS = {"doubts": DOUBTS, "findings_of": FINDINGS_OF}
"""What SQL of ours adds to them in each connection; its words are the views and columns that it reads."""


def _leads_text(column: str) -> str:
    return (
        f"CASE WHEN {column} IS NULL THEN NULL WHEN list_contains({column}, 'lead_unknown') THEN 'an unnamed lead'"
        f" WHEN len({column}) = 12 THEN 'all leads' WHEN len({column}) = 1 THEN 'lead ' || {column}[1]"
        f" ELSE 'leads ' || and_join({column}) END AS {column}_text"
    )


def _kind_text(kind: str, name: str) -> str:
    chosen = f"list_contains(kinds, '{kind}') AND code <> 'NORM'"
    return (
        f"and_join(arg_min(certainty_phrase, {SUREST_FIRST}, {MOST}) FILTER ({chosen})) AS {name}_text,"
        f" coalesce(arg_min(code, label_index, {MOST}) FILTER (list_contains(kinds, '{kind}')), []) AS {name}_codes"
    )


_RHYTHM_DOUBTFUL = (
    "coalesce((list_contains(s.rhythm_codes, 'SR') AND HR__Global > 130)"
    " OR (len(list_intersect(s.rhythm_codes, ['SR', 'SARRH', 'SBRAD', 'STACH'])) > 0 AND regexp_matches(lower(report),"
    " 'kein[a-z]* p-?(welle|zacke)|inga p-v|no p wave|knoten|nodal|junctional|vorhofrhythm|atrial rhythm"
    "|ersatzrhythm|escape')), false)"
)
"""Sinus rhythm is stated, but the rate or the report speaks against it."""

_STAGE_DOUBTFUL = (
    "coalesce(list_contains(infarction_stages, 'unknown')"
    " AND regexp_matches(replace(lower(report), 'alter unbest', ''),"
    r" '\b(chron|(old|alte?[rn]?|recent|acute)\b|akut|subakut|frisch|gammal|f.rsk)'), false)"
)
"""The stage of an infarction is given as unknown, but the report calls one old or recent."""

_FACTS = f"""
WITH stated AS (
    SELECT ecg_id, {_kind_text("rhythm", "rhythm")}, {_kind_text("diagnostic", "diagnostic")},
           {_kind_text("form", "form")},
           and_join(arg_min(certainty_phrase, {SUREST_FIRST}, {MOST})
                    FILTER (code <> 'NORM')) AS statements_text,
           and_join(arg_min(certainty_phrase, {SUREST_FIRST}, {MOST})
                    FILTER (code <> 'NORM' AND kinds <> ['rhythm'])) AS findings_text,
           arg_min(code, label_index, {MOST}) AS codes,
           flatten(arg_min(evidence, label_index, {MOST})) AS label_evidence,
           coalesce(arg_min(code, label_index, {MOST}) FILTER (certainty IN ('stated', 'certain', 'probable')), [])
               AS firm_codes,
           coalesce(list(DISTINCT superclass ORDER BY superclass) FILTER (superclass IS NOT NULL), []) AS superclasses,
           coalesce(arg_min({{'code': code, 'name': name, 'text': contradiction, 'evidence': contradiction_evidence}},
                         label_index, {MOST}) FILTER (contradiction IS NOT NULL), []) AS contradictions
    FROM labels GROUP BY ecg_id
)
SELECT
    CASE sex WHEN 'female' THEN CASE WHEN age_years < 18 THEN 'girl' ELSE 'woman' END
             WHEN 'male' THEN CASE WHEN age_years < 18 THEN 'boy' ELSE 'man' END ELSE 'patient' END AS sex_noun,
    CASE WHEN age_years IS NULL THEN sex_noun || ' of unknown age'
         WHEN age_capped THEN sex_noun || ' over 89 years old'
         ELSE printf('%.0f', floor(age_years)) || '-year-old ' || sex_noun END AS patient_text,
    s.rhythm_text, coalesce(s.rhythm_codes, []) AS rhythm_codes,
    coalesce(s.diagnostic_text, CASE WHEN n.normal_assertable THEN 'a normal ECG' END) AS diagnoses_text,
    coalesce(s.diagnostic_codes, []) AS diagnostic_codes,
    s.form_text, coalesce(s.form_codes, []) AS form_codes,
    coalesce(s.statements_text, CASE WHEN n.normal_assertable THEN 'a normal ECG' END) AS statements_text,
    coalesce(s.codes, []) AS codes, coalesce(s.firm_codes, []) AS firm_codes,
    coalesce(s.superclasses, []) AS superclasses, s.label_evidence,
    coalesce(s.contradictions, []) AS contradictions,
    n.ecg_id IS NOT NULL AS labelled_normal, coalesce(n.normal_assertable, false) AS normal_assertable,
    n.normal_exceptions, {_RHYTHM_DOUBTFUL} AS rhythm_doubtful,
    {_STAGE_DOUBTFUL} AS stage_doubtful,
    CASE WHEN n.normal_assertable THEN 'a normal ECG'
         WHEN n.ecg_id IS NOT NULL THEN 'a normal ECG by its label, apart from ' || n.normal_exceptions
         ELSE s.findings_text END AS conclusion_text,
    r.report_text, r.report_problem,
    {", ".join(_leads_text(column) for column in NOISE_COLUMNS)},
    {" OR ".join(f"{column} IS NOT NULL" for column in NOISE_COLUMNS)} AS has_noise,
    CASE WHEN QRS_AxisFront_Global IS NULL THEN NULL
         WHEN QRS_AxisFront_Global BETWEEN -30 AND 90 THEN 'normal'
         WHEN QRS_AxisFront_Global >= -90 AND QRS_AxisFront_Global < -30 THEN 'left'
         WHEN QRS_AxisFront_Global > 90 THEN 'right' ELSE 'extreme' END AS axis_class,
    CASE heart_axis WHEN 'MID' THEN 'normal axis' WHEN 'LAD' THEN 'leftward axis'
         WHEN 'ALAD' THEN 'abnormal left axis deviation' WHEN 'RAD' THEN 'rightward axis'
         WHEN 'ARAD' THEN 'abnormal right axis deviation' WHEN 'AXL' THEN 'axis shifted to the left'
         WHEN 'AXR' THEN 'axis shifted to the right' WHEN 'SAG' THEN 'sagittal (S1S2S3) axis' END AS axis_label_words,
    w.* EXCLUDE (ecg_id), t.* EXCLUDE (ecg_id),
    quantity(HR__Global, '/min') AS rate_text,
    quantity(QRS_AxisFront_Global, '°') AS axis_text,
    quantity(PR_Int_Global, 'ms') AS pr_text,
    quantity(QRS_Dur_Global, 'ms') AS qrs_text,
    quantity(QT_Int_Global, 'ms') AS qt_text,
    quantity(QT_IntBazett_Global, 'ms') AS qtc_text
FROM measured_ecgs e
LEFT JOIN stated s USING (ecg_id) LEFT JOIN normality n USING (ecg_id) LEFT JOIN reports r USING (report_en)
LEFT JOIN lead_findings w USING (ecg_id) LEFT JOIN steps t USING (ecg_id)
ORDER BY e.ecg_index
"""
"""The columns that `facts` has beside those of `measured_ecgs`."""

_COMPARISONS = """
SELECT current.*, COLUMNS(earlier.*) AS 'previous_\\0',
    CASE WHEN days < 1 THEN 'less than a day' WHEN days < 2 THEN '1 day'
         WHEN days < 14 THEN printf('%.0f days', floor(days)) WHEN days < 60 THEN printf('%.0f weeks', floor(days / 7))
         WHEN days < 730 THEN printf('%.0f months', greatest(2, floor(days / 30.44)))
         ELSE printf('%.0f years', greatest(2, floor(days / 365.25))) END AS interval_text
FROM (SELECT * EXCLUDE (previous_ecg_id), previous_ecg_id AS before, days_since_previous AS days FROM facts) current
JOIN (SELECT * EXCLUDE (previous_ecg_id, days_since_previous) FROM facts) earlier ON earlier.ecg_id = current.before
ORDER BY current.ecg_index
"""


_GIVEN = {
    "measured_ecgs": "FROM given_ecgs",
    "source_labels": "FROM given_labels",
    "norm_findings": "FROM given_norm_findings",
    "contradictions": CONTRADICTIONS,
    "labels": LABELS,
    "negatives": NEGATIVES,
}
"""Tables filled from what is given for some ECGs, in this order."""
_DERIVED = {
    "normality": NORMALITY,
    "reports": REPORTS_SQL,
    "lead_values": LEAD_VALUES,
    "lead_findings": LEAD_FINDINGS,
    "steps": STEPS,
}
"""Tables filled from those above, and from nothing else, in this order."""

Keep = Callable[[str, pa.Table], pa.Table]
"""Called with the name of a view and the view; gives it back, maybe from the file it was written to."""


class Derivation:
    """Derives what templates see, for one set of ECGs after the other, on one connection.

    Planning the queries takes longer than answering them for a thousand ECGs. So the tables stay, empty in between,
    and a query that reads nothing else is planned once.
    """

    def __init__(self, guidelines: GuidelineSet) -> None:
        self._guidelines = guidelines
        self._connection = LockedConnection({}, setup=[PLAN_FAST])
        empty = no_ecgs().append_column("annotation_text", [pa.array([], pa.string())])
        with self._connection.lent({"given_ecgs": empty}):
            self._connection.create("measured_ecgs", _GIVEN["measured_ecgs"])
        self._made = {"measured_ecgs"}

    def __enter__(self) -> Derivation:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @cached_property
    def _relations(self) -> Mapping[str, pa.Table]:
        """The guidelines as tables."""
        return relation_tables(self._guidelines)

    @cached_property
    def _row_of_rule(self) -> npt.NDArray[np.int64]:
        """(n_rules,): the row of each criterion in the view `guideline_criteria`."""
        return rows_of_rules(rules_of(self._guidelines), self._relations["guideline_criteria"])

    def decide(self, measured_ecgs: pa.Table) -> Decided:
        """Every criterion decided for every ECG.

        Args:
            measured_ecgs: `ecgs` with `ecg_index`, by which it is ordered, and every measurement column (see
                `merge_measurements`).
        """
        with self._connection.lent({"given_ecgs": measured_ecgs}), self._connection.scratch():
            self._connection.insert("measured_ecgs", _GIVEN["measured_ecgs"])
            return decide(self._connection, self._guidelines)

    def views(self, measured_ecgs: pa.Table, labels: pa.Table, decided: Decided, keep: Keep) -> None:
        """Makes the views of ECGs that need no other ECGs: findings (what could be assessed), verdicts, facts,
        lead_values, labels and negatives, each in ECG order.

        Args:
            measured_ecgs: as for `decide`.
            labels: the `labels` table of these ECGs, in source order.
            decided: what `decide` gives for these ECGs.
            keep: called with each view.
        """
        measured_ecgs, stays = unexplained(measured_ecgs, decided, labels, self._guidelines)
        measured_ecgs = measured_ecgs.append_column("annotation_text", _annotations(measured_ecgs))
        label = _label_rows(decided, labels)
        explained = width_explained(measured_ecgs, labels, self._guidelines) & (label < 0)[:, statement_of(decided)]
        suggests = np.array([rule.suggests for _, rule in decided.rules], bool) & ~explained
        criteria, said_by = self._relations["guideline_criteria"], measured_ecgs["annotation_text"]
        findings = findings_view(decided, stays, suggests, label, labels, said_by, criteria, self._row_of_rule)
        findings = keep("findings", findings)
        telling = criteria["place"].to_numpy()[self._row_of_rule]
        judged = verdicts_view(decided, stays, suggests, label >= 0, findings, telling, self._guidelines)
        verdicts = keep("verdicts", judged)
        shortfalls = pc.and_(findings["labelled"], pc.equal(findings["verdict"], "not_met"))
        given = {
            "given_ecgs": measured_ecgs,
            "given_labels": labels.append_column("label_index", pa.array(np.arange(labels.num_rows))),
            "given_norm_findings": findings.filter(pc.equal(findings["code"], "NORM")),
            "shortfalls": findings.filter(pc.and_(shortfalls, findings["evidence_text"].is_valid())),
            "verdicts": verdicts,
            "unsure": decided.unsure,
            **self._relations,
        }
        connection = self._connection
        with connection.lent(given):
            self._lay_out()
            with connection.scratch():
                for name, select in _GIVEN.items():
                    connection.insert(name, select)
                for name, select in _DERIVED.items():
                    connection.insert(name, select, again=True)
                keep("facts", self._facts(measured_ecgs, findings))
                keep("lead_values", self._ordered("lead_values", "lead_number"))
                for name, order in (("labels", "label_index"), ("negatives", "code")):
                    view = self._ordered(name, order)
                    keep(name, view.append_column("criteria", criteria_of(view, findings)))

    def _lay_out(self) -> None:
        """Makes the tables, with the columns of what is given, when they are needed first."""
        for name, select in {**_GIVEN, **_DERIVED}.items():
            if name not in self._made:
                self._connection.create(name, f"FROM ({select}) LIMIT 0")
                self._made.add(name)

    def _facts(self, measured_ecgs: pa.Table, findings: pa.Table) -> pa.Table:
        derived = _rewritten(self._connection.select(_FACTS, again=True))
        norm = pa.table({"ecg_index": measured_ecgs["ecg_index"], "code": pa.repeat("NORM", derived.num_rows)})
        columns = {**_columns(measured_ecgs), **_columns(derived)}
        return pa.table({**columns, "norm_criteria": criteria_of(norm, findings)})

    def _ordered(self, name: str, order: str) -> pa.Table:
        return _rewritten(self._connection.select(f"FROM {name} ORDER BY ecg_index, {order}", again=True))


def decide_ecgs(measured_ecgs: pa.Table, guidelines: GuidelineSet) -> Decided:
    """`Derivation.decide` of these ECGs alone."""
    with Derivation(guidelines) as derivation:
        return derivation.decide(measured_ecgs)


def views_of(measured_ecgs: pa.Table, labels: pa.Table, guidelines: GuidelineSet) -> dict[str, pa.Table]:
    """`Derivation.views` of these ECGs alone."""
    views: dict[str, pa.Table] = {}
    with Derivation(guidelines) as derivation:
        derivation.views(measured_ecgs, labels, derivation.decide(measured_ecgs), lambda n, v: views.setdefault(n, v))
    return views


def no_ecgs() -> pa.Table:
    """`measured_ecgs` without rows."""
    return empty_measured_ecgs().add_column(0, "ecg_index", pa.array([], pa.int64()))


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))


def _annotations(ecgs: pa.Table) -> pa.ChunkedArray:
    """Who stands behind the statements of each ECG."""
    ids, unvalidated = ecgs["ecg_id"], pc.invert(pc.fill_null(ecgs["validated_by_human"], False))
    return pc.case_when(
        pc.make_struct(
            pc.starts_with(ids, "simulated:"),
            pc.and_(pc.starts_with(ids, "wfdb:"), unvalidated),
            pc.and_(pc.fill_null(ecgs["report_autogenerated"], False), unvalidated),
        ),
        "the simulator's annotation",
        "the source's annotation",
        "the unvalidated automatic annotation",
        "the cardiologist's annotation",
    )


def _label_rows(decided: Decided, labels: pa.Table) -> npt.NDArray[np.int64]:
    """(n_ecgs, n_codes): the row of `labels` that makes a statement of an ECG, -1 where none does."""
    codes = codes_of(decided)
    rows = np.full((len(decided.evaluated.ecg_id), len(codes)), -1)
    ecg = pc.fill_null(pc.index_in(labels["ecg_id"], value_set=decided.evaluated.ecg_id), -1).to_numpy()
    code = pc.fill_null(pc.index_in(labels["code"], value_set=pa.array(codes, pa.string())), -1).to_numpy()
    known = (ecg >= 0) & (code >= 0)
    rows[ecg[known], code[known]] = np.flatnonzero(known)
    return rows


def derive_comparisons(facts: pa.Table) -> pa.Table:
    """Each ECG beside the same patient's ECG before it: its facts, `previous_…` facts, and the interval."""
    with LockedConnection({"facts": facts}) as connection:
        return _rewritten(connection.select(_COMPARISONS))


def _rewritten(table: pa.Table) -> pa.Table:
    """The same rows, the same bytes every time: DuckDB leaves in the place of a NULL what was in memory."""
    return table.take(pa.array(range(table.num_rows), pa.int64()))


def merge_measurements(ecgs: pa.Table, providers: Sequence[tuple[str, pa.Table]], ecg_index: pa.Array) -> pa.Table:
    """`ecgs` with every known measurement: per value, the first provider that has it; NULL where none has.

    Args:
        ecgs: rows of the `ecgs` table.
        providers: (name, wide table with ecg_id) in order of preference.
        ecg_index: running number of each ECG in its source.
    """
    ids = ecgs["ecg_id"].combine_chunks()
    known: list[tuple[str, pa.Table, set[str]]] = []
    for provider, table in providers:
        places = pc.index_in(ids, value_set=table["ecg_id"].combine_chunks())
        known.append((provider, table.take(places), set(table.column_names)))
    merged = ecgs.append_column("ecg_index", ecg_index)
    columns = {name: merged[name] for name in merged.column_names}
    for name, measurement in measurements().items():
        found = [
            rows[column].cast(pa.float64())
            for provider, rows, there in known
            for column in columns_of(provider, measurement, there)
        ]
        columns[name] = pc.coalesce(*found) if found else pa.nulls(len(ids), pa.float64())
    return pa.table(columns)


def available_measurements(providers: Mapping[str, Sequence[str]]) -> set[str]:
    """Names of measurements that at least one provider's columns can give."""
    return {
        name
        for name, measurement in measurements().items()
        if any(columns_of(provider, measurement, columns) for provider, columns in providers.items())
    }
