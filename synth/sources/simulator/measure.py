"""The truth about a simulated ECG under PTB-XL+ column names, from its beat times and its noiseless ordinary beat."""

from __future__ import annotations

import math

import numpy as np

from ecglm.synth.schema import LEADS
from ecglm.synth.sources.simulator.beats import TWELVE, Beat, Floats, frontal_axis_degrees, shape
from ecglm.synth.sources.simulator.patients import Plan
from ecglm.synth.sources.simulator.rhythms import Strip

SMALLEST_WAVE_MV = 0.02
"""A smaller deflection is not called a Q, R, S or R′ wave."""

GLOBAL_COUNTS = ("QRS_Count_Global", "P_Found_Global")
GLOBALS = (
    "HR__Global", "HR_Atrial_Global", "RR_Mean_Global", "RR_StdDev_Global", *GLOBAL_COUNTS, "PR_Int_Global",
    "P_Dur_Global", "QRS_Dur_Global", "QT_Int_Global", "QT_IntBazett_Global", "QT_IntFridericia_Global",
    "QT_IntFramingham_Global", "P_AxisFront_Global", "QRS_AxisFront_Global", "T_AxisFront_Global",
)  # fmt: skip
PER_LEAD = (
    "P_Amp", "P-_Amp", "P-_Dur", "Q_Amp", "Q_Dur", "R_Amp", "R_PeakTime", "Rp_Amp", "S_Amp", "S_Dur", "QRS_AmpPP",
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
        per_lead["P_Amp"] = np.where(highest >= -lowest, highest, lowest)
        per_lead["P-_Amp"] = np.minimum(0.0, lowest)
        per_lead["P-_Dur"] = (p_wave < -1e-6).sum(axis=1)
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
    truth["RR_StdDev_Global"] = round(float(intervals.std()), 1)
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


def flutter_wave_ms(strip: Strip) -> float:
    """Cycle length of atrial flutter: an even share of the RR interval, near 292 waves per minute."""
    return strip.basic_rr_ms / max(2, round(292.0 * strip.basic_rr_ms / 60_000.0))


def _deflections(qrs: Floats) -> dict[str, list[float]]:
    """Heights (mV) and widths (ms) of Q, R, S and R′ per lead: runs of one sign of a (12, n_times) QRS at 1 ms steps.

    A complex that is negative throughout is a Q wave (QS). Missing waves are 0. A run that still grows at the J
    point is the ST level, not a wave.
    """
    n_times = qrs.shape[1]
    flat = qrs.ravel()
    positive = flat > 0.0
    turns = np.empty(len(flat), np.bool_)
    np.not_equal(positive[1:], positive[:-1], out=turns[1:])
    turns[::n_times] = True
    starts = np.flatnonzero(turns)
    widths = np.diff(starts, append=len(flat)).tolist()
    highest = np.maximum.reduceat(flat, starts).tolist()
    lowest = np.minimum.reduceat(flat, starts).tolist()
    j_point = qrs[:, -1].tolist()
    found: dict[str, list[float]] = {
        name: [0.0] * len(LEADS) for name in ("Q_Amp", "Q_Dur", "R_Amp", "Rp_Amp", "S_Amp", "S_Dur")
    }
    for begin, width, high, low in zip(starts.tolist(), widths, highest, lowest, strict=True):
        row = begin // n_times
        if (begin + width) % n_times == 0 and j_point[row] == (high if high > 0.0 else low):
            continue
        if high >= SMALLEST_WAVE_MV:
            wave = "R_Amp" if found["S_Amp"][row] == 0.0 else "Rp_Amp"
            found[wave][row] = max(found[wave][row], high)
        elif low <= -SMALLEST_WAVE_MV:
            wave = "Q" if found["R_Amp"][row] == 0.0 else "S"
            if low < found[f"{wave}_Amp"][row]:
                found[f"{wave}_Amp"][row] = low
                found[f"{wave}_Dur"][row] = min(width, n_times - 1)
    return found
