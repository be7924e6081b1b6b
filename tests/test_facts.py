"""What templates see of an ECG: certainty in words, when "normal" and when "absent" may be said, and comparisons."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from ecglm.synth.facts import (
    available_measurements,
    derive_comparisons,
    merge_measurements,
    views_of,
)
from ecglm.synth.guidelines import GuidelineSet, guidelines_from_texts, load_guidelines
from ecglm.synth.schema import ECGS, LABELS, LEADS

SINUS = ("SR", 0.0, "stated", ["rhythm"])
NORMAL = ("NORM", 100.0, "certain", ["diagnostic"])
QUIET = {"HR__Global": 70.0, "QRS_AxisFront_Global": 40.0, "PR_Int_Global": 150.0, "QRS_Dur_Global": 90.0}

Label = tuple[str, float, str, list[str]]


def diagnosis(code: str, likelihood: float, certainty: str) -> Label:
    return (code, likelihood, certainty, ["diagnostic"])


def form(code: str) -> Label:
    return (code, 0.0, "stated", ["form"])


def rhythm(code: str) -> Label:
    return (code, 0.0, "stated", ["rhythm"])


class Made:
    """Hand-made ECGs, their labels and measurements, and the views derived from them."""

    def __init__(self, guidelines: GuidelineSet) -> None:
        self.guidelines = guidelines
        self.ecgs: list[dict[str, Any]] = []
        self.labels: list[dict[str, Any]] = []
        self.measured: list[dict[str, Any]] = []
        self.views: dict[str, list[dict[str, Any]]] = {}
        self.facts_table: pa.Table = ECGS.empty_table()

    def add(self, name: str, *labels: Label, measured: dict[str, float] | None = None, **columns: Any) -> None:
        ecg_id = f"made:{name}"
        defaults = {"age_years": 60.0, "sex": "female", "age_capped": False, "strat_fold": 1, "split": "train"}
        self.ecgs.append({"ecg_id": ecg_id, "patient_id": f"made:{name}", **defaults, **columns})
        fields = ("code", "likelihood", "certainty", "kinds")
        self.labels += [{"ecg_id": ecg_id, **dict(zip(fields, label, strict=True))} for label in labels]
        self.measured.append({"ecg_id": ecg_id, **(QUIET if measured is None else measured)})

    def derive(self) -> Made:
        ecgs = pa.Table.from_pylist(self.ecgs, schema=ECGS)
        names = sorted({name for row in self.measured for name in row})
        provider = pa.table({name: [row.get(name) for row in self.measured] for name in names})
        merged = merge_measurements(ecgs, [("measured", provider)], pa.array(range(len(self.ecgs)), pa.int64()))
        labels = pa.Table.from_pylist(self.labels, schema=LABELS)
        views = views_of(merged, labels, self.guidelines)
        self.facts_table = views["facts"]
        self.views = {name: table.to_pylist() for name, table in views.items()}
        return self

    def facts(self, name: str) -> dict[str, Any]:
        (row,) = [row for row in self.views["facts"] if row["ecg_id"] == f"made:{name}"]
        return row

    def rows(self, view: str, name: str) -> list[dict[str, Any]]:
        return [row for row in self.views[view] if row["ecg_id"] == f"made:{name}"]


# ------------------------------------------------------------------------------------- "normal", by the real guidelines

NORMALITY: list[tuple[str, tuple[Label, ...], dict[str, Any], bool, str | None]] = [
    # name, labels, further columns, may be called normal, what else stands there
    ("norm-and-sinus", (NORMAL, SINUS), {}, True, None),
    ("norm-and-sinus-arrhythmia", (NORMAL, rhythm("SARRH")), {}, True, None),
    ("norm-without-rhythm", (NORMAL,), {}, True, None),
    ("norm-80", (diagnosis("NORM", 80.0, "probable"), SINUS), {}, True, None),
    ("norm-79", (diagnosis("NORM", 79.0, "possible"), SINUS), {}, False, None),
    ("norm-0", (diagnosis("NORM", 0.0, "unknown"), SINUS), {}, False, None),
    ("norm-50-and-slow", (diagnosis("NORM", 50.0, "possible"), rhythm("SBRAD")), {}, False, None),
    ("norm-and-bradycardia", (NORMAL, rhythm("SBRAD")), {}, False, "sinus bradycardia"),
    ("norm-and-fibrillation", (NORMAL, rhythm("AFIB")), {}, False, "atrial fibrillation"),
    ("norm-and-block", (NORMAL, SINUS, diagnosis("1AVB", 100.0, "certain")), {}, False, "first-degree AV block"),
    (
        "norm-and-doubt",
        (NORMAL, SINUS, diagnosis("IRBBB", 15.0, "not_excluded")),
        {},
        False,
        "incomplete right bundle branch block (cannot be excluded)",
    ),
    ("norm-and-form", (NORMAL, SINUS, form("QWAVE")), {}, False, "Q waves"),
    ("norm-and-slow", (NORMAL, SINUS), {"measured": {**QUIET, "HR__Global": 44.0}}, False, "44/min"),
    ("norm-and-fast", (NORMAL, SINUS), {"measured": {**QUIET, "HR__Global": 112.0}}, False, "112/min"),
    ("norm-and-left", (NORMAL, SINUS), {"measured": {**QUIET, "QRS_AxisFront_Global": -39.0}}, False, "-39°"),
    ("norm-and-right", (NORMAL, SINUS), {"measured": {**QUIET, "QRS_AxisFront_Global": 110.0}}, False, "110°"),
    ("norm-and-long-pr", (NORMAL, SINUS), {"measured": {**QUIET, "PR_Int_Global": 230.0}}, False, "230 ms"),
    ("norm-and-wide", (NORMAL, SINUS), {"measured": {**QUIET, "QRS_Dur_Global": 130.0}}, False, "130 ms"),
    ("norm-and-extra-beats", (NORMAL, SINUS), {"extra_beats": "1ES"}, False, "extra beats"),
    ("norm-and-pacemaker", (NORMAL, SINUS), {"pacemaker": True}, False, "a pacemaker"),
    ("norm-unmeasured", (NORMAL, SINUS), {"measured": {}}, True, None),
    ("norm-and-plain-report", (NORMAL, SINUS), {"report": "sinusrhythmus lagetyp normal normales ekg"}, True, None),
    ("norm-and-slip", (NORMAL, SINUS), {"report": "ysinusrhythmus mlt/llt normales ekg"}, True, None),
    (
        "norm-and-remark",
        (NORMAL, SINUS),
        {"report": "sinusrhythmus periphere niederspannung"},
        False,
        "a further remark in the report",
    ),
]


@pytest.fixture(scope="module")
def normality() -> Made:
    made = Made(load_guidelines())
    for name, labels, columns, *_ in NORMALITY:
        made.add(name, *labels, **columns)
    made.add("not-labelled-normal", SINUS)
    extra = {"QRS_Count_Global": 11.0, "Ectopic_Count_Global": 5.0, "QRS_Dur_Global": 160.0}
    voltage = {"R_Amp_aVL": 1.0, "S_Amp_V3": -0.9}
    made.add("wide", SINUS, measured={**voltage, "QRS_Dur_Global": 160.0})
    for code in ("CLBBB", "CRBBB", "WPW", "PACE"):
        made.add(f"wide-{code}", SINUS, form(code), measured={**voltage, "QRS_Dur_Global": 160.0})
    raised = dict.fromkeys(("ST_Amp_V1", "ST_Amp_V2", "ST_Amp_V3", "ST_Amp_V4"), 0.2)
    raised |= dict.fromkeys(("T_Amp_V1", "T_Amp_V2", "T_Amp_V3", "T_Amp_V4"), 0.1)
    raised |= dict.fromkeys(("QRS_AmpPP_V1", "QRS_AmpPP_V2", "QRS_AmpPP_V3", "QRS_AmpPP_V4"), 2.0)
    made.add("raised", SINUS, measured=raised)
    made.add("raised-CLBBB", SINUS, form("CLBBB"), measured=raised)
    tall = {**QUIET, "R_Amp_V1": 0.9, "S_Amp_V1": -0.1, "S_Amp_V5": -0.8, "S_Amp_V6": -0.8}
    made.add("tall-r", SINUS, measured=tall)
    made.add("tall-r-CRBBB", SINUS, form("CRBBB"), measured=tall)
    made.add("narrow-CRBBB", SINUS, form("CRBBB"), measured={**voltage, "QRS_Dur_Global": 90.0})
    made.add("extra-beats", SINUS, measured=extra)
    made.add("extra-beats-paced", rhythm("PACE"), measured=extra)
    made.add("extra-beats-pacemaker", SINUS, pacemaker=True, measured=extra)
    for name, columns in (("long-pr", {}), ("long-pr-paced", {"pacemaker": True})):
        made.add(name, SINUS, measured={"PR_Int_Global": 358.0, "QRS_Dur_Global": 102.0}, **columns)
    return made.derive()


@pytest.mark.parametrize(("name", "assertable", "beside"), [(row[0], row[3], row[4]) for row in NORMALITY])
def test_normal_is_asserted_only_where_nothing_else_stands(
    normality: Made, name: str, assertable: bool, beside: str | None
) -> None:
    facts = normality.facts(name)
    assert facts["labelled_normal"]
    assert facts["normal_assertable"] is assertable
    if beside is None:
        assert facts["normal_exceptions"] is None
    else:
        assert beside in facts["normal_exceptions"]


def test_an_ecg_nobody_called_normal_is_never_asserted_normal(normality: Made) -> None:
    facts = normality.facts("not-labelled-normal")
    assert (facts["labelled_normal"], facts["normal_assertable"], facts["normal_exceptions"]) == (False, False, None)


def test_a_normal_ecg_has_its_normality_for_a_diagnosis(normality: Made) -> None:
    assert normality.facts("norm-and-sinus")["diagnoses_text"] == "a normal ECG"
    assert normality.facts("norm-and-sinus")["rhythm_text"] == "sinus rhythm"
    assert normality.facts("norm-and-block")["diagnoses_text"] == "first-degree AV block"
    assert normality.facts("norm-79")["diagnoses_text"] is None


# -------------------------------------------------------------------- statements and their absence, by small guidelines


def small(code: str, extra: str = "", criteria: str | None = None) -> str:
    rules = criteria or (
        "criteria: none\nno_criteria: {reason: no number decides it, cite: {source: smith-2020, section: page 1}}"
    )
    return (
        f"code: {code}\nname: {code.lower()} disease\nphrase: the {code.lower()} disease\nkinds: [diagnostic]\n"
        f"definition: It is.\nmeaning: It matters.\npitfalls: Beware.\n{rules}\n"
        f"cites: [{{source: smith-2020, section: page 1}}]\nverified: document\n{extra}\n"
    )


def rule(role: str, sign: str, value: int) -> str:
    return (
        f"criteria: [{{id: pr, role: {role}, text: PR interval {sign} {value} ms, sql: PR_Int_Global {sign} $limit,"
        f' limits: {{limit: {{of: PR_Int_Global, is: "{sign}", value: {value}, unit: ms}}}},'
        " cite: {source: smith-2020, section: page 1}}]"
    )


TWO_RULES = (
    "criteria:\n"
    "  - {id: b, role: supporting, text: wide, sql: QRS_Dur_Global > $limit, limits: {limit: {of: QRS_Dur_Global,"
    ' is: ">", value: 110, unit: ms}}, cite: {source: smith-2020, section: page 1}}\n'
    "  - {id: a, role: supporting, text: wider, sql: QRS_Dur_Global >= $limit, limits: {limit: {of: QRS_Dur_Global,"
    ' is: ">=", value: 120, unit: ms}}, cite: {source: smith-2020, section: page 1}}'
)


ONE_SHORTFALL = (
    "criteria:\n"
    "  - {id: a, role: supporting, text: wide, sql: QRS_Dur_Global > $limit, limits: {limit: {of: QRS_Dur_Global,"
    ' is: ">", value: 110, unit: ms}}, cite: {source: smith-2020, section: page 1}}\n'
    "  - {id: b, role: supporting, text: wide and fast, sql: QRS_Dur_Global > $limit AND HR__Global > $rate,"
    ' limits: {limit: {of: QRS_Dur_Global, is: ">", value: 110, unit: ms},'
    ' rate: {of: HR__Global, is: ">", value: 50, unit: /min}}, cite: {source: smith-2020, section: page 1}}'
)


def confusions(*codes: str) -> str:
    return "confused_with: [" + ", ".join(f"{{code: {code}, how: it differs}}" for code in codes) + "]"


SMALL = [
    small("A", confusions("LONG", "SHORT", "C", "D", "E", "UNSURE", "NORM")),
    small("B", confusions("LONG", "A")),
    small("C"),
    small("D", "overlaps: [A]"),
    small("E"),
    small("F", "overlaps: [C]"),
    small("LONG", criteria=rule("defining", ">", 200)),
    small("SHORT", criteria=rule("supporting", "<", 120)),
    small("UNSURE", "absence_unsure_when: pacemaker"),
    small("NORM"),
    small("TWICE", "criteria_exhaustive: true", criteria=TWO_RULES),
    small("SHORTFALL", "criteria_exhaustive: true", criteria=ONE_SHORTFALL),
]
SOURCES = 'smith-2020: {authors: "Smith A, Jones B", title: T, journal: J, year: 2020, doi: 10.1000/abc}\n'


def certain(code: str) -> Label:
    return diagnosis(code, 100.0, "certain")


@pytest.fixture(scope="module")
def made() -> Made:
    made = Made(guidelines_from_texts([("general", text) for text in SMALL], SOURCES))
    for certainty, likelihood in (
        ("certain", 100.0),
        ("probable", 80.0),
        ("possible", 50.0),
        ("not_excluded", 15.0),
        ("unknown", 0.0),
    ):
        made.add(certainty, diagnosis("A", likelihood, certainty), SINUS)
    made.add("stated", form("A"))
    made.add("three", certain("C"), form("A"), rhythm("SR"), diagnosis("B", 50.0, "possible"))
    made.add("nothing", measured={})
    made.add("long-pr", certain("LONG"), measured={"PR_Int_Global": 230.0})
    made.add("contradicted", certain("LONG"), measured={"PR_Int_Global": 180.0})
    for code in ("SR", "AFIB"):
        made.add(f"pr-in-{code}", rhythm(code), measured={"PR_Int_Global": 230.0, "P_Found_Global": 1.0})
    made.add("at-limits", measured={"HR__Global": 59.9, "QRS_AxisFront_Global": -30.2})
    made.add("contradicted-twice", certain("TWICE"), measured={"QRS_Dur_Global": 84.0})
    made.add("one-shortfall", certain("SHORTFALL"), measured={"QRS_Dur_Global": 84.0, "HR__Global": 70.0})
    made.add("unsupported", certain("SHORT"), measured={"PR_Int_Global": 180.0})
    made.add("unmeasured", certain("LONG"), measured={})
    made.add("a", certain("A"), measured={"PR_Int_Global": 150.0})
    made.add("a-short", certain("A"), measured={"PR_Int_Global": 110.0})
    made.add("a-long", certain("A"), measured={"PR_Int_Global": 230.0})
    made.add("a-unmeasured", certain("A"), measured={})
    made.add("a-and-c", certain("A"), certain("C"), measured={})
    made.add("a-and-f", certain("A"), certain("F"), measured={})
    made.add("a-paced", certain("A"), pacemaker=True, measured={})
    made.add("a-and-b", certain("A"), certain("B"), measured={})
    for degrees in (-179.9, -90.1, -90.0, -30.1, -30.0, 0.0, 90.0, 90.1, 180.0):
        made.add(f"axis{degrees}", measured={"QRS_AxisFront_Global": degrees})
    for name in ("MID", "LAD", "ALAD", "RAD", "ARAD", "AXL", "AXR", "SAG"):
        made.add(f"label{name}", heart_axis=name)
    made.add("old", age_years=90.0, age_capped=True)
    made.add("girl", age_years=12.0)
    made.add("boy", age_years=17.0, sex="male")
    made.add("man", age_years=18.0, sex="male")
    made.add("somebody", age_years=None, sex=None)
    made.add("noisy", baseline_drift=["I", "II", "V1"], static_noise=["V2"], burst_noise=["lead_unknown"])
    made.add("all-noisy", electrode_problems=list(LEADS))
    made.add("automatic", report_autogenerated=True, validated_by_human=False)
    made.add("validated", report_autogenerated=True, validated_by_human=True)
    return made.derive()


@pytest.mark.parametrize(
    ("certainty", "words"),
    [
        ("certain", "the a disease"),
        ("stated", "the a disease"),
        ("probable", "probable a disease"),
        ("possible", "possible a disease"),
        ("not_excluded", "a disease (cannot be excluded)"),
        ("unknown", "a disease (likelihood not given)"),
    ],
)
def test_certainty_is_put_into_words(made: Made, certainty: str, words: str) -> None:
    (label,) = [row for row in made.rows("labels", certainty) if row["code"] == "A"]
    assert label["certainty_phrase"] == words
    assert words in made.facts(certainty)["statements_text"]


def test_statements_are_joined_in_the_order_of_the_source(made: Made) -> None:
    facts = made.facts("three")
    assert facts["codes"] == ["C", "A", "SR", "B"]
    assert facts["statements_text"] == "the c disease, the a disease, SR and possible b disease"
    assert facts["diagnoses_text"] == "the c disease and possible b disease"
    assert facts["form_text"] == "the a disease"
    assert (facts["rhythm_codes"], facts["diagnostic_codes"], facts["form_codes"]) == (["SR"], ["C", "B"], ["A"])
    assert facts["firm_codes"] == ["C", "A", "SR"], "a possible statement is not a firm one"


def test_an_ecg_without_statements_has_empty_lists_and_no_text(made: Made) -> None:
    facts = made.facts("nothing")
    assert [facts[name] for name in ("codes", "firm_codes", "rhythm_codes", "superclasses")] == [[], [], [], []]
    assert [facts[name] for name in ("statements_text", "rhythm_text", "rate_text", "axis_class")] == [None] * 4


@pytest.mark.parametrize(
    ("name", "code", "support"),
    [
        ("long-pr", "LONG", "met"),
        ("contradicted", "LONG", "contradicted"),
        ("unsupported", "SHORT", "not_met"),
        ("unmeasured", "LONG", "not_assessable"),
        ("a", "A", "no_criteria"),
    ],
)
def test_what_measurements_say_of_a_label(made: Made, name: str, code: str, support: str) -> None:
    (label,) = [row for row in made.rows("labels", name) if row["code"] == code]
    assert label["support"] == support


def test_an_ecg_knows_what_its_measurements_speak_against(made: Made) -> None:
    (item,) = made.facts("contradicted")["contradictions"]
    assert (item["code"], item["name"]) == ("LONG", "long disease")
    assert item["text"] == "PR interval 180 ms (limit > 200 ms)"
    assert [(e["value"], e["limit"]) for e in item["evidence"]] == [(180.0, "> 200 ms")]
    assert [made.facts(name)["contradictions"] for name in ("long-pr", "unsupported", "nothing")] == [[], [], []]


def test_what_falls_short_of_two_rules_is_quoted_once(made: Made) -> None:
    (item,) = made.facts("one-shortfall")["contradictions"]
    assert item["text"] == "QRS duration 84 ms (limit > 110 ms)"


def test_a_value_that_misses_two_limits_is_quoted_once_with_the_nearest(made: Made) -> None:
    (item,) = made.facts("contradicted-twice")["contradictions"]
    assert item["text"] == "QRS duration 84 ms (limit > 110 ms)"
    assert [e["limit"] for e in item["evidence"]] == ["> 110 ms"]


def test_rounding_brings_no_value_to_the_other_side_of_its_limit(made: Made) -> None:
    facts = made.facts("at-limits")
    assert facts["rate_step"] == "59.90/min, below 60/min"
    assert facts["axis_step"] == "-30.20°, left axis deviation"


def test_no_pr_interval_is_told_where_no_p_wave_leads_to_qrs(made: Made) -> None:
    sinus, fibrillation = made.facts("pr-in-SR"), made.facts("pr-in-AFIB")
    assert (sinus["pr_text"], fibrillation["pr_text"]) == ("230 ms", None)
    assert (sinus["PR_Int_Global"], fibrillation["PR_Int_Global"]) == (230.0, None)
    assert fibrillation["P_Found_Global"] == 1.0, "that a wave is found may well speak against the rhythm"
    assert {row["code"] for row in made.rows("findings", "pr-in-SR")} == {"LONG", "SHORT"}
    assert made.rows("findings", "pr-in-AFIB") == []


@pytest.mark.parametrize("name", ["extra-beats-paced", "extra-beats-pacemaker"])
def test_beats_of_another_shape_are_no_extra_beats_beside_a_pacemaker(normality: Made, name: str) -> None:
    of_ectopy = {"PVC", "PAC", "PRC(S)", "BIGU"}
    assert of_ectopy <= {row["code"] for row in normality.rows("findings", "extra-beats") if row["verdict"] == "met"}
    codes = {row["code"] for row in normality.rows("findings", name)}
    assert "CLBBB" in codes, "what does not rest on their count is decided"
    assert not codes & of_ectopy
    assert not [
        row["code"] for row in normality.rows("negatives", name) if row["code"] in of_ectopy and row["suggested"]
    ]
    assert normality.facts(name)["Ectopic_Count_Global"] == 5.0, "what keeps RR intervals from being called regular"


def test_the_delay_set_in_a_pacemaker_is_no_conduction_time(normality: Made) -> None:
    def met(name: str) -> set[str]:
        return {row["code"] for row in normality.rows("findings", name) if row["verdict"] == "met"}

    assert {"1AVB", "LPR"} <= met("long-pr")
    assert not {"1AVB", "LPR"} & met("long-pr-paced")


@pytest.mark.parametrize(
    ("stage", "report", "doubtful"),
    [
        ("unknown", "chron. infero-posteriorer infarkt", True),
        ("unknown", "old anteroseptal infarct", True),
        ("unknown", "anteriorer infarkt     alter unbest.    inferiorer infarkt     wahrscheinlich alt", True),
        ("unknown", "inferiorer infarkt     alter unbest. 4.46", False),
        ("III", "chron. inferiorer infarkt", False),
    ],
)
def test_an_age_in_the_report_makes_an_unknown_stage_doubtful(stage: str, report: str, doubtful: bool) -> None:
    made = Made(load_guidelines())
    made.add("infarct", certain("IMI"), infarction_stages=[stage], report=report)
    assert made.derive().facts("infarct")["stage_doubtful"] is doubtful


def verdicts_by_width(made: Made, name: str) -> set[tuple[str, str, str]]:
    rows = [row for row in made.rows("findings", name) if row["code"] == "IVCD" or "product" in row["criterion"]]
    return {(row["code"], row["criterion"], row["verdict"]) for row in rows}


def test_the_width_of_a_block_is_no_sign_of_another_disturbance_or_of_hypertrophy(normality: Made) -> None:
    assert verdicts_by_width(normality, "wide") == {
        ("IVCD", "qrs-duration", "met"),
        ("IVCD", "minnesota-7-4", "met"),
        ("LVH", "cornell-product-women", "met"),
    }
    for code in ("CLBBB", "CRBBB", "WPW", "PACE"):
        assert verdicts_by_width(normality, f"wide-{code}") == set()
        assert ("CLBBB", "met") in {(r["code"], r["verdict"]) for r in normality.rows("findings", f"wide-{code}")}
    assert verdicts_by_width(normality, "narrow-CRBBB") == {
        ("IVCD", "qrs-duration", "not_met"),
        ("IVCD", "minnesota-7-4", "not_met"),
        ("LVH", "cornell-product-women", "not_met"),
    }, "what is narrow all the same is told"


def test_the_width_of_one_block_does_not_suggest_another(normality: Made) -> None:
    def suggested(name: str) -> set[str]:
        rows = normality.rows("findings", name)
        return {row["code"] for row in rows if row["criterion"] == "qrs-duration" and row["suggests"]}

    assert {"CLBBB", "CRBBB"} <= suggested("wide")
    assert "CRBBB" in suggested("wide-CRBBB")
    assert "CLBBB" not in suggested("wide-CRBBB")
    assert {row["verdict"] for row in normality.rows("findings", "wide-CRBBB") if row["code"] == "CLBBB"} == {"met"}


def test_st_that_follows_from_the_qrs_complex_is_no_sign_of_an_aneurysm(normality: Made) -> None:
    def aneurysm(name: str) -> set[str]:
        return {row["verdict"] for row in normality.rows("findings", name) if row["code"] == "ANEUR"}

    assert aneurysm("raised") == {"met"}
    assert aneurysm("raised-CLBBB") == set()


def test_the_r_wave_of_right_bundle_branch_block_is_no_sign_of_right_ventricular_hypertrophy(normality: Made) -> None:
    def met(name: str) -> set[str]:
        rows = normality.rows("findings", name)
        return {row["criterion"] for row in rows if row["code"] == "RVH" and row["verdict"] == "met"}

    assert len(met("tall-r")) >= 3
    assert met("tall-r-CRBBB") == set()


def test_findings_are_those_that_could_be_assessed(made: Made) -> None:
    assert made.rows("findings", "nothing") == []
    verdicts = {row["criterion"]: row["verdict"] for row in made.rows("findings", "long-pr") if row["code"] == "LONG"}
    assert verdicts == {"pr": "met"}
    (finding,) = [row for row in made.rows("findings", "long-pr") if row["code"] == "LONG"]
    assert finding["evidence_text"] == "PR interval 230 ms (limit > 200 ms)"
    assert (finding["labelled"], finding["certainty"]) == (True, "certain")
    assert finding["citation"] == "Smith and Jones 2020, page 1"
    (other,) = [row for row in made.rows("findings", "long-pr") if row["code"] == "SHORT"]
    assert (other["verdict"], other["labelled"], other["certainty"]) == ("not_met", False, None)


def told(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Findings of one statement in the order in which its criteria are told."""
    return sorted(findings, key=lambda row: (row["role"], row["criterion"]))


