"""Reading a corpus as rows, and copies of one with a defect planted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ecglm.synth.corpus import MANIFEST, Corpus, ParquetFile, file_sha256, table_path, write_json
from ecglm.synth.identities import content_hash, pair_fingerprint

Rows = list[dict[str, Any]]


def copied(corpus: Path, target: Path) -> Path:
    """A copy whose files may be replaced (not written into: they are links)."""
    shutil.copytree(corpus, target, copy_function=os.link)
    return target


@cache
def read_pairs(corpus: Path) -> Rows:
    """All pairs, not to be changed; `_file` says where each one is."""
    rows: Rows = []
    for name in sorted(Corpus.open(corpus).manifest["files"]):
        if name.startswith("pairs/"):
            with pq.ParquetFile(corpus / name) as file:
                rows += [{**row, "_file": name} for row in file.read().to_pylist()]
    return rows


def with_changed_pairs(corpus: Path, target: Path, change: Callable[[Rows], object], *, rest: bool = True) -> Corpus:
    """A copy with pairs changed as if a build had made them so: manifest and content hashes fit.

    `change` may set columns, append rows and remove the last, but not change a list in place. Without the `rest`
    the manifest lists only the files that were changed, which is quicker to check.
    """
    copied(corpus, target)
    before = read_pairs(corpus)
    rows = [dict(row) for row in before]
    change(rows)
    changed = [row for row, old in zip(rows, before, strict=False) if any(row[name] is not old[name] for name in row)]
    for row in changed:
        if row["content_hash"] is not None and row["content_hash"] in _hashes(before):
            row["content_hash"] = _content(row)
    touched = {row["_file"] for row in (*changed, *rows[len(before) :], *before[len(rows) :])}
    entries = {}
    for name in touched:
        part = [{key: value for key, value in row.items() if key != "_file"} for row in rows if row["_file"] == name]
        entries[name] = _replace(target / name, part)
    listed = rows if rest else [row for row in rows if row["_file"] in touched]
    fingerprint = sum(pair_fingerprint(str(row["pair_id"]), _content(row)) for row in listed) % (1 << 128)
    dropped = set() if rest else {row["_file"] for row in rows} - touched
    return _with_manifest(target, entries, dropped, f"{fingerprint:032x}", {"pairs": len(listed)})


def _hashes(rows: Rows) -> set[str]:
    return {row["content_hash"] for row in rows}


def with_changed_table(corpus: Path, target: Path, table: str, change: Callable[[Rows], object]) -> Corpus:
    """A copy with rows of a table other than pairs changed, and a manifest that fits."""
    copied(corpus, target)
    path = table_path(target, table)
    rows = pq.read_table(path).to_pylist()
    change(rows)
    return _with_manifest(target, {path.name: _replace(path, rows)}, counts={table: len(rows)})


def _content(row: dict[str, Any]) -> str:
    return content_hash([message["content"] or "" for message in row["messages"]])


def _replace(path: Path, rows: Rows) -> dict[str, Any]:
    schema = pq.read_schema(path)
    path.unlink()
    with ParquetFile(path, schema) as file:
        file.write(pa.Table.from_pylist(rows, schema=schema))
    return {"bytes": path.stat().st_size, "rows": len(rows), "sha256": file_sha256(path)}


def _with_manifest(
    root: Path,
    entries: dict[str, dict[str, Any]],
    dropped: Collection[str] = (),
    content_fingerprint: str | None = None,
    counts: Mapping[str, int] | None = None,
) -> Corpus:
    manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"] = {name: entry for name, entry in (manifest["files"] | entries).items() if name not in dropped}
    manifest["counts"] |= counts or {}
    manifest["content_fingerprint"] = content_fingerprint or manifest["content_fingerprint"]
    (root / MANIFEST).unlink()
    write_json(root / MANIFEST, manifest)
    return Corpus.open(root)
