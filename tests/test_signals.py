"""Waveforms are read exactly, by the fast path and by wfdb alike, and a record that is not as promised says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import wfdb
import xxhash
from conftest import wfdb_header, write_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from ecglm.synth import signals
from ecglm.synth.errors import SignalError
from ecglm.synth.schema import LEADS
from ecglm.synth.signals import INVALID_16, read_block, read_record

Write = Callable[..., Path]
PATH = "records100/00000/00001_lr"


# --- the same as wfdb, on real records --------------------------------------------------------------------------------


def same_as_wfdb(root: Path, path: str) -> None:
    record = read_record(root, path)
    stored = wfdb.rdrecord(str(root / path), physical=False)
    assert np.array_equal(record.signal, stored.d_signal)
    assert record.leads == tuple(name.replace("AV", "aV") for name in stored.sig_name)
    assert (record.sampling_hz, *record.signal.shape) == (stored.fs, stored.sig_len, stored.n_sig)
    assert np.array_equal(record.gains, stored.adc_gain)
    assert np.array_equal(record.baselines, stored.baseline)
    physical = wfdb.rdrecord(str(root / path)).p_signal
    np.testing.assert_allclose(record.millivolts(), physical, atol=1e-6)


def test_a_sample_of_ptbxl_is_as_wfdb_reads_it(ptbxl_part: Path) -> None:
    paths = [path.relative_to(ptbxl_part).with_suffix("") for path in sorted(ptbxl_part.rglob("*.hea"))]
    for path in paths[::16]:
        same_as_wfdb(ptbxl_part, path.as_posix())


def test_ptbxl_at_500_hz_is_as_wfdb_reads_it(data_dir: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(data_dir / "ptbxl500" / "records500_sample.zip") as archive:
        archive.extractall(tmp_path)
    headers = sorted(tmp_path.rglob("*.hea"))
    assert len(headers) == 24
    for header in headers:
        same_as_wfdb(tmp_path, header.relative_to(tmp_path).with_suffix("").as_posix())


def test_every_ptbxl_record_is_sound_and_as_promised(ptbxl_full: Path) -> None:
    paths = sorted(path.relative_to(ptbxl_full).with_suffix("").as_posix() for path in ptbxl_full.rglob("*.hea"))
    assert len(paths) == 21_799
    flat = []
    for start in range(0, len(paths), 2000):
        records, problems = read_block(
            ptbxl_full, paths[start : start + 2000], leads=LEADS, sampling_hz=100, n_samples=1000
        )
        assert problems == []
        flat += [
            path
            for path, record in zip(paths[start : start + 2000], records, strict=True)
            if record is not None and not np.ptp(record.signal, axis=0).all()
        ]
    assert "records100/12000/12722_lr" in flat


@pytest.mark.parametrize(
    ("name", "leads", "sampling_hz", "n_samples", "not_voltage"),
    [
        ("100_3chan", ("I", "II", "III"), 360, 999, []),
        ("a103l", ("II", "V", "PLETH"), 250, 82_500, [2]),
        ("test01_00s", ("ECG 1", "ECG 2", "ECG 3", "ECG 4"), 500, 4_000, []),
        ("v102s", ("II", "V", "PLETH", "RESP"), 250, 75_000, [2, 3]),
    ],
)
def test_records_of_other_kinds_are_as_wfdb_reads_them(
    data_dir: Path, name: str, leads: tuple[str, ...], sampling_hz: int, n_samples: int, not_voltage: list[int]
) -> None:
    root = data_dir / "other_ecg"
    record = read_record(root, name, sampling_hz=sampling_hz, n_samples=n_samples)
    assert record.leads == leads
    physical = wfdb.rdrecord(str(root / name)).p_signal
    physical[:, not_voltage] = np.nan
    np.testing.assert_allclose(record.millivolts(), physical, atol=1e-6)
    assert np.flatnonzero(np.isnan(record.gains)).tolist() == not_voltage
    (data,) = {root / name for name in wfdb.rdheader(str(root / name)).file_name}
    assert record.digest == xxhash.xxh3_128_hexdigest(data.read_bytes())


def test_a_promised_lead_must_be_a_voltage(data_dir: Path) -> None:
    with pytest.raises(SignalError, match="lead PLETH is in other units than mV") as caught:
        read_record(data_dir / "other_ecg", "a103l", leads=("II", "V", "PLETH"))
    assert caught.value.reason == "unit_not_voltage"


# --- any signal comes back --------------------------------------------------------------------------------------------


samples = npst.arrays(np.int16, st.tuples(st.integers(1, 90), st.integers(1, 12)), elements=st.integers(-32768, 32767))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(samples)
def test_any_signal_is_read_back_by_the_fast_path(tmp_path: Path, signal: NDArray[np.int16]) -> None:
    names = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")[: signal.shape[1]]
    (tmp_path / "r.hea").write_text(wfdb_header("r", signal, names))
    (tmp_path / "r.dat").write_bytes(signal.astype("<i2").tobytes())
    record = read_record(tmp_path, "r", leads=LEADS[: len(names)], sampling_hz=100, n_samples=len(signal))
    assert np.array_equal(record.signal, signal)
    assert np.array_equal(np.isnan(record.millivolts()), signal == INVALID_16)
    assert record.digest == xxhash.xxh3_128_hexdigest(signal.astype("<i2").tobytes())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(
    st.data(),
    st.sampled_from(["16", "80", "212", "24", "32"]),
    st.sampled_from([("mV", 1.0), ("uV", 1000.0), ("V", 0.001)]),
)
def test_any_signal_wfdb_writes_is_read_back(
    tmp_path: Path, data: st.DataObject, kind: str, unit: tuple[str, float]
) -> None:
    largest = {"80": 127, "212": 2047}.get(kind, 32767)
    shape = st.tuples(st.integers(2, 40), st.integers(1, 4))
    signal = data.draw(npst.arrays(np.int64, shape, elements=st.integers(-largest, largest)))
    n_leads = signal.shape[1]
    wfdb.wrsamp(
        "r", fs=250, units=[unit[0]] * n_leads, sig_name=[f"x{number}" for number in range(n_leads)], d_signal=signal,
        fmt=[kind] * n_leads, adc_gain=[200.0] * n_leads, baseline=[3] * n_leads, write_dir=str(tmp_path),
    )  # fmt: skip
    record = read_record(tmp_path, "r", sampling_hz=250)
    assert np.array_equal(record.signal, signal)
    np.testing.assert_allclose(record.millivolts(), (signal - 3) / (200.0 * unit[1]), rtol=1e-6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300))
def test_no_header_however_odd_raises_anything_but_a_signal_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.hea").write_bytes(content)
    (tmp_path / "r.dat").write_bytes(bytes(24))
    records, problems = read_block(tmp_path, ["r"])
    assert (records[0] is None) == bool(problems)


header_parts = st.sampled_from(
    ["r", "r.dat", "12", "2", "1", "0", "100", "16", "212", "1000.0(0)/mV", "200", "0/mV", "-5", "e", ".", "-", "x2",
     "16x2", "16:1", "16+24", "r/2", "nan", "1e999", "99999999999999999999", "V1", "#", "\n", "\n", "\n", "²"]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(st.lists(header_parts, max_size=40))
def test_no_shuffled_header_raises_anything_but_a_signal_error(tmp_path: Path, parts: list[str]) -> None:
    (tmp_path / "r.hea").write_text(" ".join(parts).replace(" \n ", "\n"), encoding="utf-8")
    (tmp_path / "r.dat").write_bytes(bytes(24))
    records, problems = read_block(tmp_path, ["r"])
    assert (records[0] is None) == bool(problems)


# --- what is refused, and why -----------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one good record at PATH."""
    root = tmp_path / "source"
    write_record(root, PATH)
    return root