@pytest.mark.parametrize("which", ["normality", "made"])
def test_verdicts_are_what_the_findings_of_a_statement_say_together(which: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(which)
    exhaustive = {code for code, guideline in made.guidelines.by_code.items() if guideline.criteria_exhaustive}
    n_criteria = {code: len(guideline.rules) for code, guideline in made.guidelines.by_code.items()}
    findings: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in made.views["findings"]:
        findings.setdefault((row["ecg_index"], row["code"]), []).append(row)
    verdicts = {(row["ecg_index"], row["code"]): row for row in made.views["verdicts"]}
    assert list(verdicts) == list(findings)
    for key, rows in findings.items():
        verdict = verdicts[key]
        signs = [row for row in told(rows) if row["verdict"] == "met" and row["suggests"]]
        refutations = [row for row in told(rows) if row["role"] == "defining" and row["verdict"] == "not_met"]
        none_met = all(row["verdict"] == "not_met" for row in rows) and len(rows) == n_criteria[key[1]]
        contradicted = bool(refutations) or (key[1] in exhaustive and none_met)
        assert verdict["support"] == ("contradicted" if contradicted else "met" if signs else "not_met"), key
        assert (verdict["suggested"], verdict["refuted"]) == (bool(signs), bool(refutations)), key
        assert (verdict["labelled"], verdict["name"]) == (rows[0]["labelled"], rows[0]["name"])
        for prefix, of in (("met", signs), ("refuted", refutations)):
            first = next((row for row in of if row["evidence_text"] is not None), None)
            for name, column in (("text", "evidence_text"), ("evidence", "evidence"), ("citation", "citation")):
                assert verdict[f"{prefix}_{name}"] == (first and first[column]), (key, prefix, name)
    assert {row["support"] for row in verdicts.values()} == {"met", "not_met", "contradicted"}


@pytest.mark.parametrize("which", ["normality", "made"])
def test_statements_carry_what_was_assessed_of_their_criteria(which: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(which)

    def carried(index: int, code: str) -> list[dict[str, Any]]:
        rows = [row for row in made.views["findings"] if (row["ecg_index"], row["code"]) == (index, code)]
        same = ("criterion", "role", "verdict", "suggests", "criterion_text", "citation", "evidence")
        return [{name: row[name] for name in same} | {"text": row["evidence_text"]} for row in told(rows)]

    statements = [(row, row["code"], row["criteria"]) for view in ("labels", "negatives") for row in made.views[view]]
    statements += [(row, "NORM", row["norm_criteria"]) for row in made.views["facts"]]
    for row, code, criteria in statements:
        assert criteria == carried(row["ecg_index"], code), (row["ecg_id"], code)
    assert any(len(criteria) > 1 for _, _, criteria in statements)
    assert any(not criteria for _, _, criteria in statements)


def absent(made: Made, name: str) -> set[str]:
    return {row["code"] for row in made.rows("negatives", name)}


def test_only_what_is_easily_confused_is_called_absent(made: Made) -> None:
    assert absent(made, "a") == {"LONG", "SHORT", "C", "E", "UNSURE"}, "D overlaps A; NORM is never denied this way"


def test_a_statement_that_is_present_or_overlaps_one_is_never_called_absent(made: Made) -> None:
    assert "C" not in absent(made, "a-and-c"), "C is there"
    assert "C" not in absent(made, "a-and-f"), "F overlaps C, though only F says so"
    assert "D" not in absent(made, "a")
    assert absent(made, "a-and-b").isdisjoint({"A", "B"})


def test_a_statement_whose_absence_is_unsure_is_never_called_absent(made: Made) -> None:
    assert "UNSURE" in absent(made, "a-unmeasured")
    assert "UNSURE" not in absent(made, "a-paced")


def test_a_statement_of_unknown_likelihood_denies_nothing(made: Made) -> None:
    assert absent(made, "unknown") == set()


def test_each_absent_statement_appears_once_whatever_speaks_for_it(made: Made) -> None:
    codes = [row["code"] for row in made.rows("negatives", "a-and-b")]
    assert len(codes) == len(set(codes))
    assert "LONG" in codes, "named by A and by B"


@pytest.mark.parametrize(
    ("name", "code", "refuted", "suggested", "evidence"),
    [
        ("a", "LONG", True, False, "PR interval 150 ms (limit > 200 ms)"),
        ("a-long", "LONG", False, True, None),
        ("a-unmeasured", "LONG", False, False, None),
        ("a", "SHORT", False, False, None),  # a supporting criterion that is not met refutes nothing
        ("a-short", "SHORT", False, True, None),
    ],
)
def test_measurements_refute_or_suggest_what_is_not_labelled(
    made: Made, name: str, code: str, refuted: bool, suggested: bool, evidence: str | None
) -> None:
    (row,) = [row for row in made.rows("negatives", name) if row["code"] == code]
    assert (row["refuted"], row["suggested"], row["evidence_text"]) == (refuted, suggested, evidence)
    assert (row["because_code"], row["how"]) == ("A", "it differs")


@pytest.mark.parametrize(
    ("degrees", "axis_class"),
    [
        (-179.9, "extreme"),
        (-90.1, "extreme"),
        (-90.0, "left"),
        (-30.1, "left"),
        (-30.0, "normal"),
        (0.0, "normal"),
        (90.0, "normal"),
        (90.1, "right"),
        (180.0, "right"),
    ],
)
def test_axis_classes_at_their_borders(made: Made, degrees: float, axis_class: str) -> None:
    assert made.facts(f"axis{degrees}")["axis_class"] == axis_class


def test_the_sources_axis_label_is_worded_for_what_it_is(made: Made) -> None:
    words = {name: made.facts(f"label{name}")["axis_label_words"] for name in ("MID", "LAD", "ALAD", "RAD", "ARAD")}
    assert words["LAD"] == "leftward axis", "the German Linkstyp is no left axis deviation"
    assert "deviation" in words["ALAD"]
    assert "deviation" not in words["RAD"]
    assert "deviation" in words["ARAD"]
    assert len({made.facts(f"label{name}")["axis_label_words"] for name in ("AXL", "AXR", "SAG", *words)}) == 8


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a", "60-year-old woman"),
        ("old", "woman over 89 years old"),
        ("girl", "12-year-old girl"),
        ("boy", "17-year-old boy"),
        ("man", "18-year-old man"),
        ("somebody", "patient of unknown age"),
    ],
)
def test_the_patient_in_words(made: Made, name: str, words: str) -> None:
    assert made.facts(name)["patient_text"] == words


