"""The QRS complex of a median beat: where it begins and ends, its waves in each lead, its axis in the frontal plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecglm.synth.measure.arrays import Bools, Doubles, Floats, Integers, milliseconds, moving_mean
from ecglm.synth.measure.median_beat import BEFORE_MS

SMALLEST_MV, SMALLEST_AREA = 0.025, 0.16
"""The least height (mV) and area (mV·ms) of a deflection that counts as a wave."""
SMALLEST_R_SHARE = 0.12
"""An upward deflection lower than this share of the highest one is not the R wave."""
QS_RATIO = 4.0
"""A deflection this many times as deep as R is high, with no S after R, is a QS complex."""
MOST_DEFLECTIONS = 7
ONSET_SLOPE, OFFSET_SLOPE = 0.05, 0.06
"""Outside the QRS complex the slope of all leads stays below these shares of the steepest one."""
ONSET_DISTANCE, OFFSET_DISTANCE = 0.1, 0.3
"""… and all leads together lie within these shares of their greatest deflection, or of their usual wander."""
ST_SHARE, ONLY_SHARE = 0.7, 0.9
"""A last deflection that still has this share of its height at the end of the complex runs into the ST segment; the
only one of a complex, this greater share."""
LEAST_NET_SHARE, LEAST_NET_AREA = 0.1, 1.0
"""A frontal vector shorter than this share of the absolute area, or than this area (mV·ms), has no sure direction."""

LIMB_DIRECTIONS = {"I": 0.0, "II": 60.0, "III": 120.0, "aVR": -150.0, "aVL": -30.0, "aVF": 90.0}


@dataclass(frozen=True)
class Waves:
    """Waves of the QRS complex in each lead: arrays (n_records, n_leads), NaN where there is no beat.

    The first upward wave is R and the next R′; a downward one before R is Q, after it S, after R′ S′. A complex without
    R, or with only a small one at its end, is a QS complex: Q and S both name all of it. Missing waves are 0.
    """

    q: Floats  # mV ≤ 0
    q_duration: Floats  # ms
    r: Floats  # mV
    r_duration: Floats
    s: Floats  # mV ≤ 0
    s_duration: Floats
    r_prime: Floats  # mV
    r_prime_duration: Floats
    s_prime: Floats  # mV ≤ 0
    s_prime_duration: Floats
    peak_time: Floats  # ms from QRS onset to the highest point; NaN where no R wave is
    peak_to_peak: Floats  # mV, highest less lowest point, the baseline included
    area: Floats  # mV·ms, upward less downward
    absolute_area: Floats  # mV·ms, upward plus downward


def qrs_bounds(beat: Floats, usable: Bools, hz: int) -> tuple[Integers, Integers]:
    """First and last sample of the QRS complex, (n_records,) each, common to all leads.

    The complex ends, in each direction, where for 14 ms all leads together are both flat (slope below a threshold
    between the quiet level before the beat and the steepest point) and near the baseline, so that a plateau inside a
    broad complex does not end it. One onset and offset for all leads, as the CSE working party asks (Willems et al.
    1985, doi:10.1093/oxfordjournals.eurheartj.a061930).

    Args:
        beat: (n_records, n_leads, n_times) in mV at `hz` samples per second.
        usable: (n_records, n_leads) the leads to look at.
    """
    searched = _searched(hz)
    centre, reach = milliseconds(200, hz), milliseconds(60, hz)
    skipped = searched.start
    beat = beat[:, :, searched]
    n_records, n_leads, width = beat.shape
    step = milliseconds(4, hz)
    steep, away = np.zeros((n_records, width), np.float32), np.zeros((n_records, width), np.float32)
    beat = np.where(usable[:, :, None] & np.isfinite(beat), beat, np.float32(0))
    level = np.median(beat[:, :, : centre - reach], axis=2)
    for lead in range(n_leads):
        wave = beat[:, lead]
        steep[:, step:-step] += (wave[:, 2 * step :] - wave[:, : -2 * step]) ** 2
        away += (wave - level[:, lead, None]) ** 2
    curve = moving_mean(np.sqrt(steep), milliseconds(6, hz))
    away = np.sqrt(away)

    time = np.arange(width)
    # The core is far from the baseline and steep: the QRS complex, not a pacing spike or a dome-shaped ST segment.
    first, end = centre - milliseconds(100, hz), centre + milliseconds(120, hz)
    core = first + (away * away * np.sqrt(moving_mean(curve, milliseconds(30, hz))))[:, first:end].argmax(axis=1)
    from_core = time - core[:, None]
    top = np.where(np.abs(from_core) <= reach, curve, np.float32(0)).max(axis=1)
    farthest = away[:, centre - 2 * reach : centre + 2 * reach].max(axis=1)
    quiet = np.sort(curve[:, milliseconds(20, hz) : centre - reach], axis=1)
    noise = quiet[:, quiet.shape[1] // 4]
    wander = np.sort(away[:, : centre - reach], axis=1)[:, (centre - reach) * 3 // 4]
    run = milliseconds(14, hz)

    def within(distance_share: float) -> Floats:
        """(n_records,) distance from the baseline, in mV over all leads, that still counts as near it."""
        return np.asarray(np.maximum(np.float32(distance_share) * farthest, np.float32(1.5) * wander))

    def still(slope_share: float, distance_share: float) -> Bools:
        """(n_records, n_times) where 14 ms begin that are flat and not far from the baseline."""
        limit = np.maximum(1.5 * noise, noise + np.float32(slope_share) * (top - noise))
        near = away < within(distance_share)[:, None]
        return _runs((curve < limit[:, None]) & near, run)

    def flattest(span: Bools, distance_share: float) -> Integers:
        """(n_records,) the flattest sample of the span near the baseline, or of all the span if none is near."""
        near = span & (away < within(distance_share)[:, None])
        allowed = np.where(near.any(axis=1, keepdims=True), near, span)
        return np.asarray(np.where(allowed, curve, np.float32(np.inf)).argmin(axis=1))

    begins = still(ONSET_SLOPE, ONSET_DISTANCE)
    before = np.zeros_like(begins)
    before[:, run - 1 :] = begins[:, : width - run + 1]  # the last sample of such a stretch
    before &= (from_core < 0) & (from_core >= -milliseconds(140, hz))
    span = (from_core <= -milliseconds(20, hz)) & (from_core >= -milliseconds(140, hz))
    onset = np.where(before.any(axis=1), width - 1 - before[:, ::-1].argmax(axis=1), flattest(span, ONSET_DISTANCE))

    later: Bools = (from_core > 0) & (from_core <= milliseconds(160, hz))
    after = still(OFFSET_SLOPE, OFFSET_DISTANCE) & later
    span = (from_core >= milliseconds(30, hz)) & (from_core <= milliseconds(140, hz))
    offset = np.where(after.any(axis=1), after.argmax(axis=1), flattest(span, OFFSET_DISTANCE))
    return skipped + np.clip(onset, 1, width - 2), skipped + np.clip(offset, 2, width - 1)


def _searched(hz: int) -> slice:
    """The samples of the median beat among which the QRS complex lies: 200 ms before its fiducial to 220 ms after."""
    fiducial = milliseconds(BEFORE_MS, hz)
    return slice(fiducial - milliseconds(200, hz), fiducial + milliseconds(220, hz))


def _runs(low: Bools, size: int) -> Bools:
    """Where a run of `size` true samples begins."""
    total = np.cumsum(np.pad(low, ((0, 0), (1, size))), axis=1)
    return np.asarray(total[:, size : size + low.shape[1]] - total[:, : low.shape[1]] == size)


def qrs_waves(beat: Floats, onset: Integers, offset: Integers, hz: int) -> Waves:
    """Waves of each lead between onset and offset; `beat` is relative to the level before onset.

    Deflections are the stretches between crossings of that level; those of less than 25 µV or 0.16 mV·ms are none, as
    in 12SL (GE Healthcare, Marquette 12SL ECG Analysis Program, Physician's Guide). QRS_AmpPP takes them all in.
    """
    searched = _searched(hz)
    first = searched.start
    beat = beat[:, :, searched]
    time = np.arange(first, first + beat.shape[2])
    inside = (time >= onset[:, None]) & (time <= offset[:, None])
    wave = np.where(inside[:, None], beat, np.float32(0))
    up, down = np.maximum(wave, np.float32(0)), np.minimum(wave, np.float32(0))
    per_sample = np.float32(1000 / hz)
    upward, downward = up.sum(axis=2) * per_sample, down.sum(axis=2) * per_sample
    highest, lowest = up.max(axis=2), down.min(axis=2)
    peak_time = (up.argmax(axis=2) + first - onset[:, None]).astype(np.float32) * per_sample

    end = np.broadcast_to((offset - first)[:, None, None], (*wave.shape[:2], 1))
    height, duration = _deflections(wave, highest, np.take_along_axis(wave, end, axis=2)[..., 0], per_sample)
    without_s = (height["s"] == 0) & (lowest <= -SMALLEST_MV) & (lowest < -QS_RATIO * height["r"])
    downward_ms = (wave < 0).sum(axis=2) * per_sample
    for name in ("q", "s"):
        height[name] = np.where(without_s, lowest, height[name])
        duration[name] = np.where(without_s, downward_ms, duration[name])
    peak_time[height["r"] == 0] = np.nan
    absent = np.isnan(beat).any(axis=2)
    for values in (*height.values(), *duration.values(), peak_time):
        values += np.float32(0)  # no −0
        values[absent] = np.nan
    return Waves(
        height["q"], duration["q"], height["r"], duration["r"], height["s"], duration["s"],
        height["r_prime"], duration["r_prime"], height["s_prime"], duration["s_prime"],
        peak_time, highest - lowest, upward + downward, upward - downward,
    )  # fmt: skip


def _deflections(
    wave: Floats, highest: Floats, last: Floats, per_sample: np.float32
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Height (mV) and duration (ms) of q, r, s, r_prime and s_prime, each (n_records, n_leads); 0 if there is none.

    A deflection that has hardly turned back by the `last` sample of the complex is the ST segment, not a wave.
    """
    n_times = wave.shape[2]
    # Each sample takes the sign of the last one of notable height, so that ripple around zero makes no deflections.
    time = np.arange(n_times, dtype=np.int32)
    notable = np.abs(wave) >= SMALLEST_MV
    sign = np.take_along_axis(np.sign(wave), np.maximum.accumulate(np.where(notable, time, 0), axis=2), axis=2)
    number = np.zeros(wave.shape, np.int16)  # 0 before the first deflection
    np.cumsum((sign[..., 1:] != sign[..., :-1]) & (sign[..., 1:] != 0), axis=2, dtype=np.int16, out=number[..., 1:])
    # Its flank below the notable height belongs to the deflection that it leads to.
    leads_to = np.minimum.accumulate(np.where(notable, time, n_times - 1)[..., ::-1], axis=2)[..., ::-1]
    later = np.take_along_axis(number, leads_to, axis=2)
    total = number[..., -1]
    smallest_r = np.maximum(np.float32(SMALLEST_MV), np.float32(SMALLEST_R_SHARE) * highest)
    names = ("q", "r", "s", "r_prime", "s_prime")
    height, duration = ({name: np.zeros(wave.shape[:2], np.float32) for name in names} for _ in range(2))
    for k in range(1, min(MOST_DEFLECTIONS, int(total.max(initial=0))) + 1):
        piece = np.where(number == k, wave, np.float32(0))
        high, deep = piece.max(axis=2), piece.min(axis=2)
        same_side = (wave > 0) == (np.where(high > -deep, 1, -1) > 0)[..., None]
        whole = ((number == k) | (later == k)) & same_side & (wave != 0)
        area = np.where(whole, wave, np.float32(0)).sum(axis=2) * per_sample
        turns_back = (total != k) | (np.abs(last) < np.where(total == 1, ONLY_SHARE, ST_SHARE) * (high - deep))
        downward = (deep <= -SMALLEST_MV) & (area <= -SMALLEST_AREA) & turns_back
        upward = (high >= SMALLEST_MV) & (area >= SMALLEST_AREA) & turns_back
        there = {name: height[name] != 0 for name in names}
        chosen = {
            "q": downward & ~there["r"],
            "r": upward & ~there["r"] & (high >= smallest_r),
            "s": downward & there["r"] & ~there["r_prime"],
            "r_prime": upward & there["s"],
            "s_prime": downward & there["r_prime"],
        }
        width = whole.sum(axis=2) * per_sample
        for name, here in chosen.items():
            top = deep if name in ("q", "s", "s_prime") else high
            greater = here & (np.abs(top) > np.abs(height[name]))
            height[name][greater], duration[name][greater] = top[greater], width[greater]
    return height, duration


def frontal_axis(
    area: Floats, absolute_area: Floats, leads: list[str], least_area: float = LEAST_NET_AREA
) -> tuple[Floats, Bools]:
    """Direction (−180, 180] of the mean vector in the frontal plane, and where it is indeterminate (then NaN).

    The vector whose projections on the limb leads fit the net areas of a wave in them best (least squares), the
    augmented leads taken as √3/2 as long as I, II and III (Einthoven's triangle; Surawicz et al. 2009,
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
    sure = np.hypot(x, y) > np.maximum(LEAST_NET_SHARE * size, least_area)
    degrees: Floats = np.rad2deg(np.arctan2(y, x)).astype(np.float32)
    degrees[degrees <= -180] = 180
    degrees[~(known & sure)] = np.nan
    return degrees, known & ~sure
