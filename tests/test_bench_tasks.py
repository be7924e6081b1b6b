"""Tasks: what they ask of PTB-XL and ECG-QA, checked against the metadata itself; files with errors name them all."""

from __future__ import annotations

import csv
import json
import re
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ecglm.bench.data import Data
from ecglm.bench.ecgqa import open_ecgqa
from ecglm.bench.kinds import answer_key, build_questions
from ecglm.bench.kinds.choices import options_of
from ecglm.bench.questions import Questions, fingerprint_of
from ecglm.bench.task import builtin_tasks, find_tasks, parse_task, read_tasks
from ecglm.synth.errors import TaskError
from ecglm.synth.export_ecgqa import FORMAT, MANIFEST

CLASSES = {"all": 71, "diagnostic": 44, "subdiagnostic": 23, "superdiagnostic": 5, "form": 19, "rhythm": 12}
"""As Strodthoff et al. 2021, table II."""


@pytest.fixture(scope="module")
def whole(ptbxl_full: Path) -> Data:
    return Data(ptbxl_full)


def questions_of(task: str, data: Data, **options: Any) -> Questions:
    (loaded,) = find_tasks([task])
    return build_questions(loaded, data, **options)


def metadata_rows(root: Path) -> list[tuple[int, dict[str, float]]]:
    """Fold and statements of every ECG, read here without the code under test."""
    with (root / "ptbxl_database.csv").open(encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return [
            (int(row["strat_fold"]), {c: float(n) for c, n in re.findall(r"'([^']+)': ([\d.]+)", row["scp_codes"])})
            for row in rows
        ]


# ---------------------------------------------------------------------------------------------------------------- files


def test_all_tasks_are_valid_and_named_like_their_files() -> None:
    tasks, violations = read_tasks()
    assert violations == []
    assert set(tasks) == {path.stem for path in builtin_tasks().glob("*.yaml")}
    assert {f"ptbxl-{name}" for name in CLASSES} | {"ecgqa", "ecgqa-single", "ecgqa-comparison"} <= set(tasks)


def a_task(**changes: str) -> str:
    text = (builtin_tasks() / "ptbxl-form.yaml").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"macro_auc, f1_macro": "macro_auk, f1_macro"}, "unknown metric 'macro_auk', did you mean macro_auc?"),
        ({"macro_auc, f1_macro": "macro_auc, xyz"}, "unknown metric 'xyz'; known: macro_auc,"),
        ({"headline: macro_auc": "headline: fmax"}, "fmax cannot rank models"),
        ({"headline: macro_auc": "headline: accuracy"}, "'accuracy' is not among the metrics"),
        ({"kind: statements": "kind: poems"}, "kind"),
        ({"threshold_folds: [9]": "threshold_folds: [10]"}, "thresholds must come from others"),
        ({"{phrase}": "{sentence}"}, "expected {phrase}"),
        ({"[form]": "[shape]"}, "'diagnostic', 'form' or 'rhythm'"),
        ({"version: 1": "version: none"}, "version"),
        ({"min_positives: 10": "min_positive: 10"}, "min_positive"),
        ({"test_folds: [10]": "test_folds: [11]"}, "less than or equal to 10"),
    ],
)
def test_an_error_in_a_task_file_is_named(changes: dict[str, str], named: str) -> None:
    with pytest.raises(TaskError, match=re.escape(named)) as caught:
        parse_task(a_task(**changes), "mine.yaml")
    assert all(line.startswith("mine.yaml: ") for line in str(caught.value).splitlines())


@pytest.mark.parametrize(
    ("name", "named"), [("QRS_Dur_Globl", "did you mean QRS_Dur_Global?"), ("xyz", "docs/measurements.md")]
)
def test_an_unknown_measurement_of_a_task_file_is_named(name: str, named: str) -> None:
    text = (builtin_tasks() / "measurements.yaml").read_text(encoding="utf-8").replace("QRS_Dur_Global", name)
    with pytest.raises(TaskError, match=re.escape(f"unknown measurement '{name}'; ")) as caught:
        parse_task(text, "mine.yaml")
    assert named in str(caught.value)


def test_all_errors_of_a_task_file_are_named_at_once() -> None:
    text = a_task(**{"macro_auc, f1_macro": "macro_auk, xyz, f1_macro", "[form]": "[shape]", "{phrase}": "{x}"})
    with pytest.raises(TaskError) as caught:
        parse_task(text, "mine.yaml")
    assert len(str(caught.value).splitlines()) == 3
    assert "unknown metric 'xyz'" in str(caught.value), "both unknown metrics, in one line"


