"""Who the simulated patients are, and what each of their ECGs is meant to show."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Literal, get_args

import numpy as np

Rhythm = Literal["sinus", "bradycardia", "tachycardia", "arrhythmia", "fibrillation", "flutter", "paced"]
RHYTHMS: tuple[Rhythm, ...] = get_args(Rhythm)
Conduction = Literal["normal", "irbbb", "rbbb", "lbbb", "lafb", "lpfb", "paced"]
Axis = Literal["normal", "leftward", "left", "right", "far_right", "extreme"]
Repolarisation = Literal[
    "normal", "elevation_inferior", "elevation_anterior", "depression", "inversion_anterior", "inversion_inferior"
]
Stage = Literal["Stadium I", "Stadium II", "Stadium II-III", "Stadium III", "unknown"]
Mix = Literal["clinic", "even"]
"""How often each kind of ECG is drawn: as in a hospital, or every rhythm and every conduction as often as any other."""

AGE_OVER_89 = 300
"""What the age column holds for a patient older than 89 years."""

PATIENTS_PER_BLOCK = 10
VISITS_OF_BLOCK = (1, 1, 1, 1, 1, 1, 1, 2, 2, 3)
"""ECGs per patient in every block of ten patients; which patient has how many is drawn per block."""
ECGS_PER_BLOCK = sum(VISITS_OF_BLOCK)


@dataclass(frozen=True, slots=True)
class Traits:
    """What makes one heart's tracing its own: quantiles in [0, 1) that `beats` maps to millivolts, ms and degrees."""

    axis: float
    limb_gain: float
    precordial_gain: float
    transition: float
    septal: float
    terminal: float
    p_axis: float
    p_gain: float
    p_ms: float
    pr_ms: float
    qrs_ms: float
    t_axis: float
    t_gain: float
    t_v1: float
    qtc: float
    st_gain: float
    st_rise: float
    lead_1: float
    lead_2: float
    lead_3: float
    lead_4: float
    lead_5: float
    lead_6: float

    @classmethod
    def draw(cls, random: np.random.Generator) -> Traits:
        """Fresh traits."""
        return cls(*random.random(len(fields(cls))).tolist())

    def varied(self, random: np.random.Generator, spread: float) -> Traits:
        """The same heart another time: every quantile moved by about `spread`, reflected at 0 and 1."""
        moved = np.array([getattr(self, field.name) for field in fields(self)])
        moved = np.abs(moved + spread * random.standard_normal(len(moved))) % 2.0
        return Traits(*np.where(moved > 1.0, 2.0 - moved, moved).tolist())


@dataclass(frozen=True, slots=True)
class Plan:
    """What one ECG is meant to show."""

    rhythm: Rhythm = "sinus"
    conduction: Conduction = "normal"
    axis: Axis = "normal"
    first_degree_block: bool = False
    ectopic: Literal["none", "ventricular", "atrial"] = "none"
    voltage: Literal["normal", "low", "high"] = "normal"
    strain: bool = False
    infarction: Literal["none", "inferior", "anteroseptal"] = "none"
    stage: Stage = "unknown"
    repolarisation: Repolarisation = "normal"
    long_qt: bool = False
    left_atrium: bool = False

    @property
    def sinus(self) -> bool:
        """Whether every ordinary beat starts in the sinus node."""
        return self.rhythm in ("sinus", "bradycardia", "tachycardia", "arrhythmia")


@dataclass(frozen=True, slots=True)
class Patient:
    """One simulated person; `age_years` is the age at the first ECG."""

    patient_id: int
    sex: Literal["male", "female"]
    age_years: int
    height_cm: int | None
    weight_kg: int | None
    strat_fold: int
    device: str
    nurse: int
    site: int
    traits: Traits


@dataclass(frozen=True, slots=True)
class Visit:
    """One recording of a patient."""

    ecg_id: int
    patient: Patient
    age_years: int
    recorded: datetime
    plan: Plan


def patient_random(seed: int, patient_index: int) -> np.random.Generator:
    """The random numbers of one patient; they depend on nothing but the seed and the patient."""
    return np.random.default_rng([seed, 0, patient_index])


def block_layout(seed: int, block: int) -> tuple[list[int], list[int]]:
    """Number of ECGs and strat_fold of a block's ten patients: each fold once, three patients with several ECGs."""
    random = np.random.default_rng([seed, 1, block])
    visits = random.permutation(VISITS_OF_BLOCK).tolist()
    folds = random.permutation(np.arange(1, PATIENTS_PER_BLOCK + 1)).tolist()
    return visits, folds


