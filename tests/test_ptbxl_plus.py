"""PTB-XL+ is read as it is published, in any row order and in part; what is wrong in it is named."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from plus import columns, row_of, statistics, write_plus

from ecglm.synth.build import BuildConfig, build
from ecglm.synth.checks import run_checks
from ecglm.synth.corpus import Corpus
from ecglm.synth.errors import SourceError
from ecglm.synth.measure.dictionary import measurements
from ecglm.synth.query import select
from ecglm.synth.schema import OPTIONAL_TABLES
from ecglm.synth.sources import polars_schema
from ecglm.synth.sources.ptbxl_plus import PtbxlPlus, open_ptbxl_plus
from ecglm.synth.sources.simulator import simulate

IDS = (1, 2, 3, 4, 5, 6)
ECG_IDS = pl.Series([f"ptbxl:{number}" for number in IDS])


def read(root: Path, ecg_ids: pl.Series = ECG_IDS) -> PtbxlPlus:
    return open_ptbxl_plus(root, "ptbxl", ecg_ids)


def rows(plus: PtbxlPlus, provider: str) -> list[dict]:
    return plus.providers[provider].collect().to_dicts()


def written(root: Path, provider: str) -> dict[str, dict[str, str]]:
    with (root / f"features/{provider}_features.csv").open(newline="") as file:
        return {row["ecg_id"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def plus_folder(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plus(tmp_path_factory.mktemp("official") / "plus", data_dir, IDS)


@pytest.fixture(scope="module")
def plus(plus_folder: Path) -> PtbxlPlus:
    return read(plus_folder)


def test_the_folder_has_the_official_quirks(plus_folder: Path, data_dir: Path) -> None:
    with (plus_folder / "features/12sl_features.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert (len(header), header.index("ecg_id")) == (783, 144)
    assert list(written(plus_folder, "unig")) != [str(number) for number in IDS]


@pytest.mark.parametrize("provider", ["12sl", "unig", "ecgdeli"])
def test_every_value_belongs_to_its_ecg(plus: PtbxlPlus, plus_folder: Path, data_dir: Path, provider: str) -> None:
    found, expected = rows(plus, provider), written(plus_folder, provider)
    assert [row["ecg_id"] for row in found] == ECG_IDS.to_list()
    for row in found:
        told = expected[row["ecg_id"].removeprefix("ptbxl:")]
        for name in set(columns(data_dir, provider)) & set(measurements()):
            assert row[name] == float(told[name])
    assert set(found[0]) == {"ecg_id", *columns(data_dir, provider)}


def test_the_official_row_of_ecgdeli_is_read(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    official = data_dir / "ptbxl_plus/features"
    shutil.copyfile(official / "feature_description.csv", tmp_path / "features/feature_description.csv")
    shutil.copyfile(official / "ecgdeli_features_row513.csv", tmp_path / "features/ecgdeli_features.csv")
    (row,) = rows(read(tmp_path, pl.Series(["ptbxl:512", "ptbxl:513"])), "ecgdeli")
    assert row["ecg_id"] == "ptbxl:513"
    assert (row["PQ_Int_I"], row["R_Amp_V2"], row["S_Amp_V2"]) == (132, 0.885, -0.735)


def test_columns_of_12sl_without_a_factor_are_in_microvolts(plus: PtbxlPlus, plus_folder: Path, data_dir: Path) -> None:
    assert statistics(data_dir, "12sl")["Max_R_Amp_V5"]["p50"] > 1000, "as published: µV under a header that says mV"
    for row in rows(plus, "12sl"):
        told = written(plus_folder, "12sl")[row["ecg_id"].removeprefix("ptbxl:")]
        assert row["Max_R_Amp_V5"] == pytest.approx(float(told["Max_R_Amp_V5"]) / 1000)
        assert row["R_Amp_V5"] == float(told["R_Amp_V5"])


def test_statements_and_snomed(plus: PtbxlPlus) -> None:
    for name, table in plus.tables.items():
        assert table.schema == polars_schema(OPTIONAL_TABLES[name])
    statements = plus.tables["statements"].filter(ecg_id="ptbxl:2")
    lists = {
        (annotator[0], annotator[1]): part.select("code", "likelihood").rows()
        for annotator, part in statements.group_by("annotator", "part", maintain_order=True)
    }
    assert lists["ptbxl", "given"] == [("NORM", 100.0), ("SR", 0.0)]
    assert lists["ptbxl", "extended"][2] == ("PRC(S)", 50.0)
    assert lists["ptbxl", "snomed"] == [("4008453", 100.0), ("4117134", 50.0)]
    assert lists["12sl", "given"] == [("NSR", None), ("NML", None), ("(", None), ("B, or not", None)]
    assert lists["12sl", "snomed"] == [("4008453", None), ("4117134", None)]
    assert len(lists) == 7
    concept = row_of(plus.tables["snomed"].to_dicts(), snomed_id="4065283")
    assert concept["description"] == "EKG: right ventricle hypertrophy"
    assert concept["ancestors"][:2] == ["4010019", "4008453"]
    assert (concept["in_ptbxl"], concept["informative"]) == (True, False)


def test_malformed_mapping_rows_are_read_or_rejected(plus: PtbxlPlus) -> None:
    mapping = plus.tables["snomed_mapping"].to_dicts()
    assert row_of(mapping, line=3, column_name="id1")["value"] == "4117134", "a row that is quoted as a whole"
    assert {row["line"] for row in mapping} == {2, 3}
    rejected = plus.rejected.to_dicts()
    assert [row["reason"] for row in rejected] == ["malformed_mapping_row"] * 2
    assert "line 4: 1 cells, expected 6" in rejected[0]["detail"]
    assert "line 5: 8 cells, expected 6" in rejected[1]["detail"]


def test_a_statement_cell_that_is_no_list_is_rejected(data_dir: Path, tmp_path: Path) -> None:
    root = write_plus(tmp_path / "plus", data_dir, IDS, providers=())
    path = root / "labels/12sl_statements.csv"
    path.write_text(path.read_text().replace("\"['NSR', 'NML']\"", "__import__('os')", 1))
    found = read(root)
    (row,) = [row for row in found.rejected.to_dicts() if row["reason"] == "unreadable_statements"]
    assert "labels/12sl_statements.csv, column statements_cat" in row["detail"]
    assert row["ecg_ids"] == ["ptbxl:6"]
    assert found.tables["statements"].filter(annotator="12sl", part="category")["ecg_id"].n_unique() == len(IDS) - 1


@pytest.mark.parametrize("provider", ["12sl", "unig", "ecgdeli"])
def test_one_provider_alone_works(data_dir: Path, tmp_path: Path, provider: str) -> None:
    root = write_plus(tmp_path / "plus", data_dir, (3, 5), providers=(provider,), labels=False)
    found = read(root)
    assert list(found.providers) == [provider]
    assert [row["ecg_id"] for row in rows(found, provider)] == ["ptbxl:3", "ptbxl:5"]
    assert found.tables == {}


def replaced(root: Path, file: str, old: str, new: str) -> None:
    path = root / file
    text = path.read_text(encoding="utf-8-sig")
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({("unig", 4, "QRS_Dur_Global"): "wide"}, ("column QRS_Dur_Global", "'wide' (ecg_id 4)", "(ms)")),
        ({("unig", 4, "R_Amp_V5"): "1240"}, ("column R_Amp_V5", "'1240' (ecg_id 4)", "-50 to 50 (mV)")),
        ({("12sl", 2, "T_Amp_V2"): "inf"}, ("column T_Amp_V2", "'inf' (ecg_id 2)", "a number")),
        ({("12sl", 2, "HR__Global"): "-1"}, ("column HR__Global", "0 to 1000 (/min)")),
        ({("12sl", number, "PR_Int_Global"): "0.16" for number in IDS}, ("PR_Int_Global", "up to 0.16", "not in s")),
        ({("12sl", 2, "ecg_id"): "3"}, ("column ecg_id", "'3' (data row", "each ECG once")),
        ({("12sl", 2, "ecg_id"): "two"}, ("column ecg_id", "'two' (data row", "a whole number")),
    ],
)
def test_a_wrong_cell_is_named(data_dir: Path, tmp_path: Path, changes: dict, parts: tuple[str, ...]) -> None:
    root = write_plus(tmp_path / "plus", data_dir, IDS, providers=("12sl", "unig"), changes=changes)
    with pytest.raises(SourceError) as error:
        read(root)
    for part in (*parts, f"{next(iter(changes))[0]}_features.csv"):
        assert part in str(error.value)


@pytest.mark.parametrize("text", ["", "nan", "NaN"])
def test_an_empty_cell_is_a_missing_value(data_dir: Path, tmp_path: Path, text: str) -> None:
    root = write_plus(tmp_path / "p", data_dir, IDS, providers=("unig",), changes={("unig", 4, "R_Amp_V5"): text})
    assert row_of(rows(read(root), "unig"), ecg_id="ptbxl:4")["R_Amp_V5"] is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",R_Amp_V5", ",R_Ampl_V5", "missing column R_Amp_V5, unknown column R_Ampl_V5"),
        ("ecg_id", "id", "missing column ecg_id"),
    ],
)
def test_a_missing_or_extra_column_is_named(data_dir: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    root = write_plus(tmp_path / "plus", data_dir, IDS, providers=("unig",))
    replaced(root, "features/unig_features.csv", old, new)
    with pytest.raises(SourceError, match=message):
        read(root)


def test_a_description_in_other_units_is_named(data_dir: Path, tmp_path: Path) -> None:
    root = write_plus(tmp_path / "plus", data_dir, IDS, providers=("unig",))
    path = root / "features/feature_description.csv"
    lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    (number,) = [number for number, line in enumerate(lines) if line.startswith("QRS_Dur_Global,")]
    lines[number] = lines[number].replace(",ms,", ",s,")
    path.write_text("".join(lines))
    with pytest.raises(SourceError, match=r"feature_description\.csv, column unit: found 's' \(row QRS_Dur_Global"):
        read(root)


def test_it_belongs_to_ptbxl_only(plus_folder: Path) -> None:
    with pytest.raises(SourceError, match="not of the source 'wfdb'"):
        open_ptbxl_plus(plus_folder, "wfdb", ECG_IDS)
    with pytest.raises(SourceError, match="no row about any of the 1 ECGs"):
        read(plus_folder, pl.Series(["ptbxl:99"]))


def test_a_corpus_with_all_of_it(
    ptbxl_like: Callable[..., Path], plus_folder: Path, data_dir: Path, tmp_path: Path
) -> None:
    root = ptbxl_like(*({} for _ in range(8)))
    config = {"ptbxl": root, "ptbxl_plus": (plus_folder,), "workers": 1, "families": ("measurement",)}
    result = build(BuildConfig.model_validate({**config, "out": tmp_path / "corpus"}))
    assert "measurement-pr" not in result.skipped, "PR comes from PTB-XL+"
    corpus = Corpus.open(result.out)
    assert corpus.manifest["config"]["providers"] == ["12sl", "unig", "measured"]
    assert [entry["name"] for entry in corpus.manifest["attribution"]] == ["PTB-XL", "PTB-XL+"]
    assert "ptbxl_plus/features/12sl_features.csv" in corpus.manifest["inputs"]["source_files"]
    named = select(
        corpus,
        "SELECT DISTINCT description FROM statements JOIN snomed ON code = snomed_id"
        " WHERE part = 'snomed' AND annotator = '12sl' ORDER BY 1",
    )
    assert named["description"].to_pylist() == ["Electrocardiogram finding", "SNOMED CT Concept"]
    assert pq.read_table(result.out / "snomed_mapping.parquet").num_rows > 0
    assert result.rejected_reasons["malformed_mapping_row"] == 2
    measured = corpus.table("measurements").to_table().to_pylist()
    given = written(plus_folder, "12sl")
    assert row_of(measured, ecg_id="ptbxl:2", provider="12sl")["PR_Int_Global"] == float(given["2"]["PR_Int_Global"])
    assert [row["ecg_id"] for row in measured if row["provider"] == "unig"] == ECG_IDS.to_list()
    assert [check.name for check in run_checks(corpus) if check.n_bad and check.severity == "error"] == []
    again = build(BuildConfig.model_validate({**config, "out": tmp_path / "again", "workers": 2}))
    assert again.content_fingerprint == result.content_fingerprint
    assert Corpus.open(again.out).manifest["files"] == corpus.manifest["files"]


def test_a_build_sees_that_the_tables_changed(ptbxl_like: Callable[..., Path], data_dir: Path, tmp_path: Path) -> None:
    plus_folder = write_plus(tmp_path / "plus", data_dir, (1, 2), providers=("unig",))
    config = BuildConfig(
        ptbxl=ptbxl_like({}, {}), ptbxl_plus=(plus_folder,), workers=1, families=("measurement",), out=tmp_path / "c"
    )
    build(config)
    assert build(config).rendered == 0
    path = plus_folder / "features/unig_features.csv"
    before = written(plus_folder, "unig")["1"]["QRS_Dur_Global"]
    path.write_text(path.read_text().replace(f",{before},", ",133.5,", 1))
    assert build(config).rendered > 0
    rows = Corpus.open(config.out).table("measurements").to_table().to_pylist()
    assert 133.5 in [row["QRS_Dur_Global"] for row in rows if row["provider"] == "unig"]


@pytest.fixture(scope="module")
def merged(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus where 12SL knows ECGs 1 to 3 and leaves one PR interval out, and Uni-G knows 2 to 4."""
    folder = tmp_path_factory.mktemp("merged")
    simulate(folder / "ecgs", 5, 3)
    (folder / "ecgs/SIMULATED.json").unlink()
    shutil.rmtree(folder / "ecgs/features")
    gap = {("12sl", 2, "PR_Int_Global"): ""}
    first = write_plus(folder / "first", data_dir, (1, 2, 3), providers=("12sl", "ecgdeli"), changes=gap, labels=False)
    second = write_plus(folder / "second", data_dir, (2, 3, 4), providers=("unig",), labels=False)
    shutil.copyfile(second / "features/unig_features.csv", first / "features/unig_features.csv")
    config = {"ptbxl": folder / "ecgs", "ptbxl_plus": (first,), "workers": 1, "families": ("measurement",)}
    providers = ("unig", "12sl", "ecgdeli", "measured")
    build(BuildConfig.model_validate({**config, "out": folder / "corpus"}))
    build(BuildConfig.model_validate({**config, "out": folder / "other", "providers": providers}))
    return folder


