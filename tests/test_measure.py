"""The `measured` provider: exact on beats whose every number is known, and right about real ECGs."""

from __future__ import annotations

import ast
import csv
import lzma
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ecglm.synth.errors import SignalError
from ecglm.synth.measure import MEASURED_COLUMNS, MEASURED_VERSION, measure_block
from ecglm.synth.measure.atrial import PShapes, believed, p_bounds
from ecglm.synth.measure.dictionary import measurements
from ecglm.synth.schema import LEADS

DATA = Path(os.environ.get("ECGLM_DATA", Path(__file__).parents[1] / "../shared/data"))

Floats = npt.NDArray[np.float32]

# Q, R, S heights in mV of the made beat in I and II and V1 to V6; the other limb leads follow from I and II.
HEIGHTS = {
    "I": (-0.1, 0.8, -0.2),
    "II": (-0.1, 1.0, -0.2),
    "V1": (0.0, 0.2, -1.0),
    "V2": (0.0, 0.4, -1.5),
    "V3": (0.0, 0.7, -0.9),
    "V4": (-0.1, 1.4, -0.5),
    "V5": (-0.1, 1.3, -0.3),
    "V6": (-0.1, 1.0, -0.1),
}


def bump(time: npt.NDArray[np.float64], centre: float, width: float) -> npt.NDArray[np.float64]:
    """Raised cosine of height 1: zero with zero slope outside its width (s)."""
    inside = np.abs(time - centre) < width / 2
    return np.where(inside, 0.5 + 0.5 * np.cos(2 * np.pi * (time - centre) / width), 0.0)


