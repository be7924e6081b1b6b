"""Measurements to be read: a number with a unit, right if it is within the tolerance of the measured value."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecglm.bench.data import Data
from ecglm.bench.metrics import PatientBootstrap, score_answers
from ecglm.bench.questions import Questions, Scored, with_ids
from ecglm.bench.scoring import Settings, nan_resamples
from ecglm.bench.task import LoadedTask, NumbersTask
from ecglm.synth.errors import TaskError
from ecglm.synth.measure.dictionary import measurements


def _task(loaded: LoadedTask) -> NumbersTask:
    assert isinstance(loaded.task, NumbersTask)  # noqa: S101 - chosen by its kind
    return loaded.task


# --- questions --------------------------------------------------------------------------------------------------------


def build(loaded: LoadedTask, data: Data, ask: str, limit: int | None) -> Questions:
    """One question per (test ECG, reading) whose value is known. `ask` makes no difference."""
    task = _task(loaded)
    if data.with_measurements:
        raise TaskError(f"{task.id}: asks for measurements, so they cannot be given with the question; run it apart")
    provider = next((name for name in task.providers if name in data.measured), None)
    if provider is None:
        have = ", ".join(data.measured) or "none"
        raise TaskError(
            f"{task.id} needs measurements of {' or '.join(task.providers)} (found: {have}); give a table with"
            " --measurements FILE, such as a corpus's measurements.parquet"
        )
    table = data.measured[provider]
    readings = [reading for reading in task.readings if reading.name in table.columns]
    ecgs = data.ecgs.join(table, on="ecg_id", how="inner", maintain_order="left")
    test = ecgs.filter(pl.col("strat_fold").is_in(task.test_folds))
    if limit is not None:
        test = test.head(limit)
    if not readings or test.is_empty():
        what = "column" if not readings else f"ECG of test fold {', '.join(map(str, task.test_folds))}"
        raise TaskError(f"{task.id}: the measurements of {provider} have no {what} of this task")
    parts = [_asked(test, reading.name, task, place) for place, reading in enumerate(readings)]
    rows = (
        pl.concat(parts).filter(pl.col("value").is_not_null()).sort("row", "reading_place").drop("reading_place", "row")
    )
    asked = with_ids(rows)
    known = {reading.name: int(rows.filter(pl.col("reading") == reading.name).height) for reading in readings}
    return Questions(
        loaded=loaded,
        ask="statement",
        asked=asked,
        truth=rows.with_columns(asked["question_id"]).select(
            "question_id", "patient_id", "reading", "value", "tolerance", "unit"
        ),
        about={
            "source": {"name": data.source.name, "version": data.source.attribution["version"]},
            "provider": provider,
            "n_ecgs": {"test": test.height},
            "n_patients": test["patient_id"].n_unique(),
            "readings": known,
            "without_value": {name: test.height - count for name, count in known.items()},
            "not_in_table": [reading.name for reading in task.readings if reading not in readings],
        },
        prior_source=lambda: _priors(ecgs, task, provider),
        known_ecgs=frozenset(data.ecgs["ecg_id"].to_list()),
    )


def _asked(test: pl.DataFrame, name: str, task: NumbersTask, place: int) -> pl.DataFrame:
    measurement = measurements()[name]
    reading = next(each for each in task.readings if each.name == name)
    unit = {"/min": "beats per minute", "°": "degrees", "ms": "milliseconds", "mV": "millivolts"}.get(
        measurement.unit, measurement.unit
    )
    value = pl.col(name).cast(pl.Float64)
    return test.select(
        pl.int_range(pl.len()).alias("row"),
        pl.lit(place).alias("reading_place"),
        pl.lit("test").alias("role"),
        pl.concat_list("ecg_id").alias("ecg_ids"),
        pl.lit([], pl.List(pl.String)).alias("codes"),
        pl.lit(task.question.format(words=measurement.words, unit=unit)).alias("question"),
        pl.lit([], pl.List(pl.String)).alias("options"),
        pl.lit(False).alias("multiple"),
        pl.lit(measurement.unit).alias("unit"),
        "patient_id",
        pl.lit(name).alias("reading"),
        pl.when(value.is_finite()).then(value).alias("value"),
        pl.max_horizontal(pl.lit(reading.absolute), value.abs() * reading.relative).alias("tolerance"),
    )


# --- the built-in models ----------------------------------------------------------------------------------------------


def _text(value: float, unit: str) -> str:
    return f"{value:.10g} {unit}".strip()


def answer_key(questions: Questions) -> dict[str, tuple[str, ...]]:
    """The measured values with their units."""
    columns = questions.truth.select("question_id", "value", "unit").iter_rows()
    return {question_id: (_text(value, unit),) for question_id, value, unit in columns}


def _priors(ecgs: pl.DataFrame, task: NumbersTask, provider: str) -> dict[str, Any]:
    train = ecgs.filter(pl.col("strat_fold").is_between(1, 8) & ~pl.col("strat_fold").is_in(task.test_folds))
    names = [reading.name for reading in task.readings if reading.name in train.columns]
    return {
        "from": f"{provider} measurements of {train.height} ECGs of folds 1-8",
        "median": {name: train[name].cast(pl.Float64).median() for name in names},
        "ecg_ids": train["ecg_id"].to_list(),
    }


def priors(questions: Questions) -> dict[str, tuple[tuple[str, ...], tuple[float, ...]]]:
    """The median of the training ECGs; 0 where none has the measurement."""
    median = questions.priors["median"]
    columns = questions.truth.select("question_id", "reading", "unit").iter_rows()
    return {question_id: ((_text(median.get(reading) or 0.0, unit),), ()) for question_id, reading, unit in columns}


# --- scores -----------------------------------------------------------------------------------------------------------


def score(questions: Questions, answers: pl.DataFrame, settings: Settings) -> Scored:
    """Shares within tolerance, and errors of the answers that could be read, overall and by reading."""
    task = _task(questions.loaded)
    table = questions.truth.join(answers.drop("unit"), on="question_id", how="left", maintain_order="left")
    truth = table["value"].to_numpy()
    off = {reading: _off(table, truth, f"number_{reading}") for reading in ("strict", "lenient")}
    tolerance = table["tolerance"].to_numpy() + 1e-9  # a value at the limit is within, whatever its last binary digit
    right = {reading: np.isfinite(error) & (error <= tolerance) for reading, error in off.items()}
    bootstrap = PatientBootstrap(table["patient_id"].to_numpy(), n_resamples=settings.n_resamples, seed=settings.seed)
    rates = score_answers(
        right["strict"],
        right["lenient"],
        unparsed_strict=~np.isfinite(off["strict"]),
        unparsed_lenient=~np.isfinite(off["lenient"]),
        bootstrap=bootstrap,
        groups={"reading": table["reading"].to_list()},
        level=settings.level,
    )
    mean = rates.means["reading"].strict
    about = {"metric": task.headline, "over": f"unweighted mean of {len(rates.by['reading'])} readings"}
    return Scored(
        content={
            "kind": "numbers",
            "headline": about | mean.as_dict(),
            "unparsed": {reading: float((~np.isfinite(error)).mean()) for reading, error in off.items()},
            "failed": int((table["status"] != "answered").fill_null(True).sum()),
            "within_tolerance": rates.as_dict(),
            "errors": _errors(table, off["lenient"]),
            "tolerances": {each.name: {"absolute": each.absolute, "relative": each.relative} for each in task.readings},
        },
        value=mean.value,
        resamples=rates.resamples.get("strict_mean_over_reading", nan_resamples(settings)),
        right=pl.DataFrame({"key": table["question_id"], "right": right["strict"]}),
    )


def _off(table: pl.DataFrame, truth: NDArray[np.float64], column: str) -> NDArray[np.float64]:
    """Distance from the true value, NaN where unparsed; angles the short way round."""
    answered = table[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
    difference = np.abs(answered - truth)
    angle = (table["unit"] == "°").to_numpy()
    around = difference % 360.0
    return np.where(angle, np.minimum(around, 360.0 - around), difference)


def _errors(table: pl.DataFrame, off: NDArray[np.float64]) -> dict[str, Any]:
    """Median and mean absolute error by reading, of the answers read leniently: how many there are stands beside."""
    found = {}
    for (name, unit), rows in table.with_row_index("row").group_by("reading", "unit", maintain_order=True):
        known = off[rows["row"].to_numpy()]
        known = known[np.isfinite(known)]
        found[str(name)] = {
            "unit": unit,
            "n_read": len(known),
            "n_questions": rows.height,
            "median_absolute_error": float(np.median(known)) if len(known) else None,
            "mean_absolute_error": float(known.mean()) if len(known) else None,
        }
    return found
