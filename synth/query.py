"""`synth query`: one SELECT over a corpus on the locked connection, as a table, JSON, CSV or Parquet."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa

from ecglm.synth.corpus import Corpus, ParquetFile
from ecglm.synth.database import LockedConnection
from ecglm.synth.errors import CorpusError

FORMATS = ("table", "json", "csv", "parquet")
_TABLE_ROWS = 1000


def select(corpus: Corpus, sql: str, timeout_s: float = 300.0) -> pa.Table:
    """The answer of one SELECT over the tables of a corpus.

    Raises:
        QueryError: not one SELECT, refused, failed, or over the time limit.
    """
    with LockedConnection(corpus.tables(), timeout_s=timeout_s, threads=2) as connection:
        return connection.select(sql)


def query(root: Path, sql: str, output_format: str, out: Path | None, timeout_s: float) -> None:
    """Answers a SELECT to stdout, or to `out`, which appears whole or not at all."""
    answer = select(Corpus.open(root), sql, timeout_s)
    if out is None:
        _write_text(answer, output_format, sys.stdout)
        return
    temporary = out.with_name(out.name + ".part")
    try:
        if output_format == "parquet":
            with ParquetFile(temporary, answer.schema) as file:
                file.write(answer)
        else:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                _write_text(answer, output_format, stream)
        temporary.replace(out)
    except OSError as error:
        raise CorpusError(f"{out}: cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_text(answer: pa.Table, output_format: str, stream: object) -> None:
    from typing import TextIO, cast

    target = cast(TextIO, stream)
    if output_format == "json":
        json.dump(answer.to_pylist(), target, ensure_ascii=False, default=str)
        target.write("\n")
    elif output_format == "csv":
        import csv

        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(answer.column_names)
        for batch in answer.to_batches(max_chunksize=4096):
            columns = [batch.column(number).to_pylist() for number in range(batch.num_columns)]
            writer.writerows(zip(*(map(_csv_cell, column) for column in columns), strict=True))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(*answer.column_names)
        for row in answer.slice(0, _TABLE_ROWS).to_pylist():
            table.add_row(*(_csv_cell(value) for value in row.values()))
        Console(file=target, markup=False, highlight=False).print(table)
        if answer.num_rows > _TABLE_ROWS:
            target.write(f"… {answer.num_rows - _TABLE_ROWS} more rows; use --format csv or parquet for all\n")


def _csv_cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
