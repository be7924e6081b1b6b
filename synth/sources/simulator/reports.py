"""Words and codes of one ECG as its reader would have filed them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecglm.synth.schema import LEADS, LIMB_LEADS
from ecglm.synth.sources.simulator.patients import Plan
from ecglm.synth.sources.simulator.signals import Noise
from ecglm.synth.sources.simulator.statements import STATEMENTS

_RHYTHM_WORDS = {
    "SR": ("sinus rhythm",),
    "SBRAD": ("sinus bradycardia",),
    "STACH": ("sinus tachycardia",),
    "SARRH": ("sinus arrhythmia",),
    "AFIB": ("atrial fibrillation", "atrial fibrillation with irregular ventricular response"),
    "AFLT": ("atrial flutter", "atrial flutter with regular ventricular response"),
    "PACE": ("ventricular paced rhythm",),
}
_WORDS = {
    "IMI": ("inferior myocardial infarction", "inferior infarct"),
    "ASMI": ("anteroseptal myocardial infarction", "anteroseptal infarct"),
    "LVH": ("left ventricular hypertrophy",),
    "LAO/LAE": ("left atrial enlargement",),
    "1AVB": ("first degree av block", "av block, first degree"),
    "IRBBB": ("incomplete right bundle branch block",),
    "CRBBB": ("complete right bundle branch block", "right bundle branch block"),
    "CLBBB": ("complete left bundle branch block", "left bundle branch block"),
    "LAFB": ("left anterior fascicular block",),
    "LPFB": ("left posterior fascicular block",),
    "LNGQT": ("prolonged qt interval", "qt interval prolonged"),
    "QWAVE": ("pathological q waves",),
    "VCLVH": ("high left ventricular voltage",),
    "LVOLT": ("low qrs voltage in all leads", "low voltage"),
    "STE_": ("st segments elevated", "st elevation"),
    "STD_": ("st segments depressed", "st depression"),
    "INVT": ("t waves inverted", "inverted t waves"),
    "PVC": ("ventricular premature complexes", "ventricular extrasystoles"),
    "PAC": ("atrial premature complexes", "supraventricular extrasystoles"),
}
_AXIS_WORDS = {
    "LAD": "leftward axis",
    "ALAD": "left axis deviation",
    "RAD": "right axis deviation",
    "ARAD": "extreme right axis deviation",
}
_MILD = {"1AVB", "SBRAD", "STACH", "PAC", "LVOLT"}
"""Findings beside which a reader may call the rest of an ECG normal."""


def draw_likelihoods(codes: set[str], random: np.random.Generator) -> dict[str, float]:
    """scp_codes in PTB-XL's manner: diagnostic statements, most likely first, then form and rhythm at 0."""
    likelihoods: dict[str, float] = {}
    for code in STATEMENTS:
        if code not in codes:
            continue
        draw = random.random()
        if code == "NORM":
            likelihoods[code] = 100.0 if draw < 0.8 else 80.0
        elif STATEMENTS[code].diagnostic:
            likelihoods[code] = 100.0 if draw < 0.70 else 80.0 if draw < 0.84 else 50.0 if draw < 0.95 else 35.0
        else:
            likelihoods[code] = 0.0
    return dict(sorted(likelihoods.items(), key=lambda item: -item[1]))


def report_text(likelihoods: dict[str, float], axis: str, axis_normal: bool, random: np.random.Generator) -> str:
    """A short English report in lower case that says what the codes say: rhythm, axis, then the rest.

    `axis` is the heart_axis class, `axis_normal` whether the true axis lies between -30° and 90°.
    """
    parts = []
    for code in likelihoods:
        if code in _RHYTHM_WORDS:
            words = _RHYTHM_WORDS[code]
            parts.append(words[int(random.random() * len(words))])
    parts += [_AXIS_WORDS[axis]] if axis in _AXIS_WORDS else []
    for code, likelihood in likelihoods.items():
        if code not in _WORDS:
            continue
        words = _WORDS[code]
        text = words[int(random.random() * len(words))]
        if STATEMENTS[code].diagnostic and likelihood < 100.0:
            text = ("probable " if likelihood >= 80 else "possible " if likelihood >= 50 else "cannot exclude ") + text
        parts.append(text)
    if "NORM" in likelihoods:
        parts.append("normal ecg" if list(likelihoods)[-1] == "SR" else "otherwise normal ecg")
    elif axis_normal and set(likelihoods) & _MILD and set(likelihoods) <= {"SR", "SARRH", *_MILD}:
        parts.append("otherwise normal ecg")
    return ". ".join(parts) + "."


def noise_texts(noise: Noise) -> dict[str, str]:
    """The four noise columns of ptbxl_database.csv."""
    drift, static = _lead_words(noise.baseline_drift), _lead_words(noise.static_noise)
    if noise.seen_without_leads:
        static = "noisy recording"
    return {
        "baseline_drift": f" , {drift}" if drift else "",
        "static_noise": f" , {static},  " if static else "",
        "burst_noise": _lead_words(noise.burst_noise),
        "electrodes_problems": _lead_words(noise.electrode_problems),
    }


def _lead_words(leads: Sequence[str]) -> str:
    """Leads as PTB-XL's readers wrote them: "alles", "I-AVF", "II,III,AVR,AVL,AVF", "V1"."""
    if tuple(leads) == LEADS:
        return "alles"
    if tuple(leads) == LIMB_LEADS:
        return "I-AVF"
    return ",".join(lead.upper() for lead in leads)


def extra_beats_text(plan: Plan, n_ectopic: int) -> str:
    """The extra_beats column: German abbreviations for ventricular (VES) and supraventricular (SVES) extrasystoles."""
    if n_ectopic == 0:
        return ""
    return f"VES{n_ectopic},alles" if plan.ectopic == "ventricular" else "SVES"
