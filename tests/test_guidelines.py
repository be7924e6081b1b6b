"""Guidelines decide what they say they decide, at each limit and on both sides, and quote only measured values."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ecglm.synth.criteria import Criterion, empty_measured_ecgs
from ecglm.synth.database import LockedConnection
from ecglm.synth.errors import DefinitionError
from ecglm.synth.evidence_texts import in_words
from ecglm.synth.findings import decide as decide_block
from ecglm.synth.guideline_tables import relation_tables
from ecglm.synth.guidelines import LANGUAGES, Guideline, GuidelineSet, load_guidelines, read_guidelines
from ecglm.synth.measure.dictionary import measurements

PTBXL_CODES = """\
    NDT NST_ DIG LNGQT NORM IMI ASMI LVH LAFB ISC_ IRBBB 1AVB IVCD ISCAL CRBBB CLBBB ILMI LAO/LAE AMI ALMI ISCIN INJAS
    LMI ISCIL LPFB ISCAS INJAL ISCLA RVH ANEUR RAO/RAE EL WPW ILBBB IPLMI ISCAN IPMI SEHYP INJIN INJLA PMI 3AVB INJIL
    2AVB ABQRS PVC STD_ VCLVH QWAVE LOWT NT_ PAC LPR INVT LVOLT HVOLT TAB_ STE_ PRC(S) SR AFIB STACH SARRH SBRAD PACE
    SVARR BIGU AFLT SVTAC PSVT TRIGU
