"""`synth test` finds what is wrong with a corpus: for every check, the defect it is for is planted and found."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from corpora import Rows, copied, with_changed_pairs, with_changed_table
from rich.console import Console

from ecglm.synth.build import BuildConfig, build
from ecglm.synth.checks import (
    FILE_CHECKS,
    MEANINGS,
    answer_meanings,
    load_checks,
    pair_parts,
    print_results,
    run_checks,
    verify_files,
)
from ecglm.synth.corpus import MANIFEST, Corpus, write_json
from ecglm.synth.errors import DefinitionError
from ecglm.synth.templates import load_templates

CLOSED_BY_MEANING = {"yes_no", "agreement", "support", "statement_change", "normal_verdict"}


@pytest.fixture(scope="session")
def corpus(simulated_corpus: Path) -> Path:
    return simulated_corpus


def test_a_freshly_built_corpus_passes_every_check(corpus: Path) -> None:
    results = run_checks(Corpus.open(corpus))
    assert {result.name: result.examples for result in results if result.n_bad} == {}
    assert {result.name for result in results} == {check.name for check in load_checks()} | set(FILE_CHECKS)


@pytest.mark.slow
def test_a_corpus_of_real_ecgs_has_no_error(ptbxl_part: Path, tmp_path: Path) -> None:
    build(BuildConfig(ptbxl=ptbxl_part, limit=600, workers=1, out=tmp_path / "corpus"))
    results = run_checks(Corpus.open(tmp_path / "corpus"))
    errors = {result.name: result.examples for result in results if result.n_bad and result.severity == "error"}
    assert errors == {}


# ----------------------------------------------------------------------------------------------------- planted defects


def one(rows: Rows, fits: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first row that fits; the test corpus must have one."""
    return next(row for row in rows if fits(row))


def say(row: dict[str, Any], text: str, turn: int = -1) -> None:
    row["messages"] = [dict(message) for message in row["messages"]]
    row["messages"][turn]["content"] = text


def of_template(template_id: str) -> Callable[[dict[str, Any]], object]:
    return lambda row: row["template_id"] == template_id


def answered(template_id: str, answer: str) -> Callable[[dict[str, Any]], object]:
    return lambda row: row["template_id"] == template_id and row["answers"][:1] == [answer]


def opposite(text: str) -> str:
    return text.removeprefix("-") if text.startswith("-") else f"-{text}"


def another_option(row: dict[str, Any]) -> list[str]:
    return [next(option for option in row["options"] if option not in row["answers"])]


def of_family(*families: str) -> Callable[[dict[str, Any]], object]:
    return lambda row: row["family"] in families


def with_limit(row: dict[str, Any]) -> bool:
    return any(item["limit"] for item in row["evidence"])


def change(fits: Callable[[dict[str, Any]], object], **values: Any) -> Callable[[Rows], None]:
    """Sets columns of the first row that fits; a function is given the row."""

    def plant(rows: Rows) -> None:
        row = one(rows, fits)
        row |= {name: value(row) if callable(value) else value for name, value in values.items()}

    return plant


def write(text: str, turn: int = -1) -> Callable[[Rows], None]:
    return lambda rows: say(one(rows, of_family("verify")), text, turn)


def added(fits: Callable[[dict[str, Any]], object], **values: Any) -> Callable[[Rows], None]:
    """A copy of the first row that fits, with some columns changed."""
    return lambda rows: rows.append({**one(rows, fits), **values})


def added_pair(**values: Any) -> Callable[[Rows], None]:
    def plant(rows: Rows) -> None:
        fits = answered("verify-normal", "yes")
        copy = {**one(rows, fits), "pair_id": "0" * 32, **values}
        rows.append(copy)

    return plant


def changed_evidence(**values: Any) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    return lambda row: [{**item, **values} for item in row["evidence"]]


def every(row: dict[str, Any]) -> bool:
    return True


@dataclass(frozen=True)
class Defect:
    """What is planted, in which table, for the check of this name to find."""

    check: str
    plant: Callable[[Rows], object]
    table: str = "pairs"


