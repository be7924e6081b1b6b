"""Scoring arrays of scores and labels, as the PTB-XL benchmark leaves them: preds.npy, targs.npy, classes.npy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecglm.bench.data import Data
from ecglm.bench.kinds import build_questions
from ecglm.bench.kinds.statements import target_matrix
from ecglm.bench.metrics import PatientBootstrap, best_thresholds, score_multilabel
from ecglm.bench.scoring import Settings
from ecglm.bench.task import LoadedTask, StatementsTask
from ecglm.synth.errors import PredictionError, TaskError

Array = NDArray[Any]
Bools = NDArray[np.bool_]

NO_PATIENTS = "intervals not available: whose records these are is not known; give --ptbxl DIR, or patients.npy"
NO_THRESHOLDS = "F1 not available: thresholds must come from fold 9; add preds_valid.npy and targs_valid.npy"
UNCHECKED = "unchecked: order of classes, records and labels (version of the dataset); --ptbxl DIR makes it checked"
ASSUMED = "classes.npy is missing: columns are taken to be the task's classes in alphabetical order, unchecked"


def score_arrays(folder: Path, loaded: LoadedTask, data: Data, settings: Settings) -> dict[str, Any]:
    """The scores of `preds.npy` (n_records, n_classes) against `targs.npy`, as one flat object for JSON.

    With PTB-XL at hand, targets, order of the classes and order of the records are checked against it, and intervals
    are over its patients. `patients.npy` (n_records,) says whose records they are where it is not.

    Raises:
        PredictionError: files that are missing, are not numbers, do not fit each other, the task or the data.
    """
    task = loaded.task
    if not isinstance(task, StatementsTask):
        raise TaskError(f"{task.id}: arrays can only be scored for tasks of kind statements, this one is {task.kind}")
    preds, targs = _matrix(folder / "preds.npy"), _matrix(folder / "targs.npy")
    if preds.shape != targs.shape:
        raise PredictionError(f"{folder}: preds.npy is {preds.shape}, targs.npy {targs.shape}; they must be alike")
    _check_scores(folder / "preds.npy", preds)
    labels = _labels(folder / "targs.npy", targs)
    names, notes = _classes(folder, preds.shape[1], task, data)
    truth = None if data.ptbxl is None else build_questions(loaded, data, ask="list").truth
    patients, records = _patients(folder, labels, names, task, truth)
    bootstrap = PatientBootstrap(
        np.arange(len(labels)) if patients is None else patients,
        n_resamples=0 if patients is None else settings.n_resamples,
        seed=settings.seed,
    )
    thresholds = _thresholds(folder, names, task, truth)
    scored = score_multilabel(
        labels, classes=names, bootstrap=bootstrap, scores=preds, thresholds=thresholds, level=settings.level
    )
    content = scored.as_dict()
    unavailable = {name: text for name, text in content["unavailable"].items() if name in task.metrics}
    if thresholds is None:
        unavailable = {name: NO_THRESHOLDS if name.startswith("f1") else text for name, text in unavailable.items()}
    metrics = {name: content["metrics"].get(name) for name in task.metrics}
    return {
        "task": task.id,
        **{name: None if value is None else value["value"] for name, value in metrics.items()},
        "intervals": {
            name: [value["low"], value["high"]] for name, value in metrics.items() if value and patients is not None
        },
        "level": settings.level if patients is not None else None,
        "n_records": len(labels),
        "n_patients": None if patients is None else scored.n_patients,
        "n_without_label": scored.n_without_label,
        "records": records,
        "classes": list(names),
        "positives": labels.sum(0).tolist(),
        "undefined_classes": list(scored.undefined_classes),
        "constant": dict(scored.constant),
        "labels": dict(scored.labels),
        "unavailable": unavailable,
        "notes": [*notes, *([UNCHECKED] if truth is None else []), *([NO_PATIENTS] if patients is None else [])],
        "per_class": content["per_class"],
    }


def _load(path: Path) -> Array:
    if not path.is_file():
        raise PredictionError(f"{path}: no such file; --arrays takes a folder with preds.npy and targs.npy")
    try:
        array: Array = np.load(path, allow_pickle=False)
    except ValueError as error:
        if "pickle" in str(error):
            raise PredictionError(
                f"{path}: holds Python objects, which are not read because that can run code; save it again as"
                " np.save(path, np.array(values, dtype=str)), or as numbers"
            ) from error
        raise PredictionError(f"{path}: not a numpy array ({error}); save it with np.save") from error
    except (OSError, EOFError) as error:
        raise PredictionError(f"{path}: cannot be read ({error}); save it again") from error
    if not isinstance(array, np.ndarray):
        raise PredictionError(f"{path}: holds several arrays; save one with np.save")
    return array


def _matrix(path: Path) -> Array:
    array = _load(path)
    if array.ndim != 2 or not array.size or not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_):
        raise PredictionError(f"{path}: {array.dtype} of shape {array.shape}; expected numbers, records by classes")
    return array.astype(np.float64)


def _check_scores(path: Path, scores: Array) -> None:
    for what, bad, remedy in (
        ("NaN or infinite", ~np.isfinite(scores), "every record needs a score for every class"),
        ("outside [0, 1]", (scores < 0) | (scores > 1), "pass logits through a sigmoid"),
    ):
        if bad.any():
            row, column = (int(place) for place in np.argwhere(bad)[0])
            raise PredictionError(
                f"{path}: {int(bad.sum())} of {scores.size} scores are {what}, the first in row {row}, column {column}"
                f" ({scores[row, column]:g}); {remedy}"
            )


def _labels(path: Path, targets: Array) -> Bools:
    odd = ~np.isin(targets, (0, 1))
    if odd.any():
        row, column = (int(place) for place in np.argwhere(odd)[0])
        raise PredictionError(f"{path}: row {row}, column {column} is {targets[row, column]:g}; expected 0 or 1")
    return targets.astype(np.bool_)


def _expected_classes(task: StatementsTask, data: Data) -> list[str] | None:
    """The task's classes in their order, from the data or from the guidelines; None where neither says."""
    if task.classes.codes is not None:
        return sorted(task.classes.codes)
    if data.ptbxl is not None:
        statements = data.source.statements.filter(
            pl.col("kinds").list.set_intersection(list(task.classes.kinds)).list.len() > 0
        )
        column = statements["code" if task.classes.group == "code" else task.classes.group]
        return sorted(column.drop_nulls().unique().to_list())
    if task.classes.group == "code":
        kinds = set(task.classes.kinds)
        return sorted(code for code, each in data.guidelines.by_code.items() if kinds & set(each.kinds))
    return sorted(task.names) if task.classes.group == "superclass" and task.names else None


