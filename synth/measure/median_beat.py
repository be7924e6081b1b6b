"""The median beat of each record: its dominant beats, aligned to a fraction of a sample.

A median over aligned beats keeps what repeats and drops noise and artefacts; programmes for diagnostic use measure on
it (GE Healthcare, Marquette 12SL ECG Analysis Program, Physician's Guide; Kligfield et al. 2007,
doi:10.1161/CIRCULATIONAHA.106.180200, on representative complexes).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ecglm.synth.measure.arrays import Bools, Doubles, Floats, Integers, milliseconds
from ecglm.synth.measure.beats import Beats

BEFORE_MS, AFTER_MS = 200, 220
"""The median beat spans these times around the beat's fiducial point."""
FINE_HZ = 500
"""The median beat has at least this many samples per second."""
_TAPS = 8  # of the interpolation that shifts a beat by a fraction of a sample
_MARGIN_MS = 20


def median_beats(signal: Floats, missing: Bools, beats: Beats, sampling_hz: int) -> tuple[Floats, Floats, int]:
    """Median beat of each record and how sure it is.

    Args:
        signal, missing: (n_records, n_leads, n_samples) in mV, and where it was bridged over missing samples.
        beats: the beats; only those of the dominant kind that lie whole within the record are used.

    Returns:
        (n_records, n_leads, n_times) in mV, NaN where there is no beat; (n_records, n_leads) standard error of a sample
        of it in mV, NaN below four beats; samples per second.
    """
    n_records, n_leads, length = signal.shape
    before, after = milliseconds(BEFORE_MS, sampling_hz), milliseconds(AFTER_MS, sampling_hz)
    margin = milliseconds(_MARGIN_MS, sampling_hz)
    width = before + after + 2 * margin
    place = beats.time * sampling_hz
    start = np.floor(place).astype(np.int64) - before - margin - (_TAPS // 2 - 1)
    reach = width + _TAPS - 1
    whole = beats.dominant & (start >= 0) & (start + reach <= length)
    record, start = beats.record[whole], start[whole]
    cut = _cut(signal, record, start, place[whole] % 1, width)
    level_end = margin + before - milliseconds(60, sampling_hz)
    cut -= cut[:, :, margin:level_end].mean(axis=2, keepdims=True)  # drift: each beat's own level before the QRS
    if missing.any():
        holes = np.lib.stride_tricks.sliding_window_view(missing, reach, axis=2)[record, :, start].any(axis=2)
        cut[holes] = np.nan

    beat = np.full((n_records, n_leads, width), np.nan, np.float32)
    spread = np.full((n_records, n_leads), np.nan, np.float32)
    counts = np.bincount(record, minlength=n_records)
    first = np.cumsum(counts) - counts
    for count in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == count)
        group = cut[first[rows][:, None] + np.arange(count)]  # (n_rows, count, n_leads, width)
        beat[rows], spread[rows] = _median(group)
    factor = max(1, -(-FINE_HZ // sampling_hz))
    fine = _finer(beat, factor)[:, :, margin * factor : (width - margin) * factor]
    return fine, spread, sampling_hz * factor


def _cut(signal: Floats, record: Integers, start: Integers, fraction: Doubles, width: int) -> Floats:
    """(n_beats, n_leads, width) cut out at `start` plus a fraction of a sample, by windowed-sinc interpolation."""
    raw = np.lib.stride_tricks.sliding_window_view(signal, width + _TAPS - 1, axis=2)[record, :, start]
    taps = _sinc(np.arange(_TAPS) - (_TAPS // 2 - 1) - fraction[:, None])
    cut = np.zeros((len(record), signal.shape[1], width), np.float32)
    for k in range(_TAPS):
        cut += taps[:, k, None, None] * raw[:, :, k : k + width]
    return cut


def _sinc(offset: npt.NDArray[np.floating]) -> Floats:
    """Interpolation weights for samples at `offset` (…, n_taps), which sum to one."""
    taps = np.sinc(offset) * np.cos(np.pi * offset / offset.shape[-1]) ** 2
    weights: Floats = (taps / taps.sum(axis=-1, keepdims=True)).astype(np.float32)
    return weights


def _median(group: Floats) -> tuple[Floats, Floats]:
    """Median (n_rows, n_leads, width) of (n_rows, count, n_leads, width), and the standard error of its samples.

    The standard error of a median is 1.25 σ / √n; σ is taken from the spread of the middle half of the beats.
    """
    count = group.shape[1]
    used = count - np.isnan(group[..., 0]).sum(axis=1)  # (n_rows, n_leads): a beat is missing from a lead as a whole
    group.sort(axis=1)  # missing beats come last
    if used.min() == count:
        low, high = group[:, (count - 1) // 2], group[:, count // 2]
        first_quarter, last_quarter = group[:, count // 4], group[:, count - 1 - count // 4]
    else:

        def rank(at: Integers) -> Floats:
            at = np.clip(at, 0, count - 1)[:, None, :, None]
            return np.asarray(np.take_along_axis(group, at, axis=1)[:, 0])

        low, high = rank((used - 1) // 2), rank(used // 2)
        first_quarter, last_quarter = rank(used // 4), rank(used - 1 - used // 4)
    sigma = (last_quarter - first_quarter).mean(axis=2) / np.float32(1.35)
    error = np.float32(1.25) * sigma / np.sqrt(np.maximum(used, 1).astype(np.float32))
    return (low + high) * np.float32(0.5), np.where(used >= 4, error, np.float32(np.nan))


def _finer(beat: Floats, factor: int) -> Floats:
    """`factor` times as many samples per second, by windowed-sinc interpolation."""
    if factor == 1:
        return beat
    n_records, n_leads, width = beat.shape
    half = 8
    wide = np.pad(beat, ((0, 0), (0, 0), (half, half)), mode="edge")
    fine = np.empty((n_records, n_leads, width * factor), np.float32)
    fine[:, :, ::factor] = beat
    for phase in range(1, factor):
        part = np.zeros_like(beat)
        for k, tap in enumerate(_sinc(np.arange(1 - half, half + 1) - phase / factor)):
            part += tap * wide[:, :, k + 1 : k + 1 + width]
        fine[:, :, phase::factor] = part
    return fine
