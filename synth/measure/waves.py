"""The QRS complex of a median beat: where it begins and ends, its waves in each lead, its axis in the frontal plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecglm.synth.measure.arrays import Bools, Doubles, Floats, Integers, milliseconds
from ecglm.synth.measure.median_beat import BEFORE_MS

SMALLEST_MV, SMALLEST_AREA = 0.025, 0.16
"""The least height (mV) and area (mV·ms) of a deflection that counts as a wave."""
LEAST_NET_SHARE, LEAST_NET_AREA = 0.1, 1.0
"""A frontal vector shorter than this share of the absolute area, or than this area (mV·ms), has no sure direction."""

LIMB_DIRECTIONS = {"I": 0.0, "II": 60.0, "III": 120.0, "aVR": -150.0, "aVL": -30.0, "aVF": 90.0}


@dataclass(frozen=True)
class Waves:
    """Waves of the QRS complex in each lead: arrays (n_records, n_leads), NaN where there is no beat."""

    r: Floats  # mV, first upward wave; 0 if there is none
    s: Floats  # mV ≤ 0, first downward wave after it, or the whole downward deflection where there is no R (QS)
    peak_to_peak: Floats  # mV, highest less lowest point, the baseline included
    area: Floats  # mV·ms, upward less downward
    absolute_area: Floats  # mV·ms, upward plus downward


def qrs_bounds(beat: Floats, usable: Bools, hz: int) -> tuple[Integers, Integers]:
    """First and last sample of the QRS complex, (n_records,) each, common to all leads.

    The complex ends, in each direction, where the slope of all leads together stays below a threshold between the
    quiet level before the beat and the steepest point for 14 ms (global onset and offset as the CSE working party asks:
    Willems et al. 1985, doi:10.1093/oxfordjournals.eurheartj.a061930).

    Args:
        beat: (n_records, n_leads, n_times) in mV at `hz` samples per second.
        usable: (n_records, n_leads) the leads to look at.
    """
    n_records, n_leads, width = beat.shape
    step = milliseconds(4, hz)
    steep = np.zeros((n_records, width), np.float32)
    for lead in range(n_leads):
        wave = np.where(usable[:, lead, None] & np.isfinite(beat[:, lead]), beat[:, lead], np.float32(0))
        steep[:, step:-step] += (wave[:, 2 * step :] - wave[:, : -2 * step]) ** 2
    curve = _smoothed(np.sqrt(steep), milliseconds(6, hz))

    centre, reach = milliseconds(BEFORE_MS, hz), milliseconds(60, hz)
    steepest = centre - reach + curve[:, centre - reach : centre + reach].argmax(axis=1)
    top = curve[np.arange(n_records), steepest]
    quiet = np.sort(curve[:, milliseconds(20, hz) : centre - reach], axis=1)
    noise = quiet[:, quiet.shape[1] // 4]
    run = milliseconds(14, hz)
    time = np.arange(width)
    from_steepest = time - steepest[:, None]

    low = _runs(curve < np.maximum(1.5 * noise, noise + np.float32(0.06) * (top - noise))[:, None], run)
    before = np.zeros_like(low)
    before[:, run - 1 :] = low[:, : width - run + 1]  # a quiet run ends here
    before &= (from_steepest < 0) & (from_steepest >= -milliseconds(140, hz))
    onset = np.where(before.any(axis=1), width - 1 - before[:, ::-1].argmax(axis=1), steepest - reach)

    low = _runs(curve < np.maximum(1.5 * noise, noise + np.float32(0.08) * (top - noise))[:, None], run)
    low &= (from_steepest > 0) & (from_steepest <= milliseconds(160, hz))
    offset = np.where(low.any(axis=1), low.argmax(axis=1), steepest + milliseconds(70, hz))
    return np.clip(onset, 1, width - 2), np.clip(offset, 2, width - 1)


def _smoothed(curve: Floats, size: int) -> Floats:
    """Moving mean over `size` samples along the last axis."""
    wide = np.pad(curve, ((0, 0), (size // 2, size - 1 - size // 2)), mode="edge")
    total = np.zeros_like(curve)
    for shift in range(size):
        total += wide[:, shift : shift + curve.shape[1]]
    return total / np.float32(size)


def _runs(low: Bools, size: int) -> Bools:
    """Where a run of `size` true samples begins."""
    total = np.cumsum(np.pad(low, ((0, 0), (1, size))), axis=1)
    return np.asarray(total[:, size : size + low.shape[1]] - total[:, : low.shape[1]] == size)


def qrs_waves(beat: Floats, onset: Integers, offset: Integers, hz: int) -> Waves:
    """Waves of each lead between onset and offset, relative to the mean of the 20 ms before onset.

    Deflections are the stretches between crossings of that level; the first upward one is R, the first downward one
    after it S. QRS_AmpPP takes R′ and Q in as well.
    """
    n_times = beat.shape[2]
    time = np.arange(n_times)
    flat = (time >= onset[:, None] - milliseconds(20, hz)) & (time < onset[:, None])
    level = np.where(flat[:, None], beat, np.float32(0)).sum(axis=2) / flat.sum(axis=1)[:, None].astype(np.float32)
    inside = (time >= onset[:, None]) & (time <= offset[:, None])
    wave = np.where(inside[:, None], beat - level[:, :, None], np.float32(0))
    up, down = np.maximum(wave, np.float32(0)), np.minimum(wave, np.float32(0))
    per_sample = np.float32(1000 / hz)
    upward, downward = up.sum(axis=2) * per_sample, down.sum(axis=2) * per_sample
    highest, lowest = up.max(axis=2), down.min(axis=2)

    r, s = _first_r_and_s(wave, per_sample)
    s = np.where(r > 0, s, lowest)
    absent = np.isnan(beat).any(axis=2)
    r[absent] = s[absent] = np.nan
    return Waves(r, s, highest - lowest, upward + downward, upward - downward)


def _first_r_and_s(wave: Floats, per_sample: np.float32) -> tuple[Floats, Floats]:
    """(n_records, n_leads) height of the first upward deflection and of the first downward one after it; 0 if none."""
    sign = np.sign(wave)
    begins = (sign[..., 1:] != sign[..., :-1]) & (sign[..., 1:] != 0)
    number = np.zeros(wave.shape, np.int8)  # 0 before the first deflection
    np.cumsum(begins, axis=2, dtype=np.int8, out=number[..., 1:])
    r, s = np.zeros(wave.shape[:2], np.float32), np.zeros(wave.shape[:2], np.float32)
    for k in range(1, 6):
        piece = np.where(number == k, wave, np.float32(0))
        area = piece.sum(axis=2) * per_sample
        high, deep = piece.max(axis=2), piece.min(axis=2)
        is_s = (r > 0) & (s == 0) & (deep <= -SMALLEST_MV) & (area <= -SMALLEST_AREA)
        is_r = (r == 0) & (high >= SMALLEST_MV) & (area >= SMALLEST_AREA)
        r[is_r], s[is_s] = high[is_r], deep[is_s]
    return r, s


def frontal_axis(area: Floats, absolute_area: Floats, leads: list[str]) -> tuple[Floats, Bools]:
    """Direction (−180, 180] of the mean QRS vector in the frontal plane, and where it is indeterminate (then NaN).

    The vector whose projections on the limb leads fit their net QRS areas best (least squares), the augmented leads
    taken as √3/2 as long as I, II and III (Einthoven's triangle; Surawicz et al. 2009,
    doi:10.1161/CIRCULATIONAHA.108.191095, on the mean frontal axis). Two limb leads are enough.

    Args:
        area, absolute_area: (n_records, n_leads) in mV·ms, NaN where a lead is not measured.
    """
    limb = [index for index, lead in enumerate(leads) if lead in LIMB_DIRECTIONS]
    xx, xy, yy, x_sum, y_sum = (np.zeros(len(area)) for _ in range(5))
    size: Doubles = np.zeros(len(area))
    for index in limb:
        angle = np.deg2rad(LIMB_DIRECTIONS[leads[index]])
        length = 1.0 if leads[index] in ("I", "II", "III") else np.sqrt(0.75)
        x, y = length * np.cos(angle), length * np.sin(angle)
        there = np.isfinite(area[:, index])
        value = np.where(there, area[:, index], 0).astype(np.float64)
        xx, xy, yy = xx + there * x * x, xy + there * x * y, yy + there * y * y
        x_sum, y_sum = x_sum + x * value, y_sum + y * value
        size = np.maximum(size, np.where(there, absolute_area[:, index], 0) / length)
    determinant = xx * yy - xy * xy
    known = determinant > 1e-6
    divisor = np.where(known, determinant, 1.0)
    x, y = (yy * x_sum - xy * y_sum) / divisor, (xx * y_sum - xy * x_sum) / divisor
    sure = np.hypot(x, y) > np.maximum(LEAST_NET_SHARE * size, LEAST_NET_AREA)
    degrees = np.rad2deg(np.arctan2(y, x))
    degrees = np.where(degrees <= -180, 180.0, degrees)
    return np.where(known & sure, degrees, np.nan).astype(np.float32), known & ~sure