def _classes(folder: Path, n_classes: int, task: StatementsTask, data: Data) -> tuple[tuple[str, ...], list[str]]:
    """The names of the columns, and what must be said about them."""
    expected = _expected_classes(task, data)
    if expected is not None and len(expected) != n_classes:
        raise PredictionError(
            f"{folder}: preds.npy has {n_classes} columns, {task.id} has {len(expected)} classes; name its own task"
        )
    path = folder / "classes.npy"
    if not path.exists():
        return tuple(expected or (f"column {place}" for place in range(n_classes))), [ASSUMED]
    array = _load(path)
    if array.shape != (n_classes,) or array.dtype.kind not in "US":
        raise PredictionError(
            f"{path}: {array.dtype} of shape {array.shape}; expected {n_classes} names, one per column"
        )
    names = tuple(str(name) for name in array.astype(np.str_))
    if len(set(names)) < len(names):
        raise PredictionError(f"{path}: a class stands twice; name every column once")
    if expected is not None and set(names) != set(expected):
        strange, absent = sorted(set(names) - set(expected)), sorted(set(expected) - set(names))
        raise PredictionError(
            f"{path}: not the classes of {task.id}: unknown {', '.join(strange[:5])}; missing {', '.join(absent[:5])}"
        )
    moved = (
        [] if expected is None or list(names) == expected else ["classes.npy is not in alphabetical order; it is kept"]
    )
    return names, moved


def _patients(
    folder: Path, labels: Bools, names: tuple[str, ...], task: StatementsTask, truth: pl.DataFrame | None
) -> tuple[Array | None, str]:
    """Whose records these are, and which: checked against PTB-XL where it is at hand."""
    if truth is not None:
        ecgs = truth.filter(pl.col("role") == "test")
        rows, records = _held_against(ecgs, folder / "targs.npy", labels, names, task)
        return ecgs["patient_id"].to_numpy()[rows], records
    path = folder / "patients.npy"
    if not path.exists():
        return None, "unknown"
    patients = _load(path)
    if patients.shape != (len(labels),):
        raise PredictionError(f"{path}: shape {patients.shape}; expected one patient for each of {len(labels)} records")
    return patients, "unknown"


def _held_against(
    ecgs: pl.DataFrame, path: Path, labels: Bools, names: tuple[str, ...], task: StatementsTask
) -> tuple[Bools, str]:
    """Which of these ECGs the records are: all, or those with a label of the task; every label must agree."""
    truth = target_matrix(ecgs, list(names), task.label_rules[0])
    labelled: Bools = np.asarray(truth.any(1))
    for records, rows in (("whole", np.ones_like(labelled)), ("labelled", labelled)):
        if rows.sum() == len(labels):
            _check_targets(path, labels, truth[rows], names, records)
            return rows, records
    folds = ", ".join(map(str, ecgs["strat_fold"].unique().sort()))
    raise PredictionError(
        f"{path}: {len(labels)} records; fold {folds} of this PTB-XL has {len(truth)}, {int(labelled.sum())} of them"
        " with a label of the task; predict exactly these, in order of id, on this version of the dataset"
    )


def _check_targets(path: Path, labels: Bools, truth: Bools, names: tuple[str, ...], records: str) -> None:
    wrong = (labels != truth).sum(0)
    if not wrong.any():
        return
    column = int(wrong.argmax())
    like = [names[other] for other in range(len(names)) if (labels[:, column] == truth[:, other]).all()]
    if like:
        raise PredictionError(
            f"{path}: wrong class order: column {column} should be {names[column]}, but it holds {like[0]}; save the"
            " order of the columns as classes.npy"
        )
    raise PredictionError(
        f"{path}: {int((wrong > 0).sum())} of {len(names)} columns differ from PTB-XL's labels ({records} fold, any"
        f" likelihood), most in column {column} ({names[column]}): {int(wrong[column])} records; the records are in"
        " another order, or of another version of the dataset"
    )


def _thresholds(
    folder: Path, names: tuple[str, ...], task: StatementsTask, truth: pl.DataFrame | None
) -> NDArray[np.float64] | None:
    preds, targs = folder / "preds_valid.npy", folder / "targs_valid.npy"
    if not preds.exists() and not targs.exists():
        return None
    scores, targets = _matrix(preds), _matrix(targs)
    if scores.shape != targets.shape or scores.shape[1] != len(names):
        raise PredictionError(
            f"{folder}: preds_valid.npy is {scores.shape}, targs_valid.npy {targets.shape}; expected"
            f" the same shape with {len(names)} columns"
        )
    _check_scores(preds, scores)
    labels = _labels(targs, targets)
    if truth is not None:
        _held_against(truth.filter(pl.col("role") == "threshold"), targs, labels, names, task)
    return best_thresholds(labels, scores)
