"""Predictions made elsewhere: every shape of table gives the scores of the same answers, and every fault is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ecglm.bench.arrays import score_arrays
from ecglm.bench.data import Data
from ecglm.bench.kinds import build_questions
from ecglm.bench.kinds.statements import target_matrix
from ecglm.bench.runs import RunConfig, run
from ecglm.bench.scoring import Settings
from ecglm.bench.task import find_tasks
from ecglm.synth.errors import ModelError, PredictionError

TASK = "ptbxl-superdiagnostic"
FEW = Settings(n_resamples=50)


@pytest.fixture(scope="module")
def scored(simulated_bench: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Scores of a random model, one row per (ECG, class), and what they come to."""
    out = tmp_path_factory.mktemp("scored") / "run"
    result = run(RunConfig("random", (TASK,), out, ptbxl=simulated_bench / "ecgs", settings=FEW))
    table = pl.read_parquet(out / "answers.parquet").select("question_id", "ecg_id", "code", "score", "role")
    return table, result.scores["tasks"][TASK]["views"][0]["scores"]["metrics"]


@pytest.fixture
def ask(simulated_bench: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Scores of a file of predictions."""

    def go(path: Path, task: str = TASK, **options: Any) -> dict[str, Any]:
        data = {"ptbxl": simulated_bench / "ecgs", "ecgqa": simulated_bench / "ecgqa", "settings": FEW}
        result = run(RunConfig(f"predictions:{path}", (task,), tmp_path / "run", **(data | options)))
        return dict(result.scores["tasks"][task])

    return go


def wide(table: pl.DataFrame) -> pl.DataFrame:
    return table.pivot("code", index="ecg_id", values="score")


def native(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.col("ecg_id").str.split(":").list.last().cast(pl.Int64))


SHAPES: dict[str, Callable[[pl.DataFrame, Path], Path]] = {
    "wide.parquet": lambda table, path: (wide(table).write_parquet(path), path)[1],
    "wide.csv": lambda table, path: (wide(table).write_csv(path), path)[1],
    "numbers.csv": lambda table, path: (native(wide(table)).write_csv(path), path)[1],
    "shuffled.csv": lambda t, path: (
        wide(t).select(reversed(wide(t).columns)).sample(fraction=1, shuffle=True, seed=1).write_csv(path),
        path,
    )[1],
    "long.jsonl": lambda table, path: (table.select("ecg_id", "code", "score").write_ndjson(path), path)[1],
    "questions.parquet": lambda table, path: (table.select("question_id", "score").write_parquet(path), path)[1],
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_gives_the_same_scores(
    name: str, scored: tuple[pl.DataFrame, dict[str, Any]], ask: Any, tmp_path: Path
) -> None:
    table, expected = scored
    found = ask(SHAPES[name](table, tmp_path / name))["views"][0]["scores"]["metrics"]
    assert set(found) == set(expected)
    for metric, estimate in expected.items():
        assert found[metric]["value"] == pytest.approx(estimate["value"], abs=1e-12), metric


def test_without_the_threshold_fold_there_is_no_f1_and_it_says_so(
    scored: tuple[pl.DataFrame, dict[str, Any]], ask: Any, tmp_path: Path
) -> None:
    table, expected = scored
    wide(table.filter(pl.col("role") == "test")).write_csv(tmp_path / "p.csv")
    view = ask(tmp_path / "p.csv")["views"][0]["scores"]
    assert view["metrics"]["macro_auc"]["value"] == pytest.approx(expected["macro_auc"]["value"])
    assert "f1_macro" not in view["metrics"]
    assert "no scores for the threshold fold" in view["unavailable"]["f1_macro"]


def replace_first(table: pl.DataFrame, column: str, value: Any) -> pl.DataFrame:
    first = pl.int_range(pl.len()) == 0
    return table.with_columns(pl.when(first).then(pl.lit(value)).otherwise(column).alias(column))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda t: t.slice(1), r"no row for 5 test questions \(simulated:\d+ CD, .*; add them"),
        (lambda t: pl.concat([t, t.head(2)]), "10 questions have more than one row"),
        (lambda t: replace_first(t, "ecg_id", "simulated:999999"), r"1 ECG ids that are not in simulated .*999999"),
        (lambda t: replace_first(t, "MI", float("nan")), r"1 scores are NaN or infinite \(simulated:\d+ MI nan\)"),
        (lambda t: replace_first(t, "MI", None), r"1 scores are empty"),
        (
            lambda t: t.with_columns(pl.col("MI") * 12 - 6),
            r"scores are outside \[0, 1\].*pass logits through a sigmoid",
        ),
        (lambda t: t.rename({"NORM": "NORMAL"}), r"1 columns are no class of the task \(NORMAL\); did you mean NORM\?"),
        (lambda t: t.rename({c: str(n) for n, c in enumerate(t.columns[1:])}), "name each column by the class"),
        (lambda t: t.drop("MI"), r"no column for 1 of 5 classes \(MI\)"),
        (lambda t: t.drop("ecg_id"), "expected question_id, sample_id or ecg_id among them"),
        (lambda t: t.with_columns(dataset_version=pl.lit("0.9")), "dataset_version is 0.9, the data here is version"),
        (lambda t: t.with_columns(MI=pl.lit("high")), "scores that are no numbers"),
        (lambda t: t.head(0), "holds no rows"),
    ],
)
def test_a_fault_of_the_table_is_named_and_nothing_is_scored(
    spoil: Callable[[pl.DataFrame], pl.DataFrame],
    named: str,
    scored: tuple[pl.DataFrame, dict[str, Any]],
    ask: Any,
    tmp_path: Path,
) -> None:
    table = wide(scored[0]).sort(
        pl.col("ecg_id").is_in(scored[0].filter(pl.col("role") == "test")["ecg_id"].implode()), descending=True
    )
    spoil(table).write_parquet(tmp_path / "p.parquet")
    with pytest.raises(PredictionError, match=named) as caught:
        ask(tmp_path / "p.parquet")
    assert str(tmp_path / "p.parquet") in str(caught.value)
    assert not (tmp_path / "run" / "scores.json").exists()


def test_all_faults_of_a_table_are_named_at_once(
    scored: tuple[pl.DataFrame, dict[str, Any]], ask: Any, tmp_path: Path
) -> None:
    table = wide(scored[0])
    bad = pl.concat([replace_first(replace_first(table, "MI", 2.0), "ecg_id", "simulated:0"), table.tail(1)])
    bad.with_columns(dataset_version=pl.lit("0.9")).write_parquet(tmp_path / "p.parquet")
    with pytest.raises(PredictionError) as caught:
        ask(tmp_path / "p.parquet")
    lines = str(caught.value).splitlines()
    wanted = [
        "dataset_version is 0.9",
        "1 ECG ids that are not in",
        "more than one row",
        "outside [0, 1]",
        "no row for",
    ]
    assert len(lines) == len(wanted)
    assert all(words in line for words, line in zip(wanted, lines, strict=True))


def test_a_fold_that_is_half_there_is_refused(
    scored: tuple[pl.DataFrame, dict[str, Any]], ask: Any, tmp_path: Path
) -> None:
    table = scored[0].filter((pl.col("role") == "test") | (pl.int_range(pl.len()) % 2 == 0))
    table.select("question_id", "score").write_csv(tmp_path / "p.csv")
    with pytest.raises(PredictionError, match="leave those folds out altogether"):
        ask(tmp_path / "p.csv")


def test_answers_to_ecgqa_by_sample_id(simulated_bench: Path, ask: Any, tmp_path: Path) -> None:
    path = simulated_bench / "ecgqa/ecgqa/ptbxl/paraphrased/test/0.json"
    samples = json.loads(path.read_text())
    rows = [{"sample_id": sample["sample_id"], "answer": ", ".join(sample["answer"])} for sample in samples]
    pl.DataFrame(rows).write_ndjson(tmp_path / "p.jsonl")
    scores = ask(tmp_path / "p.jsonl", "ecgqa")
    assert scores["tracks"]["official"]["free"]["overall"]["strict"]["value"] == 1.0
    assert "candidates" not in scores["tracks"]["official"], "there are no scores"
    with pytest.raises(PredictionError, match=r"predictions keyed by sample_id cannot answer ptbxl-superdiagnostic"):
        ask(tmp_path / "p.jsonl")
    pl.DataFrame(rows[1:]).write_ndjson(tmp_path / "p.jsonl")
    with pytest.raises(PredictionError, match="no row for 1 test questions"):
        ask(tmp_path / "p.jsonl", "ecgqa")


def test_two_answers_to_one_question_of_ecgqa_are_refused(simulated_bench: Path, ask: Any, tmp_path: Path) -> None:
    data = shutil.copytree(simulated_bench / "ecgqa", tmp_path / "ecgqa")
    path = data / "ecgqa/ptbxl/paraphrased/test/0.json"
    samples = json.loads(path.read_text())
    samples.append({**samples[0], "sample_id": 9_999})
    path.write_text(json.dumps(samples))
    rows = [{"sample_id": sample["sample_id"], "answer": ", ".join(sample["answer"])} for sample in samples]
    pl.DataFrame(rows).write_ndjson(tmp_path / "p.jsonl")
    overall = ask(tmp_path / "p.jsonl", "ecgqa", ecgqa=data)["tracks"]["official"]["free"]["overall"]
    assert (overall["strict"]["value"], overall["n_questions"]) == (1.0, len(samples))
    rows[-1]["answer"] = "something else"
    pl.DataFrame(rows).write_ndjson(tmp_path / "p.jsonl")
    with pytest.raises(PredictionError, match=r"1 rows answer .* in another way .*sample 9999.*give both the same"):
        ask(tmp_path / "p.jsonl", "ecgqa", ecgqa=data)


def test_readings_as_text(simulated_bench: Path, ask: Any, tmp_path: Path) -> None:
    (loaded,) = find_tasks(["measurements"])
    questions = build_questions(loaded, Data(simulated_bench / "ecgs"))
    rows = questions.asked.join(questions.truth.drop("unit"), on="question_id").select(
        pl.col("ecg_ids").list.first().alias("ecg_id"),
        "reading",
        pl.format("It is {} {}.", (pl.col("value") + pl.col("tolerance") * 0.99).round(4), "unit").alias("answer"),
    )
    rows.write_ndjson(tmp_path / "p.jsonl")
    rates = ask(tmp_path / "p.jsonl", "measurements")["within_tolerance"]["overall"]
    assert rates["lenient"]["value"] == 1.0
    assert rates["strict"]["value"] == 0.0, "a sentence is not a number"
    assert rates["unparsed_strict"]["value"] == 1.0


def test_predictions_of_another_file_do_not_go_on_with_a_run(
    scored: tuple[pl.DataFrame, dict[str, Any]], ask: Any, tmp_path: Path
) -> None:
    wide(scored[0]).write_csv(tmp_path / "p.csv")
    ask(tmp_path / "p.csv")
    wide(scored[0].with_columns(pl.col("score") * 0.5)).write_csv(tmp_path / "p.csv")
    from ecglm.synth.errors import RunError

    with pytest.raises(RunError, match="fingerprint was"):
        ask(tmp_path / "p.csv")


# --------------------------------------------------------------------------------------------------------------- arrays


@pytest.fixture(scope="module")
def truth(simulated_bench: Path) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Labels of the test ECGs (n, k), the classes, and the patients."""
    (loaded,) = find_tasks([TASK])
    questions = build_questions(loaded, Data(simulated_bench / "ecgs"), ask="list")
    classes = [row["class"] for row in questions.about["classes"]]
    test = questions.truth.filter(pl.col("role") == "test")
    return target_matrix(test, classes, "presence"), classes, test["patient_id"].to_numpy()


@pytest.fixture
def arrays(truth: Any, tmp_path: Path) -> Path:
    labels, classes, _ = truth
    noise = np.random.default_rng(0).random(labels.shape)
    np.save(tmp_path / "preds.npy", np.clip(0.4 * labels + 0.6 * noise, 0, 1))
    np.save(tmp_path / "targs.npy", labels.astype(np.float64))
    np.save(tmp_path / "classes.npy", np.array(classes))
    return tmp_path


def score(folder: Path, ptbxl: Path | None = None, task: str = TASK) -> dict[str, Any]:
    (loaded,) = find_tasks([task])
    return score_arrays(folder, loaded, Data(ptbxl), FEW)


def test_arrays_are_scored_as_sklearn_does(arrays: Path, truth: Any) -> None:
    from sklearn.metrics import roc_auc_score

    content = score(arrays)
    defined = truth[0].any(0) & ~truth[0].all(0)
    preds = np.load(arrays / "preds.npy")
    expected = roc_auc_score(truth[0][:, defined], preds[:, defined], average="macro")
    assert content["undefined_classes"] == [c for c, kept in zip(truth[1], defined, strict=True) if not kept]
    assert content["macro_auc"] == pytest.approx(expected, abs=1e-9)
    assert content["f1_macro"] is None
    assert "thresholds must come from fold 9" in content["unavailable"]["f1_macro"]
    assert content["intervals"] == {}
    assert [note for note in content["notes"] if note.startswith("unchecked: order of classes, records and labels")]
    assert any("intervals not available" in note for note in content["notes"])
    assert content["labels"]["fmax"] == "test-set maximum"


def test_arrays_with_the_data_at_hand_are_checked_and_get_intervals_over_patients(
    arrays: Path, truth: Any, simulated_bench: Path
) -> None:
    content = score(arrays, simulated_bench / "ecgs")
    assert content["records"] == "whole"
    assert content["n_patients"] == len(set(truth[2]))
    low, high = content["intervals"]["macro_auc"]
    assert low < content["macro_auc"] < high
    labelled = truth[0].any(1)
    if not labelled.all():
        for name in ("preds", "targs"):
            np.save(arrays / f"{name}.npy", np.load(arrays / f"{name}.npy")[labelled])
        assert score(arrays, simulated_bench / "ecgs")["records"] == "labelled"


def test_thresholds_for_arrays_come_from_validation_arrays(arrays: Path, truth: Any) -> None:
    labels = truth[0]
    np.save(arrays / "preds_valid.npy", 0.9 * labels)
    np.save(arrays / "targs_valid.npy", labels)
    np.save(arrays / "preds.npy", 0.9 * labels)
    content = score(arrays)
    assert content["f1_macro"] == content["f1_samples"] == 1.0
    assert content["macro_auc"] == 1.0


def test_columns_in_another_order_with_their_names_change_nothing(
    arrays: Path, truth: Any, simulated_bench: Path
) -> None:
    before = score(arrays, simulated_bench / "ecgs")
    for name in ("preds", "targs"):
        np.save(arrays / f"{name}.npy", np.load(arrays / f"{name}.npy")[:, ::-1])
    np.save(arrays / "classes.npy", np.array(truth[1])[::-1])
    after = score(arrays, simulated_bench / "ecgs")
    assert after["macro_auc"] == pytest.approx(before["macro_auc"], abs=1e-12)
    assert {row["name"]: row["auc"]["value"] for row in after["per_class"]} == pytest.approx(
        {row["name"]: row["auc"]["value"] for row in before["per_class"]}
    )


def spoil(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Path], None]:
    def go(folder: Path) -> None:
        np.save(folder / f"{name}.npy", change(np.load(folder / f"{name}.npy")))

    return go


