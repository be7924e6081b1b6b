"""The median beat of each record: its dominant beats, aligned to a fraction of a sample.

A median over aligned beats keeps what repeats and drops noise and artefacts; programmes for diagnostic use measure on
it (GE Healthcare, Marquette 12SL ECG Analysis Program, Physician's Guide; Kligfield et al. 2007,
doi:10.1161/CIRCULATIONAHA.106.180200, on representative complexes).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ecglm.synth.measure.arrays import Bools, Doubles, Floats, Integers, milliseconds
from ecglm.synth.measure.beats import Beats, usual_interval

BEFORE_MS, AFTER_MS = 480, 640
"""The median beat spans these times around the beat's fiducial point: PR to 400 ms, QT to 600 ms."""
CORE_MS = 300
"""A beat takes part if this much on either side of it was recorded; what lies farther out may miss a beat more."""
FINE_HZ = 500
"""The median beat has at least this many samples per second."""
EARLY_SHARE = 0.8
"""A beat that comes before this share of the usual RR interval has passed is early."""
MOST_DRIFT_S = 2.5
"""Between beats farther apart nothing is known about the drift."""
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
    edges = [milliseconds(ms, sampling_hz) for ms in (BEFORE_MS, CORE_MS, CORE_MS, AFTER_MS)]
    first, core_first, core_end, end = -edges[0], -edges[1], edges[2], edges[3]
    margin = milliseconds(_MARGIN_MS, sampling_hz)
    factor = max(1, -(-FINE_HZ // sampling_hz))
    place = beats.time * sampling_hz
    whole_sample = np.floor(place).astype(np.int64)
    drift = _drift(signal, beats, whole_sample, sampling_hz)
    beat = np.full((n_records, n_leads, end - first + 2 * margin), np.nan, np.float32)
    spread = np.full((n_records, n_leads), np.nan, np.float32)
    used = beats.dominant.copy()
    before, after = undisturbed(beats, n_records)
    # The core decides which beats are used; each section is the median of those of them that it was recorded for.
    for start, stop, calm in (
        (core_first, core_end, beats.dominant),
        (first - margin, core_first, before),
        (core_end, end + margin, after),
    ):
        begin, reach = whole_sample + start - (_TAPS // 2 - 1), stop - start + _TAPS - 1
        whole = preferred(used & (begin >= 0) & (begin + reach <= length), calm, beats, n_records)
        if start == core_first:
            used = whole
        rows, begin = beats.record[whole], begin[whole]
        cut = _cut(signal, rows, begin, place[whole] % 1, stop - start)
        time = (np.arange(start, stop) / sampling_hz).astype(np.float32)
        level, falling, rising = (part[whole][:, :, None] for part in drift)
        cut -= level + np.where(time < 0, falling, rising) * time
        if missing.any():
            holes = np.lib.stride_tricks.sliding_window_view(missing, reach, axis=2)[rows, :, begin].any(axis=2)
            cut[holes] = np.nan
        at = slice(start - first + margin, stop - first + margin)
        counts = np.bincount(rows, minlength=n_records)
        of_record = np.cumsum(counts) - counts
        for count in np.unique(counts[counts > 0]):
            chosen = np.flatnonzero(counts == count)
            middle, error = _median(cut[of_record[chosen][:, None] + np.arange(count)])
            beat[chosen, :, at] = middle
            if start == core_first:
                spread[chosen] = error
    fine = _finer(beat, factor)[:, :, margin * factor : (end - first + margin) * factor]
    return fine, spread, sampling_hz * factor


def undisturbed(beats: Beats, n_records: int) -> tuple[Bools, Bools]:
    """Beats with no early beat or beat of another kind just before them, and just after them; each (n_beats,)."""
    before, after = np.ones(len(beats.time), bool), np.ones(len(beats.time), bool)
    if len(beats.time) > 1:
        neighbours = np.diff(beats.record) == 0
        interval = np.where(neighbours, np.diff(beats.time), np.inf)
        usual = np.nan_to_num(usual_interval(beats, n_records), nan=np.inf)
        early = interval < EARLY_SHARE * usual[beats.record[1:]]
        before[1:] = ~neighbours | (beats.dominant[:-1] & ~early)
        after[:-1] = ~neighbours | (beats.dominant[1:] & ~early)
    return before, after


def preferred(whole: Bools, calm: Bools, beats: Beats, n_records: int) -> Bools:
    """The `whole` beats that are also `calm`; all whole ones where a record has fewer than two calm ones."""
    enough = np.bincount(beats.record[whole & calm], minlength=n_records) >= 2
    return whole & (calm | ~enough[beats.record])


def _drift(signal: Floats, beats: Beats, sample: Integers, sampling_hz: int) -> tuple[Floats, Floats, Floats]:
    """Level of each beat before its QRS complex (mV), and its slope (mV/s) to the beats before and after it.

    Straight lines through the levels just before the QRS complexes are the baseline, after Meyer & Keiser 1977
    (doi:10.1016/0010-4809(77)90026-2), who draw cubic ones. Each (n_beats, n_leads).
    """
    length = signal.shape[2]
    start, width = milliseconds(100, sampling_hz), milliseconds(40, sampling_hz)
    total = np.cumsum(np.pad(signal, ((0, 0), (0, 0), (1, 0))), axis=2, dtype=np.float64)
    begin = np.clip(sample - start, 0, length - width)
    level = ((total[beats.record, :, begin + width] - total[beats.record, :, begin]) / width).astype(np.float32)
    before, after = np.zeros_like(level), np.zeros_like(level)
    if len(sample) > 1:
        interval = np.diff(beats.time)
        near = (np.diff(beats.record) == 0) & (interval < MOST_DRIFT_S) & beats.dominant[1:] & beats.dominant[:-1]
        slope = np.where(near[:, None], np.diff(level, axis=0) / np.where(near, interval, 1)[:, None], np.float32(0))
        after[:-1], before[1:] = slope, slope
    return level, before, after


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
