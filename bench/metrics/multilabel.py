"""Scores of one model on a multi-label task: each metric with its interval, and a table with a row per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ecglm.bench.metrics.bootstrap import LEVEL, Estimate, PatientBootstrap, estimate
from ecglm.bench.metrics.calibration import (
    bin_columns,
    brier_by_class,
    calibration_error_by_class,
    error_of_bins,
)
from ecglm.bench.metrics.decisions import AVERAGES, bootstrap_f1, constant_f1, counts, f1_scores
from ecglm.bench.metrics.fmax import fmax
from ecglm.bench.metrics.inputs import (
    Bools,
    Floats,
    MetricError,
    class_names,
    label_matrix,
    score_matrix,
)
from ecglm.bench.metrics.ranking import auc_by_class, average_precision_by_class, bootstrap_auc

TEXT_ONLY = "AUC not available: the answers are text or yes/no without a continuous score"
NO_THRESHOLDS = "F1 not available: there are neither yes/no answers nor thresholds from validation records"
NOT_PROBABILITIES = "not available: the scores are not probabilities (values outside [0, 1])"
FMAX_LABEL = "test-set maximum"


@dataclass(frozen=True)
class ClassScores:
    """One row of the per-class table; None where a value is undefined or unavailable."""

    name: str
    n_positive: int
    prevalence: float
    auc: Estimate
    average_precision: float | None
    f1: Estimate
    constant_f1: float | None
    threshold: float | None
    sensitivity: float | None
    specificity: float | None
    brier: float | None
    ece: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self)) | {"auc": self.auc.as_dict(), "f1": self.f1.as_dict()}


@dataclass(frozen=True)
class MultilabelScores:
    """What a model reached.

    `metrics` has only what could be computed: `macro_auc`, `macro_average_precision`, `f1_macro`, `f1_micro`,
    `f1_weighted`, `f1_samples`, `fmax`, `brier`, `ece`. `unavailable` says why another one is not there, `constant`
    what the best constant predictor reaches for each F1, `labels` what must be written beside a metric.
    `resamples` holds the bootstrap values that comparisons need, `(n_resamples,)` each.
    """

    classes: tuple[str, ...]
    n_records: int
    n_patients: int
    n_without_label: int
    unparsed_rate: float
    metrics: Mapping[str, Estimate]
    constant: Mapping[str, float | None]
    labels: Mapping[str, str]
    unavailable: Mapping[str, str]
    undefined_classes: tuple[str, ...]
    fmax_threshold: float | None
    per_class: tuple[ClassScores, ...]
    resamples: Mapping[str, Floats]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything but the resamples."""
        content = {name: value for name, value in vars(self).items() if name != "resamples"}
        return content | {
            "metrics": {name: value.as_dict() for name, value in self.metrics.items()},
            "per_class": [row.as_dict() for row in self.per_class],
        }


def score_multilabel(
    targets: ArrayLike,
    *,
    classes: Sequence[str],
    bootstrap: PatientBootstrap,
    scores: ArrayLike | None = None,
    thresholds: ArrayLike | None = None,
    decisions: ArrayLike | None = None,
    unparsed: ArrayLike | None = None,
    level: float = LEVEL,
    workers: int | None = None,
) -> MultilabelScores:
    """Scores of one model; every array is `(n_records, n_classes)`, thresholds `(n_classes,)`.

    Args:
        targets: labels, 0 and 1 or booleans.
        classes: names of the columns.
        bootstrap: the patients of the records and how to resample them.
        scores: continuous scores, for AUC and Fmax; with `thresholds` also for F1. Calibration needs them in [0, 1].
        thresholds: per class, from validation records (`best_thresholds`); a score at or above it means yes.
        decisions: yes or no where the model decides itself; used instead of scores and thresholds.
        unparsed: where an answer could not be read. It counts as the wrong one, whichever that is, for F1; for AUC the
            score given for it counts, so a caller who has no score there leaves `scores` out.

    Raises:
        MetricError: shapes that do not fit, values that are not labels or scores, nothing to score.
    """
    truth = label_matrix(targets, "targets")
    names = class_names(classes, truth.shape[1])
    if len(bootstrap.index) != len(truth):
        raise MetricError(f"found {len(bootstrap.index)} patients for {len(truth)} records; give one per record")
    if bootstrap.partner_index is not None:
        raise MetricError("records of two patients cannot be scored by class; leave the partners out")
    if scores is None and decisions is None:
        raise MetricError("nothing to score: give scores, decisions, or both")
    continuous = None if scores is None else score_matrix(scores, truth.shape, "scores")
    limits = None if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    if limits is not None and (limits.shape != (len(names),) or np.isnan(limits).any()):
        raise MetricError(f"thresholds: found {limits!r}; expected one number for each of {len(names)} classes")
    unread = np.zeros_like(truth) if unparsed is None else label_matrix(unparsed, "unparsed")
    if unread.shape != truth.shape:
        raise MetricError(f"unparsed: found shape {unread.shape}, expected {truth.shape} like the labels")
    decided = _decisions(truth, continuous, limits, decisions)
    if decided is not None:
        decided = np.where(unread, ~truth, decided)

    part = _Parts(truth, bootstrap, level)
    if continuous is None:
        part.unavailable |= dict.fromkeys(("macro_auc", "macro_average_precision", "fmax"), TEXT_ONLY)
    else:
        part.rank(continuous, workers)
    if decided is None:
        part.unavailable |= {f"f1_{average}": NO_THRESHOLDS for average in AVERAGES}
    else:
        part.decide(decided)
    probabilities = continuous is not None and continuous.min() >= 0 and continuous.max() <= 1
    if probabilities and continuous is not None:
        part.calibrate(continuous)
    else:
        why = TEXT_ONLY.replace("AUC", "calibration") if continuous is None else f"calibration {NOT_PROBABILITIES}"
        part.unavailable |= dict.fromkeys(("brier", "ece"), why)
    return MultilabelScores(
        classes=names,
        n_records=len(truth),
        n_patients=len(np.unique(bootstrap.index)),
        n_without_label=int((~truth.any(1)).sum()),
        unparsed_rate=float(unread.mean()),
        metrics=part.metrics,
        constant={f"f1_{average}": _known(value) for average, value in constant_f1(truth).items()},
        labels={"fmax": FMAX_LABEL} if "fmax" in part.metrics else {},
        unavailable=part.unavailable,
        undefined_classes=tuple(
            name for name, column in zip(names, truth.T, strict=True) if column.all() or not column.any()
        ),
        fmax_threshold=part.fmax_threshold,
        per_class=part.table(names, decided, None if decisions is not None else limits),
        resamples=part.resamples,
    )


