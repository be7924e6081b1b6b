"""Tables in the work folder: Arrow files, uncompressed, so that they can be memory-mapped."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import xxhash


def write_arrow(path: Path, table: pa.Table) -> str:
    """Writes a table whole or not at all; the `file_digest` of it."""
    return write_parts(path, table.schema, [table])


def write_parts(path: Path, schema: pa.Schema, parts: Iterable[pa.Table]) -> str:
    """Writes a table of which there is only a part at a time; as `write_arrow`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for part in parts:
            writer.write_table(part.combine_chunks())
    digest = file_digest(temporary)
    temporary.replace(path)
    return digest


def read_arrow(path: Path) -> pa.Table:
    """A memory-mapped table."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def is_as_written(path: Path, digest: str) -> bool:
    """Whether a file is there and has this `file_digest`."""
    try:
        return file_digest(path) == digest
    except OSError:
        return False


def file_digest(path: Path) -> str:
    """The xxh3-128 of a file's bytes."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return xxhash.xxh3_128_hexdigest(b"")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return xxhash.xxh3_128_hexdigest(content)
