"""How far a measurement can be trusted, and what is wrong with a recording: grades and signs of faults."""

from __future__ import annotations

import numpy as np

from ecglm.synth.measure.arrays import Bools, Floats, Integers, milliseconds
from ecglm.synth.measure.beats import Beats

GOOD, FAIR, POOR = 3.0, 2.0, 1.0
"""Grades of a measurement; a missing one has no grade."""
GOOD_RATIO, FAIR_RATIO = 12.0, 5.0
"""A wave this many times as high as the standard error of the median beat is measured well, or fairly."""
CLIPPED_MS, CLIPPED_TIMES, CLIPPED_MV = 16, 3, 0.5
"""A clipped lead rests at its highest or lowest value for this long, this often, this far from its middle."""
LOW_CLIPPED_MV, FINE_STEPS, ABRUPT_MV, ABRUPT_STEPS = 0.1, 200, 0.02, 8
"""Nearer to the middle, but at least this far, or within so many of the lead's smallest steps, waves may be that flat
by nature; there the curve must also meet its limit abruptly: by this much and so many steps between two samples."""
SPIKE_HZ = 500
"""Pacing spikes, 0.5 to 2 ms long, can be told from QRS complexes from this sampling rate on."""
SPIKE_MV, SPIKE_TIMES, SPIKE_SHARE = 0.2, 8.0, 0.7
"""A spike leaves its neighbours by this much, and by so many times what is usual in the lead, before most beats."""
SPIKE_BEFORE_MS = 160
PAUSE_S = 3.0
SWAP_MV, FLAT_II_MV, FLAT_II_SHARE = 0.05, 0.12, 0.12


def grade(size: Floats, error: Floats) -> Floats:
    """Grade of waves by their height over the standard error; poor where the error is unknown, NaN without a wave."""
    ratio = np.abs(size) / np.maximum(np.nan_to_num(error, nan=np.inf), np.float32(1e-6))
    graded = np.where(ratio >= GOOD_RATIO, GOOD, np.where(ratio >= FAIR_RATIO, FAIR, POOR))
    return np.where(np.isnan(size), np.nan, graded).astype(np.float32)


