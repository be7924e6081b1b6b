"""The consistency gate: what the measurements contradict is said, or left out, statement by statement."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.corpus import Corpus
from ecglm.synth.database import LockedConnection
from ecglm.synth.findings import rules_of
from ecglm.synth.gate import gate_counts, gate_table
from ecglm.synth.guidelines import load_guidelines
from ecglm.synth.templates import read_templates

NEVER_CONTRADICTED = {
    "dialogue-infarction",
    "infarction-age",
    "infarction-stage",
    "infarction-stage-verify",
    "query-infarction-site",
}
"""They quote infarctions alone, which have no defining criterion."""
RHYTHM_ONLY = {"choose-rhythm", "query-rhythm", "interpretation-rate-rhythm-axis"}
"""They quote rhythms alone, of which under 5 % are contradicted in PTB-XL."""

LABELS = pa.schema({"code": pa.string(), "certainty": pa.string(), "contradiction": pa.string()})
NEGATIVES = pa.schema({"code": pa.string(), "suggestion": pa.string()})


def gated(labels: list[dict[str, Any]], negatives: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    counts = gate_counts(pa.Table.from_pylist(labels, schema=LABELS), pa.Table.from_pylist(negatives, schema=NEGATIVES))
    return {row["code"]: row for row in gate_table([counts]).to_pylist()}


def stated(code: str, times: int, contradiction: str | None = None, certainty: str = "certain") -> list[dict[str, Any]]:
    return [{"code": code, "certainty": certainty, "contradiction": contradiction}] * times


def test_more_than_one_in_twenty_is_worded_as_a_disagreement() -> None:
    rows = gated(
        stated("LAFB", 94) + stated("LAFB", 6, "axis 4°") + stated("STACH", 95) + stated("STACH", 5, "rate 90/min"), []
    )
    assert [rows[code]["reword_stated"] for code in ("LAFB", "STACH")] == [True, False]


def test_labels_of_unknown_certainty_do_not_count() -> None:
    rows = gated(stated("LVH", 10) + stated("LVH", 10, "x", certainty="unknown"), [])
    assert (rows["LVH"]["n_stated"], rows["LVH"]["n_contradicted"]) == (10, 0)


def test_absent_statements_are_counted_by_themselves() -> None:
    absent = [{"code": "RVH", "suggestion": None}] * 9 + [{"code": "RVH", "suggestion": "R in V1 0.8 mV"}]
    rows = gated(stated("RVH", 40), absent)
    assert (rows["RVH"]["reword_stated"], rows["RVH"]["reword_absent"]) == (False, True)


def test_parts_of_a_source_add_up() -> None:
    part = {"LVH": [10, 1, 5, 0]}
    (row,) = gate_table([part, part, {}]).to_pylist()
    assert (row["n_stated"], row["n_contradicted"], row["n_absent"], row["n_suggested"]) == (20, 2, 10, 0)


def test_no_template_rejects_a_contradicted_reading_whatever_its_statement() -> None:
    deaf = {
        template.id
        for template in read_templates()[0]
        if "'contradicted_by_measurement'" in template.header.sql
        and not re.search(r"reword|\brejects\b", template.header.sql)
    }
    assert deaf == NEVER_CONTRADICTED | RHYTHM_ONLY


def test_a_group_of_statements_is_denied_with_what_suggests_one_of_them(simulated_corpus: Path) -> None:
    corpus = Corpus.open(simulated_corpus)
    chosen = pc.field("template_id").isin(["verify-superclass", "verify-subclass"])
    reasons = corpus.table("rejected").to_table(columns=["reason"], filter=chosen)["reason"].to_pylist()
    pairs = corpus.table("pairs").to_table(columns=["answers", "messages"], filter=chosen).to_pylist()
    denied = [pair["messages"][1]["content"] for pair in pairs if pair["answers"] == ["no"]]
    assert any("by measurement" in text.lower() and "is met" in text for text in denied)
    assert reasons
    assert "suggested_by_measurement" not in reasons


def test_a_patient_is_not_told_one_finding_as_if_it_were_all(simulated_corpus: Path) -> None:
    corpus = Corpus.open(simulated_corpus)
    chosen = pc.field("template_id") == "dialogue-patient"
    pairs = corpus.table("pairs").to_table(columns=["ecg_ids", "codes", "messages"], filter=chosen).to_pylist()
    labels = corpus.table("labels").to_table(columns=["ecg_id", "code"]).to_pylist()
    stated = {pair["ecg_ids"][0]: set[str]() for pair in pairs}
    for label in labels:
        if label["ecg_id"] in stated and label["code"] not in ("NORM", "SR"):
            stated[label["ecg_id"]].add(label["code"])
    several = [len(stated[pair["ecg_ids"][0]]) > 1 for pair in pairs]
    told = ["among other things" in pair["messages"][1]["content"].lower() for pair in pairs]
    assert set(several) == {True, False}
    assert told == several


def test_a_reading_is_not_quoted_as_surer_than_it_is(simulated_corpus: Path) -> None:
    corpus = Corpus.open(simulated_corpus)
    labels = corpus.table("labels").to_table(columns=["ecg_id", "code", "certainty"]).to_pylist()
    certainty = {(row["ecg_id"], row["code"]): row["certainty"] for row in labels}
    chosen = pc.field("template_id") == "dialogue-what-if"
    pairs = corpus.table("pairs").to_table(columns=["ecg_ids", "codes", "messages"], filter=chosen).to_pylist()
    said = [
        (
            certainty.get((pair["ecg_ids"][0], pair["codes"][0])),
            re.search("(states|includes) (.*)", str(last["content"])),
        )
        for pair in pairs
        for last in pair["messages"][-1:]
    ]
    assert any(grade in ("possible", "probable") for grade, _ in said)
    for grade, found in said:
        if grade in ("possible", "probable"):
            assert found
            assert found[2].startswith(f"{grade} ")


def test_an_answer_about_normality_disagrees_only_on_what_it_names() -> None:
    """Of atrial fibrillation and of a first-degree block that are both contradicted "no" names the block alone."""
    evidence = [{"name": "x", "value": 1.0, "unit": "ms", "limit": "> 2 ms"}]
    doubted = [
        {"code": code, "name": name, "text": "x 1 ms (limit > 2 ms)", "evidence": evidence}
        for code, name in (("AFIB", "atrial fibrillation"), ("1AVB", "first-degree AV block"))
    ]
    words = dict.fromkeys(("annotation_text", "diagnoses_text", "normal_exceptions", "rate_text", "axis_text"), "x")
    facts = {"ecg_id": "a", **words, "HR__Global": 70.0, "QRS_AxisFront_Global": 10.0, "contradictions": doubted}
    facts |= {"diagnostic_codes": ["1AVB"], "normal_assertable": False, "label_evidence": evidence}
    label = {"ecg_id": "a", "code": "1AVB", "likelihood": 100.0, "certainty": "certain", "kinds": ["diagnostic"]}
    tables = {"facts": facts, "labels": label, "doubts": {"ecg_id": "a", "rejects": False}}
    (template,) = [template for template in read_templates()[0] if template.id == "verify-normal"]
    with LockedConnection({name: pa.Table.from_pylist([row]) for name, row in tables.items()}) as connection:
        (row,) = connection.select(template.header.sql).to_pylist()
    assert (row["verdict"], row["guideline_ids"]) == ("no", ["1AVB"])
    assert row["disagreement"] == "the measurements disagree on first-degree AV block: x 1 ms (limit > 2 ms)"


def test_infarctions_have_nothing_that_could_contradict_them() -> None:
    infarctions = [g for g in load_guidelines().by_code.values() if g.code.endswith("MI") or g.code.startswith("INJ")]
    assert len(infarctions) >= 14
    assert not [g.code for g in infarctions if g.criteria_exhaustive or any(r.role == "defining" for r in g.rules)]


def test_a_yes_against_a_measured_definition_says_so(simulated_corpus: Path) -> None:
    corpus = Corpus.open(simulated_corpus)
    defining = {(code, rule.id) for code, rule in rules_of(load_guidelines()) if rule.role == "defining"}
    against = {
        (row["ecg_id"], row["code"])
        for row in corpus.table("findings").to_table(columns=["ecg_id", "code", "criterion", "verdict"]).to_pylist()
        if row["verdict"] == "not_met" and (row["code"], row["criterion"]) in defining
    }
    chosen = pc.field("template_id").isin(["verify-statement", "verify-rhythm", "verify-graded"])
    columns = ["ecg_ids", "codes", "answers", "messages"]
    pairs = corpus.table("pairs").to_table(columns=columns, filter=chosen).to_pylist()
    silent = [
        pair["messages"][1]["content"]
        for pair in pairs
        if pair["answers"] != ["no"]
        and (pair["ecg_ids"][0], pair["codes"][0]) in against
        and not re.search("disagree|bear it out|borne out|measured otherwise|by measurement|speaks against", str(pair))
    ]
    assert pairs
    assert not silent
