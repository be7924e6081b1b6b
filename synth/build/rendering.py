"""Rendering templates, each into its own files, or taking over the files of an earlier corpus."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from ecglm.synth.build.arrow_files import read_arrow
from ecglm.synth.build.blocks import block_folder, knowledge_path
from ecglm.synth.build.progress import Progress
from ecglm.synth.build.workers import RunTasks
from ecglm.synth.corpus import ROWS_PER_FILE, Corpus, ParquetFile, file_sha256, pairs_path, write_json
from ecglm.synth.database import PLAN_FAST, LockedConnection
from ecglm.synth.facts import ECG_VIEWS, KNOWLEDGE_VIEWS, OVER_VIEWS
from ecglm.synth.findings_view import about
from ecglm.synth.render import EcgRegister, render_block
from ecglm.synth.schema import PAIRS, REJECTED, SCHEMA_VERSION
from ecglm.synth.templates import ENGINE_VERSION, SPECIAL_COLUMNS, Template

_AT_ONCE = 12
"""Blocks a template sees at once, if there are no more: each query is asked once."""
_GROUP_BLOCKS = 6
"""Blocks a template sees at once otherwise: more make fewer queries, fewer take less memory."""
_VIEWS_OPEN = 36
"""Views of some blocks that stay open: all of four groups. The hundreds of columns of each take memory themselves."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED = re.compile(r'"([^"]+)"')
_NAME_AS_TEXT = {"query", "query_table"}
"""Functions of DuckDB whose argument, a text, names what is read."""
_TEXTS = r"\s*'[^']*'(?:\s*,\s*'[^']*')*\s*"
_FINDINGS_OF = re.compile(rf"\bfindings_of\b(?:\s*\(\s*\[({_TEXTS})\]\s*\))?", re.IGNORECASE)


@dataclass(frozen=True)
class RenderJob:
    """One template to render over all blocks."""

    work: Path
    source: str
    template: Template
    n_blocks: int
    key: str


def render_all(
    run: RunTasks,
    work: Path,
    out: Path,
    previous: Corpus | None,
    source: str,
    templates: list[Template],
    n_blocks: int,
    digests: dict[str, str],
    tell: Progress,
    beside: Sequence[tuple[Any, ...]],
) -> tuple[dict[str, dict[str, Any]], int]:
    """What was noted of each template, and how many were taken over.

    Args:
        beside: other work to share out meanwhile, each a function and its arguments.
    """
    done: dict[str, dict[str, Any]] = {}
    jobs: list[RenderJob] = []
    reused = 0
    earlier = {entry["template_id"]: entry for entry in previous.manifest["templates"]} if previous else {}
    for template in templates:
        key = _render_key(template, digests, source)
        finished = _template_done(work, template.id)
        if finished is not None and finished["key"] == key:
            done[template.id] = finished
        elif earlier.get(template.id, {}).get("key") == key:
            done[template.id] = _reuse(work, out, earlier[template.id])
            reused += 1
        else:
            jobs.append(RenderJob(work, source, template, n_blocks, key))
    jobs.sort(key=lambda job: -len(job.template.header.sql))  # what takes long first, so that workers end together
    total, first = len(templates), len(templates) - len(jobs)
    tasks = [*beside, *((render_template, job) for job in jobs)]
    results = run(_call, tasks, lambda n: tell("rendering templates", first + max(n - len(beside), 0), total))
    for job, note in zip(jobs, results[len(beside) :], strict=True):
        done[job.template.id] = note
    return done, reused


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _render_key(template: Template, digests: dict[str, str], source: str) -> str:
    """A hash of everything a template's files depend on: itself, and the views its SQL names."""
    names = _views_named(template)
    used = [f"{name}={digests[name]}" for name in (*ECG_VIEWS, *KNOWLEDGE_VIEWS) if name in names]
    parts = (template.hash, ENGINE_VERSION, SCHEMA_VERSION, source, digests["register"], *used)
    return xxhash.xxh3_128_hexdigest("\x1f".join(parts).encode())


def _views_named(template: Template) -> set[str]:
    """Views that a template's SQL reads, and some words that are none."""
    words = _words(template.header.sql)
    if words & _NAME_AS_TEXT:
        return words | {*ECG_VIEWS, *KNOWLEDGE_VIEWS}
    return words | _words_behind(words)


def _columns_named(template: Template) -> set[str] | None:
    """Columns that a template may read, and some words that are none; None where they cannot be told."""
    words = _words(template.text)
    if words & {"columns", *_NAME_AS_TEXT}:  # COLUMNS('…') names columns by a pattern
        return None
    return words.union(SPECIAL_COLUMNS, _words_behind(words))


def _words_behind(words: set[str]) -> set[str]:
    """What is read where these words name one of `OVER_VIEWS`."""
    return set().union(*(_words(sql) for name, sql in OVER_VIEWS.items() if name in words))


def _statements_named(template: Template) -> frozenset[str] | None:
    """The statements whose findings a template reads; None where it may read all."""
    sql = template.header.sql
    lists = [match[1] for match in _FINDINGS_OF.finditer(sql)]
    if _words(sql) & {"findings", *_NAME_AS_TEXT} or None in lists:
        return None
    return frozenset(code for listed in lists for code in re.findall("'([^']*)'", listed))


def _words(text: str) -> set[str]:
    return {word.lower() for word in (*_WORD.findall(text), *_QUOTED.findall(text))}


def _template_done(work: Path, template_id: str) -> dict[str, Any] | None:
    path = work / "done" / f"{template_id}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _reuse(work: Path, out: Path, entry: dict[str, Any]) -> dict[str, Any]:
    for name in entry["files"]:
        target = work / "stage" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(out / name, target)
        except OSError:
            shutil.copyfile(out / name, target)
    return entry | {"reused": True}


class _Views:
    """What templates select from, in one connection: the views of some blocks at a time, memory-mapped."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._mapped: dict[tuple[int, str], mmap.mmap] = {}
        self._view = lru_cache(_VIEWS_OPEN)(self._opened)
        knowledge = {name: read_arrow(knowledge_path(work, name)) for name in KNOWLEDGE_VIEWS}
        empty = {name: read_arrow(block_folder(work, 0) / f"{name}.arrow")[:0] for name in ECG_VIEWS}
        self._connection = LockedConnection(
            {**empty, **knowledge}, setup=[PLAN_FAST, *OVER_VIEWS.values()], memory_limit="512MB"
        )

    def of(self, blocks: range, template: Template) -> LockedConnection:
        """The connection, in which the views that a template reads are those of some blocks.

        They have only the columns that it names: planning a query over hundreds takes longer than running it.
        """
        names, columns = _views_named(template), _columns_named(template)
        for name in ECG_VIEWS:
            if name in names:
                view = self._view(blocks, name)
                view = view.select([c for c in view.column_names if columns is None or c.lower() in columns])
                if name == "findings" and (codes := _statements_named(template)) is not None:
                    view = about(view, codes)
                self._connection.register(name, view)
        return self._connection

    def _opened(self, blocks: range, name: str) -> pa.Table:
        files = (pa.BufferReader(self._map(block, name)) for block in blocks)
        return pa.concat_tables(pa.ipc.open_file(file).read_all() for file in files)

    def _map(self, block: int, name: str) -> mmap.mmap:
        if (block, name) not in self._mapped:
            with (block_folder(self._work, block) / f"{name}.arrow").open("rb") as file:
                self._mapped[block, name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._mapped[block, name]

    def leave(self, blocks: range) -> None:
        """Gives back the memory of what was read; it comes from the files again when it is read again."""
        for (block, _), mapped in self._mapped.items():
            if block in blocks:
                mapped.madvise(mmap.MADV_DONTNEED)


@cache
def _views(work: Path) -> _Views:
    """Kept open for the next template this process renders."""
    return _Views(work)


def close_views() -> None:
    """Closes what `render_template` keeps open in a process from one template to the next."""
    for kept in (_views, _register):
        kept.cache_clear()


@cache
def _register(work: Path) -> EcgRegister:
    return EcgRegister.of(read_arrow(work / "register.arrow"))


def render_template(job: RenderJob) -> dict[str, Any]:
    """Renders one template over all blocks into its own Parquet files; what was made, noted when all is written."""
    template, work = job.template, job.work
    register = _register(work)
    is_knowledge = template.header.family == "knowledge"
    blocks = range(1 if is_knowledge else job.n_blocks)
    at_once = _AT_ONCE if len(blocks) <= _AT_ONCE else _GROUP_BLOCKS
    groups = [blocks[start : start + at_once] for start in range(0, len(blocks), at_once)]
    (work / "rejected").mkdir(exist_ok=True)
    rejected_path = work / "rejected" / f"{template.id}.parquet"
    views = _views(work)
    counts = {"n_rows": 0, "n_pairs": 0, "n_rejected": 0, "n_capped": 0}
    fingerprint = 0
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(_PairWriter(work / "stage", template.id))
        rejected = stack.enter_context(ParquetFile(rejected_path, REJECTED))
        for group in groups:
            for part in render_block(template, views.of(group, template), register, job.source):
                writer.write(part.pairs)
                rejected.write(part.rejected)
                counts["n_pairs"] += part.pairs.num_rows
                counts["n_rejected"] += part.rejected.num_rows
                counts["n_capped"] += part.n_capped
                fingerprint += part.fingerprint
            views.leave(group)
    counts["n_rows"] = counts["n_pairs"] + counts["n_rejected"] + counts["n_capped"]
    note = {
        "template_id": template.id,
        "template_hash": template.hash,
        "key": job.key,
        **counts,
        "fingerprint": f"{fingerprint % (1 << 128):032x}",
        "files": {
            str(path.relative_to(work / "stage")): {
                "bytes": path.stat().st_size,
                "rows": rows,
                "sha256": file_sha256(path),
            }
            for path, rows in writer.files
        },
    }
    (work / "done").mkdir(exist_ok=True)
    write_json(work / "done" / f"{template.id}.json", note)
    pa.default_memory_pool().release_unused()  # or Arrow keeps what the largest template took
    return note


class _PairWriter:
    """Pairs of one template, by split, rolled at a fixed number of rows."""

    def __init__(self, stage: Path, template_id: str) -> None:
        self._stage, self._template_id = stage, template_id
        self._open: dict[str, ParquetFile] = {}
        self._count: dict[str, int] = {}
        self.files: list[tuple[Path, int]] = []

    def __enter__(self) -> _PairWriter:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        for file in self._open.values():
            file.__exit__(kind, *rest)
            self.files.append((file.path, file.rows))
        self.files.sort()

    def write(self, pairs: pa.Table) -> None:
        """Adds pairs of one split."""
        split = pairs["split"][0].as_py() if pairs.num_rows else ""
        while pairs.num_rows:
            file = self._file(split)
            taken = pairs.slice(0, ROWS_PER_FILE - file.rows)
            file.write(taken)
            pairs = pairs.slice(taken.num_rows)
            if file.rows == ROWS_PER_FILE:
                file.close()
                self.files.append((file.path, file.rows))
                del self._open[split]

    def _file(self, split: str) -> ParquetFile:
        if split not in self._open:
            number = self._count.get(split, 0)
            self._count[split] = number + 1
            self._open[split] = ParquetFile(pairs_path(self._stage, split, self._template_id, number), PAIRS)
        return self._open[split]
