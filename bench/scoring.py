"""From raw answers to scores: reading texts, yes-scores, and the scores of every task of a run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecglm.bench.metrics import LEVEL, N_RESAMPLES
from ecglm.bench.questions import Questions, Scored

ANSWERS: dict[str, Any] = {
    "question_id": pl.String,
    "status": pl.String,  # answered | error | timeout
    "text": pl.String,
    "n_chars": pl.Int64,  # of the text before it was cut
    "scores": pl.List(pl.Float64),
    "latency_s": pl.Float64,
    "detail": pl.String,  # what went wrong
}
"""Raw answers as the journal keeps them."""

NONE = "none"
"""The strict answer to a question with several right options, of which none may hold; the question says so."""

_UNITS = {"/min": "bpm", "°": "°", "ms": "ms", "mV": "mV", "s": "s"}
"""Unit of a measurement → what `parse_number` calls it."""


@dataclass(frozen=True)
class Settings:
    """How scores get their uncertainty."""

    n_resamples: int = N_RESAMPLES
    seed: int = 0
    level: float = LEVEL
    min_positives: int | None = None
    """Instead of the task's own."""
    option_threshold: float = 0.5
    """Above it an option of ECG-QA counts as chosen, in the scoring `candidates`."""
    option_threshold_from: str = "the usual one"
    """Where that threshold comes from; never the questions that are scored."""
    track: str = "official"
    """The track of ECG-QA that the headline is of."""
    scoring: str | None = None
    """The scoring of ECG-QA that the headline is by; None: text where there is one, else candidates."""


def read_answers(asked: pl.DataFrame, raw: pl.DataFrame) -> pl.DataFrame:
    """The questions, in their order, with their answers read: what the text means, and the score of yes.

    Adds `parsed_strict` and `parsed_lenient` (null: unparsed), `parse_reason`, `number_strict`, `number_lenient` and
    `score`. Questions without an answer have a null status.
    """
    table = asked.join(raw.unique("question_id", keep="last"), on="question_id", how="left", maintain_order="left")
    table = table.join(_parsed(table), on=("text", "options", "multiple", "unit"), how="left", nulls_equal=True)
    yes, total = pl.col("scores").list.get(0, null_on_oob=True), pl.col("scores").list.sum()
    two = (pl.col("options").list.len() == 2) & (pl.col("options").list.first() == "yes")
    no_text = pl.when(pl.col("status") == "answered").then(pl.lit("no_text")).otherwise(pl.lit("no_answer"))
    return table.with_columns(
        pl.when(two & (total > 0)).then(yes / total).alias("score"),
        pl.coalesce("parse_reason", no_text).alias("parse_reason"),
    )


def _parsed(table: pl.DataFrame) -> pl.DataFrame:
    """Each distinct answer to each distinct set of options, read once."""
    from ecglm.bench.parsing import parse_answer, parse_number

    keys = table.filter(pl.col("text").is_not_null()).select("text", "options", "multiple", "unit").unique()
    rows: list[dict[str, Any]] = []
    for text, options, multiple, unit in keys.iter_rows():
        if options:
            found = parse_answer(text, tuple(options), multiple=multiple)
            strict = () if found.lenient == () and text.strip(" .\n").casefold() == NONE else found.strict
            rows.append({"strict": strict, "lenient": found.lenient, "reason": found.reason})
        else:
            number = parse_number(text, _UNITS.get(unit, unit))
            rows.append({"number": number.strict, "number_lenient": number.lenient, "reason": number.reason})
    return keys.with_columns(
        pl.Series("parsed_strict", [_listed(row.get("strict")) for row in rows], dtype=pl.List(pl.String)),
        pl.Series("parsed_lenient", [_listed(row.get("lenient")) for row in rows], dtype=pl.List(pl.String)),
        pl.Series("parse_reason", [row["reason"] for row in rows], dtype=pl.String),
        pl.Series("number_strict", [row.get("number") for row in rows], dtype=pl.Float64),
        pl.Series("number_lenient", [row.get("number_lenient") for row in rows], dtype=pl.Float64),
    )


def _listed(options: tuple[str, ...] | None) -> list[str] | None:
    return None if options is None else list(options)


def failures(answers: pl.DataFrame) -> dict[str, int]:
    """How many of the questions have no answer, by what happened, and how many answers were cut."""
    from ecglm.bench.protocol import MAX_ANSWER_CHARS

    statuses = answers["status"].value_counts().iter_rows()
    told = {str(status): int(count) for status, count in statuses if status not in ("answered", None)}
    cut = int((answers["n_chars"] > MAX_ANSWER_CHARS).sum())
    return told | ({"answers_cut": cut} if cut else {})


def leakage(asked: pl.DataFrame, ecgs: pl.DataFrame, trained_on: Collection[str] | None) -> dict[str, Any]:
    """How much of the test part the model was trained on: shares of ECGs and of patients, or "unknown".

    `ecgs` has ecg_id and patient_id of the whole source: a patient is known from training by any of their ECGs.
    """
    ids = asked.filter(pl.col("role") == "test")["ecg_ids"].explode().unique()
    of_test = ecgs.filter(pl.col("ecg_id").is_in(ids.implode()))
    patients = of_test["patient_id"].unique()
    told: dict[str, Any] = {"test_ecgs": of_test.height, "test_patients": len(patients)}
    if trained_on is None:
        return told | {"trained_on_ecgs": "unknown", "trained_on_patients": "unknown"}
    seen = pl.Series(sorted(trained_on), dtype=pl.String)
    seen_patients = ecgs.filter(pl.col("ecg_id").is_in(seen.implode()))["patient_id"].unique()
    return told | {
        "trained_on_ecgs": int(of_test["ecg_id"].is_in(seen.implode()).sum()) / max(of_test.height, 1),
        "trained_on_patients": int(patients.is_in(seen_patients.implode()).sum()) / max(len(patients), 1),
        "declared_ecgs": len(seen),
        "declared_but_unknown": int((~seen.is_in(ecgs["ecg_id"].implode())).sum()),
    }


def score_task(questions: Questions, raw: pl.DataFrame, settings: Settings) -> tuple[Scored, pl.DataFrame]:
    """The scores of a task, and its questions with their answers as read."""
    from ecglm.bench.kinds import score

    answers = read_answers(questions.asked, raw)
    return score(questions, answers, settings), answers


def nan_resamples(settings: Settings) -> NDArray[np.float64]:
    """Resamples of something that is undefined."""
    return np.full(settings.n_resamples, np.nan)
