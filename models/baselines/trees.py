"""Gradient-boosted trees on measurements: a classifier for each thing to tell (scikit-learn), kept as plain arrays.

A file of scikit-learn's own would be a pickle, which can run code; the trees are numbers, so numbers are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecglm.models.baselines.subjects import Cases
from ecglm.models.measured import measure_batch
from ecglm.models.preprocessing import Preprocessing, with_limb_leads
from ecglm.models.waveforms import Waveforms

FEWEST_POSITIVES = 5
"""Below, something gets its share of the training cases as a constant."""
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
Tensors = dict[str, Tensor]


def measure_waveforms(
    waveforms: Waveforms, ecg_ids: Sequence[str], leads: Collection[str], progress: Progress
) -> NDArray[np.float32]:
    """Measurements (n_ecgs, n_columns) of ECGs of which these leads are known, NaN where there is none."""
    rows = []
    for start in range(0, len(ecg_ids), _AT_ONCE):
        some = ecg_ids[start : start + _AT_ONCE]
        rows.append(_measure_leads(*waveforms.batch(some), waveforms.wanted, leads))
        progress("measuring", start + len(some), len(ecg_ids))
    return np.concatenate(rows)


def _measure_leads(values: Tensor, mask: Tensor, wanted: Preprocessing, leads: Collection[str]) -> NDArray[np.float32]:
    """Measurements (n_ecgs, n_columns) of prepared recordings, of which these leads are kept; no lead keeps all.

    Args:
        values: (n_ecgs, n_leads, n_samples) in mV.
        mask: the same shape, whether there is a value.
        wanted: how they were prepared.
        leads: names of leads; limb leads that two of them determine are worked out.
    """
    if leads:
        there = torch.tensor([lead in leads for lead in wanted.leads])
        known = mask & there[:, None]
        kept = [with_limb_leads(*each, wanted.leads)[:2] for each in zip(values * known, known, strict=True)]
        values, mask = torch.stack([each for each, _ in kept]), torch.stack([each for _, each in kept])
    return np.asarray(measure_batch(values, mask, wanted.leads, wanted.sampling_hz).numpy())


def fit_trees(features: NDArray[np.float32], wanted: Sequence[Cases], seed: int, progress: Progress) -> Tensors:
    """Trains a classifier for each thing to tell; gives them as arrays.

    Args:
        features: (n_ecgs, n_features) measurements, NaN where there is none; the form of a question is the last one.
        wanted: what is known of each thing.
        seed: of the trees.
        progress: is told of each.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    nodes: list[NDArray[np.void]] = []
    trees: list[tuple[int, int]] = []  # (what is told, number of nodes)
    base = np.zeros(len(wanted))
    for number, cases in enumerate(wanted):
        positives = int(cases.holds.sum())
        share = (positives + 1) / (len(cases.holds) + 2)
        base[number] = np.log(share / (1 - share))
        if FEWEST_POSITIVES <= positives <= len(cases.holds) - FEWEST_POSITIVES:
            table = np.column_stack([features[cases.rows], cases.forms])
            used = np.flatnonzero(_varies(table))
            model = HistGradientBoostingClassifier(
                max_iter=150, learning_rate=0.06, max_leaf_nodes=15, l2_regularization=1.0, random_state=seed
            ).fit(table[:, used], cases.holds)
            base[number] = float(np.ravel(model._baseline_prediction)[0])
            for (predictor,) in model._predictors:
                kept = predictor.nodes.copy()
                kept["feature_idx"] = used[kept["feature_idx"]]
                nodes.append(kept)
                trees.append((number, len(kept)))
        progress("trees", number + 1, len(wanted))
    flat = np.concatenate(nodes) if nodes else np.zeros(0, [(theirs, "f8") for theirs, _ in _FIELDS.values()])
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(flat[theirs])).to(kind) for name, (theirs, kind) in _FIELDS.items()
    }
    tensors["tells"] = torch.tensor([number for number, _ in trees], dtype=torch.int32)
    tensors["n_nodes"] = torch.tensor([count for _, count in trees], dtype=torch.int32)
    tensors["base"] = torch.from_numpy(base)
    return tensors


def _varies(table: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n_columns,) which have two values at least: scikit-learn cannot divide others."""
    there = np.isfinite(table)
    low, high = (np.where(there, table, fill) for fill in (np.inf, -np.inf))
    return np.asarray(low.min(0, initial=np.inf) < high.max(0, initial=-np.inf))


class TreeProbabilities:
    """What trees that were kept as arrays say."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        array = {name: tensor.numpy() for name, tensor in tensors.items()}
        self.base = array["base"]
        self._trees: dict[int, list[dict[str, NDArray[np.generic]]]] = {}
        ends = np.cumsum(array["n_nodes"])
        for number, end, count in zip(array["tells"].tolist(), ends, array["n_nodes"], strict=True):
            self._trees.setdefault(number, []).append({name: array[name][end - count : end] for name in _FIELDS})

    def of(self, number: int, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) the probability that one thing holds.

        Args:
            number: which one, as it was trained.
            features: (n, n_features), the form of the question last.
        """
        logits = np.full(len(features), self.base[number])
        rows = np.arange(len(features))
        for tree in self._trees.get(number, []):
            at = np.zeros(len(features), np.int64)
            while not tree["leaf"][at].all():
                value = features[rows, tree["feature"][at]]
                missing = np.isnan(value)
                left = np.where(missing, tree["missing_left"][at] == 1, value <= tree["threshold"][at])
                at = np.where(tree["leaf"][at] == 1, at, np.where(left, tree["left"][at], tree["right"][at]))
            logits += tree["value"][at]
        return np.asarray(1 / (1 + np.exp(-logits)))
