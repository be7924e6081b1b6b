"""Gradient-boosted trees on measurements: one classifier per statement (scikit-learn), kept as plain arrays.

A file of scikit-learn's own would be a pickle, which can run code; the trees are numbers, so numbers are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ecglm.models.measured import measure_signals
from ecglm.models.waveforms import Waveforms
from ecglm.synth.measure import MEASURED_COLUMNS

FEWEST_POSITIVES = 5
"""Below, a statement gets its share of the training ECGs as a constant."""
_AT_ONCE = 256
_FIELDS = {
    "feature": ("feature_idx", torch.int32),
    "threshold": ("num_threshold", torch.float64),
    "left": ("left", torch.int32),
    "right": ("right", torch.int32),
    "missing_left": ("missing_go_to_left", torch.uint8),
    "leaf": ("is_leaf", torch.uint8),
    "value": ("value", torch.float64),
}
"""Our names of the arrays, and scikit-learn's."""

Progress = Callable[[str, int, int], None]


def measure_waveforms(waveforms: Waveforms, ecg_ids: Sequence[str], progress: Progress) -> NDArray[np.float32]:
    """Measurements (n_ecgs, n_columns) of ECGs, NaN where something could not be measured."""
    table = np.full((len(ecg_ids), len(MEASURED_COLUMNS)), np.nan, np.float32)
    for start in range(0, len(ecg_ids), _AT_ONCE):
        for places, signals, leads, hz in waveforms.stored(ecg_ids[start : start + _AT_ONCE]):
            table[[start + place for place in places]] = measure_signals(signals, leads, hz)
        progress("measuring", min(start + _AT_ONCE, len(ecg_ids)), len(ecg_ids))
    return table


def fit_trees(
    features: NDArray[np.float32], truth: NDArray[np.bool_], seed: int, progress: Progress
) -> dict[str, torch.Tensor]:
    """Trains a classifier for each column of `truth`; gives them as arrays."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    several = [len(np.unique(column[np.isfinite(column)])) > 1 for column in features.T]
    used = np.flatnonzero(several)  # scikit-learn cannot divide what is never measured or always the same
    nodes: list[NDArray[np.void]] = []
    trees: list[tuple[int, int]] = []  # (statement, number of nodes)
    base = np.zeros(truth.shape[1])
    for number, column in enumerate(truth.T):
        positives = int(column.sum())
        share = (positives + 1) / (len(column) + 2)
        base[number] = np.log(share / (1 - share))
        if FEWEST_POSITIVES <= positives <= len(column) - FEWEST_POSITIVES:
            model = HistGradientBoostingClassifier(
                max_iter=150, learning_rate=0.06, max_leaf_nodes=15, l2_regularization=1.0, random_state=seed
            ).fit(features[:, used], column)
            base[number] = float(np.ravel(model._baseline_prediction)[0])
            for (predictor,) in model._predictors:
                nodes.append(predictor.nodes)
                trees.append((number, len(predictor.nodes)))
        progress("trees", number + 1, truth.shape[1])
    flat = np.concatenate(nodes) if nodes else np.zeros(0, [(theirs, "f8") for theirs, _ in _FIELDS.values()])
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(flat[theirs])).to(kind) for name, (theirs, kind) in _FIELDS.items()
    }
    tensors["feature"] = torch.from_numpy(used.astype(np.int32))[tensors["feature"].long()]
    tensors["statement"] = torch.tensor([statement for statement, _ in trees], dtype=torch.int32)
    tensors["n_nodes"] = torch.tensor([count for _, count in trees], dtype=torch.int32)
    tensors["base"] = torch.from_numpy(base)
    return tensors


def tree_probabilities(tensors: Mapping[str, torch.Tensor], features: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n_ecgs, n_statements) what the trees say."""
    array = {name: tensor.numpy() for name, tensor in tensors.items()}
    logits = np.tile(array["base"], (len(features), 1))
    rows = np.arange(len(features))
    ends = np.cumsum(array["n_nodes"])
    for statement, end, count in zip(array["statement"], ends, array["n_nodes"], strict=True):
        tree = {name: array[name][end - count : end] for name in _FIELDS}
        at = np.zeros(len(features), np.int64)
        while not tree["leaf"][at].all():
            value = features[rows, tree["feature"][at]]
            missing = np.isnan(value)
            left = np.where(missing, tree["missing_left"][at] == 1, value <= tree["threshold"][at])
            at = np.where(tree["leaf"][at] == 1, at, np.where(left, tree["left"][at], tree["right"][at]))
        logits[:, statement] += tree["value"][at]
    return np.asarray(1 / (1 + np.exp(-logits)))