def _decisions(
    truth: Bools, scores: Floats | None, thresholds: Floats | None, decisions: ArrayLike | None
) -> Bools | None:
    if decisions is not None:
        decided = label_matrix(decisions, "decisions")
        if decided.shape != truth.shape:
            raise MetricError(f"decisions: found shape {decided.shape}, expected {truth.shape} like the labels")
        return decided
    return None if scores is None or thresholds is None else scores >= thresholds


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


class _Parts:
    """Gathers metrics, resamples and columns of the per-class table."""

    def __init__(self, truth: Bools, bootstrap: PatientBootstrap, level: float) -> None:
        self.truth, self.bootstrap, self.level = truth, bootstrap, level
        self.metrics: dict[str, Estimate] = {}
        self.resamples: dict[str, Floats] = {}
        self.unavailable: dict[str, str] = {}
        self.fmax_threshold: float | None = None
        unknown = np.full(truth.shape[1], np.nan)
        undrawn = np.full((bootstrap.n_resamples, truth.shape[1]), np.nan)
        self.auc, self.precision, self.brier, self.ece, self.f1 = (unknown.copy() for _ in range(5))
        self.auc_drawn, self.f1_drawn = undrawn, undrawn

    def add(self, name: str, value: float, resamples: Floats) -> None:
        if not np.isfinite(value):
            self.unavailable[name] = f"{name} not available: no class of these records defines it"
            return
        self.metrics[name] = estimate(value, resamples, self.level)
        if len(resamples):
            self.resamples[name] = resamples

    def rank(self, scores: Floats, workers: int | None) -> None:
        self.auc, self.precision = auc_by_class(self.truth, scores), average_precision_by_class(self.truth, scores)
        self.auc_drawn = bootstrap_auc(self.truth, scores, self.bootstrap, workers=workers)
        self.add("macro_auc", _mean(self.auc), _mean_of_rows(self.auc_drawn))
        self.add("macro_average_precision", _mean(self.precision), np.empty(0))
        best = fmax(self.truth, scores, self.bootstrap)
        self.add("fmax", best.value, best.resamples)
        self.fmax_threshold = best.threshold

    def decide(self, decided: Bools) -> None:
        drawn, self.f1_drawn = bootstrap_f1(self.truth, decided, self.bootstrap)
        self.f1 = counts(self.truth, decided).f1_by_class
        for average, value in f1_scores(self.truth, decided).items():
            self.add(f"f1_{average}", value, drawn[average])

    def calibrate(self, scores: Floats) -> None:
        self.brier, self.ece = brier_by_class(self.truth, scores), calibration_error_by_class(self.truth, scores)
        squares = ((scores - self.truth) ** 2).mean(1)
        bins = bin_columns(self.truth, scores)
        sums = self.bootstrap.sums(np.concatenate([bins, squares[:, None], np.ones((len(bins), 1))], axis=1))
        self.add("brier", float(squares.mean()), sums[:, -2] / sums[:, -1])
        self.add("ece", float(error_of_bins(bins.sum(0))), error_of_bins(sums[:, :-2]))

    def table(self, names: Sequence[str], decided: Bools | None, limits: Floats | None) -> tuple[ClassScores, ...]:
        rows = []
        positive = self.truth.sum(0)
        for place, name in enumerate(names):
            truth = self.truth[:, place]
            yes = None if decided is None else decided[:, place]
            n_positive = int(positive[place])
            rows.append(
                ClassScores(
                    name=name,
                    n_positive=n_positive,
                    prevalence=n_positive / len(truth),
                    auc=estimate(self.auc[place], self.auc_drawn[:, place], self.level),
                    average_precision=_known(self.precision[place]),
                    f1=estimate(self.f1[place], self.f1_drawn[:, place], self.level),
                    constant_f1=2 * n_positive / (n_positive + len(truth)) if n_positive else None,
                    threshold=None if limits is None else _known(limits[place]),
                    sensitivity=None if yes is None or not n_positive else float(yes[truth].mean()),
                    specificity=None if yes is None or n_positive == len(truth) else float((~yes[~truth]).mean()),
                    brier=_known(self.brier[place]),
                    ece=_known(self.ece[place]),
                )
            )
        return tuple(rows)


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


def _mean_of_rows(values: Floats) -> Floats:
    """Mean of the defined values of each row; NaN where none is."""
    known = np.isfinite(values)
    number = known.sum(1)
    means: Floats = np.divide(
        np.where(known, values, 0).sum(1), number, out=np.full(len(values), np.nan), where=number > 0
    )
    return means
