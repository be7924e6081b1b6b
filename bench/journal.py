"""The journal of a run: every answer, appended the moment it is there, so that a killed run loses none.

One line of JSON holds the answers of one group, in columns. A line that a kill cut short is dropped when the journal is
opened again; its questions are asked again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ecglm.bench.adapters import Given
from ecglm.bench.scoring import ANSWERS
from ecglm.synth.errors import RunError

NAME = "journal.jsonl"


class Journal:
    """Answers by key; a key is a hash of everything that could change the answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = read_journal(path, mend=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def has(self, key: str) -> bool:
        """Whether the question was answered; one that failed is asked again."""
        row = self.rows.get(key)
        return row is not None and row[0] == "answered"

    def add(self, keys: Sequence[str], answers: Sequence[Given], latency_s: float) -> None:
        """Answers to the questions with these keys, in the same order."""
        self._write(
            {
                "key": list(keys),
                "text": [answer.text for answer in answers],
                "n_chars": [answer.n_chars for answer in answers],
                "scores": [answer.scores for answer in answers],
                "latency_s": round(latency_s, 6),
                "status": "answered",
            }
        )

    def add_failure(self, key: str, status: str, detail: str, latency_s: float) -> None:
        """A question that got no answer."""
        self._write({"key": [key], "latency_s": round(latency_s, 6), "status": status, "detail": detail})

    def _write(self, line: dict[str, Any]) -> None:
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        while data:
            data = data[os.write(self._file, data) :]
        _take(self.rows, line)

    def close(self) -> None:
        """Makes sure all is on the disk."""
        os.fsync(self._file)
        os.close(self._file)


Row = tuple[str, str | None, int | None, list[float] | None, float, str | None]
"""status, text, n_chars, scores, latency_s, detail."""


def read_journal(path: Path, *, mend: bool = False) -> dict[str, Row]:
    """The answers of a journal by key; `mend` cuts off a last line that a kill left unfinished.

    Raises:
        RunError: a line that is damaged in another way, named by its number.
    """
    rows: dict[str, Row] = {}
    if not path.exists():
        return rows
    whole = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                _take(rows, json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(f"{path}, line {number}: damaged ({error}); remove the line to ask again") from error
            whole += len(line)
    if mend and whole < path.stat().st_size:
        os.truncate(path, whole)
    return rows


def _take(rows: dict[str, Row], line: dict[str, Any]) -> None:
    keys, status, latency = line["key"], line["status"], line["latency_s"]
    if status != "answered":
        for key in keys:
            if rows.get(key, ("",))[0] != "answered":
                rows[key] = (status, None, None, None, latency, line["detail"])
        return
    for key, text, n_chars, scores in zip(keys, line["text"], line["n_chars"], line["scores"], strict=True):
        rows[key] = ("answered", text, n_chars, scores, latency, None)


def answer_table(rows: Mapping[str, Row], keys: Mapping[str, str]) -> pl.DataFrame:
    """Schema ANSWERS; questions without a row are left out."""
    import pyarrow as pa

    found = [(question_id, rows[key]) for question_id, key in keys.items() if key in rows]
    columns: Iterable[tuple[Any, ...]] = zip(*(row for _, row in found), strict=True) if found else ((),) * 6
    status, text, n_chars, scores, latency, detail = columns
    table = pa.table(
        {
            "question_id": pa.array([question_id for question_id, _ in found], pa.string()),
            "status": pa.array(status, pa.string()),
            "text": pa.array(text, pa.string()),
            "n_chars": pa.array(n_chars, pa.int64()),
            "scores": pa.array(scores, pa.list_(pa.float64())),
            "latency_s": pa.array(latency, pa.float64()),
            "detail": pa.array(detail, pa.string()),
        }
    )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table never becomes a Series
    return frame.cast(pl.Schema(ANSWERS))
