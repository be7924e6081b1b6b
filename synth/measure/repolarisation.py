"""ST segment and T wave: where T peaks and ends in all leads together, and what each lead shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecglm.synth.measure.arrays import Floats, Integers, mean_between, milliseconds, moving_mean, values_at

# Lengths in ms, chosen for the labels of folds 1-8 of PTB-XL (long QT against normal, and the medians of QT that
# PTB-XL+ publishes) unless a source is named.
FIRST_T, LATEST_SHARE = 60, 0.58
"""The T wave peaks between this long after the QRS complex and this share of the RR interval after its onset."""
LATEST_END = 185
"""The T wave ends within this time after its peak."""
SMALLEST_T_MV = 0.04
"""Where no lead has a higher T wave, there is none whose end could be measured."""
SMALLEST_PART_MV, SMALLEST_PART_SHARE = 0.04, 0.2
"""The lesser part of a biphasic T wave is at least this high, and this share of the greater one."""
T_BEGINS = 0.25
"""Share of the time from the J point to the end of T after which the T wave is looked for."""
J_MS = 8
"""The J point is read over this long from the end of the QRS complex."""
ST_TIMES = (40, 60, 80)
"""ms after the J point at which the ST level is given besides the J point itself."""
MM_PER_MV, MM_PER_S = 10.0, 25.0


@dataclass(frozen=True)
class TShapes:
    """ST segment and T wave of each lead, arrays (n_records, n_leads) relative to the level at QRS onset."""

    st: Floats  # mV at the J point
    st_later: tuple[Floats, ...]  # mV at `ST_TIMES` after it
    st_slope: Floats  # degrees on paper at 25 mm/s and 10 mm/mV, J point to 80 ms after it
    amplitude: Floats  # mV at the peak of the T wave
    duration: Floats  # ms for which the T wave lies on one side of the line from its begin to its end
    morphology: Floats  # 1 upright, -1 inverted, 2 upright then inverted, -2 inverted then upright, 0 flat
    area: Floats  # mV·ms, net
    absolute_area: Floats  # mV·ms


def t_peak(beat: Floats, qrs_onset: Integers, qrs_offset: Integers, rr_samples: Floats, hz: int) -> Integers:
    """(n_records,) sample at which all leads together lie farthest from the level at QRS onset, where T may be.

    Args:
        beat: (n_records, n_leads, n_times) in mV relative to the level at QRS onset; 0 in leads not to be used.
        rr_samples: (n_records,) usual RR interval.
    """
    n_times = beat.shape[2]
    time = np.arange(n_times)
    away = np.sqrt((moving_mean(beat, milliseconds(24, hz)) ** 2).sum(axis=1))
    latest = np.minimum(qrs_onset + LATEST_SHARE * rr_samples, n_times - milliseconds(30, hz))
    latest = np.maximum(latest, qrs_offset + milliseconds(140, hz))
    possible = (time >= (qrs_offset + milliseconds(FIRST_T, hz))[:, None]) & (time <= latest[:, None])
    return np.asarray(np.where(possible, away, -1).argmax(axis=1))


def t_end(beat: Floats, peak: Integers, latest: Integers, hz: int) -> tuple[Integers, Integers]:
    """(n_records,) sample at which the T wave ends, and the last one at which it could have.

    The end maximises the area of the trapezium between the steepest descent after the peak, the candidate and a fixed
    point after the wave (Zhang et al. 2005, doi:10.1109/CIC.2005.1588203), in the combination of leads that shows the
    peak best. It depends neither on a threshold nor on the level after the wave.

    Args:
        beat, peak: as from `t_peak`.
        latest: (n_records,) sample at which the next P wave or QRS complex begins at the latest.
    """
    n_times = beat.shape[2]
    time, rows = np.arange(n_times), np.arange(len(beat))
    last = np.minimum(np.minimum(latest, peak + milliseconds(LATEST_END, hz)), n_times - milliseconds(20, hz))
    last = np.minimum(np.maximum(last, peak + milliseconds(60, hz)), n_times - 1)
    smooth = moving_mean(beat, milliseconds(24, hz))
    weight = values_at(smooth, peak)
    curve = (smooth * weight[:, :, None]).sum(axis=1)
    falling = (time >= peak[:, None]) & (time <= last[:, None])
    steepest = np.where(falling, np.gradient(curve, axis=1), np.inf).argmin(axis=1)
    height = curve[rows, steepest][:, None] - curve
    area = height * (2 * last[:, None] - time - steepest[:, None])
    after = (time >= steepest[:, None]) & (time <= last[:, None])
    return np.asarray(np.where(after, area, -np.inf).argmax(axis=1)), last


def t_shapes(beat: Floats, smooth: Floats, j_point: Integers, t_offset: Integers, hz: int) -> TShapes:
    """ST segment and T wave of each lead; `beat`, plain and smoothed, as for `t_peak`, all leads kept.

    The T wave is the greatest deflection from the line between its begin and its end, so that a shifted ST segment is
    not taken for it; its height is given from the level at QRS onset, as the ST level is.
    """
    time = np.arange(beat.shape[2])
    per_sample = np.float32(1000 / hz)
    st = mean_between(beat, j_point, j_point + milliseconds(J_MS, hz))
    later = tuple(values_at(smooth, j_point + milliseconds(at, hz)) for at in ST_TIMES)
    rise_mm = (later[-1] - st) * np.float32(MM_PER_MV)
    slope = np.rad2deg(np.arctan2(rise_mm, np.float32(MM_PER_S * ST_TIMES[-1] / 1000)))

    begin = np.rint(j_point + T_BEGINS * (t_offset - j_point)).astype(np.int64)
    inside = ((time >= begin[:, None]) & (time <= t_offset[:, None]))[:, None]
    first, last = values_at(smooth, begin)[:, :, None], values_at(smooth, t_offset)[:, :, None]
    share = (time - begin[:, None, None]) / np.maximum(t_offset - begin, 1)[:, None, None]
    lifted = np.where(inside, smooth - first - (last - first) * share.astype(np.float32), np.float32(0))
    up_at, down_at = lifted.argmax(axis=2), lifted.argmin(axis=2)
    up, down = lifted.max(axis=2), lifted.min(axis=2)
    upright = up >= -down
    peak = np.where(upright, up_at, down_at)
    amplitude = np.take_along_axis(smooth, peak[:, :, None], axis=2)[..., 0]

    side = np.where(upright[:, :, None], lifted > 0, lifted < 0)
    elsewhere = np.where(side, -1, time)
    left = np.where(time <= peak[:, :, None], elsewhere, -1).max(axis=2)
    right = np.where((time >= peak[:, :, None]) & ~side, time, beat.shape[2]).min(axis=2)
    duration = (right - left).astype(np.float32) * per_sample

    wave = np.where(inside, smooth, np.float32(0))
    high, low = wave.max(axis=2), wave.min(axis=2)
    greater, lesser = np.maximum(high, -low), np.minimum(high, -low)
    both = (lesser >= SMALLEST_PART_MV) & (lesser >= SMALLEST_PART_SHARE * greater)
    up_first = wave.argmax(axis=2) < wave.argmin(axis=2)
    single = np.where(amplitude > 0, 1, -1)
    morphology = np.where(both, np.where(up_first, 2, -2), np.where(greater >= SMALLEST_PART_MV, single, 0))
    return TShapes(
        st=st,
        st_later=later,
        st_slope=slope.astype(np.float32),
        amplitude=amplitude,
        duration=duration,
        morphology=morphology.astype(np.float32),
        area=wave.sum(axis=2) * per_sample,
        absolute_area=np.abs(wave).sum(axis=2) * per_sample,
    )