def set_first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def go(array: np.ndarray) -> np.ndarray:
        array[0, 1] = value
        return array

    return go


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: (folder / "targs.npy").unlink(), "targs.npy: no such file"),
        (lambda folder: (folder / "preds.npy").write_bytes(b"hello"), "preds.npy: "),
        (spoil("preds", set_first(np.nan)), "1 of .* scores are NaN or infinite, the first in row 0, column 1"),
        (spoil("preds", set_first(1.25)), r"outside \[0, 1\], the first in row 0, column 1 \(1.25\); pass logits"),
        (spoil("targs", set_first(0.5)), "row 0, column 1 is 0.5; expected 0 or 1"),
        (spoil("preds", lambda array: array[:-1]), "they must be alike"),
        (spoil("preds", lambda array: array[0]), "expected numbers, records by classes"),
        (spoil("classes", lambda array: array[:-1]), "expected 5 names, one per column"),
        (spoil("classes", lambda array: np.array(["XX", *array[1:]])), "unknown XX; missing CD"),
        (spoil("classes", lambda array: np.array([array[1], *array[1:]])), "a class stands twice"),
        (spoil("classes", lambda array: array.astype(object)), "holds Python objects, which are not read"),
    ],
)
def test_a_fault_of_the_arrays_is_named(change: Callable[[Path], None], named: str, arrays: Path) -> None:
    if "Python objects" in named:
        np.save(arrays / "classes.npy", np.load(arrays / "classes.npy").astype(object), allow_pickle=True)
    else:
        change(arrays)
    with pytest.raises(PredictionError, match=named):
        score(arrays)


