"""Ten seconds of signal: beats on their onsets, atrial activity between them, noise, and whole microvolts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ecglm.synth.schema import LEADS
from ecglm.synth.sources.simulator.beats import (
    FROM_VECTOR,
    Beat,
    Floats,
    shape,
    ventricular_ectopic,
)
from ecglm.synth.sources.simulator.measure import flutter_wave_ms
from ecglm.synth.sources.simulator.patients import Plan, Traits
from ecglm.synth.sources.simulator.rhythms import ATRIAL, DURATION_MS, VENTRICULAR, Strip

SAMPLING_HZ = 100


def clean_signal(plan: Plan, traits: Traits, strip: Strip, beat: Beat, sampling_hz: int = SAMPLING_HZ) -> Floats:
    """(8, n_samples) in mV: the noiseless strip in the independent leads, sampled from its continuous form."""
    step_ms = 1000.0 / sampling_hz
    n_samples = int(DURATION_MS / step_ms)
    ordinary = strip.onsets_ms[strip.kinds != VENTRICULAR]
    atrial = strip.kinds[strip.kinds != VENTRICULAR] == ATRIAL
    signal = _place(beat.edges, beat.amplitudes, ordinary, step_ms, n_samples)
    if atrial.any() and beat.n_p_waves:  # an ectopic P wave is narrower and lower: take the usual one out, put it in
        p_edges, p_heights = beat.edges[: beat.n_p_waves], beat.amplitudes[: beat.n_p_waves]
        signal += _place(p_edges, -0.5 * p_heights, ordinary[atrial], step_ms, n_samples)
    if (strip.kinds == VENTRICULAR).any():
        wide = ventricular_ectopic(plan, traits, beat)
        onsets = strip.onsets_ms[strip.kinds == VENTRICULAR]
        signal += _place(wide.edges, wide.amplitudes, onsets, step_ms, n_samples)
    return signal


def _place(edges: Floats, amplitudes: Floats, onsets: Floats, step_ms: float, n_samples: int) -> Floats:
    """(8, n_samples) sum of the waves (n_waves, 4) at every onset; only the samples a wave touches are computed."""
    n_waves = len(edges)
    absolute = (onsets[:, None, None] + edges[None]).reshape(-1, 4)  # (n_onsets · n_waves, 4)
    first = np.ceil(absolute[:, 0] / step_ms).astype(np.int64)
    width = int(np.max(edges[:, 3] - edges[:, 0]) / step_ms) + 2
    samples = first[:, None] + np.arange(width)
    heights = shape((samples * step_ms).astype(np.float64), absolute[:, :, None])
    kept = (samples >= 0) & (samples < n_samples)
    wave = np.tile(np.arange(n_waves), len(onsets))[:, None] * n_samples
    sums = np.bincount((samples + wave)[kept], weights=heights[kept], minlength=n_waves * n_samples)
    signal: Floats = amplitudes.T @ sums.reshape(n_waves, n_samples)
    return signal


def atrial_activity(plan: Plan, strip: Strip, random: np.random.Generator) -> Floats | float:
    """(8, n_samples) in mV: fibrillatory or flutter waves; 0 in other rhythms."""
    seconds = np.arange(int(DURATION_MS * SAMPLING_HZ / 1000)) / SAMPLING_HZ
    if plan.rhythm == "fibrillation":
        coarse = random.uniform(0.018, 0.055)
        waves = np.zeros((3, len(seconds)))
        for row in range(3):
            centre = random.uniform(5.0, 7.5)
            swing = 0.6 * np.sin(2 * np.pi * (random.uniform(0.1, 0.5) * seconds + random.random()))
            level = 1.0 + 0.45 * np.sin(2 * np.pi * (random.uniform(0.15, 0.6) * seconds + random.random()))
            waves[row] = level * np.sin(2 * np.pi * (centre * seconds + random.random()) + 3.0 * swing)
        mixed = np.zeros((8, len(seconds)))
        mixed[0], mixed[1] = 0.35 * waves[0], 0.7 * waves[1]
        weights = np.array((1.25, 0.7, 0.4, 0.3, 0.25, 0.25))
        mixed[2:] = weights[:, None] * (0.75 * waves[0] + 0.5 * waves[2])
        return coarse * (FROM_VECTOR @ mixed)
    if plan.rhythm == "flutter":
        cycle = flutter_wave_ms(strip) / 1000.0
        phase = ((seconds - strip.onsets_ms[0] / 1000.0) / cycle + 0.35) % 1.0
        saw = np.where(phase < 0.68, 0.5 - phase / 0.68, (phase - 0.68) / 0.32 - 0.5)  # slow fall, quick rise
        saw = np.convolve(np.pad(saw, 1, mode="edge"), (0.25, 0.5, 0.25), "valid")
        vector = np.array((0.01, 0.24, -0.15, -0.05, -0.02, 0.02, 0.03, 0.03)) * random.uniform(0.8, 1.3)
        return np.outer(FROM_VECTOR @ vector, saw)
    return 0.0


@dataclass(slots=True)
class Noise:
    """Disturbances of one recording: the signal to add, and where each kind was put (leads, in lead order)."""

    signal: Floats  # (8, n_samples) in mV
    baseline_drift: list[str] = field(default_factory=list)
    static_noise: list[str] = field(default_factory=list)
    burst_noise: list[str] = field(default_factory=list)
    electrode_problems: list[str] = field(default_factory=list)
    unreadable: NDArray[np.bool_] | None = None  # (8, n_samples) where an electrode gave nothing
    seen_without_leads: bool = False  # static noise in all leads that the reader noted without naming any


LIMB_ELECTRODES = np.zeros((8, 3))
"""What a disturbance at the right arm, left arm or left leg electrode adds to the independent leads."""
LIMB_ELECTRODES[0] = -1, 1, 0
LIMB_ELECTRODES[1] = -1, 0, 1


def draw_noise(random: np.random.Generator) -> Noise:
    """The disturbances of one recording. Every recording has a few microvolts that nobody would remark on."""
    n_samples = int(DURATION_MS * SAMPLING_HZ / 1000)
    seconds = np.arange(n_samples) / SAMPLING_HZ
    chance = random.random(4).tolist()
    noise = Noise(random.standard_normal((8, n_samples)) * random.uniform(0.003, 0.009))
    noise.signal += 0.018 * np.outer(random.standard_normal(8), np.sin(2 * np.pi * (0.23 * seconds + random.random())))
    if chance[0] < 0.08:
        mix, noise.baseline_drift = _draw_place(random)
        drift = np.zeros((mix.shape[1], n_samples))
        for row in range(len(drift)):
            for frequency, size in ((0.05, 0.20), (0.17, 0.20), (0.34, 0.10)):
                wave = np.sin(2 * np.pi * (frequency * random.uniform(0.8, 1.2) * seconds + random.random()))
                drift[row] += size * random.uniform(0.7, 1.5) * wave
        noise.signal += mix @ drift
    if chance[1] < 0.14:
        mix, noise.static_noise = _draw_place(random)
        level = random.uniform(0.03, 0.07)
        noise.signal += mix @ (level * random.standard_normal((mix.shape[1], n_samples)))
        noise.seen_without_leads = len(noise.static_noise) == len(LEADS) and random.random() < 0.25
    if chance[2] < 0.04:
        mix, noise.burst_noise = _draw_place(random)
        centre, half = random.uniform(1.0, 9.0), random.uniform(0.2, 0.6)
        window = np.clip(1.0 - ((seconds - centre) / half) ** 2, 0.0, None) ** 0.5
        noise.signal += mix @ (window * random.uniform(0.2, 0.4) * random.standard_normal((mix.shape[1], n_samples)))
    if chance[3] < 0.012:
        lead = int(random.integers(2, 8))
        noise.electrode_problems = [LEADS[lead + 4]]
        begin, length = random.uniform(0.0, 6.0), random.uniform(1.5, 4.0)
        noise.unreadable = np.zeros((8, n_samples), np.bool_)
        noise.unreadable[lead] = (seconds >= begin) & (seconds < begin + length)
        noise.signal[lead] += np.where(seconds >= begin + length, 0.8 * np.exp(-(seconds - begin - length) / 0.3), 0.0)
    return noise


def _draw_place(random: np.random.Generator) -> tuple[Floats, list[str]]:
    """Where a disturbance is: a mix (8, n_disturbances) of sources into leads, and the leads it shows in."""
    draw = random.random()
    limbs = LIMB_ELECTRODES
    if draw < 0.40:  # one or two neighbouring chest electrodes
        first = int(random.integers(0, 6))
        last = min(5, first + int(random.random() < 0.35))
        mix = np.zeros((8, last - first + 1))
        for column, lead in enumerate(range(first, last + 1)):
            mix[2 + lead, column] = 1.0
        return mix, list(LEADS[6 + first : 7 + last])
    if draw < 0.55:  # one limb electrode: the lead between the other two stays clean
        electrode = int(random.integers(0, 3))
        clean = ("III", "II", "I")[electrode]
        return limbs[:, electrode : electrode + 1].copy(), [lead for lead in LEADS[:6] if lead != clean]
    if draw < 0.82:  # all limb leads
        return limbs.copy(), list(LEADS[:6])
    return np.concatenate([limbs, np.eye(8)[:, 2:]], axis=1), list(LEADS)


def to_microvolts(clean: Floats, noise: Noise | None) -> NDArray[np.int16]:
    """(n_samples, 12) whole µV; III = II − I exactly, the augmented leads to the nearest µV below."""
    signal = clean if noise is None else clean + noise.signal
    if noise is not None and noise.unreadable is not None:
        signal = np.where(noise.unreadable, 0.0, signal)
    eight = np.rint(signal * 1000.0).astype(np.int64)
    one, two = eight[0], eight[1]
    twelve = np.empty((eight.shape[1], 12), "<i2")
    twelve[:, 0], twelve[:, 1], twelve[:, 2] = one, two, two - one
    twelve[:, 3], twelve[:, 4], twelve[:, 5] = -((one + two) >> 1), (2 * one - two) >> 1, (2 * two - one) >> 1
    twelve[:, 6:] = eight[2:].T
    return twelve