DEFECTS = [
    # identity, patients, splits
    Defect("pair-ecg-unknown", change(of_family("verify"), ecg_ids=["simulated:none"])),
    Defect("pair-ecg-unknown", change(of_family("verify"), ecg_ids=lambda row: row["ecg_ids"] * 2)),
    Defect("pair-disagrees-with-ecgs", change(lambda row: row["split"] == "test", split="train")),
    Defect(
        "pair-disagrees-with-ecgs", change(of_family("verify"), strat_folds=lambda row: [row["strat_folds"][0] % 8 + 1])
    ),
    Defect("pair-disagrees-with-ecgs", change(of_family("verify"), patient_ids=["simulated:somebody"])),
    Defect("pair-train-from-held-out-fold", change(lambda row: row["strat_folds"] == [10], split="train")),
    Defect("pair-train-from-held-out-fold", change(lambda row: row["strat_folds"] == [9], split="test")),
    Defect("pair-without-ecg", change(of_family("verify"), ecg_ids=[], patient_ids=[], strat_folds=[])),
    Defect("pair-without-ecg", change(of_family("knowledge"), ecg_ids=["simulated:1"])),
    Defect("pair-ids-malformed", change(every, pair_id="first")),
    Defect("pair-ids-malformed", change(every, content_hash=None)),
    Defect("pair-id-twice", lambda rows: rows.append({**rows[0], "ecg_ids": rows[1]["ecg_ids"]})),
    Defect("pair-said-twice", added_pair()),
    Defect("pair-contradiction", added_pair(answers=["no"])),
    Defect("pair-patient-in-two-splits", change(lambda row: row["split"] == "test" and row["ecg_ids"], split="train")),
    Defect("comparison-not-consecutive", change(of_family("comparison"), ecg_ids=lambda row: row["ecg_ids"][::-1])),
    Defect("comparison-not-consecutive", change(of_family("comparison"), patient_ids=["simulated:1", "simulated:2"])),
    Defect("ecg-patient-in-two-splits", lambda rows: [row.update(patient_id="simulated:one") for row in rows], "ecgs"),
    Defect("ecg-values", added(every), "ecgs"),
    Defect("ecg-values", change(every, age_years=300.0), "ecgs"),
    Defect("ecg-values", change(lambda row: row["strat_fold"] == 9, split="train"), "ecgs"),
    Defect("ecg-values", change(lambda row: row["previous_ecg_id"], patient_id="simulated:else"), "ecgs"),
    # answers
    Defect("answers-empty", change(answered("verify-normal", "yes"), answers=[])),
    Defect("answers-empty", change(every, answers=[" "])),
    Defect("answers-outside-vocabulary", change(answered("verify-normal", "yes"), answers=["perhaps"])),
    Defect("answers-outside-options", change(of_family("choose"), answers=["something else"])),
    Defect("answers-repeated", change(of_family("choose"), options=lambda row: row["options"][:1] * 2)),
    Defect("answers-repeated", change(of_family("choose"), options=lambda row: row["options"][:1])),
    Defect("answers-repeated", change(of_family("choose"), answers=lambda row: row["answers"] * 2)),
    Defect("answers-against-labels", change(answered("verify-statement", "yes"), answers=["no"])),
    Defect("answers-against-labels", change(answered("verify-statement", "no"), answers=["yes"])),
    Defect("answers-against-labels", change(answered("verify-rhythm", "no"), answers=["yes"])),
    Defect("answers-against-labels", change(answered("verify-excluded", "yes"), answers=["no"])),
    Defect("answers-against-labels", change(answered("verify-both", "yes"), answers=["no"])),
    Defect("answers-against-labels", change(answered("comparison-statement", "stated in both"), answers=["new"])),
    Defect("answers-against-labels", change(answered("choose-statement", "neither"), answers=["both"])),
    Defect("answers-against-names", change(of_template("choose-rhythm"), answers=another_option)),
    Defect("answers-against-names", change(answered("query-rhythm", "sinus rhythm"), answers=["atrial fibrillation"])),
    Defect("answers-against-measurements", change(answered("verify-criterion", "yes"), answers=["no"])),
    Defect("answers-against-measurements", change(answered("verify-criterion", "no"), answers=["yes"])),
    Defect("answers-against-measurements", change(answered("rationale-disagreement", "agree"), answers=["disagree"])),
    Defect(
        "answers-against-measurements",
        change(answered("rationale-support", "all measured criteria met"), answers=["no criterion met"]),
    ),
    Defect(
        "answers-against-text", lambda rows: say(one(rows, answered("verify-statement", "yes")), "No. It is absent.")
    ),
    Defect("answers-against-text", lambda rows: say(one(rows, answered("verify-statement", "yes")), "Perhaps.")),
    Defect("answers-against-values", change(of_template("measurement-rate"), answers=["200/min"])),
    Defect(
        "answers-against-values", change(of_template("axis-value"), answers=lambda row: [opposite(row["answers"][0])])
    ),
    Defect("answers-against-values", change(of_template("comparison-rate-change"), answers=["150/min"])),
    Defect("answers-against-values", change(of_template("axis-qrs-t-angle"), answers=["179°"])),
    Defect("answers-against-values", change(of_template("counterfactual-qtc-at-rate"), answers=["100 ms"])),
    Defect("answers-against-values", change(of_template("axis-limit-distance"), answers=["170°"])),
    Defect("answers-not-in-text", lambda rows: say(one(rows, answered("query-rhythm", "sinus rhythm")), "Regular.")),
    Defect("options-not-asked", lambda rows: say(one(rows, of_family("choose")), "Which one?", turn=0)),
    # evidence and provenance
    Defect("evidence-incomplete", change(with_limit, evidence=changed_evidence(value=None))),
    Defect("evidence-incomplete", change(with_limit, evidence=changed_evidence(value=float("nan")))),
    Defect("evidence-incomplete", change(with_limit, evidence=changed_evidence(unit=None))),
    Defect("evidence-not-found", change(with_limit, evidence=changed_evidence(value=123456.0))),
    Defect("evidence-not-found", change(of_template("measurement-rate"), evidence=changed_evidence(value=123.0))),
    Defect(
        "evidence-not-found", change(of_template("measurement-rate"), evidence=changed_evidence(name="PR_Int_Global"))
    ),
    Defect("evidence-not-found", change(of_template("comparison-rate"), evidence=changed_evidence(value=123.0))),
    Defect("evidence-not-found", change(of_template("query-rhythm"), evidence=changed_evidence(name="annotated 3AVB"))),
    Defect("evidence-not-found", change(of_template("query-rhythm"), evidence=changed_evidence(value=17.0))),
    Defect("evidence-not-found", change(of_template("quality-leads"), evidence=changed_evidence(value=13.0))),
    Defect("evidence-own-limit", change(with_limit, evidence=changed_evidence(limit="> 1 furlong"))),
    Defect("provenance-template", change(every, template_id="no-such-template")),
    Defect("provenance-template", change(every, template_hash="0" * 32)),
    Defect("provenance-template", change(of_family("verify"), family="axis")),
    Defect("provenance-template", change(every, variant=None)),
    Defect("provenance-guideline", change(every, guideline_ids=["NO-SUCH-GUIDELINE"])),
    Defect("provenance-guideline", change(every, codes=["NO-SUCH-CODE"])),
    Defect("provenance-missing", change(of_family("measurement"), evidence=[], codes=[])),
    Defect("provenance-missing", change(with_limit, guideline_ids=[])),
    Defect("provenance-missing", change(of_family("knowledge"), guideline_ids=[])),
    # text
    Defect("text-empty", write("")),
    Defect("text-empty", write("Yes. ")),
    Defect("text-empty", write("\nYes.")),
    Defect("text-too-long", write("Yes. " + "ä" * 8_000)),
    Defect("text-unresolved", write("Yes, {{ phrase }}.")),
    Defect("text-unresolved", write("Yes{% if x %}.")),
    Defect("text-unresolved", write("Yes, at a rate of None.")),
    Defect("text-unresolved", write("Yes, None/min.")),
    Defect("text-unresolved", write("Yes, nan ms.")),
    Defect("text-unresolved", write("Yes, the rate is NULL.")),
    Defect("text-unresolved", write(r"Yes.\nIndeed.")),
    Defect("text-typography", write("Yes,  twice.")),
    Defect("text-typography", write("Yes , so.")),
    Defect("text-typography", write("Yes..")),
    Defect("text-typography", write("Yes (of course.")),
    Defect("text-typography", write('Yes, "of course.')),
    Defect("text-control-characters", write("Yes\x1b[31m.")),
    Defect("text-control-characters", write("Yes\t.")),
    Defect("text-control-characters", write("Yes\u200b.")),
    Defect("text-control-characters", write("Yes\ufffd.")),
    Defect("text-date", write("Yes, on 1984-11-09.")),
    Defect("text-date", write("Yes, am 9.11.1984.")),
    Defect("text-date", write("Yes, at 09:17:34.")),
    Defect("text-grammar", write("Yes, a inferior infarction.")),
    Defect("text-grammar", write("Yes, an ventricular beat.")),
    Defect("text-grammar", write("Yes, ventricular ventricular extrasystoles.")),
    Defect("roles", change(every, messages=lambda row: row["messages"][::-1])),
    Defect("roles", change(every, messages=lambda row: row["messages"][:1])),
    Defect("roles", change(every, messages=[])),
    # the other tables
    Defect("label-values", change(every, likelihood=-5.0), "labels"),
    Defect("label-values", change(every, likelihood=101.0), "labels"),
    Defect("label-values", change(every, ecg_id="simulated:none"), "labels"),
    Defect("label-values", change(lambda row: row["kinds"] == ["diagnostic"], certainty="stated"), "labels"),
    Defect("label-values", added(every), "labels"),
    Defect("finding-values", change(every, ecg_id="simulated:none"), "findings"),
    Defect("finding-values", change(every, code="NO-SUCH-GUIDELINE"), "findings"),
    Defect("finding-values", change(every, verdict="perhaps"), "findings"),
    Defect(
        "finding-values", change(lambda row: row["evidence"], evidence=changed_evidence(value=float("inf"))), "findings"
    ),
    Defect("finding-set", added(every), "findings"),
    Defect("finding-set", lambda rows: rows.pop(), "findings"),
    Defect("measurement-values", change(every, ecg_id="simulated:none"), "measurements"),
    Defect("measurement-values", change(every, HR__Global=float("nan")), "measurements"),
    Defect("measurement-values", added(every), "measurements"),
    Defect("template-counts", lambda rows: rows.pop()),
    Defect("template-counts", change(lambda row: row["status"] == "built", n_rejected=10**6), "templates"),
    Defect("template-without-pairs", change(every, status="built", n_pairs=0), "templates"),
    Defect("rejected-values", change(every, reason=None), "rejected"),
    Defect("rejected-values", change(every, reason="Some sentence."), "rejected"),
    Defect("rejected-values", change(every, stage="render", template_id="no-such-template"), "rejected"),
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.check)
def test_a_planted_defect_is_found_with_an_example(corpus: Path, tmp_path: Path, defect: Defect) -> None:
    if defect.table == "pairs":
        by_itself = next(check.scope for check in load_checks() if check.name == defect.check) == "pair"
        planted = with_changed_pairs(corpus, tmp_path / "corpus", defect.plant, rest=not by_itself)
    else:
        planted = with_changed_table(corpus, tmp_path / "corpus", defect.table, defect.plant)
    (result,) = run_checks(planted, only=[defect.check])
    assert result.n_bad >= 1
    assert 1 <= len(result.examples) <= 5
    assert all(example for example in result.examples)


