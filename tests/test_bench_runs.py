"""Runs: known models reach what they must, killed runs lose nothing, and nothing mixes what must stay apart."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ecglm.bench.comparison import compare_runs, leaderboard
from ecglm.bench.journal import Journal, read_journal
from ecglm.bench.questions import Questions
from ecglm.bench.runs import RunConfig, RunResult, run, score_run
from ecglm.bench.scoring import Settings
from ecglm.bench.smoke import chance, smoke
from ecglm.synth.errors import RunError

FEW = Settings(n_resamples=100)
TASKS = ("ptbxl-superdiagnostic", "ptbxl-rhythm", "ecgqa", "measurements")


@pytest.fixture(scope="module")
def finished(simulated_bench: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunResult]:
    """The built-in models on four tasks of simulated ECGs."""
    base = tmp_path_factory.mktemp("runs")
    data = {"ptbxl": simulated_bench / "ecgs", "ecgqa": simulated_bench / "ecgqa"}
    names = ("oracle", "adversary", "random", "majority")
    return {name: run(RunConfig(name, TASKS, base / name, settings=FEW, **data)) for name in names}


def headline(result: RunResult, task: str) -> float:
    value = result.scores["tasks"][task]["headline"]["value"]
    assert value is not None
    return float(value)


# ------------------------------------------------------------------------------------------- what known models reach


@pytest.mark.parametrize("task", TASKS)
def test_the_oracle_is_right_and_the_adversary_wrong(task: str, finished: dict[str, RunResult]) -> None:
    assert headline(finished["oracle"], task) == 1.0
    assert headline(finished["adversary"], task) == 0.0


def test_the_oracle_is_right_by_every_reading(finished: dict[str, RunResult]) -> None:
    tasks = finished["oracle"].scores["tasks"]
    view = tasks["ptbxl-superdiagnostic"]["views"][0]
    for name in ("strict", "lenient"):
        assert {metric: value["value"] for metric, value in view[name]["metrics"].items()} == {
            f"f1_{average}": 1.0 for average in ("macro", "micro", "weighted", "samples")
        }
    for track in tasks["ecgqa"]["tracks"].values():
        for scoring in ("free", "candidates"):
            assert track[scoring]["overall"]["strict"]["value"] == 1.0
    assert tasks["measurements"]["within_tolerance"]["overall"]["strict"]["value"] == 1.0
    assert all(task["unparsed"]["strict"] == 0.0 for task in tasks.values())


@pytest.mark.slow
@pytest.mark.parametrize("task", ["ptbxl-superdiagnostic", "ptbxl-form"])
def test_known_models_on_ptbxl(task: str, ptbxl_full: Path, tmp_path: Path) -> None:
    results = {
        model: run(RunConfig(model, (task,), tmp_path / model, ptbxl=ptbxl_full, settings=FEW))
        for model in ("oracle", "adversary", "random", "majority")
    }
    whole = {model: result.scores["tasks"][task]["views"][0] for model, result in results.items()}
    for metric in ("macro_auc", "f1_macro", "f1_micro", "f1_weighted", "f1_samples"):
        assert whole["oracle"]["scores"]["metrics"][metric]["value"] == 1.0
    for metric in ("f1_macro", "f1_micro", "f1_weighted"):
        assert whole["adversary"]["strict"]["metrics"][metric]["value"] == 0.0
    assert headline(results["adversary"], task) == 0.0
    assert headline(results["majority"], task) == 0.5
    expected, deviation = chance(Questions.load(tmp_path / "random" / "tasks" / task))
    assert abs(headline(results["random"], task) - expected) < 3 * deviation
    constant, reached = whole["majority"]["constant"], whole["majority"]["scores"]["metrics"]
    assert reached["f1_macro"]["value"] == pytest.approx(constant["f1_macro"])
    leak = results["majority"].scores["tasks"][task]["leakage"]
    assert leak["trained_on_ecgs"] == leak["trained_on_patients"] == 0.0
    assert leak["declared_ecgs"] == 17_418


@pytest.mark.slow
def test_known_models_on_the_official_questions(data_dir: Path, ptbxl_full: Path, tmp_path: Path) -> None:
    data = {"ptbxl": ptbxl_full, "ecgqa": data_dir / "ecgqa"}
    results = {
        model: run(RunConfig(model, ("ecgqa",), tmp_path / model, settings=FEW, **data))
        for model in ("oracle", "adversary", "majority", "random")
    }
    expected, deviation = chance(Questions.load(tmp_path / "random" / "tasks" / "ecgqa"))
    assert abs(headline(results["random"], "ecgqa") - expected) < 3 * deviation
    assert headline(results["oracle"], "ecgqa") == 1.0
    assert headline(results["adversary"], "ecgqa") == 0.0
    answers = pl.read_parquet(tmp_path / "majority" / "answers.parquet").select("question_id", "raw_answer")
    truth = pl.read_parquet(tmp_path / "majority" / "tasks" / "ecgqa" / "truth.parquet")
    said = truth.join(answers, on="question_id").with_columns(pl.col("answer").list.join(", ").alias("told"))
    prior = (said["told"] == said["raw_answer"]).mean()
    assert headline(results["majority"], "ecgqa") == pytest.approx(prior)


@pytest.mark.parametrize("task", TASKS)
def test_random_reaches_what_chance_gives(task: str, finished: dict[str, RunResult]) -> None:
    expected, deviation = chance(Questions.load(finished["random"].out / "tasks" / task))
    assert abs(headline(finished["random"], task) - expected) < 3 * deviation


def test_majority_reaches_its_prior(finished: dict[str, RunResult], simulated_bench: Path) -> None:
    """By template the answer that is most frequent in the training questions, right as often as it is true."""
    for task in ("ptbxl-superdiagnostic", "ptbxl-rhythm"):
        assert headline(finished["majority"], task) == 0.5
    base = simulated_bench / "ecgqa" / "ecgqa" / "ptbxl" / "paraphrased"
    train, test = (json.loads((base / split / "0.json").read_text()) for split in ("train", "test"))
    told = finished["majority"].scores["tasks"]["ecgqa"]["tracks"]["official"]["free"]["by"]["question_type"]
    for kind in ("single-verify", "single-query", "comparison_irrelevant-verify"):
        counts = Counter(tuple(sorted(each["answer"])) for each in train if each["question_type"] == kind)
        likeliest = min(counts, key=lambda answer: (-counts[answer], answer))
        of_kind = [tuple(sorted(each["answer"])) for each in test if each["question_type"] == kind]
        assert told[kind]["strict"]["value"] == pytest.approx(of_kind.count(likeliest) / len(of_kind))


def test_smoke_passes() -> None:
    result = smoke()
    assert [check for check in result["checks"] if not check["passed"]] == []
    assert len(result["checks"]) > 8


# --------------------------------------------------------------------------------------------------- what a run holds


def test_answers_hold_one_row_per_question_with_all_that_was_asked(finished: dict[str, RunResult]) -> None:
    out = finished["random"].out
    answers = pl.read_parquet(out / "answers.parquet")
    assert answers["question_id"].n_unique() == answers.height
    journal = read_journal(out / "journal.jsonl")
    assert answers.height == len(journal) == finished["random"].asked
    statements = answers.filter(pl.col("code").is_not_null())
    assert statements["score"].null_count() == 0
    assert statements["options"].unique().to_list() == [["yes", "no"]]
    assert (answers["status"] == "answered").all()
    prompts = answers.group_by("prompt_hash").agg(pl.col("question").n_unique(), pl.col("options").n_unique())
    assert prompts["question"].max() == prompts["options"].max() == 1
    both = answers.filter(pl.col("tasks").list.len() > 1)
    assert both.height == 0, "no question of these tasks is the same"


def test_a_question_of_two_tasks_is_asked_once(simulated_bench: Path, tmp_path: Path) -> None:
    config = RunConfig(
        "random",
        ("ptbxl-all", "ptbxl-rhythm"),
        tmp_path / "both",
        ptbxl=simulated_bench / "ecgs",
        limit=4,
        settings=FEW,
    )
    result = run(config)
    answers = pl.read_parquet(tmp_path / "both" / "answers.parquet")
    assert answers.height == result.asked
    shared = answers.filter(pl.col("tasks").list.len() == 2)
    codes = {row["class"] for row in result.scores["tasks"]["ptbxl-rhythm"]["about"]["classes"]}
    assert set(shared["code"]) == codes
    assert shared.height == 2 * 4 * len(codes)


def test_scoring_again_asks_nothing_needs_no_data_and_gives_the_same(
    finished: dict[str, RunResult], simulated_bench: Path
) -> None:
    out = finished["random"].out
    before = (out / "scores.json").read_bytes()
    journal = (out / "journal.jsonl").read_bytes()
    hidden = simulated_bench.with_name("hidden")
    simulated_bench.rename(hidden)
    try:
        again = score_run(out, FEW)
    finally:
        hidden.rename(simulated_bench)
    assert (out / "scores.json").read_bytes() == before
    assert (out / "journal.jsonl").read_bytes() == journal
    assert json.loads(json.dumps(again)) == json.loads(before)
    other = score_run(out, Settings(n_resamples=50, seed=3))
    for task in TASKS:
        first, second = again["tasks"][task]["headline"], other["tasks"][task]["headline"]
        assert first["value"] == second["value"]
    score_run(out, FEW)


def test_run_json_says_what_was_run(finished: dict[str, RunResult], simulated_bench: Path) -> None:
    about = json.loads((finished["random"].out / "run.json").read_text())
    assert about["status"] == "done"
    assert set(about["tasks"]) == set(TASKS)
    assert {"ptbxl_database.csv", "scp_statements.csv"} <= set(about["data"]["files"])
    assert {"ecglm", "numpy", "scikit-learn", "python"} <= set(about["versions"])
    assert str(simulated_bench) not in json.dumps(about), "a run can be shared: it names no path of the machine"


# ------------------------------------------------------------------------------------------------- limits and resuming


def test_a_limit_never_poisons_a_run(simulated_bench: Path, tmp_path: Path) -> None:
    def go(out: str, limit: int | None) -> RunResult:
        data = {"ptbxl": simulated_bench / "ecgs", "settings": FEW, "limit": limit}
        return run(RunConfig("random", ("ptbxl-superdiagnostic",), tmp_path / out, **data))

    whole = go("whole", None)
    few = go("grown", 3)
    grown = go("grown", None)
    assert few.asked == 30
    assert grown.reused == 30
    assert grown.asked == whole.asked - 30
    assert grown.scores == whole.scores
    shrunk = go("grown", 3)
    assert shrunk.asked == 0
    assert shrunk.scores == few.scores
    assert pl.read_parquet(tmp_path / "grown" / "answers.parquet").height == 30


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"options": {"seed": "7"}}, "options was"),
        ({"model": "oracle"}, "name was 'random'"),
        ({"ask": "list"}, "asked by statement, now by list"),
    ],
)
def test_a_folder_keeps_to_one_model_and_one_way_of_asking(
    changes: dict[str, Any], named: str, simulated_bench: Path, tmp_path: Path
) -> None:
    base = {"model": "random", "tasks": ("ptbxl-rhythm",), "out": tmp_path / "a", "ptbxl": simulated_bench / "ecgs"}
    base |= {"limit": 2, "settings": FEW}
    run(RunConfig(**base))
    with pytest.raises(RunError, match=named):
        run(RunConfig(**{**base, **changes}))


def test_a_changed_waveform_is_asked_about_again(simulated_bench: Path, tmp_path: Path) -> None:
    ecgs = shutil.copytree(simulated_bench / "ecgs", tmp_path / "ecgs")
    (tmp_path / "still.py").write_text(
        "from ecglm.bench import Answer\ndef no(batch):\n    return [Answer(i.id, text='no') for i in batch]\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        config = RunConfig("python:still:no", ("ptbxl-rhythm",), tmp_path / "a", ptbxl=ecgs, limit=3, settings=FEW)
        first = run(config)
        assert run(config).asked == 0
        (ecg_id,) = pl.read_parquet(tmp_path / "a" / "answers.parquet")["ecg_id"].unique().sort().to_list()[:1]
        native = int(ecg_id.partition(":")[2])
        header = ecgs / f"records100/{native // 1000 * 1000:05d}/{native:05d}_lr.hea"
        header.write_text(header.read_text() + "# touched\n")
        again = run(config)
    finally:
        sys.path.remove(str(tmp_path))
    assert again.asked == first.asked / 3, "the questions about one of three ECGs"
    assert again.reused == first.asked - again.asked


SLOW = """
import time
from pathlib import Path
from ecglm.bench import Answer

