"""The dataset card lets `datasets` load a corpus offline, and tells a reader what the corpus is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from ecglm.synth.card import card_text, write_card
from ecglm.synth.corpus import CARD, TABLES, Corpus
from ecglm.synth.schema import PAIRS

LOAD = """
import sys
from datasets import get_dataset_config_names, load_dataset
folder, cache = sys.argv[1:]
for config in get_dataset_config_names(folder):
    for split, rows in load_dataset(folder, None if config == "default" else config, cache_dir=cache).items():
        print(config, split, rows.num_rows, ",".join(rows.features), sep="|")
        if config == "default":
            assert [set(message) for message in rows[0]["messages"]] == [{"role", "content"}] * len(rows[0]["messages"])
"""


@pytest.fixture(scope="session")
def corpus(simulated_corpus: Path) -> Corpus:
    return Corpus.open(simulated_corpus)


@pytest.fixture(scope="session")
def card(corpus: Corpus) -> str:
    return (corpus.root / CARD).read_text(encoding="utf-8")


def front_matter(card: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return content


def test_datasets_loads_the_folder_offline_with_every_table_and_column(corpus: Corpus, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", LOAD, str(corpus.root), str(tmp_path / "cache")]
    run = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    loaded = {tuple(line.split("|")[:2]): line.split("|")[2:] for line in run.stdout.splitlines()}
    for split, rows in corpus.split_rows.items():
        assert loaded["default", split] == [str(rows), ",".join(PAIRS.names)]
    for table in set(TABLES) - {"pairs"}:
        rows = corpus.manifest["counts"][table]
        if rows:
            schema = pq.read_schema(corpus.root / f"{table}.parquet")
            assert loaded[table, table] == [str(rows), ",".join(schema.names)]


def test_the_front_matter_lists_splits_that_have_pairs_and_no_others(corpus: Corpus, card: str) -> None:
    configs = {config["config_name"]: config for config in front_matter(card)["configs"]}
    assert configs["default"]["default"] is True
    assert [file["split"] for file in configs["default"]["data_files"]] == [
        split for split, rows in corpus.split_rows.items() if rows
    ]
    for config in configs.values():
        for file in config["data_files"]:
            assert list(corpus.root.glob(file["path"])), file


def test_a_split_without_pairs_is_left_out(corpus: Corpus) -> None:
    files = {name: entry for name, entry in corpus.manifest["files"].items() if "split=test" not in name}
    templates = [
        entry | {"files": {name: file for name, file in entry["files"].items() if name in files}}
        for entry in corpus.manifest["templates"]
    ]
    manifest = dict(corpus.manifest) | {"files": files, "templates": templates}
    (default, *_) = front_matter(card_text(corpus.root, manifest))["configs"]
    assert [file["split"] for file in default["data_files"]] == ["train", "validation"]


@pytest.mark.parametrize(
    ("licences", "shown"),
    [
        (["CC BY 4.0"], {"license": "cc-by-4.0"}),
        (["CC0-1.0"], {"license": "cc0-1.0"}),
        (["CC BY 4.0", "MIT"], {"license": "other", "license_name": "CC BY 4.0, MIT"}),
        (["House rules"], {"license": "other", "license_name": "House rules"}),
    ],
)
def test_the_licence_is_that_of_the_sources(corpus: Corpus, licences: list[str], shown: dict[str, str]) -> None:
    source = corpus.manifest["attribution"][0]
    manifest = dict(corpus.manifest) | {"attribution": [source | {"licence": licence} for licence in licences]}
    content = front_matter(card_text(corpus.root, manifest))
    assert {name: content[name] for name in ("license", "license_name") if name in content} == shown


@pytest.mark.parametrize(
    ("pairs", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (1_150_000, "1M<n<10M"), (20_000_000, "n>10M")],
)
def test_the_size_category_follows_the_number_of_pairs(corpus: Corpus, pairs: int, category: str) -> None:
    files = {"pairs/split=train/verify-normal-000.parquet": {"rows": pairs, "bytes": 1, "sha256": ""}}
    manifest = dict(corpus.manifest) | {"files": files if pairs else {}, "templates": []}
    assert front_matter(card_text(corpus.root, manifest))["size_categories"] == [category]


def test_the_card_counts_pairs_by_family_and_split(corpus: Corpus, card: str) -> None:
    total = corpus.manifest["counts"]["pairs"]
    all_splits = " | ".join(f"{rows:,}" for rows in corpus.split_rows.values())
    assert f"| **all** | {all_splits} | {total:,} |" in card


def test_the_card_says_what_was_skipped_and_rejected_and_why(corpus: Corpus, card: str) -> None:
    for template, reason in corpus.manifest["skipped"].items():
        assert f"| `{template}` | {reason} |" in card
    for reason, count in corpus.manifest["rejected_reasons"].items():
        assert f"| {reason.replace('_', ' ')} | {count:,} |" in card


def test_the_card_names_sources_licence_limits_and_how_to_cite(corpus: Corpus, card: str) -> None:
    for source in corpus.manifest["attribution"]:
        for field in ("name", "licence", "citation", "doi"):
            assert source[field].rstrip(".") in card
    assert "Not for clinical use" in card
    assert "The ECGs are computed, of no patient" in card
    assert "folds 1–8 train, 9 validation, 10 test" in card
    assert corpus.manifest["content_fingerprint"] in card


def test_the_card_is_the_same_every_time_and_holds_no_path(corpus: Corpus, card: str, tmp_path: Path) -> None:
    shutil.copy(corpus.root / "templates.parquet", tmp_path)
    manifest = {**corpus.manifest, "files": {n: e for n, e in corpus.manifest["files"].items() if n != CARD}}
    write_card(tmp_path, manifest)
    assert (tmp_path / CARD).read_text(encoding="utf-8") == card
    assert str(corpus.root.parent) not in card


def test_tables_in_the_card_have_as_many_cells_as_their_header(card: str) -> None:
    lines = card.splitlines()
    for before, line in pairwise(lines):
        if before.startswith("|") and line.startswith("|"):
            assert before.replace("\\|", "").count("|") == line.replace("\\|", "").count("|"), line
