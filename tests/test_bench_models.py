"""Models under test: good ones, and all the ways in which one can misbehave without an answer being lost."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from ecglm.bench.adapters import Given, given, open_model
from ecglm.bench.asking import batched
from ecglm.bench.protocol import MAX_ANSWER_CHARS, Item, Recording
from ecglm.bench.runs import RunConfig, RunResult, run, score_run
from ecglm.bench.scoring import Settings
from ecglm.synth.errors import ModelError, RunError
from ecglm.synth.signals import read_record

MODELS = """
import os, sys, time
from pathlib import Path
from ecglm.bench import Answer

LOG = Path(__file__).with_name("asked.log")

def note(item):
    with LOG.open("a") as file:
        file.write(item.id + "\\n")

def says_no(batch):
    for item in batch:
        note(item)
        yield Answer(item.id, text="no")

def backwards(batch):
    return [Answer(item.id, text="yes" if item.codes == ("NORM",) else "no") for item in reversed(batch)]

def reads(batch):
    for item in batch:
        peak = float(abs(item.signal).max())
        yield Answer(item.id, text=f"{item.recordings[0].leads[0]} {item.signal.shape} {peak:.3f}", scores=(0.5, 0.5))

def raises_half_way(batch):
    for item in batch:
        note(item)
        if item.codes == ("MI",):
            raise ValueError("no idea about infarction")
        yield Answer(item.id, text="no")

def hangs(batch):
    for item in batch:
        if item.codes == ("MI",):
            time.sleep(600)
        yield Answer(item.id, text="no")

def prints(batch):
    os.write(1, b"x" * 10_000_000)
    print("y" * 100)
    for number, item in enumerate(batch):
        yield Answer(item.id, text="no" + " no" * 3_333_333 if number == 0 else "no")

def dies(batch):
    for item in batch:
        if item.codes == ("MI",):
            os.kill(os.getpid(), 9)
        yield Answer(item.id, text="no")

def exits(batch):
    sys.exit(4)

def stranger(batch):
    return [Answer("somebody else", text="no")]

def twice(batch):
    for item in batch:
        yield Answer(item.id, text="no")
        yield Answer(item.id, text="yes")

def silent(batch):
    return [Answer(item.id, text="no") for item in batch[1:]]

def outside(batch):
    return [Answer(item.id, scores=(1.5, 0.1)) for item in batch]

def not_a_number(batch):
    return [Answer(item.id, scores=(float("nan"), 0.1)) for item in batch]

def too_few(batch):
    return [Answer(item.id, scores=(0.5,)) for item in batch]

def nothing(batch):
    return [Answer(item.id) for item in batch]

def words(batch):
    return ["no" for item in batch]

def number(batch):
    return [Answer(item.id, text=3) for item in batch]

class Declared:
    name = "declared"
    fingerprint = "weights 7"
    batch_size = 7
    trained_on = ["simulated:1", "simulated:2", "elsewhere:9"]

    def __init__(self, word="no"):
        self.word = word

    def answer(self, batch):
        assert len(batch) <= 7
        return [Answer(item.id, text=self.word) for item in batch]

class Listed:
    ask = "list"

    def answer(self, batch):
        for item in batch:
            assert item.multiple and len(item.options) == len(item.codes) == 5
            yield Answer(item.id, text=item.options[0], scores=[0.9, 0.1, 0.1, 0.1, 0.1])

class Mended:
    fingerprint = "the same weights"

    def answer(self, batch):
        for item in batch:
            note(item)
            if item.codes == ("MI",):
                raise ValueError("no idea about infarction")
            yield Answer(item.id, text="no")

class Badly:
    trained_on = "simulated:1"
    def answer(self, batch):
        return []