def test_disturbed_leads_in_words(made: Made) -> None:
    facts = made.facts("noisy")
    assert facts["baseline_drift_text"] == "leads I, II and V1"
    assert facts["static_noise_text"] == "lead V2"
    assert facts["burst_noise_text"] == "an unnamed lead"
    assert facts["electrode_problems_text"] is None
    assert facts["has_noise"] is True
    assert made.facts("all-noisy")["electrode_problems_text"] == "all leads"
    assert made.facts("a")["has_noise"] is False


def test_an_automatic_annotation_is_not_called_a_cardiologists(made: Made) -> None:
    assert "automatic annotation" in made.facts("automatic")["annotation_text"]
    assert made.facts("validated")["annotation_text"] == "the cardiologist's annotation"
    assert made.facts("a")["annotation_text"] == "the cardiologist's annotation"


def test_every_view_is_in_ecg_order(made: Made) -> None:
    order = [row["ecg_id"] for row in made.views["facts"]]
    assert order == [ecg["ecg_id"] for ecg in made.ecgs]
    for view in ("labels", "negatives", "findings", "verdicts"):
        places = [row["ecg_index"] for row in made.views[view]]
        assert places == sorted(places), view


# -------------------------------------------------------------------------------------------------------- comparisons

DAYS_IN_WORDS = [
    (0.2, "less than a day"),
    (1.0, "1 day"),
    (1.9, "1 day"),
    (2.0, "2 days"),
    (13.9, "13 days"),
    (14.0, "2 weeks"),
    (59.9, "8 weeks"),
    (60.0, "2 months"),
    (61.0, "2 months"),
    (200.0, "6 months"),
    (729.0, "23 months"),
    (730.0, "2 years"),
    (1500.0, "4 years"),
]


