"""Bootstrap over patients: seeded, the same for every model, whatever the number of records drawn at a time.

Records of one patient resemble each other, so patients are drawn with replacement, not records, and all records of a
drawn patient come with it (Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x). Intervals are percentiles of
the statistic over the resamples (Efron 1979, doi:10.1214/aos/1176344552).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecglm.bench.metrics.inputs import Floats, MetricError, Whole

LEVEL = 0.95
N_RESAMPLES = 1000
_CHUNK_BYTES = 64 * 2**20
_KEPT_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Estimate:
    """A statistic with its percentile interval.

    `value` is None where the statistic is undefined (no positives, say); `low` and `high` are None where it is
    undefined or too few resamples define it. `n_undefined` counts the resamples that could not compute it.
    """

    value: float | None
    low: float | None
    high: float | None
    level: float
    n_resamples: int
    n_undefined: int

    def as_dict(self) -> dict[str, Any]:
        """`{value, low, high, level, n_resamples, n_undefined}` for JSON."""
        return dict(vars(self))


class PatientBootstrap:
    """Resamples of patients with replacement.

    Args:
        patients: one patient per record, `(n_records,)`; any values that can be told apart.
        partners: for records of two ECGs, the patient of the second one; the same patient as the first is fine.
        n_resamples: how many.
        seed: the same seed and the same set of patients give the same resamples, in whatever order the records come
            and whichever model is scored: that is what makes comparisons paired.

    A record of two patients counts as often as the product of the two draws (pigeonhole bootstrap: Owen 2007,
    doi:10.1214/07-AOAS122), a record of one patient as often as the patient was drawn.
    """

    def __init__(
        self,
        patients: Sequence[Any] | NDArray[Any],
        *,
        partners: Sequence[Any] | NDArray[Any] | None = None,
        n_resamples: int = N_RESAMPLES,
        seed: int = 0,
    ) -> None:
        first = np.asarray(patients)
        if first.ndim != 1 or not first.size:
            raise MetricError(f"patients: found shape {first.shape}; expected one patient per record, at least one")
        if n_resamples < 0 or seed < 0:
            raise MetricError(f"found n_resamples {n_resamples} and seed {seed}; both must be 0 or more")
        both = [first]
        if partners is not None:
            second = np.asarray(partners)
            if second.shape != first.shape:
                raise MetricError(f"partners: found shape {second.shape}, expected {first.shape} like the patients")
            both.append(second)
        names, places = np.unique(np.concatenate(both), return_inverse=True)
        self.names: NDArray[Any] = names
        self.index: Whole = places[: first.size].astype(np.int64)
        """Place of each record's patient among the sorted patients, `(n_records,)`."""
        self.partner_index: Whole | None = None if partners is None else places[first.size :].astype(np.int64)
        self.n_resamples = n_resamples
        self.seed = seed

    @property
    def n_patients(self) -> int:
        """How many patients there are to draw from."""
        return len(self.names)

    def draws(self, number: int) -> NDArray[np.float32]:
        """How often each patient is in resample `number`, `(n_patients,)`; whole numbers whose sum is `n_patients`."""
        generator = np.random.default_rng([self.seed, number])
        drawn = generator.integers(0, self.n_patients, self.n_patients, dtype=np.int32)
        return np.bincount(drawn, minlength=self.n_patients).astype(np.float32)

    @cached_property
    def _all_draws(self) -> NDArray[np.uint8] | None:
        """All draws, `(n_patients, n_resamples)`, a byte each; None where they take too much memory to keep."""
        if self.n_patients * self.n_resamples > _KEPT_BYTES:
            return None
        kept = np.empty((self.n_resamples, self.n_patients), dtype=np.uint8)
        for number in range(self.n_resamples):
            kept[number] = self.draws(number)  # 256 draws of one patient are out of reach: mean 1, variance 1
        return np.ascontiguousarray(kept.T)

    def chunks(self, size: int | None = None) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """The resamples in groups: which ones, and their draws, `(n_patients, n_in_group)`, C-contiguous."""
        size = size or int(np.clip(_CHUNK_BYTES // (4 * self.n_patients), 8, 256))
        for start in range(0, self.n_resamples, size):
            which = slice(start, min(start + size, self.n_resamples))
            if self._all_draws is not None:
                yield which, self._all_draws[:, which].astype(np.float32)
            else:
                drawn = np.stack([self.draws(number) for number in range(which.start, which.stop)])
                yield which, np.ascontiguousarray(drawn.T)

    def sums(self, values: Floats) -> Floats:
        """Weighted sums of columns over the records of each resample: `(n_records, m)` → `(n_resamples, m)`."""
        sums = np.empty((self.n_resamples, values.shape[1]))
        if self.partner_index is None:
            by_patient = sum_by(self.index, values, self.n_patients)
            for which, draws in self.chunks():
                sums[which] = draws.T.astype(np.float64) @ by_patient
            return sums
        pairs, places = np.unique(np.stack([self.index, self.partner_index]), axis=1, return_inverse=True)
        by_pair = sum_by(places.reshape(-1), values, pairs.shape[1])
        same = pairs[0] == pairs[1]
        for which, draws in self.chunks(int(np.clip(_CHUNK_BYTES // (8 * pairs.shape[1]), 1, 256))):
            weights = draws[pairs[0]].astype(np.float64)
            weights *= np.where(same[:, None], 1.0, draws[pairs[1]])
            sums[which] = weights.T @ by_pair
        return sums

    def restricted(self, records: NDArray[np.bool_]) -> PatientBootstrap:
        """The same resamples seen by some of the records: patients are drawn from all, as before."""
        part = copy.copy(self)
        part.index = self.index[records]
        part.partner_index = None if self.partner_index is None else self.partner_index[records]
        return part


def estimate(value: float | None, resamples: Floats, level: float = LEVEL) -> Estimate:
    """A value with the percentile interval of its resamples; no interval if over half of them are undefined."""
    known = resamples[np.isfinite(resamples)]
    undefined = len(resamples) - len(known)
    if value is not None and not np.isfinite(value):
        value = None
    if value is None or not len(known) or undefined > len(resamples) / 2:
        return Estimate(value, None, None, level, len(resamples), undefined)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(value), float(low), float(high), level, len(resamples), undefined)


def sum_by(places: Whole, values: Floats, n_places: int) -> Floats:
    """Sums of rows that share a place: `(n, m)` → `(n_places, m)`."""
    order = np.argsort(places, kind="stable")
    starts = np.searchsorted(places[order], np.arange(n_places))
    present = np.bincount(places, minlength=n_places) > 0
    sums = np.zeros((n_places, values.shape[1]))
    if len(order):
        sums[present] = np.add.reduceat(values[order], starts[present], axis=0)
    return sums
