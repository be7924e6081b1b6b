"""Two models on the same records: the paired bootstrap decides, McNemar is shown, Holm corrects for many tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ecglm.bench.metrics.bootstrap import LEVEL, Estimate, estimate
from ecglm.bench.metrics.inputs import Floats, MetricError

EXACT_UP_TO = 1000


@dataclass(frozen=True)
class Comparison:
    """Difference first − second of one metric with its interval, and the two-sided p of the paired bootstrap."""

    first: float
    second: float
    difference: Estimate
    p_value: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self)) | {"difference": self.difference.as_dict()}


def compare(
    first: float, second: float, first_resamples: Floats, second_resamples: Floats, level: float = LEVEL
) -> Comparison:
    """Compares a metric of two models from resamples of the same patients, `(n_resamples,)` each.

    The interval holds the percentiles of the paired differences. p is twice the smaller share of resamples in which
    the difference is on either side of 0 (0 counts to both), each count one up so that p is never 0 (Davison and
    Hinkley 1997, doi:10.1017/CBO9780511802843, section 4.2).

    Raises:
        MetricError: different numbers of resamples: these are not the same ones.
    """
    if first_resamples.shape != second_resamples.shape or first_resamples.ndim != 1:
        raise MetricError(
            f"found {first_resamples.shape} and {second_resamples.shape} resamples; a paired comparison needs the same"
            " ones: score both runs with one seed and number of resamples"
        )
    differences = first_resamples - second_resamples
    known = differences[np.isfinite(differences)]
    p_value = None
    if len(known) and len(known) >= len(differences) / 2:
        smaller = min((known <= 0).sum(), (known >= 0).sum())
        p_value = float(min(1.0, 2 * (smaller + 1) / (len(known) + 1)))
    return Comparison(first, second, estimate(first - second, differences, level), p_value)


@dataclass(frozen=True)
class McNemar:
    """Answers that only one of two models got right, and the two-sided p that this is chance."""

    only_first: int
    only_second: int
    p_value: float
    exact: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def mcnemar(first_right: ArrayLike, second_right: ArrayLike) -> McNemar:
    """McNemar's test on the answers of two models to the same questions, `(n_questions,)` booleans.

    Exact (binomial) up to 1,000 discordant answers, above that chi-squared with continuity correction (McNemar 1947,
    doi:10.1007/BF02295996; Edwards 1948, doi:10.1007/BF02289261). It takes answers as independent, which answers about
    one patient are not: it is shown, it does not decide.

    Raises:
        MetricError: arrays of different lengths or not boolean.
    """
    from scipy.stats import binomtest, chi2

    first, second = np.asarray(first_right), np.asarray(second_right)
    if first.shape != second.shape or first.dtype != np.bool_ or second.dtype != np.bool_:
        raise MetricError(
            f"found {first.dtype} {first.shape} and {second.dtype} {second.shape}; expected one boolean per question,"
            " the same questions in the same order"
        )
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    if discordant == 0:
        return McNemar(0, 0, 1.0, True)
    if discordant <= EXACT_UP_TO:
        return McNemar(only_first, only_second, float(binomtest(only_first, discordant).pvalue), True)
    statistic = max(0, abs(only_first - only_second) - 1) ** 2 / discordant
    return McNemar(only_first, only_second, float(chi2.sf(statistic, 1)), False)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p-values adjusted for their number by Holm's step-down method, in the order given (Holm 1979, jstor 4615733).

    Raises:
        MetricError: a value that is not in [0, 1].
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise MetricError(f"found p-values {p_values!r}; expected numbers between 0 and 1")
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return tuple(float(value) for value in adjusted)


def indistinguishable_groups(
    values: Mapping[str, float], resamples: Mapping[str, Floats], level: float = LEVEL
) -> tuple[tuple[str, ...], ...]:
    """Groups of models no two of which can be told apart, best first; a model may be in several.

    All pairs are compared by the paired bootstrap, Holm over the pairs; a group is a largest set of models without a
    significant difference inside, as in a compact letter display (Piepho 2004, doi:10.1198/1061860043515). Within a
    group the models are ordered by value.
    """
    names = sorted(values, key=lambda name: (-values[name], name))
    pairs = [(first, second) for place, first in enumerate(names) for second in names[place + 1 :]]
    tests = [compare(values[a], values[b], resamples[a], resamples[b], level).p_value for a, b in pairs]
    adjusted = holm([1.0 if p is None else p for p in tests])
    alike: dict[str, set[str]] = {name: set() for name in names}
    for (first, second), p_value in zip(pairs, adjusted, strict=True):
        if p_value > 1 - level:
            alike[first].add(second)
            alike[second].add(first)
    groups = [tuple(name for name in names if name in clique) for clique in _cliques(alike)]
    return tuple(sorted(groups, key=lambda group: [names.index(name) for name in group]))


def _cliques(alike: Mapping[str, set[str]]) -> list[set[str]]:
    """Largest sets of mutually connected names (Bron and Kerbosch with pivot)."""
    found: list[set[str]] = []

    def grow(clique: set[str], possible: set[str], done: set[str]) -> None:
        if not possible and not done:
            found.append(clique)
            return
        pivot = max(sorted(possible | done), key=lambda name: len(alike[name] & possible))
        for name in sorted(possible - alike[pivot]):
            grow(clique | {name}, possible & alike[name], done & alike[name])
            possible = possible - {name}
            done = done | {name}

    grow(set(), set(alike), set())
    return found