broken = 3
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the module `tested_models`, from which it can be imported."""
    (tmp_path / "tested_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ask(models: Path, simulated_bench: Path) -> Any:
    """Runs a model of that module on six test ECGs, 30 questions."""

    def go(name: str, out: str = "out", **options: Any) -> RunResult:
        config = {"limit": 6, "timeout_s": 60.0, "settings": Settings(n_resamples=0)} | options
        target = f"python:tested_models:{name}"
        return run(
            RunConfig(target, ("ptbxl-superdiagnostic",), models / out, ptbxl=simulated_bench / "ecgs", **config)
        )

    return go


def answers(models: Path, out: str = "out") -> pl.DataFrame:
    return pl.read_parquet(models / out / "answers.parquet").filter(pl.col("role") == "test")


def journalled(models: Path, out: str = "out") -> int:
    lines = [json.loads(line) for line in (models / out / "journal.jsonl").read_text().splitlines()]
    return sum(len(line["key"]) for line in lines if line["status"] == "answered")


# --------------------------------------------------------------------------------------------------------- good models


def test_answers_in_another_order_reach_their_questions(ask: Any, models: Path) -> None:
    ask("backwards")
    table = answers(models)
    assert table.height == 30
    for code, text in table.select("code", "raw_answer").iter_rows():
        assert text == ("yes" if code == "NORM" else "no")


def test_any_object_with_the_attributes_of_an_answer_will_do() -> None:
    assert given(SimpleNamespace(id=7, text="no", scores=(0.25, 1))) == Given("7", "no", 2, [0.25, 1.0])
    with pytest.raises(TypeError, match="answered with SimpleNamespace; expected"):
        given(SimpleNamespace(id=7, text="no"))


def test_a_model_can_read_the_signal_in_millivolts(ask: Any, models: Path, simulated_bench: Path) -> None:
    ask("reads")
    for ecg_id, text in answers(models).select("ecg_id", "raw_answer").unique().iter_rows():
        number = int(ecg_id.partition(":")[2])
        record = read_record(simulated_bench / "ecgs", f"records100/{number // 1000 * 1000:05d}/{number:05d}_lr")
        assert text == f"I {record.signal.shape} {np.abs(record.millivolts()).max():.3f}"


def test_waveforms_come_from_a_signal_store_where_one_is_or_may_be_made(
    ask: Any, models: Path, simulated_bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ECGLM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(models / "cache"))
    ask("reads", out="files")
    assert not (models / "cache").exists(), "a cache is made only where the user names one"
    monkeypatch.setenv("ECGLM_CACHE", str(models / "cache" / "ecglm"))
    config = RunConfig("majority", ("ptbxl-rhythm",), models / "prior", ptbxl=simulated_bench / "ecgs", limit=2)
    run(config)
    assert not (models / "cache").exists(), "no waveform is read"
    ask("reads", out="stored")
    (manifest,) = (models / "cache").glob("ecglm/signals/*/signals.json")
    assert answers(models, "stored")["raw_answer"].to_list() == answers(models, "files")["raw_answer"].to_list()
    keys = [pl.read_parquet(models / out / "keys.parquet")["key"].to_list() for out in ("files", "stored")]
    assert keys[0] == keys[1], "where a waveform is kept changes no answer"
    # one that is there is used without being asked for, and what it holds is what the model gets
    monkeypatch.delenv("ECGLM_CACHE")
    (array,) = manifest.parent.glob("*.npy")
    content = bytearray(array.read_bytes())
    content[-(len(content) // 2) :] = bytes(len(content) // 2)
    array.write_bytes(content)
    with pytest.raises(ModelError, match="were changed or damaged; make the store again with `synth signals`"):
        ask("reads", out="damaged", limit=24)


def test_what_a_model_declares_is_used(ask: Any, models: Path) -> None:
    result = ask("Declared", options={"word": "yes"})
    scores = result.scores["tasks"]["ptbxl-superdiagnostic"]
    assert result.scores["model"]["name"] == "declared"
    assert result.scores["model"]["fingerprint"] == "weights 7"
    assert answers(models)["raw_answer"].unique().to_list() == ["yes"]
    leak = scores["leakage"]
    assert leak["declared_ecgs"] == 3
    assert leak["declared_but_unknown"] == 1
    assert leak["trained_on_ecgs"] == 0.0


def test_the_share_of_test_patients_seen_in_training_counts_their_other_ecgs(ask: Any, simulated_bench: Path) -> None:
    from ecglm.bench.data import Data

    ecgs = Data(simulated_bench / "ecgs").ecgs
    test = ecgs.filter(pl.col("strat_fold") == 10).head(6)
    unknown = ask("says_no", "unknown").scores["tasks"]["ptbxl-superdiagnostic"]["leakage"]
    assert unknown["trained_on_ecgs"] == unknown["trained_on_patients"] == "unknown"
    every = ask("says_no", "folds", trained_on="folds:1-10").scores["tasks"]["ptbxl-superdiagnostic"]["leakage"]
    assert every["trained_on_ecgs"] == every["trained_on_patients"] == 1.0
    others = ecgs.join(test, on="patient_id", how="semi").join(test, on="ecg_id", how="anti")
    listed = Path("trained.txt")
    listed.write_text("\n".join(["simulated:1", *others["ecg_id"].to_list()]))
    leak = ask("says_no", "others", trained_on=str(listed)).scores["tasks"]["ptbxl-superdiagnostic"]["leakage"]
    assert leak["trained_on_ecgs"] == 0.0
    assert leak["trained_on_patients"] == others["patient_id"].n_unique() / test["patient_id"].n_unique()


def test_a_list_question_gives_every_class_its_score(ask: Any, models: Path) -> None:
    scores = ask("Listed").scores["tasks"]["ptbxl-superdiagnostic"]
    table = answers(models)
    assert table.height == 6
    assert scores["ask"] == "list"
    view = scores["views"][0]["scores"]
    assert view["metrics"]["macro_auc"]["value"] == pytest.approx(0.5)
    assert "f1_macro" in view["metrics"], "thresholds from fold 9 were asked for"


# ---------------------------------------------------------------------------------------------------------- bad models


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("raises_half_way", r"infarction.*ValueError: no idea about infarction \(tested_models\.py, line \d+\)"),
        ("dies", "ended by itself \\(signal SIGKILL\\); its output is in .*model.log"),
        ("exits", "SystemExit: 4"),
        ("stranger", "answer to item somebody else: its id is not among those of the batch"),
        ("twice", "its id is not among those of the batch, or it was answered before"),
        ("silent", "gave no answer to 1 of 1 items"),
        ("outside", "the score of 'yes' is 1.5; expected a probability from 0 to 1"),
        ("not_a_number", "the score of 'yes' is nan"),
        ("too_few", "1 scores for 2 options"),
        ("nothing", "neither text nor scores"),
        ("words", "answered with str; expected ecglm.bench.Answer"),
        ("number", "the text is int; expected str or None"),
    ],
)
def test_what_a_model_does_wrong_is_named_with_its_question(ask: Any, name: str, named: str) -> None:
    with pytest.raises(ModelError, match=named) as caught:
        ask(name)
    assert "simulated:" in str(caught.value)
    assert "run the same command to go on" in str(caught.value)


def test_a_model_that_raises_half_way_loses_no_answer_and_can_be_mended(ask: Any, models: Path) -> None:
    with pytest.raises(ModelError):
        ask("raises_half_way")
    kept = journalled(models)
    assert kept >= 2, "the answers before the first question about infarction"
    with pytest.raises(RunError, match="have not been asked"):
        score_run(models / "out")
    asked = Path("asked.log").read_text().split()
    text = (models / "tested_models.py").read_text()
    (models / "tested_models.py").write_text(
        text.replace('if item.codes == ("MI",):\n            raise', "if False:\n            raise")
    )
    with pytest.raises(RunError, match="holds answers of another model: fingerprint"):
        ask("raises_half_way")
    (models / "tested_models.py").write_text(text)
    result = ask("raises_half_way", max_failures=6)
    again = Path("asked.log").read_text().split()[len(asked) :]
    assert result.reused == kept
    assert len(again) > 0
    scores = result.scores["tasks"]["ptbxl-superdiagnostic"]
    assert scores["failures"] == {"error": 6}
    assert scores["failed"] == 6
    assert answers(models).filter(pl.col("status") == "error")["code"].unique().to_list() == ["MI"]


def test_a_model_with_a_fingerprint_goes_on_when_its_file_is_mended(ask: Any, models: Path) -> None:
    with pytest.raises(ModelError, match="is another model, unless it declares a fingerprint"):
        ask("Mended")
    kept = journalled(models)
    text = (models / "tested_models.py").read_text()
    (models / "tested_models.py").write_text(
        text.replace('item.codes == ("MI",):\n                raise', "False:\n                raise")
    )
    result = ask("Mended")
    assert (result.reused, result.asked) == (kept, 30 - kept)
    asked = Counter(Path("asked.log").read_text().split())
    assert sorted(asked.values()) == [1] * 29 + [3], "again only what failed: in its batch, alone, and mended"


def test_failed_questions_count_as_wrong(ask: Any) -> None:
    scores = ask("raises_half_way", max_failures=6).scores["tasks"]["ptbxl-superdiagnostic"]
    view = scores["views"][0]
    assert view["strict"]["unparsed_rate"] == pytest.approx(6 / 30)
    (infarction,) = [row for row in view["strict"]["per_class"] if row["name"] == "MI"]
    assert infarction["f1"]["value"] in (0.0, None)
    assert infarction["specificity"] in (0.0, None)


def test_a_model_that_hangs_is_ended_and_only_the_culprit_fails(ask: Any, models: Path) -> None:
    started = time.monotonic()
    result = ask("hangs", timeout_s=1.0, max_failures=2, limit=2)
    assert time.monotonic() - started < 60
    assert result.scores["tasks"]["ptbxl-superdiagnostic"]["failures"] == {"timeout": 2}
    table = answers(models)
    assert table.filter(pl.col("status") == "answered").height == 8
    assert "no answer within 1 s" in table.filter(pl.col("code") == "MI")["detail"][0]


def test_ten_megabytes_of_output_are_cut_and_told(ask: Any, models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = ask("prints")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert result.scores["tasks"]["ptbxl-superdiagnostic"]["failures"] == {"answers_cut": 1}
    table = answers(models)
    assert table["raw_answer"].str.len_chars().max() == MAX_ANSWER_CHARS
    assert table["n_chars"].max() == 10_000_001
    assert (models / "out" / "model.log").stat().st_size > 10_000_000


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("python:tested_models:absent", "AttributeError: module 'tested_models' has no attribute 'absent'"),
        ("python:no_such_module:x", "ModuleNotFoundError"),
        ("python:tested_models", "is not of the form module:name"),
        ("python:tested_models:broken", "neither a function nor has it a method"),
        ("python:tested_models:Badly", "trained_on is not a collection of ECG ids"),
        ("orcale", "did you mean oracle"),
        ("predictions:nowhere.csv", "no such file"),
        ("predictions:nowhere.txt", r"\.parquet, \.csv, \.jsonl"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_named(models: Path, spec: str, named: str) -> None:
    from ecglm.synth.errors import ECGLMError

    with pytest.raises(ECGLMError, match=named):
        open_model(spec, {}, log=models / "log", timeout_s=10).close()


def test_options_a_model_does_not_know_are_named(models: Path) -> None:
    with pytest.raises(ModelError, match="random knows seed=N"):
        open_model("random", {"sead": "1"}, log=models / "log", timeout_s=10)
    with pytest.raises(ModelError, match="unexpected keyword argument 'sead'"):
        open_model("python:tested_models:Declared", {"sead": "1"}, log=models / "log", timeout_s=10)


def test_a_model_from_an_installed_package_is_found_by_its_name(
    models: Path, monkeypatch: pytest.MonkeyPatch, simulated_bench: Path
) -> None:
    folder = models / "somebody-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[ecglm.models]\nnay-sayer = tested_models:Declared\n")
    monkeypatch.syspath_prepend(str(models))
    asker = open_model("nay-sayer", {}, log=models / "log", timeout_s=30)
    assert asker.about.name == "declared"
    asker.close()


@pytest.mark.parametrize("cached", [False, True])
def test_a_damaged_waveform_is_named(
    cached: bool, ask: Any, models: Path, simulated_bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ECGLM_CACHE", raising=False)
    if cached:
        monkeypatch.setenv("ECGLM_CACHE", str(tmp_path / "cache"))
    ecgs = shutil.copytree(simulated_bench / "ecgs", tmp_path / "ecgs")
    for path in ecgs.glob("records100/*/*.dat"):
        path.write_bytes(path.read_bytes()[:-2])
    config = RunConfig("python:tested_models:reads", ("ptbxl-rhythm",), models / "out", ptbxl=ecgs, limit=2)
    with pytest.raises(ModelError, match=r"SignalError: records100/\S+\.dat: 23998 bytes, expected 24000"):
        run(config)


# ---------------------------------------------------------------------------------------------- measurements in words


def test_measurements_are_given_in_words_where_asked_for(models: Path, simulated_bench: Path) -> None:
    table = pl.DataFrame(
        {"ecg_id": [f"simulated:{n}" for n in range(1, 241)], "QRS_Dur_Global": [96.0 + n for n in range(240)]}
    )
    table = table.with_columns(provider=pl.lit("mine"), HR__Global=pl.lit(None, pl.Float64))
    table.write_parquet(models / "measured.parquet")
    (models / "told.py").write_text(
        "from ecglm.bench import Answer\n"
        "def told(batch):\n"
        "    return [Answer(item.id, text=str(item.recordings[0].measurements)) for item in batch]\n"
    )
    base = {"ptbxl": simulated_bench / "ecgs", "limit": 2, "settings": Settings(n_resamples=0)}
    base |= {"measurements": models / "measured.parquet"}
    run(RunConfig("python:told:told", ("ptbxl-superdiagnostic",), models / "a", **base))
    assert answers(models, "a")["raw_answer"].unique().to_list() == ["None"]
    run(RunConfig("python:told:told", ("ptbxl-superdiagnostic",), models / "b", **base, with_measurements=True))
    for ecg_id, text in answers(models, "b").select("ecg_id", "raw_answer").iter_rows():
        assert "ventricular rate" in text, "from the simulator's own table"
        assert "QRS duration" in text
        assert "None" not in text, ecg_id
    from ecglm.synth.errors import TaskError

    with pytest.raises(TaskError, match="cannot be given with the question"):
        run(RunConfig("oracle", ("measurements",), models / "c", **base, with_measurements=True))


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"ecg": [1]}, "no column ecg_id; did you mean ecg"),
        ({"HR__Global": [60.0]}, "no column ecg_id; give the column with the ids"),
        ({"ecg_id": [1, 1], "HR__Global": [60.0, 61.0]}, "has table twice; expected once"),
    ],
)
def test_a_table_of_measurements_with_a_fault_is_named(
    columns: dict[str, list[float]], named: str, models: Path, simulated_bench: Path
) -> None:
    from ecglm.synth.errors import TaskError

    pl.DataFrame(columns).write_csv(models / "table.csv")
    data = {"ptbxl": simulated_bench / "ecgs", "measurements": models / "table.csv"}
    with pytest.raises(TaskError, match=named):
        run(RunConfig("oracle", ("measurements",), models / "out", **data))


# -------------------------------------------------------------------------------------------------------- small things


def items(ecgs: int, each: int) -> list[Item]:
    recordings = [Recording(f"x:{n}", Path(), "", (), 100) for n in range(ecgs)]
    return [Item(f"{r.ecg_id} {k}", (r,), "?", (), False) for r in recordings for k in range(each)]


@pytest.mark.parametrize(
    ("size", "ecgs", "each", "sizes"),
    [
        (1, 3, 4, [1] * 12),
        (10, 5, 4, [8, 8, 4]),
        (256, 5, 71, [213, 142]),
        (256, 3, 150, [150, 150, 150]),
        (64, 3, 71, [64, 64, 64, 21]),
        (100, 1, 7, [7]),
        (8, 9, 1, [8, 1]),
    ],
)
def test_batches_keep_an_ecg_together_where_it_fits(size: int, ecgs: int, each: int, sizes: list[int]) -> None:
    everything = items(ecgs, each)
    batches = list(batched(iter(everything), size))
    assert [item for batch in batches for item in batch] == everything
    assert [len(batch) for batch in batches] == sizes


ENCODER = """
from pathlib import Path
from ecglm.bench import Answer