""".split()  # noqa: SIM905 - 71 quoted words would be harder to read

MAN = {"age_years": 60.0, "sex": "male"}
WOMAN = {"age_years": 60.0, "sex": "female"}
YOUNG_MAN = {"age_years": 30.0, "sex": "male"}
COPIED = "CREATE TABLE measured_ecgs AS SELECT * FROM made"


@pytest.fixture(scope="module")
def guidelines() -> GuidelineSet:
    return load_guidelines()


def only(guidelines: GuidelineSet, code: str) -> GuidelineSet:
    return GuidelineSet(
        {code: guidelines.by_code[code]},
        guidelines.categories,
        guidelines.texts,
        guidelines.sources,
        guidelines.sources_text,
    )


def decide(guidelines: GuidelineSet, code: str, *rows: dict[str, Any]) -> list[dict[str, dict[str, Any]]]:
    """What each criterion of a statement says of each row: criterion → verdict, evidence, evidence_text."""
    named = [{"ecg_id": f"made:{number}", **row} for number, row in enumerate(rows)]
    found = findings(only(guidelines, code), named)
    return [{row["criterion"]: row for row in found if row["ecg_id"] == one["ecg_id"]} for one in named]


def findings(guidelines: GuidelineSet, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    schema = empty_measured_ecgs().schema
    assert {name for row in rows for name in row} <= set(schema.names)
    numbered = pa.Table.from_pylist(rows, schema=schema).append_column("ecg_index", pa.array(range(len(rows))))
    with LockedConnection({"made": numbered}, setup=[COPIED]) as connection:
        decided = decide_block(connection, guidelines)
    texts = {
        (row["ecg_id"], row["code"], row["criterion"]): row["evidence_text"]
        for row in in_words(decided, decided.assessed).to_pylist()
    }
    return [
        {**row, "evidence_text": texts.get((row["ecg_id"], row["code"], row["criterion"]))}
        for row in decided.findings.to_pylist()
    ]


# ------------------------------------------------------------------------------------------------- the files themselves


def test_every_statement_of_ptbxl_has_a_guideline(guidelines: GuidelineSet) -> None:
    assert len(set(PTBXL_CODES)) == 71
    assert set(PTBXL_CODES) <= set(guidelines.by_code)


def every_rule(guidelines: GuidelineSet) -> list[tuple[str, Criterion]]:
    return [(code, rule) for code, guideline in guidelines.by_code.items() for rule in guideline.rules]


def test_every_limit_is_a_number_with_its_unit(guidelines: GuidelineSet) -> None:
    units = {measurement.unit for measurement in measurements().values()} | {"mV·ms"}
    for code, rule in every_rule(guidelines):
        for name, limit in rule.limits.items():
            place = f"{code} {rule.id} {name}"
            assert math.isfinite(limit.value), place
            assert limit.unit in units, place
            if limit.measured:
                assert limit.unit == measurements()[limit.measured].unit, place


def test_what_evidence_shows_as_the_limit_is_what_the_sql_compares_with(guidelines: GuidelineSet) -> None:
    for code, rule in every_rule(guidelines):
        assert "$" not in rule.holds_sql(), f"{code} {rule.id}"
        for name, limit in rule.limits.items():
            if limit.when == "FALSE":  # a constant of the rule, such as a voltage that is added; never shown as a limit
                continue
            before = re.split(rf"\${name}\b", rule.sql)[:-1]
            signs = {re.findall(r"[<>]=?", text)[-1] for text in before}
            assert signs == {limit.is_}, f"{code} {rule.id} {name}: shown as {limit.text}"


def test_a_criterion_of_one_measurement_turns_exactly_at_its_number(guidelines: GuidelineSet) -> None:
    tested = 0
    for code, guideline in guidelines.by_code.items():
        for rule in guideline.rules:
            limit = next(iter(rule.limits.values()), None)
            if limit is None or len(rule.limits) > 1 or limit.measured is None or rule.measurements != {limit.measured}:
                continue
            who = WOMAN if rule.population.sex == "female" else MAN
            who = {**who, "age_years": rule.population.max_age_years or 60.0}
            values = (limit.value - 0.01, limit.value, limit.value + 0.01)
            rows = decide(guidelines, code, *({**who, limit.measured: value} for value in values))
            found = [row[rule.id]["verdict"] == "met" for row in rows]
            expected = {
                "<": [True, False, False],
                "<=": [True, True, False],
                ">": [False, False, True],
                ">=": [False, True, True],
            }
            assert found == expected[limit.is_], f"{code} {rule.id} {limit.text}"
            tested += 1
    assert tested >= 25


def test_a_statement_without_criteria_says_why_and_who_says_so(guidelines: GuidelineSet) -> None:
    without = [guideline for guideline in guidelines.by_code.values() if not guideline.rules]
    assert without
    for guideline in without:
        assert guideline.no_criteria is not None
        assert len(guideline.no_criteria.reason) > 30, guideline.code
        assert guideline.no_criteria.cite.source in guidelines.sources, guideline.code


def test_every_citation_leads_to_a_doi_or_an_address_and_names_its_place(guidelines: GuidelineSet) -> None:
    for guideline in guidelines.by_code.values():
        cites = [*guideline.cites, *(rule.cite for rule in guideline.rules)]
        cites += [guideline.no_criteria.cite] if guideline.no_criteria else []
        for cite in cites:
            source = guidelines.sources[cite.source]
            assert (source.doi or "").startswith("10.") or (source.url or "").startswith("https://"), cite.source
            assert cite.section in guidelines.reference(cite)


def test_codes_named_by_other_statements_exist_and_overlap_is_mutual(guidelines: GuidelineSet) -> None:
    known = set(guidelines.by_code)
    tables = relation_tables(guidelines)
    overlapping = {(row["code"], row["other_code"]) for row in tables["overlapping"].to_pylist()}
    confusions = {(row["code"], row["other_code"]) for row in tables["confusions"].to_pylist()}
    for pairs in (overlapping, confusions):
        assert pairs
        assert {code for pair in pairs for code in pair} <= known
        assert not [pair for pair in pairs if pair[0] == pair[1]]
    assert overlapping == {(other, code) for code, other in overlapping}


def test_names_and_phrases_fit_into_sentences(guidelines: GuidelineSet) -> None:
    for guideline in guidelines.by_code.values():
        for words in (guideline.name, guideline.phrase, *(confusion.how for confusion in guideline.confused_with)):
            assert words == words.strip(), guideline.code
            assert not words.endswith((".", ";", ",")), (guideline.code, words)
        assert not guideline.name.startswith(("a ", "an ", "the ")), guideline.code
        for rule in guideline.rules:
            assert not rule.text.endswith("."), (guideline.code, rule.id)
        assert guideline.definition.endswith("."), guideline.code
        assert guideline.meaning.endswith("."), guideline.code


def test_every_subject_has_another_name_in_each_language(guidelines: GuidelineSet) -> None:
    for guideline in guidelines.by_code.values():
        for language in LANGUAGES:
            assert getattr(guideline.synonyms, language), f"{guideline.code}: no synonym in {language}"


def test_names_are_also_known_as_damaged_reports_spell_them(guidelines: GuidelineSet) -> None:
    assert "vÄnster främre hemiblock" not in guidelines.by_code["LAFB"].names("sv")
    assert "vÄnster frÄmre hemiblock" in guidelines.by_code["LAFB"].names("sv")
    rows = relation_tables(guidelines)["synonyms"].to_pylist()
    assert {row["language"] for row in rows if row["damaged"]} == {"de", "sv"}
    assert not [row for row in rows if row["damaged"] and not set("ÄÖÜÅ") & set(row["synonym"])]


def test_what_is_not_a_finding_stays_out_of_the_findings(guidelines: GuidelineSet) -> None:
    tables = relation_tables(guidelines)
    walls = {row["code"] for row in tables["walls"].to_pylist()}
    assert walls == {code for code, category in guidelines.categories.items() if category == "anatomy"}
    assert not walls & {row["code"] for row in tables["guidelines"].to_pylist()}


def test_criteria_look_at_the_leads_of_the_walls_they_are_about(guidelines: GuidelineSet) -> None:
    regional = [
        g for code, g in guidelines.by_code.items() if guidelines.categories[code] in ("infarction", "ischaemia")
    ]
    assert sum(bool(guideline.walls) for guideline in regional) == 20
    for guideline in regional:
        walls = [wall for code in guideline.walls if (wall := guidelines.by_code[code].wall) is not None]
        seen = {lead for wall in walls for lead in (*wall.leads, *wall.opposite_leads)}
        for rule in guideline.rules if walls else ():
            assert seen & set(rule.leads), f"{guideline.code} {rule.id} looks at {rule.leads}, its walls at {seen}"


def test_normal_ranges_leave_no_age_between_them_and_say_the_age_they_are_for(guidelines: GuidelineSet) -> None:
    children = [rule for rule in guidelines.by_code["NORMAL_RATE"].rules if rule.id.startswith("age-")]
    decided = {}
    for age in (0.1, 1.9, 2.0, 3.5, 4.0, 7.99, 8.0, 11.5, 12.0, 17.9):
        (found,) = decide(guidelines, "NORMAL_RATE", {"age_years": age, "HR__Global": 105.0})
        decided[age] = [id for id, row in found.items() if id.startswith("age-") and row["verdict"] != "not_assessable"]
    assert all(len(ids) == 1 for ids in decided.values()), decided
    assert {id for ids in decided.values() for id in ids} == {rule.id for rule in children}


# ----------------------------------------------------------------------------------------------------------- verdicts

MET, NOT = "met", "not_met"
AT_THE_LIMITS: list[tuple[str, str, dict[str, Any], str, dict[float, str]]] = [
    ("1AVB", "pr-interval", MAN, "PR_Int_Global", {199: NOT, 200: NOT, 201: MET}),
    ("LPR", "pr-interval", WOMAN, "PR_Int_Global", {200: NOT, 201: MET}),
    ("SBRAD", "rate-below-60", MAN, "HR__Global", {59.9: MET, 60: NOT, 61: NOT}),
    ("STACH", "rate-above-100", MAN, "HR__Global", {99: NOT, 100: NOT, 100.1: MET}),
    ("CLBBB", "qrs-duration", MAN, "QRS_Dur_Global", {119: NOT, 120: MET, 121: MET}),
    ("CLBBB", "strict-duration", MAN, "QRS_Dur_Global", {130: NOT, 139: NOT, 140: MET, 141: MET}),
    ("CLBBB", "strict-duration", WOMAN, "QRS_Dur_Global", {129: NOT, 130: MET, 131: MET}),
    ("CRBBB", "qrs-duration", WOMAN, "QRS_Dur_Global", {119: NOT, 120: MET, 121: MET}),
    ("IRBBB", "qrs-below-120", MAN, "QRS_Dur_Global", {119: MET, 120: NOT, 121: NOT}),
    ("WPW", "short-pr-wide-qrs", {**MAN, "QRS_Dur_Global": 130.0}, "PR_Int_Global", {119: MET, 120: NOT, 121: NOT}),
    ("WPW", "short-pr-wide-qrs", {**MAN, "PR_Int_Global": 110.0}, "QRS_Dur_Global", {120: NOT, 121: MET}),
    ("ILBBB", "qrs-110-to-119", MAN, "QRS_Dur_Global", {109: NOT, 110: MET, 119: MET, 120: NOT}),
    ("IVCD", "qrs-duration", MAN, "QRS_Dur_Global", {109: NOT, 110: NOT, 111: MET}),
    ("LNGQT", "bazett", MAN, "QT_IntBazett_Global", {449: NOT, 450: MET, 451: MET}),
    ("LNGQT", "bazett", WOMAN, "QT_IntBazett_Global", {450: NOT, 459: NOT, 460: MET, 461: MET}),
    ("AXIS_NORMAL", "frontal-axis", MAN, "QRS_AxisFront_Global", {-31: NOT, -30: MET, 0: MET, 90: MET, 91: NOT}),
    ("AXIS_LEFT", "frontal-axis", MAN, "QRS_AxisFront_Global", {-29: NOT, -30: NOT, -31: MET, -90: MET, -91: NOT}),
    ("AXIS_RIGHT", "frontal-axis", MAN, "QRS_AxisFront_Global", {89: NOT, 90: NOT, 91: MET, 180: MET, -179: NOT}),
    ("AXIS_EXTREME", "frontal-axis", MAN, "QRS_AxisFront_Global", {-89: NOT, -90: NOT, -91: MET, 180: NOT}),
    (
        "VCLVH",
        "sokolow-lyon-voltage",
        {**MAN, "S_Amp_V1": -1.5, "R_Amp_V6": 1.0},
        "R_Amp_V5",
        {1.99: NOT, 2.0: MET, 2.01: MET},
    ),
    ("VCLVH", "cornell-voltage", {**MAN, "R_Amp_aVL": 1.0}, "S_Amp_V3", {-1.79: NOT, -1.8: NOT, -1.81: MET}),
    ("VCLVH", "cornell-voltage", {**WOMAN, "R_Amp_aVL": 1.0}, "S_Amp_V3", {-0.99: NOT, -1.0: NOT, -1.01: MET}),
    ("LVH", "sokolow-lyon-voltage", {**MAN, "S_Amp_V1": -1.5, "R_Amp_V5": 1.0}, "R_Amp_V6", {1.99: NOT, 2.0: MET}),
    ("RVH", "r-in-v1", MAN, "R_Amp_V1", {0.69: NOT, 0.7: MET, 0.71: MET}),
    ("RAO/RAE", "p-amplitude-v1", MAN, "P_Amp_V1", {0.14: NOT, 0.15: NOT, 0.16: MET}),
    ("LAO/LAE", "p-duration", MAN, "P_Dur_Global", {119: NOT, 120: MET, 121: MET}),
    ("STE_", "v2-v3-women", {**WOMAN, "ST_Amp_V3": 0.2}, "ST_Amp_V2", {0.14: NOT, 0.15: MET}),
    ("STE_", "v2-v3-men-from-40", {**MAN, "ST_Amp_V3": 0.3}, "ST_Amp_V2", {0.19: NOT, 0.2: MET}),
    ("STE_", "v2-v3-men-under-40", {**YOUNG_MAN, "ST_Amp_V3": 0.3}, "ST_Amp_V2", {0.24: NOT, 0.25: MET}),
    (
        "LVOLT",
        "limb-leads",
        {**MAN, **{f"QRS_AmpPP_{lead}": 0.3 for lead in ("I", "II", "III", "aVR", "aVL")}},
        "QRS_AmpPP_aVF",
        {0.49: MET, 0.5: NOT, 0.51: NOT},
    ),
]


@pytest.mark.parametrize(
    ("code", "criterion", "who", "measurement", "expected"),
    AT_THE_LIMITS,
    ids=[f"{code}-{criterion}-{who['sex']}" for code, criterion, who, *_ in AT_THE_LIMITS],
)
def test_verdicts_at_and_on_both_sides_of_the_limit(
    guidelines: GuidelineSet,
    code: str,
    criterion: str,
    who: dict[str, Any],
    measurement: str,
    expected: dict[float, str],
) -> None:
    rows = decide(guidelines, code, *({**who, measurement: float(value)} for value in expected))
    assert [row[criterion]["verdict"] for row in rows] == list(expected.values())


def test_at_least_fifteen_statements_are_checked_at_their_limits() -> None:
    assert len({code for code, *_ in AT_THE_LIMITS}) >= 15


def test_nothing_measured_nothing_decided(guidelines: GuidelineSet) -> None:
    found = findings(guidelines, [{"ecg_id": "made:1", **MAN}, {"ecg_id": "made:2", **WOMAN}])
    assert len(found) == 2 * len(every_rule(guidelines))
    assert [row for row in found if row["verdict"] != "not_assessable"] == []
    assert [row for row in found if row["evidence"] or row["evidence_text"]] == []


def test_what_is_missing_is_not_taken_for_zero(guidelines: GuidelineSet) -> None:
    (found,) = decide(guidelines, "VCLVH", {**MAN, "S_Amp_V1": -1.5, "R_Amp_aVL": 0.4})
    assert found["sokolow-lyon-voltage"]["verdict"] == "not_assessable"
    assert found["cornell-voltage"]["verdict"] == "not_assessable"
    (found,) = decide(guidelines, "LVOLT", {**MAN, "QRS_AmpPP_I": 0.3, "QRS_AmpPP_II": 0.2})
    assert found["limb-leads"]["verdict"] == "not_assessable"
    (found,) = decide(guidelines, "LVOLT", {**MAN, "QRS_AmpPP_I": 0.3, "QRS_AmpPP_II": 0.9})
    assert found["limb-leads"]["verdict"] == "not_met", "one tall lead decides, whatever the others are"


def test_outside_its_population_a_criterion_is_not_assessable(guidelines: GuidelineSet) -> None:
    rows = decide(
        guidelines,
        "1AVB",
        {"PR_Int_Global": 220.0, "age_years": 17.0},
        {"PR_Int_Global": 220.0, "age_years": 18.0},
        {"PR_Int_Global": 220.0},
    )
    assert [row["pr-interval"]["verdict"] for row in rows] == ["not_assessable", "met", "not_assessable"]
    measured = {"ST_Amp_V2": 0.18, "ST_Amp_V3": 0.18}
    man, woman, unknown = decide(guidelines, "STE_", {**MAN, **measured}, {**WOMAN, **measured}, {**measured})
    assert man["v2-v3-women"]["verdict"] == "not_assessable"
    assert woman["v2-v3-women"]["verdict"] == "met"
    assert woman["v2-v3-men-from-40"]["verdict"] == "not_assessable"
    assert {finding["verdict"] for finding in unknown.values()} == {"not_assessable"}


def test_where_limits_differ_by_sex_and_sex_is_unknown_nothing_is_decided(guidelines: GuidelineSet) -> None:
    (found,) = decide(guidelines, "LNGQT", {"age_years": 60.0, "QT_IntBazett_Global": 500.0})
    assert found["bazett"]["verdict"] == "not_assessable"
    assert found["bazett"]["evidence"] == []


# ----------------------------------------------------------------------------------------------------------- evidence


def test_evidence_quotes_the_value_the_unit_and_the_limit(guidelines: GuidelineSet) -> None:
    (found,) = decide(guidelines, "1AVB", {**MAN, "PR_Int_Global": 212.0})
    assert found["pr-interval"]["evidence"] == [
        {"name": "PR_Int_Global", "value": 212.0, "unit": "ms", "limit": "> 200 ms"}
    ]
    assert found["pr-interval"]["evidence_text"] == "PR interval 212 ms (limit > 200 ms)"


def test_evidence_quotes_only_the_limit_for_this_patient(guidelines: GuidelineSet) -> None:
    man, woman = decide(
        guidelines, "LNGQT", {**MAN, "QT_IntBazett_Global": 455.0}, {**WOMAN, "QT_IntBazett_Global": 455.0}
    )
    assert [item["limit"] for item in man["bazett"]["evidence"]] == ["≥ 450 ms"]
    assert [item["limit"] for item in woman["bazett"]["evidence"]] == ["≥ 460 ms"]


def test_two_limits_on_one_value_are_said_together(guidelines: GuidelineSet) -> None:
    (found,) = decide(guidelines, "AXIS_NORMAL", {**MAN, "QRS_AxisFront_Global": 21.0})
    assert found["frontal-axis"]["evidence_text"] == "frontal QRS axis 21° (limits ≥ -30° and ≤ 90°)"
    assert [item["limit"] for item in found["frontal-axis"]["evidence"]] == ["≥ -30°", "≤ 90°"]


def test_of_a_criterion_that_is_not_met_only_what_falls_short_is_said(guidelines: GuidelineSet) -> None:
    row = {"QRS_Dur_Global": 96.0, "Q_Amp_I": -0.05, "Q_Dur_I": 20.0, "QRS_AxisFront_Global": -20.0}
    (found,) = decide(guidelines, "LAFB", {**MAN, **row})
    assert found["minnesota-7-7"]["evidence_text"] == "frontal QRS axis -20° (limits ≤ -45° and ≥ -90°)"
    assert len(found["minnesota-7-7"]["evidence"]) == 5, "the values themselves are all kept"


def test_of_leads_that_may_meet_a_criterion_only_those_that_do_are_said(guidelines: GuidelineSet) -> None:
    narrow = {**MAN, "QRS_Dur_Global": 90.0}
    one, none = decide(
        guidelines, "ASMI", {**narrow, "Q_Dur_V2": 30.0, "Q_Dur_V3": 0.0}, {**narrow, "Q_Dur_V2": 0.0, "Q_Dur_V3": 10.0}
    )
    met, not_met = one["q-waves-v2-v3"], none["q-waves-v2-v3"]
    assert (met["verdict"], not_met["verdict"]) == ("met", "not_met")
    said = "Q (or QS) duration in V2 30 ms (limit > 20 ms) and QRS duration 90 ms (limit < 120 ms)"
    assert met["evidence_text"] == said
    assert "in V2 0 ms" in not_met["evidence_text"]
    assert "in V3 10 ms" in not_met["evidence_text"]
    assert [item["value"] for item in met["evidence"]] == [30.0, 0.0, 90.0], "the evidence keeps what was compared"


def test_an_axis_beyond_minus_90_speaks_against_posterior_block_unless_the_complex_is_wide(
    guidelines: GuidelineSet,
) -> None:
    axis = {**MAN, "QRS_AxisFront_Global": -145.0}
    found = decide(guidelines, "LPFB", *({**axis, "QRS_Dur_Global": width} for width in (112.0, 120.0)), axis)
    assert [one["right-axis"]["verdict"] for one in found] == ["not_met", "not_assessable", "not_assessable"]


def test_evidence_of_a_sum_is_named_in_words(guidelines: GuidelineSet) -> None:
    (found,) = decide(guidelines, "VCLVH", {**MAN, "S_Amp_V1": -1.5, "R_Amp_V5": 2.25, "R_Amp_V6": 1.0})
    assert found["sokolow-lyon-voltage"]["evidence"] == [
        {"name": "S in V1 plus the larger R in V5 or V6", "value": 3.75, "unit": "mV", "limit": "≥ 3.5 mV"}
    ]
    assert (
        found["sokolow-lyon-voltage"]["evidence_text"]
        == "S in V1 plus the larger R in V5 or V6 3.75 mV (limit ≥ 3.5 mV)"
    )


# ------------------------------------------------------------------------------------------- mistakes in written files

SOURCES = """
smith-2020: {authors: "Smith A, Jones B", title: A title, journal: A journal, year: 2020, doi: 10.1000/abc}
"""
BLOCK = """
code: SLOW
name: slow conduction
phrase: slow conduction
kinds: [diagnostic]
definition: It is slow.
meaning: It matters.
pitfalls: Beware.
criteria:
  - id: long
    role: defining
    text: PR interval longer than 200 ms
    sql: PR_Int_Global > $upper
    limits:
      upper: {of: PR_Int_Global, is: ">", value: 200, unit: ms}
    population: {min_age_years: 18}
    cite: {source: smith-2020, section: page 1}
