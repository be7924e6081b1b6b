"""`synth why` leads from a pair to record, measurement, cited limit and template line, and makes the pair again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from corpora import read_pairs, with_changed_pairs, with_changed_table
from rich.console import Console

from ecglm.synth.build import BuildConfig, build
from ecglm.synth.corpus import Corpus
from ecglm.synth.errors import CorpusError
from ecglm.synth.measure.dictionary import measurements
from ecglm.synth.schema import DEFAULT_FAMILIES
from ecglm.synth.why import explain, print_explanation


@pytest.fixture(scope="session")
def corpus(simulated_corpus: Path) -> Path:
    return simulated_corpus


def pair_id_of(corpus: Path, template_id: str, answer: str | None = None) -> str:
    fits = (row for row in read_pairs(corpus) if row["template_id"] == template_id)
    return str(next(row["pair_id"] for row in fits if answer in (None, *row["answers"])))


def first_of_each(corpus: Path, column: str) -> dict[str, str]:
    """The pair with the smallest id for each value of a column."""
    return {
        row[column]: row["pair_id"] for row in sorted(read_pairs(corpus), key=lambda row: row["pair_id"], reverse=True)
    }


@pytest.mark.parametrize("family", DEFAULT_FAMILIES)
def test_a_pair_of_every_family_is_made_again_byte_for_byte(corpus: Path, family: str) -> None:
    explanation = explain(Corpus.open(corpus), first_of_each(corpus, "family")[family])
    assert explanation.difference is None
    assert explanation.identical


@pytest.mark.slow
def test_a_pair_of_every_fourth_template_is_made_again_byte_for_byte(corpus: Path) -> None:
    opened = Corpus.open(corpus)
    chosen = sorted(first_of_each(corpus, "template_id").items())[::4]
    differences = {template_id: explain(opened, pair_id).difference for template_id, pair_id in chosen}
    assert {template_id: text for template_id, text in differences.items() if text} == {}


@pytest.mark.slow
def test_pairs_about_real_ecgs_are_made_again_byte_for_byte(ptbxl_part: Path, tmp_path: Path) -> None:
    build(BuildConfig(ptbxl=ptbxl_part, limit=300, workers=1, out=tmp_path / "corpus"))
    opened = Corpus.open(tmp_path / "corpus")
    differences = [explain(opened, pair_id).difference for pair_id in first_of_each(opened.root, "family").values()]
    assert differences == [None] * len(differences)
    assert len(differences) == len(DEFAULT_FAMILIES)


def test_values_and_limits_are_those_of_the_tables_and_cited_with_a_doi(corpus: Path) -> None:
    opened = Corpus.open(corpus)
    explanation = explain(opened, pair_id_of(corpus, "verify-criterion", "yes"))
    (evidence, *_) = explanation.pair["evidence"]
    decided = [row for row in explanation.criteria if evidence in row["evidence"]]
    assert [row["verdict"] for row in decided].count("met") >= 1
    assert all(re.search(r"doi:10\.\d{4,}/|https?://", row["reference"]) for row in explanation.criteria)
    assert all(row["limits"] for row in explanation.criteria)
    table = {(row["ecg_id"], row["provider"]): row for row in opened.table("measurements").to_table().to_pylist()}
    for row in explanation.measurements:
        same = (row["name"], *measurements()[row["name"]].same_as)
        assert row["value"] in [table[row["ecg_id"], row["provider"]].get(name) for name in same]
    assert evidence["value"] in {row["value"] for row in explanation.measurements}


def test_the_record_is_shown_with_its_labels(corpus: Path) -> None:
    opened = Corpus.open(corpus)
    explanation = explain(opened, pair_id_of(corpus, "verify-rhythm"))
    (record,) = explanation.records
    source = {row["ecg_id"]: row for row in opened.table("ecgs").to_table().to_pylist()}[record["ecg_id"]]
    assert {name: record[name] for name in record if name != "labels"} == {
        name: source[name] for name in record if name != "labels"
    }
    labels = opened.table("labels").to_table().to_pylist()
    assert [(label["code"], label["likelihood"]) for label in record["labels"]] == [
        (label["code"], label["likelihood"]) for label in labels if label["ecg_id"] == record["ecg_id"]
    ]


def test_a_comparison_shows_both_records_in_time_order(corpus: Path) -> None:
    explanation = explain(Corpus.open(corpus), pair_id_of(corpus, "comparison-rate"))
    first, second = explanation.records
    assert second["previous_ecg_id"] == first["ecg_id"]
    assert {row["ecg_id"] for row in explanation.measurements} == {first["ecg_id"], second["ecg_id"]}


def test_knowledge_shows_its_guideline_and_no_record(corpus: Path) -> None:
    explanation = explain(Corpus.open(corpus), first_of_each(corpus, "family")["knowledge"])
    assert explanation.records == []
    assert all(guideline["references"] for guideline in explanation.guidelines)
    assert {guideline["code"] for guideline in explanation.guidelines} >= set(explanation.pair["guideline_ids"])


def test_the_template_lines_are_those_that_were_used(corpus: Path) -> None:
    opened = Corpus.open(corpus)
    explanation = explain(opened, pair_id_of(corpus, "verify-statement"))
    texts = {row["template_id"]: row["text"] for row in opened.table("templates").to_table().to_pylist()}
    lines = texts["verify-statement"].split("\n")
    assert explanation.template["file"] == "templates/verify/verify-statement.jinja"
    for turn in explanation.template["turns"]:
        assert lines[turn["line"] - 1] == "- " + turn["wording"].split("\n")[0]
    assert [turn["choice"] - 1 for turn in explanation.template["turns"]] == [
        int(choice) for choice in explanation.pair["variant"].split(".")
    ]


def test_a_word_changed_afterwards_is_shown(corpus: Path, tmp_path: Path) -> None:
    pair_id = pair_id_of(corpus, "verify-rhythm", "yes")

    def change(rows: list[dict[str, object]]) -> None:
        row = next(row for row in rows if row["pair_id"] == pair_id)
        row["messages"] = [
            {"role": "user", "content": "Sinus rhythm?"},
            {"role": "assistant", "content": "Yes, I am quite sure."},
        ]

    explanation = explain(with_changed_pairs(corpus, tmp_path / "corpus", change), pair_id)
    assert not explanation.identical
    assert "-assistant: Yes, I am quite sure." in str(explanation.difference)
    assert "content_hash" in str(explanation.difference)


def test_a_measurement_changed_afterwards_is_shown(corpus: Path, tmp_path: Path) -> None:
    pair_id = pair_id_of(corpus, "measurement-rate")
    ecg_id = explain(Corpus.open(corpus), pair_id).pair["ecg_ids"][0]

    def change(rows: list[dict[str, object]]) -> None:
        for row in rows:
            if row["ecg_id"] == ecg_id:
                row["HR__Global"] = 33.0

    explanation = explain(with_changed_table(corpus, tmp_path / "corpus", "measurements", change), pair_id)
    assert not explanation.identical
    assert "33/min" in str(explanation.difference)


def test_a_label_removed_afterwards_means_the_template_no_longer_selects_the_row(corpus: Path, tmp_path: Path) -> None:
    pair_id = pair_id_of(corpus, "verify-rhythm", "yes")
    ecg_id = explain(Corpus.open(corpus), pair_id).pair["ecg_ids"][0]

    def change(rows: list[dict[str, object]]) -> None:
        rows[:] = [row for row in rows if row["ecg_id"] != ecg_id]

    explanation = explain(with_changed_table(corpus, tmp_path / "corpus", "labels", change), pair_id)
    assert "does not select this row again" in str(explanation.difference)


def test_another_version_of_the_template_is_named_as_the_reason(corpus: Path, tmp_path: Path) -> None:
    pair_id = pair_id_of(corpus, "verify-rhythm")

    def change(rows: list[dict[str, object]]) -> None:
        row = next(row for row in rows if row["template_id"] == "verify-rhythm")
        row["text"] = str(row["text"]).replace("version: 1\n", "version: 2\n")

    planted = with_changed_table(corpus, tmp_path / "corpus", "templates", change)
    manifest = dict(planted.manifest) | {"versions": {"duckdb": "0.0.1"}}
    explanation = explain(Corpus(planted.root, manifest), pair_id)
    assert "another version of the template" in str(explanation.difference)
    assert "duckdb 0.0.1 (here " in str(explanation.difference)


def test_an_unknown_pair_is_refused_with_a_way_to_find_one(corpus: Path) -> None:
    with pytest.raises(CorpusError, match=r"no pair 'nonsense'.*synth query"):
        explain(Corpus.open(corpus), "nonsense")


def test_an_explanation_is_plain_data(corpus: Path) -> None:
    explanation = explain(Corpus.open(corpus), pair_id_of(corpus, "verify-statement"))
    content = json.loads(json.dumps(explanation.as_dict()))
    assert content["identical"] is True
    assert content["pair"]["messages"] == explanation.pair["messages"]


def test_an_explanation_is_printed_from_the_words_back_to_the_record(corpus: Path, tmp_path: Path) -> None:
    explanation = explain(Corpus.open(corpus), pair_id_of(corpus, "verify-criterion", "yes"))
    with (tmp_path / "out.txt").open("w") as stream:
        console = Console(width=100, record=True, file=stream, highlight=False)
        print_explanation(explanation, console)
        text = console.export_text()
    shown = [
        explanation.pair["messages"][1]["content"],
        f"record {explanation.pair['ecg_ids'][0]}",
        "measurements",
        "criteria",
        "doi:10.",
        "template templates/verify/verify-criterion.jinja",
        "identical, byte for byte",
    ]
    places = [text.find(part) for part in shown]
    assert -1 not in places
    assert places == sorted(places)
