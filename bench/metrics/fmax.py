"""Fmax: the best sample-centric F1 over one common threshold, chosen on the records it is reported for.

As in the PTB-XL benchmark (Strodthoff et al. 2021, doi:10.1109/JBHI.2020.3022989), which took it from protein function
prediction (Radivojac et al. 2013, doi:10.1038/nmeth.2340): precision is averaged over the records that are given a
class, recall over the records that have one. The threshold is fitted to the test set, so it is an upper bound that is
only good for comparison with published tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecglm.bench.metrics.bootstrap import PatientBootstrap
from ecglm.bench.metrics.inputs import Bools, Floats

N_THRESHOLDS = 101
_ROWS = 8192


@dataclass(frozen=True)
class Fmax:
    """The maximum and the threshold it was found at; the maximum is NaN where no record has a label."""

    value: float
    threshold: float
    resamples: Floats


def threshold_grid(scores: Floats) -> Floats:
    """The thresholds tried: 0, 0.01 … 1; for scores outside [0, 1] as many steps from the least to the greatest."""
    low, high = float(scores.min()), float(scores.max())
    return np.linspace(0, 1, N_THRESHOLDS) if low >= 0 and high <= 1 else np.linspace(low, high, N_THRESHOLDS)


def fmax(targets: Bools, scores: Floats, bootstrap: PatientBootstrap) -> Fmax:
    """Fmax of all records and of every resample, in each at the best threshold of that resample."""
    grid = threshold_grid(scores)
    columns = np.empty((bootstrap.n_patients, 4 * N_THRESHOLDS))
    columns[:] = 0
    for start in range(0, len(targets), _ROWS):
        rows = slice(start, start + _ROWS)
        np.add.at(columns, bootstrap.index[rows], _columns(targets[rows], scores[rows], grid))
    whole = _curve(columns.sum(0))
    best = int(np.nanargmax(whole)) if np.isfinite(whole).any() else 0
    drawn = np.empty((bootstrap.n_resamples, 4 * N_THRESHOLDS))
    for which, draws in bootstrap.chunks():
        drawn[which] = draws.T.astype(np.float64) @ columns
    resamples = _curve(drawn)
    known = np.isfinite(resamples).any(-1)
    maxima = np.where(known, np.where(np.isfinite(resamples), resamples, -1.0).max(-1), np.nan)
    return Fmax(float(whole[best]), float(grid[best]), maxima)


def _columns(targets: Bools, scores: Floats, grid: Floats) -> Floats:
    """Per record and threshold: precision, whether anything was given, recall, whether there is a label."""
    n_records, n_classes = targets.shape
    reached = np.searchsorted(grid, scores.reshape(-1), side="right")  # thresholds at or below the score
    places = np.repeat(np.arange(n_records), n_classes) * (N_THRESHOLDS + 1) + reached

    def at_least(weights: Floats | None) -> Floats:
        number = np.bincount(places, weights=weights, minlength=n_records * (N_THRESHOLDS + 1))
        from_above = np.cumsum(number.reshape(n_records, -1)[:, ::-1], axis=1)[:, ::-1]
        return np.asarray(from_above[:, 1:], dtype=np.float64)

    given, hits = at_least(None), at_least(targets.reshape(-1).astype(np.float64))
    labels = targets.sum(1, keepdims=True)
    any_given = given > 0
    precision = np.divide(hits, given, out=np.zeros_like(hits), where=any_given)
    recall = np.divide(hits, labels, out=np.zeros_like(hits), where=labels > 0)
    return np.concatenate(
        [precision, any_given, recall, np.broadcast_to(labels > 0, hits.shape)], axis=1, dtype=np.float64
    )


def _curve(sums: Floats) -> Floats:
    precision, given, recall, labelled = np.split(sums, 4, axis=-1)
    known = (given > 0) & (labelled > 0)
    precision = np.divide(precision, given, out=np.zeros_like(precision), where=known)
    recall = np.divide(recall, labelled, out=np.zeros_like(recall), where=known)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    return np.where(labelled > 0, np.where(known, f1, 0.0), np.nan)