cites: [{source: smith-2020, section: page 1}]
verified: document
"""


def folder_of(root: Path, sources: str = SOURCES, **files: str) -> Path:
    (root / "conduction").mkdir(parents=True)
    (root / "sources.yaml").write_text(sources)
    for name, text in files.items():
        (root / "conduction" / f"{name}.yaml").write_text(text)
    return root


def test_the_example_of_these_tests_is_valid(tmp_path: Path) -> None:
    guidelines, violations = read_guidelines(folder_of(tmp_path, SLOW=BLOCK))
    assert violations == []
    assert guidelines is not None
    assert isinstance(guidelines.by_code["SLOW"], Guideline)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("meaning: It matters.\n", "", "meaning"),
        ("pitfalls: Beware.", "pitfals: Beware.", "pitfals"),
        ("kinds: [diagnostic]", "kinds: [opinion]", "kinds"),
        ("role: defining", "role: decisive", "role"),
        ("id: long", "id: Too Long", "id"),
        ("> $upper", "> 200", "sql"),
        ("> $upper", "> $uper", "uper"),
        ("PR_Int_Global > $upper", "PR_Int_Global * 3 > $upper", "number 3"),
        ("sql: PR_Int_Global", "sql: PR_Interval", "PR_Interval"),
        ("sql: PR_Int_Global > $upper", "sql: (PR_Int_Global > $upper", "criterion long"),
        ("sql: PR_Int_Global > $upper", "sql: PR_Int_Global > $upper; DROP TABLE ecgs", "criterion long"),
        ("{of: PR_Int_Global,", "{of: PR_Int_Global + 1,", "words"),
        ('is: ">"', 'is: "="', "is"),
        ("value: 200", "value: two hundred", "value"),
        (", unit: ms}", "}", "unit"),
        ("{min_age_years: 18}", "{minimum_age: 18}", "minimum_age"),
        ("cite: {source: smith-2020", "cite: {source: smith-1920", "smith-1920"),
        ("cites: [{source: smith-2020, section: page 1}]", "cites: []", "cites"),
        ("verified: document", "verified: surely", "verified"),
        ("code: SLOW", "code: SLOW\ncode: FAST", "twice"),
        ("name: slow conduction", "name: &name slow conduction", "anchors"),
        ("verified: document", "verified: document\noverlaps: [NOWHERE]", "NOWHERE"),
        ("verified: document", "verified: document\noverlaps: [SLOW]", "itself"),
        ("verified: document", "verified: document\nconfused_with: [{code: NOWHERE, how: by name}]", "NOWHERE"),
        ("verified: document", "verified: document\nabsence_unsure_when: no_such_column", "absence_unsure_when"),
        ("verified: document", "verified: document\nwalls: [NOWHERE]", "NOWHERE"),
        ("kinds: [diagnostic]", "kinds: [anatomy]", "wall"),
        ("verified: document", "verified: document\nwall: {leads: [II], arteries: [RCA]}", "anatomy"),
        (BLOCK[BLOCK.index("criteria:") : BLOCK.index("cites:")], "criteria: none\n", "no_criteria"),
    ],
)
def test_each_mistake_names_its_file_and_field(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in BLOCK
    _, violations = read_guidelines(folder_of(tmp_path, SLOW=BLOCK.replace(before, after, 1)))
    assert violations
    assert all("SLOW.yaml" in violation.where for violation in violations), violations
    assert any(message in violation.message for violation in violations), violations


def test_two_statements_share_a_name_only_if_they_overlap(tmp_path: Path) -> None:
    named = BLOCK.replace("definition:", "synonyms: {de: [Leitungsverzögerung]}\ndefinition:")
    other = named.replace("code: SLOW", "code: LATE").replace("name: slow", "name: late")
    guidelines, violations = read_guidelines(folder_of(tmp_path / "apart", SLOW=named, LATE=other))
    assert guidelines is not None
    assert any("'leitungsverzögerung' (de) also names" in violation.message for violation in violations)
    overlapping = other + "overlaps: [SLOW]\n"
    assert read_guidelines(folder_of(tmp_path / "together", SLOW=named, LATE=overlapping))[1] == []


def test_a_source_without_doi_and_address_is_named(tmp_path: Path) -> None:
    root = folder_of(tmp_path, sources=SOURCES.replace(", doi: 10.1000/abc", ""), SLOW=BLOCK)
    with pytest.raises(DefinitionError, match=r"smith-2020: .*doi or a url"):
        load_guidelines(root)


def test_a_folder_without_bibliography_or_with_an_unknown_category_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DefinitionError, match=r"sources\.yaml is missing"):
        load_guidelines(tmp_path / "empty")
    root = folder_of(tmp_path / "guidelines", SLOW=BLOCK)
    (root / "conduction").rename(root / "plumbing")
    with pytest.raises(DefinitionError, match="folder 'plumbing' is not one of"):
        load_guidelines(root)


def test_one_code_in_two_files_is_named_with_both(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"B\.yaml: code SLOW is already defined in .*A\.yaml"):
        load_guidelines(folder_of(tmp_path, A=BLOCK, B=BLOCK))


def test_all_mistakes_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    files = {
        "A": BLOCK.replace("meaning: It matters.\n", "").replace("kinds: [diagnostic]", "kinds: [opinion]"),
        "B": BLOCK.replace("code: SLOW", "code: B").replace("> $upper", "> $uper"),
        "C": BLOCK.replace("code: SLOW", "code: C").replace("PR_Int_Global >", "PR_Interval >"),
    }
    with pytest.raises(DefinitionError) as error:
        load_guidelines(folder_of(tmp_path, **files))
    for told in ("A.yaml: meaning", "A.yaml: kinds", "uper", "PR_Interval"):
        assert told in str(error.value)