def change(root: Path, old: str, new: str, count: int = 1) -> None:
    header = root / f"{PATH}.hea"
    text = header.read_text()
    assert old in text
    header.write_text(text.replace(old, new, count), encoding="utf-8")


def refusal(root: Path, path: str = PATH, **promised: object) -> tuple[str, str]:
    """Reason and message, the same from one record and from a block, in which its neighbours are read all the same."""
    with pytest.raises(SignalError) as caught:
        read_record(root, path, **promised)  # type: ignore[arg-type]
    write_record(root, "good/1")
    records, problems = read_block(root, ["good/1", path, "good/1"], **promised)  # type: ignore[arg-type]
    assert problems == [(1, caught.value.reason, str(caught.value))]
    assert [record is None for record in records] == [False, True, False] or promised
    assert str(root) not in str(caught.value), "messages name files below the root, so that outputs hold no path"
    return caught.value.reason, str(caught.value)


def test_a_good_record_is_as_promised(root: Path) -> None:
    record = read_record(root, PATH, leads=LEADS, sampling_hz=100, n_samples=1000)
    assert record.signal.dtype == np.int16
    assert record.millivolts().dtype == np.float32
    assert record.millivolts()[0, 0] == pytest.approx(record.signal[0, 0] / 1000)


@pytest.mark.parametrize("suffix", [".hea", ".dat"])
def test_a_missing_file_is_named(root: Path, suffix: str) -> None:
    (root / f"{PATH}{suffix}").unlink()
    assert refusal(root) == ("missing_waveform", f"{PATH}{suffix}: no such file; get the record again")