def test_a_user_adds_a_task_with_one_file(tmp_path: Path, simulated_bench: Path) -> None:
    (tmp_path / "my-rhythms.yaml").write_text(
        """
id: my-rhythms
version: 3
title: Two rhythms
description: Sinus rhythm or atrial fibrillation.
kind: statements
classes: {codes: [SR, AFIB]}
metrics: [macro_auc]
headline: macro_auc
cite: me
"""
    )
    (loaded,) = find_tasks(["my-rhythms"], [tmp_path])
    questions = build_questions(loaded, Data(simulated_bench / "ecgs"))
    assert [row["class"] for row in questions.about["classes"]] == ["AFIB", "SR"]
    assert questions.asked["question"].unique().sort().to_list() == [
        "Does this ECG show atrial fibrillation?",
        "Does this ECG show sinus rhythm?",
    ]


def test_a_file_named_unlike_its_id_and_a_name_taken_twice_are_named(tmp_path: Path) -> None:
    shutil.copy(builtin_tasks() / "ptbxl-form.yaml", tmp_path / "other.yaml")
    with pytest.raises(TaskError) as caught:
        find_tasks(["ptbxl-form"], [tmp_path])
    assert "expected the file's name 'other'" in str(caught.value)
    assert "is already that of tasks/ptbxl-form.yaml" in str(caught.value)


def test_an_unknown_task_is_named_with_the_nearest_one() -> None:
    with pytest.raises(TaskError, match="did you mean ptbxl-rhythm"):
        find_tasks(["ptbxl-rythm"])


def test_comments_and_order_of_keys_do_not_change_what_a_task_is() -> None:
    text = a_task()
    lines = text.strip().splitlines()
    again = parse_task("# a remark\n" + "\n".join(sorted(lines)), "b")
    assert parse_task(text, "a").fingerprint == again.fingerprint
    assert parse_task(a_task(**{"min_positives: 10": "min_positives: 11"}), "a").fingerprint != again.fingerprint


# --------------------------------------------------------------------------------------------------------------- PTB-XL


@pytest.mark.parametrize("name", CLASSES)
def test_ptbxl_tasks_ask_for_the_classes_of_the_literature(name: str, whole: Data) -> None:
    questions = questions_of(f"ptbxl-{name}", whole)
    classes = [row["class"] for row in questions.about["classes"]]
    assert len(classes) == CLASSES[name]
    assert classes == sorted(classes)
    test = questions.asked.filter(pl.col("role") == "test")
    assert test.height == 2198 * CLASSES[name]
    assert questions.asked["question_id"].n_unique() == questions.asked.height
    assert questions.asked["question"].n_unique() == CLASSES[name], "every class is asked for in words of its own"


def test_both_label_rules_count_what_the_metadata_says(whole: Data, ptbxl_full: Path) -> None:
    rows = metadata_rows(ptbxl_full)
    questions = questions_of("ptbxl-all", whole)
    statements = dict(whole.source.statements.select("code", "kinds").iter_rows())
    for role, fold in (("test", 10), ("threshold", 9)):
        present: Counter[str] = Counter()
        likely: Counter[str] = Counter()
        for found, codes in rows:
            if found == fold:
                present.update(list(codes))
                both = {c for c, n in codes.items() if n >= 50 or (statements[c] != ["diagnostic"] and n == 0)}
                stated = {c for c in codes if "diagnostic" not in statements[c]}
                likely.update(both | stated)
        for row in questions.about["classes"]:
            assert row["positives"][role]["presence"] == present[row["class"]]
            assert row["positives"][role]["likelihood-50"] == likely[row["class"]], row["class"]


def test_a_superclass_holds_if_one_of_its_statements_does(whole: Data) -> None:
    questions = questions_of("ptbxl-superdiagnostic", whole)
    superclass = dict(whole.source.statements.select("code", "superclass").iter_rows())
    labels = dict(whole.labels.group_by("ecg_id").agg("code").iter_rows())
    for ecg_id, present in questions.truth.select("ecg_id", "presence").iter_rows():
        assert set(present) == {superclass[code] for code in labels.get(ecg_id, []) if superclass[code]}


def test_ecgs_without_a_label_are_counted_not_dropped(whole: Data) -> None:
    questions = questions_of("ptbxl-form", whole)
    test = questions.truth.filter(pl.col("role") == "test")
    assert test.height == 2198
    assert questions.about["without_label"]["presence"] == 2198 - 880


def test_the_same_question_about_the_same_ecg_has_one_id_in_every_task(whole: Data) -> None:
    few = {task: questions_of(task, whole, limit=3) for task in ("ptbxl-all", "ptbxl-rhythm")}
    ids = {task: set(each.asked["question_id"]) for task, each in few.items()}
    assert ids["ptbxl-rhythm"] < ids["ptbxl-all"]
    assert fingerprint_of(few["ptbxl-all"]) != fingerprint_of(questions_of("ptbxl-all", whole, limit=4))