LOG = Path(__file__).with_name("asked.log")

class Slow:
    batch_size = 5

    def answer(self, batch):
        for item in batch:
            time.sleep(0.004)
            with LOG.open("a") as file:
                file.write(item.id + "\\n")
            text = "yes" if int(item.id, 16) % 2 else "no"
            yield Answer(item.id, text=text, scores=(int(item.id[:4], 16) / 65535, 0.5))
"""


def workers_in(folder: Path) -> list[str]:
    """Model processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").resolve() == folder.resolve() and "bench.adapters.worker" in (
                process / "cmdline"
            ).read_text().replace("\0", " "):
                found.append(process.name)
    return found


@pytest.mark.slow
def test_ten_kills_at_random_moments_lose_nothing_and_count_nothing_twice(
    simulated_bench: Path, tmp_path: Path
) -> None:
    (tmp_path / "slow_model.py").write_text(SLOW)
    arguments = ["run", "--model", "python:slow_model:Slow", "--task", "ptbxl-superdiagnostic", "--resamples", "50"]
    arguments += ["--ptbxl", str(simulated_bench / "ecgs"), "--out", "run", "--json"]
    command = [sys.executable, "-m", "ecglm.bench.cli", *arguments]
    moments = random.Random(5)
    killed, kept_before = 0, 0
    while killed < 10:
        child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        journal = tmp_path / "run" / "journal.jsonl"
        size = journal.stat().st_size if journal.exists() else 0
        give_up = time.monotonic() + 300
        while child.poll() is None and (journal.stat().st_size if journal.exists() else 0) <= size:
            assert time.monotonic() < give_up
            time.sleep(0.005)
        time.sleep(moments.random() * 0.06)
        if child.poll() is not None:
            break
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        killed += 1
        kept = len(read_journal(journal))
        assert kept >= kept_before, "an answer was lost"
        kept_before = kept
    assert killed == 10
    give_up = time.monotonic() + 10
    while workers_in(tmp_path):
        assert time.monotonic() < give_up, "a killed run leaves no model behind"
        time.sleep(0.05)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["reused"] == kept_before
    answers = pl.read_parquet(tmp_path / "run" / "answers.parquet")
    assert answers["question_id"].n_unique() == answers.height == result["asked"] + result["reused"]
    assert (answers["status"] == "answered").all()
    for question_id, text, scores in answers.select("question_id", "raw_answer", "scores").iter_rows():
        assert text == ("yes" if int(question_id, 16) % 2 else "no")
        assert scores[0] == int(question_id[:4], 16) / 65535
    lines = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    written = Counter(key for line in lines for key in line["key"])
    assert max(written.values()) == 1, "an answer that was kept was asked for again"
    assert answers.height == len(written)