def test_a_folder_in_place_of_a_file_is_refused(root: Path) -> None:
    (root / f"{PATH}.dat").unlink()
    (root / f"{PATH}.dat").mkdir()
    assert refusal(root) == ("missing_waveform", f"{PATH}.dat: found no ordinary file; get the record again")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_does_not_hang(root: Path) -> None:
    (root / f"{PATH}.hea").unlink()
    os.mkfifo(root / f"{PATH}.hea")
    assert refusal(root)[0] == "missing_waveform"


@pytest.mark.parametrize("change_by", [-2, -24, 24])
def test_a_file_of_another_length_is_refused(root: Path, change_by: int) -> None:
    data = root / f"{PATH}.dat"
    content = data.read_bytes()
    data.write_bytes(content[:change_by] if change_by < 0 else content + bytes(change_by))
    reason, message = refusal(root)
    assert reason == "truncated"
    assert f"{PATH}.dat: {24_000 + change_by} bytes, expected 24000 (1000 samples of 12 leads)" in message


def test_one_changed_bit_is_found(root: Path) -> None:
    data = root / f"{PATH}.dat"
    content = bytearray(data.read_bytes())
    content[24 * 500 + 2 * 7] ^= 1
    data.write_bytes(content)
    reason, message = refusal(root)
    assert reason == "damaged_checksum"
    assert f"{PATH}.dat: the samples of lead V2 add up to" in message
    assert "get the record again" in message


def test_swapped_samples_that_keep_the_sum_are_found_by_the_first(root: Path) -> None:
    data = root / f"{PATH}.dat"
    signal = np.frombuffer(data.read_bytes(), "<i2").reshape(1000, 12).copy()
    signal[[0, 1], 0] = signal[[1, 0], 0]
    data.write_bytes(signal.tobytes())
    reason, message = refusal(root)
    assert reason == "damaged_checksum"
    assert "the first sample of lead I is" in message


