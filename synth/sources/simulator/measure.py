"""The truth about a simulated ECG under PTB-XL+ column names, from its beat times and its noiseless ordinary beat."""

from __future__ import annotations

import math

import numpy as np

from ecglm.synth.schema import LEADS
from ecglm.synth.sources.simulator.beats import TWELVE, Beat, Floats, frontal_axis_degrees, shape
from ecglm.synth.sources.simulator.patients import Plan
from ecglm.synth.sources.simulator.rhythms import ORDINARY, Strip

SMALLEST_P_MV = 0.02
SMALLEST_WAVE_MV, SMALLEST_WAVE_AREA = 0.025, 0.16
"""A deflection of less height (mV) or area (mV·ms) is not called a wave of the QRS complex."""
SMALLEST_R_SHARE = 0.12
"""An upward deflection lower than this share of the highest one is not the R wave."""
QS_RATIO = 4.0
"""A deflection this many times as deep as R is high, with no S after R, is a QS complex: both a Q and an S wave."""
ST_SHARE = 0.7
"""A last deflection that keeps this share of its height at the J point is the ST level."""

GLOBAL_COUNTS = ("QRS_Count_Global", "P_Found_Global")
GLOBALS = (
    "HR__Global", "HR_Atrial_Global", "RR_Mean_Global", "RR_StdDev_Global", *GLOBAL_COUNTS, "PR_Int_Global",
    "P_Dur_Global", "QRS_Dur_Global", "QT_Int_Global", "QT_IntBazett_Global", "QT_IntFridericia_Global",
    "QT_IntFramingham_Global", "P_AxisFront_Global", "QRS_AxisFront_Global", "T_AxisFront_Global",
)  # fmt: skip
PER_LEAD = (
    "P_Amp", "P-_Amp", "P-_Dur", "Q_Amp", "Q_Dur", "R_Amp", "R_Dur", "R_PeakTime", "Rp_Amp", "Rp_Dur", "S_Amp",
    "S_Dur", "Sp_Amp", "Sp_Dur", "QRS_AmpPP",
    "ST_Amp", "ST_Amp80ms", "T_Amp",
)  # fmt: skip
COLUMNS = (*GLOBALS, *(f"{name}_{lead}" for name in PER_LEAD for lead in LEADS))

Truth = dict[str, float | None]
"""Every one of `COLUMNS`: ms, mV, degrees, beats per minute; None where the quantity does not exist."""


def measure(plan: Plan, strip: Strip, beat: Beat) -> Truth:
    """Every measurement of a planned ECG. Amplitudes are read from the continuous noiseless beat on a 1 ms grid."""
    truth: Truth = dict.fromkeys(COLUMNS)
    _measure_rhythm(truth, plan, strip, beat)
    qrs_ms, n_p_waves = int(beat.qrs_ms), beat.n_p_waves
    times = np.arange(0.0, max(beat.qt_ms, qrs_ms + 80.0) + 1.0)
    ventricular = TWELVE @ (beat.amplitudes[n_p_waves:].T @ shape(times, beat.edges[n_p_waves:, :, None]))
    qrs = ventricular[:, : qrs_ms + 1]
    t_wave = ventricular[:, int(np.ceil(beat.t_onset_ms)) : int(beat.qt_ms) + 1]
    truth["QRS_AxisFront_Global"] = _axis(beat.qrs_area)
    truth["T_AxisFront_Global"] = _axis(t_wave[:2].sum(axis=1))
    upright = TWELVE @ beat.t_leads >= 0.0
    per_lead: dict[str, Floats | list[float]] = {
        "T_Amp": np.where(upright, t_wave.max(axis=1), t_wave.min(axis=1)),
        "ST_Amp": ventricular[:, qrs_ms],
        "ST_Amp80ms": ventricular[:, qrs_ms + 80],
        "QRS_AmpPP": qrs.max(axis=1) - qrs.min(axis=1),
        **_deflections(qrs),
    }
    if n_p_waves:
        times = np.arange(-beat.pr_ms, -beat.pr_ms + beat.p_ms + 1.0)
        p_wave = TWELVE @ (beat.amplitudes[:n_p_waves].T @ shape(times, beat.edges[:n_p_waves, :, None]))
        truth["P_AxisFront_Global"] = _axis(beat.p_area)
        highest, lowest = p_wave.max(axis=1), p_wave.min(axis=1)
        upright, inverted = highest >= SMALLEST_P_MV, lowest <= -SMALLEST_P_MV
        up_first = np.where(upright & inverted, p_wave.argmax(axis=1) < p_wave.argmin(axis=1), upright)
        per_lead["P_Amp"] = np.where(up_first, highest, np.where(inverted, lowest, 0.0))
        per_lead["P-_Amp"] = np.where(inverted, lowest, 0.0)
        per_lead["P-_Dur"] = np.where(inverted, (p_wave < -1e-6).sum(axis=1), 0)
    rounded = np.round(list(per_lead.values()), 4) + 0.0  # to 0.1 µV, without negative zero
    for name, values in zip(per_lead, rounded.tolist(), strict=True):
        for lead, value in zip(LEADS, values, strict=True):
            truth[f"{name}_{lead}"] = value
    for lead, height, time in zip(LEADS, per_lead["R_Amp"], qrs.argmax(axis=1).tolist(), strict=True):
        truth[f"R_PeakTime_{lead}"] = float(time) if height else None
    return truth