def test_a_list_question_names_every_class_once(whole: Data) -> None:
    questions = questions_of("ptbxl-all", whole, ask="list", limit=2)
    (options,) = questions.asked["options"].unique().to_list()
    assert len(options) == len(set(options)) == 71
    assert questions.asked["codes"][0].to_list() == [row["class"] for row in questions.about["classes"]]
    key = answer_key(questions)
    for question_id, ecg_ids in questions.asked.select("question_id", "ecg_ids").iter_rows():
        present = questions.truth.filter(pl.col("ecg_id") == ecg_ids[0])["presence"][0].to_list()
        assert len(key[question_id]) == len(present)


def test_a_part_of_the_dataset_without_test_ecgs_is_refused(ptbxl_like: Any) -> None:
    with pytest.raises(TaskError, match=r"no ECG of .* is in test fold 10"):
        questions_of("ptbxl-all", Data(ptbxl_like({"strat_fold": "3"})))


# --------------------------------------------------------------------------------------------------------------- ECG-QA


def test_the_official_archive_in_part_works_and_says_what_is_missing(data_dir: Path, whole: Data) -> None:
    data = Data(whole.ptbxl, data_dir / "ecgqa")
    questions = questions_of("ecgqa-comparison", data)
    about = questions.about
    assert about["n_questions"] == 2146
    assert about["ecgqa"]["of_questions"] == 82_146
    assert about["ecgqa"]["missing_files"] == [f"{start}.json" for start in range(0, 80_000, 10_000)]
    assert about["missing_types"] == [
        "comparison_consecutive-verify",
        "comparison_consecutive-query",
        "comparison_irrelevant-verify",
    ]
    assert questions.asked["ecg_ids"].list.len().unique().to_list() == [2]
    folds = dict(data.ecgs.select("ecg_id", "strat_fold").iter_rows())
    clean = dict(questions.truth.select("question_id", "clean").iter_rows())
    for question_id, ecg_ids in questions.asked.select("question_id", "ecg_ids").iter_rows():
        assert clean[question_id] == all(folds[ecg_id] == 10 for ecg_id in ecg_ids)
    with pytest.raises(TaskError, match=r"no question of this task .*get the missing files: 0\.json"):
        questions_of("ecgqa-single", data)


def test_a_folder_an_archive_and_their_parents_hold_the_same_questions(
    data_dir: Path, whole: Data, tmp_path: Path
) -> None:
    archive = data_dir / "ecgqa" / "ecgqa_ptbxl_partial.zip"
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path)
    places = (archive, data_dir / "ecgqa", tmp_path, tmp_path / "ecgqa", tmp_path / "ecgqa" / "ptbxl")
    prints = {open_ecgqa(place).fingerprint("paraphrased", "test") for place in places}
    assert len(prints) == 1
    official = json.loads((tmp_path / "ecgqa/ptbxl/paraphrased/test/80000.json").read_text())
    asked = questions_of("ecgqa", Data(whole.ptbxl, tmp_path / "ecgqa")).asked
    assert asked["question"].to_list() == [sample["question"] for sample in official]
    wanted = dict(csv.reader((tmp_path / "ecgqa/ptbxl/answers_for_each_template.csv").read_text().splitlines()[1:]))
    assert asked["options"][0].to_list() == json.loads(wanted["69"].replace("'", '"'))


def test_all_seven_question_types_are_asked(simulated_bench: Path) -> None:
    questions = questions_of("ecgqa", Data(simulated_bench / "ecgs", simulated_bench / "ecgqa"))
    assert questions.about["missing_types"] == []
    assert len(questions.about["question_types"]) == 7
    assert questions.about["left_out"] == {}
    singles = questions_of("ecgqa-single", Data(simulated_bench / "ecgs", simulated_bench / "ecgqa"))
    assert set(singles.about["question_types"]) == {"single-verify", "single-choose", "single-query"}


def test_a_choose_question_offers_the_two_options_it_names() -> None:
    options = {37: ("extrasystoles", "none", "supraventricular extrasystoles", "ventricular extrasystoles")}

    def chosen(question: str, attribute: list[str] | None) -> tuple[tuple[str, ...], str | None]:
        sample = {"template_id": 37, "question_type": "single-choose", "question": question, "attribute": attribute}
        return options_of(sample, options)

    two = ("supraventricular extrasystoles", "ventricular extrasystoles")
    assert chosen("?", list(two)) == ((*two, "none"), None)
    asked = (
        "Which kind of extra systoles does this ECG show, Ventricular extrasystoles or supraventricular extrasystoles?"
    )
    assert chosen(asked, None) == ((*two, "none"), None)
    found, odd = chosen("Which, ventricular extrasystoles or ventricular ventricular extrasystoles?", None)
    assert found == options[37]
    assert odd is not None
    assert "does not name two options" in odd


