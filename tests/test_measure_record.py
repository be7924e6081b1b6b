"""Recordings of any length and quality: measured where possible, graded, or refused with a reason; never invented."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ecglm.synth.errors import SignalError
from ecglm.synth.measure import MEASURED_COLUMNS, describe_beat, measure_block, measure_record
from ecglm.synth.measure.block import GLOBAL_COLUMNS, P_COLUMNS, QRS_COLUMNS, ST_COLUMNS, T_COLUMNS
from ecglm.synth.schema import LEADS
from ecglm.synth.sources.simulator.beats import TWELVE
from ecglm.synth.sources.simulator.folder import SimulatedECG, simulated_ecgs
from ecglm.synth.sources.simulator.signals import atrial_activity, clean_signal

Floats = npt.NDArray[np.float32]


def simulated(ecg: SimulatedECG, hz: int) -> Floats:
    """(n_samples, 12) in mV without noise."""
    clean = clean_signal(ecg.visit.plan, ecg.traits, ecg.strip, ecg.beat, hz)
    return (TWELVE @ clean).T.astype(np.float32)


@pytest.fixture(scope="module")
def ecgs() -> list[SimulatedECG]:
    """120 simulated ECGs without paced ones, whose simulated stimulus is no spike."""
    return [ecg for ecg in simulated_ecgs(130, 5) if ecg.visit.plan.rhythm != "paced"][:120]


@pytest.fixture(scope="module")
def sinus(ecgs: list[SimulatedECG]) -> SimulatedECG:
    return next(
        ecg
        for ecg in ecgs
        if ecg.visit.plan.rhythm == "sinus" and ecg.visit.plan.ectopic == "none" and "NORM" in ecg.codes
    )


def truth(ecgs: list[SimulatedECG], name: str) -> npt.NDArray[np.float64]:
    values = [ecg.truth[name] for ecg in ecgs]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def reasons(problems: list[tuple[str, str]]) -> dict[str, str]:
    return dict(problems)


# ------------------------------------------------------------------------------------------------------ simulated truth


@pytest.mark.parametrize(("hz", "noise_db"), [(500, None), (500, 20), (250, None), (100, None), (100, 20)])
def test_simulated_intervals_axes_and_amplitudes_are_measured(
    ecgs: list[SimulatedECG], hz: int, noise_db: int | None
) -> None:
    signal = np.stack([simulated(ecg, hz) for ecg in ecgs])
    if noise_db:
        level = np.sqrt((signal**2).mean(axis=1, keepdims=True)) * 10 ** (-noise_db / 20)
        signal += (np.random.default_rng(0).standard_normal(signal.shape) * level).astype(np.float32)
    columns, _ = measure_block(signal, LEADS, hz)
    for name in ("RR_Mean_Global", "PR_Int_Global", "P_Dur_Global", "QRS_Dur_Global", "QT_Int_Global"):
        asked = np.isfinite(truth(ecgs, name))
        close = np.abs(columns[name] - truth(ecgs, name))[asked] <= 10
        assert close.mean() >= (0.99 if hz > 100 and not noise_db else 0.95), name
        assert np.nanmedian(np.abs(columns[name] - truth(ecgs, name))) <= 6, name
    for name in ("QRS_AxisFront_Global", "P_AxisFront_Global", "T_AxisFront_Global"):
        turn = (columns[name] - truth(ecgs, name) + 180) % 360 - 180
        assert (np.abs(turn[np.isfinite(truth(ecgs, name))]) <= 5).mean() >= 0.98, name
    for wave in ("P_Amp", "R_Amp", "S_Amp", "QRS_AmpPP", "T_Amp"):
        for lead in LEADS:
            true = truth(ecgs, f"{wave}_{lead}")
            asked = np.isfinite(true)
            close = np.abs(columns[f"{wave}_{lead}"] - true)[asked] <= np.maximum(0.05 * np.abs(true[asked]), 0.03)
            assert close.mean() >= (0.95 if hz > 100 else 0.8), (wave, lead)


def test_q_waves_and_second_r_waves_are_where_the_simulator_put_them(ecgs: list[SimulatedECG]) -> None:
    columns, _ = measure_block(np.stack([simulated(ecg, 500) for ecg in ecgs]), LEADS, 500)
    waves = ("Q", "R", "S", "Rp", "Sp")
    for lead in LEADS:
        true = np.stack([truth(ecgs, f"{wave}_Amp_{lead}") for wave in waves])
        sure = ~((true != 0) & (np.abs(true) < 0.06)).any(axis=0)  # a hardly visible wave renames those after it
        for index, wave in enumerate(waves):
            found, duration = columns[f"{wave}_Amp_{lead}"], columns[f"{wave}_Dur_{lead}"]
            there, absent = sure & (true[index] != 0), sure & (true[index] == 0)
            assert (np.abs(found - true[index])[there] <= 0.02 + 0.02 * np.abs(true[index][there])).all(), (wave, lead)
            assert np.abs(found[absent]).max(initial=0) <= 0.06, (wave, lead)
            close = np.abs(duration - truth(ecgs, f"{wave}_Dur_{lead}"))[there] <= 10
            assert (~close).sum() <= 0.03 * len(close) + 1, (wave, lead)


def test_fibrillation_has_no_p_waves_and_sinus_rhythm_has(ecgs: list[SimulatedECG]) -> None:
    random = np.random.default_rng(3)
    rhythms = np.array([ecg.visit.plan.rhythm for ecg in ecgs])
    signal = np.stack([
        simulated(ecg, 100) + (TWELVE @ (np.zeros((8, 1000)) + atrial_activity(ecg.visit.plan, ecg.strip, random))).T
        for ecg in ecgs
    ]).astype(np.float32)  # fmt: skip
    columns, _ = measure_block(signal, LEADS, 100)
    fibrillation, regular = rhythms == "fibrillation", np.isin(rhythms, ["sinus", "bradycardia", "tachycardia"])
    assert fibrillation.sum() >= 4
    assert columns["P_Evidence_Global"][fibrillation].max() < columns["P_Evidence_Global"][regular].min()
    for name in ("PR_Int_Global", "P_Dur_Global", "P_AxisFront_Global", "P_Amp_II", "P_Quality_II"):
        assert np.isnan(columns[name][fibrillation]).all(), name
    assert columns["P_Found_Global"][fibrillation].tolist() == [0.0] * fibrillation.sum()
    assert columns["P_Found_Global"][regular].mean() >= 0.98


def test_ectopic_beats_are_counted(ecgs: list[SimulatedECG]) -> None:
    columns, _ = measure_block(np.stack([simulated(ecg, 100) for ecg in ecgs]), LEADS, 100)
    for row, ecg in enumerate(ecgs):
        if ecg.visit.plan.rhythm in ("sinus", "bradycardia") and ecg.visit.plan.ectopic == "ventricular":
            inside = (ecg.strip.onsets_ms >= 0) & (ecg.strip.onsets_ms < 9800)
            assert columns["Ectopic_Count_Global"][row] == (ecg.strip.kinds[inside] == 1).sum()
        elif ecg.visit.plan.rhythm == "sinus" and ecg.visit.plan.ectopic == "none":
            assert columns["Ectopic_Count_Global"][row] == 0


# -------------------------------------------------------------------------------------------------------- lead subsets


@pytest.mark.parametrize(
    "leads",
    [("II",), ("V2",), ("I", "II"), ("II", "V5"), ("V1", "V2", "V3"), LEADS[:6], ("I", "II", *LEADS[6:])],
)
def test_everything_a_lead_set_allows_is_measured_and_nothing_else(sinus: SimulatedECG, leads: tuple[str, ...]) -> None:
    signal = simulated(sinus, 500)[:, [LEADS.index(lead) for lead in leads]]
    values, _ = measure_record(signal, leads, 500)
    assert list(values) == list(MEASURED_COLUMNS)
    limb = len(set(leads) & set(LEADS[:6])) >= 2
    for name in GLOBAL_COLUMNS:
        assert np.isfinite(values[name]) == (limb or "_AxisFront_" not in name), name
    for name in (*P_COLUMNS, *QRS_COLUMNS, *ST_COLUMNS, *T_COLUMNS):
        for lead in LEADS:
            known = lead in leads and not (name == "R_PeakTime" and values[f"R_Amp_{lead}"] == 0)
            assert np.isfinite(values[f"{name}_{lead}"]) == known, (name, lead)
    assert values["PR_Int_Global"] == pytest.approx(sinus.truth["PR_Int_Global"], abs=12)
    assert values["QT_Int_Global"] == pytest.approx(sinus.truth["QT_Int_Global"], abs=15)


# ----------------------------------------------------------------------------------------------------------- bad input


def test_swapped_arms_are_flagged_and_the_right_way_round_is_not(ecgs: list[SimulatedECG], sinus: SimulatedECG) -> None:
    right = simulated(sinus, 500)
    swapped = right.copy()
    one, two, three, avr, avl = (LEADS.index(lead) for lead in ("I", "II", "III", "aVR", "aVL"))
    swapped[:, one] = -right[:, one]
    swapped[:, two], swapped[:, three] = right[:, three], right[:, two]
    swapped[:, avr], swapped[:, avl] = right[:, avl], right[:, avr]
    assert "limb_leads_swapped" not in reasons(measure_record(right, LEADS, 500)[1])
    assert "right and left arm" in reasons(measure_record(swapped, LEADS, 500)[1])["limb_leads_swapped"]
    axis = [ecg.visit.plan.axis for ecg in ecgs]
    _, problems = measure_block(np.stack([simulated(ecg, 100) for ecg in ecgs]), LEADS, 100)
    flagged = [axis[record] for record, reason, _ in problems if reason == "limb_leads_swapped"]
    assert flagged == []


def test_a_flat_second_lead_means_an_arm_and_the_leg_were_swapped(sinus: SimulatedECG) -> None:
    right = simulated(sinus, 500)
    two, one, three = (right[:, LEADS.index(lead)] for lead in ("II", "I", "III"))
    signal = right.copy()
    noise = np.random.default_rng(1).normal(0, 0.005, len(right)).astype(np.float32)
    first, second = (
        -three,
        0.03 * two + noise,
    )  # right arm and right leg exchanged: hardly any potential between the legs
    signal[:, LEADS.index("I")], signal[:, LEADS.index("II")] = first, second
    signal[:, LEADS.index("III")] = second - first
    signal[:, LEADS.index("aVR")], signal[:, LEADS.index("aVL")] = -(first + second) / 2, first - second / 2
    signal[:, LEADS.index("aVF")] = second - first / 2
    assert "II is nearly flat" in reasons(measure_record(signal, LEADS, 500)[1])["limb_leads_swapped"]
    assert one.std() > 0


def test_clipping_is_named_and_ordinary_peaks_are_not(sinus: SimulatedECG) -> None:
    signal = simulated(sinus, 500)
    assert "clipped_lead" not in reasons(measure_record(signal, LEADS, 500)[1])
    tallest = int(np.ptp(signal, axis=0).argmax())
    limit = 0.55 * np.abs(signal[:, tallest]).max()
    values, problems = measure_record(np.clip(signal, -limit, limit), LEADS, 500)
    found = reasons(problems)
    assert values[f"QRS_Quality_{LEADS[tallest]}"] == 1
    assert found["clipped_lead"].startswith(LEADS[tallest]) or f"; {LEADS[tallest]}:" in found["clipped_lead"]


@pytest.mark.parametrize("hz", [100, 250, 500])
@pytest.mark.parametrize("limit", [0.2, 0.4])
def test_a_low_limit_is_noticed_where_the_curve_meets_it_abruptly(sinus: SimulatedECG, hz: int, limit: float) -> None:
    signal = simulated(sinus, 500)[:: 500 // hz]
    values, problems = measure_record(np.clip(signal, -limit, limit), LEADS, hz)
    told = reasons(problems)["clipped_lead"].split("; ")
    named = {part.removesuffix(": cut off") for part in told if part.endswith(": cut off")}
    assert named >= {"I", "V2", "V5"}
    assert {values[f"QRS_Quality_{lead}"] for lead in named} == {1.0}


@pytest.mark.parametrize("hz", [100, 500])
@pytest.mark.parametrize("step", [0.001, 0.005, 0.01, 0.025, 0.05])
def test_coarse_steps_are_no_clipping(ecgs: list[SimulatedECG], hz: int, step: float) -> None:
    for ecg in ecgs[:20]:
        coarse = (np.rint(simulated(ecg, hz) / np.float32(step)) * np.float32(step)).astype(np.float32)
        assert "clipped_lead" not in reasons(measure_record(coarse, LEADS, hz)[1])


def test_gaps_in_a_recording_off_its_middle_are_no_clipping(sinus: SimulatedECG) -> None:
    signal = simulated(sinus, 500) + np.float32(4)
    for at in (800, 1800, 2800, 3800):
        signal[at : at + 40] = np.nan
    found = reasons(measure_record(signal, LEADS, 500)[1])
    assert "nan_samples" in found
    assert "clipped_lead" not in found


def test_pacing_spikes_are_seen_at_500_hz_and_not_assessable_at_100_hz(sinus: SimulatedECG) -> None:
    signal = simulated(sinus, 500)
    paced = signal.copy()
    for onset in sinus.strip.onsets_ms:
        at = round((onset - 20) / 2)
        if 0 <= at < len(paced):
            paced[at] += np.linspace(1.5, -1.5, 12, dtype=np.float32)
    assert measure_record(signal, LEADS, 500)[0]["Pacing_Found_Global"] == 0
    values, problems = measure_record(paced, LEADS, 500)
    assert values["Pacing_Found_Global"] == 1
    assert reasons(problems)["paced"] == "spikes before 100% of the QRS complexes"
    graded = ("QRS_Quality_Global", "T_Quality_Global", "QRS_Quality_V5", "P_Quality_Global")
    assert {values[name] for name in graded if np.isfinite(values[name])} == {1.0}, "spikes may be in what was measured"
    assert np.isnan(measure_record(simulated(sinus, 100), LEADS, 100)[0]["Pacing_Found_Global"])


def test_a_pause_is_named_and_asystole_has_no_number(sinus: SimulatedECG) -> None:
    beat = simulated(sinus, 100)
    noise = np.random.default_rng(0).normal(0, 0.005, (1000, 12)).astype(np.float32)
    values, problems = measure_record(noise, LEADS, 100)
    assert all(np.isnan(list(values.values())))
    assert "no_beats" in reasons(problems)
    pause = np.concatenate([beat, noise[:400], beat])
    values, problems = measure_record(pause, LEADS, 100)
    assert "s without a QRS complex" in reasons(problems)["long_pause"]
    assert np.isfinite(values["QRS_Dur_Global"])


def test_one_second_and_an_hour_are_refused_with_the_reason() -> None:
    for seconds, reason in ((1, "too_short"), (3600, "too_long")):
        values, problems = measure_record(np.zeros((seconds * 100, 1), np.float32), ["II"], 100)
        assert all(np.isnan(list(values.values())))
        assert [found for found, _ in problems] == [reason]


def test_microvolts_without_gain_are_noticed(sinus: SimulatedECG) -> None:
    values, problems = measure_record(simulated(sinus, 100) * 1000, LEADS, 100)
    assert "are the units right?" in reasons(problems)["implausible_amplitude"]
    assert np.isnan(values["R_Amp_V5"])
    assert np.isnan(values["ST_Amp_V5"])
    assert values["HR__Global"] == pytest.approx(sinus.truth["HR__Global"], abs=1)


def test_a_signal_turned_round_is_refused(sinus: SimulatedECG) -> None:
    with pytest.raises(SignalError, match=r"expected \(n_samples, 12 leads\)"):
        measure_record(simulated(sinus, 100).T, LEADS, 100)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_measured_in_noise_whatever_its_colour(seed: int) -> None:
    random = np.random.default_rng(seed)
    white = random.normal(0, 0.1, (1000, 12))
    signal = white if seed % 2 else np.cumsum(white - white.mean(axis=0), axis=0) * 0.2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values, problems = measure_record(signal.astype(np.float32), LEADS, 100)
    assert all(np.isnan(list(values.values())))
    assert "no_beats" in reasons(problems)


# ------------------------------------------------------------------------------------------------------ long recordings


@pytest.fixture(scope="module")
def half_hour(sinus: SimulatedECG) -> Floats:
    """30 minutes of two leads at 250 Hz: one beat repeated at changing distances, 40 s of it not recorded."""
    hz, random = 250, np.random.default_rng(2)
    beat = simulated(sinus, 250)[:, [1, 10]]
    onset = sinus.strip.onsets_ms[(sinus.strip.onsets_ms > 1000) & (sinus.strip.onsets_ms < 8000)][0]
    first = round((onset / 1000 - 0.3) * hz)
    piece = beat[first : first + round(0.72 * hz)]
    signal = random.normal(0, 0.005, (30 * 60 * hz, 2)).astype(np.float32)
    time = 0.5
    while time < 1799:
        at = round(time * hz)
        end = min(at + len(piece), len(signal))
        signal[at:end] += piece[: end - at]
        time += 0.85 + 0.05 * np.sin(time / 7)
    signal[100 * hz : 140 * hz] = np.nan
    return signal


def test_thirty_minutes_of_two_leads_are_measured_as_a_whole(half_hour: Floats, sinus: SimulatedECG) -> None:
    values, problems = measure_record(half_hour, ["II", "V5"], 250)
    assert values["RR_Mean_Global"] == pytest.approx(850, abs=3)
    assert values["RR_StdDev_Global"] == pytest.approx(50 / np.sqrt(2), abs=4)
    assert values["QRS_Count_Global"] == pytest.approx(1760 / 0.85, abs=8)
    assert values["Ectopic_Count_Global"] == 0
    for name in ("PR_Int_Global", "QRS_Dur_Global", "QT_Int_Global"):
        assert values[name] == pytest.approx(sinus.truth[name], abs=14), name
    assert values["R_Amp_II"] == pytest.approx(sinus.truth["R_Amp_II"], rel=0.05)
    assert np.isnan(values["QRS_AxisFront_Global"])
    assert np.isnan(values["R_Amp_V1"])
    assert "of 180 windows" in reasons(problems)["nan_samples"]
    assert "long_pause" not in reasons(problems)


def test_a_record_just_over_and_just_under_the_window_limit_agree(half_hour: Floats) -> None:
    short, _ = measure_record(half_hour[: 30 * 250], ["II", "V5"], 250)
    long, _ = measure_record(half_hour[: 31 * 250], ["II", "V5"], 250)
    for name, tolerance in (("HR__Global", 0.6), ("PR_Int_Global", 6), ("QT_Int_Global", 8), ("R_Amp_V5", 0.03)):
        assert long[name] == pytest.approx(short[name], abs=tolerance), name


def test_a_pause_is_no_noise_and_noise_is_no_pause(half_hour: Floats) -> None:
    """Beats that cannot be seen are not taken for beats that did not come."""
    hz = 250
    whole = half_hour[: 90 * hz]
    usual, _ = measure_record(whole, ["II", "V5"], hz)
    random = np.random.default_rng(4)
    covered, silent = whole.copy(), whole.copy()
    covered[30 * hz : 50 * hz] = np.cumsum(random.normal(0, 0.2, (20 * hz, 2)), axis=0) % 1.5
    silent[30 * hz : 50 * hz] = random.normal(0, 0.005, (20 * hz, 2))
    values, problems = measure_record(covered, ["II", "V5"], hz)
    assert "2 of 9 windows, at 30 s, 40 s" in reasons(problems)["no_beats"]
    assert "long_pause" not in reasons(problems)
    assert values["HR__Global"] == pytest.approx(usual["HR__Global"], abs=1.5)  # the rate itself varies
    assert values["RR_StdDev_Global"] == pytest.approx(usual["RR_StdDev_Global"], abs=6)
    assert np.isnan(values["QRS_Count_Global"])
    assert np.isnan(values["Ectopic_Count_Global"])
    values, problems = measure_record(silent, ["II", "V5"], hz)
    pause = reasons(problems)["long_pause"]
    assert pause.startswith(("20.", "21."))
    assert values["HR__Global"] < 0.9 * usual["HR__Global"]
    assert values["QRS_Count_Global"] == pytest.approx(usual["QRS_Count_Global"] * 70 / 90, abs=2)


def test_where_beats_are_hidden_most_of_the_time_nothing_is_measured(half_hour: Floats) -> None:
    hz = 250
    signal = half_hour[: 90 * hz].copy()
    noise = np.random.default_rng(4).normal(0, 0.2, (60 * hz, 2))
    signal[: 60 * hz] = np.cumsum(noise, axis=0) % 1.5
    values, problems = measure_record(signal, ["II", "V5"], hz)
    assert all(np.isnan(list(values.values())))
    assert "6 of 9 windows" in reasons(problems)["no_beats"]
    beat = describe_beat(signal, ["II", "V5"], hz)
    assert beat.fiducials_ms == {}
    assert len(beat.beats_s) == 0


# ------------------------------------------------------------------------------------------------------ the median beat


def test_the_described_beat_has_its_bounds_in_order_and_its_times(sinus: SimulatedECG) -> None:
    beat = describe_beat(simulated(sinus, 500), LEADS, 500)
    assert beat.leads == LEADS
    assert beat.signal.shape == (12, round((480 + 640) * beat.hz / 1000))
    names = ["p_onset", "p_peak", "p_offset", "qrs_onset", "qrs_offset", "t_peak", "t_offset"]
    times = [beat.fiducials_ms[name] for name in names]
    assert times == sorted(times)
    assert beat.fiducials_ms["qrs_offset"] - beat.fiducials_ms["qrs_onset"] == pytest.approx(
        sinus.truth["QRS_Dur_Global"], abs=10
    )
    inside = (sinus.strip.onsets_ms > 0) & (sinus.strip.onsets_ms < 9880)
    assert len(beat.beats_s) == inside.sum()
    assert np.abs(np.diff(beat.beats_s) - np.diff(sinus.strip.onsets_ms[inside]) / 1000).max() < 0.01


def test_a_described_beat_without_p_waves_names_none(ecgs: list[SimulatedECG]) -> None:
    ecg = next(ecg for ecg in ecgs if ecg.visit.plan.rhythm == "fibrillation")
    random = np.random.default_rng(3)
    flutter = (TWELVE @ (np.zeros((8, 1000)) + atrial_activity(ecg.visit.plan, ecg.strip, random))).T
    beat = describe_beat((simulated(ecg, 100) + flutter).astype(np.float32), LEADS, 100)
    assert not {"p_onset", "p_offset"} & beat.fiducials_ms.keys()
    assert "qrs_onset" in beat.fiducials_ms


def test_nothing_to_describe_is_described_as_nothing() -> None:
    beat = describe_beat(np.zeros((1000, 12), np.float32), LEADS, 100)
    assert beat.fiducials_ms == {}
    assert len(beat.beats_s) == 0
    with pytest.raises(SignalError, match=r"2\.5 s or more"):
        describe_beat(np.zeros((100, 12), np.float32), LEADS, 100)


def test_the_beat_of_half_an_hour_is_described_with_all_its_times(half_hour: Floats) -> None:
    beat = describe_beat(half_hour, ["II", "V5"], 250)
    assert beat.signal.shape[0] == 2
    assert {"p_onset", "qrs_onset", "t_offset"} <= beat.fiducials_ms.keys()
    assert len(beat.beats_s) == pytest.approx(1760 / 0.85, abs=8)
    assert (np.diff(beat.beats_s) > 0.7).all()


# -------------------------------------------------------------------------------------- recordings that are not PTB-XL


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "rate"), [("100_3chan", (68, 78)), ("a103l", (120, 135)), ("test01_00s", (85, 100)), ("v102s", None)]
)
def test_other_recordings_are_measured_or_say_why_not(data_dir: Path, name: str, rate: tuple[int, int] | None) -> None:
    import wfdb

    path = data_dir / "other_ecg" / name
    record = wfdb.rdrecord(str(path))
    electric = [index for index, unit in enumerate(record.units) if unit.lower() == "mv"]
    leads = [record.sig_name[index] for index in electric]
    names = [lead if leads.count(lead) == 1 else f"{lead} {index}" for index, lead in enumerate(leads)]
    signal = record.p_signal[:, electric].astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values, problems = measure_record(signal, names, int(record.fs))
    if rate is None:  # oscillation in the place of the QRS complexes
        assert "no_beats" in reasons(problems)
        assert all(np.isnan(list(values.values())))
        return
    assert rate[0] <= values["HR__Global"] <= rate[1]
    assert not values["PR_Int_Global"] > 200, "in none of them is the P wave far from the QRS complex"
    assert 40 <= values["QRS_Dur_Global"] <= 220
    for column, value in values.items():
        lead = column.rpartition("_")[2]
        if lead in LEADS and lead not in names:
            assert np.isnan(value), column
