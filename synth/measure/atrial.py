"""The P wave: where it lies before the QRS complex, how surely it is one, and its shape in each lead.

A P wave is a hump some 100 ms wide that comes at the same place before every QRS complex. It is searched for in the
median beat by its curvature in all leads together, between the T wave before and the QRS complex, and it is believed
only if it also shows in the single beats: fibrillation leaves humps in an average of a few beats, but not the same
ones in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecglm.synth.measure.arrays import Bools, Floats, Integers, mean_between, milliseconds, moving_mean, values_at
from ecglm.synth.measure.beats import DETECTION_HZ, Beats
from ecglm.synth.measure.waves import LIMB_DIRECTIONS

# Lengths in ms, chosen for the labels of folds 1-8 of PTB-XL (first-degree block against normal, and the medians of
# PR and P duration that PTB-XL+ publishes) unless a source is named.
HUMP, WINGS = 50, 75
"""Curvature is the mean over this width, less the mean of two such widths this far on either side."""
FINE_HUMP, FINE_WINGS = 24, 50
AFTER_T_PEAK = 75
"""The search begins this long after the peak of the T wave before."""
AGAINST_T, AFTER_T_END = 0.85, 50
"""Until this long after the end of the T wave before, what bends against its direction is its end."""
USUAL_PR, USUAL_RANGE, UNUSUAL_COST = 110.0, 60.0, 0.25
"""Humps whose peak lies this long before the QRS complex are preferred: a quarter of the height at 200 ms beyond."""
SINUS_AXIS, SINUS_CHEST, AGAINST_SINUS_COST = 50.0, 0.4, 0.6
"""P waves of the sinus node point to the left and down, between 0 and 75 degrees (Chen & Soliman 2019,
doi:10.3389/fcvm.2019.00053), and are upright in V3 to V6. A hump bent the other way in all leads keeps two fifths of
its height: it is mostly the dip that atrial repolarisation leaves after a P wave, or the valley between T and P."""
SHOULDER_EARLY, SHOULDER_SHARE, SHOULDER_REACHES = 200.0, 0.3, (25, 50, 75, 100)
"""A hump that far before the QRS complex falls off on both sides, on the flatter one by this share of the other, within
these reaches: where a steep T wave ends, the curve bends as much as in a P wave, but only one side falls."""
BODY_SHARE, BODY_ALIKE, BODY_SINUS, BODY_REACH = 0.5, 0.4, 0.4, 70
"""What belongs to the P wave around its steepest hump: half as curved, in a like direction or in that of the sinus node
(in a biphasic P wave the two parts differ), within this reach."""
ONSET_REACH, OFFSET_REACH = 65, 100
SMALLEST_MV = 0.02
"""No P wave is lower: 20 µV, as for the CSE working party
(Willems et al. 1985, doi:10.1093/oxfordjournals.eurheartj.a061930)."""
FOUND_REGULAR, FOUND_IRREGULAR, IRREGULAR = 0.1, 0.3, 0.1
"""Evidence from which on P waves count as found; more is asked where the RR intervals vary by more than a tenth, as
they do in fibrillation. Of folds 1-8 of PTB-XL, 88 % of the fibrillations and 0.3 % of the sinus rhythms lie below."""
ERRATIC, ERRATIC_CHANGE = 0.06, 0.08
"""Irregularly irregular, as in fibrillation (irregular RR intervals and no distinct repeating P waves: Hindricks et al.
2020, doi:10.1093/eurheartj/ehaa612): the RR intervals vary by more than the first share, and most change by more than
the second from one to the next."""
SINUS_COSINE, FOUND_ERRATIC = 0.6, 0.5
"""There a hump that does not point where P waves of the sinus node do needs this evidence. At least this cosine have
97 % of the P waves in sinus rhythm, but 42 % of the humps in irregular fibrillation that passed the limits above."""
LONG_PR, LONG_SINUS_COSINE, LONG_FOUND_ERRATIC = 300.0, 0.7, 0.6
"""… and one that far (ms) before the QRS complex still more. Of 630 first-degree blocks, these limits lose none."""
METRONOMIC, PACED_QRS = 0.003, 150.0
"""RR intervals that vary by less than this share and complexes this wide (ms) are taken for those of a pacemaker: both
are so in 43 % of the paced ECGs of folds 1-8 and 0.1 % of the sinus rhythms. A hump `LONG_PR` before them is not
believed: 33 of the 44 that paced ECGs had, one in complete block and no other."""
_LEAST_ERROR_MV = 0.005
_EVIDENCE_BEFORE, _EVIDENCE_HALF = 480, 50


@dataclass(frozen=True)
class PWaves:
    """Bounds of the P wave of each record, (n_records,) samples of the median beat, as if there were one in each."""

    onset: Integers
    peak: Integers
    offset: Integers


@dataclass(frozen=True)
class PShapes:
    """The P wave of each lead, arrays (n_records, n_leads) relative to the line from its onset to its offset."""

    amplitude: Floats  # mV, of the first part if the wave has an upward and a downward one; 0 if there is none
    duration: Floats  # ms of that part
    negative_amplitude: Floats  # mV ≤ 0
    negative_duration: Floats  # ms
    height: Floats  # mV, of the greater part, however small
    area: Floats  # mV·ms, net
    absolute_area: Floats  # mV·ms


def p_bounds(
    beat: Floats,
    leads: Sequence[str],
    qrs_onset: Integers,
    t_peak: Integers,
    t_offset: Integers,
    rr_samples: Floats,
    hz: int,
) -> PWaves:
    """Where the P wave lies in each median beat.

    Onset and offset are the corners of the wave: the samples farthest below the straight line from its outermost humps
    to the level outside (see `corner`), as a mean over the leads by how well they show those humps, so that one pair of
    bounds holds for all leads.

    Args:
        beat: (n_records, n_leads, n_times) in mV relative to the level at QRS onset; 0 in leads not to be used.
        leads: name of each lead.
        qrs_onset, t_peak, t_offset: (n_records,) samples; the T wave is that after the QRS complex.
        rr_samples: (n_records,) usual RR interval.
    """
    n_times = beat.shape[2]
    time, rows = np.arange(n_times), np.arange(len(beat))
    first = (t_peak + milliseconds(AFTER_T_PEAK, hz) - rr_samples).astype(np.int64)
    first = np.minimum(np.maximum(first, milliseconds(10, hz)), qrs_onset - milliseconds(140, hz))
    begin = np.maximum(first - milliseconds(10, hz), 0)
    # Hold the levels at the ends of the search, so that neither the QRS complex nor the T wave bends the curve.
    wave = np.where(time < qrs_onset[:, None, None] - 1, beat, np.float32(0))
    wave = np.where(time < begin[:, None, None], values_at(wave, begin)[:, :, None], wave)

    smooth = moving_mean(wave, milliseconds(16, hz))
    bend = curvature(smooth, milliseconds(HUMP, hz), milliseconds(WINGS, hz))
    size = np.sqrt((bend * bend).sum(axis=1))
    # Where the T wave before ends, the curve bends against its direction: no hump.
    t_wave = values_at(beat, t_peak)
    against = (bend * t_wave[:, :, None]).sum(axis=1) < -AGAINST_T * size * np.sqrt((t_wave**2).sum(axis=1))[:, None]
    t_ended = t_offset - rr_samples + milliseconds(AFTER_T_END, hz)
    size = np.where(against & (time < t_ended[:, None]), np.float32(0), size)
    early = (qrs_onset[:, None] - time) * (1000 / hz)
    fall = falls(smooth[:, :, : qrs_onset.max()], bend[:, :, : qrs_onset.max()], hz)
    shoulder = np.zeros(size.shape, bool)
    shoulder[:, : fall.shape[2]] = fall.min(axis=0) < SHOULDER_SHARE * fall.max(axis=0)
    size = np.where(shoulder & (early > SHOULDER_EARLY), np.float32(0), size)
    cost = UNUSUAL_COST * np.clip((np.abs(early - USUAL_PR) - USUAL_RANGE) / 200, 0, 1)
    sinus = _sinus_direction(leads)
    along = (bend * sinus[:, None]).sum(axis=1) / np.maximum(size, np.float32(1e-9))  # the cosine
    worth = (1 - cost) * (1 - AGAINST_SINUS_COST * np.maximum(-along, 0))
    searched = (time >= first[:, None] + milliseconds(20, hz)) & (time <= qrs_onset[:, None] - milliseconds(40, hz))
    peak = np.where(searched, size * worth, -1).argmax(axis=1)

    bend = curvature(smooth, milliseconds(FINE_HUMP, hz), milliseconds(FINE_WINGS, hz))
    at_peak = values_at(bend, peak)
    length = np.sqrt((bend * bend).sum(axis=1))
    alike = (bend * at_peak[:, :, None]).sum(axis=1)
    upright = (bend * sinus[:, None]).sum(axis=1) > BODY_SINUS * length
    top = length[rows, peak][:, None]
    body = (length >= BODY_SHARE * top) & ((alike > BODY_ALIKE * length * top) | upright)
    body &= np.abs(time - peak[:, None]) <= milliseconds(BODY_REACH, hz)
    body[rows, peak] = True
    first_hump = body.argmax(axis=1)
    last_hump = np.minimum(n_times - 1 - body[:, ::-1].argmax(axis=1), qrs_onset - milliseconds(10, hz))

    smooth = moving_mean(wave, milliseconds(12, hz))
    outside = np.maximum(first_hump - milliseconds(ONSET_REACH, hz), begin)
    onset = corner(smooth, first_hump, outside, np.abs(values_at(bend, first_hump)))
    outside = np.minimum(qrs_onset, last_hump + milliseconds(OFFSET_REACH, hz))
    offset = corner(smooth, last_hump, outside, np.abs(values_at(bend, last_hump)))
    return PWaves(onset, peak, offset)


def _sinus_direction(leads: Sequence[str]) -> Floats:
    """(n_leads,) of length 1: how a P wave of the sinus node shows in each lead; 0 in all if none of them tells."""
    shown = {lead: np.cos(np.deg2rad(degrees - SINUS_AXIS)) for lead, degrees in LIMB_DIRECTIONS.items()}
    shown |= dict.fromkeys(("V3", "V4", "V5", "V6"), SINUS_CHEST)
    direction = np.array([shown.get(lead, 0.0) for lead in leads], np.float32)
    return np.asarray(direction / max(float(np.linalg.norm(direction)), 1e-9), dtype=np.float32)


def curvature(wave: Floats, width: int, apart: int) -> Floats:
    """Mean over `width` samples less the mean of two such stretches `apart` samples before and after."""
    mean = moving_mean(wave, width)
    wide = np.pad(mean, [(0, 0)] * (wave.ndim - 1) + [(apart, apart)], mode="edge")
    bend: Floats = mean - np.float32(0.5) * (wide[..., : -2 * apart] + wide[..., 2 * apart :])
    return bend


def falls(wave: Floats, direction: Floats, hz: int) -> Floats:
    """(2, n_records, n_times) how much lower the curve lies before and after each sample, within a P wave's reach.

    Args:
        wave: (n_records, n_leads, n_times).
        direction: the same shape: how all leads together are weighed at each sample, up being positive.
    """
    n_times = wave.shape[2]
    here = (direction * wave).sum(axis=1)
    fall = np.full((2, *here.shape), -np.inf, np.float32)
    for reach in SHOULDER_REACHES:
        apart = milliseconds(reach, hz)
        wide = np.pad(wave, ((0, 0), (0, 0), (apart, apart)), mode="edge")
        for side, start in enumerate((0, 2 * apart)):
            beside = (direction * wide[:, :, start : start + n_times]).sum(axis=1)
            fall[side] = np.maximum(fall[side], here - beside)
    return fall


def corner(wave: Floats, top: Integers, outside: Integers, weight: Floats) -> Integers:
    """(n_records,) where the flank of a wave between `top` and `outside` bends most, on the average of the leads.

    In each lead of (n_records, n_leads, n_times) the sample farthest from the straight line between the values at both
    ends, on the side of the lower one (Zack et al. 1977, doi:10.1177/25.7.70454).

    Args:
        weight: (n_records, n_leads) how much each lead counts.
    """
    time = np.arange(wave.shape[2])
    upper, lower = values_at(wave, top)[:, :, None], values_at(wave, outside)[:, :, None]
    share = ((time - top[:, None]) / np.where(outside == top, 1, outside - top)[:, None]).astype(np.float32)
    below = (upper + (lower - upper) * share[:, None] - wave) * np.sign(upper - lower)
    between = (time >= np.minimum(top, outside)[:, None]) & (time <= np.maximum(top, outside)[:, None])
    place = np.where(between[:, None], below, -np.inf).argmax(axis=2)
    total = np.maximum(weight.sum(axis=1), np.float32(1e-9))
    return np.asarray(np.rint((place * weight).sum(axis=1) / total).astype(np.int64))


def p_evidence(
    coarse: Floats,
    usable: Bools,
    error: Floats,
    beats: Beats,
    calm: Bools,
    qrs_onset_s: Floats,
    peak_s: Floats,
) -> Floats:
    """(n_records,) how alike the single beats are where the P wave should be, from about 0 (no P waves) to 1.

    The mean correlation between any two beats of the curvature within 50 ms of the P wave's peak, in all leads
    together, each in units of its noise. It looks at what lies before each beat, not at when beats come, so that it
    tells fibrillation apart without the RR intervals, as Ladavich & Ghoraani 2015 do with a statistical model of P
    waves (doi:10.1016/j.bspc.2015.01.007). NaN below two beats.

    Args:
        coarse: (n_records, n_leads, n_samples) in mV at `DETECTION_HZ`.
        error: (n_records, n_leads) standard error of the median beat in mV; NaN where it is unknown.
        calm: (n_beats,) beats with no early beat or beat of another kind before them.
        qrs_onset_s, peak_s: (n_records,) s relative to the beat's time.
    """
    n_records, n_leads, length = coarse.shape
    width = milliseconds(_EVIDENCE_BEFORE, DETECTION_HZ)
    apart = milliseconds(WINGS, DETECTION_HZ)
    chosen = beats.dominant & calm
    record = beats.record[chosen]
    last = np.floor((beats.time[chosen] + qrs_onset_s[record]) * DETECTION_HZ).astype(np.int64) - 1
    early = (np.arange(width) - width + 1) / DETECTION_HZ
    near = np.abs(early - (peak_s - qrs_onset_s)[:, None]) <= _EVIDENCE_HALF / 1000 + 1e-6
    needed = width - near.argmax(axis=1) + milliseconds(HUMP, DETECTION_HZ) + apart  # before the QRS complex
    whole = (last + 1 >= np.minimum(needed, width)[record]) & (last < length)
    record, last = record[whole], last[whole]
    count = np.bincount(record, minlength=n_records)
    evidence = np.full(n_records, np.nan, np.float32)
    enough = np.flatnonzero((count >= 2) & usable.any(axis=1))
    if not len(enough):
        return evidence
    wide = np.pad(coarse, ((0, 0), (0, 0), (width, 0)), mode="edge")
    cut = np.lib.stride_tricks.sliding_window_view(wide, width, axis=2)[record, :, last + 1]
    cut = np.concatenate([cut, np.repeat(cut[:, :, -1:], apart + 5, axis=2)], axis=2)  # hold the level before QRS
    bend = curvature(cut, milliseconds(HUMP, DETECTION_HZ), apart)[:, :, :width]
    noise = np.sqrt(np.nan_to_num(error, nan=0.0) ** 2 + np.float32(_LEAST_ERROR_MV**2))
    weight = np.where(usable, 1 / noise, np.float32(0)).astype(np.float32)
    shape = (bend * near[record][:, None, :] * weight[record][:, :, None]).reshape(len(record), n_leads * width)
    shape /= np.maximum(np.sqrt((shape * shape).sum(axis=1)), np.float32(1e-9))[:, None]
    first = np.cumsum(count) - count
    total = np.add.reduceat(shape, first[count > 0], axis=0)
    alike = np.full(n_records, np.nan, np.float32)
    number = count[count > 0]
    alike[count > 0] = ((total * total).sum(axis=1) - number) / np.maximum(number * (number - 1), 1)
    evidence[enough] = alike[enough]
    return evidence


def believed(
    evidence: Floats,
    shapes: PShapes,
    usable: Bools,
    leads: Sequence[str],
    pr_ms: Floats,
    qrs_ms: Floats,
    variation: Floats,
    change: Floats,
) -> Bools:
    """(n_records,) whether what `p_bounds` found is a P wave: enough evidence for the rhythm, and high enough.

    Args:
        evidence: (n_records,) of `p_evidence`.
        shapes: of the median beat.
        usable: (n_records, n_leads) the leads to look at.
        leads: name of each lead.
        pr_ms, qrs_ms: (n_records,) from the onset of the P wave to that of the QRS complex, and duration of that.
        variation: (n_records,) standard deviation of the RR intervals over their mean.
        change: (n_records,) of `beats.usual_change`.
    """
    long = pr_ms >= LONG_PR
    area = np.where(usable, np.nan_to_num(shapes.area), np.float32(0))
    cosine = (area * _sinus_direction(leads)).sum(axis=1) / np.maximum(np.sqrt((area * area).sum(axis=1)), 1e-9)
    astray = cosine < np.where(long, LONG_SINUS_COSINE, SINUS_COSINE)
    erratic = (variation > ERRATIC) & (change > ERRATIC_CHANGE)
    needed = np.where(variation > IRREGULAR, FOUND_IRREGULAR, FOUND_REGULAR)
    needed = np.where(erratic & astray, np.where(long, LONG_FOUND_ERRATIC, FOUND_ERRATIC), needed)
    paced = (variation < METRONOMIC) & (qrs_ms >= PACED_QRS)
    height = np.where(usable, np.nan_to_num(shapes.height), 0).max(axis=1, initial=0)
    return np.asarray((evidence >= needed) & ~(paced & long) & (height >= SMALLEST_MV))


def p_shapes(beat: Floats, waves: PWaves, hz: int) -> PShapes:
    """The P wave of each lead; `beat` as for `p_bounds`, all leads kept."""
    time = np.arange(beat.shape[2])
    edge = milliseconds(4, hz)
    start, stop = (mean_between(beat, at - edge, at + edge + 1)[:, :, None] for at in (waves.onset, waves.offset))
    width = np.maximum(waves.offset - waves.onset, 1)[:, None, None]
    share = (time - waves.onset[:, None, None]) / width
    inside = (time >= waves.onset[:, None]) & (time <= waves.offset[:, None])
    wave = np.where(inside[:, None], beat - start - (stop - start) * share.astype(np.float32), np.float32(0))
    up, down = np.maximum(wave, np.float32(0)), np.minimum(wave, np.float32(0))
    per_sample = np.float32(1000 / hz)
    highest, lowest = up.max(axis=2), down.min(axis=2)
    upright, inverted = highest >= SMALLEST_MV, lowest <= -SMALLEST_MV
    up_first = np.where(upright & inverted, up.argmax(axis=2) < down.argmin(axis=2), upright)
    up_ms, down_ms = (up > 0).sum(axis=2) * per_sample, (down < 0).sum(axis=2) * per_sample
    nothing = np.float32(0)
    some = upright | inverted
    return PShapes(
        amplitude=np.where(some, np.where(up_first, highest, lowest), nothing),
        duration=np.where(some, np.where(up_first, up_ms, down_ms), nothing),
        negative_amplitude=np.where(inverted, lowest, nothing),
        negative_duration=np.where(inverted, down_ms, nothing),
        height=np.maximum(highest, -lowest),
        area=wave.sum(axis=2) * per_sample,
        absolute_area=(up - down).sum(axis=2) * per_sample,
    )
