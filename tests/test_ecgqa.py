"""ECG-QA: what may not be trained on is left out, and its questions are answered as its documentation says."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from corpora import with_changed_pairs

from ecglm.bench.ecgqa import open_ecgqa
from ecglm.bench.runs import RunConfig, run
from ecglm.bench.scoring import Settings
from ecglm.synth.build import BuildConfig, build
from ecglm.synth.checks import run_checks
from ecglm.synth.corpus import Corpus
from ecglm.synth.errors import CorpusError, TaskError
from ecglm.synth.export_ecgqa import export_ecgqa
from ecglm.synth.sources.ecgqa import EXCLUDED, read_lists
from ecglm.synth.sources.ptbxl import open_ptbxl
from ecglm.synth.templates import load_templates
from ecglm.synth.why import explain

N_ECGS = 60


@pytest.fixture(scope="session")
def copy(simulated_bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of ECGs as ECG-QA gives them: of the simulated patients every fifth is tested on, whatever the fold."""
    ecgs = open_ptbxl(simulated_bench / "ecgs", limit=N_ECGS).ecgs.select("ecg_id", "patient_id").collect()
    patients = {patient: n for n, patient in enumerate(ecgs["patient_id"].unique(maintain_order=True))}
    root = tmp_path_factory.mktemp("lists") / "ecgqa" / "ptbxl"
    root.mkdir(parents=True)
    lists: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for n, (ecg_id, patient) in enumerate(ecgs.iter_rows()):
        split = {0: "test", 1: "valid"}.get(patients[patient] % 5, "train")
        if n % 7:  # the official lists do not name every ECG either
            lists[split].append(ecg_id.partition(":")[2])
    for split, ids in lists.items():
        (root / f"{split}_ecgs.tsv").write_text("".join(f"{n}\t{native}\n" for n, native in enumerate(ids)))
    return root


@pytest.fixture(scope="session")
def safe_corpus(simulated_bench: Path, copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    out = tmp_path_factory.mktemp("safe") / "corpus"
    config = BuildConfig(
        ptbxl=simulated_bench / "ecgs",
        limit=N_ECGS,
        families=("axis", "comparison"),
        exclude_ecgqa_test=copy,
        workers=1,
        out=out,
    )
    build(config)
    return Corpus.open(out)


def test_no_patient_of_the_test_list_is_trained_on_and_every_ecg_left_out_is_told(
    safe_corpus: Corpus, simulated_bench: Path, copy: Path
) -> None:
    ecgs = open_ptbxl(simulated_bench / "ecgs", limit=N_ECGS).ecgs.collect()
    tested = {ecg_id for ecg_id, split in read_lists(copy).split_of.items() if split == "test"}
    native = pl.col("ecg_id").str.split(":").list.last()
    patients = ecgs.filter(native.is_in(tested))["patient_id"].unique()
    wrong = ecgs.filter(pl.col("patient_id").is_in(patients.implode()) & (pl.col("split") == "train"))["ecg_id"]
    assert 0 < len(wrong) < len(ecgs), "some are left out, among them ECGs that no list names"
    assert set(wrong.str.split(":").list.last()) - tested
    rejected = safe_corpus.table("rejected").to_table(filter=pc.field("reason") == EXCLUDED)
    assert sorted(ids[0] for ids in rejected["ecg_ids"].to_pylist()) == sorted(wrong)
    assert safe_corpus.manifest["rejected_reasons"][EXCLUDED] == len(wrong)
    assert safe_corpus.manifest["config"]["exclude_ecgqa_test"] is True
    kept = set(safe_corpus.table("ecgs").to_table()["ecg_id"].to_pylist())
    assert kept == set(ecgs["ecg_id"]) - set(wrong)
    asked = {ecg_id for ids in safe_corpus.table("pairs").to_table()["ecg_ids"].to_pylist() for ecg_id in ids}
    assert asked
    assert not asked & set(wrong)
    assert {result.name for result in run_checks(safe_corpus) if result.n_bad and result.severity == "error"} == set()


def test_a_pair_about_a_patient_left_out_is_found(safe_corpus: Corpus, tmp_path: Path) -> None:
    def train_on_it(rows: list[dict[str, object]]) -> None:
        row = next(row for row in rows if row["split"] == "train")
        row["ecg_ids"] = [left_out]

    table = pq.read_table(safe_corpus.root / "ecgqa_ecgs.parquet")
    left_out = table.filter(table["excluded"])["ecg_id"][0].as_py()
    planted = with_changed_pairs(safe_corpus.root, tmp_path / "corpus", train_on_it)
    (result,) = run_checks(planted, only=["pair-train-from-ecgqa-test"])
    assert [example["ecg_ids"] for example in result.examples] == [[left_out]]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda root: (root / "test_ecgs.tsv").unlink(), "found 0 files test_ecgs.tsv"),
        (lambda root: (root / "test_ecgs.tsv").write_text("0 7\n"), "line 1: found '0 7', expected a number, a tab"),
        (lambda root: (root / "test_ecgs.tsv").write_text((root / "train_ecgs.tsv").read_text()), "is in train and in"),
    ],
)
def test_damaged_lists_are_named(spoil: object, named: str, copy: Path, tmp_path: Path) -> None:
    shutil.copytree(copy, tmp_path, dirs_exist_ok=True)
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(TaskError, match=named):
        read_lists(tmp_path)