@pytest.fixture
def qa(simulated_bench: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(simulated_bench / "ecgqa", tmp_path / "qa") / "ecgqa" / "ptbxl"


def shard(qa: Path) -> tuple[Path, list[dict[str, Any]]]:
    path = qa / "paraphrased" / "test" / "0.json"
    return path, json.loads(path.read_text())


def test_ecgs_that_are_not_at_hand_and_answers_outside_the_options_are_counted(qa: Path, simulated_bench: Path) -> None:
    path, samples = shard(qa)
    samples[0]["ecg_id"] = [999_999]
    samples[1]["answer"] = ["a poem"]
    samples[2]["ecg_id"] = [1, 2, 3]
    path.write_text(json.dumps(samples))
    questions = questions_of("ecgqa", Data(simulated_bench / "ecgs", qa))
    assert questions.about["left_out"] == {
        "an ECG is not in the PTB-XL folder": 1,
        "the answer is not among the options of its template": 1,
        "asks about neither one nor two ECGs": 1,
    }
    assert questions.truth.height == len(samples) - 3


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda text: text[:-1], "not valid JSON"),
        (lambda text: '{"a": 1}', "expected a list"),
        (lambda text: text.replace('"question":', '"query":', 1), "question is NoneType"),
        (lambda text: json.dumps(json.loads(text) * 2), "stands in two places"),
    ],
)
def test_a_damaged_file_of_questions_is_named(spoil: Any, named: str, qa: Path, simulated_bench: Path) -> None:
    path, _ = shard(qa)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(TaskError, match=named) as caught:
        questions_of("ecgqa", Data(simulated_bench / "ecgs", qa))
    assert "paraphrased/test/0.json" in str(caught.value)


def test_a_regenerated_folder_without_the_options_works_and_says_so(qa: Path, simulated_bench: Path) -> None:
    (qa / "answers_for_each_template.csv").unlink()
    questions = questions_of("ecgqa", Data(simulated_bench / "ecgs", qa))
    assert any("is missing: the options are the answers found here" in text for text in questions.about["odd"])
    verify = questions.asked.filter(pl.col("options").list.contains("yes"))
    assert verify["options"].unique().to_list() == [["no", "yes"]]


def test_an_export_of_ecglm_is_whole_by_its_own_count_and_said_to_be_no_official_one(
    qa: Path, simulated_bench: Path
) -> None:
    path, samples = shard(qa)
    root = qa.parents[1]
    counts = {"train": 9, "valid": 9, "test": len(samples)}
    (root / MANIFEST).write_text(json.dumps({"format": FORMAT, "questions": counts}))
    for given in (root, qa):
        told = questions_of("ecgqa", Data(simulated_bench / "ecgs", given)).about["ecgqa"]
        assert told["generated_again"]
        assert told["questions"] == told["of_questions"] == len(samples)
        assert told["missing_files"] == []
        assert told["incomplete_files"] == {}
    path.write_text(json.dumps(samples[:-1]))
    unlisted = str(samples[0]["ecg_id"][0])
    listed = (qa / "test_ecgs.tsv").read_text().splitlines()
    kept = [line for line in listed if line.split("\t")[1] != unlisted]
    assert len(kept) == len(listed) - 1
    (qa / "test_ecgs.tsv").write_text("\n".join(kept) + "\n")
    about = questions_of("ecgqa", Data(simulated_bench / "ecgs", root)).about
    assert about["ecgqa"]["incomplete_files"] == {"0.json": f"{len(samples) - 1} of {len(samples)} questions"}
    of_it = sum(int(unlisted) in sample["ecg_id"] for sample in samples[:-1])
    assert about["odd"] == {"an ECG is not in test_ecgs.tsv": of_it}


def test_a_folder_that_is_no_ecgqa_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"expected files such as ecgqa/ptbxl/paraphrased/test/0\.json"):
        open_ecgqa(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"nothing")
    with pytest.raises(TaskError, match="not a zip archive"):
        open_ecgqa(tmp_path / "x.zip")


def test_questions_kept_with_a_run_are_the_same_when_read_again(simulated_bench: Path, tmp_path: Path) -> None:
    for task in ("ecgqa", "ptbxl-rhythm", "measurements"):
        made = questions_of(task, Data(simulated_bench / "ecgs", simulated_bench / "ecgqa"))
        made.save(tmp_path / task)
        again = Questions.load(tmp_path / task)
        assert again.asked.equals(made.asked)
        assert again.truth.equals(made.truth)
        assert again.about == json.loads(json.dumps(made.about))
        assert again.loaded.fingerprint == made.loaded.fingerprint