def draw_patient(random: np.random.Generator, patient_id: int, strat_fold: int) -> Patient:
    """A person drawn from an adult hospital population."""
    sex: Literal["male", "female"] = "female" if random.random() < 0.48 else "male"
    age = int(18 + 75 * random.beta(2.6, 1.7))
    height = (177 if sex == "male" else 164) + 7.0 * random.standard_normal() - max(0, age - 60) * 0.1
    weight = (height / 100) ** 2 * float(np.clip(25.5 + 3.8 * random.standard_normal(), 17.5, 42))
    has_height, has_weight, device, nurse, site = random.random(5).tolist()
    return Patient(
        patient_id=patient_id,
        sex=sex,
        age_years=age,
        height_cm=round(height) if has_height < 0.6 else None,
        weight_kg=round(weight) if has_weight < 0.65 else None,
        strat_fold=strat_fold,
        device=("SIM-12", "SIM-6", "SIM-12 E")[int(device * 3)],
        nurse=int(nurse * 12),
        site=int(site * 6),
        traits=Traits.draw(random),
    )


def draw_plan(random: np.random.Generator, age_years: int) -> Plan:
    """A first ECG: the older the patient, the less often normal."""
    if random.random() < 0.85 - 0.006 * age_years:
        return Plan(
            rhythm="arrhythmia" if random.random() < (0.2 if age_years < 45 else 0.05) else "sinus",
            axis="leftward" if random.random() < 0.005 * age_years else "normal",
        )
    plan = Plan(rhythm=_draw_rhythm(random, age_years), axis=_draw_axis(random, age_years))
    if plan.rhythm == "paced":
        return replace(plan, conduction="paced", axis="normal")
    plan = replace(plan, conduction=_draw_conduction(random, age_years))
    chance = random.random(8).tolist()
    if plan.sinus and plan.rhythm != "tachycardia":
        plan = replace(plan, first_degree_block=chance[0] < 0.10)
    if plan.sinus and not plan.first_degree_block:
        plan = replace(plan, left_atrium=chance[1] < 0.05)
    if chance[2] < 0.08 and plan.rhythm != "flutter":
        plan = replace(plan, ectopic="ventricular")
    elif chance[2] < 0.14 and plan.rhythm in ("sinus", "bradycardia"):
        plan = replace(plan, ectopic="atrial")
    if plan.conduction in ("rbbb", "lbbb"):
        return plan if plan.axis in ("normal", "leftward", "left") else replace(plan, axis="normal")
    plan = _with_muscle(plan, random, chance[3], age_years)
    if plan.repolarisation == "normal" and plan.infarction == "none" and not plan.strain:
        plan = replace(plan, long_qt=chance[4] < 0.07 and plan.rhythm in ("sinus", "arrhythmia"))
    return plan


def draw_even_plan(random: np.random.Generator) -> Plan:
    """A first ECG of the mix `even`: any rhythm, and any conduction, as likely as another; the muscle is healthy."""
    conductions: tuple[Conduction, ...] = ("normal", "irbbb", "rbbb", "lbbb", "lafb", "lpfb")
    rhythm = RHYTHMS[int(random.integers(len(RHYTHMS)))]
    conduction = conductions[int(random.integers(len(conductions)))]
    if rhythm == "paced":
        return Plan(rhythm=rhythm, conduction="paced")
    plan = Plan(rhythm=rhythm, conduction=conduction)
    slow = plan.sinus and rhythm != "tachycardia" and random.random() < 0.3
    return replace(plan, first_degree_block=slow)


def _draw_rhythm(random: np.random.Generator, age_years: int) -> Rhythm:
    older = age_years >= 50
    weights = (0.5, 0.14, 0.12, 0.06, 0.12, 0.03, 0.03) if older else (0.53, 0.17, 0.17, 0.12, 0.01, 0.0, 0.0)
    return RHYTHMS[int(np.searchsorted(np.cumsum(weights), random.random() * 0.999999))]


def _draw_axis(random: np.random.Generator, age_years: int) -> Axis:
    names: tuple[Axis, ...] = ("normal", "leftward", "left", "right", "far_right", "extreme")
    weights = (0.52, 0.30, 0.12, 0.04, 0.015, 0.005) if age_years >= 45 else (0.83, 0.06, 0.02, 0.07, 0.015, 0.005)
    return names[int(np.searchsorted(np.cumsum(weights), random.random() * 0.999999))]


