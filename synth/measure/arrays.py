"""Array types and small array operations shared by the measuring modules."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def milliseconds(duration: float, hz: int) -> int:
    """Samples, at least one, that last `duration` ms at `hz` samples per second."""
    return max(1, round(duration * hz / 1000))


def moving_mean(curve: Floats, size: int) -> Floats:
    """Mean over `size` samples around each sample of the last axis; the ends are repeated outwards."""
    edge = [(0, 0)] * (curve.ndim - 1)
    total = np.cumsum(
        np.pad(curve, [*edge, (size // 2 + 1, size - 1 - size // 2)], mode="edge"), axis=-1, dtype=np.float64
    )
    mean: Floats = ((total[..., size:] - total[..., :-size]) / size).astype(np.float32)
    return mean


def values_at(wave: Floats, sample: Integers) -> Floats:
    """(n_records, n_leads) of (n_records, n_leads, n_times): each record at its own sample."""
    index = np.broadcast_to(np.clip(sample, 0, wave.shape[2] - 1)[:, None, None], (*wave.shape[:2], 1))
    return np.take_along_axis(wave, index, axis=2)[..., 0]


def mean_between(wave: Floats, start: Integers, stop: Integers) -> Floats:
    """(n_records, n_leads) mean of (n_records, n_leads, n_times) from `start` up to but without `stop`."""
    time = np.arange(wave.shape[2])
    inside = (time >= start[:, None]) & (time < stop[:, None])
    total = np.where(inside[:, None], wave, np.float32(0)).sum(axis=2)
    return np.asarray(total / np.maximum(inside.sum(axis=1), 1)[:, None].astype(np.float32))
