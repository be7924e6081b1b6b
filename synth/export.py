"""`synth export`: the pairs as JSON Lines, in the three shapes that training frameworks read."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecglm.synth.corpus import Corpus
from ecglm.synth.errors import CorpusError

FORMATS = ("chat", "sharegpt", "alpaca")

_BATCH_ROWS = 8192
_COLUMNS = (
    "pair_id",
    "ecg_ids",
    "split",
    "family",
    "question_type",
    "messages",
    "answers",
    "options",
    "template_id",
)
_SHAREGPT_ROLES = {"user": "human", "assistant": "gpt", "system": "system"}

Messages = list[dict[str, str]]


def export(
    corpus: Corpus,
    output_format: str,
    out: Path,
    split: str | None = None,
    families: Collection[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> int:
    """Writes pairs to a JSON Lines file, which appears whole or not at all; the number of lines.

    Every line names the pair, its ECGs (`ecg_ids`) and the waveforms they come from (`ecg_paths`, relative to the
    folder of the source, without extension).

    Args:
        corpus: a finished corpus.
        output_format: one of `FORMATS`.
        out: the file; one that is there is replaced.
        split: only this split.
        families: only these template families.
        progress: called with the stage, pairs done and pairs in all.

    Raises:
        CorpusError: the file cannot be written.
    """
    shape = _SHAPES[output_format]
    paths = _signal_paths(corpus)
    temporary = out.with_name(out.name + ".part")
    lines = 0
    total = sum(rows for name, rows in corpus.split_rows.items() if split in (None, name))
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as stream:
            for rows in _rows(corpus, split, families):
                encoded = [_ENCODE(_line(row, shape, paths)) for row in rows]
                lines += len(encoded)
                if encoded:
                    stream.write("\n".join(encoded) + "\n")
                if progress is not None:
                    progress("writing pairs", lines, total)
        temporary.replace(out)
    except OSError as error:
        raise CorpusError(f"{out}: cannot be written: {error.strerror or error}; choose another --out") from error
    finally:
        temporary.unlink(missing_ok=True)
    return lines


_ENCODE = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode


def _line(row: dict[str, Any], shape: Callable[[Messages], dict[str, Any]], paths: dict[str, str]) -> dict[str, Any]:
    ecg_ids = row["ecg_ids"]
    return {
        **shape(row["messages"]),
        "id": row["pair_id"],
        "ecg_ids": ecg_ids,
        "ecg_paths": [paths[ecg_id] for ecg_id in ecg_ids],
        "split": row["split"],
        "family": row["family"],
        "question_type": row["question_type"],
        "answers": row["answers"],
        "options": row["options"],
        "template_id": row["template_id"],
    }


def _chat(messages: Messages) -> dict[str, Any]:
    return {"messages": messages}


def _sharegpt(messages: Messages) -> dict[str, Any]:
    return {
        "conversations": [
            {"from": _SHAREGPT_ROLES[message["role"]], "value": message["content"]} for message in messages
        ]
    }


def _alpaca(messages: Messages) -> dict[str, Any]:
    """The last question and its answer; what was said before goes into `history`."""
    texts = [message["content"] for message in messages]
    line: dict[str, Any] = {"instruction": texts[-2], "input": "", "output": texts[-1]}
    if len(texts) > 2:
        line["history"] = [list(turn) for turn in zip(texts[:-2:2], texts[1:-2:2], strict=True)]
    return line


_SHAPES: dict[str, Callable[[Messages], dict[str, Any]]] = {"chat": _chat, "sharegpt": _sharegpt, "alpaca": _alpaca}


def _signal_paths(corpus: Corpus) -> dict[str, str]:
    ecgs = corpus.table("ecgs").to_table(columns=["ecg_id", "signal_path"])
    return dict(zip(ecgs["ecg_id"].to_pylist(), ecgs["signal_path"].to_pylist(), strict=True))


def _rows(corpus: Corpus, split: str | None, families: Collection[str] | None) -> Iterator[list[dict[str, Any]]]:
    """Pairs in file order, a batch at a time; only files of the split are opened."""
    for name in sorted(corpus.manifest["files"]):
        if not name.startswith("pairs/") or (split is not None and not name.startswith(f"pairs/split={split}/")):
            continue
        with pq.ParquetFile(corpus.root / name) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(_COLUMNS)):
                chosen = batch
                if families is not None:
                    wanted = pc.is_in(batch.column("family"), value_set=pa.array(sorted(families), pa.string()))
                    chosen = batch.filter(wanted)
                yield chosen.to_pylist()