def made_ecg(
    beats: npt.ArrayLike,
    *,
    hz: int = 500,
    seconds: float = 10,
    heights: dict[str, tuple[float, ...]] | None = None,
    p_before: float = 0.16,
    dip: float = 0.0,
) -> Floats:
    """(1, n_samples, 12) in mV: P wave and the dip after it, Q, R, S and T waves, R at each time of `beats` (s)."""
    time = np.arange(round(seconds * hz)) / hz
    independent = {}
    for lead, (q, r, s) in (heights or HEIGHTS).items():
        wave, share = np.zeros(len(time)), 0.7 if lead == "I" else 1.0
        for at in np.asarray(beats):
            wave += share * (0.1 * bump(time, at - p_before, 0.08) + 0.2 * bump(time, at + 0.28, 0.18))
            wave += share * dip * bump(time, at - p_before + 0.08, 0.08)
            wave += q * bump(time, at - 0.04, 0.04) + r * bump(time, at, 0.04) + s * bump(time, at + 0.04, 0.04)
        independent[lead] = wave
    one, two = independent["I"], independent["II"]
    limb = {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return np.stack([{**independent, **limb}[lead] for lead in LEADS], axis=-1)[None].astype(np.float32)


def measured(signal: Floats, leads: Sequence[str] = LEADS, hz: int = 500) -> dict[str, float]:
    columns, _ = measure_block(signal, leads, hz)
    return {name: float(values[0]) for name, values in columns.items()}


def reasons(signal: Floats, leads: Sequence[str] = LEADS, hz: int = 500) -> dict[str, str]:
    return {reason: detail for _, reason, detail in measure_block(signal, leads, hz)[1]}


REGULAR = np.arange(0.5, 9.6, 0.8)


# ------------------------------------------------------------------------------------------------------ known numbers


def test_every_column_is_a_measurement_of_the_dictionary() -> None:
    assert set(MEASURED_COLUMNS) <= set(measurements())
    assert len(set(MEASURED_COLUMNS)) == len(MEASURED_COLUMNS) == 22 + 30 * 12
    assert MEASURED_VERSION
    columns, _ = measure_block(made_ecg(REGULAR), LEADS, 500)
    assert list(columns) == list(MEASURED_COLUMNS)
    assert all(values.dtype == np.float32 and values.shape == (1,) for values in columns.values())


@pytest.mark.parametrize("hz", [100, 250, 360, 500, 1000])
@pytest.mark.parametrize("rr", [0.33, 0.6, 0.8, 1.3, 2.0])
def test_rate_and_regularity_of_a_regular_rhythm_are_exact(hz: int, rr: float) -> None:
    beats = np.arange(0.4, 9.7, rr)
    values = measured(made_ecg(beats, hz=hz), hz=hz)
    assert values["QRS_Count_Global"] == len(beats)
    assert values["RR_Mean_Global"] == pytest.approx(1000 * rr, abs=2)
    assert values["HR__Global"] == pytest.approx(60 / rr, rel=0.004)
    assert values["RR_StdDev_Global"] < 4


def test_irregular_rhythm_gives_the_mean_and_deviation_of_its_intervals() -> None:
    intervals = np.array([0.7, 0.9, 0.62, 1.05, 0.8, 0.95, 0.66, 0.88, 1.1])
    values = measured(made_ecg(0.5 + np.concatenate([[0], np.cumsum(intervals)])))
    assert values["HR__Global"] == pytest.approx(60 / intervals.mean(), rel=0.002)
    # 0.62 before 1.05 and 0.66 before 0.88 look like premature beats with their pause, and are no normal intervals
    assert 80 < values["RR_StdDev_Global"] < 1000 * intervals.std()


def test_one_extrasystole_changes_neither_the_regularity_nor_the_amplitudes() -> None:
    beats = [0.5, 1.3, 2.1, 2.9, 3.7, 5.3, 6.1, 6.9, 7.7, 8.5, 9.3]
    broad = bump(np.arange(5000) / 500, 4.15, 0.16)[None, :, None] * np.linspace(-2, 2, 12)
    values = measured(made_ecg(beats) + np.asarray(broad, dtype=np.float32))
    calm = measured(made_ecg(REGULAR))
    assert values["QRS_Count_Global"] == len(beats) + 1
    assert values["RR_StdDev_Global"] < 5
    assert values["HR__Global"] == pytest.approx(60 * len(beats) / 8.8, rel=0.01)
    for lead in LEADS:
        assert values[f"R_Amp_{lead}"] == pytest.approx(calm[f"R_Amp_{lead}"], abs=0.03)


def test_in_bigeminy_the_amplitudes_are_those_of_the_sinus_beats() -> None:
    sinus = np.arange(0.9, 9.0, 1.5)
    broad = np.sum([bump(np.arange(5000) / 500, at + 0.5, 0.15) for at in sinus], axis=0)
    signal = made_ecg(sinus) + (broad[None, :, None] * np.linspace(-2, 2, 12)).astype(np.float32)
    values = measured(signal)
    assert values["QRS_Count_Global"] == 12
    assert values["R_Amp_V5"] == pytest.approx(1.3, abs=0.05)
    assert values["S_Amp_V2"] == pytest.approx(-1.5, abs=0.05)


@pytest.mark.parametrize(("hz", "share"), [(500, 0.02), (250, 0.03), (100, 0.05)])
@pytest.mark.parametrize("late", [0, 0.002, 0.003, 0.005, 0.0075])
def test_amplitudes_are_those_of_the_made_beat(hz: int, share: float, late: float) -> None:
    values = measured(made_ecg(REGULAR + late, hz=hz), hz=hz)
    for lead, (q, r, s) in HEIGHTS.items():
        assert values[f"R_Amp_{lead}"] == pytest.approx(r, rel=share, abs=0.015), lead
        assert values[f"S_Amp_{lead}"] == pytest.approx(s, rel=share, abs=0.02), lead
        assert values[f"QRS_AmpPP_{lead}"] == pytest.approx(r - min(q, s), rel=share, abs=0.015), lead


def test_a_complex_without_r_wave_is_all_s_and_one_without_s_has_none() -> None:
    values = measured(made_ecg(REGULAR, heights={**HEIGHTS, "V1": (0.0, -1.2, 0.0), "V6": (-0.2, 1.0, 0.0)}))
    assert values["R_Amp_V1"] == 0
    assert values["S_Amp_V1"] == pytest.approx(-1.2, abs=0.03)
    assert values["S_Amp_V6"] == 0
    assert values["QRS_AmpPP_V6"] == pytest.approx(1.2, abs=0.03)


def test_a_low_first_wave_is_named_by_all_of_its_area() -> None:
    signal = made_ecg(REGULAR, heights={**HEIGHTS, "V2": (0.0, 0.0, -1.5)})
    first = sum(bump(np.arange(5000) / 500, at + 0.004, 0.012) for at in REGULAR)  # 0.19 mV·ms, half before 25 µV
    signal[0, :, LEADS.index("V2")] += (0.032 * np.asarray(first)).astype(np.float32)
    values = measured(signal)
    assert values["R_Amp_V2"] == pytest.approx(0.032, abs=0.004)
    assert values["Q_Amp_V2"] == 0


@pytest.mark.parametrize("st", [0.25, 0.3])
def test_the_only_wave_of_a_complex_is_named_though_it_runs_into_a_raised_st_segment(st: float) -> None:
    signal = made_ecg(REGULAR, heights={**HEIGHTS, "V3": (0.0, 0.3, 0.0), "V4": (-0.3, 0.0, 0.0)})
    time = np.arange(5000) / 500
    raised = sum(np.interp(time - at, [0, 0.015, 0.2, 0.3], [0, st, st, 0]) for at in REGULAR)
    for lead in ("V3", "V4"):
        signal[0, :, LEADS.index(lead)] += np.asarray(raised).astype(np.float32)
    values = measured(signal)
    assert values["R_Amp_V3"] == pytest.approx(values["QRS_AmpPP_V3"], abs=0.01)
    assert values["R_Amp_V3"] > 0.3
    assert values["R_Amp_V4"] == 0, "after a Q wave it is the ST segment"


@pytest.mark.parametrize("hz", [100, 500])
@pytest.mark.parametrize(("p_before", "dip"), [(0.24, 0.0), (0.24, -0.12), (0.43, 0.0)])
def test_long_pr_intervals_end_at_the_p_wave_and_not_at_the_dip_after_it(hz: int, p_before: float, dip: float) -> None:
    values = measured(made_ecg(np.arange(0.6, 9.6, 1.0), hz=hz, p_before=p_before, dip=dip), hz=hz)
    assert values["P_Found_Global"] == 1
    assert values["P_Evidence_Global"] > 0.9
    assert values["PR_Int_Global"] == pytest.approx(1000 * (p_before + 0.04 - 0.06), abs=14)
    assert values["P_Amp_II"] > 0


@pytest.mark.parametrize("hz", [500, 1000])
@pytest.mark.parametrize("rise_mv", [-1.0, 0.3, 1.0])
def test_where_a_steep_t_wave_ends_there_is_no_p_wave(hz: int, rise_mv: float) -> None:
    ms = np.arange(0, 1120, 1000 / hz)
    beat = np.zeros((1, 2, len(ms)), np.float32)
    beat[0, 0] = rise_mv * np.interp(ms, [140, 180], [-1, 0])  # the end of the T wave before, in V5
    beat[0, 1] = 0.08 * bump(ms / 1000, 0.34, 0.09) + 0.2 * bump(ms / 1000, 0.66, 0.16)  # P and T in II
    at = [np.array([value * hz // 1000]) for value in (480, 660, 740)]
    found = p_bounds(beat, ("V5", "II"), *at, np.array([0.66 * hz], np.float32), hz)
    assert found.peak[0] * 1000 / hz == pytest.approx(340, abs=10)
    assert found.onset[0] * 1000 / hz == pytest.approx(300, abs=20)


def test_an_inverted_p_wave_alone_is_still_found() -> None:
    signal = made_ecg(REGULAR, p_before=0.16, dip=0.0)
    upright = sum(bump(np.arange(5000) / 500, at - 0.16, 0.08) for at in REGULAR)
    share = np.array([0.07, 0.1, 0.03, -0.085, 0.02, 0.065, *[0.1] * 6])
    values = measured((signal - 2 * np.asarray(upright)[None, :, None] * share).astype(np.float32))
    assert values["P_Found_Global"] == 1
    assert values["P_Amp_II"] == pytest.approx(-0.1, abs=0.01)
    assert values["PR_Int_Global"] == pytest.approx(140, abs=14)


@pytest.mark.parametrize(
    ("rhythm", "sinus", "evidence", "pr_ms", "expected"),
    [
        ("regular", False, 0.2, 160, True),
        ("irregular", False, 0.2, 160, False),
        ("irregular", False, 0.4, 160, True),  # bigeminy, pauses: few intervals differ from the one before
        ("erratic", False, 0.4, 160, False),
        ("erratic", True, 0.4, 160, True),
        ("erratic", False, 0.55, 160, True),
        ("erratic", False, 0.55, 320, False),
        ("erratic", False, 0.9, 320, True),
        ("metronomic", True, 0.9, 320, False),
        ("metronomic", True, 0.9, 160, True),
    ],
)
def test_more_evidence_of_p_waves_is_asked_where_the_rhythm_makes_them_unlikely(
    rhythm: str, sinus: bool, evidence: float, pr_ms: float, expected: bool
) -> None:
    variation, change, qrs_ms = {
        "regular": (0.03, 0.02, 90.0),
        "irregular": (0.2, 0.02, 90.0),
        "erratic": (0.2, 0.2, 90.0),
        "metronomic": (0.001, 0.001, 180.0),
    }[rhythm]
    height = np.array([[0.1, 0.1]], np.float32)
    area = height * (40 if sinus else -40)
    shapes = PShapes(height, height, height, height, height, area, np.abs(area))
    others = [np.array([value], np.float32) for value in (pr_ms, qrs_ms, variation, change)]
    found = believed(np.array([evidence], np.float32), shapes, np.ones((1, 2), bool), ["I", "II"], *others)
    assert found.tolist() == [expected]


@pytest.mark.parametrize("degrees", [-170, -120, -90, -45, -10, 0, 30, 60, 90, 135, 180])
@pytest.mark.parametrize("leads", [LEADS, ("I", "aVF"), ("II", "III"), ("aVL", "aVR"), ("I", "II", "V1")])
def test_axis_is_the_direction_of_the_vector_whatever_limb_leads_show_it(degrees: int, leads: tuple[str, ...]) -> None:
    one, two = np.cos(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees - 60))
    signal = made_ecg(REGULAR, heights={**HEIGHTS, "I": (0, one, 0), "II": (0, two, 0)})
    axis = measured(signal[:, :, [LEADS.index(lead) for lead in leads]], leads)["QRS_AxisFront_Global"]
    assert -180 < axis <= 180
    assert abs((axis - degrees + 180) % 360 - 180) < 4


def test_axis_of_complexes_with_no_net_direction_is_missing_and_says_so() -> None:
    signal = made_ecg(REGULAR, heights={**HEIGHTS, "I": (0, 0.8, -0.8), "II": (0, 0.8, -0.8)})
    assert np.isnan(measured(signal)["QRS_AxisFront_Global"])
    assert "indeterminate_axis" in reasons(signal)


def test_drift_and_noise_of_everyday_size_hardly_change_the_numbers() -> None:
    clean = made_ecg(REGULAR)
    time = np.arange(5000) / 500
    drift = 0.2 * np.sin(2 * np.pi * 0.25 * time)[None, :, None]
    noise = np.random.default_rng(0).normal(0, 0.03, clean.shape)
    before, after = measured(clean), measured((clean + drift + noise).astype(np.float32))
    assert after["HR__Global"] == pytest.approx(before["HR__Global"], rel=0.003)
    assert after["QRS_AxisFront_Global"] == pytest.approx(before["QRS_AxisFront_Global"], abs=8)
    for lead in LEADS:
        assert after[f"QRS_AmpPP_{lead}"] == pytest.approx(before[f"QRS_AmpPP_{lead}"], abs=0.08)


# ------------------------------------------------------------------------------------------------- leads and bad input


@pytest.mark.parametrize("leads", [("V2",), ("II",), ("I", "II"), ("V1", "V2", "V3"), LEADS[:6], ("MLII", "V5")])
def test_any_leads_give_what_they_allow_and_nothing_else(leads: tuple[str, ...]) -> None:
    from_leads = [LEADS.index("II" if lead == "MLII" else lead) for lead in leads]
    values = measured(made_ecg(REGULAR)[:, :, from_leads], leads)
    assert values["HR__Global"] == pytest.approx(75, rel=0.004)
    assert np.isfinite(values["QRS_AxisFront_Global"]) == (len(set(leads) & set(LEADS[:6])) >= 2)
    for lead in LEADS:
        assert np.isfinite(values[f"R_Amp_{lead}"]) == (lead in leads)


def test_lead_names_in_capitals_are_the_same_leads() -> None:
    signal = made_ecg(REGULAR)
    assert measured(signal, [lead.upper() for lead in LEADS]) == measured(signal)


def test_missing_samples_are_reported_and_never_counted_as_a_pause() -> None:
    signal = made_ecg(REGULAR)
    signal[0, 1500:2600] = np.nan
    signal[0, :, LEADS.index("V3")] = np.nan
    values = measured(signal)
    assert values["HR__Global"] == pytest.approx(75, rel=0.004)
    assert values["R_Amp_V5"] == pytest.approx(1.3, abs=0.03)
    assert np.isnan(values["R_Amp_V3"])
    assert "V3: 100% of the samples missing" in reasons(signal)["nan_samples"]


def test_a_flat_lead_is_named_and_left_out() -> None:
    signal = made_ecg(REGULAR)
    signal[:, :, LEADS.index("V4")] = 0.3
    values = measured(signal)
    assert reasons(signal) == {"flat_lead": "V4: no signal"}
    assert np.isnan(values["R_Amp_V4"])
    assert np.isnan(values["QRS_AmpPP_V4"])
    assert values["HR__Global"] == pytest.approx(75, rel=0.004)


@pytest.mark.parametrize("kind", ["zeros", "nan", "infinite", "white", "brown", "mains", "drift", "one spike"])
@pytest.mark.parametrize("n_leads", [2, 12])
def test_what_is_no_ecg_gives_no_number(kind: str, n_leads: int) -> None:
    shape = (8, 1000, n_leads)
    random = np.random.default_rng(5)
    time = np.arange(1000)[None, :, None] / 100
    signals = {
        "zeros": np.zeros(shape),
        "nan": np.full(shape, np.nan),
        "infinite": np.full(shape, np.inf),
        "white": random.normal(0, 0.2, shape),
        "brown": random.normal(0, 0.05, shape).cumsum(axis=1),
        "mains": np.broadcast_to(np.sin(2 * np.pi * 49 * time), shape),
        "drift": np.broadcast_to(np.sin(2 * np.pi * 0.3 * time), shape),
        "one spike": np.broadcast_to((time == 5) * 2.0, shape),
    }
    columns, problems = measure_block(signals[kind].astype(np.float32), LEADS[:n_leads], 100)
    assert all(np.isnan(values).all() for values in columns.values())
    assert [record for record, reason, _ in problems if reason == "no_beats"] == list(range(8))


def test_one_second_and_ten_minutes_are_refused_with_the_reason() -> None:
    for seconds, reason in ((1, "too_short"), (600, "too_long")):
        signal = np.zeros((2, seconds * 100, 1), np.float32)
        columns, problems = measure_block(signal, ["II"], 100)
        assert all(np.isnan(values).all() for values in columns.values())
        assert [(record, found) for record, found, _ in problems] == [(0, reason), (1, reason)]


def test_a_single_beat_has_amplitudes_but_no_rate() -> None:
    signal = made_ecg([2.0], seconds=4)
    values = measured(signal)
    assert np.isnan(values["HR__Global"])
    assert values["QRS_Count_Global"] == 1
    assert values["R_Amp_V5"] == pytest.approx(1.3, abs=0.03)
    assert "too_few_beats" in reasons(signal)


def test_microvolts_taken_for_millivolts_are_noticed() -> None:
    signal = made_ecg(REGULAR) * 1000
    assert np.isnan(measured(signal)["R_Amp_V5"])
    assert "units" in reasons(signal)["implausible_amplitude"]


def test_a_wrong_call_says_what_was_found_and_expected() -> None:
    signal = made_ecg(REGULAR)
    with pytest.raises(SignalError, match=r"expected \(n_records, n_samples, 2 leads\)"):
        measure_block(signal, ["I", "II"], 500)
    with pytest.raises(SignalError, match="sampling_hz is 50; expected 90 to 1100"):
        measure_block(signal, LEADS, 50)
    with pytest.raises(SignalError, match="twice"):
        measure_block(signal[:, :, :2], ["II", "ii"], 500)


def test_no_records_give_empty_columns() -> None:
    columns, problems = measure_block(np.zeros((0, 1000, 12), np.float32), LEADS, 100)
    assert problems == []
    assert all(values.shape == (0,) for values in columns.values())


def test_importing_the_package_does_not_import_scipy() -> None:
    code = "import sys, ecglm.synth.measure; print('scipy' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"


# ------------------------------------------------------------------------------------------------------------ real ECGs


def needed(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is not here; set ECGLM_DATA to the folder with the real data")
    return path


class Part:
    """Four thousand ECGs of PTB-XL with their labels and measurements."""

    def __init__(self, folder: Path) -> None:
        pack = needed(DATA / "ptbxl_pack.py")
        command = [sys.executable, str(pack), "npy", str(folder / "part.npy"), "--folders"]
        command += ["00000", "02000", "12000", "21000"]
        subprocess.run(command, check=True, capture_output=True)
        self.signal = np.load(folder / "part.npy", mmap_mode="r")
        ids = np.load(folder / "part.ids.npy").tolist()
        self.row = {ecg_id: row for row, ecg_id in enumerate(ids)}
        table = lzma.decompress((DATA / "ptbxl/ptbxl_database.csv.xz").read_bytes()).decode()
        rows = {int(row["ecg_id"]): row for row in csv.DictReader(table.splitlines())}
        self.codes = [set(ast.literal_eval(rows[ecg_id]["scp_codes"])) for ecg_id in ids]
        self.heart_axis = np.array([rows[ecg_id]["heart_axis"] for ecg_id in ids])
        self.sex = np.array([rows[ecg_id]["sex"] for ecg_id in ids])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.columns, self.problems = measure_block(self.block(range(len(ids))), LEADS, 100)

    def block(self, rows: Sequence[int]) -> Floats:
        return np.asarray(self.signal[list(rows)], dtype=np.float32) / np.float32(1000)

    def has(self, code: str) -> npt.NDArray[np.bool_]:
        return np.array([code in codes for codes in self.codes])

    def auc(self, score: npt.NDArray[np.floating], code: str, against: str) -> float:
        """Chance that a record with `code` scores above one with `against`; a missing score counts as the wrong one."""
        positive = np.nan_to_num(score[self.has(code)], nan=-np.inf)[:, None]
        negative = np.nan_to_num(score[self.has(against)], nan=np.inf)[None]
        return float((positive > negative).mean() + 0.5 * (positive == negative).mean())


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    return Part(tmp_path_factory.mktemp("ptbxl"))


@pytest.mark.realdata
def test_rate_and_regularity_agree_with_the_rhythm_statements(part: Part) -> None:
    rate = part.columns["HR__Global"]
    variation = part.columns["RR_StdDev_Global"] / part.columns["RR_Mean_Global"]
    assert part.auc(rate, "STACH", "SR") >= 0.985
    assert part.auc(-rate, "SBRAD", "SR") >= 0.95
    assert part.auc(variation, "AFIB", "SR") >= 0.96


@pytest.mark.realdata
def test_axis_agrees_with_the_axis_classes(part: Part) -> None:
    axis = part.columns["QRS_AxisFront_Global"]
    side = np.select([np.isnan(axis), (axis < 0) & (axis >= -90), (axis >= 0) & (axis <= 90)], [-1, 0, 1], default=2)
    groups = (("LAD", "ALAD"), ("MID",), ("RAD", "ARAD"))
    recall = [(side[np.isin(part.heart_axis, names)] == group).mean() for group, names in enumerate(groups)]
    assert np.mean(recall) >= 0.88


@pytest.mark.realdata
def test_voltages_agree_with_the_voltage_statements(part: Part) -> None:
    columns = part.columns
    limb = np.fmax.reduce([columns[f"QRS_AmpPP_{lead}"] for lead in LEADS[:6]])
    assert part.auc(-limb, "LVOLT", "NORM") >= 0.93
    sokolow_lyon = np.fmax(columns["R_Amp_V5"], columns["R_Amp_V6"]) - columns["S_Amp_V1"]
    cornell = (columns["R_Amp_aVL"] - columns["S_Amp_V3"]) / np.where(part.sex == "1", 2.0, 2.8)
    assert part.auc(np.fmax(sokolow_lyon / 3.5, cornell), "VCLVH", "NORM") >= 0.90


@pytest.mark.realdata
def test_nearly_everything_is_measured_and_signs_are_right(part: Part) -> None:
    for name, values in part.columns.items():
        if name == "Pacing_Found_Global":
            assert np.isnan(values).all(), "not to be told at 100 Hz"
        elif name.startswith("R_PeakTime"):
            assert (np.isfinite(values) == (part.columns[f"R_Amp_{name.rpartition('_')[2]}"] > 0)).all(), name
        elif name.startswith("P"):
            assert np.isfinite(values).mean() > (0.99 if name in ("P_Found_Global", "P_Evidence_Global") else 0.9), name
        else:
            assert np.isfinite(values).mean() > 0.99, name
        if name.startswith(("Q_Amp", "S_Amp", "Sp_Amp", "P-_Amp")):
            assert np.nanmax(values) <= 0, name
        if name.startswith(("R_Amp", "Rp_Amp", "QRS_AmpPP")) or "_Dur_" in name or "_Int" in name:
            assert np.nanmin(values) >= 0, name
        if "_Quality_" in name:
            assert set(values[np.isfinite(values)]) <= {1.0, 2.0, 3.0}, name


@pytest.mark.realdata
def test_record_12722_is_measured_without_its_flat_leads(part: Part) -> None:
    row = part.row[12722]
    found = {reason: detail for record, reason, detail in part.problems if record == row}
    assert found == {"flat_lead": "V5: no signal; V6: no signal"}
    assert np.isnan(part.columns["R_Amp_V5"][row])
    assert part.columns["HR__Global"][row] == pytest.approx(80, abs=8)
    assert np.isfinite(part.columns["R_Amp_II"][row])


@pytest.mark.realdata
@pytest.mark.parametrize(("ecg_id", "rate"), [(191, 31), (2400, 57), (2405, 50)])
def test_tall_t_waves_are_not_counted_as_beats(part: Part, ecg_id: int, rate: float) -> None:
    assert part.columns["HR__Global"][part.row[ecg_id]] == pytest.approx(rate, abs=2)


@pytest.mark.realdata
@pytest.mark.parametrize(("ecg_id", "pr_ms"), [(730, 200), (2136, 162), (12942, 178), (21152, 192), (21331, 180)])
def test_the_end_of_the_t_wave_in_bundle_branch_block_is_no_p_wave(part: Part, ecg_id: int, pr_ms: float) -> None:
    assert part.columns["PR_Int_Global"][part.row[ecg_id]] == pytest.approx(pr_ms, abs=12)


@pytest.mark.realdata
@pytest.mark.parametrize("leads", [LEADS, ("II",), ("I", "V2")])
def test_numbers_do_not_depend_on_the_neighbours_in_the_block(part: Part, leads: tuple[str, ...]) -> None:
    block = part.block(range(200, 300))[:, :, [LEADS.index(lead) for lead in leads]]
    block[7, 100:300, 0] = np.nan
    whole, _ = measure_block(block, leads, 100)
    order = np.random.default_rng(1).permutation(len(block))
    for size in (1, 7, 64):
        pieces = [measure_block(block[order[at : at + size]], leads, 100)[0] for at in range(0, len(block), size)]
        for name, values in whole.items():
            joined = np.concatenate([piece[name] for piece in pieces])
            assert np.array_equal(joined, values[order], equal_nan=True), (name, size)


@pytest.mark.realdata
def test_500_hz_and_100_hz_of_the_same_ecg_agree(part: Part, tmp_path: Path) -> None:
    import wfdb

    with zipfile.ZipFile(needed(DATA / "ptbxl500/records500_sample.zip")) as archive:
        archive.extractall(tmp_path)
    headers = sorted(tmp_path.rglob("*_hr.hea"))
    ids = [int(header.name[:5]) for header in headers]
    fine = np.stack([wfdb.rdrecord(str(header.with_suffix(""))).p_signal for header in headers]).astype(np.float32)
    columns, _ = measure_block(fine, LEADS, 500)
    rows = [part.row[ecg_id] for ecg_id in ids]
    assert len(rows) == 24
    difference = {name: np.abs(values - part.columns[name][rows]) for name, values in columns.items()}
    assert difference["HR__Global"].max() < 1
    assert difference["QRS_Count_Global"].max() <= 1
    assert difference["QRS_AxisFront_Global"].mean() < 2
    for lead in LEADS:
        assert difference[f"QRS_AmpPP_{lead}"].mean() < 0.1, lead
        assert np.median(difference[f"R_Amp_{lead}"]) < 0.05, lead


# ------------------------------------------------------------------------------- intervals, P waves and ST-T, real ECGs


@pytest.mark.realdata
def test_intervals_agree_with_the_statements(part: Part) -> None:
    assert part.auc(part.columns["QRS_Dur_Global"], "CLBBB", "NORM") >= 0.985
    assert part.auc(part.columns["QRS_Dur_Global"], "CRBBB", "NORM") >= 0.985
    assert part.auc(part.columns["PR_Int_Global"], "1AVB", "NORM") >= 0.94
    assert part.auc(part.columns["QT_IntBazett_Global"], "LNGQT", "NORM") >= 0.85


@pytest.mark.realdata
def test_p_wave_evidence_agrees_with_the_rhythm_statements(part: Part) -> None:
    assert part.auc(-part.columns["P_Evidence_Global"], "AFIB", "SR") >= 0.97
    found = part.columns["P_Found_Global"]
    assert found[part.has("SR") & ~part.has("AFIB")].mean() >= 0.99
    assert found[part.has("AFIB")].mean() <= 0.12


@pytest.mark.realdata
@pytest.mark.parametrize("ecg_id", [500, 547, 2066, 2240, 2446, 2964, 12394, 21048, 21124])
def test_f_waves_are_no_p_waves(part: Part, ecg_id: int) -> None:
    row = part.row[ecg_id]
    assert "AFIB" in part.codes[row]
    assert part.columns["P_Found_Global"][row] == 0
    for name in ("PR_Int_Global", "P_Dur_Global", "P_AxisFront_Global", "P_Amp_II", "P_Quality_Global"):
        assert np.isnan(part.columns[name][row]), name


@pytest.mark.realdata
@pytest.mark.parametrize("ecg_id", [385, 2486, 2828, 12083, 12292, 12464])
def test_no_hump_long_before_a_paced_complex_is_a_p_wave(part: Part, ecg_id: int) -> None:
    row = part.row[ecg_id]
    assert "PACE" in part.codes[row]
    assert np.isnan(part.columns["PR_Int_Global"][row])


@pytest.mark.realdata
def test_first_degree_blocks_keep_their_pr_interval(part: Part) -> None:
    assert np.isfinite(part.columns["PR_Int_Global"][part.has("1AVB")]).mean() >= 0.98
    others = ~(part.has("AFIB") | part.has("AFLT") | part.has("PACE"))
    assert np.isfinite(part.columns["PR_Int_Global"][others]).mean() >= 0.985


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("HR__Global", 68, 74),
        ("PR_Int_Global", 155, 167),
        ("P_Dur_Global", 107, 119),
        ("QRS_Dur_Global", 89, 101),
        ("QT_Int_Global", 387, 403),
        ("QT_IntBazett_Global", 423, 438),
        ("R_Amp_V5", 1.25, 1.37),
        ("T_Amp_V2", 0.316, 0.425),
        ("ST_Amp_V2", -0.031, 0.111),
    ],
)
def test_medians_are_those_published_for_12sl_and_uni_g(part: Part, name: str, low: float, high: float) -> None:
    assert low <= np.nanmedian(part.columns[name]) <= high


@pytest.mark.realdata
def test_values_hang_together(part: Part) -> None:
    columns = part.columns
    rr = columns["RR_Mean_Global"] / 1000
    for name, divisor in (("Bazett", np.sqrt(rr)), ("Fridericia", np.cbrt(rr))):
        known = np.isfinite(columns["QT_Int_Global"])
        assert np.allclose(
            columns[f"QT_Int{name}_Global"][known], (columns["QT_Int_Global"] / divisor)[known], rtol=1e-4
        )
    known = np.isfinite(columns["PR_Int_Global"])
    assert (columns["P_Dur_Global"][known] <= columns["PR_Int_Global"][known]).all()
    assert (columns["P_Found_Global"][known] == 1).all()
    assert (columns["QT_Int_Global"] > columns["QRS_Dur_Global"])[np.isfinite(columns["QT_Int_Global"])].all()
    for lead in LEADS:
        deepest = np.fmin(np.fmin(columns[f"Q_Amp_{lead}"], columns[f"S_Amp_{lead}"]), columns[f"Sp_Amp_{lead}"])
        highest = np.fmax(columns[f"R_Amp_{lead}"], columns[f"Rp_Amp_{lead}"])
        span = columns[f"QRS_AmpPP_{lead}"]
        assert (highest - deepest <= span + 1e-4)[np.isfinite(span)].all()
        qs = (columns[f"R_Amp_{lead}"] == 0) & (columns[f"Q_Amp_{lead}"] < 0)
        assert (columns[f"Q_Amp_{lead}"][qs] == columns[f"S_Amp_{lead}"][qs]).all()
        assert (columns[f"Q_Dur_{lead}"][qs] == columns[f"S_Dur_{lead}"][qs]).all()


@pytest.mark.realdata
def test_hardly_any_record_is_called_swapped(part: Part) -> None:
    assert sum(reason == "limb_leads_swapped" for _, reason, _ in part.problems) <= 2
