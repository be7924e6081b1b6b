"""Whether scores are probabilities: Brier score and expected calibration error.

Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2; Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602.
"""

from __future__ import annotations

import numpy as np

from ecglm.bench.metrics.inputs import Bools, Floats

N_BINS = 15


def brier_by_class(targets: Bools, probabilities: Floats) -> Floats:
    """Mean squared difference of probability and label, `(n_classes,)`."""
    return np.asarray(((probabilities - targets) ** 2).mean(0))


def bin_columns(targets: Bools, probabilities: Floats, n_bins: int = N_BINS) -> Floats:
    """Per record and bin of equal width, over its classes: number, sum of probabilities, positives.

    `(n_records, 3 * n_bins)`; a probability on an edge belongs to the bin above it, 1 to the last bin.
    """
    n_records = len(targets)
    bins = np.minimum((probabilities * n_bins).astype(np.int64), n_bins - 1)
    places = (np.arange(n_records)[:, None] * n_bins + bins).reshape(-1)
    parts = [
        np.bincount(places, weights=weights, minlength=n_records * n_bins).reshape(n_records, n_bins)
        for weights in (None, probabilities.reshape(-1), targets.reshape(-1).astype(np.float64))
    ]
    return np.concatenate(parts, axis=1, dtype=np.float64)


def error_of_bins(sums: Floats) -> Floats:
    """Expected calibration error from sums of `bin_columns`, over the last axis."""
    number, probabilities, positives = np.split(sums, 3, axis=-1)
    return np.asarray(np.abs(probabilities - positives).sum(-1) / np.maximum(number.sum(-1), 1))


def calibration_error(targets: Bools, probabilities: Floats, n_bins: int = N_BINS) -> float:
    """Expected calibration error over all (record, class) pairs in bins of equal width."""
    return float(error_of_bins(bin_columns(targets, probabilities, n_bins).sum(0)))


def calibration_error_by_class(targets: Bools, probabilities: Floats, n_bins: int = N_BINS) -> Floats:
    """Expected calibration error of every class on its own, `(n_classes,)`."""
    return np.array(
        [
            calibration_error(targets[:, [column]], probabilities[:, [column]], n_bins)
            for column in range(targets.shape[1])
        ]
    )