def clipped(signal: Floats, hz: int) -> Bools:
    """(n_records, n_leads) leads of (n_records, n_leads, n_samples) in mV that are cut off at an end of their range."""
    run = max(3, milliseconds(CLIPPED_MS, hz))
    middle = np.median(signal[:, :, :: max(1, hz // 50)], axis=2)
    found = np.zeros(signal.shape[:2], bool)
    for extreme in (signal.max(axis=2), signal.min(axis=2)):
        away = np.abs(extreme - middle)
        resting = signal == extreme[:, :, None]
        for record, lead in np.argwhere((away >= LOW_CLIPPED_MV) & (resting.sum(axis=2) >= CLIPPED_TIMES * run)):
            edges = np.diff(np.pad(resting[record, lead], 1).astype(np.int8))
            begin, end = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)
            long = end - begin >= run
            jumps = np.abs(np.diff(signal[record, lead], prepend=np.nan, append=np.nan))
            step = float(jumps[jumps > 0].min(initial=np.inf))
            if away[record, lead] < max(CLIPPED_MV, FINE_STEPS * step):
                long &= np.fmax(jumps[begin], jumps[end]) >= max(ABRUPT_MV, ABRUPT_STEPS * step)
            found[record, lead] |= long.sum() >= CLIPPED_TIMES
    return found


def pacing(signal: Floats, usable: Bools, beats: Beats, hz: int) -> Floats:
    """(n_records,) share of the beats with a pacing spike just before or at their start; NaN where it cannot be told.

    A spike stands out from both its neighbours 4 ms away in the same direction; nothing that the heart makes does.

    Args:
        signal: (n_records, n_leads, n_samples) in mV.
        usable: (n_records, n_leads) the leads to look at.
    """
    n_records, n_leads, length = signal.shape
    share = np.full(n_records, np.nan, np.float32)
    if hz < SPIKE_HZ or not len(beats.time):
        return share
    step = milliseconds(4, hz)
    spike = np.zeros((n_records, length), np.float32)
    for lead in range(n_leads):
        centre = signal[:, lead, step:-step]
        left, right = centre - signal[:, lead, : -2 * step], centre - signal[:, lead, 2 * step :]
        sharp = np.where(left * right > 0, np.minimum(np.abs(left), np.abs(right)), np.float32(0))
        usual = np.quantile(sharp, 0.995, axis=1)[:, None]
        stands_out = (sharp > SPIKE_MV) & (sharp > SPIKE_TIMES * usual) & usable[:, lead, None]
        spike[:, step:-step] = np.maximum(spike[:, step:-step], np.where(stands_out, sharp, np.float32(0)))
    hits = np.cumsum(np.pad(spike > 0, ((0, 0), (1, 0))), axis=1)
    at = np.rint(beats.time * hz).astype(np.int64)
    begin = np.clip(at - milliseconds(SPIKE_BEFORE_MS, hz), 0, length)
    end = np.clip(at + milliseconds(20, hz), 0, length)
    paced = (hits[beats.record, end] - hits[beats.record, begin]) > 0
    count = np.bincount(beats.record, minlength=n_records)
    with_beats = count > 0
    total = np.bincount(beats.record, weights=paced, minlength=n_records)
    share[with_beats] = (total[with_beats] / count[with_beats]).astype(np.float32)
    return share


def longest_pause(beats: Beats, blind: Bools, seconds: float, hz: int) -> tuple[Floats, Floats]:
    """Longest stretch without a beat (s) and where it begins, (n_records,) each, of the time that was recorded whole.

    Args:
        blind: (n_records, n_samples) where no lead was recorded.
    """
    n_records = len(blind)
    hidden = np.cumsum(np.pad(blind, ((0, 0), (1, 0))), axis=1)
    edges = np.searchsorted(beats.record, np.arange(n_records + 1))
    longest, begins = np.zeros(n_records, np.float32), np.zeros(n_records, np.float32)
    for index in range(n_records):
        times = np.concatenate([[0.0], beats.time[edges[index] : edges[index + 1]], [seconds]])
        gaps = np.diff(times)
        samples = np.clip(np.rint(times * hz), 0, blind.shape[1]).astype(np.int64)
        gaps = np.where(np.diff(hidden[index, samples]) > 0.1 * hz, 0, gaps)
        longest[index], begins[index] = gaps.max(), times[gaps.argmax()]
    return longest, begins


def swapped_limb_leads(columns: dict[str, Floats]) -> list[tuple[int, str]]:
    """(record, what was seen) of records whose limb electrodes were probably exchanged.

    Right and left arm: P, QRS and T all point downwards in I and upwards in aVR, while V6 is as usual (dextrocardia
    turns V6 as well). Right arm and right leg: II is nearly flat, I and III are not. See Batchvarov et al. 2007,
    doi:10.1093/europace/eum215. Other exchanges cannot be told from disease and are not looked for.
    """

    def column(name: str) -> Floats:
        return columns[name]

    with np.errstate(invalid="ignore"):
        p_down = np.isnan(column("P_Amp_I")) | (column("P_Amp_I") <= 0)
        arms = p_down & (np.isnan(column("P_Amp_aVR")) | (column("P_Amp_aVR") >= 0))
        arms &= (column("P_Amp_I") < 0) | np.isnan(column("P_Amp_I"))
        arms &= (column("QRS_Area_I") < 0) & (column("QRS_Area_aVR") > 0) & (column("QRS_Area_V6") > 0)
        arms &= (column("T_Amp_I") < -SWAP_MV) & (column("T_Amp_aVR") > 0) & (column("T_Amp_V6") > SWAP_MV)
        other = np.fmin(column("QRS_AmpPP_I"), column("QRS_AmpPP_III"))
        leg = (column("QRS_AmpPP_II") < FLAT_II_MV) & (column("QRS_AmpPP_II") < FLAT_II_SHARE * other)
    seen = [(int(record), "right and left arm: I is upside down and V6 is not") for record in np.flatnonzero(arms)]
    seen += [(int(record), "right arm and right leg: II is nearly flat") for record in np.flatnonzero(leg)]
    return seen


def premature(beats: Beats, n_records: int, most_variation: float = 0.1) -> Integers:
    """(n_records,) ectopic beats: those of another kind than most, and early ones in an otherwise regular rhythm.

    Early is less than 80 % of the median RR interval, followed by a longer one; where the rhythm is irregular (the
    middle half of the intervals spans more than `most_variation` of the median), being early means nothing.
    """
    edges = np.searchsorted(beats.record, np.arange(n_records + 1))
    count = np.zeros(n_records, np.int64)
    for index in range(n_records):
        dominant = beats.dominant[edges[index] : edges[index + 1]]
        intervals = np.diff(beats.time[edges[index] : edges[index + 1]])
        ectopic = ~dominant
        if len(intervals) >= 4:
            low, usual, high = np.quantile(intervals, (0.25, 0.5, 0.75))
            if high - low <= most_variation * usual:
                early = (intervals[:-1] < 0.8 * usual) & (intervals[1:] > 1.05 * intervals[:-1])
                ectopic[1:-1] |= early & dominant[:-2]
        count[index] = ectopic.sum()
    return count
