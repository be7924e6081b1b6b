"""Recordings as they come: any leads in any order, any rate and length, and clear words for what cannot be used."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from conftest import wfdb_header
from numpy.typing import NDArray

from ecglm.models.preprocessing import FROM_I_II, LIMB, OTHER_LEADS, Prepared, Preprocessing, lead_names, prepare
from ecglm.models.recording import read_recording
from ecglm.synth.errors import ModelError, SignalError
from ecglm.synth.schema import LEADS, LIMB_LEADS

WANTED = Preprocessing()


@pytest.fixture(scope="module")
def signal() -> NDArray[np.float32]:
    """(1000, 12) in mV at 100 Hz that obeys Einthoven and Goldberger, each lead around 0."""
    rng = np.random.default_rng(4)
    seconds = np.arange(1000) / 100
    two = np.stack([np.sin(2 * np.pi * (k + 1.3) * seconds) * rng.uniform(0.2, 0.8) for k in range(2)], 1)
    limb = np.stack([a * two[:, 0] + b * two[:, 1] for a, b in (FROM_I_II[lead] for lead in LIMB_LEADS)], 1)
    chest = rng.normal(0, 0.3, (1000, 6))
    whole = np.concatenate([limb, chest], 1)
    return np.asarray(whole - whole.mean(0), np.float32)


def test_the_order_of_leads_makes_no_difference(signal: NDArray[np.float32]) -> None:
    plain = prepare(signal, LEADS, 100, WANTED)
    assert plain.notes == ()
    assert plain.mask.all()
    assert np.allclose(plain.values, signal.T, atol=1e-5)
    order = np.random.default_rng(0).permutation(12)
    turned = prepare(signal[:, order], [LEADS[place].upper() for place in order], 100, WANTED)
    assert np.array_equal(plain.values, turned.values)


@pytest.mark.parametrize("pair", list(itertools.combinations(LIMB_LEADS, 2)), ids="+".join)
def test_any_two_limb_leads_give_all_six(pair: tuple[str, str], signal: NDArray[np.float32]) -> None:
    assert pair in LIMB
    for given in (pair, pair[::-1]):
        found = prepare(signal[:, [LEADS.index(lead) for lead in given]], given, 100, WANTED)
        assert np.allclose(found.values[:6], signal.T[:6], atol=1e-4)
        assert found.mask[:6].all()
        assert not found.mask[6:].any()
        assert not found.values[6:].any()
        assert found.notes == (
            f"worked out from two limb leads: {', '.join(lead for lead in LIMB_LEADS if lead not in pair)}",
        )


def test_one_lead_is_one_lead(signal: NDArray[np.float32]) -> None:
    found = prepare(signal[:, 6:7], ["v1"], 100, WANTED)
    assert found.mask.any(1).tolist() == [lead == "V1" for lead in LEADS]


def test_leads_a_model_was_not_trained_on_are_named(signal: NDArray[np.float32]) -> None:
    found = prepare(signal[:, :3], ["I", "V7", "Z"], 100, WANTED)
    assert set(OTHER_LEADS) >= {"V7", "Z"}
    assert found.notes == tuple(f"lead {n} is not used: the model was not trained on it" for n in ("V7", "Z"))


def test_missing_samples_stay_out_of_the_mask(signal: NDArray[np.float32]) -> None:
    holed = signal.copy()
    holed[200:300, 6] = np.nan
    holed[:, 7] = np.nan
    holed[:, 8] = 0.25
    found = prepare(holed, LEADS, 100, WANTED)
    assert not found.mask[6, 200:300].any()
    assert found.mask[6, :200].all()
    assert found.mask[6, 300:].all()
    assert not found.values[6, 200:300].any()
    assert found.notes == ("lead V2 is flat or missing: not used", "lead V3 is flat or missing: not used")
    assert np.isfinite(found.values).all()


@pytest.mark.parametrize("hz", [50, 128, 250, 360, 500, 1000])
def test_any_rate_gives_the_same_waves(hz: int) -> None:
    def wave(rate: int) -> NDArray[np.float32]:
        at = np.arange(10 * rate) / rate
        return np.asarray(np.sin(2 * np.pi * 3 * at)[:, None], np.float32)

    found: Prepared = prepare(wave(hz), ["II"], hz, WANTED)
    assert found.values.shape == (12, 1000)
    inner = slice(50, 950)
    assert np.abs(found.values[1, inner] - wave(100)[inner, 0]).max() < 0.02


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: (s, [*LEADS[:-1], "V99"], 100), r"unknown lead 'V99'; known are I, II, .* Rename or leave out"),
        (lambda s: (s, [*LEADS[:-1], "i"], 100), "lead I given twice; expected every lead once"),
        (lambda s: (s * 1000, LEADS, 100), r"values up to [\d.]+ mV; an ECG stays within 20 mV: are they µV\?"),
        (lambda s: (s[:100], LEADS, 100), "1 s long; the model takes 2 to 60 s"),
        (lambda s: (np.tile(s, (180, 1)), LEADS, 100), "1800 s long; the model takes 2 to 60 s; choose a part of it"),
        (lambda s: (s * np.nan, LEADS, 100), "no sample is a number"),
        (lambda s: (s * 0, LEADS, 100), "no usable lead among I, II"),
        (lambda s: (s, LEADS[:3], 100), r"signal of shape \(1000, 12\) with 3 leads; expected \(n_samples, 3\)"),
        (lambda s: (s, LEADS, 20), "20 samples per second; expected 50 to 2,000"),
        (lambda s: (s[:, :2], ["V7", "V8"], 100), "no usable lead among V7, V8; the model takes I, II"),
    ],
)
def test_what_cannot_be_used_is_said_with_what_to_do(change: object, named: str, signal: NDArray[np.float32]) -> None:
    with pytest.raises(ModelError, match=named):
        prepare(*change(signal), WANTED)  # type: ignore[operator]


def test_usual_spellings_are_known() -> None:
    assert lead_names(["AVR", "lead ii", "ECG V1", " avf "]) == ("aVR", "II", "V1", "aVF")


# -------------------------------------------------------------------------------------------------------------- records


def write(folder: Path, units: list[str], names: list[str], comments: str = "", seconds: int = 10) -> Path:
    signal = np.random.default_rng(0).integers(-900, 900, (100 * seconds, len(names))).astype("<i2")
    (folder / "r.dat").write_bytes(signal.tobytes())
    header = wfdb_header("r", signal, tuple(names))
    for unit, name in zip(units, names, strict=True):
        gain = {"mV": "1000.0(0)/mV", "uV": "1.0(0)/uV", "V": "1000000.0(0)/V", "NU": "1000.0(0)/NU"}[unit]
        header = "\n".join(
            line.replace("1000.0(0)/mV", gain) if line.endswith(f" {name}") else line for line in header.splitlines()
        )
    (folder / "r.hea").write_text(header + "\n" + comments)
    return folder / "r"


def test_units_of_voltage_are_all_millivolts_and_other_signals_left_out(tmp_path: Path) -> None:
    plain = read_recording(write(tmp_path, ["mV"] * 3, ["I", "II", "V1"]))
    (tmp_path / "b").mkdir()
    mixed = read_recording(
        write(tmp_path / "b", ["uV", "V", "mV", "NU"], ["I", "II", "V1", "PLETH"]).with_suffix(".hea")
    )
    assert mixed.leads == plain.leads == ("I", "II", "V1")
    assert mixed.signal.shape == (1000, 3)
    assert 0.8 < np.abs(mixed.signal).max() < 0.91
    assert mixed.notes == ("signal PLETH is no ECG lead: left out",)


def test_leads_of_unknown_name_are_left_out_and_named(tmp_path: Path) -> None:
    found = read_recording(write(tmp_path, ["mV"] * 2, ["MLII", "V5"]))
    assert found.leads == ("V5",)
    assert found.notes == ("lead MLII has an unknown name: left out",)
    alone = write(tmp_path, ["mV"], ["MLII"])
    with pytest.raises(SignalError, match=r"no ECG lead with a known name \(signals: MLII\); rename its leads"):
        read_recording(alone)


def test_a_part_of_a_record_and_what_its_header_says_of_the_patient(tmp_path: Path) -> None:
    path = write(tmp_path, ["mV"], ["II"], "#Age: 74\n# Sex: Female\n", seconds=40)
    found = read_recording(path, start_s=12.5, seconds=10)
    whole = read_recording(path)
    assert np.array_equal(found.signal, whole.signal[1250:2250])
    assert (found.patient.age_years, found.patient.sex) == (74.0, "female")
    assert whole.about(30, None).patient.age_years == 30
    with pytest.raises(SignalError, match=r"r: 40 s long; seconds 35 to 45 are not all within it"):
        read_recording(path, start_s=35, seconds=10)
    with pytest.raises(SignalError, match=r"nothing\.hea: no such file"):
        read_recording(tmp_path / "nothing")
