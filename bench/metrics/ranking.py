"""Area under the ROC curve and average precision, per class, with resamples in one pass over the sorted scores.

The area is the probability that a positive record scores above a negative one, ties counting half (Hanley and McNeil
1982, doi:10.1148/radiology.143.1.7063747). With weights both records count as often as they were drawn.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecglm.bench.metrics.bootstrap import PatientBootstrap
from ecglm.bench.metrics.inputs import Bools, Floats, Whole

_BLOCK_BYTES = 32 * 2**20
_EXACT_IN_SINGLE = 2**22
"""Up to so many records, sums of draws are whole numbers that single precision holds exactly."""


def auc_by_class(targets: Bools, scores: Floats, weights: Floats | None = None) -> Floats:
    """ROC AUC of every class by scikit-learn, `(n_records, n_classes)` → `(n_classes,)`.

    NaN where a class lacks positives or negatives. `weights` are per record, `(n_records,)`.
    """
    from sklearn.metrics import roc_auc_score

    areas = np.full(targets.shape[1], np.nan)
    for column in range(targets.shape[1]):
        kept = slice(None) if weights is None else weights > 0
        labels = targets[kept, column]
        if labels.any() and not labels.all():
            areas[column] = roc_auc_score(
                labels, scores[kept, column], sample_weight=None if weights is None else weights[kept]
            )
    return areas


def average_precision_by_class(targets: Bools, scores: Floats) -> Floats:
    """Average precision of every class, `(n_classes,)`, by scikit-learn; NaN where a class has no positives."""
    from sklearn.metrics import average_precision_score

    return np.array(
        [
            average_precision_score(targets[:, column], scores[:, column]) if targets[:, column].any() else np.nan
            for column in range(targets.shape[1])
        ]
    )


@dataclass(frozen=True)
class _Runs:
    """The records of a class in the order of their scores, cut into runs.

    A run is a stretch of records that need not be told apart: all of one score, or of neighbouring scores and one
    label. Inside it positives and negatives are either tied or not both there, so sums per run are all an area needs.
    """

    order: Whole
    positives: Any  # sparse (n_runs, n_patients): one 1 for every positive record
    negatives: Any
    n_runs: int


def _runs(labels: Bools, scores: Floats, patients: Whole, n_patients: int) -> _Runs:
    from scipy.sparse import csr_array

    order = np.argsort(scores, kind="stable")
    ordered, sorted_scores = labels[order], scores[order]
    starts = np.flatnonzero(np.r_[True, sorted_scores[1:] != sorted_scores[:-1]])
    sizes = np.diff(np.r_[starts, len(order)])
    n_positive = np.add.reduceat(ordered.astype(np.int64), starts)
    kind = np.where(n_positive == 0, 0, np.where(n_positive == sizes, 1, 2))
    opens = np.r_[True, (kind[1:] != kind[:-1]) | (kind[1:] == 2)]
    run_of_record = np.repeat(np.cumsum(opens) - 1, sizes)
    n_runs = int(run_of_record[-1]) + 1

    def of(wanted: Bools) -> Any:
        pointers = np.r_[0, np.cumsum(np.bincount(run_of_record[wanted], minlength=n_runs))]
        columns = patients[order[wanted]].astype(np.int32)
        values = np.ones(len(columns), dtype=np.float32 if len(labels) <= _EXACT_IN_SINGLE else np.float64)
        return csr_array((values, columns, pointers.astype(np.int32)), shape=(n_runs, n_patients))

    return _Runs(order, of(ordered), of(~ordered), n_runs)


def _areas(runs: _Runs, draws: NDArray[np.float32]) -> Floats:
    """AUC of each resample, `(n_patients, n_resamples)` → `(n_resamples,)`."""
    n_resamples = draws.shape[1]
    wins = np.zeros(n_resamples)
    below = np.zeros(n_resamples)
    n_positive = np.zeros(n_resamples)
    block = max(1, _BLOCK_BYTES // (16 * n_resamples))
    for start in range(0, runs.n_runs, block):
        stop = min(start + block, runs.n_runs)
        positives = np.asarray(runs.positives[start:stop] @ draws, dtype=np.float64)
        negatives = np.asarray(runs.negatives[start:stop] @ draws, dtype=np.float64)
        up_to = np.cumsum(negatives, axis=0)
        wins += np.einsum("rb,rb->b", positives, up_to - negatives / 2)
        n_positive += positives.sum(axis=0)
        wins += below * positives.sum(axis=0)
        below += up_to[-1]
    pairs = n_positive * below
    areas: Floats = np.divide(wins, pairs, out=np.full(n_resamples, np.nan), where=pairs > 0)
    return areas


def bootstrap_auc(targets: Bools, scores: Floats, bootstrap: PatientBootstrap, *, workers: int | None = None) -> Floats:
    """ROC AUC of every class in every resample, `(n_resamples, n_classes)`; NaN where undefined.

    Each class is sorted once; a resample then only adds up its draws along that order. `workers` threads share the
    classes (default: the cores this process may use); their number changes nothing in the result.
    """
    n_classes = targets.shape[1]
    areas = np.empty((bootstrap.n_resamples, n_classes))
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(workers or available) as pool:
        runs = list(
            pool.map(
                lambda column: _runs(targets[:, column], scores[:, column], bootstrap.index, bootstrap.n_patients),
                range(n_classes),
            )
        )
        for which, draws in bootstrap.chunks():
            for column, found in enumerate(pool.map(_areas, runs, [draws] * n_classes)):
                areas[which, column] = found
    return areas