@pytest.fixture(scope="module")
def compared() -> dict[str, dict[str, Any]]:
    made = Made(guidelines_from_texts([("general", text) for text in SMALL], SOURCES))
    made.add("first", certain("A"), age_years=60.0)
    for number, (days, _) in enumerate(DAYS_IN_WORDS):
        made.add(f"later{number}", certain("C"), previous_ecg_id="made:first", days_since_previous=days, age_years=61.0)
    made.add("doubted", certain("LONG"), measured={"PR_Int_Global": 180.0})
    made.add("after-doubted", previous_ecg_id="made:doubted", days_since_previous=1.0)
    made.add("orphan", previous_ecg_id="made:elsewhere", days_since_previous=3.0)
    rows = derive_comparisons(made.derive().facts_table).to_pylist()
    assert [row["ecg_index"] for row in rows] == sorted(row["ecg_index"] for row in rows)
    return {row["ecg_id"]: row for row in rows}


@pytest.mark.parametrize("number", range(len(DAYS_IN_WORDS)))
def test_the_time_between_two_ecgs_in_words(compared: dict[str, dict[str, Any]], number: int) -> None:
    assert compared[f"made:later{number}"]["interval_text"] == DAYS_IN_WORDS[number][1]


def test_a_comparison_has_both_ecgs_and_their_facts(compared: dict[str, dict[str, Any]]) -> None:
    row = compared["made:later0"]
    assert (row["previous_ecg_id"], row["ecg_id"]) == ("made:first", "made:later0")
    assert (row["previous_codes"], row["codes"]) == (["A"], ["C"])
    assert (row["previous_age_years"], row["age_years"]) == (60.0, 61.0)
    assert row["previous_rate_text"] == "70/min"