def test_the_official_lists_leave_the_number_of_ecgs_that_is_documented(data_dir: Path, ptbxl_full: Path) -> None:
    ecgs = open_ptbxl(ptbxl_full).ecgs.select("ecg_id", "patient_id", "split").collect().to_arrow()
    text = pa.schema([(name, pa.string()) for name in ecgs.column_names])
    listed = read_lists(data_dir / "ecgqa").table(ecgs.cast(text), exclude_test=True)
    assert pc.sum(listed["excluded"]).as_py() == 17_418 - 15_067


# ------------------------------------------------------------------------------------------------------- the questions


@pytest.fixture(scope="session")
def questions(simulated_bench: Path, copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Questions about simulated ECGs, with lists of ECG-QA."""
    out = tmp_path_factory.mktemp("questions") / "corpus"
    config = BuildConfig(
        ptbxl=simulated_bench / "ecgs", limit=N_ECGS, families=("ecgqa",), ecgqa=copy, workers=1, out=out
    )
    build(config)
    return Corpus.open(out)


def test_every_template_but_those_without_a_source_asks_as_the_dataset_does(data_dir: Path) -> None:
    examples = pl.read_csv(data_dir / "ecgqa" / "template_examples.csv").rows(named=True)
    templates = {t.header.ecgqa.template: t for t in load_templates() if t.header.ecgqa is not None}
    assert set(templates) == set(range(1, 71)) - {17, 18, 19}
    for row in examples:
        template = templates.get(row["template_id"])
        if template is None:
            continue
        asked = template.header.ecgqa
        assert asked is not None
        words = re.sub(r"\\{\\{\\ \w+\\ \\}\\}", "(.+)", re.escape(template.turns[0].alternatives[0]))
        assert re.fullmatch(words, row["question"]), template.id
        assert (asked.question_type, asked.attribute_type) == (row["question_type"], row["attribute_type"])
        assert sorted(template.vocabulary) == sorted(ast.literal_eval(row["answer_candidates"])), template.id


def test_the_questions_pass_every_check_and_can_be_made_again(questions: Corpus) -> None:
    failed = {result.name: result.examples for result in run_checks(questions) if result.n_bad}
    assert set(failed) == {"pair-train-question-of-ecgqa-test"}, "the corpus was built without leaving them out"
    pairs = questions.table("pairs").to_table().sort_by("pair_id").to_pylist()
    compared = [pair for pair in pairs if len(pair["ecg_ids"]) == 2]
    assert {len(set(pair["patient_ids"])) for pair in compared} == {1, 2}, "one patient, and two"
    for pair in (*pairs[::400], *compared[:2]):
        assert explain(questions, pair["pair_id"]).identical, pair["template_id"]


@pytest.mark.slow
def test_real_labels_and_notes_give_questions_without_an_error(
    data_dir: Path, ptbxl_part: Path, tmp_path: Path
) -> None:
    out = tmp_path / "corpus"
    build(BuildConfig(ptbxl=ptbxl_part, limit=300, families=("ecgqa",), ecgqa=data_dir / "ecgqa", workers=1, out=out))
    corpus = Corpus.open(out)
    errors = {
        result.name: result.examples for result in run_checks(corpus) if result.severity == "error" and result.n_bad
    }
    assert errors == {}
    assert {"statement_without_option", "absence_not_safe"} <= set(corpus.manifest["rejected_reasons"])


def test_two_ecgs_compared_are_of_one_split_in_both_senses(questions: Corpus) -> None:
    ecgs = questions.table("ecgqa_ecgs").to_table().to_pydict()
    listed = dict(zip(ecgs["ecg_id"], ecgs["ecgqa_split"], strict=True))
    compared = [ids for ids in questions.table("pairs").to_table()["ecg_ids"].to_pylist() if len(ids) == 2]
    different = [ids for ids in compared if ids[0].partition(":")[2] != "" and listed.get(ids[0]) != listed.get(ids[1])]
    one_patient = questions.table("ecgs").to_table().to_pydict()
    previous = dict(zip(one_patient["ecg_id"], one_patient["previous_ecg_id"], strict=True))
    assert all(previous[second] == first for first, second in different), "a list may name one ECG of a patient only"
    assert "crosses_split" not in questions.manifest["rejected_reasons"]


# ----------------------------------------------------------------------------------------------------------- the export


def test_the_export_is_what_the_bench_reads_and_its_oracle_answers_it(
    questions: Corpus, simulated_bench: Path, copy: Path, tmp_path: Path
) -> None:
    told = export_ecgqa(questions, tmp_path / "again")
    sources = json.loads((tmp_path / "again" / "export.json").read_text())["attribution"]
    assert [source["name"] for source in sources].count("ECG-QA") == 1
    assert all(told["questions"].values())
    data = {"ptbxl": simulated_bench / "ecgs", "ecgqa": tmp_path / "again"}
    result = run(RunConfig("oracle", ("ecgqa",), tmp_path / "run", settings=Settings(n_resamples=20), **data))
    assert result.scores["tasks"]["ecgqa"]["headline"]["value"] == 1.0
    assert result.asked <= told["questions"]["test"], "samples that ask the same of the same ECGs share one question"
    lists = read_lists(copy).split_of
    found = open_ecgqa(tmp_path / "again")
    for split in ("train", "valid", "test"):
        templates, paraphrases = found.questions("template", split), found.questions("paraphrased", split)
        assert {lists[str(native)] for sample in templates for native in sample["ecg_id"]} == {split}
        assert [sample["answer"] for sample in templates] == [sample["answer"] for sample in paraphrases]
        assert all(a["question"] != b["question"] for a, b in zip(templates, paraphrases, strict=True))
        table = pl.read_parquet(tmp_path / "again" / f"{split}.parquet")
        assert table["question"].to_list() == [sample["question"] for sample in templates]


def test_the_export_is_balanced_and_bounded_and_made_whole(questions: Corpus, tmp_path: Path) -> None:
    export_ecgqa(questions, tmp_path / "some", questions=300)
    for split in ("train", "valid", "test"):
        table = pl.read_parquet(tmp_path / "some" / f"{split}.parquet")
        assert table.height <= 300
    yes = pl.col("answer").list.first() == "yes"
    verify = table.filter(pl.col("question_type").str.ends_with("verify"))
    balance = verify.group_by("question").agg(yes.sum().alias("yes"), (~yes).sum().alias("no"))
    assert (balance["no"] <= 5 * balance["yes"] + 50).all()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(CorpusError, match="there already, and no export of this kind"):
        export_ecgqa(questions, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_the_document_marks_every_template_as_its_file_does() -> None:
    text = (Path(__file__).parents[1] / "docs" / "ecgqa.md").read_text()
    told = {
        int(n): mark for n, mark in re.findall(r"^\| (\d+) \| .+ \| [a-z_-]+ \| (.+) \|$", text, flags=re.MULTILINE)
    }
    marks = {t.header.ecgqa.template: t.header.ecgqa.answers for t in load_templates() if t.header.ecgqa is not None}
    assert told == marks | dict.fromkeys((17, 18, 19), "not yet: no source of leads per finding")