def test_the_data_gives_away_another_order_of_classes_or_records(arrays: Path, simulated_bench: Path) -> None:
    targs = np.load(arrays / "targs.npy")
    (arrays / "classes.npy").unlink()
    np.save(arrays / "targs.npy", targs[:, [1, 0, 2, 3, 4]])
    with pytest.raises(PredictionError, match="wrong class order: column 0 should be CD, but it holds HYP"):
        score(arrays, simulated_bench / "ecgs")
    np.save(arrays / "targs.npy", targs[::-1])
    with pytest.raises(PredictionError, match="the records are in another order, or of another version"):
        score(arrays, simulated_bench / "ecgs")
    for name in ("preds", "targs"):
        np.save(arrays / f"{name}.npy", np.load(arrays / f"{name}.npy")[1:])
    with pytest.raises(PredictionError, match="predict exactly these, in order of id"):
        score(arrays, simulated_bench / "ecgs")


def test_validation_arrays_are_held_against_the_threshold_fold(arrays: Path, simulated_bench: Path) -> None:
    (loaded,) = find_tasks([TASK])
    questions = build_questions(loaded, Data(simulated_bench / "ecgs"), ask="list")
    classes = [row["class"] for row in questions.about["classes"]]
    labels = target_matrix(questions.truth.filter(pl.col("role") == "threshold"), classes, "presence")
    np.save(arrays / "preds_valid.npy", 0.9 * labels)
    np.save(arrays / "targs_valid.npy", labels)
    content = score(arrays, simulated_bench / "ecgs")
    assert content["f1_macro"] is not None
    assert content["notes"] == []
    for name in ("preds_valid", "targs_valid"):
        np.save(arrays / f"{name}.npy", np.load(arrays / f"{name}.npy")[:, ::-1])
    with pytest.raises(PredictionError, match=r"targs_valid\.npy: wrong class order"):
        score(arrays, simulated_bench / "ecgs")
    for name in ("preds_valid", "targs_valid"):
        np.save(arrays / f"{name}.npy", np.load(arrays / f"{name}.npy")[1:, ::-1])
    with pytest.raises(PredictionError, match="fold 9 of this PTB-XL has"):
        score(arrays, simulated_bench / "ecgs")


def test_arrays_of_another_task_are_refused(arrays: Path) -> None:
    with pytest.raises(PredictionError, match="5 columns, ptbxl-all has 71 classes"):
        score(arrays, task="ptbxl-all")
    from ecglm.synth.errors import TaskError

    with pytest.raises(TaskError, match="this one is choices"):
        score(arrays, task="ecgqa")


def test_options_for_predictions_are_refused(tmp_path: Path, ask: Any) -> None:
    (tmp_path / "p.csv").write_text("ecg_id\n1\n")
    with pytest.raises((PredictionError, ModelError), match=re.escape("takes no options")):
        ask(tmp_path / "p.csv", options={"a": "b"})
