"""F1 of decisions, thresholds chosen on validation records, and what the best constant predictor reaches.

Averages as in scikit-learn: macro over classes, weighted by their positives, micro over all (record, class) pairs,
samples over records. A class without a positive record has no recall, so macro and weighted leave it out (it is named
in the scores); its false positives count in micro and samples. A record that has no label and is given none is right:
its own F1 is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecglm.bench.metrics.bootstrap import PatientBootstrap
from ecglm.bench.metrics.inputs import Bools, Floats

AVERAGES = ("macro", "micro", "weighted", "samples")


@dataclass(frozen=True)
class Counts:
    """Weighted numbers of true positives, false positives and false negatives; the last axis is the classes."""

    true_positives: Floats
    false_positives: Floats
    false_negatives: Floats

    @property
    def f1_by_class(self) -> Floats:
        """F1 of each class; NaN for classes without positives."""
        hits = 2 * self.true_positives
        rest = hits + self.false_positives + self.false_negatives
        known = self.true_positives + self.false_negatives > 0
        return _ratio(hits, rest, known)

    def averages(self) -> dict[str, Floats]:
        """Macro, micro and weighted F1 along the last axis; NaN where no class has a positive."""
        by_class = self.f1_by_class
        known = np.isfinite(by_class)
        filled = np.where(known, by_class, 0.0)
        support = self.true_positives + self.false_negatives
        hits = 2 * self.true_positives.sum(-1)
        rest = hits + self.false_positives.sum(-1) + self.false_negatives.sum(-1)
        return {
            "macro": _ratio(filled.sum(-1), known.sum(-1)),
            "micro": _ratio(hits, rest, support.sum(-1) > 0),
            "weighted": _ratio((filled * support).sum(-1), support.sum(-1)),
        }


def _ratio(above: Floats, below: Floats, where: Bools | None = None) -> Floats:
    known = (below > 0) if where is None else where & (below > 0)
    ratio: Floats = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=known)
    return ratio


def f1_by_record(targets: Bools, decisions: Bools) -> Floats:
    """F1 of each record over its classes, `(n_records,)`; 1 where there is nothing to find and nothing was found."""
    hits = 2.0 * (targets & decisions).sum(1)
    sizes = targets.sum(1) + decisions.sum(1)
    scores: Floats = np.divide(hits, sizes, out=np.ones(len(targets)), where=sizes > 0)
    return scores


def counts(targets: Bools, decisions: Bools) -> Counts:
    """Counts over all records, `(n_classes,)` each."""
    return Counts(
        (targets & decisions).sum(0).astype(np.float64),
        (~targets & decisions).sum(0).astype(np.float64),
        (targets & ~decisions).sum(0).astype(np.float64),
    )


def f1_scores(targets: Bools, decisions: Bools) -> dict[str, float]:
    """F1 `macro`, `micro`, `weighted` and `samples` of all records; NaN where undefined."""
    scores = {name: float(value) for name, value in counts(targets, decisions).averages().items()}
    return scores | {"samples": float(f1_by_record(targets, decisions).mean())}


def bootstrap_f1(targets: Bools, decisions: Bools, bootstrap: PatientBootstrap) -> tuple[dict[str, Floats], Floats]:
    """The averages in every resample, `(n_resamples,)` each, and F1 by class, `(n_resamples, n_classes)`."""
    n_classes = targets.shape[1]
    columns = np.concatenate(
        [
            targets & decisions,
            ~targets & decisions,
            targets & ~decisions,
            f1_by_record(targets, decisions)[:, None],
            np.ones((len(targets), 1)),
        ],
        axis=1,
        dtype=np.float64,
    )
    sums = bootstrap.sums(columns)
    drawn = Counts(*(sums[:, n_classes * part : n_classes * (part + 1)] for part in range(3)))
    return drawn.averages() | {"samples": _ratio(sums[:, -2], sums[:, -1])}, drawn.f1_by_class


def best_thresholds(targets: Bools, scores: Floats) -> Floats:
    """Per class the threshold with the best F1 on these (validation) records, `(n_classes,)`.

    A record is positive if its score is at least the threshold, which is always a score that occurred. Of thresholds
    with the same F1 the highest is taken; a class without positives gets infinity: it is never predicted.
    """
    n_records, n_classes = targets.shape
    order = np.argsort(-scores, axis=0, kind="stable")
    descending = np.take_along_axis(scores, order, axis=0)
    hits = np.cumsum(np.take_along_axis(targets, order, axis=0), axis=0)
    f1 = 2 * hits / (np.arange(1, n_records + 1)[:, None] + targets.sum(0))
    f1[:-1][descending[:-1] == descending[1:]] = -1.0
    best = f1.argmax(0)
    thresholds = descending[best, np.arange(n_classes)]
    return np.where(targets.any(0), thresholds, np.inf)


def constant_f1(targets: Bools) -> dict[str, float]:
    """The best F1 that always giving the same answer can reach, by average.

    Macro and weighted: every class, always. Micro and samples: the m most frequent classes, for the best m; for micro
    no other set is better, for samples it is the best of these sets.
    """
    n_records, n_classes = targets.shape
    support = targets.sum(0).astype(np.float64)
    everything = np.ones_like(targets)
    scores = {name: float(value) for name, value in counts(targets, everything).averages().items()}
    order = np.argsort(-support, kind="stable")
    found = np.cumsum(support[order])
    size = np.arange(1, n_classes + 1)
    if support.sum() > 0:
        scores["micro"] = float((2 * found / (n_records * size + support.sum())).max())
    hits = np.cumsum(targets[:, order], axis=1)
    labels = targets.sum(1)
    samples = [(labels == 0).mean(), *(2 * hits / (size + labels[:, None])).mean(0)]
    return scores | {"samples": float(max(samples))}