def used(corpus: Path, name: str) -> dict[str, str]:
    """ECG → provider whose value of a measurement is used, as the corpus records it."""
    answer = select(
        Corpus.open(corpus),
        f"SELECT ecg_id, provider FROM measurements WHERE list_contains(used, '{name}') ORDER BY 1, 2",
    ).to_pylist()
    assert len({row["ecg_id"] for row in answer}) == len(answer), "one provider for each value"
    return {row["ecg_id"].removeprefix("ptbxl:"): row["provider"] for row in answer}


def test_per_value_the_first_provider_that_has_it_is_recorded(merged: Path) -> None:
    first = used(merged / "corpus", "PR_Int_Global")
    assert (first["1"], first["2"], first["3"], first["4"]) == ("12sl", "unig", "12sl", "unig")
    other = used(merged / "other", "PR_Int_Global")
    assert (other["1"], other["2"], other["3"], other["4"]) == ("12sl", "unig", "unig", "unig")
    axis = used(merged / "corpus", "QRS_AxisFront_Global")
    assert axis["2"] == "12sl", "R_AxisFrontal_Global is 12SL's name of it"
    assert used(merged / "corpus", "HR__Global")["5"] == "measured"


def test_the_values_in_the_pairs_are_of_the_recorded_provider(merged: Path) -> None:
    corpus = Corpus.open(merged / "corpus")
    rows = {(row["ecg_id"], row["provider"]): row for row in corpus.table("measurements").to_table().to_pylist()}
    seen = set()
    for pair in corpus.table("pairs").to_table().to_pylist():
        for item in pair["evidence"]:
            if item["name"] in ("PR_Int_Global", "QRS_Dur_Global", "QT_Int_Global"):
                (ecg_id,) = pair["ecg_ids"]
                provider = used(merged / "corpus", item["name"])[ecg_id.removeprefix("ptbxl:")]
                assert item["value"] == rows[ecg_id, provider][item["name"]]
                seen.add(provider)
    assert {"12sl", "unig"} <= seen


def test_intervals_of_ecgdeli_are_never_used(merged: Path) -> None:
    corpus = Corpus.open(merged / "other")
    rows = corpus.table("measurements").to_table().to_pylist()
    ecgdeli = [row for row in rows if row["provider"] == "ecgdeli"]
    assert len(ecgdeli) == 3
    assert all(row["QRS_Dur_Global"] is not None for row in ecgdeli), "in the table, to be looked at"
    units = {name: measurement.unit for name, measurement in measurements().items()}
    assert {units[name] for row in ecgdeli for name in row["used"]} <= {"mV"}
    order = ("ecgdeli", "measured")
    config = corpus.manifest["config"]
    assert config["providers"] == ["unig", "12sl", "ecgdeli", "measured"]
    only = build(
        BuildConfig(
            ptbxl=merged / "ecgs",
            ptbxl_plus=(merged / "first",),
            providers=order,
            workers=1,
            families=("measurement",),
            out=merged / "only",
        )
    )
    table = Corpus.open(only.out).table("measurements").to_table().to_pylist()
    assert any("R_Amp_V2" in row["used"] for row in table if row["provider"] == "ecgdeli")
    assert not any("QRS_Dur_Global" in row["used"] for row in table if row["provider"] == "ecgdeli")
