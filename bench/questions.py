"""The questions of a task, as tables: what is asked, and the truth that answers are scored against."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from ecglm.bench.task import LoadedTask, parse_task
from ecglm.synth.errors import RunError

ASKED: dict[str, Any] = {
    "question_id": pl.String,
    "role": pl.String,  # "test", or "threshold": asked only to choose thresholds
    "ecg_ids": pl.List(pl.String),
    "codes": pl.List(pl.String),
    "question": pl.String,
    "options": pl.List(pl.String),
    "multiple": pl.Boolean,
    "unit": pl.String,
}
_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Questions:
    """All questions of one task on the data at hand."""

    loaded: LoadedTask
    ask: str
    """How statements are asked: "statement" or "list"."""
    asked: pl.DataFrame
    """One row per question, schema ASKED."""
    truth: pl.DataFrame
    """What the answers are scored against; its columns are those of the task's kind."""
    about: dict[str, Any]
    """What the tables do not say: classes in their order, counts, exclusions, what is missing."""
    prior_source: Callable[[], dict[str, Any]] = dict
    known_ecgs: frozenset[str] = frozenset()
    """Every ECG of the source, asked about or not; not kept with a run."""

    @cached_property
    def priors(self) -> dict[str, Any]:
        """What the training part says beforehand, for the built-in `majority`; not kept with a run."""
        return self.prior_source()

    @property
    def id(self) -> str:
        """The task's id."""
        return self.loaded.task.id

    def save(self, folder: Path) -> None:
        """Writes everything that scoring needs, so that a run can be scored without the data."""
        folder.mkdir(parents=True, exist_ok=True)
        self.asked.write_parquet(folder / "questions.parquet")
        self.truth.write_parquet(folder / "truth.parquet")
        (folder / "task.yaml").write_text(self.loaded.text, encoding="utf-8")
        about = {"ask": self.ask, "where": self.loaded.where, "about": self.about}
        (folder / "about.json").write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Questions:
        """What `save` wrote.

        Raises:
            RunError: a file is missing or damaged.
        """
        try:
            told = json.loads((folder / "about.json").read_text(encoding="utf-8"))
            loaded = parse_task((folder / "task.yaml").read_text(encoding="utf-8"), told["where"])
            asked, truth = pl.read_parquet(folder / "questions.parquet"), pl.read_parquet(folder / "truth.parquet")
            return cls(loaded, told["ask"], asked, truth, told["about"])
        except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
            raise RunError(f"{folder}: cannot be read ({error}); run the task again into a new folder") from error


@dataclass(frozen=True)
class Scored:
    """The scores of one task of one run."""

    content: dict[str, Any]
    """For JSON: `headline`, and what the kind of task has to say."""
    value: float | None
    """The headline."""
    resamples: NDArray[np.float64]
    """The headline in every bootstrap resample, `(n_resamples,)`."""
    right: pl.DataFrame
    """Columns key and right: every single decision, for paired tests."""


def question_ids(
    ecg_ids: Sequence[str], questions: Sequence[str], options: Sequence[str], multiple: Sequence[bool]
) -> list[str]:
    """Stable ids: hashes of what is asked about which ECGs; lists are given joined to one text."""
    digest = xxhash.xxh3_128_hexdigest
    return [
        digest(f"{ecgs}\x1e{question}\x1e{choices}\x1e{many:d}".encode())
        for ecgs, question, choices, many in zip(ecg_ids, questions, options, multiple, strict=True)
    ]


def with_ids(table: pl.DataFrame) -> pl.DataFrame:
    """Adds `question_id` and gives the columns of ASKED their order and types."""
    ids = question_ids(
        table["ecg_ids"].list.join(_SEPARATOR).to_list(),
        table["question"].to_list(),
        table["options"].list.join(_SEPARATOR).to_list(),
        table["multiple"].to_list(),
    )
    table = table.with_columns(pl.Series("question_id", ids, dtype=pl.String))
    return table.select(pl.col(name).cast(dtype) for name, dtype in ASKED.items())


def prompt_hashes(asked: pl.DataFrame) -> pl.Series:
    """Hash of the question, its options and whether several may hold, per row."""
    keys = asked.select(
        pl.concat_str(
            [pl.col("question"), pl.col("options").list.join(_SEPARATOR), pl.col("multiple").cast(pl.String)],
            separator="\x1e",
        )
    ).to_series()
    unique = keys.unique().to_list()
    hashes = [xxhash.xxh3_64_hexdigest(key.encode()) for key in unique]
    return keys.replace_strict(unique, hashes, return_dtype=pl.String) if unique else pl.Series([], dtype=pl.String)


def fingerprint_of(questions: Questions) -> str:
    """Hash of what is decided about which test ECGs, and of the truth: runs with the same one can be compared.

    Of statements that is every (ECG, class), however they were asked; else the questions.
    """
    truth = questions.truth
    if "role" in truth.columns:
        truth = truth.filter(pl.col("role") == "test")
    rows = sorted(map(repr, truth.select(sorted(truth.columns)).iter_rows()))
    rows += [row["class"] for row in questions.about.get("classes", ())]
    digest = xxhash.xxh3_128()
    for each in rows:
        digest.update(f"{each}\x1e".encode())
    return digest.hexdigest()
