"""`synth export` writes every pair once, in the shape a training framework reads, with the way to the waveform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpora import read_pairs

from ecglm.synth.corpus import Corpus
from ecglm.synth.errors import CorpusError
from ecglm.synth.export import FORMATS, export
from ecglm.synth.schema import SPLITS


@pytest.fixture(scope="session")
def corpus(simulated_corpus: Path) -> Corpus:
    return Corpus.open(simulated_corpus)


def exported(corpus: Corpus, output_format: str, out: Path, **options: Any) -> list[dict[str, Any]]:
    n = export(corpus, output_format, out, **options)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == n
    return lines


@pytest.mark.parametrize("output_format", FORMATS)
def test_every_pair_is_written_once(corpus: Corpus, tmp_path: Path, output_format: str) -> None:
    lines = exported(corpus, output_format, tmp_path / "out.jsonl")
    assert [line["id"] for line in lines] == [row["pair_id"] for row in read_pairs(corpus.root)]


@pytest.mark.parametrize("output_format", FORMATS)
def test_every_line_leads_to_its_waveforms(corpus: Corpus, tmp_path: Path, output_format: str) -> None:
    for line in exported(corpus, output_format, tmp_path / "out.jsonl"):
        assert len(line["ecg_paths"]) == len(line["ecg_ids"])
        assert all((corpus.root / "simulated" / f"{path}.hea").is_file() for path in line["ecg_paths"])
        assert "images" not in line


def test_chat_keeps_the_messages(corpus: Corpus, tmp_path: Path) -> None:
    lines = exported(corpus, "chat", tmp_path / "out.jsonl")
    assert [line["messages"] for line in lines] == [row["messages"] for row in read_pairs(corpus.root)]
    kept = ("split", "family", "question_type", "answers", "options", "template_id")
    for line, row in zip(lines, read_pairs(corpus.root), strict=True):
        assert {name: line[name] for name in kept} == {name: row[name] for name in kept}


def test_sharegpt_calls_the_speakers_human_and_gpt(corpus: Corpus, tmp_path: Path) -> None:
    names = {"user": "human", "assistant": "gpt"}
    lines = exported(corpus, "sharegpt", tmp_path / "out.jsonl")
    for line, row in zip(lines, read_pairs(corpus.root), strict=True):
        assert line["conversations"] == [
            {"from": names[message["role"]], "value": message["content"]} for message in row["messages"]
        ]


def test_alpaca_puts_the_last_answer_into_output_and_what_came_before_into_history(
    corpus: Corpus, tmp_path: Path
) -> None:
    lines = exported(corpus, "alpaca", tmp_path / "out.jsonl")
    for line, row in zip(lines, read_pairs(corpus.root), strict=True):
        told = [text for turn in line.get("history", []) for text in turn]
        assert [*told, line["instruction"], line["output"]] == [message["content"] for message in row["messages"]]
        assert line["input"] == ""
        assert ("history" in line) == (len(row["messages"]) > 2)
    assert any("history" in line for line in lines)


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_written_alone(corpus: Corpus, tmp_path: Path, split: str) -> None:
    lines = exported(corpus, "chat", tmp_path / "out.jsonl", split=split)
    assert {line["split"] for line in lines} == {split}
    assert len(lines) == corpus.split_rows[split]


def test_families_are_written_alone(corpus: Corpus, tmp_path: Path) -> None:
    lines = exported(corpus, "chat", tmp_path / "out.jsonl", families=["axis", "dialogue"])
    assert {line["family"] for line in lines} == {"axis", "dialogue"}
    assert len(lines) == sum(row["family"] in ("axis", "dialogue") for row in read_pairs(corpus.root))


def test_the_same_corpus_gives_the_same_bytes_over_an_older_file(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "second.jsonl").write_text("older")
    export(corpus, "chat", tmp_path / "first.jsonl")
    export(corpus, "chat", tmp_path / "second.jsonl")
    assert (tmp_path / "first.jsonl").read_bytes() == (tmp_path / "second.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.jsonl", "second.jsonl"]


def test_characters_outside_ascii_stay_as_they_are(corpus: Corpus, tmp_path: Path) -> None:
    export(corpus, "chat", tmp_path / "out.jsonl")
    text = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert "°" in text
    assert "\\u00b0" not in text


def test_progress_ends_with_all_pairs(corpus: Corpus, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    n = export(corpus, "chat", tmp_path / "out.jsonl", progress=lambda *step: told.append(step))
    assert told[-1] == ("writing pairs", n, n)


def test_a_failed_export_leaves_the_older_file_and_nothing_else(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("older")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ecglm.synth.export._line", full_disk)
    with pytest.raises(CorpusError, match=r"out\.jsonl: cannot be written: No space left on device"):
        export(corpus, "chat", out)
    assert out.read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_folder_that_is_not_there_is_named(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere/out\.jsonl: cannot be written.*choose another --out"):
        export(corpus, "chat", tmp_path / "nowhere" / "out.jsonl")
