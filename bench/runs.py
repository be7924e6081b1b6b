"""Runs: a model is asked the questions of some tasks and scored; killed, a run goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import xxhash

from ecglm.bench.adapters import Asker, open_model
from ecglm.bench.asking import Limits, ask_all, batched
from ecglm.bench.data import Data
from ecglm.bench.journal import NAME, Journal
from ecglm.bench.kinds import build_questions
from ecglm.bench.protocol import Item
from ecglm.bench.questions import Questions, Scored, fingerprint_of, prompt_hashes
from ecglm.bench.run_folder import (
    ANSWERS,
    FORMAT,
    RUN,
    SCORES,
    load_questions,
    load_raw,
    locked,
    read_json,
    read_run,
    replace,
    write_json,
    write_keys,
    write_run,
)
from ecglm.bench.scoring import Settings, failures, leakage, score_task
from ecglm.bench.task import LoadedTask, StatementsTask, find_tasks
from ecglm.synth.build.progress import Progress, stepper
from ecglm.synth.errors import ModelError, RunError, TaskError

_LIBRARIES = ("ecglm", "numpy", "polars", "pyarrow", "scikit-learn", "scipy", "wfdb", "xxhash")


@dataclass(frozen=True)
class RunConfig:
    """What to run."""

    model: str
    tasks: tuple[str, ...]
    out: Path
    task_folders: tuple[Path, ...] = ()
    ptbxl: Path | None = None
    ecgqa: Path | None = None
    measurements: Path | None = None
    with_measurements: bool = False
    sampling_hz: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    """Only so many test ECGs (of ECG-QA: questions) of each task; never part of what identifies an answer."""
    ask: str | None = None
    """"statement" or "list", instead of the model's own wish."""
    batch_size: int | None = None
    timeout_s: float = 600.0
    max_failures: int = 0
    trained_on: str | None = None
    """`folds:1-8`, `none`, or a file with one ECG id a line."""
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class RunResult:
    """Where a run is and what came out."""

    out: Path
    scores: dict[str, Any]
    asked: int
    """Questions put to the model this time."""
    reused: int
    """Questions that were answered before."""
    seconds: float
    model_seconds: float


def run(config: RunConfig, progress: Progress | None = None) -> RunResult:
    """Asks a model the questions of the tasks and scores the answers.

    Raises:
        ECGLMError: bad data, a model that fails, a folder that holds something else; every answer is kept.
    """
    tell = progress or (lambda stage, done, of: None)
    started = time.perf_counter()
    loaded = find_tasks(config.tasks, config.task_folders)
    data = Data(config.ptbxl, config.ecgqa, config.measurements, config.sampling_hz, config.with_measurements)
    with locked(config.out):
        asker = open_model(config.model, config.options, log=config.out / "model.log", timeout_s=config.timeout_s)
        with contextlib.closing(asker):
            questions = _build(loaded, data, config, asker)
            asker.prepare(questions)
            about = _about(config, data, questions, asker)
            _check_same_model(config.out, about)
            write_run(config.out, questions, about)
            asked, reused, model_seconds = _ask(config, data, questions, asker, tell)
        scores = _score_folder(config.out, config.settings, tell)
    seconds = time.perf_counter() - started
    about |= {"status": "done", "seconds": round(seconds, 3), "model_seconds": round(model_seconds, 3)}
    write_json(config.out / RUN, about)
    return RunResult(config.out, scores, asked, reused, seconds, model_seconds)


# --- what is asked ----------------------------------------------------------------------------------------------------


def _build(loaded: Sequence[LoadedTask], data: Data, config: RunConfig, asker: Asker) -> list[Questions]:
    ask = config.ask or asker.about.ask
    questions = [build_questions(each, data, ask=ask, limit=config.limit) for each in loaded]
    for each in questions:
        if not each.asked.filter(pl.col("role") == "test").height:
            raise TaskError(f"{each.id}: the data at hand has no question of this task")
    return questions


