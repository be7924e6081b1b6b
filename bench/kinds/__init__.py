"""The kinds of tasks: each module builds its questions, knows the answers, and scores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ecglm.bench.data import Data
from ecglm.bench.questions import Questions, Scored
from ecglm.bench.task import LoadedTask

if TYPE_CHECKING:
    import polars as pl

    from ecglm.bench.scoring import Settings


def _module(questions_or_task: Questions | LoadedTask) -> Any:
    loaded = questions_or_task.loaded if isinstance(questions_or_task, Questions) else questions_or_task
    return importlib.import_module(f"ecglm.bench.kinds.{loaded.task.kind}")


def build_questions(loaded: LoadedTask, data: Data, *, ask: str = "statement", limit: int | None = None) -> Questions:
    """The questions of a task on the data at hand; `limit` takes only so many ECGs (or questions, of ECG-QA).

    Raises:
        TaskError: the data lacks what the task needs.
        SourceError: the data cannot be read as promised.
    """
    questions: Questions = _module(loaded).build(loaded, data, ask, limit)
    return questions


def answer_key(questions: Questions) -> dict[str, tuple[str, ...]]:
    """Question → the right options; for a number, the number with its unit as a text."""
    key: dict[str, tuple[str, ...]] = _module(questions).answer_key(questions)
    return key


def priors(questions: Questions) -> dict[str, tuple[tuple[str, ...], tuple[float, ...]]]:
    """Question → the answer that was most frequent in training, and how frequent each option was there."""
    found: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = _module(questions).priors(questions)
    return found


def score(questions: Questions, answers: pl.DataFrame, settings: Settings) -> Scored:
    """The scores of read answers (`ecglm.bench.scoring.read_answers`)."""
    scored: Scored = _module(questions).score(questions, answers, settings)
    return scored
