"""When each beat of a ten-second strip begins, and what kind of beat it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecglm.synth.sources.simulator.beats import Floats
from ecglm.synth.sources.simulator.patients import Plan

DURATION_MS = 10_000.0

ORDINARY, VENTRICULAR, ATRIAL = 0, 1, 2
"""Kinds of beat."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Beats around and within the ten seconds.

    onsets_ms: (n_beats,) QRS onsets from the start of the recording; some lie before 0 or after 10,000.
    kinds: (n_beats,) ORDINARY, VENTRICULAR or ATRIAL.
    basic_rr_ms: the RR interval the ordinary beats vary around.
    """

    onsets_ms: Floats
    kinds: NDArray[np.int64]
    basic_rr_ms: float

    def within(self, qrs_ms: float) -> NDArray[np.bool_]:
        """Which beats have their QRS complex wholly inside the recording."""
        inside: NDArray[np.bool_] = (self.onsets_ms >= 0.0) & (self.onsets_ms + qrs_ms <= DURATION_MS)
        return inside

    def cut(self, qrs_ms: float) -> bool:
        """Whether an edge of the recording runs through a QRS complex (or within 20 ms of one)."""
        begin, end = self.onsets_ms - 20.0, self.onsets_ms + qrs_ms + 20.0
        return bool(((begin < 0) & (end > 0)).any() or ((begin < DURATION_MS) & (end > DURATION_MS)).any())


def basic_rate(plan: Plan, random: np.random.Generator) -> float:
    """A ventricular rate in beats per minute that fits the planned rhythm."""
    draw = random.random()
    if plan.rhythm == "bradycardia":
        return 38 + 14 * draw if random.random() < 0.65 else 53 + 5.6 * draw
    low, high = {
        "sinus": (61.5, 92), "tachycardia": (103, 146), "arrhythmia": (63, 84), "fibrillation": (58, 138),
        "flutter": (272, 312), "paced": (60, 82),
    }[plan.rhythm]  # fmt: skip
    if plan.rhythm == "flutter":  # every second to fourth of the atrial waves is conducted
        return (low + (high - low) * draw) / (2 + int(random.random() * 3))
    if plan.long_qt:
        high = 84
    if plan.first_degree_block:
        high = min(high, 86)
    return low + (high - low) * draw * (draw if plan.rhythm == "sinus" else 1.0)


def draw_strip(
    plan: Plan, random: np.random.Generator, shortest_rr_ms: float, rate: float, widest_qrs_ms: float
) -> Strip:
    """Beat times of one recording; `shortest_rr_ms` keeps irregular beats off the T wave before.

    The recording begins and ends between QRS complexes wherever a few random beginnings allow it.
    """
    rr = 60_000.0 / rate
    n_beats = int(DURATION_MS / rr * 1.6) + 8
    if plan.rhythm == "fibrillation":
        skewed = random.gamma(3.2, 1.0, n_beats) / 3.2
        intervals = np.maximum(shortest_rr_ms, rr * (0.42 + 0.58 * skewed))
    elif plan.rhythm in ("flutter", "paced"):
        intervals = np.full(n_beats, rr)
    else:
        phase, breaths = random.random(2).tolist()
        depth = 0.13 if plan.rhythm == "arrhythmia" else 0.012
        turn = 2 * np.pi * (phase + np.arange(n_beats) * rr / 1000.0 * (0.16 + 0.10 * breaths))
        intervals = rr * (1.0 + depth * np.sin(turn) + 0.006 * random.standard_normal(n_beats).clip(-2.5, 2.5))
    onsets = np.cumsum(intervals) - intervals[:4].sum()
    kinds = np.zeros(n_beats, np.int64)
    if plan.ectopic != "none":
        onsets, kinds = _with_ectopics(plan, random, onsets, kinds, shortest_rr_ms)
    for _ in range(16):
        moved = onsets - random.random() * intervals[4]
        strip = Strip(moved, kinds, rr)
        if not strip.cut(widest_qrs_ms):
            break
    near = (moved > -1500.0) & (moved < DURATION_MS + 1500.0)
    return Strip(moved[near], kinds[near], rr)


def _with_ectopics(
    plan: Plan, random: np.random.Generator, onsets: Floats, kinds: NDArray[np.int64], shortest_rr_ms: float
) -> tuple[Floats, NDArray[np.int64]]:
    """Premature beats: a ventricular one leaves the sinus grid untouched, an atrial one resets it."""
    onsets, kinds = onsets.copy(), kinds.copy()
    candidates = np.flatnonzero((onsets > 1500.0) & (onsets < 8200.0))
    wanted = 1 + int(random.random() * 2.2)
    chosen = random.choice(candidates[::3], size=min(wanted, len(candidates[::3])), replace=False)
    for beat in np.sort(chosen).tolist():
        rr = onsets[beat] - onsets[beat - 1]
        coupling = max(shortest_rr_ms + 15.0, rr * (0.60 + 0.12 * random.random()))
        onset = onsets[beat - 1] + coupling
        if plan.ectopic == "ventricular":
            kinds[beat] = VENTRICULAR
        else:
            kinds[beat] = ATRIAL
            onsets[beat + 1 :] -= onsets[beat] - onset
            onsets[beat + 1 :] += rr * (0.04 + 0.10 * random.random())
        onsets[beat] = onset
    return onsets, kinds
