"""One heart beat as a sum of waves with exact onsets and offsets, in eight independent leads.

Every wave rises from zero, may hold a plateau and falls back to zero at stated times; its flanks are (1 - u²)², close
to a raised cosine but without a transcendental function. Limb leads are projections of a vector in the frontal plane
(Einthoven's triangle), so that a frontal axis is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecglm.synth.sources.simulator.patients import Plan, Traits

Floats = NDArray[np.float64]

INDEPENDENT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
_ROOT = math.sqrt(3.0) / 2.0
FROM_VECTOR = np.zeros((8, 8))
"""(frontal x, frontal y, V1..V6) → the independent leads."""
FROM_VECTOR[0, 0] = 1.0
FROM_VECTOR[1, :2] = 0.5, _ROOT
FROM_VECTOR[2:, 2:] = np.eye(6)
TWELVE = np.zeros((12, 8))
"""The independent leads → all twelve in the order of `schema.LEADS`: Einthoven's and Goldberger's equations."""
TWELVE[:6, :2] = (1, 0), (0, 1), (-1, 1), (-0.5, -0.5), (1, -0.5), (-0.5, 1)
TWELVE[6:, 2:] = np.eye(6)

FLANK_AREA = 8.0 / 15.0
"""Area under one flank of unit height and unit width."""
N_QRS_WAVES = 6
"""Lobes of a QRS complex; in a beat they follow the P waves, then come the ST level and the T wave."""


@dataclass(frozen=True, slots=True)
class Beat:
    """One beat; times in ms from QRS onset.

    edges: (n_waves, 4) rise begins, full height from, full height to, fall ends.
    amplitudes: (n_waves, 8) in mV, leads as `INDEPENDENT_LEADS`.
    """

    edges: Floats
    amplitudes: Floats
    n_p_waves: int
    p_ms: float
    pr_ms: float
    qrs_ms: float
    t_onset_ms: float
    qt_ms: float
    t_leads: Floats  # (8,) mV, the T wave alone

    @property
    def p_area(self) -> Floats:
        """(8,) mV·ms under the P waves."""
        return _lobe_area(self.edges, self.amplitudes, slice(0, self.n_p_waves))

    @property
    def qrs_area(self) -> Floats:
        """(8,) mV·ms under the QRS complex, with the flank on which the ST level rises before the J point."""
        lobes = slice(self.n_p_waves, self.n_p_waves + N_QRS_WAVES)
        begin, j_point = self.edges[lobes.stop, :2]
        st_flank: Floats = self.amplitudes[lobes.stop] * (j_point - begin) * FLANK_AREA
        return _lobe_area(self.edges, self.amplitudes, lobes) + st_flank

    def trace(self, times_ms: Floats) -> Floats:
        """(8, n_times) in mV of this beat alone."""
        trace: Floats = self.amplitudes.T @ shape(times_ms, self.edges[:, :, None])
        return trace


def _lobe_area(edges: Floats, amplitudes: Floats, waves: slice) -> Floats:
    """(8,) mV·ms under waves without a plateau."""
    area: Floats = (edges[waves, 3] - edges[waves, 0]) * FLANK_AREA @ amplitudes[waves]
    return area


def shape(times_ms: Floats, edges: Floats) -> Floats:
    """Height 0..1 of waves at given times; `edges[:, 0..3]` broadcast against `times_ms`."""
    begin, full_from, full_to, end = edges[:, 0], edges[:, 1], edges[:, 2], edges[:, 3]
    away = np.maximum((full_from - times_ms) / (full_from - begin), (times_ms - full_to) / (end - full_to))
    np.maximum(away, 0.0, out=away)
    np.minimum(away, 1.0, out=away)
    away *= away
    np.subtract(1.0, away, out=away)
    away *= away
    height: Floats = away
    return height


def span(quantile: float, low: float, high: float) -> float:
    """The value that lies at a quantile of a uniform range."""
    return low + quantile * (high - low)


# Depolarisation in time: centre and half width of each lobe as a share of the QRS duration.
_LOBES = np.array([(0.17, 0.17), (0.36, 0.22), (0.52, 0.26), (0.70, 0.22), (0.86, 0.14)])
_LOBES_LEFT_BLOCK = np.array([(0.11, 0.11), (0.30, 0.22), (0.47, 0.28), (0.66, 0.26), (0.86, 0.14)])
# Lobe heights in V1..V6, mV: septal, anterior, main left ventricular, basal, terminal.
_PRECORDIAL = np.array(
    [
        (0.20, 0.24, 0.16, 0.02, -0.07, -0.09),
        (-0.03, 0.34, 0.74, 0.78, 0.36, 0.14),
        (-0.85, -0.98, -0.08, 0.85, 1.20, 1.02),
        (-0.25, -0.62, -0.72, -0.50, -0.12, 0.10),
        (0.0, -0.03, -0.10, -0.14, -0.12, -0.06),
    ]
)
_PRECORDIAL_ANTEROSEPTAL = np.array(
    [
        (-0.14, -0.28, -0.26, -0.12, -0.04, -0.06),
        (-0.35, -0.55, -0.50, 0.10, 0.25, 0.10),
        (-0.75, -0.90, -0.50, 0.45, 0.95, 0.90),
        (-0.25, -0.50, -0.50, -0.45, -0.15, 0.08),
        (0.0, -0.03, -0.06, -0.10, -0.10, -0.05),
    ]
)
_PRECORDIAL_LEFT_BLOCK = np.array(
    [
        (0.16, 0.22, 0.20, 0.14, 0.08, 0.08),
        (-0.45, -0.55, -0.35, 0.10, 0.50, 0.58),
        (-0.50, -0.65, -0.45, -0.15, 0.25, 0.25),
        (-0.55, -0.80, -0.70, -0.20, 0.62, 0.78),
        (-0.12, -0.20, -0.18, -0.05, 0.08, 0.10),
    ]
)
_PRECORDIAL_PACED = np.array(
    [
        (0.10, 0.12, 0.12, 0.12, 0.12, 0.10),
        (-0.45, -0.65, -0.70, -0.65, -0.45, -0.25),
        (-0.50, -0.75, -0.80, -0.75, -0.55, -0.30),
        (-0.45, -0.65, -0.70, -0.65, -0.50, -0.30),
        (-0.12, -0.18, -0.18, -0.16, -0.12, -0.06),
    ]
)
_RIGHT_BLOCK_TERMINAL = np.array((0.85, 0.50, 0.05, -0.28, -0.38, -0.40))
_P_PRECORDIAL = np.array([(0.05, 0.05, 0.045, 0.045, 0.04, 0.035), (-0.03, 0.015, 0.03, 0.03, 0.035, 0.035)])
_T_PRECORDIAL = np.array((0.0, 0.34, 0.42, 0.42, 0.36, 0.27))


def _vector(size: float, degrees: float) -> tuple[float, float]:
    """(leftward, downward) of a frontal vector; 0° points to the left arm, +90° to the feet."""
    return size * math.cos(math.radians(degrees)), size * math.sin(math.radians(degrees))


def frontal_axis_degrees(left: float, down: float) -> float:
    """Frontal axis in (-180, 180] degrees of a vector (lead I, 2/√3 · aVF)."""
    degrees = math.degrees(math.atan2(down, left))
    return 180.0 if degrees == -180.0 else degrees


def _axis(plan: Plan, traits: Traits) -> float:
    ranges: dict[str, tuple[float, float]] = {
        "normal": (4, 87), "leftward": (-27, -3), "left": (-42, -33), "right": (93, 117),
        "far_right": (123, 150), "extreme": (-165, -105),
    }  # fmt: skip
    low, high = ranges[plan.axis]
    if plan.conduction in ("lafb", "lpfb", "lbbb", "paced"):
        low, high = {"lafb": (-74, -48), "lpfb": (98, 130), "lbbb": (-38, 55), "paced": (-82, -58)}[plan.conduction]
    elif plan.infarction == "inferior":
        low, high = -26, 38
    elif plan.conduction == "rbbb" and plan.axis == "normal":
        low, high = 4, 80
    elif plan.voltage == "high" and plan.axis == "normal":
        low, high = 4, 60
    return span(traits.axis, low, high)


def _frontal_lobes(plan: Plan, traits: Traits, axis: float) -> list[tuple[float, float]]:
    """(size relative to the main lobe, direction in degrees) of the five QRS lobes in the frontal plane."""
    septal = span(traits.septal, 0.08, 0.16)
    late = span(traits.terminal, 0.05, 0.14)
    if plan.conduction == "lafb":
        return [(0.24, 105.0), (0.28, axis + 45), (1.0, axis), (0.60, axis - 12), (late, axis - 30)]
    if plan.conduction == "lpfb":
        return [(0.17, -56.0), (0.28, axis - 60), (1.0, axis), (0.50, axis + 12), (late, axis + 30)]
    if plan.conduction == "lbbb":
        return [(0.14, max(axis, 24.0)), (0.72, axis + 8), (0.30, axis), (0.90, axis - 8), (0.1, axis)]
    if plan.conduction == "paced":
        return [(0.16, 100.0), (0.70, axis), (0.70, axis), (0.60, axis), (0.1, axis)]
    if plan.infarction == "inferior":
        return [(0.42, -88.0), (0.24, -70.0), (1.0, axis + 12), (0.35, axis), (late, axis - 90)]
    if axis > 90.0 or axis < -90.0:  # first to the left and down: no Q waves that a block or an infarct would explain
        initial = 28.0 if axis > 90.0 else 62.0
        return [(septal + 0.10, initial), (0.3, axis - 15), (1.0, axis), (0.3, axis + 12), (late, axis - 130)]
    turn = 1.0 if axis < 50.0 else -1.0  # horizontal hearts turn counterclockwise, vertical ones clockwise
    initial = 165.0 - 1.8 * max(0.0, axis - 50.0) if axis > -5.0 else 140.0
    return [
        (septal, initial),
        (0.30, axis + 24 * turn),
        (1.0, axis),
        (0.30, axis - 28 * turn),
        (late, axis - 135 * turn),
    ]


def _shifted(table: Floats, shift: float) -> Floats:
    """A V1..V6 table read `shift` electrode positions further to the left: the transition zone moves."""
    position = np.clip(np.arange(6) + shift, 0.0, 5.0)
    low = np.minimum(position.astype(np.int64), 4)
    part = position - low
    moved: Floats = table[..., low] * (1.0 - part) + table[..., low + 1] * part
    return moved


def _depolarisation(plan: Plan, traits: Traits, qrs_ms: float, axis: float, sex: str) -> tuple[Floats, Floats]:
    """Edges (6, 4) and heights (6, 8: frontal x, y, V1..V6) of the QRS lobes; the last is right-bundle delay."""
    lobes = _LOBES_LEFT_BLOCK if plan.conduction in ("lbbb", "paced") else _LOBES
    share = {"rbbb": 0.66, "irbbb": 0.80}.get(plan.conduction, 1.0)
    edges = np.empty((6, 4))
    edges[:5, 0] = (lobes[:, 0] - lobes[:, 1]) * qrs_ms * share
    edges[:5, 1] = edges[:5, 2] = lobes[:, 0] * qrs_ms * share
    edges[:5, 3] = (lobes[:, 0] + lobes[:, 1]) * qrs_ms * share
    edges[5] = (share - 0.12) * qrs_ms, (share + 0.84) / 1.9 * qrs_ms, (share + 0.84) / 1.9 * qrs_ms, qrs_ms
    heights = np.zeros((6, 8))
    limb = span(traits.limb_gain, 0.72, 1.25)
    limb *= {"low": 0.36, "high": 1.12}.get(plan.voltage, 0.86 if axis < 0.0 else 1.0)
    limb *= 0.85 if plan.conduction == "lbbb" else 1.0
    for lobe, (size, degrees) in enumerate(_frontal_lobes(plan, traits, axis)):
        heights[lobe, :2] = _vector(size * limb, degrees)
    table = {"lbbb": _PRECORDIAL_LEFT_BLOCK, "paced": _PRECORDIAL_PACED}.get(plan.conduction, _PRECORDIAL)
    if plan.infarction == "anteroseptal":
        table = _PRECORDIAL_ANTEROSEPTAL
    wide = plan.conduction in ("lbbb", "paced") or plan.infarction == "anteroseptal"
    gain = span(traits.precordial_gain, 0.82, 1.42) * (0.88 if sex == "female" else 1.0)
    gain *= {"low": 0.40, "high": 1.80}.get(plan.voltage, 1.15 if wide else 1.0)
    electrodes = np.array([traits.lead_1, traits.lead_2, traits.lead_3, traits.lead_4, traits.lead_5, traits.lead_6])
    moved = _shifted(table, span(traits.transition, -0.2, 0.2) if wide else span(traits.transition, -0.5, 0.5))
    heights[:5, 2:] = moved * gain * (0.9 + 0.2 * electrodes)
    if plan.conduction in ("rbbb", "irbbb"):
        size = 1.0 if plan.conduction == "rbbb" else 0.42
        heights[2:4, 2:4] *= 0.55
        heights[5, :2] = _vector(0.38 * size * limb, span(traits.terminal, 165, 200))
        heights[5, 2:] = _RIGHT_BLOCK_TERMINAL * size * gain
    return edges, heights


def _repolarisation(plan: Plan, traits: Traits, axis: float) -> tuple[Floats, Floats]:
    """ST level and T wave as (8: frontal x, y, V1..V6) in mV."""
    st, t = np.zeros(8), np.zeros(8)
    gain = span(traits.t_gain, 0.75, 1.35) * (0.8 if plan.voltage == "low" else 1.0)
    t_axis = span(traits.t_axis, 25, 58)
    t[:2] = _vector(0.30 * gain, t_axis)
    t[2:] = _T_PRECORDIAL * gain
    t[2] = span(traits.t_v1, -0.08, 0.12)
    st[3:5] = span(traits.st_gain, 0.0, 0.07)
    strength = span(traits.st_gain, 1.0, 1.7)
    kind: str = plan.repolarisation
    if plan.infarction != "none":
        inferior = plan.infarction == "inferior"
        kind = {
            "Stadium I": "elevation_inferior" if inferior else "elevation_anterior",
            "Stadium II": "inversion_inferior" if inferior else "inversion_anterior",
            "Stadium II-III": "inversion_inferior" if inferior else "inversion_anterior",
        }.get(plan.stage, "normal")
    if plan.conduction == "lbbb":
        t[:2] = _vector(0.22 * gain, axis + 180)
        t[2:] = np.array((0.30, 0.48, 0.42, 0.20, -0.16, -0.22)) * gain
        st[:2] = _vector(0.10 * strength, axis + 180)
        st[2:] = np.array((0.05, 0.075, 0.065, 0.02, -0.08, -0.09)) * min(strength, 1.5)
    elif plan.conduction == "paced":
        t[:2] = _vector(0.30 * gain, 95)
        t[2:] = np.array((0.30, 0.48, 0.48, 0.42, 0.34, 0.20)) * gain
        st[:2] = _vector(0.06, 95)
        st[2:] = np.array((0.05, 0.075, 0.075, 0.065, 0.05, 0.03))
    elif plan.strain:
        t[:2] = _vector(0.24 * gain, 152)
        t[2:] = np.array((0.12, 0.34, 0.30, 0.05, -0.20, -0.24)) * gain
        st[:2] = _vector(0.115 * strength, 152)
        st[2:] = np.array((0.03, 0.05, 0.03, -0.02, -0.09, -0.10)) * strength
    elif plan.conduction == "rbbb":
        t[2], t[3] = -0.22 * gain, span(traits.t_v1, 0.02, 0.12)
    elif kind == "elevation_inferior":
        st[:2] = _vector(0.17 * strength, 95)
        t[:2] = _vector(0.34 * gain, 80)
    elif kind == "elevation_anterior":
        st[2:] = np.array((0.10, 0.33, 0.36, 0.22, 0.05, 0.0)) * strength
        t[2:] = np.array((0.15, 0.60, 0.70, 0.55, 0.35, 0.25)) * gain
    elif kind == "depression":
        st[:2] = _vector(0.13 * strength, -128)
        st[2:] = np.array((0.0, -0.01, -0.05, -0.11, -0.12, -0.10)) * strength
        t[:2] *= 0.8
        t[2:] *= 0.85
    elif kind == "inversion_anterior":
        t[:2] = _vector(0.22 * gain, 100)
        t[2:] = np.array((-0.10, -0.26, -0.36, -0.34, -0.22, -0.03)) * gain * (0.8 if plan.stage != "unknown" else 1)
    elif kind == "inversion_inferior":
        t[:2] = _vector(0.28 * gain, -66)
    return st, t


def qt_interval_ms(plan: Plan, traits: Traits, rr_ms: float, sex: str) -> float:
    """A QT interval that every rate correction (Bazett, Fridericia, Framingham) calls normal, or every one long."""
    rr = rr_ms / 1000.0
    if plan.long_qt:
        target = span(traits.qtc, 490, 528)
        return max(target * math.sqrt(rr), target * math.cbrt(rr), target - 154 * (1 - rr))
    low, high = (400, 441) if sex == "male" else (406, 449)
    if plan.conduction in ("lbbb", "rbbb", "paced"):
        low = high - 14
    target = span(traits.qtc, low, high)
    return min(target * math.sqrt(rr), target * math.cbrt(rr), target - 154 * (1 - rr))


def qrs_range_ms(plan: Plan) -> tuple[int, int]:
    """Shortest and longest QRS complex of the ordinary beats."""
    if plan.infarction != "none":
        return 96, 108
    return {
        "normal": (78, 104), "irbbb": (112, 118), "rbbb": (124, 158), "lbbb": (128, 164), "lafb": (96, 114),
        "lpfb": (92, 112), "paced": (140, 172),
    }[plan.conduction]  # fmt: skip


def build_beat(plan: Plan, traits: Traits, rr_ms: float, sex: Literal["male", "female"]) -> Beat:
    """The patient's ordinary beat. P waves come first in it, and there are none without sinus rhythm."""
    axis = _axis(plan, traits)
    low, high = qrs_range_ms(plan)
    qrs_ms = round(span(traits.qrs_ms, low, high))
    qt_ms = round(qt_interval_ms(plan, traits, rr_ms, sex))
    edges, heights = _depolarisation(plan, traits, qrs_ms, axis, sex)
    st, t = _repolarisation(plan, traits, axis)
    jt_ms = qt_ms - qrs_ms
    t_onset = qrs_ms + 0.26 * jt_ms
    t_peak = qrs_ms + span(traits.st_rise, 0.66, 0.72) * jt_ms
    st_edges = np.array([(qrs_ms - 24.0, qrs_ms, qrs_ms + 0.36 * jt_ms, t_peak + 0.12 * jt_ms)])
    t_edges = np.array([(t_onset, t_peak, t_peak, float(qt_ms))])
    _turn_to_axis(edges, heights, st * 24.0 * FLANK_AREA, axis)
    p_edges, p_heights = np.zeros((0, 4)), np.zeros((0, 8))
    pr_ms = p_ms = 0.0
    if plan.sinus:
        pr_ms, p_ms, p_edges, p_heights = _atrial_waves(plan, traits)
    all_heights = np.concatenate([p_heights, heights, st[None], t[None]])
    all_edges = np.concatenate([p_edges, edges, st_edges, t_edges])
    if plan.rhythm == "paced":  # the stimulus, ended before the QRS begins
        all_edges = np.concatenate([all_edges, [(-24.0, -13.0, -13.0, -2.0)]])
        all_heights = np.concatenate([all_heights, [(0.5, -0.7, -0.4, -0.5, -0.6, -0.6, -0.5, -0.4)]])
    return Beat(
        edges=all_edges,
        amplitudes=all_heights @ FROM_VECTOR.T,
        n_p_waves=len(p_edges),
        p_ms=p_ms,
        pr_ms=pr_ms,
        qrs_ms=qrs_ms,
        t_onset_ms=t_onset,
        qt_ms=qt_ms,
        t_leads=FROM_VECTOR @ t,
    )