@pytest.mark.parametrize(
    ("promised", "reason", "found"),
    [
        ({"leads": LEADS[::-1]}, "lead_names_differ", "leads are I, II, III, aVR"),
        ({"leads": LEADS[:11]}, "lead_names_differ", "V5, V6, expected I"),
        ({"sampling_hz": 500}, "sampling_rate_differs", "sampling frequency is 100, expected 500 Hz"),
        ({"n_samples": 5000}, "sample_count_differs", "number of samples is 1000, expected 5000"),
    ],
)
def test_a_broken_promise_is_refused(root: Path, promised: dict[str, object], reason: str, found: str) -> None:
    with pytest.raises(SignalError) as caught:
        read_record(root, PATH, **promised)  # type: ignore[arg-type]
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"{PATH}.hea: ")
    assert found in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "reason", "found"),
    [
        ("00001_lr 12 100 1000", "00001_lr/2 12 100 1000", "multi_segment", "join them first"),
        ("00001_lr 12 100 1000", "00001_lr 13 100 1000", "header_invalid", "number of signals is 13, but 12"),
        ("00001_lr 12 100 1000", "00001_lr 12 0 1000", "header_invalid", "no sampling frequency"),
        ("00001_lr 12 100 1000", "00001_lr 12", "header_invalid", "no sampling frequency"),
        ("00001_lr 12 100 1000", "00001_lr", "header_invalid", "record line is '00001_lr'"),
        ("00001_lr 12 100 1000", "00001_lr 12 100 99999999999", "too_large", "expected at most"),
        ("1000.0(0)/mV", "0(0)/mV", "gain_missing", "signal 1: no gain"),
        ("1000.0(0)/mV", "0/mV", "gain_missing", "signal 1: no gain"),
        ("1000.0(0)/mV", "-1000.0(0)/mV", "gain_invalid", "gain is -1000.0"),
        ("1000.0(0)/mV", "1e999(0)/mV", "gain_invalid", "gain is 1e999"),
        ("1000.0(0)/mV", "many(0)/mV", "header_invalid", "signal 1: found"),
        (" 16 1000.0", " 16x2 1000.0", "header_invalid", "one sample per frame"),
        (" 16 1000.0", " 99 1000.0", "unreadable", "wfdb cannot read it"),
    ],
)
def test_a_bad_header_is_refused(root: Path, old: str, new: str, reason: str, found: str) -> None:
    change(root, old, new)
    assert refusal(root)[0] == reason
    message = refusal(root)[1]
    assert message.startswith(f"{PATH}.hea")
    assert found in message


def test_a_gain_that_is_left_out_is_not_taken_for_200(root: Path) -> None:
    header = root / f"{PATH}.hea"
    lines = header.read_text().splitlines()
    lines[3] = "00001_lr.dat 16"
    header.write_text("\n".join(lines) + "\n")
    assert wfdb.rdheader(str(root / PATH)).adc_gain[2] == 200
    assert refusal(root)[0] == "gain_missing"


def test_comments_odd_spaces_and_windows_line_ends_are_read_by_wfdb_to_the_same_values(root: Path) -> None:
    before = read_record(root, PATH)
    header = root / f"{PATH}.hea"
    header.write_bytes((header.read_text().replace(" 16 0 ", "  16\t0 ") + "# age 63\n").replace("\n", "\r\n").encode())
    after = read_record(root, PATH, leads=LEADS, sampling_hz=100, n_samples=1000)
    assert np.array_equal(before.signal, after.signal)
    assert before.digest == after.digest
    data = root / f"{PATH}.dat"
    data.write_bytes(data.read_bytes()[:-2] + b"\x01\x01")
    assert refusal(root)[0] == "damaged_checksum"
    data.write_bytes(data.read_bytes()[:-240])
    assert refusal(root)[0] in ("truncated", "unreadable")


def test_signals_in_two_files_are_read_together(root: Path) -> None:
    signal = np.arange(40, dtype=np.int16).reshape(20, 2)
    for number in range(2):
        (root / f"r{number}.dat").write_bytes(signal[:, number].astype("<i2").tobytes())
    sums = signal.sum(axis=0)
    lines = [f"r{number}.dat 16 500/mV 16 0 {number} {sums[number]} 0 V{number + 1}" for number in range(2)]
    (root / "r.hea").write_text("r 2 100 20\n" + "\n".join(lines) + "\n")
    record = read_record(root, "r", leads=("V1", "V2"))
    assert np.array_equal(record.signal, signal)
    assert record.digest == xxhash.xxh3_128_hexdigest((root / "r0.dat").read_bytes() + (root / "r1.dat").read_bytes())


def test_values_beyond_16_bits_are_refused_not_wrapped(root: Path) -> None:
    signal = np.array([[0], [40_000]])
    wfdb.wrsamp("r", fs=100, units=["mV"], sig_name=["I"], d_signal=signal, fmt=["32"], adc_gain=[1000.0],
                baseline=[0], write_dir=str(root))  # fmt: skip
    reason, message = refusal(root, "r")
    assert reason == "too_large"
    assert "samples from 0 to 40000 do not fit 16 bits" in message