def _draw_conduction(random: np.random.Generator, age_years: int) -> Conduction:
    chance = random.random() * (1.0 if age_years >= 45 else 1.8)
    limits: tuple[tuple[float, Conduction], ...] = (
        (0.05, "irbbb"), (0.10, "rbbb"), (0.16, "lbbb"), (0.25, "lafb"), (0.262, "lpfb"),
    )  # fmt: skip
    return next((name for limit, name in limits if chance < limit), "normal")


def _with_muscle(plan: Plan, random: np.random.Generator, chance: float, age_years: int) -> Plan:
    """The plan with hypertrophy, low voltage, infarction or a repolarisation change, or none of them."""
    draw = random.random()
    if chance < 0.10 and plan.axis in ("normal", "leftward", "left") and plan.conduction in ("normal", "lafb"):
        return replace(plan, voltage="high", strain=draw < 0.5 and age_years >= 40)
    if chance < 0.15 and plan.conduction == "normal":
        return replace(plan, voltage="low")
    if chance < 0.28 and age_years >= 40 and plan.conduction == "normal":
        stages: tuple[Stage, ...] = ("Stadium I", "Stadium II", "Stadium II-III", "Stadium III", "unknown")
        stage = stages[int(draw * 5)]
        return replace(
            plan, infarction="inferior" if random.random() < 0.5 else "anteroseptal", stage=stage, axis="normal"
        )
    kinds: tuple[Repolarisation, ...] = (
        "elevation_inferior", "elevation_anterior", "depression", "inversion_anterior", "inversion_inferior",
    )  # fmt: skip
    if chance < 0.48 and plan.axis in ("normal", "leftward") and plan.conduction in ("normal", "irbbb"):
        return replace(plan, repolarisation=kinds[int(draw * 5)])
    return plan


def next_plan(random: np.random.Generator, plan: Plan, age_years: int) -> Plan:
    """What the same patient's next ECG shows: what is lasting stays, one thing may be new, passing things may go."""
    rate = random.random()
    if plan.rhythm in ("sinus", "bradycardia", "tachycardia", "arrhythmia"):
        rhythm: Rhythm = "sinus" if rate < 0.6 else plan.rhythm
        plan = replace(plan, rhythm=rhythm)
    if random.random() < 0.5:
        plan = replace(plan, ectopic="none")
    if plan.stage in ("Stadium I", "Stadium II", "Stadium II-III"):
        after: dict[Stage, Stage] = {
            "Stadium I": "Stadium II", "Stadium II": "Stadium II-III", "Stadium II-III": "Stadium III",
        }  # fmt: skip
        plan = replace(plan, stage=after[plan.stage])
    draw = random.random()
    if draw < 0.12 and plan.sinus and age_years >= 45:
        return replace(plan, rhythm="fibrillation", ectopic="none", first_degree_block=False, left_atrium=False,
                       long_qt=False)  # fmt: skip
    if draw < 0.20 and plan.conduction == "normal" and age_years >= 45:
        return Plan(rhythm=plan.rhythm, conduction="lbbb", first_degree_block=plan.first_degree_block)
    if draw < 0.34 and plan.axis == "normal" and plan.infarction == "none":
        return replace(plan, axis="leftward")
    if draw < 0.42 and plan.rhythm in ("sinus", "arrhythmia"):
        return replace(plan, rhythm="tachycardia", first_degree_block=False, long_qt=False, ectopic="none")
    if draw < 0.50 and plan.rhythm == "sinus" and not plan.left_atrium:
        return replace(plan, first_degree_block=True)
    if draw < 0.56 and plan.rhythm in ("sinus", "bradycardia"):
        return replace(plan, ectopic="ventricular")
    return plan


def draw_visits(
    seed: int, patient_index: int, first_ecg_id: int, n_visits: int, strat_fold: int, mix: Mix
) -> list[Visit]:
    """The recordings of one patient in time order, ecg_ids consecutive."""
    random = patient_random(seed, patient_index)
    patient = draw_patient(random, patient_index + 1, strat_fold)
    recorded = datetime(1985, 1, 1) + timedelta(seconds=int(random.integers(0, 15 * 365 * 86400)))
    plan = draw_plan(random, patient.age_years) if mix == "clinic" else draw_even_plan(random)
    visits = []
    days = 0
    for visit in range(n_visits):
        if visit:
            days += int(np.exp(random.uniform(0.0, np.log(2200.0)))) + 1
            plan = next_plan(random, plan, patient.age_years)
        when = recorded + timedelta(days=days, seconds=int(random.integers(0, 7200)))
        visits.append(Visit(first_ecg_id + visit, patient, patient.age_years + days // 365, when, plan))
    return visits