def _turn_to_axis(edges: Floats, heights: Floats, other_area: Floats, axis: float) -> None:
    """Tilt the main lobe (in place) until the net QRS area points exactly along `axis`."""
    areas = (edges[:, 3] - edges[:, 0]) * FLANK_AREA
    left, down = (areas @ heights[:, :2] + other_area[:2]).tolist()
    across = _vector(1.0, axis + 90.0)
    excess = left * across[0] + down * across[1]
    main = 3 if heights[3, :2] @ heights[3, :2] > heights[2, :2] @ heights[2, :2] else 2
    heights[main, 0] -= excess * across[0] / areas[main]
    heights[main, 1] -= excess * across[1] / areas[main]


def _atrial_waves(plan: Plan, traits: Traits) -> tuple[float, float, Floats, Floats]:
    """PR interval, P duration, and the right and left atrial waves."""
    pr_low, pr_high = (210, 300) if plan.first_degree_block else (126, 194)
    if plan.rhythm == "tachycardia":
        pr_low, pr_high = 122, 152
    pr_ms = round(span(traits.pr_ms, pr_low, pr_high))
    p_low, p_high = (126, 140) if plan.left_atrium else (84, min(112, pr_ms - 30))
    if plan.left_atrium:
        pr_ms = max(pr_ms, 164)
    p_ms = round(span(traits.p_ms, p_low, p_high))
    first_ends, second_begins = 0.70, 0.34
    edges = -pr_ms + p_ms * np.array(
        [(0.0, 0.34, 0.34, first_ends), (second_begins, 0.64, 0.64, 1.0)], dtype=np.float64
    )
    heights = np.zeros((2, 8))
    gain = span(traits.p_gain, 0.75, 1.25)
    heights[:, :2] = _vector(0.105 * gain, span(traits.p_axis, 32, 68))
    heights[:, 2:] = _P_PRECORDIAL * gain
    if plan.left_atrium:
        heights[1, 2] = -span(traits.p_gain, 0.115, 0.16)
        heights[1, :2] *= 1.1
    return pr_ms, p_ms, edges, heights


