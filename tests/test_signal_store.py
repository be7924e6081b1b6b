"""A signal store holds every waveform exactly, whole or not at all, and says so when it was changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal as signals
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import wfdb_header, write_record

from ecglm.synth.build import BuildConfig, build
from ecglm.synth.build.measuring import MeasureConfig, measure
from ecglm.synth.build.storing import StoreConfig, store
from ecglm.synth.errors import SourceError
from ecglm.synth.signal_store import (
    MANIFEST,
    SIGNALS,
    TABLE,
    SignalStore,
    StoredWaveforms,
    cache_folder,
)
from ecglm.synth.signals import read_record
from ecglm.synth.sources.ptbxl import open_ptbxl
from ecglm.synth.sources.simulator import simulate

SYNTH = [sys.executable, "-c", "from ecglm.synth.cli import main; main()"]
N = 30


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECGLM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated ECGs, one of them without its samples."""
    root = tmp_path_factory.mktemp("source") / "ecgs"
    simulate(root, N, 5)
    (root / "records100/00000/00007_lr.dat").write_bytes(b"\0" * 24)
    return root


@pytest.fixture(scope="module")
def stored(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stored") / "store"
    store(StoreConfig(ptbxl=folder, out=out, workers=1))
    return out


def bytes_of(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.endswith("log.json"))
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_waveform_is_the_one_of_its_record(folder: Path, stored: Path) -> None:
    opened = SignalStore.open(stored)
    assert opened.ecg_ids == [f"simulated:{number}" for number in range(1, N + 1) if number != 7]
    for ecg_id, found in zip(opened.ecg_ids, opened.read(opened.ecg_ids), strict=True):
        number = int(ecg_id.removeprefix("simulated:"))
        record = read_record(folder, f"records100/00000/{number:05d}_lr")
        np.testing.assert_array_equal(found, record.millivolts())
        (again,) = opened.records([ecg_id])
        assert (again.leads, again.sampling_hz, again.digest) == (record.leads, record.sampling_hz, record.digest)
    assert opened.damaged() == []
    assert opened.table.schema == SIGNALS


def test_the_array_opens_with_numpy_alone(stored: Path) -> None:
    table = pq.read_table(stored / TABLE).to_pylist()
    array = np.load(stored / table[0]["file"], mmap_mode="r", allow_pickle=False)
    assert (array.shape, array.dtype, array.flags.c_contiguous) == ((N, 1000, 12), np.dtype("<i2"), True)
    row = table[11]
    millivolts = (array[row["row"]] - np.array(row["baselines"])) / np.array(row["gains"])
    np.testing.assert_array_equal(millivolts.astype(np.float32), SignalStore.open(stored).read([row["ecg_id"]])[0])
    assert not array[6].any(), "the place of the waveform that could not be used"


def test_groups_hold_all_ecgs_of_a_shape(data_dir: Path, tmp_path: Path) -> None:
    result = store(StoreConfig(wfdb=data_dir / "other_ecg", out=tmp_path / "s", workers=1))
    opened = SignalStore.open(result.out)
    shapes = {group.ecg_ids: (group.leads, group.sampling_hz, group.signal.shape) for group in opened.groups()}
    assert shapes == {
        ("wfdb:100_3chan",): (("I", "II", "III"), 360, (1, 999, 3)),
        ("wfdb:a103l",): (("II", "V"), 250, (1, 82_500, 2)),
        ("wfdb:test01_00s",): (("ECG 1", "ECG 2", "ECG 3", "ECG 4"), 500, (1, 4_000, 4)),
        ("wfdb:v102s",): (("II", "V"), 250, (1, 75_000, 2)),
    }
    for group in opened.groups():
        record = read_record(data_dir / "other_ecg", group.ecg_ids[0].removeprefix("wfdb:")).ecg_only()
        np.testing.assert_array_equal(group.signal[group.rows[0]], record.signal)
        np.testing.assert_array_equal(group.gains[0], record.gains)
        np.testing.assert_array_equal(opened.read(group.ecg_ids)[0], record.millivolts())


def test_missing_samples_stay_missing(tmp_path: Path) -> None:
    signal = np.random.default_rng(1).integers(-900, 900, (500, 12)).astype(np.int16)
    signal[10:20, 3] = -32768
    (tmp_path / "r.dat").write_bytes(signal.astype("<i2").tobytes())
    (tmp_path / "r.hea").write_text(wfdb_header("r", signal))
    result = store(StoreConfig(wfdb=tmp_path, out=tmp_path / "s", workers=1))
    (found,) = SignalStore.open(result.out).read(["wfdb:r"])
    assert np.argwhere(np.isnan(found)).tolist() == [[row, 3] for row in range(10, 20)]


def test_large_sources_are_cut_into_several_arrays(
    folder: Path, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecglm.synth.build.storing.MOST_BYTES", 10 * 24_000)
    monkeypatch.setattr("ecglm.synth.measure.ecgs._MOST_RECORDS", 4)
    result = store(StoreConfig(ptbxl=folder, out=tmp_path / "s", workers=1))
    assert result.arrays == 4
    one, many = SignalStore.open(stored), SignalStore.open(result.out)
    assert one.ecg_ids == many.ecg_ids
    assert one.table["checksum"] == many.table["checksum"]


def test_a_large_table_is_read_in_parts(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "s"
    shutil.copytree(stored, root)
    pq.write_table(pq.read_table(stored / TABLE), root / TABLE, row_group_size=3)
    manifest = json.loads((root / MANIFEST).read_text())
    manifest["files"][TABLE]["bytes"] = (root / TABLE).stat().st_size
    (root / MANIFEST).write_text(json.dumps(manifest))
    whole, parts = SignalStore.open(stored), SignalStore.open(root)
    mixed = [whole.ecg_ids[place] for place in np.random.default_rng(3).permutation(len(whole.ecg_ids))]
    for ecg_ids in (mixed, mixed[:4], mixed[4:5], []):
        for one, other in zip(whole.records(ecg_ids), parts.records(ecg_ids), strict=True):
            assert one.digest == other.digest
            np.testing.assert_array_equal(one.millivolts(), other.millivolts())
        assert len(parts._row_groups) <= 1, "memory does not grow with the store"
    assert parts.found(["simulated:7", mixed[0]])[0] is None


def test_one_and_two_workers_write_the_same_bytes(
    folder: Path, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecglm.synth.measure.ecgs._MOST_RECORDS", 8)
    store(StoreConfig(ptbxl=folder, out=tmp_path / "s", workers=2))
    assert bytes_of(tmp_path / "s") == bytes_of(stored)


def test_what_a_killed_run_finished_is_used(
    folder: Path, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecglm.synth.measure.ecgs._MOST_RECORDS", 8)
    told: list[int] = []

    def stop_after_two(stage: str, done: int, of: int) -> None:
        told.append(done)
        if len(told) == 2:
            raise KeyboardInterrupt

    config = StoreConfig(ptbxl=folder, out=tmp_path / "s", workers=1, resume="if-possible")
    with pytest.raises(KeyboardInterrupt):
        store(config, stop_after_two)
    assert not (tmp_path / "s").exists()
    later: list[int] = []
    store(config, lambda stage, done, of: later.append(done))
    assert later == [24, 30], "two of four parts were stored before"
    assert bytes_of(tmp_path / "s") == bytes_of(stored)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.7, 1.2, 1.7])
def test_a_run_killed_at_any_moment_leaves_no_half_store(
    folder: Path, stored: Path, tmp_path: Path, delay: float
) -> None:
    out = tmp_path / "s"
    process = subprocess.Popen([*SYNTH, "signals", str(folder), "--out", str(out)], start_new_session=True)
    time.sleep(delay)
    os.killpg(process.pid, signals.SIGKILL)
    process.wait()
    if out.exists():
        assert SignalStore.open(out).damaged() == []
    store(StoreConfig(ptbxl=folder, out=out, workers=1))
    assert bytes_of(out) == bytes_of(stored)


def test_a_changed_sample_is_noticed(stored: Path, tmp_path: Path) -> None:
    shutil.copytree(stored, tmp_path / "s")
    path = tmp_path / "s" / "000.npy"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))
    opened = SignalStore.open(tmp_path / "s")
    assert opened.damaged() == [f"simulated:{N}"]
    with pytest.raises(SourceError, match=rf"000\.npy: the samples of simulated:{N} were changed.*synth signals"):
        opened.read([f"simulated:{N}"])
    assert len(opened.read(["simulated:1"])) == 1


@pytest.mark.parametrize("damage", ["cut", "gone", "no manifest", "format", "json"])
def test_a_damaged_store_does_not_open(stored: Path, tmp_path: Path, damage: str) -> None:
    root = tmp_path / "s"
    shutil.copytree(stored, root)
    if damage == "cut":
        (root / "000.npy").write_bytes((root / "000.npy").read_bytes()[:-2])
    elif damage == "gone":
        (root / TABLE).unlink()
    elif damage == "no manifest":
        (root / MANIFEST).unlink()
    elif damage == "json":
        (root / MANIFEST).write_text("{")
    else:
        (root / MANIFEST).write_text(json.dumps({**json.loads((root / MANIFEST).read_text()), "format": "other"}))
    with pytest.raises(SourceError, match="synth signals"):
        SignalStore.open(root)


def test_an_ecg_that_is_not_there_is_named(stored: Path) -> None:
    with pytest.raises(SourceError, match="no ECG 'simulated:7'"):
        SignalStore.open(stored).read(["simulated:7"])


def test_nothing_changed_nothing_read(folder: Path, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecglm.synth.build.storing._store_part", None)
    assert store(StoreConfig(ptbxl=folder, out=stored, workers=1)).stored == N - 1


def test_a_record_that_changed_is_stored_again(tmp_path: Path) -> None:
    write_record(tmp_path / "r", "a", seed=1)
    config = StoreConfig(wfdb=tmp_path / "r", out=tmp_path / "s", workers=1)
    (before,) = SignalStore.open(store(config).out).read(["wfdb:a"])
    write_record(tmp_path / "r", "a", seed=2)
    (after,) = SignalStore.open(store(config).out).read(["wfdb:a"])
    np.testing.assert_array_equal(after, read_record(tmp_path / "r", "a").millivolts())
    assert not np.array_equal(before, after)


def test_measuring_from_a_store_gives_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(MeasureConfig(ptbxl=folder, out=tmp_path / "files", workers=1))
    assert not cache_folder().exists(), "no cache is written unless someone asks for it"
    monkeypatch.setenv("ECGLM_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []
    read = StoredWaveforms.read

    def watched(self: StoredWaveforms, *given: object) -> object:
        asked.append("store")
        return read(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(StoredWaveforms, "read", watched)
    measure(MeasureConfig(ptbxl=folder, out=tmp_path / "stored", workers=1))
    assert asked
    assert bytes_of(tmp_path / "stored") == bytes_of(tmp_path / "files")
    assert len(list((tmp_path / "cache/signals").iterdir())) == 1


def test_a_build_uses_a_store_that_is_in_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"ptbxl": folder, "workers": 1, "families": ("axis",)}
    alone = build(BuildConfig.model_validate({**config, "out": tmp_path / "alone"}))
    made = store(StoreConfig(ptbxl=folder, workers=1))
    assert made.out.is_relative_to(cache_folder() / "signals")
    monkeypatch.setattr("ecglm.synth.measure.ecgs.read_block", refuse_but_one)
    cached = build(BuildConfig.model_validate({**config, "out": tmp_path / "cached"}))
    assert cached.content_fingerprint == alone.content_fingerprint
    assert bytes_of(tmp_path / "cached") == bytes_of(tmp_path / "alone")


def refuse_but_one(root: Path, paths: list[str], **promised: object) -> object:
    """Only the record that is not in the store is looked at, to say what is wrong with it."""
    from ecglm.synth.signals import read_block

    assert paths == ["records100/00000/00007_lr"]
    return read_block(root, paths, **promised)  # type: ignore[arg-type]


def test_the_command(folder: Path, tmp_path: Path) -> None:
    command = [*SYNTH, "signals", str(folder), "--out", str(tmp_path / "s"), "--limit", "9", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    content = json.loads(answer.stdout)
    assert (content["ecgs"], content["stored"], content["rejected_reasons"]) == (9, 8, {"truncated": 1})
    assert content["bytes"] == (tmp_path / "s/000.npy").stat().st_size
    wrong = subprocess.run([*SYNTH, "signals", str(tmp_path / "nowhere")], capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "not a folder" in wrong.stderr


def test_real_ecgs(ptbxl_part: Path, tmp_path: Path) -> None:
    result = store(StoreConfig(ptbxl=ptbxl_part, out=tmp_path / "s", workers=1))
    opened = SignalStore.open(result.out)
    assert result.stored == result.ecgs == open_ptbxl(ptbxl_part).ecgs.collect().height
    assert opened.damaged() == []
    record = read_record(ptbxl_part, "records100/00000/00513_lr")
    np.testing.assert_array_equal(opened.read(["ptbxl:513"])[0], record.millivolts())
