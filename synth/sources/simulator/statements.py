"""Which statements are true of a measured ECG: every rule is met with room to spare, or clearly not met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ecglm.synth.schema import LEADS
from ecglm.synth.sources.simulator.measure import Truth
from ecglm.synth.sources.simulator.patients import Plan


@dataclass(frozen=True, slots=True)
class Statement:
    """One row of scp_statements.csv."""

    code: str
    description: str
    diagnostic: bool = False
    form: bool = False
    rhythm: bool = False
    superclass: str = ""
    subclass: str = ""
    category: str = ""


STATEMENTS: dict[str, Statement] = {
    statement.code: statement
    for statement in (
        Statement("NORM", "tracing within normal limits", True, False, False, "NORM", "NORM", "overall"),
        Statement("IMI", "infarction of the inferior wall", True, False, False, "MI", "IMI", "infarction"),
        Statement("ASMI", "infarction of the anteroseptal wall", True, False, False, "MI", "AMI", "infarction"),
        Statement("LVH", "hypertrophy of the left ventricle", True, False, False, "HYP", "LVH", "hypertrophy"),
        Statement("LAO/LAE", "enlarged left atrium", True, False, False, "HYP", "LAO/LAE", "hypertrophy"),
        Statement("1AVB", "AV block of the first degree", True, False, False, "CD", "_AVB", "conduction"),
        Statement("IRBBB", "right bundle branch block, incomplete", True, False, False, "CD", "IRBBB", "conduction"),
        Statement("CRBBB", "right bundle branch block, complete", True, False, False, "CD", "CRBBB", "conduction"),
        Statement("CLBBB", "left bundle branch block, complete", True, False, False, "CD", "CLBBB", "conduction"),
        Statement("LAFB", "block of the left anterior fascicle", True, False, False, "CD", "LAFB/LPFB", "conduction"),
        Statement("LPFB", "block of the left posterior fascicle", True, False, False, "CD", "LAFB/LPFB", "conduction"),
        Statement("LNGQT", "QT interval long for the rate", True, True, False, "STTC", "STTC", "repolarisation"),
        Statement("QWAVE", "Q waves of infarction size", form=True, category="QRS shape"),
        Statement("VCLVH", "voltage as in left ventricular hypertrophy", form=True, category="QRS shape"),
        Statement("LVOLT", "QRS voltage low in all leads", form=True, category="QRS shape"),
        Statement("STE_", "raised ST segment", form=True, category="repolarisation"),
        Statement("STD_", "lowered ST segment", form=True, category="repolarisation"),
        Statement("INVT", "T waves inverted", form=True, category="repolarisation"),
        Statement("PVC", "ventricular ectopic beat", form=True, category="ectopy"),
        Statement("PAC", "atrial ectopic beat", form=True, category="ectopy"),
        Statement("SR", "rhythm of the sinus node", rhythm=True, category="rhythm"),
        Statement("SBRAD", "slow rhythm of the sinus node", rhythm=True, category="rhythm"),
        Statement("STACH", "fast rhythm of the sinus node", rhythm=True, category="rhythm"),
        Statement("SARRH", "irregular rhythm of the sinus node", rhythm=True, category="rhythm"),
        Statement("AFIB", "fibrillation of the atria", rhythm=True, category="rhythm"),
        Statement("AFLT", "flutter of the atria", rhythm=True, category="rhythm"),
        Statement("PACE", "rhythm of a ventricular pacemaker", rhythm=True, category="rhythm"),
    )
}

CONTIGUOUS = (
    ("aVL", "I"), ("II", "aVF"), ("aVF", "III"), ("V1", "V2"), ("V2", "V3"), ("V3", "V4"), ("V4", "V5"), ("V5", "V6"),
)  # fmt: skip
"""Pairs of neighbouring leads in which a change counts."""
_T_PAIRS = (("aVL", "I"), ("II", "aVF"), ("V2", "V3"), ("V3", "V4"), ("V4", "V5"), ("V5", "V6"))
_INFERIOR = (("II", "aVF"), ("aVF", "III"), ("II", "III"))


class GreyZone(Exception):  # noqa: N818 - not an error: the drawing is thrown away
    """A measurement lies too close to a limit for a statement to be plainly true or false."""


@dataclass(slots=True)
class _Reader:
    """Reads a truth table; every comparison has a margin on both sides of its limit."""

    truth: Truth
    sex: str
    codes: set[str] = field(default_factory=set)

    def __getitem__(self, name: str) -> float:
        value = self.truth[name]
        if value is None:
            raise KeyError(name)
        return value

    def above(self, value: float, no: float, yes: float) -> bool:
        """True from `yes` upwards, False up to `no`."""
        if no < value < yes:
            raise GreyZone
        return value >= yes

    def below(self, value: float, no: float, yes: float) -> bool:
        """True from `yes` downwards, False from `no` upwards."""
        return self.above(-value, -no, -yes)

    def pair(self, pairs: Sequence[tuple[str, str]], met: Iterable[str], near: Iterable[str]) -> bool:
        """Whether both leads of a pair are `met`; grey when a pair is only `near` to it."""
        certain, possible = set(met), set(near)
        if any(one in certain and other in certain for one, other in pairs):
            return True
        if any(one in possible and other in possible for one, other in pairs):
            raise GreyZone
        return False


def true_statements(plan: Plan, truth: Truth, sex: str, age_years: int, normal_rr_range_ms: float) -> set[str]:
    """The codes of all statements that are true of the ECG.

    `normal_rr_range_ms` is the longest minus the shortest RR interval between ordinary beats.

    Raises:
        GreyZone: some statement is neither plainly true nor plainly false.
    """
    reader = _Reader(truth, sex)
    codes = {_rhythm_code(plan, reader, normal_rr_range_ms)}
    if plan.ectopic != "none":
        codes.add("PVC" if plan.ectopic == "ventricular" else "PAC")
    codes |= _conduction_codes(plan, reader)
    codes |= _voltage_codes(reader, age_years)
    codes |= _wave_codes(reader)
    qtc = [reader[f"QT_Int{formula}_Global"] for formula in ("Bazett", "Fridericia", "Framingham")]
    if reader.above(min(qtc), 449.0, 482.0):
        codes.add("LNGQT")
    elif max(qtc) > (449.0 if sex == "male" else 459.0) or min(qtc) < 345.0:
        raise GreyZone
    axis = reader["QRS_AxisFront_Global"]
    rate_normal = 60.0 <= reader["HR__Global"] <= 100.0
    qrs_normal = reader["QRS_Dur_Global"] < 110 and -30.0 <= axis <= 90.0
    if codes <= {"SR", "SARRH"} and rate_normal and qrs_normal:
        codes.add("NORM")
    return codes


def _rhythm_code(plan: Plan, reader: _Reader, normal_rr_range_ms: float) -> str:
    others = {"fibrillation": "AFIB", "flutter": "AFLT", "paced": "PACE"}
    if plan.rhythm == "fibrillation" and reader["RR_StdDev_Global"] < 0.11 * reader["RR_Mean_Global"]:
        raise GreyZone
    if plan.rhythm in others:
        return others[plan.rhythm]
    rate = reader["HR__Global"]
    if reader.above(rate, 99.5, 101.0):
        return "STACH"
    if reader.below(rate, 60.3, 59.5):
        return "SBRAD"
    return "SARRH" if reader.above(normal_rr_range_ms, 95.0, 130.0) else "SR"


def _conduction_codes(plan: Plan, reader: _Reader) -> set[str]:
    codes = set()
    if plan.sinus:
        if reader.above(reader["PR_Int_Global"], 197.0, 206.0):
            codes.add("1AVB")
        terminal = reader["P-_Amp_V1"] * reader["P-_Dur_V1"]  # mV·ms, the terminal force apart from its sign
        if reader.above(reader["P_Dur_Global"], 114.0, 124.0):
            if terminal > -4.2:
                raise GreyZone
            codes.add("LAO/LAE")
        elif terminal < -3.6:
            raise GreyZone
    qrs_ms, axis = reader["QRS_Dur_Global"], reader["QRS_AxisFront_Global"]
    wide = reader.above(qrs_ms, 118.5, 122.0)
    if plan.conduction in ("rbbb", "irbbb"):
        second_peak = reader["Rp_Amp_V1"]
        if second_peak < 0.08 or reader["S_Amp_V6"] > -0.05 or reader["S_Amp_I"] > -0.03:
            raise GreyZone
        if plan.conduction == "rbbb" and (not wide or second_peak <= reader["R_Amp_V1"]):
            raise GreyZone
        codes.add("CRBBB" if plan.conduction == "rbbb" else "IRBBB")
    elif plan.conduction == "lbbb":
        no_q = all(reader[f"Q_Amp_{lead}"] == 0.0 for lead in ("I", "V5", "V6"))
        late = all((reader.truth[f"R_PeakTime_{lead}"] or 0.0) > 60.0 for lead in ("V5", "V6"))
        if not (wide and no_q and late and reader["S_Amp_V1"] < -0.3 and reader["R_Amp_V1"] > 0.03):
            raise GreyZone
        codes.add("CLBBB")
    elif wide and plan.conduction != "paced":
        raise GreyZone
    if plan.conduction == "lafb":
        r_after_q = reader["Q_Amp_aVL"] < -0.02 and reader["R_Amp_aVL"] > 0.2
        if not (r_after_q and -90.0 < axis < -46.0 and (reader.truth["R_PeakTime_aVL"] or 0.0) >= 45.0):
            raise GreyZone
        codes.add("LAFB")
    elif plan.conduction not in ("lbbb", "paced") and -100.0 < axis < -43.5:
        raise GreyZone
    if plan.conduction == "lpfb":
        if not (axis > 92 and all(reader[f"Q_Amp_{lead}"] < -0.02 for lead in ("III", "aVF"))):
            raise GreyZone
        if reader["S_Amp_I"] > -0.1 or reader["R_Amp_I"] < 0.03:
            raise GreyZone
        codes.add("LPFB")
    elif axis > 90.0 and reader["Q_Amp_III"] < 0.0 and reader["Q_Amp_aVF"] < 0.0:
        raise GreyZone
    return codes


def _voltage_codes(reader: _Reader, age_years: int) -> set[str]:
    limb = max(reader[f"QRS_AmpPP_{lead}"] for lead in LEADS[:6])
    chest = max(reader[f"QRS_AmpPP_{lead}"] for lead in LEADS[6:])
    if reader.below(limb, 0.6, 0.48):
        if chest > 0.96:
            raise GreyZone
        return {"LVOLT"}
    if chest < 1.1:
        raise GreyZone
    if reader["QRS_Dur_Global"] >= 120:  # no voltage criterion is valid in bundle branch block or ventricular pacing
        return set()
    female = reader.sex == "female"
    s_v1 = max(-reader["S_Amp_V1"], -reader["Q_Amp_V1"])
    s_v3 = max(-reader["S_Amp_V3"], -reader["Q_Amp_V3"])
    sokolow = s_v1 + max(reader["R_Amp_V5"], reader["R_Amp_V6"])
    cornell = reader["R_Amp_aVL"] + s_v3
    over_sokolow, near_sokolow = sokolow >= 3.6, sokolow > 3.4
    over_cornell = cornell >= (2.1 if female else 2.9)
    near_cornell = cornell > (1.9 if female else 2.7)
    over_limb, near_limb = reader["R_Amp_aVL"] >= 1.15, reader["R_Amp_aVL"] > 1.05
    if over_sokolow or over_cornell or over_limb:
        return {"VCLVH", "LVH"} if age_years >= 35 else {"VCLVH"}
    near_chest = max(reader["R_Amp_V5"], reader["R_Amp_V6"]) > 2.4
    near_frontal = reader["R_Amp_I"] - reader["S_Amp_III"] > 2.3
    if near_sokolow or near_cornell or near_limb or near_chest or near_frontal:
        raise GreyZone
    return set()


def _wave_codes(reader: _Reader) -> set[str]:
    codes = set()
    large, suspect = pathological_q(reader.truth, 30.0, 0.1, 20.0), pathological_q(reader.truth, 26.0, 0.07, 15.0)
    inferior = reader.pair(_INFERIOR, large, suspect)
    anteroseptal = reader.pair((("V1", "V2"), ("V2", "V3")), large, suspect)
    elsewhere = reader.pair((("aVL", "I"), ("V4", "V5"), ("V5", "V6")), large, suspect)
    if not anteroseptal and {"V2", "V3"} & set(suspect):
        raise GreyZone
    if inferior or anteroseptal or elsewhere:
        codes.add("QWAVE")
    if inferior:
        codes.add("IMI")
    if anteroseptal:
        codes.add("ASMI")
    levels = {lead: (reader[f"ST_Amp_{lead}"], reader[f"ST_Amp80ms_{lead}"]) for lead in LEADS if lead != "aVR"}
    high = {lead: 0.26 if lead in ("V2", "V3") else 0.12 for lead in levels}
    not_high = {lead: 0.14 if lead in ("V2", "V3") else 0.085 for lead in levels}
    if reader.pair(
        CONTIGUOUS,
        [lead for lead, (j_point, _) in levels.items() if j_point >= high[lead]],
        [lead for lead, (j_point, _) in levels.items() if j_point > not_high[lead]],
    ):
        codes.add("STE_")
    if reader.pair(
        CONTIGUOUS,
        [lead for lead, (j_point, after) in levels.items() if max(j_point, after) <= -0.06],
        [lead for lead, (j_point, after) in levels.items() if max(j_point, after) < -0.04],
    ):
        codes.add("STD_")
    t_waves = {lead: reader[f"T_Amp_{lead}"] for lead in LEADS}
    if reader.pair(
        _T_PAIRS,
        [lead for lead, t in t_waves.items() if t <= -0.105],
        [lead for lead, t in t_waves.items() if t < -0.05],
    ):
        codes.add("INVT")
    elif min(t_waves[lead] for lead in ("I", "II", "V3", "V4", "V5", "V6")) < -0.05:
        raise GreyZone
    return codes


def pathological_q(truth: Truth, least_ms: float, least_mv: float, least_ms_v2_v3: float) -> list[str]:
    """Leads with a Q wave of infarction size: wide and deep, in V2 and V3 wide, or QS (Thygesen et al. 2018)."""
    leads = []
    for lead in LEADS:
        width, depth = truth[f"Q_Dur_{lead}"] or 0.0, -(truth[f"Q_Amp_{lead}"] or 0.0)
        if lead == "aVR" or depth == 0.0:
            continue
        whole = truth[f"R_Amp_{lead}"] == 0.0
        anterior = lead in ("V2", "V3") and (whole or width >= least_ms_v2_v3)
        if anterior or (depth >= least_mv and (whole or width >= least_ms)):
            leads.append(lead)
    return leads


def expected_statements(plan: Plan, age_years: int) -> tuple[set[str], set[str]]:
    """The codes a plan must lead to, and those that may come with them."""
    sinus = {"bradycardia": "SBRAD", "tachycardia": "STACH", "arrhythmia": "SARRH", "sinus": "SR"}
    must = {sinus.get(plan.rhythm) or {"fibrillation": "AFIB", "flutter": "AFLT", "paced": "PACE"}[plan.rhythm]}
    may: set[str] = set()
    conduction = {"irbbb": "IRBBB", "rbbb": "CRBBB", "lbbb": "CLBBB", "lafb": "LAFB", "lpfb": "LPFB"}
    if plan.conduction in conduction:
        must.add(conduction[plan.conduction])
    must |= {"1AVB"} if plan.first_degree_block else set()
    must |= {"LAO/LAE"} if plan.left_atrium else set()
    must |= {"LNGQT"} if plan.long_qt else set()
    must |= {"none": set(), "ventricular": {"PVC"}, "atrial": {"PAC"}}[plan.ectopic]
    must |= {"LVOLT"} if plan.voltage == "low" else set()
    if plan.voltage == "high":
        must |= {"VCLVH", "LVH"} if age_years >= 35 else {"VCLVH"}
    if plan.strain:
        must |= {"STD_", "INVT"}
    if plan.conduction in ("lbbb", "paced"):
        may |= {"STD_", "STE_", "INVT"}
    repolarisation = plan.repolarisation
    if plan.infarction != "none":
        must |= {"QWAVE", "IMI" if plan.infarction == "inferior" else "ASMI"}
        must |= {"Stadium I": {"STE_"}, "Stadium II": {"INVT"}, "Stadium II-III": {"INVT"}}.get(plan.stage, set())
        may |= {"STD_"} if plan.stage == "Stadium I" else set()
    elif repolarisation != "normal":
        must |= {{"elevation": "STE_", "depression": "STD_", "inversion": "INVT"}[repolarisation.split("_")[0]]}
        may |= {"STD_"} if repolarisation.startswith("elevation") else set()
    return must, may


def heart_axis_class(axis_degrees: float, draw: float) -> str:
    """PTB-XL's word for a frontal QRS axis; `draw` in [0, 1) leaves some ECGs unclassified and picks rarer words."""
    if draw < 0.12:
        return ""
    if axis_degrees < -90.0 or axis_degrees > 120.0:
        return "ARAD"
    if axis_degrees > 90.0:
        return "RAD"
    if axis_degrees < -30.0:
        return "ALAD"
    if axis_degrees < 0.0:
        return "AXL" if draw > 0.92 and axis_degrees < -12.0 else "LAD"
    return "AXR" if draw > 0.88 and axis_degrees > 74.0 else "MID"
