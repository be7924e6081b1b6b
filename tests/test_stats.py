"""`synth stats` counts what is there, and draws it."""

from __future__ import annotations

import builtins
import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from corpora import read_pairs
from rich.console import Console

from ecglm.synth.corpus import Corpus
from ecglm.synth.errors import ECGLMError
from ecglm.synth.stats import corpus_stats, plot_stats, print_stats


@pytest.fixture(scope="session")
def corpus(simulated_corpus: Path) -> Corpus:
    return Corpus.open(simulated_corpus)


@pytest.fixture(scope="session")
def stats(corpus: Corpus) -> dict[str, Any]:
    return corpus_stats(corpus)


def test_counts_are_those_of_the_rows(corpus: Corpus, stats: dict[str, Any]) -> None:
    rows = read_pairs(corpus.root)
    assert stats["pairs"] == len(rows)
    for name, column in (("families", "family"), ("question_types", "question_type"), ("templates", "template_id")):
        assert stats[name] == dict(Counter(row[column] for row in rows))
    by_split = Counter((row["family"], row["split"]) for row in rows)
    counted = {
        (family, split): n for family, splits in stats["families_by_split"].items() for split, n in splits.items() if n
    }
    assert counted == dict(by_split)
    codes = Counter(code for row in rows for code in set(row["codes"]))
    assert stats["n_codes"] == len(codes)
    assert stats["codes"].items() <= codes.items()
    assert list(stats["codes"].values()) == sorted(codes.values(), reverse=True)[: len(stats["codes"])]


def test_answers_are_counted_where_the_vocabulary_is_closed(corpus: Corpus, stats: dict[str, Any]) -> None:
    rows = read_pairs(corpus.root)
    answers = Counter(answer for row in rows if row["template_id"] == "verify-statement" for answer in row["answers"])
    assert stats["answers"]["verify-statement"] == dict(answers)
    templates = corpus.table("templates").to_table().to_pylist()
    closed = {row["template_id"] for row in templates if row["vocabulary"] and row["n_pairs"]}
    assert set(stats["answers"]) == closed


def test_ecgs_and_patients_are_counted_by_split(corpus: Corpus, stats: dict[str, Any]) -> None:
    ecgs = corpus.table("ecgs").to_table().to_pylist()
    for split, counts in stats["splits"].items():
        part = [row for row in ecgs if row["split"] == split]
        assert counts["ecgs"] == len(part)
        assert counts["patients"] == len({row["patient_id"] for row in part})
        assert counts["pairs"] == corpus.split_rows[split]
    assert stats["patients"] == len({row["patient_id"] for row in ecgs})


def test_lengths_are_exact(corpus: Corpus, stats: dict[str, Any]) -> None:
    for family, lengths in stats["lengths"].items():
        said = [
            message["content"]
            for row in read_pairs(corpus.root)
            if row["family"] == family
            for message in row["messages"]
            if message["role"] == "assistant"
        ]
        characters, words = sorted(map(len, said)), sorted(len(text.split()) for text in said)
        assert lengths["answer_characters"]["median"] == statistics.median_low(characters)
        assert lengths["answer_characters"]["max"] == characters[-1]
        assert lengths["answer_words"]["median"] == statistics.median_low(words)
        assert lengths["answer_words"]["max"] == words[-1]
        at_most = sum(length <= lengths["answer_characters"]["p95"] for length in characters)
        assert at_most >= 0.95 * len(characters)


def test_rejections_are_counted_by_reason_and_template(corpus: Corpus, stats: dict[str, Any]) -> None:
    rows = corpus.table("rejected").to_table().to_pylist()
    assert stats["rejected"] == dict(Counter(row["reason"] for row in rows))
    for template_id, reasons in stats["rejected_by_template"].items():
        assert reasons == dict(Counter(row["reason"] for row in rows if row["template_id"] == template_id))


def test_statistics_are_plain_data_and_the_same_every_time(corpus: Corpus, stats: dict[str, Any]) -> None:
    assert json.loads(json.dumps(stats)) == stats
    assert json.dumps(corpus_stats(corpus)) == json.dumps(stats)


def test_tables_show_every_family_split_and_template(stats: dict[str, Any], tmp_path: Path) -> None:
    with (tmp_path / "out.txt").open("w") as stream:
        console = Console(width=160, record=True, file=stream, highlight=False)
        print_stats(stats, console)
        text = console.export_text()
    for name in (*stats["families"], *stats["splits"], *stats["templates"], *stats["rejected"]):
        assert name in text
    assert f"{stats['pairs']:,} pairs about" in text


def test_the_picture_is_a_png_of_one_page(stats: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_stats(stats, tmp_path / "stats.png")
    content = (tmp_path / "stats.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    assert width > height > 1000
    plot_stats(stats, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == content


def test_without_matplotlib_the_error_says_what_to_install(
    stats: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def without_matplotlib(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(ECGLMError, match=r"pip install 'ecglm\[plot\]'"):
        plot_stats(stats, tmp_path / "stats.png")


def test_a_picture_that_cannot_be_written_is_an_error_that_names_it(stats: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ECGLMError, match=r"nowhere/stats\.png: cannot be written"):
        plot_stats(stats, tmp_path / "nowhere" / "stats.png")
    with pytest.raises(ECGLMError, match=r"stats\.picture: a picture ends in \.png or \.svg"):
        plot_stats(stats, tmp_path / "stats.picture")
