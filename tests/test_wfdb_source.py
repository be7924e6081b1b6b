"""Any folder of WFDB records is a source: ECG leads only, a patient in one split, and what cannot be used is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from conftest import wfdb_header, write_record
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecglm.synth.build import BuildConfig, build
from ecglm.synth.build.inputs import known_statements
from ecglm.synth.build.measuring import MeasureConfig, measure
from ecglm.synth.checks import run_checks
from ecglm.synth.corpus import Corpus
from ecglm.synth.errors import SourceError
from ecglm.synth.measure import MEASURED_COLUMNS
from ecglm.synth.measure.table import FEATURES, REJECTED_FILE
from ecglm.synth.schema import ECGS, LABELS, REJECTED, SPLIT_OF_FOLD
from ecglm.synth.signals import read_header, read_record
from ecglm.synth.sources import Source, polars_schema
from ecglm.synth.sources.simulator.folder import simulated_ecgs
from ecglm.synth.sources.wfdb_folder import COLUMNS, fold_of, open_wfdb

SYNTH = [sys.executable, "-c", "from ecglm.synth.cli import main; main()"]
TWELVE = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")


def opened(root: Path, **options: Any) -> Source:
    return open_wfdb(root, known_statements(), **options)


def ecgs(source: Source) -> dict[str, dict[str, Any]]:
    return {row["ecg_id"].removeprefix("wfdb:"): row for row in source.ecgs.collect().to_dicts()}


def reasons(source: Source) -> dict[str, str]:
    return {",".join(row["ecg_ids"]): row["reason"] for row in source.rejected.collect().to_dicts()}


def write(root: Path, name: str, signal: NDArray[np.int16], header: str) -> None:
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_name(target.name + ".dat").write_bytes(signal.astype("<i2").tobytes())
    target.with_name(target.name + ".hea").write_text(header)


def heart(seconds: int = 10) -> NDArray[np.int16]:
    """(n_samples, 12) in µV at 100 Hz, a simulated ECG."""
    signal = next(simulated_ecgs(1, 7)).signal
    return np.tile(signal, (-(-seconds // 10), 1))[: seconds * 100]


def headed(name: str, signal: NDArray[np.int16], leads: tuple[str, ...] = TWELVE, hz: int = 100) -> str:
    return wfdb_header(name, signal, leads, hz)


# --- what is read -----------------------------------------------------------------------------------------------------


def test_records_of_other_machines(data_dir: Path) -> None:
    source = opened(data_dir / "other_ecg")
    found = ecgs(source)
    assert source.ecgs.collect().schema == polars_schema(ECGS)
    assert source.labels.collect_schema() == polars_schema(LABELS)
    assert source.rejected.collect_schema() == polars_schema(REJECTED)
    told = {name: (row["leads"], row["sampling_hz"], row["n_samples"]) for name, row in found.items()}
    assert told == {
        "100_3chan": (["I", "II", "III"], 360, 999),
        "a103l": (["II", "V"], 250, 82_500),
        "test01_00s": (["ECG 1", "ECG 2", "ECG 3", "ECG 4"], 500, 4_000),
        "v102s": (["II", "V"], 250, 75_000),
    }
    (pleth, both) = source.rejected.collect().sort("ecg_ids")["detail"].to_list()
    assert "a103l.hea: PLETH (NU) left out" in pleth
    assert "PLETH (NU), RESP (NU) left out" in both


def test_a_header_tells_what_its_record_holds(data_dir: Path) -> None:
    for name in ("100_3chan", "a103l", "test01_00s", "v102s"):
        header, record = (read(data_dir / "other_ecg", name) for read in (read_header, read_record))
        ecg = record.ecg_only()  # type: ignore[union-attr]
        assert (header.leads, header.sampling_hz, header.n_samples) == (
            ecg.leads,
            ecg.sampling_hz,
            len(ecg.signal),
        )


def test_folders_below_and_the_order_of_names(tmp_path: Path) -> None:
    for path in ("b/2", "a/deep/1", "b/1", "c"):
        write_record(tmp_path, path)
    source = opened(tmp_path)
    assert list(ecgs(source)) == ["a/deep/1", "b/1", "b/2", "c"]
    assert list(ecgs(opened(tmp_path, limit=2))) == ["a/deep/1", "b/1"]


NAMES = {
    "ECG II": "II",
    "lead avf": "aVF",
    "Lead_V3": "V3",
    "ecg lead I": "I",
    "MLII": "MLII",
    "ECG": "ECG",
    "V": "V",
}


def test_lead_names_are_read_where_they_are_clear(tmp_path: Path) -> None:
    signal = heart()[:, : len(NAMES)]
    write(tmp_path, "r", signal, headed("r", signal, tuple(NAMES)))
    assert ecgs(opened(tmp_path))["r"]["leads"] == list(NAMES.values())


def test_one_name_for_two_signals_and_signals_without_a_name(tmp_path: Path) -> None:
    signal = heart()[:, :4]
    text = headed("r", signal, ("II", "II", "x", "V1"))
    write(tmp_path, "r", signal, text.replace(" x\n", "\n"))
    assert ecgs(opened(tmp_path))["r"]["leads"] == ["II (1)", "II (2)", "signal 3", "V1"]
    record = read_record(tmp_path, "r", leads=("II (1)", "II (2)", "signal 3", "V1"), ecg_only=True)
    assert record.signal.shape == (1000, 4)


def test_microvolts_and_volts_are_the_same_ecg(tmp_path: Path) -> None:
    signal = heart()[:, :2]
    text = headed("r", signal, ("I", "II"))
    for name, unit in {"mv": "1000.0(0)/mV", "uv": "1.0(0)/uV", "v": "1000000.0(0)/V"}.items():
        write(tmp_path, name, signal, text.replace("r.dat", f"{name}.dat").replace("1000.0(0)/mV", unit))
    measure(MeasureConfig(wfdb=tmp_path, out=tmp_path / "m", workers=1))
    rows = pq.read_table(tmp_path / "m" / FEATURES).to_pylist()
    values = [{name: value for name, value in row.items() if name != "ecg_id"} for row in rows]
    assert values[0]["R_Amp_II"] is not None
    assert values[0] == values[1] == values[2]


# --- what cannot be used ----------------------------------------------------------------------------------------------


def test_bad_records_are_rejected_with_a_reason_and_the_rest_is_used(tmp_path: Path) -> None:
    signal = heart()
    good = headed("r", signal)
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "records"
    write(folder, "good", signal, good.replace("r.dat", "good.dat"))
    write(folder, "no_gain", signal, "no_gain 1 100 12000\nno_gain.dat 16\n")
    write(folder, "escape", signal, good.replace("r.dat", "../outside/r.dat"))
    write(folder, "nothing", signal, "")
    write(folder, "binary", signal, "")
    (folder / "binary.hea").write_bytes(b"\xff\xfe\x00binary")
    write(folder, "no_hz", signal, good.replace("r 12 100 1000", "no_hz 12"))
    write(folder, "half_hz", signal, good.replace("12 100 1000", "12 100.5 1000"))
    write(folder, "pieces", signal, "pieces/2 12 100 2000\nr 1000\nr 1000\n")
    write(folder, "resp", signal[:, :1], headed("resp", signal[:, :1], ("RESP",)))
    source = opened(folder)
    assert list(ecgs(source)) == ["good"]
    assert reasons(source) == {
        "wfdb:no_gain": "gain_missing",
        "wfdb:escape": "header_outside_folder",
        "wfdb:nothing": "header_invalid",
        "wfdb:binary": "header_invalid",
        "wfdb:no_hz": "header_invalid",
        "wfdb:half_hz": "sampling_rate_not_whole",
        "wfdb:pieces": "multi_segment",
        "wfdb:resp": "no_ecg_lead",
    }
    for detail in source.rejected.collect()["detail"]:
        assert ".hea" in detail


def test_waveforms_that_cannot_be_measured_give_a_reason_and_no_number(tmp_path: Path) -> None:
    signal = heart()
    short = signal[:100]
    write(tmp_path, "one_second", short, headed("one_second", short))
    write(tmp_path, "zero", signal * 0, headed("zero", signal * 0))
    write(tmp_path, "cut", signal, headed("cut", signal))
    (tmp_path / "cut.dat").write_bytes(b"\0" * 100)
    write(tmp_path, "slow", signal, headed("slow", signal, hz=40))
    write(tmp_path, "no_data", signal, headed("no_data", signal))
    (tmp_path / "no_data.dat").unlink()
    write(tmp_path, "fine", signal, headed("fine", signal))
    result = measure(MeasureConfig(wfdb=tmp_path, out=tmp_path / "m", workers=1))
    assert (result.ecgs, result.measured) == (6, 3)
    rows = {row["ecg_id"]: row for row in pq.read_table(tmp_path / "m" / FEATURES).to_pylist()}
    assert set(rows) == {"fine", "one_second", "zero"}
    assert rows["fine"]["HR__Global"] is not None
    known = [name for name in MEASURED_COLUMNS if "Quality" not in name and "Count" not in name]
    assert all(rows[name][column] is None for name in ("one_second", "zero") for column in known)
    told = Counter(
        (row["ecg_ids"][0], row["reason"]) for row in pq.read_table(tmp_path / "m" / REJECTED_FILE).to_pylist()
    )
    for expected in (
        ("wfdb:one_second", "too_short"),
        ("wfdb:zero", "no_beats"),
        ("wfdb:cut", "truncated"),
        ("wfdb:slow", "sampling_frequency"),
        ("wfdb:no_data", "missing_waveform"),
    ):
        assert told[expected] == 1


def test_half_an_hour_of_two_leads(tmp_path: Path) -> None:
    signal = heart(1800)[:, :2]
    write(tmp_path, "long", signal, headed("long", signal, ("I", "II")))
    measure(MeasureConfig(wfdb=tmp_path, out=tmp_path / "m", workers=1))
    (row,) = pq.read_table(tmp_path / "m" / FEATURES).to_pylist()
    assert row["HR__Global"] is not None
    assert row["QRS_Count_Global"] > 1000
    assert row["R_Amp_V1"] is None


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_records_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="give the folder that holds"):
        opened(tmp_path / name)


# --- metadata and splits ----------------------------------------------------------------------------------------------


def records(root: Path, *names: str) -> Path:
    for name in names:
        write_record(root, name)
    return root


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "about.csv"
    path.write_text(text)
    return path


def test_metadata_becomes_canonical_columns(tmp_path: Path) -> None:
    root = records(tmp_path / "r", "a", "b", "c")
    about = table(
        tmp_path,
        "record,patient_id,age_years,sex,recording_date,report,scp_codes,pacemaker,strat_fold\n"
        "b,p1,93,F,2001-02-03,sinus rhythm with normal axis,\"{'NORM': 80.0, 'SR': 0}\",,10\n"
        "a.hea,p1,92,female,2001-02-01 12:00:00,,\"['AFIB', 'PRC(S)']\",True,10\nc,p2,17,0,,,AFIB;LVH,False,1\n",
    )
    source = opened(root, metadata=about)
    found = ecgs(source)
    assert [found["b"][name] for name in ("patient_id", "age_years", "age_capped", "sex")] == [
        "wfdb:p1", 90, True, "female",
    ]  # fmt: skip
    assert (found["b"]["previous_ecg_id"], found["b"]["days_since_previous"]) == ("wfdb:a", 1.5)
    assert (found["b"]["report_en"], found["b"]["split"], found["c"]["split"]) == (
        found["b"]["report"],
        "test",
        "train",
    )
    assert [found[name]["pacemaker"] for name in "abc"] == [True, None, False]
    labels = source.labels.collect().select("ecg_id", "code", "certainty").rows()
    assert labels == [
        ("wfdb:a", "AFIB", "stated"),
        ("wfdb:a", "PRC(S)", "stated"),
        ("wfdb:b", "NORM", "probable"),
        ("wfdb:b", "SR", "stated"),
        ("wfdb:c", "AFIB", "stated"),
        ("wfdb:c", "LVH", "certain"),
    ]
    assert source.rejected.collect().is_empty()


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    root = records(tmp_path / "r", "a", "b")
    frame = pl.DataFrame(
        {"ecg_id": ["a", "b"], "patient_id": [1, 2], "age_years": [50.0, None], "scp_codes": [["AFIB", "PVC"], []]}
    )
    frame.write_parquet(tmp_path / "about.parquet")
    about = table(tmp_path, "ecg_id,patient_id,age_years,scp_codes\na,1,50.0,\"['AFIB', 'PVC']\"\nb,2,,[]\n")
    first, second = opened(root, metadata=tmp_path / "about.parquet"), opened(root, metadata=about)
    assert first.ecgs.collect().equals(second.ecgs.collect())
    assert first.labels.collect().equals(second.labels.collect())
    assert first.labels.collect()["code"].to_list() == ["AFIB", "PVC"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("patient_id,sex\n1,m\n", ("missing column record", "patient_id, sex")),
        ("record,patientid\na,1\n", ("unknown column patientid", "rename it to patient_id")),
        ("record,age_years\na,old\n", ("column age_years", "'old' (ecg_id a)", "0 to 120")),
        ("record,sex\na,x\n", ("column sex", "'x' (ecg_id a)")),
        ("record,strat_fold\na,11\n", ("column strat_fold", "'11'")),
        ("record,split\na,dev\n", ("column split", "'dev'")),
        ("record,recording_date\na,yesterday\n", ("column recording_date", "YYYY-MM-DD")),
        ("record,scp_codes\na,XYZ\n", ("column scp_codes", "'XYZ'", "a code with a guideline")),
        ("record,scp_codes\na,\"{'SR': many}\"\n", ("column scp_codes", "expected statements")),
        ("record,sex\na,m\na,f\n", ("column record", "'a' (data row 1)", "each record once")),
        ("record,patient_id,split\na,1,train\nb,1,test\n", ("patient 1 in", "train", "test", "in one fold")),
        ("record,patient_id,strat_fold\na,1,3\nb,1,4\n", ("patient 1 in", "in one fold")),
    ],
)
def test_wrong_metadata_is_named(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    root = records(tmp_path / "r", "a", "b")
    with pytest.raises(SourceError) as error:
        opened(root, metadata=table(tmp_path, text))
    for part in (*parts, "about.csv"):
        assert part in str(error.value)


def test_columns_and_rows_that_say_nothing_are_told(tmp_path: Path) -> None:
    root = records(tmp_path / "r", "a", "b", "c")
    about = table(tmp_path, "record,patient_id,favourite_colour\na,1,red\nz,2,blue\nb,,green\n")
    source = opened(root, metadata=about)
    assert list(ecgs(source)) == ["a"]
    assert reasons(source) == {
        "": "unknown_metadata_column",
        "wfdb:z": "missing_waveform",
        "wfdb:b": "patient_unknown",
        "wfdb:c": "patient_unknown",
    }


@given(st.text(min_size=1), st.sampled_from([(80, 10, 10), (1, 1, 1), (100, 0, 0), (98, 1, 1)]))
def test_a_patient_has_one_fold_whatever_else_is_there(identity: str, splits: tuple[int, int, int]) -> None:
    fold = fold_of(identity, splits)
    assert fold == fold_of(identity, splits)
    assert fold in SPLIT_OF_FOLD
    if splits == (100, 0, 0):
        assert SPLIT_OF_FOLD[fold] == "train"
    for split in ("train", "validation", "test"):
        assert SPLIT_OF_FOLD[fold_of(identity, splits, split)] == split


@pytest.mark.parametrize("splits", [(80, 10, 10), (60, 20, 20), (7, 2, 1)])
def test_splits_have_the_sizes_asked_for(splits: tuple[int, int, int]) -> None:
    n = 20_000
    folds = Counter(fold_of(f"patient {number}", splits) for number in range(n))
    shares = Counter(dict.fromkeys(("train", "validation", "test"), 0))
    for fold, count in folds.items():
        shares[SPLIT_OF_FOLD[fold]] += count
    for share, part in zip(("train", "validation", "test"), splits, strict=True):
        assert shares[share] / n == pytest.approx(part / sum(splits), abs=0.015)
    train = [folds[fold] for fold in range(1, 9)]
    assert max(train) < 1.15 * min(train)


def test_all_records_of_a_patient_are_in_one_split(tmp_path: Path) -> None:
    names = [f"{number:02d}" for number in range(30)]
    root = records(tmp_path / "r", *names)
    about = table(tmp_path, "record,patient_id\n" + "".join(f"{name},p{int(name) % 7}\n" for name in names))
    rows = ecgs(opened(root, metadata=about, splits=(1, 1, 1))).values()
    splits = {(row["patient_id"], row["split"], row["strat_fold"]) for row in rows}
    assert len(splits) == 7
    assert len({split for _, split, _ in splits}) > 1


# --- through the commands ---------------------------------------------------------------------------------------------


def test_a_folder_of_records_becomes_a_corpus(tmp_path: Path) -> None:
    root = tmp_path / "r"
    lines = ["record,patient_id,age_years,sex,scp_codes"]
    for number, ecg in enumerate(simulated_ecgs(30, 3)):
        name = f"clinic/{number:03d}"
        write(root, name, ecg.signal, headed(f"{number:03d}", ecg.signal))
        codes = ";".join(sorted(ecg.codes & set(known_statements()["code"])))
        lines.append(f"{name},p{number // 2},{ecg.visit.age_years},{ecg.visit.patient.sex},{codes}")
    about = table(tmp_path, "\n".join(lines) + "\n")
    for command in (
        ["measure", "--wfdb", str(root), "--metadata", str(about), "--out", str(tmp_path / "m"), "--json"],
        ["build", "--wfdb", str(root), "--metadata", str(about), "--splits", "60/20/20", "--workers", "1", "--out",
         str(tmp_path / "c"), "--ptbxl-plus", str(tmp_path / "m"), "--families", "verify", "--json"],
    ):  # fmt: skip
        answer = subprocess.run([*SYNTH, *command], capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["pairs"] > 100
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.manifest["config"]["splits"] == [60, 20, 20]
    assert [check.name for check in run_checks(corpus) if check.n_bad and check.severity == "error"] == []
    texts = json.dumps(corpus.table("pairs").to_table(columns=["messages"]).to_pylist())
    assert "cardiologist's annotation" not in texts, "nobody said that a cardiologist made it"
    alone = build(
        BuildConfig.model_validate(
            {
                "wfdb": root,
                "metadata": about,
                "splits": "60/20/20",
                "workers": 2,
                "out": tmp_path / "alone",
                "families": ("verify",),
            }
        )
    )
    assert alone.content_fingerprint == corpus.manifest["content_fingerprint"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ptbxl", "x", "--wfdb", "y"], "give one of them"),
        (["--metadata", "x.csv"], "goes with wfdb"),
        (["--wfdb", "y", "--splits", "80/20"], "splits"),
        (["--wfdb", "y", "--splits", "0/50/50"], "train above 0"),
        (["--wfdb", "y", "--sampling-hz", "100"], "goes with ptbxl"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, options: list[str], message: str) -> None:
    answer = subprocess.run([*SYNTH, "build", *options, "--out", str(tmp_path / "c")], capture_output=True, text=True)
    assert answer.returncode == 2
    assert message in " ".join(answer.stderr.split())


def test_the_documentation_names_every_column() -> None:
    text = (Path(__file__).parents[1] / "docs/sources.md").read_text()
    assert [name for name in COLUMNS if f"`{name}`" not in text] == []