def test_a_line_cut_short_is_dropped_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    from ecglm.bench.adapters import Given

    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.add(["a", "b"], [Given("1", "no", 2, None), Given("2", None, None, [0.25, 1 / 3])], 0.5)
    journal.add_failure("c", "timeout", "hung", 9.0)
    journal.add(["c"], [Given("3", "ja\n\u2028é", 5, None)], 0.5)
    journal.close()
    whole = path.read_bytes()
    rows = read_journal(path)
    assert rows["b"][3] == [0.25, 1 / 3]
    assert rows["c"][:2] == ("answered", "ja\n\u2028é")
    for cut in range(1, len(whole) - whole.rfind(b"\n", 0, -1) - 1):
        path.write_bytes(whole[:-cut])
        again = Journal(path)
        assert set(again.rows) == {"a", "b", "c"}
        assert again.has("a")
        assert not again.has("c")
        again.add(["d"], [Given("4", "yes", 3, None)], 0.1)
        again.close()
        assert set(read_journal(path)) == {"a", "b", "c", "d"}
    path.write_bytes(b"{oops}\n" + whole)
    with pytest.raises(RunError, match="line 1: damaged"):
        read_journal(path)


def test_only_one_process_writes_a_run(simulated_bench: Path, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "a").mkdir()
    with (tmp_path / "a" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another process is writing here"):
            run(RunConfig("random", ("ptbxl-rhythm",), tmp_path / "a", ptbxl=simulated_bench / "ecgs"))


def test_a_folder_with_other_files_is_left_alone(simulated_bench: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(RunError, match="holds files that are no run"):
        run(RunConfig("random", ("ptbxl-rhythm",), tmp_path, ptbxl=simulated_bench / "ecgs"))
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


# --------------------------------------------------------------------------------------------------------- side by side


def test_compare_finds_a_difference_where_there_is_one(finished: dict[str, RunResult]) -> None:
    made = compare_runs(finished["oracle"].out, finished["adversary"].out, Settings(n_resamples=400))
    assert set(made["tasks"]) == set(TASKS)
    for task in made["tasks"].values():
        assert task["difference"]["value"] == 1.0
        assert task["different"]
        assert task["p_holm"] >= task["p_value"]
    test = made["tasks"]["measurements"]["mcnemar"]
    assert test["only_first"] == test["n_decisions"]
    same = compare_runs(finished["random"].out, finished["random"].out, FEW)
    assert not any(task["different"] for task in same["tasks"].values())
    assert all(task["difference"]["value"] == 0 for task in same["tasks"].values())


def test_runs_on_other_questions_are_not_compared(
    finished: dict[str, RunResult], simulated_bench: Path, tmp_path: Path
) -> None:
    data = {"ptbxl": simulated_bench / "ecgs", "settings": FEW}
    run(RunConfig("majority", ("ptbxl-superdiagnostic",), tmp_path / "few", limit=5, **data))
    with pytest.raises(RunError, match="did not answer the same questions of ptbxl-superdiagnostic"):
        compare_runs(finished["random"].out, tmp_path / "few", FEW)
    with pytest.raises(RunError, match="did not answer the same questions"):
        leaderboard([finished["random"].out, tmp_path / "few"], FEW)
    run(RunConfig("majority", ("ptbxl-form",), tmp_path / "form", limit=5, **data))
    with pytest.raises(RunError, match="no task in common"):
        compare_runs(finished["random"].out, tmp_path / "form", FEW)
    later = shutil.copytree(finished["random"].out, tmp_path / "later")
    about = json.loads((later / "run.json").read_text())
    about["tasks"]["ptbxl-rhythm"]["version"] = 2
    (later / "run.json").write_text(json.dumps(about))
    with pytest.raises(RunError, match=r"version 1 of ptbxl-rhythm, .*later version 2, whose scores do not compare"):
        compare_runs(finished["random"].out, later, FEW)


def test_scorings_of_ecgqa_are_never_set_against_each_other(
    finished: dict[str, RunResult], simulated_bench: Path, tmp_path: Path
) -> None:
    answers = pl.read_parquet(finished["random"].out / "answers.parquet")
    of_task = answers.filter(pl.col("tasks").list.contains("ecgqa"))
    of_task.select("question_id", "scores").write_parquet(tmp_path / "scores.parquet")
    data = {"ptbxl": simulated_bench / "ecgs", "ecgqa": simulated_bench / "ecgqa", "settings": FEW}
    config = RunConfig(f"predictions:{tmp_path / 'scores.parquet'}", ("ecgqa",), tmp_path / "scores", **data)
    assert run(config).scores["tasks"]["ecgqa"]["headline"]["scoring"] == "candidates"
    runs = [finished["random"].out, tmp_path / "scores"]
    for action in (lambda settings: compare_runs(*runs, settings), lambda settings: leaderboard(runs, settings)):
        with pytest.raises(RunError, match=r"random by free, .*scores by candidates: these scorings do not compare"):
            action(FEW)
        for track in ("official", "clean"):
            made = action(Settings(n_resamples=50, scoring="candidates", track=track))["tasks"]["ecgqa"]
            assert (made["metric"], made["scoring"], made["track"]) == ("exact_match", "candidates", track)
    with pytest.raises(RunError, match="scores: ecgqa has no exact_match: nothing to score by free"):
        compare_runs(*runs, Settings(n_resamples=50, scoring="free"))


def test_ways_of_asking_can_be_compared(simulated_bench: Path, tmp_path: Path) -> None:
    for ask in ("statement", "list"):
        for model in ("oracle", "majority"):
            config = {"ptbxl": simulated_bench / "ecgs", "settings": FEW, "ask": ask}
            run(RunConfig(model, ("ptbxl-superdiagnostic",), tmp_path / f"{model}-{ask}", **config))
    for model in ("oracle", "majority"):
        made = compare_runs(tmp_path / f"{model}-statement", tmp_path / f"{model}-list", FEW)
        task = made["tasks"]["ptbxl-superdiagnostic"]
        assert task["difference"]["value"] == 0.0
        assert task["mcnemar"]["only_first"] == task["mcnemar"]["only_second"] == 0
    listed = pl.read_parquet(tmp_path / "oracle-list" / "answers.parquet").filter(pl.col("role") == "test")
    empty = listed.filter(pl.col("raw_answer") == "none")
    assert empty.height > 0, "some ECG has no label of the task"
    assert empty["parsed_strict"].to_list() == [[]] * empty.height


def test_answers_of_the_built_in_models_follow_the_labels(simulated_bench: Path, tmp_path: Path) -> None:
    ecgs = shutil.copytree(simulated_bench / "ecgs", tmp_path / "ecgs")
    config = RunConfig("oracle", ("ptbxl-superdiagnostic",), tmp_path / "a", ptbxl=ecgs, settings=FEW)
    first = run(config)
    database = ecgs / "ptbxl_database.csv"
    database.write_text(database.read_text().replace("'NORM'", "'IMI'"))
    again = run(config)
    assert again.reused == 0
    assert headline(first, "ptbxl-superdiagnostic") == headline(again, "ptbxl-superdiagnostic") == 1.0
    unchanged = replace(config, ptbxl=simulated_bench / "ecgs", out=tmp_path / "b")
    run(unchanged)
    with pytest.raises(RunError, match="the same questions of ptbxl-superdiagnostic with the same truth"):
        compare_runs(tmp_path / "a", tmp_path / "b", FEW)


def test_comparisons_tell_where_they_are(finished: dict[str, RunResult]) -> None:
    runs = [finished[name].out for name in ("oracle", "random", "majority")]
    told: list[tuple[str, int, int]] = []
    compare_runs(runs[0], runs[1], Settings(n_resamples=5), lambda *step: told.append(step))
    assert told == [("scoring runs", done, 2) for done in range(3)]
    told.clear()
    leaderboard(runs, Settings(n_resamples=5), lambda *step: told.append(step))
    assert told == [("scoring runs", done, 3) for done in range(4)]


def test_a_leaderboard_ranks_and_groups(finished: dict[str, RunResult]) -> None:
    names = ("adversary", "random", "majority", "oracle")
    board = leaderboard([finished[name].out for name in names], Settings(n_resamples=400))
    ranks = board["tasks"]["ptbxl-superdiagnostic"]
    assert ranks["runs"][0]["model"] == "oracle"
    assert ranks["runs"][-1]["model"] == "adversary"
    assert ["oracle"] in ranks["groups"]
    assert any({"random", "majority"} <= set(group) for group in ranks["groups"])
    with pytest.raises(RunError, match="named twice"):
        leaderboard([finished["oracle"].out, finished["oracle"].out], FEW)


def test_another_threshold_for_options_is_named_beside_the_scores(
    finished: dict[str, RunResult], capsys: pytest.CaptureFixture[str]
) -> None:
    from ecglm.bench.cli import run as command

    out = str(finished["majority"].out)
    usual = finished["majority"].scores["tasks"]["ecgqa"]["tracks"]["official"]["candidates"]["overall"]["strict"]
    chosen = ["--option-threshold", "0.2", "--option-threshold-from", "my validation questions", "--resamples", "10"]
    assert command(["score", out, *chosen]) == 0
    text = capsys.readouterr().out
    assert "the options with a score above 0.2 (my validation questions) must be exactly the true set" in text
    moved = json.loads((finished["majority"].out / "scores.json").read_text())["tasks"]["ecgqa"]["tracks"]["official"]
    assert moved["candidates"]["overall"]["strict"]["value"] != usual["value"]
    assert command(["score", out, "--option-threshold", "0.2"]) == 2
    score_run(finished["majority"].out, FEW)


def test_without_resamples_there_are_values_and_no_intervals(simulated_bench: Path, tmp_path: Path) -> None:
    data = {"ptbxl": simulated_bench / "ecgs", "ecgqa": simulated_bench / "ecgqa", "settings": Settings(n_resamples=0)}
    result = run(RunConfig("oracle", TASKS, tmp_path / "a", **data))
    for task in TASKS:
        headline = result.scores["tasks"][task]["headline"]
        assert headline["value"] == 1.0
        assert headline["low"] is None
    assert score_run(tmp_path / "a", Settings(n_resamples=0))["tasks"].keys() == set(TASKS)


def test_text_answers_have_no_auc(simulated_bench: Path, tmp_path: Path) -> None:
    from ecglm.bench.data import Data
    from ecglm.bench.kinds import build_questions
    from ecglm.bench.task import find_tasks

    (loaded,) = find_tasks(["ptbxl-superdiagnostic"])
    asked = build_questions(loaded, Data(simulated_bench / "ecgs")).asked.filter(pl.col("role") == "test")
    table = asked.select("question_id").with_columns(pl.lit("no").alias("answer"))
    table.write_csv(tmp_path / "text.csv")
    data = {"ptbxl": simulated_bench / "ecgs", "settings": FEW}
    result = run(RunConfig(f"predictions:{tmp_path / 'text.csv'}", ("ptbxl-superdiagnostic",), tmp_path / "a", **data))
    content = result.scores["tasks"]["ptbxl-superdiagnostic"]
    assert content["headline"]["value"] is None
    assert "AUC not available" in content["headline"]["unavailable"]
    assert result.asked == asked.height, "fold 9 is not asked about: nothing needs a threshold"
    with pytest.raises(RunError, match="AUC not available"):
        compare_runs(tmp_path / "a", tmp_path / "a", FEW)


@pytest.mark.parametrize("text", ["no", None])
def test_scores_that_some_answers_lack_are_told_not_averaged(
    text: str | None, simulated_bench: Path, tmp_path: Path
) -> None:
    from ecglm.bench.data import Data
    from ecglm.bench.kinds import build_questions
    from ecglm.bench.task import find_tasks

    (loaded,) = find_tasks(["ptbxl-superdiagnostic"])
    asked = build_questions(loaded, Data(simulated_bench / "ecgs")).asked
    n = asked.filter(pl.col("role") == "test").height
    rows = [
        {"question_id": each, "answer": text or ("no" if place < 3 else None), "score": None if place < 3 else 0.25}
        for place, each in enumerate(asked["question_id"])
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "some.parquet")
    data = {"ptbxl": simulated_bench / "ecgs", "settings": FEW}
    spec = f"predictions:{tmp_path / 'some.parquet'}"
    content = run(RunConfig(spec, ("ptbxl-superdiagnostic",), tmp_path / "a", **data)).scores["tasks"][loaded.task.id]
    why = f"3 of {n} answers have no score"
    assert content["headline"]["value"] is None
    assert why in content["headline"]["unavailable"]
    told = content["views"][0]["strict"]
    assert set(told["metrics"]) == {"f1_macro", "f1_micro", "f1_weighted", "f1_samples"}
    assert all(why in reason for reason in told["unavailable"].values())
    assert told["unparsed_rate"] == (0.0 if text else pytest.approx((n - 3) / n)), "of text alone"
