"""PTB-XL becomes canonical tables that say what its documentation says; a damaged folder is refused with a remedy."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from ecglm.synth.errors import SourceError
from ecglm.synth.schema import ECGS, LABELS, LEAD_UNKNOWN, LEADS, NOISE_COLUMNS, REJECTED
from ecglm.synth.sources import Source, polars_schema, signal_stamp
from ecglm.synth.sources.ptbxl import open_ptbxl

Folder = Callable[..., Path]


# --- the whole of PTB-XL 1.0.3 ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(ptbxl_full: Path) -> Source:
    return open_ptbxl(ptbxl_full)


@pytest.fixture(scope="module")
def ecgs(source: Source) -> pl.DataFrame:
    return source.ecgs.collect()


@pytest.fixture(scope="module")
def labels(source: Source) -> pl.DataFrame:
    return source.labels.collect()


def test_every_ecg_is_there_in_canonical_columns(source: Source, ecgs: pl.DataFrame, labels: pl.DataFrame) -> None:
    assert ecgs.height == 21_799
    assert labels.height == 61_007
    assert source.rejected.collect().is_empty()
    assert ecgs.schema == polars_schema(ECGS)
    assert labels.schema == polars_schema(LABELS)
    assert source.rejected.collect_schema() == polars_schema(REJECTED)
    assert ecgs.to_arrow().cast(ECGS).schema == ECGS
    assert labels.to_arrow().cast(LABELS).schema == LABELS


def test_the_first_ecg_reads_as_in_the_file(ecgs: pl.DataFrame, labels: pl.DataFrame) -> None:
    first = ecgs.row(0, named=True)
    assert first["ecg_id"] == "ptbxl:1"
    assert first["patient_id"] == "ptbxl:15709"
    assert (first["age_years"], first["age_capped"], first["sex"], first["weight_kg"]) == (56, False, "female", 63)
    assert (first["strat_fold"], first["split"]) == (3, "train")
    assert (first["report"], first["report_language"]) == ("sinusrhythmus periphere niederspannung", "de")
    assert (first["report_en"], first["report_en_status"]) == (None, None)
    assert (first["signal_path"], first["sampling_hz"], first["n_samples"]) == ("records100/00000/00001_lr", 100, 1000)
    assert first["leads"] == list(LEADS)
    assert first["static_noise"] == ["I", "II", "III", "aVR", "aVL", "aVF", "V1"]
    assert first["baseline_drift"] is None
    assert labels.filter(pl.col("ecg_id") == "ptbxl:1")["code"].to_list() == ["NORM", "LVOLT", "SR"]


def test_rows_are_in_the_order_of_the_numbers_and_labels_follow(ecgs: pl.DataFrame, labels: pl.DataFrame) -> None:
    number = pl.col("ecg_id").str.strip_prefix("ptbxl:").cast(pl.Int64)
    assert ecgs.select(number)["ecg_id"].is_sorted()
    assert labels.select(number)["ecg_id"].is_sorted()


def test_ages_over_89_are_capped(ecgs: pl.DataFrame) -> None:
    assert ecgs["age_capped"].sum() == 293
    assert ecgs.filter("age_capped")["age_years"].unique().to_list() == [90.0]
    assert ecgs.filter(~pl.col("age_capped"))["age_years"].max() == 89


def test_folds_make_the_splits_and_no_patient_is_in_two(ecgs: pl.DataFrame) -> None:
    folds = {
        split: sorted(group["strat_fold"].unique()) for (split,), group in ecgs.group_by("split", maintain_order=True)
    }
    assert folds == {"train": list(range(1, 9)), "validation": [9], "test": [10]}
    assert ecgs.group_by("patient_id").agg(pl.col("strat_fold").n_unique())["strat_fold"].max() == 1
    assert ecgs["patient_id"].n_unique() == 18_869
    assert ecgs.group_by("patient_id").len().filter(pl.col("len") > 1).height == 2_111
    assert ecgs.filter(pl.col("strat_fold") >= 9)["validated_by_human"].all()


def test_normal_does_not_mean_nothing_abnormal(labels: pl.DataFrame) -> None:
    normal = labels.filter(pl.col("code") == "NORM").select("ecg_id")
    beside = labels.join(normal, on="ecg_id", how="semi").group_by("code").len()
    counts = dict(beside.iter_rows())
    expected = {
        "SBRAD": 353, "IRBBB": 250, "STACH": 236, "LVOLT": 79, "STD_": 58, "QWAVE": 53, "1AVB": 38, "AFIB": 37,
    }  # fmt: skip
    assert {code: counts[code] for code in expected} == expected


def test_certainty_follows_likelihood_and_kind(labels: pl.DataFrame) -> None:
    diagnostic = pl.col("kinds").list.contains("diagnostic")
    assert labels.filter(~diagnostic)["certainty"].unique().to_list() == ["stated"]
    both = labels.filter(diagnostic & (pl.col("certainty") == "stated"))
    assert dict(both.group_by("code").len().iter_rows()) == {"NST_": 208, "DIG": 4, "LNGQT": 1}
    assert both["likelihood"].unique().to_list() == [0]
    bounds = (
        labels.filter(diagnostic & (pl.col("certainty") != "stated"))
        .group_by("certainty")
        .agg(pl.min("likelihood").alias("low"), pl.max("likelihood").alias("high"))
    )
    assert {certainty: (low, high) for certainty, low, high in bounds.iter_rows()} == {
        "certain": (100, 100),
        "probable": (80, 80),
        "possible": (50, 50),
        "not_excluded": (10, 35),
    }


def test_411_ecgs_have_no_diagnostic_statement(ecgs: pl.DataFrame, labels: pl.DataFrame) -> None:
    diagnosed = labels.filter(pl.col("kinds").list.contains("diagnostic"))["ecg_id"].n_unique()
    assert ecgs.height - diagnosed == 411


def test_71_statements_have_kinds_and_classes(source: Source, labels: pl.DataFrame) -> None:
    statements = source.statements
    assert statements.height == 71
    assert statements.filter(pl.col("kinds").list.contains("diagnostic")).height == 44
    assert statements.filter(pl.col("kinds").list.contains("form")).height == 19
    assert statements.filter(pl.col("kinds").list.contains("rhythm")).height == 12
    assert set(labels["superclass"].drop_nulls()) == {"NORM", "MI", "STTC", "CD", "HYP"}
    assert labels.filter(pl.col("code") == "LAFB").select("superclass", "subclass").row(0) == ("CD", "LAFB/LPFB")


def test_report_languages_have_the_known_shares(ecgs: pl.DataFrame) -> None:
    shares = {language: count / ecgs.height for language, count in ecgs["report_language"].value_counts().iter_rows()}
    assert shares["de"] == pytest.approx(0.64, abs=0.005)
    assert shares["en"] == pytest.approx(0.33, abs=0.005)
    assert shares["sv"] == pytest.approx(0.03, abs=0.005)
    assert shares[None] < 0.002


def test_the_language_of_171_reports_read_by_a_person_is_right(data_dir: Path, ecgs: pl.DataFrame) -> None:
    translated = pl.read_csv(data_dir / "reports_en" / "reports_de_en.csv", infer_schema=False)
    ids = translated.select(("ptbxl:" + pl.col("ecg_id")).alias("ecg_id"))
    languages = ecgs.join(ids, on="ecg_id", how="semi")["report_language"].value_counts()
    assert dict(languages.iter_rows()) == {"de": 111, "en": 50, "sv": 10}


def test_an_english_report_is_the_report_itself_and_holds_no_annotators_note(ecgs: pl.DataFrame) -> None:
    english = ecgs.filter(pl.col("report_en").is_not_null())
    assert (english["report_en"] == english["report"]).all()
    assert english["report_language"].unique().to_list() == ["en"]
    assert ecgs.filter(pl.col("report_en").is_not_null() != (pl.col("report_en_status") == "original")).is_empty()
    assert not english["report_en"].str.contains("Edit:|consensus label|Qualität").any()
    assert english.height == 6_841


def test_previous_ecgs_are_the_same_patients_and_no_date_is_told(ecgs: pl.DataFrame) -> None:
    later = ecgs.filter(pl.col("previous_ecg_id").is_not_null())
    assert later.height == 21_799 - 18_869
    joined = later.join(ecgs, left_on="previous_ecg_id", right_on="ecg_id", suffix="_before")
    assert joined.height == later.height
    assert (joined["patient_id"] == joined["patient_id_before"]).all()
    assert (later["days_since_previous"] >= 0).all()
    assert ecgs.filter(pl.col("previous_ecg_id").is_null())["days_since_previous"].null_count() == 18_869
    assert not [name for name, kind in ecgs.schema.items() if kind.is_temporal()]


def test_stages_axes_and_pacemakers_are_read(ecgs: pl.DataFrame) -> None:
    stages = dict(ecgs["infarction_stages"].list.join("+").value_counts().iter_rows())
    assert stages == {
        None: 16_187, "unknown": 3_430, "III": 980, "II-III": 943, "I": 155, "II": 82, "I+III": 8, "II+III": 6,
        "I-II": 5, "I+II": 3,
    }  # fmt: skip
    assert ecgs.filter(pl.col("heart_axis") == "LAD").height == 3_764
    assert ecgs["pacemaker"].sum() == 288  # 285 "ja, pacemaker" and 3 "ja, nan"; the three with "?" stay unknown
    assert ecgs["extra_beats"].count() == 21_799 - 19_850


def test_noise_is_leads_or_unknown_and_never_an_empty_list(ecgs: pl.DataFrame) -> None:
    noted = {column: ecgs[column].count() for column in NOISE_COLUMNS}
    assert noted == {
        "baseline_drift": 1_598, "static_noise": 3_260, "burst_noise": 612, "electrode_problems": 30,
    }  # fmt: skip
    for column in NOISE_COLUMNS:
        lists = ecgs[column].drop_nulls()
        assert (lists.list.len() > 0).all()
        assert set(lists.explode()) <= {*LEADS, LEAD_UNKNOWN}


def test_the_source_says_where_it_comes_from(source: Source, ptbxl_full: Path) -> None:
    assert source.name == "ptbxl"
    assert source.attribution["version"] == "1.0.3"
    assert source.attribution["doi"] == "10.13026/kfzx-aw45"
    assert source.attribution["licence"] == "CC BY 4.0"
    assert source.fingerprint == {
        name: hashlib.sha256((ptbxl_full / name).read_bytes()).hexdigest()
        for name in ("ptbxl_database.csv", "scp_statements.csv")
    }


def test_part_of_ptbxl_is_read_and_the_rest_counted(ptbxl_part: Path) -> None:
    source = open_ptbxl(ptbxl_part)
    ecgs, rejected = source.ecgs.collect(), source.rejected.collect()
    assert 900 < ecgs.height < 1000
    assert ecgs.height + rejected.height == 21_799
    assert rejected["reason"].unique().to_list() == ["missing_waveform"]
    assert rejected.row(0, named=True)["ecg_ids"] == ["ptbxl:1001"] or ecgs.height < 1000
    assert source.attribution["version"] == "1.0.3"
    assert source.labels.collect().join(source.ecgs.collect(), on="ecg_id", how="anti").is_empty()


def test_500_hz_records_are_read_alone_or_on_demand(data_dir: Path, ptbxl_part: Path, tmp_path: Path) -> None:
    root = tmp_path / "ptbxl"
    root.mkdir()
    for name in ("ptbxl_database.csv", "scp_statements.csv"):
        shutil.copy(ptbxl_part / name, root)
    with zipfile.ZipFile(data_dir / "ptbxl500" / "records500_sample.zip") as archive:
        archive.extractall(root)
    alone = open_ptbxl(root).ecgs.collect()
    assert alone["ecg_id"].to_list() == [f"ptbxl:{number}" for number in range(1, 25)]
    assert set(alone["sampling_hz"]) == {500}
    assert set(alone["n_samples"]) == {5000}
    assert alone["signal_path"][0] == "records500/00000/00001_hr"
    shutil.copytree(ptbxl_part / "records100", root / "records100")
    both = open_ptbxl(root)
    assert set(both.ecgs.collect()["sampling_hz"]) == {100}
    assert open_ptbxl(root, sampling_hz=500).ecgs.collect().height == 24


# --- small folders ----------------------------------------------------------------------------------------------------


def test_limit_takes_the_first_usable_ecgs_by_number(ptbxl_like: Folder) -> None:
    root = ptbxl_like({"ecg_id": "30"}, {"ecg_id": "4"}, {"ecg_id": "5"}, {"ecg_id": "6"})
    (root / "records100/00000/00003_lr.dat").unlink()
    source = open_ptbxl(root, limit=2)
    assert source.ecgs.collect()["ecg_id"].to_list() == ["ptbxl:4", "ptbxl:6"]
    assert source.rejected.collect()["ecg_ids"].to_list() == [["ptbxl:5"]]
    assert set(source.labels.collect()["ecg_id"]) == {"ptbxl:4", "ptbxl:6"}


@pytest.mark.parametrize("suffixes", [(".hea",), (".dat",), (".hea", ".dat")])
def test_a_missing_file_is_named_with_a_remedy(ptbxl_like: Folder, suffixes: tuple[str, ...]) -> None:
    root = ptbxl_like({}, {})
    for suffix in suffixes:
        (root / f"records100/00000/00002_lr{suffix}").unlink()
    (row,) = open_ptbxl(root).rejected.collect().to_dicts()
    assert (row["stage"], row["ecg_ids"], row["reason"]) == ("source", ["ptbxl:2"], "missing_waveform")
    names = " and ".join(f"records100/00000/00002_lr{suffix}" for suffix in suffixes)
    assert row["detail"] == f"{names}: not in the folder; download or unpack this record to use it"


def test_an_earlier_ecg_that_is_not_there_is_skipped_over_not_replaced(ptbxl_like: Folder) -> None:
    same = {"patient_id": "7.0"}
    dates = ("1990-01-01 00:00:00", "1990-01-11 12:00:00", "1990-02-01 00:00:00")
    root = ptbxl_like(*({**same, "recording_date": date} for date in dates))
    whole = open_ptbxl(root).ecgs.collect()
    assert whole["previous_ecg_id"].to_list() == [None, "ptbxl:1", "ptbxl:2"]
    assert whole["days_since_previous"].to_list() == [None, 10.5, 20.5]
    (root / "records100/00000/00002_lr.dat").unlink()
    assert open_ptbxl(root).ecgs.collect()["previous_ecg_id"].to_list() == [None, None]


def test_an_earlier_ecg_beyond_the_limit_is_not_replaced_either(ptbxl_like: Folder) -> None:
    same = {"patient_id": "7.0"}
    dates = ("1990-01-01 00:00:00", "1990-03-01 00:00:00", "1990-02-01 00:00:00")
    root = ptbxl_like(*({**same, "recording_date": date} for date in dates))
    assert open_ptbxl(root).ecgs.collect()["previous_ecg_id"].to_list() == [None, "ptbxl:3", "ptbxl:1"]
    limited = open_ptbxl(root, limit=2).ecgs.collect()
    assert limited["previous_ecg_id"].to_list() == [None, None]
    assert limited["days_since_previous"].to_list() == [None, None]


def test_ecgs_of_one_time_are_ordered_by_number_and_dates_may_run_backwards(ptbxl_like: Folder) -> None:
    same = {"patient_id": "7.0"}
    dates = ("1990-03-01 00:00:00", "1990-01-01 00:00:00", "1990-01-01 00:00:00")
    ecgs = open_ptbxl(ptbxl_like(*({**same, "recording_date": date} for date in dates))).ecgs.collect()
    assert ecgs["previous_ecg_id"].to_list() == ["ptbxl:3", None, "ptbxl:2"]
    assert ecgs["days_since_previous"].to_list() == [59.0, None, 0.0]


def test_details_of_cells(ptbxl_like: Folder) -> None:
    root = ptbxl_like(
        {"sex": "0", "age": "300.0", "height": "170.5", "pacemaker": "ja, nan", "electrodes_problems": "V1???"},
        {"sex": "", "age": "", "patient_id": "", "pacemaker": "?, nan", "infarction_stadium2": "Stadium I"},
        {"infarction_stadium1": "unknown", "infarction_stadium2": "Stadium II-III", "pacemaker": "PACE????, nan"},
        {"infarction_stadium1": "Stadium III", "infarction_stadium2": "Stadium III", "report": " "},
        {"report": "sinusrytm vÄnster el-axel", "scp_codes": '{"NST_": 0.0, \'PRC(S)\': 100, "LVH": 0.5}'},
        {"scp_codes": "{}"},
    )
    source = open_ptbxl(root)
    rows = source.ecgs.collect().to_dicts()
    assert [row["sex"] for row in rows[:3]] == ["male", None, "female"]
    assert [(row["age_years"], row["age_capped"]) for row in rows[:3]] == [(90, True), (None, None), (56, False)]
    assert rows[0]["height_cm"] == 170.5
    assert rows[0]["electrode_problems"] == ["V1"]
    assert [row["pacemaker"] for row in rows[:4]] == [True, None, None, None]
    assert rows[1]["patient_id"] is None
    assert [row["infarction_stages"] for row in rows[:4]] == [None, ["I"], ["II-III", "unknown"], ["III"]]
    assert [row["report_language"] for row in rows[3:5]] == [None, "sv"]
    labels = source.labels.filter(pl.col("ecg_id").is_in(["ptbxl:5", "ptbxl:6"])).collect()
    assert labels.select("code", "certainty").rows() == [
        ("NST_", "stated"),
        ("PRC(S)", "stated"),
        ("LVH", "not_excluded"),
    ]


def test_a_signal_stamp_changes_with_any_waveform_file_in_use_and_with_no_other(ptbxl_like: Folder) -> None:
    root = ptbxl_like({}, {})
    before = signal_stamp(open_ptbxl(root))
    assert before == signal_stamp(open_ptbxl(root))
    (root / "records100/00000/notes.txt").write_text("x")
    (root / "records100/00000/99999_lr.dat").write_bytes(b"x")
    assert signal_stamp(open_ptbxl(root)) == before
    data = root / "records100/00000/00002_lr.dat"
    os.utime(data, ns=(0, data.stat().st_mtime_ns + 1))
    touched = signal_stamp(open_ptbxl(root))
    data.write_bytes(data.read_bytes() + b"xx")
    assert len({before, touched, signal_stamp(open_ptbxl(root)), signal_stamp(open_ptbxl(root, limit=1))}) == 4


def test_a_simulated_folder_has_its_own_name_attribution_and_measurements(ptbxl_like: Folder) -> None:
    root = ptbxl_like({}, {}, {})
    (root / "SIMULATED.json").write_text(json.dumps({"name": "toy", "licence": "CC0-1.0", "simulator_version": "7"}))
    (root / "features").mkdir()
    table = pl.DataFrame({"ecg_id": [3, 1, 9], "PR_Int_Global": [160.0, None, 1.0]})
    table.write_parquet(root / "features/simulated_features.parquet")
    table.write_csv(root / "features/other_features.csv")
    source = open_ptbxl(root)
    assert source.name == "simulated"
    assert source.ecgs.collect()["ecg_id"].to_list() == ["simulated:1", "simulated:2", "simulated:3"]
    assert (source.attribution["name"], source.attribution["version"]) == ("toy", "7")
    assert source.attribution["licence"] == "CC0-1.0"
    assert sorted(source.providers) == ["other", "simulated"]
    for provider in source.providers.values():
        assert provider.collect().rows() == [("simulated:3", 160.0), ("simulated:1", None)]
    assert {"SIMULATED.json", "features/simulated_features.parquet"} <= set(source.fingerprint)


def test_features_beside_real_ptbxl_are_left_alone(ptbxl_like: Folder) -> None:
    root = ptbxl_like()
    (root / "features").mkdir()
    pl.DataFrame({"ecg_id": [1]}).write_csv(root / "features/12sl_features.csv")
    assert open_ptbxl(root).providers == {}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": [1]}, "column ecg_id: found None"),
        ({"ecg_id": ["simulated:1"]}, "column ecg_id: found String, expected whole numbers"),
        ({"ecg_id": [2, 2]}, "ecg_id 2 appears twice"),
    ],
)
def test_bad_features_are_refused(ptbxl_like: Folder, table: dict[str, list[object]], message: str) -> None:
    root = ptbxl_like({}, {})
    (root / "SIMULATED.json").write_text("{}")
    (root / "features").mkdir()
    pl.DataFrame(table).write_parquet(root / "features/simulated_features.parquet")
    with pytest.raises(SourceError, match=r"simulated_features\.parquet: ") as caught:
        open_ptbxl(root)
    assert message in str(caught.value)


# --- what is refused, and what the message says -----------------------------------------------------------------------


def refusal(root: Path, **options: int) -> str:
    with pytest.raises(SourceError) as caught:
        open_ptbxl(root, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "column", "found", "expected"),
    [
        ({"sex": "2"}, "sex", "'2'", "0 (male), 1 (female) or nothing"),
        ({"sex": "male"}, "sex", "'male'", "0 (male)"),
        ({"age": "-1.0"}, "age", "'-1.0'", "0 to 120 years, 300 (over 89), or nothing"),
        ({"age": "121.0"}, "age", "'121.0'", "0 to 120"),
        ({"age": "299.0"}, "age", "'299.0'", "0 to 120"),
        ({"age": "nan"}, "age", "'nan'", "0 to 120"),
        ({"weight": "0.0"}, "weight", "'0.0'", "above 0 (kg)"),
        ({"strat_fold": "0"}, "strat_fold", "'0'", "from 1 to 10"),
        ({"strat_fold": "11"}, "strat_fold", "'11'", "from 1 to 10"),
        ({"strat_fold": ""}, "strat_fold", "an empty cell", "from 1 to 10"),
        ({"strat_fold": "3.5"}, "strat_fold", "'3.5'", "from 1 to 10"),
        ({"patient_id": "x"}, "patient_id", "'x'", "a whole number"),
        ({"heart_axis": "LEFT"}, "heart_axis", "'LEFT'", "MID, LAD, ALAD, RAD, ARAD, AXL, AXR, SAG"),
        ({"infarction_stadium1": "Stadium IV"}, "infarction_stadium1", "'Stadium IV'", "I, I-II, II, II-III, III"),
        ({"infarction_stadium2": "old"}, "infarction_stadium2", "'old'", "unknown"),
        ({"recording_date": "9.11.1984"}, "recording_date", "'9.11.1984'", "YYYY-MM-DD HH:MM:SS"),
        ({"second_opinion": "maybe"}, "second_opinion", "'maybe'", "True, False"),
        ({"scp_codes": "['NORM']"}, "scp_codes", "\"['NORM']\"", "{'NORM': 100.0, 'SR': 0.0}"),
        ({"scp_codes": "{'NORM': 100.0"}, "scp_codes", "NORM", "statements as"),
        ({"scp_codes": "{'NORM': '100'}"}, "scp_codes", "NORM", "statements as"),
        ({"scp_codes": "{'NORM': exit()}"}, "scp_codes", "exit()", "statements as"),
        ({"scp_codes": "{'NORM': nan}"}, "scp_codes", "nan", "statements as"),
        ({"scp_codes": ""}, "scp_codes", "an empty cell", "statements as"),
        ({"scp_codes": "{'NORMAL': 100.0}"}, "scp_codes", "'NORMAL': 100.0", "a code that scp_statements.csv lists"),
        ({"scp_codes": "{'NORM': 101}"}, "scp_codes", "'NORM': 101", "a likelihood from 0 to 100"),
        ({"scp_codes": "{'NORM': -1.0}"}, "scp_codes", "'NORM': -1.0", "a likelihood from 0 to 100"),
        ({"scp_codes": "{'NORM': 80, 'NORM': 100}"}, "scp_codes", "'NORM': 80", "each code once per ECG"),
        ({"filename_lr": "../secret/00001_lr"}, "filename_lr", "'../secret/00001_lr'", "a path inside the folder"),
        ({"filename_lr": "records100/../../x"}, "filename_lr", "'records100/../../x'", "a path inside the folder"),
        ({"filename_hr": "/etc/passwd"}, "filename_hr", "'/etc/passwd'", "records500/00000/00001_hr"),
        ({"filename_lr": "C:\\data\\1"}, "filename_lr", "'C:", "a path inside the folder"),
        ({"filename_lr": "s3://bucket/1"}, "filename_lr", "'s3://bucket/1'", "a path inside the folder"),
    ],
)
def test_a_bad_cell_is_refused(ptbxl_like: Folder, row: dict[str, str], column: str, found: str, expected: str) -> None:
    message = refusal(ptbxl_like({}, row, waveforms=False))
    assert "ptbxl_database.csv, column " + column + ": found " in message
    assert found in message
    assert "(ecg_id 2)" in message
    assert expected in message
    assert message.count("\n") == 0


@pytest.mark.parametrize("ecg_id", ["", "0", "-4", "1.5", "x"])
def test_a_bad_ecg_id_is_refused_by_its_row(ptbxl_like: Folder, ecg_id: str) -> None:
    message = refusal(ptbxl_like({}, {"ecg_id": ecg_id}))
    assert "column ecg_id" in message
    assert (
        f"found {repr(ecg_id) if ecg_id else 'an empty cell'} (data row 2); expected a whole number above 0" in message
    )


def test_one_ecg_twice_is_refused(ptbxl_like: Folder) -> None:
    message = refusal(ptbxl_like({}, {"ecg_id": "1"}))
    assert "column ecg_id: found '1' (data row 1), '1' (data row 2); expected each ECG once; keep one" in message


def test_a_patient_in_two_folds_is_refused(ptbxl_like: Folder) -> None:
    message = refusal(ptbxl_like({"patient_id": "7.0"}, {"patient_id": "7.0", "strat_fold": "4"}))
    assert "patient 7.0 in folds 3 and 4 (first ecg_id 1)" in message


def test_many_problems_are_told_at_once_with_their_number(ptbxl_like: Folder) -> None:
    message = refusal(ptbxl_like(*[{"sex": "7"}] * 15, {"heart_axis": "UP"}, {"age": "-3"}))
    lines = message.splitlines()
    assert len(lines) == 3
    assert any(
        "column sex: found '7' (ecg_id 1), '7' (ecg_id 2), '7' (ecg_id 3) and 12 more;" in line for line in lines
    )


@pytest.mark.parametrize("name", ["ptbxl_database.csv", "scp_statements.csv"])
def test_a_missing_or_empty_table_is_refused(ptbxl_like: Folder, name: str) -> None:
    root = ptbxl_like()
    (root / name).write_text("\n")
    assert f"{name}: the file is empty; download it again" in refusal(root)
    (root / name).unlink()
    assert f"{name}: no such file; download PTB-XL again" in refusal(root)


def test_the_folder_above_is_pointed_down(ptbxl_like: Folder) -> None:
    root = ptbxl_like()
    assert f"did you mean the folder {root}?" in refusal(root.parent)
    assert "not a folder" in refusal(root / "nowhere")


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_truncated_table_is_refused(ptbxl_like: Folder, cut: int) -> None:
    database = ptbxl_like({}, {}) / "ptbxl_database.csv"
    database.write_bytes(database.read_bytes()[:-cut])
    assert "has no line end, so the file is probably truncated; download it again" in refusal(database.parent)


def test_a_header_alone_is_refused(ptbxl_like: Folder) -> None:
    database = ptbxl_like() / "ptbxl_database.csv"
    database.write_bytes(database.read_bytes().split(b"\n")[0] + b"\n")
    assert "no rows after the header" in refusal(database.parent)


def test_missing_columns_are_listed(ptbxl_like: Folder) -> None:
    database = ptbxl_like() / "ptbxl_database.csv"
    database.write_text(database.read_text().replace(",sex,", ",gender,").replace("strat_fold", "fold"))
    assert "missing columns sex, strat_fold; found ecg_id, patient_id, age, gender" in refusal(database.parent)


def test_other_encodings_and_binary_files_are_refused_with_the_line(ptbxl_like: Folder) -> None:
    database = ptbxl_like({}, {"report": "ischämie"}) / "ptbxl_database.csv"
    good = database.read_text(encoding="utf-8")
    database.write_bytes(good.encode("latin-1"))
    assert "line 3: byte 0xe4 is not UTF-8; save the file as UTF-8" in refusal(database.parent)
    database.write_text(good + "\0\n")
    assert "NUL byte" in refusal(database.parent)


def test_ragged_rows_are_refused(ptbxl_like: Folder) -> None:
    database = ptbxl_like() / "ptbxl_database.csv"
    good = database.read_text()
    database.write_text(good.rstrip("\n") + ",extra,extra\n")
    assert "not a comma-separated table" in refusal(database.parent)


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_do_no_harm(ptbxl_like: Folder) -> None:
    root = ptbxl_like({}, {})
    before = open_ptbxl(root).ecgs.collect()
    database = root / "ptbxl_database.csv"
    text = database.read_text().replace("\n", "\r\n") + "\r\n"
    database.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert open_ptbxl(root).ecgs.collect().equals(before)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("SR,sinus", "NORM,sinus", "found code 'NORM' twice"),
        ("SR,sinus", ",sinus", "found a row without a code"),
        ("SR,sinus rhythm,,,1.0", "SR,sinus rhythm,,,", "SR: none of diagnostic, form, rhythm is 1"),
        ("diagnostic_class", "class", "missing column diagnostic_class"),
    ],
)
def test_a_bad_statement_table_is_refused(ptbxl_like: Folder, old: str, new: str, message: str) -> None:
    statements = ptbxl_like() / "scp_statements.csv"
    statements.write_text(statements.read_text().replace(old, new, 1))
    assert message in refusal(statements.parent)


def test_no_waveform_at_all_is_refused(ptbxl_like: Folder) -> None:
    root = ptbxl_like({}, {}, waveforms=False)
    message = refusal(root)
    assert "none of the waveform files" in message
    assert "filename_lr and filename_hr" in message
    assert "records100/00000/00001_lr.hea" in message


def test_a_sampling_rate_that_is_not_there_is_refused(ptbxl_like: Folder) -> None:
    root = ptbxl_like({})
    assert "filename_hr" in refusal(root, sampling_hz=500)
    assert "leave sampling_hz=500 out" in refusal(root, sampling_hz=500)
    assert "PTB-XL has 100 and 500 Hz" in refusal(root, sampling_hz=250)
    assert "expected at least 1" in refusal(root, limit=0)


def test_bad_simulated_json_is_refused(ptbxl_like: Folder) -> None:
    root = ptbxl_like()
    (root / "SIMULATED.json").write_text("{")
    assert "SIMULATED.json: not valid JSON" in refusal(root)
    (root / "SIMULATED.json").write_text("[]")
    assert "SIMULATED.json: found a list" in refusal(root)