def ventricular_ectopic(plan: Plan, traits: Traits, beat: Beat) -> Beat:
    """A wide premature beat with discordant T wave and no P wave."""
    qrs_ms = round(span(traits.septal, 138, 172))
    qt_ms = round(beat.qt_ms + 0.6 * (qrs_ms - beat.qrs_ms))
    right = traits.terminal < 0.4  # from the left ventricle, so positive in V1
    heights = np.zeros((4, 8))
    gain = span(traits.limb_gain, 1.0, 1.5) * (0.5 if plan.voltage == "low" else 1.0)
    frontal = _vector(1.1 * gain, 80.0 if not right else -100.0)
    table = np.array((0.9, 1.1, 0.7, 0.1, -0.5, -0.7) if right else (-0.7, -1.0, -0.6, 0.5, 1.0, 0.9)) * gain
    for lobe, weight in enumerate((0.25, 1.0, 0.55)):
        heights[lobe, :2] = frontal[0] * weight, frontal[1] * weight
        heights[lobe, 2:] = table * weight
    heights[3] = -0.45 * heights[1]
    jt_ms = qt_ms - qrs_ms
    edges = np.array(
        [
            (0.0, 0.16 * qrs_ms, 0.16 * qrs_ms, 0.36 * qrs_ms),
            (0.08 * qrs_ms, 0.42 * qrs_ms, 0.42 * qrs_ms, 0.84 * qrs_ms),
            (0.38 * qrs_ms, 0.68 * qrs_ms, 0.68 * qrs_ms, qrs_ms),
            (0.92 * qrs_ms, qrs_ms + 0.55 * jt_ms, qrs_ms + 0.55 * jt_ms, qt_ms),
        ]
    )
    leads = heights @ FROM_VECTOR.T
    return Beat(edges, leads, 0, 0.0, 0.0, qrs_ms, 0.92 * qrs_ms, qt_ms, leads[3])
