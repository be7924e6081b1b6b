"""The corpus folder: where its files are, how they are written, and how it is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ecglm.synth.errors import CorpusError
from ecglm.synth.schema import OPTIONAL_TABLES, PAIRS, SCHEMA_VERSION, SPLITS

if TYPE_CHECKING:
    import pyarrow.dataset as ds

MANIFEST = "manifest.json"
BUILD_LOG = "build.log.json"
CARD = "README.md"
TABLES = ("ecgs", "labels", "measurements", "findings", "pairs", "rejected", "templates", "guidelines", "gate")
"""The views `synth query` offers in every corpus; all but pairs are one Parquet file each."""

ROW_GROUP_ROWS = 16_384
ROWS_PER_FILE = 524_288
_MANIFEST_KEYS = ("attribution", "config", "content_fingerprint", "counts", "rejected_reasons", "skipped", "templates")
_HASHES = ("pair_id", "content_hash")
_SELDOM_REPEATED = (*_HASHES, "ecg_ids.list.element", "patient_ids.list.element", "evidence.list.element.value")
"""Columns whose values a dictionary would hold nearly all: larger files, and more time."""
_CHOSEN_BY = ("ecg_id", "split", "family", "question_type", "template_id", "template_hash", "language", "source")
"""Columns whose least and greatest value are kept, so that a query can leave out row groups; in others it never can."""
_UNCOMPRESSED = _CHOSEN_BY[1:]
"""A dictionary makes them so small that starting the compression takes longer than all else."""


def table_path(root: Path, table: str) -> Path:
    """The Parquet file of a table other than pairs."""
    return root / f"{table}.parquet"


def pairs_path(root: Path, split: str, template_id: str, number: int) -> Path:
    """One Parquet file of pairs."""
    return root / "pairs" / f"split={split}" / f"{template_id}-{number:03d}.parquet"


class ParquetFile:
    """The only writer of Parquet: zstd, dictionaries, row groups of `ROW_GROUP_ROWS`; one file, or removed on error."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.rows = path, 0
        self._schema = schema
        self._buffer: list[pa.Table] = []
        self._buffered = 0
        leaves = _leaf_names(schema)
        compressed = [name for name in leaves if name not in _UNCOMPRESSED]
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression=dict.fromkeys(compressed, "zstd"),
            compression_level=dict.fromkeys(compressed, 1),  # smaller files than level 3, and a fifth less time
            use_dictionary=[name for name in leaves if name not in _SELDOM_REPEATED],
            column_encoding=dict.fromkeys((name for name in leaves if name in _HASHES), "DELTA_LENGTH_BYTE_ARRAY"),
            write_statistics=[name for name in schema.names if name in _CHOSEN_BY],
        )

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()
            self.path.unlink(missing_ok=True)

    def write(self, table: pa.Table) -> None:
        """Adds rows; they reach the disk in full row groups."""
        table = table.cast(self._schema) if table.schema != self._schema else table
        self._buffer.append(table.combine_chunks())  # a page may end with a table, but nowhere by chance
        self._buffered += table.num_rows
        self.rows += table.num_rows
        while self._buffered >= ROW_GROUP_ROWS:
            whole = pa.concat_tables(self._buffer)
            self._writer.write_table(whole.slice(0, ROW_GROUP_ROWS), row_group_size=ROW_GROUP_ROWS)
            self._buffer = [whole.slice(ROW_GROUP_ROWS)]
            self._buffered -= ROW_GROUP_ROWS

    def close(self) -> None:
        """Writes what is left and ends the file."""
        if self._buffered or not self.rows:
            rest = pa.concat_tables(self._buffer) if self._buffer else self._schema.empty_table()
            self._writer.write_table(rest, row_group_size=ROW_GROUP_ROWS)
        self._buffer, self._buffered = [], 0
        self._writer.close()


@cache
def _leaf_names(schema: pa.Schema) -> list[str]:
    empty = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), empty)
    parquet = pq.ParquetFile(pa.BufferReader(empty.getvalue())).schema
    return [parquet.column(number).path for number in range(len(parquet))]


def write_table(root: Path, table: str, parts: Iterable[pa.Table], schema: pa.Schema) -> int:
    """Writes a table other than pairs; the number of its rows."""
    with ParquetFile(table_path(root, table), schema) as file:
        for part in parts:
            file.write(part)
    return file.rows


def read_parquet(path: Path, columns: Sequence[str] | None = None, *, repeated: Sequence[str] = ()) -> pa.Table:
    """One Parquet file, without Arrow's datasets, whose import takes a third of a second where there is pandas.

    Args:
        path: the file.
        columns: those that are read; None for all.
        repeated: texts that are often the same, and become dictionaries.
    """
    with pq.ParquetFile(path, read_dictionary=list(repeated)) as file:
        return file.read(columns=columns)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Corpus:
    """A finished corpus folder."""

    root: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, root: Path) -> Corpus:
        """Opens a corpus.

        Raises:
            CorpusError: not a corpus, unfinished, of another schema version, or files are missing; says what to do.
        """
        path = root / MANIFEST
        if not path.is_file():
            raise CorpusError(
                f"{root}: no {MANIFEST} here, so this is no finished corpus; make one with `synth build --out {root}`"
            )
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            version = manifest["schema_version"]
            sizes = {str(name): int(entry["bytes"]) for name, entry in dict(manifest["files"]).items()}
            for key in _MANIFEST_KEYS:
                manifest[key]
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path}: not a corpus manifest ({error}); build the corpus again") from error
        if version != SCHEMA_VERSION:
            raise CorpusError(
                f"{path}: schema version {version}, but this ecglm reads {SCHEMA_VERSION}; build the corpus again"
            )
        missing = [name for name, size in sizes.items() if not _has_size(root / name, size)]
        if missing:
            raise CorpusError(
                f"{root}: {len(missing)} files are missing or cut short, e.g. {missing[0]}; build the corpus again"
            )
        return cls(root, manifest)

    def table(self, name: str) -> ds.Dataset:
        """A table of the corpus as a dataset."""
        import pyarrow.dataset as ds

        if name != "pairs":
            return ds.dataset(table_path(self.root, name), format="parquet")
        files = sorted(str(self.root / file) for file in self.manifest["files"] if file.startswith("pairs/"))
        if not files:
            return ds.InMemoryDataset(PAIRS.empty_table())
        return ds.dataset(files, format="parquet", schema=PAIRS)

    def tables(self) -> dict[str, ds.Dataset]:
        """All tables by name."""
        return {name: self.table(name) for name in (*TABLES, *self.optional_tables)}

    @property
    def optional_tables(self) -> tuple[str, ...]:
        """Those of schema.OPTIONAL_TABLES that this corpus has."""
        return tuple(name for name in OPTIONAL_TABLES if table_path(Path(), name).name in self.manifest["files"])

    @cached_property
    def split_rows(self) -> dict[str, int]:
        """Number of pairs of each split."""
        rows = dict.fromkeys(SPLITS, 0)
        for name, entry in self.manifest["files"].items():
            if name.startswith("pairs/"):
                rows[name.split("/")[1].removeprefix("split=")] += entry["rows"]
        return rows


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
