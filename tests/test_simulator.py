"""The simulated source: what its tables say is exactly what its waveforms show."""

from __future__ import annotations

import ast
import csv
import importlib.util
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ecglm.synth.errors import SourceError
from ecglm.synth.schema import LEADS, LIMB_LEADS
from ecglm.synth.sources.ptbxl import open_ptbxl
from ecglm.synth.sources.simulator import simulate
from ecglm.synth.sources.simulator.beats import TWELVE, build_beat
from ecglm.synth.sources.simulator.folder import SimulatedECG, header_text, record_path, simulated_ecgs
from ecglm.synth.sources.simulator.measure import measure
from ecglm.synth.sources.simulator.patients import Plan, Traits
from ecglm.synth.sources.simulator.rhythms import ORDINARY, VENTRICULAR, Strip
from ecglm.synth.sources.simulator.signals import atrial_activity, clean_signal

DATA = Path(os.environ.get("ECGLM_DATA", Path(__file__).parents[1] / "../shared/data"))
N = 700
SINUS = {"SR", "SBRAD", "STACH", "SARRH"}


@pytest.fixture(scope="module")
def ecgs() -> list[SimulatedECG]:
    return list(simulated_ecgs(N, seed=4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "ecgs"
    simulate(out, N, seed=4)
    return out


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Lines of ptbxl_database.csv joined with their measurements and the parsed codes."""
    features = pl.read_parquet(folder / "features/simulated_features.parquet").to_dicts()
    with (folder / "ptbxl_database.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["ecg_id"]) for line in lines] == [row["ecg_id"] for row in features]
    return [
        {**row, **line, "codes": ast.literal_eval(line["scp_codes"])} for line, row in zip(lines, features, strict=True)
    ]


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, Any]]:
    return read_rows(folder)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fine_beat(ecg: SimulatedECG, step_ms: float = 0.125) -> tuple[np.ndarray, np.ndarray]:
    """Times in ms from QRS onset and the (12, n_times) noiseless ordinary beat on a much finer grid."""
    times = np.arange(-400.0, 700.0, step_ms)
    return times, TWELVE @ ecg.beat.trace(times)


def uncounted(qrs: np.ndarray, sign: int) -> bool:
    """Whether the extreme of a QRS complex is no wave: some 25 µV, a spike of little area, or the ST level."""
    extreme = (sign * qrs).argmax()
    height = sign * qrs[extreme]
    runs = np.split(np.maximum(sign * qrs, 0.0), np.flatnonzero(sign * qrs <= 0.0))
    area = max((run for run in runs if len(run)), key=np.max).sum() / 8  # eight steps per ms
    return bool(height < 0.0265 or area < 0.17 or sign * qrs[-1] >= 0.69 * height)


def area_axis(trace: np.ndarray) -> float:
    return float(np.degrees(np.arctan2(trace[5].sum() * 2 / np.sqrt(3), trace[0].sum())))


# The waveform shows the measurements


def test_waves_begin_and_end_where_the_intervals_say(ecgs: list[SimulatedECG]) -> None:
    for ecg in ecgs[:150]:
        times, trace = fine_beat(ecg)
        moving = np.abs(trace).max(axis=0) > 1e-9
        truth = ecg.truth
        if truth["PR_Int_Global"] is not None:
            p_end = truth["P_Dur_Global"] - truth["PR_Int_Global"]
            assert times[moving][0] == pytest.approx(-truth["PR_Int_Global"], abs=1.0)
            assert not moving[(times >= p_end) & (times <= 0)].any()
            assert moving[(times < p_end - 1.0) & (times > p_end - 5.0)].all()
        assert moving[(times > 0.5) & (times < 5)].all()
        assert times[moving][-1] == pytest.approx(truth["QT_Int_Global"], abs=1.0)
        lobes = ecg.beat.edges[ecg.beat.n_p_waves : ecg.beat.n_p_waves + 6]
        used = np.abs(ecg.beat.amplitudes[ecg.beat.n_p_waves : ecg.beat.n_p_waves + 6]).max(axis=1) > 0
        assert lobes[used][:, 0].min() == pytest.approx(0.0, abs=1e-9)
        assert lobes[used][:, 3].max() == pytest.approx(truth["QRS_Dur_Global"])


def test_amplitudes_are_those_of_the_continuous_waveform(ecgs: list[SimulatedECG]) -> None:
    for ecg in ecgs[:150]:
        times, trace = fine_beat(ecg)
        truth = ecg.truth
        qrs = trace[:, (times >= 0) & (times <= truth["QRS_Dur_Global"])]
        after = trace[:, (times >= truth["QRS_Dur_Global"]) & (times <= truth["QT_Int_Global"])]
        p_wave = trace[:, (times < 0) & (times > -(truth["PR_Int_Global"] or 0))]
        j_point = np.searchsorted(times, truth["QRS_Dur_Global"])
        for row, lead in enumerate(LEADS):
            near = {"rel": 0.02, "abs": 0.001}
            highest = max(truth[f"R_Amp_{lead}"], truth[f"Rp_Amp_{lead}"])
            lowest = min(truth[f"Q_Amp_{lead}"], truth[f"S_Amp_{lead}"], truth[f"Sp_Amp_{lead}"])
            assert highest == pytest.approx(qrs[row].max(), abs=0.001, rel=0.02) or uncounted(qrs[row], 1)
            assert lowest == pytest.approx(qrs[row].min(), abs=0.001, rel=0.02) or uncounted(qrs[row], -1)
            assert truth[f"QRS_AmpPP_{lead}"] == pytest.approx(np.ptp(qrs[row]), **near)
            assert truth[f"ST_Amp_{lead}"] == pytest.approx(trace[row, j_point], **near)
            assert truth[f"ST_Amp80ms_{lead}"] == pytest.approx(trace[row, j_point + 640], **near)
            t_wave = truth[f"T_Amp_{lead}"]
            if abs(t_wave) > 0.1:
                assert t_wave == pytest.approx(after[row].max() if t_wave > 0 else after[row].min(), **near)
            if truth["PR_Int_Global"] is not None:
                highest, lowest = p_wave[row].max(), p_wave[row].min()
                first = highest if p_wave[row].argmax() < p_wave[row].argmin() or lowest > -0.02 else lowest
                near_limit = min(abs(highest - 0.02), abs(lowest + 0.02)) < 0.001
                expected = first if abs(first) >= 0.02 else lowest if lowest <= -0.02 else 0.0
                assert truth[f"P_Amp_{lead}"] == pytest.approx(expected, **near) or near_limit
                assert (
                    truth[f"P-_Amp_{lead}"] == pytest.approx(lowest if lowest <= -0.02 else 0.0, **near) or near_limit
                )


def test_axes_are_the_net_areas_of_the_waves(ecgs: list[SimulatedECG]) -> None:
    for ecg in ecgs[:150]:
        times, trace = fine_beat(ecg)
        truth = ecg.truth
        qrs = trace[:, (times >= 0) & (times <= truth["QRS_Dur_Global"])]
        assert abs((truth["QRS_AxisFront_Global"] - area_axis(qrs) + 180) % 360 - 180) < 0.5
        if truth["PR_Int_Global"] is not None:
            p_wave = trace[:, (times < 0) & (times > -truth["PR_Int_Global"])]
            assert abs(truth["P_AxisFront_Global"] - area_axis(p_wave)) < 0.5


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (Plan(conduction="lafb"), (-74, -48)),
        (Plan(conduction="lpfb"), (98, 130)),
        (Plan(axis="leftward"), (-27, -3)),
        (Plan(axis="extreme"), (-165, -105)),
        (Plan(conduction="rbbb"), (4, 80)),
        (Plan(conduction="lbbb"), (-38, 55)),
        (Plan(infarction="inferior", stage="Stadium I"), (-26, 38)),
    ],
)
def test_the_qrs_axis_is_the_one_asked_for(plan: Plan, expected: tuple[float, float]) -> None:
    strip = Strip(np.arange(13) * 800.0, np.zeros(13, np.int64), 800.0)
    for quantile in (0.0, 0.25, 0.5, 1.0):
        traits = Traits(quantile, *[0.5] * 22)
        truth = measure(plan, strip, build_beat(plan, traits, 800.0, "male"))
        asked = expected[0] + quantile * (expected[1] - expected[0])
        assert truth["QRS_AxisFront_Global"] == pytest.approx(asked, abs=0.1)


def test_rates_are_counted_from_the_beats_in_the_recording(ecgs: list[SimulatedECG]) -> None:
    for ecg in ecgs:
        onsets = ecg.strip.onsets_ms
        seen = onsets[(onsets >= 0) & (onsets < 10_000)]
        assert ecg.truth["QRS_Count_Global"] == len(seen)
        assert ecg.truth["RR_Mean_Global"] == pytest.approx(np.diff(seen).mean(), abs=0.06)
        assert ecg.truth["HR__Global"] == pytest.approx(60_000 / np.diff(seen).mean(), abs=0.06)
        ordinary = ecg.strip.kinds[(onsets >= 0) & (onsets < 10_000)] == ORDINARY
        normal = np.diff(seen)[ordinary[1:] & ordinary[:-1]]
        assert ecg.truth["RR_StdDev_Global"] == pytest.approx(normal.std(), abs=0.06) or len(normal) < 2
        qt, rr = ecg.truth["QT_Int_Global"], ecg.truth["RR_Mean_Global"] / 1000
        assert ecg.truth["QT_IntBazett_Global"] == pytest.approx(qt / rr**0.5, abs=0.1)
        assert ecg.truth["QT_IntFridericia_Global"] == pytest.approx(qt / rr ** (1 / 3), abs=0.1)
        assert ecg.truth["QT_IntFramingham_Global"] == pytest.approx(qt + 154 * (1 - rr), abs=0.1)


def test_r_peaks_are_found_in_the_signal_where_the_beats_are(ecgs: list[SimulatedECG]) -> None:
    checked = 0
    for ecg in ecgs:
        if ecg.codes != {"NORM", "SR"}:
            continue
        clean = TWELVE @ clean_signal(ecg.visit.plan, ecg.traits, ecg.strip, ecg.beat)
        tallest = max(LEADS, key=lambda lead: ecg.truth[f"R_Amp_{lead}"])
        lead = clean[LEADS.index(tallest)]
        inner = (lead[1:-1] > 0.7 * lead.max()) & (lead[1:-1] >= lead[:-2]) & (lead[1:-1] > lead[2:])
        peaks_ms = (np.flatnonzero(inner) + 1) * 10.0
        assert len(peaks_ms) == ecg.truth["QRS_Count_Global"]
        assert np.diff(peaks_ms).mean() == pytest.approx(ecg.truth["RR_Mean_Global"], abs=10)
        onsets = ecg.strip.onsets_ms[(ecg.strip.onsets_ms >= 0) & (ecg.strip.onsets_ms < 10_000)]
        assert np.abs(peaks_ms - onsets - ecg.truth[f"R_PeakTime_{tallest}"]).max() <= 10
        checked += 1
    assert checked > 100


def test_the_recording_samples_the_continuous_waveform(ecgs: list[SimulatedECG]) -> None:
    for ecg in ecgs[:40]:
        slow = clean_signal(ecg.visit.plan, ecg.traits, ecg.strip, ecg.beat)
        fast = clean_signal(ecg.visit.plan, ecg.traits, ecg.strip, ecg.beat, sampling_hz=1000)
        np.testing.assert_allclose(slow, fast[:, ::10], atol=1e-12)


def test_a_ventricular_ectopic_beat_is_early_wide_and_followed_by_a_full_pause(ecgs: list[SimulatedECG]) -> None:
    found = 0
    for ecg in ecgs:
        if ecg.visit.plan.rhythm not in ("sinus", "bradycardia"):
            continue
        onsets, kinds = ecg.strip.onsets_ms, ecg.strip.kinds
        for beat in np.flatnonzero(kinds == VENTRICULAR):
            around = kinds[max(0, beat - 2) : beat + 3]
            if len(around) == 5 and (np.delete(around, 2) == ORDINARY).all():
                usual = onsets[beat - 1] - onsets[beat - 2]
                assert onsets[beat] - onsets[beat - 1] < 0.85 * usual
                assert onsets[beat + 1] - onsets[beat - 1] == pytest.approx(2 * usual, rel=0.06)
                found += 1
    assert found > 5


# The statements are true of the measurements


def in_adjacent_leads(row: dict[str, Any], leads: list[str]) -> bool:
    pairs = [("aVL", "I"), ("II", "aVF"), ("aVF", "III"), *((f"V{k}", f"V{k + 1}") for k in range(1, 6))]
    return any(one in leads and other in leads for one, other in pairs)


def holds(row: dict[str, Any], code: str) -> bool:
    """The published rule of a statement, written down here once more and apart from the simulator's own."""
    female = row["sex"] == "1"
    sinus = bool(SINUS & set(row["codes"]))
    rate, axis, qrs_ms = row["HR__Global"], row["QRS_AxisFront_Global"], row["QRS_Dur_Global"]
    j_point = {lead: row[f"ST_Amp_{lead}"] for lead in LEADS if lead != "aVR"}
    large_q = [
        lead
        for lead in LEADS
        if lead != "aVR" and row[f"Q_Dur_{lead}"] >= 30 and row[f"Q_Amp_{lead}"] <= -0.1
    ]  # fmt: skip
    q_inferior = len({"II", "III", "aVF"} & set(large_q)) >= 2
    q_septal = row["Q_Dur_V2"] > 20 or row["Q_Dur_V3"] > 20
    match code:
        case "SBRAD":
            return sinus and rate < 60
        case "STACH":
            return sinus and rate > 100
        case "AFIB":
            return row["P_Found_Global"] == 0 and row["RR_StdDev_Global"] > 0.1 * row["RR_Mean_Global"]
        case "1AVB":
            return sinus and row["PR_Int_Global"] > 200
        case "LAO/LAE":
            force = row["P-_Amp_V1"] * row["P-_Dur_V1"] if sinus else 0
            return sinus and row["P_Dur_Global"] >= 120 and force < -4
        case "IRBBB":
            return 110 <= qrs_ms < 120 and row["Rp_Amp_V1"] > 0.05 and row["S_Amp_V6"] < 0
        case "CRBBB":
            return qrs_ms >= 120 and row["Rp_Amp_V1"] > row["R_Amp_V1"] and row["S_Amp_V6"] < 0
        case "CLBBB":
            late = min(row["R_PeakTime_V5"] or 0, row["R_PeakTime_V6"] or 0) > 60
            no_q = row["Q_Amp_I"] == row["Q_Amp_V5"] == row["Q_Amp_V6"] == 0
            return qrs_ms >= 120 and late and no_q and row["S_Amp_V1"] < -row["R_Amp_V1"]
        case "LAFB":
            return qrs_ms < 120 and -90 <= axis <= -45 and row["Q_Amp_aVL"] < 0 and (row["R_PeakTime_aVL"] or 0) >= 45
        case "LPFB":
            q_r = row["Q_Amp_III"] < 0 and row["Q_Amp_aVF"] < 0
            return qrs_ms < 120 and 90 < axis <= 180 and q_r and -row["S_Amp_I"] > row["R_Amp_I"]
        case "LNGQT":
            upper = 460 if female else 450
            return min(row[f"QT_Int{name}_Global"] for name in ("Bazett", "Fridericia", "Framingham")) >= upper
        case "LVOLT":
            limb, chest = ([row[f"QRS_AmpPP_{lead}"] for lead in part] for part in (LEADS[:6], LEADS[6:]))
            return max(limb) < 0.5 and max(chest) < 1.0
        case "VCLVH" | "LVH":
            sokolow = max(-row["S_Amp_V1"], -row["Q_Amp_V1"]) + max(row["R_Amp_V5"], row["R_Amp_V6"])
            cornell = row["R_Amp_aVL"] + max(-row["S_Amp_V3"], -row["Q_Amp_V3"])
            voltage = sokolow >= 3.5 or cornell > (2.0 if female else 2.8) or row["R_Amp_aVL"] > 1.1
            return qrs_ms < 120 and voltage and (code == "VCLVH" or float(row["age"]) >= 35)
        case "IMI":
            return qrs_ms < 120 and q_inferior
        case "ASMI":
            return qrs_ms < 120 and q_septal
        case "QWAVE":
            lateral = len({"V4", "V5", "V6"} & set(large_q)) >= 2 or {"I", "aVL"} <= set(large_q)
            return qrs_ms < 120 and (q_inferior or q_septal or lateral)
        case "STE_":
            least = {lead: 0.2 if lead in ("V2", "V3") else 0.1 for lead in j_point}
            return in_adjacent_leads(row, [lead for lead, level in j_point.items() if level >= least[lead]])
        case "STD_":
            return in_adjacent_leads(row, [lead for lead, level in j_point.items() if level <= -0.05])
        case "INVT":
            return min(row[f"T_Amp_{lead}"] for lead in ("I", "II", "V3", "V4", "V5", "V6")) <= -0.1
    raise AssertionError(code)


RULED = (
    "SBRAD", "STACH", "AFIB", "1AVB", "LAO/LAE", "IRBBB", "CRBBB", "CLBBB", "LAFB", "LPFB", "LNGQT", "LVOLT", "VCLVH",
    "LVH", "IMI", "ASMI", "QWAVE", "STE_", "STD_", "INVT",
)  # fmt: skip


@pytest.mark.parametrize("code", RULED)
def test_a_statement_is_made_exactly_where_its_rule_holds(rows: list[dict[str, Any]], code: str) -> None:
    wrong = [row["ecg_id"] for row in rows if holds(row, code) != (code in row["codes"])]
    assert wrong == []
    assert any(code in row["codes"] for row in rows)


def test_normal_means_that_everything_is_in_range(rows: list[dict[str, Any]]) -> None:
    normal = [row for row in rows if "NORM" in row["codes"]]
    assert 0.3 * N < len(normal) < 0.7 * N
    for row in rows:
        in_range = (
            set(row["codes"]) <= {"NORM", "SR", "SARRH"}
            and 60 <= row["HR__Global"] <= 100
            and 120 <= (row["PR_Int_Global"] or 0) <= 200
            and row["QRS_Dur_Global"] < 110
            and -30 <= row["QRS_AxisFront_Global"] <= 90
            and row["QT_IntBazett_Global"] < (460 if row["sex"] == "1" else 450)
        )
        assert in_range == ("NORM" in row["codes"]), row["ecg_id"]
        assert row["codes"].get("NORM", 100.0) >= 80.0


def test_likelihoods_follow_the_manner_of_ptbxl(rows: list[dict[str, Any]], folder: Path) -> None:
    with (folder / "scp_statements.csv").open(encoding="utf-8", newline="") as file:
        diagnostic = {line[""]: bool(line["diagnostic"]) for line in csv.DictReader(file)}
    given = Counter(
        value for row in rows for code, value in row["codes"].items() if diagnostic[code] and code != "NORM"
    )
    assert set(given) == {100.0, 80.0, 50.0, 35.0}
    assert given[100.0] > given[80.0] > 0
    for row in rows:
        assert all(value == 0.0 for code, value in row["codes"].items() if not diagnostic[code])
        assert sum(code in {*SINUS, "AFIB", "AFLT", "PACE"} for code in row["codes"]) == 1


def test_the_axis_class_fits_the_true_axis(rows: list[dict[str, Any]]) -> None:
    ranges = {"MID": (0, 90), "LAD": (-30, 0), "AXL": (-30, 0), "AXR": (70, 90), "ALAD": (-90, -30), "RAD": (90, 120)}
    for row in rows:
        axis = row["QRS_AxisFront_Global"]
        if row["heart_axis"] == "ARAD":
            assert axis > 120 or axis < -90
        elif row["heart_axis"]:
            low, high = ranges[row["heart_axis"]]
            assert low <= axis <= high, row["ecg_id"]
    assert {row["heart_axis"] for row in rows} == {*ranges, "ARAD", ""}


def test_what_cannot_be_measured_is_missing(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        sinus = bool(SINUS & set(row["codes"]))
        assert row["P_Found_Global"] == int(sinus)
        for name in ("PR_Int_Global", "P_Dur_Global", "P_AxisFront_Global", "P_Amp_II", "P-_Dur_V1"):
            assert (row[name] is None) == (not sinus)
        assert (row["HR_Atrial_Global"] is None) == bool({"AFIB", "PACE"} & set(row["codes"]))
        for lead in LEADS:
            assert row[f"Q_Amp_{lead}"] <= 0.0
            assert row[f"S_Amp_{lead}"] <= 0.0 <= row[f"R_Amp_{lead}"]
            assert (row[f"R_PeakTime_{lead}"] is None) == (row[f"R_Amp_{lead}"] == 0.0)


def test_other_columns_agree_with_the_codes(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        codes = set(row["codes"])
        assert bool(row["pacemaker"]) == ("PACE" in codes)
        assert row["extra_beats"].startswith("VES") == ("PVC" in codes)
        assert (row["extra_beats"] == "SVES") == ("PAC" in codes)
        assert bool(row["infarction_stadium1"]) == bool({"IMI", "ASMI"} & codes)
        if row["infarction_stadium1"] == "Stadium I":
            assert "STE_" in codes


WORDS = {
    "SR": "sinus rhythm", "SBRAD": "sinus bradycardia", "STACH": "sinus tachycardia", "SARRH": "sinus arrhythmia",
    "AFIB": "atrial fibrillation", "AFLT": "atrial flutter", "PACE": "paced rhythm", "1AVB": "first degree",
    "IMI": "inferior", "ASMI": "anteroseptal", "LVH": "hypertrophy", "LAO/LAE": "left atrial", "CLBBB": "left bundle",
    "LAFB": "anterior fascicular", "LPFB": "posterior fascicular", "LNGQT": "qt interval", "QWAVE": "q waves",
    "VCLVH": "high left ventricular voltage", "LVOLT": "low", "STE_": "elevat", "STD_": "depress", "INVT": "inverted",
    "PVC": " ventricular prem| ventricular extra", "PAC": " atrial prem| supraventricular extra",
}  # fmt: skip


def test_reports_say_what_the_codes_say_and_nothing_else(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        report, codes = row["report"], set(row["codes"])
        for code, words in WORDS.items():
            said = any(word in report for word in words.split("|"))
            assert said == (code in codes), (row["ecg_id"], code, report)
        assert ("incomplete right bundle" in report) == ("IRBBB" in codes)
        assert ("right bundle" in report) == bool({"IRBBB", "CRBBB"} & codes)
        assert report.endswith(".")
        if "normal ecg" in report:
            assert codes <= {"NORM", "SR", "SARRH", "SBRAD", "STACH", "1AVB", "PAC", "LVOLT"}
            assert -30 <= row["QRS_AxisFront_Global"] <= 90


# Patients


def test_three_patients_in_ten_have_several_ecgs_in_time_order(rows: list[dict[str, Any]]) -> None:
    by_patient: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_patient.setdefault(row["patient_id"], []).append(row)
    several = [visits for visits in by_patient.values() if len(visits) > 1]
    assert len(several) == pytest.approx(0.3 * len(by_patient), abs=1)
    for visits in several:
        assert [row["recording_date"] for row in visits] == sorted({row["recording_date"] for row in visits})
        for fixed in ("sex", "strat_fold", "height", "device"):
            assert len({row[fixed] for row in visits}) == 1
    assert sum(visits[0]["codes"].keys() != visits[-1]["codes"].keys() for visits in several) > 0.3 * len(several)


def test_all_ten_folds_are_filled_evenly_and_the_last_two_are_validated(rows: list[dict[str, Any]]) -> None:
    folds = Counter(int(row["strat_fold"]) for row in rows)
    assert set(folds) == set(range(1, 11))
    patients = Counter(fold for _, fold in {(row["patient_id"], row["strat_fold"]) for row in rows})
    assert set(patients.values()) == {N // 14}
    assert all(row["validated_by_human"] == "True" for row in rows if int(row["strat_fold"]) >= 9)
    assert {row["validated_by_human"] for row in rows} == {"True", "False"}


def test_ages_are_adult_and_those_over_89_are_300(rows: list[dict[str, Any]]) -> None:
    ages = [float(row["age"]) for row in rows]
    assert 0 < sum(age == 300 for age in ages) < 0.06 * N
    assert all(18 <= age <= 89 for age in ages if age != 300)


# Signals


def test_limb_leads_obey_einthoven_in_whole_microvolts(ecgs: list[SimulatedECG]) -> None:
    for ecg in ecgs:
        one, two, three, avr, avl, avf = ecg.signal.T[:6].astype(int)
        assert (three == two - one).all()
        for augmented, twice in ((avr, -(one + two)), (avl, one - three), (avf, two + three)):
            assert np.abs(2 * augmented - twice).max() <= 1
        assert np.abs(ecg.signal).max() < 8000


def test_noise_is_where_the_columns_say_and_nowhere_else(ecgs: list[SimulatedECG]) -> None:
    seen: Counter[str] = Counter()
    for ecg in ecgs:
        if ecg.codes & {"AFIB", "AFLT"}:  # whose own waves are no noise
            continue
        clean = (TWELVE @ clean_signal(ecg.visit.plan, ecg.traits, ecg.strip, ecg.beat)).T * 1000
        rest = ecg.signal - clean
        noisy = set()
        for name in ("baseline_drift", "static_noise", "burst_noise", "electrode_problems"):
            leads = getattr(ecg.noise, name)
            seen[name] += bool(leads)
            noisy |= set(leads)
            assert bool(leads) == bool(ecg.row["electrodes_problems" if name == "electrode_problems" else name])
        for column, lead in enumerate(LEADS):
            spread = rest[:, column].std()
            assert spread > 11 if lead in noisy else spread < 60, (ecg.visit.ecg_id, lead, spread, noisy)
            steps = np.diff(rest[:, column]).std()
            assert lead not in ecg.noise.static_noise or steps > 20
            assert lead in noisy or steps < 20
    assert min(seen[name] for name in ("baseline_drift", "static_noise", "burst_noise", "electrode_problems")) > 0


def test_fibrillation_has_atrial_waves_and_no_p_waves(ecgs: list[SimulatedECG]) -> None:
    ecg = next(ecg for ecg in ecgs if "AFIB" in ecg.codes)
    assert ecg.beat.n_p_waves == 0
    waves = atrial_activity(ecg.visit.plan, ecg.strip, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(waves[2])) ** 2
    strongest_hz = np.fft.rfftfreq(1000, 0.01)[power.argmax()]
    assert 4 < strongest_hz < 9
    sinus = next(ecg for ecg in ecgs if "SR" in ecg.codes)
    assert atrial_activity(sinus.visit.plan, sinus.strip, np.random.default_rng(0)) == 0.0


# The folder


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    for name, seed, workers in (("one", 5, 1), ("two", 5, 2), ("other", 6, 1)):
        simulate(tmp_path / name, 720, seed, workers=workers)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert files_of(tmp_path / "one").keys() == files_of(tmp_path / "other").keys()
    assert files_of(tmp_path / "one")[f"{record_path(1)}.dat"] != files_of(tmp_path / "other")[f"{record_path(1)}.dat"]


def test_an_ecg_does_not_depend_on_how_many_follow(tmp_path: Path) -> None:
    simulate(tmp_path / "few", 50, 3)
    simulate(tmp_path / "more", 100, 3)
    few, more = files_of(tmp_path / "few"), files_of(tmp_path / "more")
    for name, content in few.items():
        if name.startswith("records100/"):
            assert more[name] == content
    assert more["ptbxl_database.csv"].startswith(few["ptbxl_database.csv"])
    features = [pl.read_parquet(tmp_path / name / "features/simulated_features.parquet") for name in ("few", "more")]
    assert features[0].equals(features[1].head(50))


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "ecgs", 20, 1, progress=stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "ecgs").mkdir()
    done: list[int] = []
    simulate(tmp_path / "ecgs", 20, 1, progress=done.append)
    assert sum(done) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["ecgs"]


def test_a_folder_in_use_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SourceError, match="not an empty folder"):
        simulate(tmp_path, 5, 1)
    with pytest.raises(SourceError, match="not an empty folder"):
        simulate(tmp_path / "notes.txt", 5, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("n", "seed", "workers", "named"), [(0, 1, 1, "n is 0"), (5, -1, 1, "seed"), (5, 1, 0, "workers")]
)
def test_senseless_numbers_are_refused(tmp_path: Path, n: int, seed: int, workers: int, named: str) -> None:
    with pytest.raises(SourceError, match=named):
        simulate(tmp_path / "ecgs", n, seed, workers=workers)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_says_what_it_is(folder: Path) -> None:
    about = json.loads((folder / "SIMULATED.json").read_text())
    assert about["name"] == "simulated"
    assert (about["n"], about["seed"], about["licence"]) == (N, 4, "CC0-1.0")
    assert "CC0 1.0" in (folder / "LICENSE.txt").read_text()


def test_an_even_mix_has_every_rhythm_and_conduction_and_healthy_muscle(tmp_path: Path) -> None:
    simulate(tmp_path / "even", 400, seed=9, mix="even")
    counts = Counter(code for row in read_rows(tmp_path / "even") for code in row["codes"])
    for code in ("SR", "SBRAD", "STACH", "SARRH", "AFIB", "AFLT", "PACE", "1AVB"):
        assert counts[code] >= 20, code
    for code in ("IRBBB", "CRBBB", "CLBBB", "LAFB", "LPFB"):
        assert counts[code] >= 30, code
    assert not {"IMI", "ASMI", "LVH", "VCLVH", "LVOLT", "STE_", "LNGQT", "LAO/LAE"} & set(counts)
    assert json.loads((tmp_path / "even" / "SIMULATED.json").read_text())["mix"] == "even"


def test_wfdb_reads_the_records(folder: Path, ecgs: list[SimulatedECG]) -> None:
    wfdb = pytest.importorskip("wfdb")
    for ecg in ecgs[:5]:
        record = wfdb.rdrecord(str(folder / record_path(ecg.visit.ecg_id)), physical=False)
        assert record.sig_name == ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]
        assert (record.fs, record.sig_len, set(record.units), set(record.adc_gain)) == (100, 1000, {"mV"}, {1000.0})
        np.testing.assert_array_equal(record.d_signal, ecg.signal)
        assert record.checksum == (ecg.signal.sum(axis=0, dtype=np.int64) % 65536).tolist()


def test_open_ptbxl_reads_the_folder(folder: Path, rows: list[dict[str, Any]]) -> None:
    source = open_ptbxl(folder)
    assert source.name == "simulated"
    assert source.attribution["licence"] == "CC0-1.0"
    assert source.rejected.collect().is_empty()
    ecgs = source.ecgs.collect()
    assert ecgs["ecg_id"].to_list() == [f"simulated:{row['ecg_id']}" for row in rows]
    assert ecgs["report_language"].unique().to_list() == ["en"]
    labels = source.labels.collect().group_by("ecg_id", maintain_order=True).agg("code")
    assert labels["code"].to_list() == [list(row["codes"]) for row in rows]
    (measured,) = [frame.collect() for frame in source.providers.values()]
    assert measured["HR__Global"].to_list() == [row["HR__Global"] for row in rows]


def test_open_ptbxl_understands_the_noise_columns(folder: Path, ecgs: list[SimulatedECG]) -> None:
    read = open_ptbxl(folder).ecgs.collect()
    for name in ("baseline_drift", "static_noise", "burst_noise", "electrode_problems"):
        for ecg, leads in zip(ecgs, read[name].to_list(), strict=True):
            expected = getattr(ecg.noise, name) or None
            if name == "static_noise" and ecg.noise.seen_without_leads:
                expected = ["lead_unknown"]
            assert leads == expected, ecg.row
    assert any(set(ecg.noise.static_noise) == set(LIMB_LEADS) for ecg in ecgs)


@pytest.mark.realdata
def test_headers_and_statements_match_those_of_ptbxl(folder: Path, ecgs: list[SimulatedECG]) -> None:
    if not (DATA / "ptbxl_pack.py").exists():
        pytest.skip(f"{DATA / 'ptbxl_pack.py'} is not there: set ECGLM_DATA")
    specification = importlib.util.spec_from_file_location("ptbxl_pack", DATA / "ptbxl_pack.py")
    assert specification is not None
    assert specification.loader is not None
    pack = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(pack)
    for ecg in ecgs[:20]:
        assert header_text(ecg.visit.ecg_id, ecg.signal).encode() == pack.header(ecg.visit.ecg_id, ecg.signal)
    with (DATA / "ptbxl/scp_statements.csv").open(encoding="utf-8", newline="") as file:
        real = {line[""]: line for line in csv.DictReader(file)}
    with (folder / "scp_statements.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            for column in ("diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass"):
                assert line[column] == real[line[""]][column]