def test_every_check_has_a_planted_defect() -> None:
    in_test_ecgqa = {"pair-train-from-ecgqa-test", "pair-train-question-of-ecgqa-test"}
    assert {defect.check for defect in DEFECTS} | in_test_ecgqa == {check.name for check in load_checks()}


# ------------------------------------------------------------------------------------------------------------- files


def results_of(corpus: Corpus) -> dict[str, int]:
    return {result.name: result.n_bad for result in verify_files(corpus)}


def test_the_files_of_a_fresh_corpus_are_as_the_manifest_says(corpus: Path) -> None:
    assert results_of(Corpus.open(corpus)) == dict.fromkeys(FILE_CHECKS, 0)


def test_one_changed_byte_is_found_and_the_file_named(corpus: Path, tmp_path: Path) -> None:
    root = copied(corpus, tmp_path / "corpus")
    content = bytearray((root / "ecgs.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    replace(root / "ecgs.parquet", bytes(content))
    (changed,) = run_checks(Corpus.open(root), only=["file-sha256"])
    assert [example["file"] for example in changed.examples] == ["ecgs.parquet"]


def test_pairs_that_cannot_be_read_are_a_finding_and_not_a_crash(corpus: Path, tmp_path: Path) -> None:
    root = copied(corpus, tmp_path / "corpus")
    path = next(iter(sorted((root / "pairs").rglob("*.parquet"))))
    replace(path, b"\0" * path.stat().st_size)
    found = {result.name: result.n_bad for result in run_checks(Corpus.open(root))}
    assert min(found["file-sha256"], found["file-rows"], found["content-fingerprint"]) >= 1


def test_a_changed_message_changes_content_hash_and_fingerprint(corpus: Path, tmp_path: Path) -> None:
    planted = with_changed_pairs(corpus, tmp_path / "corpus", lambda rows: rows[0].update(content_hash="0" * 32))
    assert results_of(planted) == {**dict.fromkeys(FILE_CHECKS, 0), "content-hash": 1}
    manifest = dict(planted.manifest) | {"content_fingerprint": "0" * 32}
    assert results_of(Corpus(planted.root, manifest))["content-fingerprint"] == 1


def test_rows_other_than_the_manifest_says_are_found(corpus: Path) -> None:
    opened = Corpus.open(corpus)
    files = {name: dict(entry) for name, entry in opened.manifest["files"].items()}
    files["labels.parquet"]["rows"] += 1
    found = results_of(Corpus(corpus, dict(opened.manifest) | {"files": files}))
    assert found["file-rows"] == 1


def test_a_file_nobody_listed_is_found(corpus: Path, tmp_path: Path) -> None:
    root = copied(corpus, tmp_path / "corpus")
    shutil.copy(root / "labels.parquet", root / "pairs" / "split=train" / "extra.parquet")
    (result,) = run_checks(Corpus.open(root), only=["file-unlisted"])
    assert result.examples == [{"file": "pairs/split=train/extra.parquet"}]


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


# --------------------------------------------------------------------------------------------------- checks as files


def test_every_check_says_what_it_needs_and_reads_nothing_else() -> None:
    tables = {
        "ecgs",
        "labels",
        "measurements",
        "findings",
        "pairs",
        "rejected",
        "templates",
        "guidelines",
        "ecgqa_ecgs",
    }
    views = {"messages", "texts", "pair_keys", "pair_ecgs", "pair_evidence", "meanings", "decided", "measured", "noted"}
    for check in load_checks():
        read = set(re.findall(r"\b(?:FROM|JOIN)\s+(\w+)", check.sql)) & (tables | views)
        assert set(check.needs) == read, check.name


def test_a_user_adds_checks_of_their_own(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "no-women.sql").write_text(
        "-- description: An ECG of a woman.\n-- severity: warning\n-- scope: corpus\n"
        "SELECT ecg_id, sex FROM ecgs WHERE sex = 'female';\n"
    )
    opened = Corpus.open(corpus)
    (result,) = run_checks(opened, extra=tmp_path, only=["no-women"])
    women = opened.table("ecgs").to_table(columns=["sex"])["sex"].to_pylist().count("female")
    assert (result.n_bad, result.severity, result.description) == (women, "warning", "An ECG of a woman.")
    assert {example["sex"] for example in result.examples} == {"female"}


def test_a_check_by_pair_sees_every_pair_once(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecglm.synth.checks.pairs.PART_ROWS", 100)
    monkeypatch.setattr("ecglm.synth.checks.pairs._BATCH_ROWS", 64)
    (tmp_path / "all.sql").write_text(
        "-- description: All.\n-- severity: warning\n-- scope: pair\nSELECT pair_id FROM pairs"
    )
    opened = Corpus.open(corpus)
    assert len(list(pair_parts(opened))) > 3
    (result,) = run_checks(opened, extra=tmp_path, only=["all"])
    assert result.n_bad == opened.manifest["counts"]["pairs"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 1", "must begin with `-- description"),
        ("-- description: x\nSELECT 1", "must begin with `-- severity"),
        ("-- description: x\n-- severity: bad\nSELECT 1", "expected error or warning"),
        ("-- description: x\n-- severity: error\n-- scope: ecg\nSELECT 1", "expected pair or corpus"),
        ("-- description: x\n-- severity: error\n-- needs: moon\nSELECT 1", "needs moon"),
        ("-- description: x\n-- severity: error\n-- needs: texts\nSELECT * FROM texts", "use messages"),
        ("-- description: x\n-- severity: error\nSELECT * FROM moon", "moon"),
        ("-- description: x\n-- severity: error\nDROP TABLE pairs", "exactly one SELECT"),
        ("-- description: x\n-- severity: error\nSELECT * FROM read_csv('/etc/passwd')", "cannot be reached"),
    ],
)
def test_a_malformed_check_is_refused_and_named(corpus: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.sql").write_text(text)
    with pytest.raises(DefinitionError, match=re.escape(message)) as caught:
        run_checks(Corpus.open(corpus), extra=tmp_path, only=["mine"])
    assert "mine" in str(caught.value)


def test_a_folder_without_checks_and_an_unknown_name_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"no \*\.sql file"):
        load_checks(tmp_path)
    with pytest.raises(DefinitionError, match="no check is called 'roless'"):
        run_checks(Corpus.open(corpus), only=["roless"])
    shutil.copy(Path(os.fspath(load_checks.__globals__["__file__"])).parent / "roles.sql", tmp_path)
    with pytest.raises(DefinitionError, match="comes with ecglm"):
        load_checks(tmp_path)


def test_meanings_name_shipped_templates_and_answers_they_can_give() -> None:
    templates = load_templates().by_id
    for template_id, answers in answer_meanings().items():
        vocabulary = templates[template_id].vocabulary
        assert not vocabulary or set(answers) - {"*"} <= set(vocabulary), template_id
        assert all(meaning in MEANINGS for claimed in answers.values() for meaning in claimed)


def test_every_template_with_answers_that_claim_something_says_what() -> None:
    judging = {template.id for template in load_templates() if template.header.answers in CLOSED_BY_MEANING}
    assert judging <= set(answer_meanings())


def test_a_text_said_many_times_is_counted_as_often_as_it_is_said(corpus: Path, tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        for row in [row for row in rows if row["family"] == "measurement"][:7]:
            say(row, "Measured on 1984-11-09.")

    (result,) = run_checks(with_changed_pairs(corpus, tmp_path / "corpus", change), only=["text-date"])
    assert result.n_bad == 7
    assert all(example["content"] == "Measured on 1984-11-09." for example in result.examples)


def test_results_are_printed_with_their_examples(corpus: Path, tmp_path: Path) -> None:
    planted = with_changed_pairs(corpus, tmp_path / "corpus", write("Yes, {{ phrase }}."))
    console = Console(width=160, record=True, file=(tmp_path / "out.txt").open("w"), highlight=False)
    print_results(run_checks(planted, only=["text-unresolved", "roles"]), console)
    text = console.export_text()
    assert "{{ phrase }}" in text
    assert re.search(r"error\s+text-unresolved\s+1", text)
    assert re.search(r"ok\s+roles\s+0", text)
    assert "2 checks, 1 failed, 0 with warnings" in text


def test_results_can_be_written_as_json(corpus: Path, tmp_path: Path) -> None:
    planted = with_changed_pairs(corpus, tmp_path / "corpus", change(of_family("verify"), ecg_ids=["simulated:none"]))
    import dataclasses

    results = run_checks(planted, only=["pair-ecg-unknown", "answers-against-labels"])
    assert json.loads(json.dumps([dataclasses.asdict(result) for result in results]))


def names_of(results: Iterable[Any]) -> list[str]:
    return [result.name for result in results]


def test_checks_come_in_order_of_their_names(corpus: Path) -> None:
    assert names_of(run_checks(Corpus.open(corpus), only=["roles", "text-date", "answers-empty"])) == [
        "answers-empty",
        "roles",
        "text-date",
    ]


def test_the_manifest_is_not_checked_against_itself(corpus: Path, tmp_path: Path) -> None:
    """A table and its count removed from the manifest alone leave an unlisted file behind."""
    root = copied(corpus, tmp_path / "corpus")
    manifest = json.loads((root / MANIFEST).read_text())
    name = next(file for file in manifest["files"] if file.startswith("pairs/"))
    manifest["counts"]["pairs"] -= manifest["files"].pop(name)["rows"]
    (root / MANIFEST).unlink()
    write_json(root / MANIFEST, manifest)
    found = results_of(Corpus.open(root))
    assert found["file-unlisted"] == 1
    assert found["content-fingerprint"] == 1
    assert pq.read_metadata(root / name).num_rows > 0