def test_a_header_that_is_no_text_or_too_long_is_refused(root: Path) -> None:
    header = root / f"{PATH}.hea"
    header.write_bytes(b"\xff\xfe" + header.read_bytes())
    assert refusal(root)[0] == "header_invalid"
    header.write_text("#" * (signals.MAX_HEADER_BYTES + 1))
    assert refusal(root)[0] == "too_large"
    header.write_text("")
    assert refusal(root) == (
        "header_invalid",
        f"{PATH}.hea: record line is nothing, expected as '00001_lr 12 100 1000'; correct it",
    )


# --- nothing outside the folder is opened -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../secret.dat", "../../secret.dat", "..", "sub/x.dat", "..\\secret.dat", "C:x.dat", "~x.dat"],
)
@pytest.mark.parametrize("one", [True, False])
def test_a_header_may_not_name_a_file_elsewhere(root: Path, name: str, one: bool) -> None:
    (root / "records100/secret.dat").write_bytes(bytes(24_000))
    change(root, "00001_lr.dat", name, count=1 if one else -1)
    reason, message = refusal(root)
    assert reason == "header_outside_folder"
    assert f"{PATH}.hea, signal 1: file name {name!r} points outside its folder; name a file beside it" == message


@pytest.mark.parametrize("suffix", [".hea", ".dat"])
def test_a_link_out_of_the_source_is_refused(root: Path, tmp_path: Path, suffix: str) -> None:
    outside = shutil.move(root / f"{PATH}{suffix}", tmp_path / f"outside{suffix}")
    (root / f"{PATH}{suffix}").symlink_to(outside)
    reason, message = refusal(root)
    assert reason == "outside_root"
    assert message == f"{PATH}{suffix}: leads outside the source folder; put the file itself there"


def test_a_linked_folder_outside_the_source_is_refused(root: Path, tmp_path: Path) -> None:
    shutil.move(root / "records100", tmp_path / "elsewhere")
    (root / "records100").symlink_to(tmp_path / "elsewhere")
    assert refusal(root)[0] == "outside_root"


def test_links_within_the_source_are_followed_by_both_ways(root: Path) -> None:
    (root / "store").mkdir()
    for suffix in (".hea", ".dat"):
        shutil.move(root / f"{PATH}{suffix}", root / f"store/object{suffix}")
        (root / f"{PATH}{suffix}").symlink_to(root / f"store/object{suffix}")
    fast = read_record(root, PATH, leads=LEADS)
    (root / "store/object.hea").write_text((root / "store/object.hea").read_text() + "# a comment\n")
    assert np.array_equal(read_record(root, PATH, leads=LEADS).signal, fast.signal)


@pytest.mark.parametrize("path", ["../outside/1", "records100/../../outside/1"])
def test_a_path_out_of_the_source_is_refused(root: Path, tmp_path: Path, path: str) -> None:
    write_record(tmp_path, "outside/1")
    assert refusal(root, path)[0] == "outside_root"


@pytest.mark.parametrize("path", ["/etc/passwd", "", "records100/00000/0\0", "x" * 5000])
def test_a_path_that_can_name_no_record_is_refused(root: Path, path: str) -> None:
    assert refusal(root, path)[0] in ("missing_waveform", "outside_root")


def test_reading_ptbxl_needs_no_wfdb() -> None:
    code = "import sys, ecglm.synth.signals; sys.exit('wfdb' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_signal_paths_of_a_source_can_be_read(ptbxl_part: Path) -> None:
    from ecglm.synth.sources.ptbxl import open_ptbxl

    ecgs = open_ptbxl(ptbxl_part, limit=20).ecgs.select("signal_path", "leads", "sampling_hz", "n_samples").collect()
    promised = ecgs.drop("signal_path").row(0, named=True)
    records, problems = read_block(ptbxl_part, ecgs["signal_path"].to_list(), **promised)
    assert problems == []
    assert all(record is not None and record.leads == LEADS for record in records)
    assert isinstance(ecgs, pl.DataFrame)