def _axis(area: Floats) -> float:
    """Frontal axis in degrees of net areas that begin with those of leads I and II."""
    one, two = area[:2].tolist()
    return round(frontal_axis_degrees(one, (2.0 * two - one) / math.sqrt(3.0)), 1) + 0.0


def _measure_rhythm(truth: Truth, plan: Plan, strip: Strip, beat: Beat) -> None:
    onsets = strip.onsets_ms[strip.within(beat.qrs_ms)]
    intervals = np.diff(onsets)
    rr = float(intervals.mean())
    truth["QRS_Count_Global"] = len(onsets)
    truth["RR_Mean_Global"] = round(rr, 1)
    truth["RR_StdDev_Global"] = round(float(_normal_intervals(intervals, strip, onsets).std()), 1)
    truth["HR__Global"] = round(60_000.0 / rr, 1)
    truth["P_Found_Global"] = int(plan.sinus)
    if plan.sinus:
        truth["HR_Atrial_Global"] = truth["HR__Global"]
        truth["PR_Int_Global"] = float(beat.pr_ms)
        truth["P_Dur_Global"] = float(beat.p_ms)
    elif plan.rhythm == "flutter":
        truth["HR_Atrial_Global"] = round(60_000.0 / flutter_wave_ms(strip), 1)
    qt, rr_s = float(beat.qt_ms), rr / 1000.0
    truth["QRS_Dur_Global"] = float(beat.qrs_ms)
    truth["QT_Int_Global"] = qt
    truth["QT_IntBazett_Global"] = round(qt / math.sqrt(rr_s), 1)
    truth["QT_IntFridericia_Global"] = round(qt / math.cbrt(rr_s), 1)
    truth["QT_IntFramingham_Global"] = round(qt + 154.0 * (1.0 - rr_s), 1)


def _normal_intervals(intervals: Floats, strip: Strip, onsets: Floats) -> Floats:
    """The intervals with no ectopic beat at either end; all of them where fewer than two are left."""
    ordinary = np.isin(onsets, strip.onsets_ms[strip.kinds == ORDINARY])
    normal = intervals[ordinary[1:] & ordinary[:-1]]
    return normal if len(normal) >= 2 else intervals


def flutter_wave_ms(strip: Strip) -> float:
    """Cycle length of atrial flutter: an even share of the RR interval, near 292 waves per minute."""
    return strip.basic_rr_ms / max(2, round(292.0 * strip.basic_rr_ms / 60_000.0))


def _deflections(qrs: Floats) -> dict[str, list[float]]:
    """Heights (mV) and widths (ms) of Q, R, S, R′ and S′ per lead: runs of one sign of (12, n_times) at 1 ms steps.

    The names are given as `ecglm.synth.measure` gives them: a downward run before R is Q, after it S, after R′ S′; a
    complex without R is a QS complex, both a Q and an S wave. Missing waves are 0.
    """
    waves = ("Q", "R", "S", "Rp", "Sp")
    found: dict[str, list[float]] = {f"{wave}_{what}": [0.0] * len(LEADS) for wave in waves for what in ("Amp", "Dur")}
    n_times = qrs.shape[1]
    for row, curve in enumerate(qrs):
        positive = curve > 0.0
        starts = np.flatnonzero(np.concatenate([[True], positive[1:] != positive[:-1]]))
        height, width = dict.fromkeys(waves, 0.0), dict.fromkeys(waves, 0.0)
        smallest_r = max(SMALLEST_WAVE_MV, SMALLEST_R_SHARE * float(curve.max()))
        for begin, end in zip(starts.tolist(), [*starts[1:].tolist(), n_times], strict=True):
            top = float(max(curve[begin:end], key=abs))
            if end == n_times and abs(float(curve[-1])) >= ST_SHARE * abs(top):
                continue
            if abs(top) < SMALLEST_WAVE_MV or abs(float(curve[begin:end].sum())) < SMALLEST_WAVE_AREA:
                continue
            if top > 0.0:
                wave = "R" if not height["R"] else "Rp" if height["S"] else ""
                if wave == "R" and top < smallest_r:
                    continue
            else:
                wave = "Sp" if height["Rp"] else "S" if height["R"] else "Q"
            if wave and abs(top) > abs(height[wave]):
                height[wave], width[wave] = top, float(min(end - begin, n_times - 1))
        lowest = float(curve.min())
        if not height["S"] and lowest <= -SMALLEST_WAVE_MV and lowest < -QS_RATIO * height["R"]:
            deep = width["Q"] if height["Q"] == lowest else float((curve < 0.0).sum())
            height["Q"] = height["S"] = lowest
            width["Q"] = width["S"] = deep
        for wave in waves:
            found[f"{wave}_Amp"][row], found[f"{wave}_Dur"][row] = height[wave], width[wave]
    return found