def _about(config: RunConfig, data: Data, questions: Sequence[Questions], asker: Asker) -> dict[str, Any]:
    about = asker.about
    trained_on = _trained_on(config.trained_on, data) if config.trained_on else about.trained_on
    return {
        "format": FORMAT,
        "status": "asking",
        "model": {
            "spec": config.model,
            "name": about.name,
            "fingerprint": about.fingerprint,
            "options": dict(config.options),
        },
        "ask": config.ask or about.ask,
        "tasks": {
            each.id: {
                "version": each.loaded.task.version,
                "fingerprint": each.loaded.fingerprint,
                "questions": each.asked.filter(pl.col("role") == "test").height,
                "questions_fingerprint": fingerprint_of(each),
                "leakage": _leakage(each, data, trained_on),
            }
            for each in questions
        },
        "limit": config.limit,
        "data": data.fingerprint() | {"ecgqa": _ecgqa_fingerprints(questions)},
        "with_measurements": config.with_measurements,
        "versions": {name: _version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
    }


def _leakage(questions: Questions, data: Data, trained_on: Collection[str] | None) -> dict[str, Any]:
    """For the whole test part, and for the track `clean` where the task has one."""
    told = leakage(questions.asked, data.ecgs, trained_on)
    if "clean" in questions.truth.columns:
        ids = questions.truth.filter("clean")["question_id"].implode()
        told["clean"] = leakage(questions.asked.filter(pl.col("question_id").is_in(ids)), data.ecgs, trained_on)
    return told


def _ecgqa_fingerprints(questions: Sequence[Questions]) -> dict[str, str]:
    return {each.id: each.about["ecgqa"]["fingerprint"] for each in questions if "ecgqa" in each.about}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _trained_on(words: str, data: Data) -> Collection[str]:
    """The ECGs that `--trained-on` names."""
    if words == "none":
        return frozenset()
    if words.startswith("folds:"):
        try:
            first, _, last = words.removeprefix("folds:").partition("-")
            folds = range(int(first), int(last or first) + 1)
        except ValueError:
            raise ModelError(f"--trained-on {words}: expected folds:1-8, none, or a file of ECG ids") from None
        return frozenset(data.ecgs.filter(pl.col("strat_fold").is_in(list(folds)))["ecg_id"].to_list())
    path = Path(words)
    if not path.is_file():
        raise ModelError(f"--trained-on {words}: no such file; give folds:1-8, none, or a file with one ECG id a line")
    ids = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return frozenset(f"{data.source.name}:{ecg_id}" if ":" not in ecg_id else ecg_id for ecg_id in ids)


def _check_same_model(out: Path, about: Mapping[str, Any]) -> None:
    """A folder holds the answers of one model; keys alone would keep them apart, but scores would not say so."""
    if not (out / RUN).is_file():
        return
    before = read_json(out / RUN)
    for name in ("name", "spec", "options", "fingerprint"):
        if before.get("model", {}).get(name) != about["model"][name]:
            raise RunError(
                f"{out}: holds answers of another model: {name} was {before.get('model', {}).get(name)!r}, now"
                f" {about['model'][name]!r}; choose another --out"
            )
    if before.get("ask") != about["ask"]:
        raise RunError(
            f"{out}: its questions were asked by {before.get('ask')}, now by {about['ask']}; choose another --out"
        )


# --- asking -----------------------------------------------------------------------------------------------------------


def _ask(
    config: RunConfig, data: Data, questions: Sequence[Questions], asker: Asker, tell: Progress
) -> tuple[int, int, float]:
    """Test questions first; those of the threshold folds only if a threshold is of use: the answers carry scores."""
    asked = pl.concat([each.asked for each in questions]).unique("question_id", keep="first", maintain_order=True)
    asked = by_ecg(asked)
    keys = _keys(asked, data, asker, config.options)
    write_keys(config.out, keys)
    journal = Journal(config.out / NAME)
    limits = Limits(config.max_failures)
    store = data.signal_store(tell) if asker.about.reads_signals else None
    n_asked = reused = 0
    started = time.perf_counter()
    with contextlib.closing(journal):
        for role in ("test", "threshold"):
            part = asked.filter(pl.col("role") == role)
            if role == "threshold" and not (asker.about.thresholds and _scores_given(journal, keys, questions)):
                continue
            ids = part["question_id"].to_list()
            answered = {question_id for question_id in ids if journal.has(keys[question_id])}
            todo = part.filter(~pl.col("question_id").is_in(list(answered))) if answered else part
            n_asked, reused = n_asked + todo.height, reused + len(answered)
            step = stepper(tell, f"asking ({role} ECGs)", todo.height)
            size = config.batch_size or asker.about.batch_size
            ask_all(asker, batched(_items(todo, data, store), size), keys, journal, limits, step)
    return n_asked, reused, time.perf_counter() - started


def _scores_given(journal: Journal, keys: Mapping[str, str], questions: Sequence[Questions]) -> bool:
    for each in questions:
        if isinstance(each.loaded.task, StatementsTask) and any(
            name.startswith("f1") for name in each.loaded.task.metrics
        ):
            for question_id in each.asked.filter(pl.col("role") == "test")["question_id"].to_list():
                row = journal.rows.get(keys[question_id])
                if row is not None and row[3] is not None:
                    return True
    return False


def by_ecg(asked: pl.DataFrame) -> pl.DataFrame:
    """Questions about one (first) ECG one after another, whichever tasks ask them; else the order stays."""
    first = pl.col("row").min().over(pl.col("ecg_ids").list.first())
    return asked.with_row_index("row").with_columns(first.alias("first")).sort("first", "row").drop("first", "row")


def _keys(asked: pl.DataFrame, data: Data, asker: Asker, options: Mapping[str, str]) -> dict[str, str]:
    """Question → a hash of everything that could change its answer: model, ECG, waveform, wording, options."""
    about = asker.about
    digests = _signal_digests(asked, data) if about.reads_signals else {}
    texts = {e: r.measurements for e, r in data.recordings(asked["ecg_ids"].explode().unique().to_list()).items()}
    told = {ecg_id: f"{digests.get(ecg_id, '')}\x1e{texts[ecg_id] or ''}" for ecg_id in texts}
    # a model that looks at no waveform is one of ours, and its answers follow from the data
    looks_at = str(data.ecgs["sampling_hz"][0]) if about.reads_signals else json.dumps(data.fingerprint())
    model = f"{about.name}\x1e{about.fingerprint}\x1e{sorted(options.items())}\x1e{looks_at}"
    keys = {}
    for question_id, ecg_ids, codes, unit in asked.select("question_id", "ecg_ids", "codes", "unit").iter_rows():
        text = "\x1f".join((model, question_id, *codes, unit or "", *(told[ecg_id] for ecg_id in ecg_ids)))
        keys[question_id] = xxhash.xxh3_128_hexdigest(text.encode())
    return keys


def _signal_digests(asked: pl.DataFrame, data: Data) -> dict[str, str]:
    """Hash of each ECG's header and signal file."""
    digests = {}
    for ecg_id, recording in data.recordings(asked["ecg_ids"].explode().unique().to_list()).items():
        digest = xxhash.xxh3_64()
        for suffix in (".hea", ".dat"):
            with contextlib.suppress(OSError):  # what cannot be read fails when the model reads it, and is named then
                digest.update(recording.path.with_name(recording.path.name + suffix).read_bytes())
        digests[ecg_id] = digest.hexdigest()
    return digests


def _items(asked: pl.DataFrame, data: Data, store: Path | None) -> Iterator[Item]:
    columns = ("question_id", "ecg_ids", "question", "options", "multiple", "codes", "unit")
    for part in asked.select(columns).iter_slices(20_000):
        recordings = data.recordings(part["ecg_ids"].explode().to_list(), store)
        for question_id, ecg_ids, question, options, multiple, codes, unit in part.iter_rows():
            pair = tuple(recordings[ecg_id] for ecg_id in ecg_ids)
            yield Item(question_id, pair, question, tuple(options), multiple, tuple(codes), unit)


# --- scoring ----------------------------------------------------------------------------------------------------------


def score_run(out: Path, settings: Settings | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Scores the answers of a run again, without asking anything; needs no data.

    Raises:
        RunError: the folder is no run, or some questions have not been asked yet.
    """
    read_run(out)
    with locked(out):
        return _score_folder(out, settings or Settings(), progress or (lambda stage, done, of: None))


def scored_tasks(out: Path, settings: Settings) -> dict[str, Scored]:
    """The scores of every task of a run, with what comparisons need; writes nothing."""
    raw = load_raw(out)
    return {each.id: score_task(each, _complete(each, raw, out), settings)[0] for each in load_questions(out)}


def _complete(questions: Questions, raw: pl.DataFrame, out: Path) -> pl.DataFrame:
    test = questions.asked.filter(pl.col("role") == "test")
    missing = test.join(raw, on="question_id", how="anti").height
    if missing:
        raise RunError(
            f"{out}: {missing:,} of {test.height:,} questions of {questions.id} have not been asked; run the same"
            " command again to go on"
        )
    return raw


def _score_folder(out: Path, settings: Settings, tell: Progress) -> dict[str, Any]:
    about, raw, questions = read_run(out), load_raw(out), load_questions(out)
    scores: dict[str, Any] = {"model": about["model"], "limit": about["limit"], "tasks": {}}
    scores |= {"settings": {"n_resamples": settings.n_resamples, "seed": settings.seed, "level": settings.level}}
    tables = []
    for number, each in enumerate(questions):
        tell("scoring", number, len(questions))
        scored, answers = score_task(each, _complete(each, raw, out), settings)
        scores["tasks"][each.id] = (
            {"title": each.loaded.task.title, **about["tasks"][each.id]}
            | scored.content
            | {"failures": failures(answers), "about": each.about}
        )
        tables.append(answers.with_columns(pl.lit(each.id).alias("task")))
    tell("scoring", len(questions), len(questions))
    table = _answers(pl.concat(tables).filter(pl.col("status").is_not_null()))
    replace(out / ANSWERS, lambda path: table.write_parquet(path))
    write_json(out / SCORES, scores)
    return scores


def _answers(table: pl.DataFrame) -> pl.DataFrame:
    """answers.parquet: one row per question that was asked, whichever tasks ask it."""
    tasks = table.group_by("question_id", maintain_order=True).agg(pl.col("task").alias("tasks"))
    table = table.drop("task").unique("question_id", keep="first", maintain_order=True)
    return table.join(tasks, on="question_id", how="left", maintain_order="left").select(
        "question_id",
        "tasks",
        "role",
        pl.col("ecg_ids").list.first().alias("ecg_id"),
        "ecg_ids",
        pl.when(pl.col("codes").list.len() == 1).then(pl.col("codes").list.first()).alias("code"),
        "question",
        "options",
        "multiple",
        "unit",
        prompt_hashes(table).alias("prompt_hash"),
        "status",
        pl.col("text").alias("raw_answer"),
        "n_chars",
        "score",
        "scores",
        "parsed_strict",
        "parsed_lenient",
        "number_strict",
        "number_lenient",
        "parse_reason",
        "latency_s",
        "detail",
    )
