"""`synth measure` makes a table that a build takes over as it stands, or refuses with a reason; never another's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ecglm.synth.build import BuildConfig, build
from ecglm.synth.build.measuring import MeasureConfig, measure
from ecglm.synth.corpus import Corpus
from ecglm.synth.errors import CorpusError, DefinitionError, ECGLMError, SourceError
from ecglm.synth.measure import MEASURED_COLUMNS
from ecglm.synth.measure.ecgs import measure_ecgs
from ecglm.synth.measure.table import FEATURES, LOG, MANIFEST, REJECTED_FILE, WAVEFORMS, MeasuredTable
from ecglm.synth.sources.simulator import simulate

SYNTH = [sys.executable, "-c", "from ecglm.synth.cli import main; main()"]
N = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated ECGs, one of them without samples and one with a lead that is flat."""
    root = tmp_path_factory.mktemp("source") / "ecgs"
    simulate(root, N, 5)
    (root / "records100/00000/00007_lr.dat").write_bytes(b"\0" * 24)
    return root


@pytest.fixture(scope="module")
def measured(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("measured") / "m"
    measure(MeasureConfig(ptbxl=folder, out=out, workers=1))
    return out


def small(out: Path, folder: Path, **changes: Any) -> BuildConfig:
    given = {"ptbxl": folder, "out": out, "workers": 1, "families": ("measurement",), **changes}
    return BuildConfig.model_validate(given)


def bytes_of(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.endswith("log.json"))
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def measurements_of(corpus: Path) -> list[dict[str, Any]]:
    table = Corpus.open(corpus).table("measurements").to_table()
    return [row for row in table.to_pylist() if row["provider"] == "measured"]


def test_the_folder_is_laid_out_as_promised(measured: Path) -> None:
    assert sorted(bytes_of(measured)) == sorted([FEATURES, WAVEFORMS, REJECTED_FILE, MANIFEST])
    table = pq.read_table(measured / FEATURES)
    assert table.column_names == ["ecg_id", *MEASURED_COLUMNS]
    assert table["ecg_id"].to_pylist() == [number for number in range(1, N + 1) if number != 7]
    waveforms = pq.read_table(measured / WAVEFORMS).to_pylist()
    assert [row["ecg_id"] for row in waveforms] == [f"simulated:{number}" for number in range(1, N + 1)]
    assert [row["ecg_id"] for row in waveforms if row["checksum"] is None] == ["simulated:7"]
    rejected = pq.read_table(measured / REJECTED_FILE).to_pylist()
    assert [row["reason"] for row in rejected if row["ecg_ids"] == ["simulated:7"]] == ["truncated"]
    manifest = json.loads((measured / MANIFEST).read_text())
    assert (manifest["counts"]["ecgs"], manifest["counts"]["measured"]) == (N, N - 1)
    assert manifest["rejected_reasons"]["truncated"] == 1
    assert str(measured.parent) not in (measured / MANIFEST).read_text()


def test_the_numbers_are_those_a_build_measures_itself(folder: Path, measured: Path, tmp_path: Path) -> None:
    alone = build(small(tmp_path / "alone", folder))
    given = build(small(tmp_path / "given", folder, ptbxl_plus=(measured,)))
    assert given.content_fingerprint == alone.content_fingerprint
    assert measurements_of(given.out) == measurements_of(alone.out)
    assert given.rejected_reasons == alone.rejected_reasons
    signals = [Corpus.open(result.out).manifest["inputs"]["signals"] for result in (alone, given)]
    assert signals[0] == signals[1]
    known = {f"simulated:{row['ecg_id']}": row for row in pq.read_table(measured / FEATURES).to_pylist()}
    for row in measurements_of(given.out):
        assert all(row[name] == known[row["ecg_id"]][name] for name in MEASURED_COLUMNS)


def test_a_build_does_not_measure_again(
    folder: Path, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("ecglm.synth.build.blocks.measure_ecgs", refuse)
    build(small(tmp_path / "corpus", folder, ptbxl_plus=(measured,)))
    assert measure_ecgs is not refuse


def test_copied_waveforms_are_recognised_by_their_content(folder: Path, measured: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    result = build(small(tmp_path / "corpus", tmp_path / "copy", ptbxl_plus=(measured,), limit=20))
    assert result.ecgs == 19


def test_other_waveforms_are_refused(folder: Path, measured: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    for suffix in ("hea", "dat"):
        text = (folder / f"records100/00000/00003_lr.{suffix}").read_bytes().replace(b"00003_lr", b"00002_lr")
        (tmp_path / f"copy/records100/00000/00002_lr.{suffix}").write_bytes(text)
    with pytest.raises(SourceError, match=r"simulated:2 is not the one that was measured.*synth measure"):
        build(small(tmp_path / "corpus", tmp_path / "copy", ptbxl_plus=(measured,)))
    assert not (tmp_path / "corpus").exists()


def changed(measured: Path, target: Path, **fields: object) -> Path:
    shutil.copytree(measured, target)
    manifest = json.loads((target / MANIFEST).read_text()) | fields
    (target / MANIFEST).write_text(json.dumps(manifest))
    return target


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"measured_version": "0"}, "version 0 of the measurements.*synth measure"),
        ({"source": "ptbxl"}, "measured on the source 'ptbxl'.*simulated"),
        ({"format": "something"}, "format 'something'"),
        ({"files": {}}, "not as `synth measure` writes it"),
    ],
)
def test_a_table_of_another_kind_is_refused(
    folder: Path, measured: Path, tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    wrong = changed(measured, tmp_path / "wrong", **fields)
    with pytest.raises(SourceError, match=message):
        build(small(tmp_path / "corpus", folder, ptbxl_plus=(wrong,)))


def test_a_damaged_table_is_refused(folder: Path, measured: Path, tmp_path: Path) -> None:
    wrong = changed(measured, tmp_path / "wrong")
    (wrong / FEATURES).write_bytes((wrong / FEATURES).read_bytes()[:-1] + b"\0")
    with pytest.raises(SourceError, match=r"measured_features\.parquet: missing or changed"):
        build(small(tmp_path / "corpus", folder, ptbxl_plus=(wrong,)))
    (wrong / MANIFEST).unlink()
    with pytest.raises(SourceError, match=r"no measured\.json"):
        build(small(tmp_path / "corpus", folder, ptbxl_plus=(wrong,)))


def test_ecgs_that_were_not_measured_are_named(folder: Path, tmp_path: Path) -> None:
    few = measure(MeasureConfig(ptbxl=folder, out=tmp_path / "few", workers=1, limit=10))
    assert (few.ecgs, few.measured) == (10, 9)
    with pytest.raises(SourceError, match=f"{N - 10} ECGs were not measured, the first is simulated:11"):
        build(small(tmp_path / "corpus", folder, ptbxl_plus=(few.out,)))


def test_one_and_two_workers_write_the_same_bytes(
    folder: Path, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecglm.synth.build.measuring.PART_ECGS", 16)
    measure(MeasureConfig(ptbxl=folder, out=tmp_path / "m", workers=2))
    assert bytes_of(tmp_path / "m") == bytes_of(measured)


def test_what_a_killed_run_finished_is_used(
    folder: Path, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecglm.synth.build.measuring.PART_ECGS", 16)
    seen: list[int] = []

    def stop_after_two(stage: str, done: int, of: int) -> None:
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(MeasureConfig(ptbxl=folder, out=tmp_path / "m", workers=1), stop_after_two)
    assert not (tmp_path / "m").exists()
    later: list[int] = []
    config = MeasureConfig(ptbxl=folder, out=tmp_path / "m", workers=1, resume="always")
    measure(config, lambda stage, done, of: later.append(done))
    assert len(later) == 1, "two of three parts were measured before"
    assert bytes_of(tmp_path / "m") == bytes_of(measured)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.8, 1.4, 2.0])
def test_a_run_killed_at_any_moment_resumes_to_the_same_bytes(
    folder: Path, measured: Path, tmp_path: Path, delay: float
) -> None:
    out = tmp_path / "m"
    process = subprocess.Popen([*SYNTH, "measure", "--ptbxl", str(folder), "--out", str(out)], start_new_session=True)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if out.exists():
        MeasuredTable.open(out)
    measure(MeasureConfig(ptbxl=folder, out=out, workers=1))
    assert bytes_of(out) == bytes_of(measured)


def test_nothing_changed_nothing_measured(folder: Path, measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (measured / LOG).read_text()
    monkeypatch.setattr("ecglm.synth.build.measuring.measure_ecgs", None)
    assert measure(MeasureConfig(ptbxl=folder, out=measured, workers=1)).measured == N - 1
    assert (measured / LOG).read_text() == before


def test_a_folder_of_other_things_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CorpusError, match="not measurements"):
        measure(MeasureConfig(ptbxl=folder, out=tmp_path))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_providers_that_are_not_there_are_named(folder: Path, measured: Path, tmp_path: Path) -> None:
    for wanted in (("12sl",), (), ("measured", "measured")):
        with pytest.raises(DefinitionError, match="out of simulated, measured"):
            build(small(tmp_path / "corpus", folder, providers=wanted, ptbxl_plus=(measured,)))


def test_the_order_of_the_providers_decides_whose_value_is_used(folder: Path, measured: Path, tmp_path: Path) -> None:
    first = build(small(tmp_path / "first", folder, ptbxl_plus=(measured,)))
    assert Corpus.open(first.out).manifest["config"]["providers"] == ["simulated", "measured"]
    only = build(small(tmp_path / "only", folder, ptbxl_plus=(measured,), providers=("measured",)))
    assert "measurement-pr" in only.skipped or "PR_Int_Global" in MEASURED_COLUMNS
    assert {row["provider"] for row in Corpus.open(only.out).table("measurements").to_table().to_pylist()} == {
        "measured"
    }


@pytest.mark.parametrize("wrong", ["nowhere", "empty"])
def test_a_folder_that_brings_nothing_is_refused(folder: Path, tmp_path: Path, wrong: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ECGLMError, match="synth measure"):
        build(small(tmp_path / "corpus", folder, ptbxl_plus=(tmp_path / wrong,)))


def test_json_is_one_object_with_the_promised_keys(folder: Path, tmp_path: Path) -> None:
    command = [*SYNTH, "measure", "--ptbxl", str(folder), "--out", str(tmp_path / "m"), "--limit", "8", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    content = json.loads(answer.stdout)
    assert content["measured"] == 7
    assert content["rejected_reasons"]["truncated"] == 1
    assert {"out", "source", "ecgs", "columns", "values", "measured_version", "seconds"} <= content.keys()


def test_without_a_source_it_is_wrong_usage(tmp_path: Path) -> None:
    answer = subprocess.run([*SYNTH, "measure", "--out", str(tmp_path / "m")], capture_output=True, text=True)
    assert answer.returncode == 2
    assert "--ptbxl" in answer.stderr


def test_real_ecgs_through_the_commands(ptbxl_part: Path, tmp_path: Path) -> None:
    few = ["--ptbxl", str(ptbxl_part), "--limit", "120"]
    for command in (
        ["measure", *few, "--out", str(tmp_path / "m"), "--workers", "1"],
        ["build", *few, "--ptbxl-plus", str(tmp_path / "m"), "--families", "axis", "--out", str(tmp_path / "c")],
        ["test", str(tmp_path / "c")],
    ):
        answer = subprocess.run([*SYNTH, *command], capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
    rates = {row["ecg_id"]: row["HR__Global"] for row in pq.read_table(tmp_path / "m" / FEATURES).to_pylist()}
    assert {row["ecg_id"]: row["HR__Global"] for row in measurements_of(tmp_path / "c")} == {
        f"ptbxl:{ecg_id}": rate for ecg_id, rate in rates.items()
    }