def test_a_comparison_knows_what_speaks_against_the_earlier_reading(compared: dict[str, dict[str, Any]]) -> None:
    row = compared["made:after-doubted"]
    assert [item["code"] for item in row["previous_contradictions"]] == ["LONG"]
    assert row["contradictions"] == []


def test_an_ecg_whose_predecessor_is_not_at_hand_is_compared_with_nothing(
    compared: dict[str, dict[str, Any]],
) -> None:
    assert "made:orphan" not in compared
    assert "made:first" not in compared


# ------------------------------------------------------------------------------------------------------- measurements


def test_per_value_the_first_provider_that_has_it_is_used() -> None:
    ecgs = pa.Table.from_pylist([{"ecg_id": "made:1"}, {"ecg_id": "made:2"}, {"ecg_id": "made:3"}], schema=ECGS)
    first = pa.table({"ecg_id": ["made:1", "made:2"], "HR__Global": [60.0, None]})
    second = pa.table({"ecg_id": ["made:2", "made:1"], "HR_Ventr_Global": [72.0, 99.0], "Unknown_Column": [1.0, 2.0]})
    merged = merge_measurements(ecgs, [("first", first), ("second", second)], pa.array([0, 1, 2], pa.int64()))
    assert merged["HR__Global"].to_pylist() == [60.0, 72.0, None]
    assert merged["PR_Int_Global"].to_pylist() == [None, None, None]
    assert "Unknown_Column" not in merged.column_names
    assert available_measurements({"second": second.column_names}) == {"HR__Global"}
