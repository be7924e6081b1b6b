"""The folder of a run: what lies in it, read and written so that a kill leaves every file whole.

run.json         what was run: model, tasks, data, versions; status "asking" or "done"
tasks/<task>/    the task's file, its questions and the truth, so that scoring needs no data
keys.parquet     question → the key of its answer in the journal
journal.jsonl    every answer the moment it was given
answers.parquet  one row per question, with the answer as read
scores.json      the scores
model.log        what the model printed
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ecglm.bench.journal import NAME, answer_table, read_journal
from ecglm.bench.questions import Questions
from ecglm.synth.errors import RunError

FORMAT = 1
RUN, SCORES, ANSWERS, KEYS, TASKS = "run.json", "scores.json", "answers.parquet", "keys.parquet", "tasks"


def load_questions(out: Path) -> list[Questions]:
    """The tasks of a run, in the order they were named.

    Raises:
        RunError: the folder is no run, or is damaged.
    """
    about = read_run(out)
    return [Questions.load(out / TASKS / task) for task in about["tasks"]]


def read_run(out: Path) -> dict[str, Any]:
    """The run.json of a run.

    Raises:
        RunError: the folder is no run, or of a newer version.
    """
    if not (out / RUN).is_file():
        raise RunError(f"{out}: no run is here (no {RUN}); make one with `bench run --out {out}`")
    about = read_json(out / RUN)
    if about.get("format") != FORMAT:
        raise RunError(
            f"{out / RUN}: format {about.get('format')}, this version reads {FORMAT}; run again with this one"
        )
    return about


def load_raw(out: Path) -> pl.DataFrame:
    """The raw answers of a run, from its journal.

    Raises:
        RunError: the keys or the journal are missing or damaged.
    """
    try:
        table = pl.read_parquet(out / KEYS)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{out / KEYS}: cannot be read ({error}); run the same command again") from error
    return answer_table(read_journal(out / NAME), dict(table.select("question_id", "key").iter_rows()))


def write_run(out: Path, questions: Sequence[Questions], about: Mapping[str, Any]) -> None:
    """Questions, truth and run.json of what is asked now; what was scored before is gone, the journal stays."""
    for each in questions:
        each.save(out / TASKS / each.id)
    for folder in (out / TASKS).iterdir():
        if folder.name not in about["tasks"]:
            shutil.rmtree(folder)
    for name in (SCORES, ANSWERS):
        (out / name).unlink(missing_ok=True)
    write_json(out / RUN, about)


def write_keys(out: Path, keys: Mapping[str, str]) -> None:
    """Question → key in the journal."""
    table = pl.DataFrame({"question_id": list(keys), "key": list(keys.values())})
    replace(out / KEYS, lambda path: table.write_parquet(path))


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Makes the folder and keeps other processes out of it.

    Raises:
        RunError: it is a file, holds something else, cannot be written, or another process writes there.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; choose another --out")
    if (
        out.is_dir()
        and any(path.name not in (".lock", "model.log") for path in out.iterdir())
        and not (out / RUN).exists()
    ):
        raise RunError(f"{out}: holds files that are no run; choose an empty or new folder for --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{out}: another process is writing here; wait for it or choose another --out") from error
        try:
            yield
        finally:
            if not (out / RUN).exists():
                _leave_nothing(out)


def _leave_nothing(out: Path) -> None:
    """Removes a folder in which no run came to be; what a model printed is kept."""
    log = out / "model.log"
    if log.exists() and not log.stat().st_size:
        log.unlink()
    if not log.exists():
        (out / ".lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            out.rmdir()


def read_json(path: Path) -> dict[str, Any]:
    """One of the run's JSON files.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); run again into another folder") from error
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A JSON file, whole or not at all."""
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    replace(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """A file appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    partial.replace(path)