class Encoder:
    batch_size = 200

    def answer(self, batch):
        told = sorted({recording.ecg_id for item in batch for recording in item.recordings[:1]})
        with Path(__file__).with_name("batches.log").open("a") as file:
            file.write(" ".join(told) + "\\n")
        for item in batch:
            yield Answer(item.id, text=item.options[0], scores=[0.5] * len(item.options))
"""


def test_an_ecg_comes_in_one_batch_whichever_tasks_ask_about_it(simulated_bench: Path, models: Path) -> None:
    (models / "encoder.py").write_text(ENCODER)
    tasks = ("ptbxl-all", "ptbxl-superdiagnostic", "ptbxl-subdiagnostic", "ecgqa-single")
    data = {"ptbxl": simulated_bench / "ecgs", "ecgqa": simulated_bench / "ecgqa", "settings": Settings(n_resamples=0)}
    result = run(RunConfig("python:encoder:Encoder", tasks, models / "out", **data))
    batches = [line.split() for line in (models / "batches.log").read_text().splitlines()]
    answers = pl.read_parquet(result.out / "answers.parquet")
    assert Counter(ecg_id for batch in batches for ecg_id in batch) == Counter(answers["ecg_id"].unique().to_list())
    each = dict(answers.group_by("role", "ecg_id").len().group_by("role").agg(pl.col("len").max()).iter_rows())
    most = max(len(result.scores["tasks"][task]["about"]["classes"]) for task in tasks[:3])
    assert each["test"] == each["threshold"] + 3, "the statements of three tasks, and three questions of ECG-QA"
    assert each["threshold"] > most, "more than any one task asks"


def test_random_answers_depend_on_seed_and_question_only(simulated_bench: Path, tmp_path: Path) -> None:
    def scores(out: str, seed: str, limit: int) -> dict[str, float]:
        config = RunConfig(
            "random",
            ("ptbxl-rhythm",),
            tmp_path / out,
            ptbxl=simulated_bench / "ecgs",
            options={"seed": seed},
            limit=limit,
            settings=Settings(n_resamples=0),
        )
        run(config)
        return dict(pl.read_parquet(tmp_path / out / "answers.parquet").select("question_id", "score").iter_rows())

    few, more, other = scores("a", "1", 3), scores("b", "1", 6), scores("c", "2", 3)
    assert all(more[question] == value for question, value in few.items())
    assert sum(other[question] == value for question, value in few.items()) == 0
    values = list(more.values())
    assert math.isclose(float(np.mean(values)), 0.5, abs_tol=0.15)
