"""The working tables of a build, cut into blocks of ECGs so that memory does not grow with the source."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ecglm.synth.build.arrow_files import is_as_written, read_arrow, write_arrow
from ecglm.synth.build.used import USED, used_values
from ecglm.synth.corpus import write_json
from ecglm.synth.ecgqa import derive_compared, derive_ecgqa
from ecglm.synth.errors import CorpusError
from ecglm.synth.facts import (
    ACROSS_BLOCKS,
    ECG_VIEWS,
    Derivation,
    derive_comparisons,
    merge_measurements,
)
from ecglm.synth.gate import gate_counts, gate_table
from ecglm.synth.guideline_tables import relation_tables
from ecglm.synth.guidelines import GuidelineSet, load_guidelines
from ecglm.synth.measure.ecgs import Waveforms, measure_ecgs, waveforms_digest
from ecglm.synth.schema import REJECTED

BLOCK_ECGS = 1850
"""At most: fewer take less memory, and more time, as some queries are planned again for each block."""
_COMPARED_AT_ONCE = 6
"""Blocks whose ECGs are compared with earlier ones in one query."""
ECGQA_LISTS = "ecgqa_ecgs.arrow"
"""In the work folder, where lists of ECG-QA were given."""
NOTE = "block.json"
"""In the folder of a block, when all else is there."""
MEASURED = "measured"
"""The provider that takes its values from the waveforms."""


@dataclass(frozen=True)
class BlockJob:
    """What a worker needs to prepare blocks; all of it small."""

    work: Path
    source: str
    waveforms: Waveforms
    guidelines: Path | None
    providers: tuple[str, ...]
    """In order of preference; values of all but `measured` are in providers/<name>.arrow."""
    taken_over: bool
    """Whether `measured` values are in providers/measured.arrow too, instead of only in the waveforms."""
    ecgqa: bool
    """Whether ECG-QA's questions are asked: else its views stay empty."""


def block_folder(work: Path, number: int) -> Path:
    """Where one block's tables are."""
    return work / "blocks" / f"{number:05d}"


def block_ranges(n_ecgs: int, size: int | None = None) -> list[tuple[int, int, int]]:
    """(number, first row, row behind the last) of every block, about equally large."""
    ends = np.linspace(0, n_ecgs, -(-n_ecgs // (size or BLOCK_ECGS)) + 1).round().astype(int).tolist()
    return [(number, start, stop) for number, (start, stop) in enumerate(pairwise(ends))]


def knowledge_path(work: Path, name: str) -> Path:
    """Where a view without rows per ECG is."""
    return work / "blocks" / "knowledge" / f"{name}.arrow"


def block_note(work: Path, number: int) -> dict[str, Any] | None:
    """What was noted of a finished block; None if it is not finished."""
    try:
        note: dict[str, Any] = json.loads((block_folder(work, number) / NOTE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return note


def block_is_whole(work: Path, number: int, *, taken_over: bool) -> bool:
    """Whether a block is finished and its files are as they were written.

    Args:
        work: the work folder.
        number: of the block.
        taken_over: as in `BlockJob`; a block that was made otherwise lists other rejections.
    """
    note = block_note(work, number)
    if note is None or note.get("taken_over") != taken_over:
        return False
    folder, digests = block_folder(work, number), note["digests"]
    return all(is_as_written(folder / f"{name}.arrow", digest) for name, digest in digests.items())


_UNASKED: list[pa.Table] = []
"""The empty view `ecgqa`, once it was made."""


@cache
def guidelines_of_worker(folder: Path | None) -> GuidelineSet:
    """The guidelines, read once by each process of a build."""
    return load_guidelines(folder, check_sql=False)


@cache
def _derivation(guidelines: Path | None) -> Derivation:
    return Derivation(guidelines_of_worker(guidelines))


def close_derivation() -> None:
    """Closes what `prepare_block` keeps open in a process from one block to the next."""
    for kept in (_derivation, guidelines_of_worker):
        kept.cache_clear()


def prepare_block(job: BlockJob, number: int, start: int, stop: int) -> dict[str, Any]:
    """Reads and measures the waveforms of a block, decides the criteria, and writes the views templates see."""
    folder = block_folder(job.work, number)
    ecgs = read_arrow(job.work / "ecgs.arrow").slice(start, stop - start)
    ecg_index = pa.array(range(start, stop), pa.int64())
    digest, rejected = "", REJECTED.empty_table()
    providers = {
        name: _rows_of(read_arrow(job.work / "providers" / f"{name}.arrow"), ecgs)
        for name in job.providers
        if name != MEASURED or job.taken_over
    }
    if MEASURED in job.providers:
        if not job.taken_over:
            measured = measure_ecgs(job.waveforms, ecgs)
            rejected, digest = measured.rejected, measured.digest
            providers = {name: measured.table if name == MEASURED else providers[name] for name in job.providers}
        usable = pc.is_in(ecgs["ecg_id"].combine_chunks(), value_set=providers[MEASURED]["ecg_id"].combine_chunks())
        ecgs, ecg_index = ecgs.filter(usable), ecg_index.filter(usable)
        providers = {name: _rows_of(table, ecgs) for name, table in providers.items()}
    labels = read_arrow(job.work / "labels.arrow")
    labels = labels.filter(pc.is_in(labels["ecg_id"], value_set=ecgs["ecg_id"].combine_chunks()))
    merged = merge_measurements(ecgs, list(providers.items()), ecg_index)
    used = used_values(ecgs, list(providers.items()))
    derivation = _derivation(job.guidelines)
    decided = derivation.decide(merged)
    views: dict[str, pa.Table] = {}
    digests: dict[str, str] = {}

    def write(name: str, table: pa.Table) -> None:
        digests[name] = write_arrow(folder / f"{name}.arrow", table)

    def keep(name: str, view: pa.Table) -> pa.Table:
        """Writes a view; the same, from the file, so that the memory can be used for the next."""
        write(name, view)
        views[name] = read_arrow(folder / f"{name}.arrow")
        return views[name]

    write("decided", decided.findings)
    pa.default_memory_pool().release_unused()  # or Arrow keeps it while DuckDB needs as much again
    derivation.views(merged, labels, decided, keep)
    keep("ecgqa", _ecgqa(job, views))
    write("ecgs", ecgs)
    write("source_labels", labels)
    for name, table in providers.items():
        write(f"provider_{name}", table.append_column(USED, used[name]))
    write("rejected", rejected)
    facts = views["facts"]
    note = {
        "taken_over": job.taken_over,
        "digests": digests,
        "signals": digest,
        "n_ecgs": ecgs.num_rows,
        "rows": {name: table.num_rows for name, table in views.items()},
        "gate": gate_counts(views["labels"], views["negatives"]),
        "known": {name: facts.num_rows - facts[name].null_count for name in facts.column_names},
    }
    write_json(folder / NOTE, note)
    pa.default_memory_pool().release_unused()
    return note


def _ecgqa(job: BlockJob, views: Mapping[str, pa.Table]) -> pa.Table:
    guidelines, listed = guidelines_of_worker(job.guidelines), job.work / ECGQA_LISTS
    lists = read_arrow(listed) if listed.is_file() else None
    if job.ecgqa:
        return derive_ecgqa(views, guidelines, lists)
    if not _UNASKED:
        _UNASKED.append(derive_ecgqa({name: view[:0] for name, view in views.items()}, guidelines, lists))
    return _UNASKED[0]


def _rows_of(table: pa.Table, ecgs: pa.Table) -> pa.Table:
    return table.filter(pc.is_in(table["ecg_id"], value_set=ecgs["ecg_id"].combine_chunks()))


class Blocks:
    """All finished blocks of a build."""

    def __init__(self, work: Path, n_ecgs: int) -> None:
        self.work = work
        self.root = work / "blocks"
        self.numbers = range(len(block_ranges(n_ecgs)))
        notes = [block_note(work, number) for number in self.numbers]
        self.notes: list[dict[str, Any]] = [note for note in notes if note is not None]
        if len(self.notes) < len(notes):
            raise CorpusError(f"{self.root}: blocks are missing; were they removed meanwhile? Build again")

    def parts(self, name: str) -> Iterator[pa.Table]:
        """One table, block by block."""
        for number in self.numbers:
            yield read_arrow(block_folder(self.work, number) / f"{name}.arrow")

    def rows(self) -> dict[str, int]:
        """Rows of each view that has rows per ECG, comparisons left out."""
        return {name: sum(note["rows"][name] for note in self.notes) for name in ECG_VIEWS if name not in ACROSS_BLOCKS}

    def known(self) -> dict[str, int]:
        """How many ECGs have a value in each column of facts."""
        columns: Sequence[str] = self.notes[0]["known"] if self.notes else ()
        return {name: sum(note["known"][name] for note in self.notes) for name in columns}

    def digests(self) -> dict[str, str]:
        """A hash of each view over all blocks, of those that have rows per ECG; views of two ECGs left out."""
        names = [name for name in ECG_VIEWS if name not in ACROSS_BLOCKS]
        return {name: _joined(note["digests"][name] for note in self.notes) for name in names}

    def gate(self) -> pa.Table:
        """The consistency gate of the source."""
        return gate_table(note["gate"] for note in self.notes)

    def write_knowledge(self, guidelines: GuidelineSet) -> dict[str, str]:
        """Writes `KNOWLEDGE_VIEWS`; a hash of each."""
        tables = {**relation_tables(guidelines), "gate": self.gate()}
        return {name: write_arrow(knowledge_path(self.work, name), table) for name, table in tables.items()}

    def signals_digest(self) -> str:
        """A hash of every waveform read."""
        return _joined(note["signals"] for note in self.notes)


@dataclass(frozen=True)
class Across:
    """A view of `ACROSS_BLOCKS`, as it was written."""

    digests: tuple[str, ...]
    """Of the rows of each block."""
    n_rows: int

    @property
    def digest(self) -> str:
        """A hash of all rows."""
        return _joined(self.digests)


def across_tasks(blocks: Blocks) -> list[tuple[Blocks, str, range]]:
    """Arguments of `write_across_blocks`, in the order of the blocks."""
    starts = range(0, len(blocks.numbers), _COMPARED_AT_ONCE)
    groups = [blocks.numbers[start : start + _COMPARED_AT_ONCE] for start in starts]
    return [*((blocks, "comparisons", group) for group in groups), (blocks, "ecgqa_compared", blocks.numbers)]


def write_across_blocks(blocks: Blocks, name: str, group: range) -> tuple[str, Across]:
    """Derives a view that looks at ECGs of several blocks, and leaves each block of a group its rows."""
    if name == "comparisons":
        view = derive_comparisons(_compared(list(blocks.parts("facts")), group))
    else:
        view = derive_compared(pa.concat_tables(blocks.parts("ecgqa")))
    digests = []
    n_rows = 0
    for number in group:
        folder = block_folder(blocks.work, number)
        rows = _rows_of(view, read_arrow(folder / "facts.arrow"))
        digests.append(write_arrow(folder / f"{name}.arrow", rows))
        n_rows += rows.num_rows
    return name, Across(tuple(digests), n_rows)


def joined_across(written: Sequence[tuple[str, Across]]) -> dict[str, Across]:
    """Each view over all blocks, from its parts in their order."""
    of = {name: [part for other, part in written if other == name] for name in ACROSS_BLOCKS}
    return {
        name: Across(tuple(digest for part in parts for digest in part.digests), sum(part.n_rows for part in parts))
        for name, parts in of.items()
    }


def _compared(blocks: Sequence[pa.Table], group: range) -> pa.Table:
    """The facts of every ECG of a group of blocks that has an earlier ECG of its patient, and of that, which may be
    in any block.

    Args:
        blocks: `facts` of every block; of each only rows that are compared are looked at.
        group: numbers of blocks.
    """
    ids = pa.concat_arrays([facts["ecg_id"].combine_chunks() for facts in blocks])
    pairs = pa.concat_tables(blocks[number].select(["ecg_id", "previous_ecg_id"]) for number in group)
    pairs = pairs.filter(pc.is_valid(pairs["previous_ecg_id"]))
    wanted = pa.chunked_array([*pairs["ecg_id"].chunks, *pairs["previous_ecg_id"].chunks], pa.string())
    rows = np.unique(pc.index_in(wanted, value_set=ids).drop_null().to_numpy())
    ends = np.cumsum([facts.num_rows for facts in blocks])
    of_block = np.searchsorted(ends, rows, side="right")
    chosen = [
        blocks[number].take(pa.array(rows[of_block == number] - (ends[number] - blocks[number].num_rows)))
        for number in np.unique(of_block).tolist()
    ]
    return pa.concat_tables(chosen or [blocks[0][:0]])


def _joined(hashes: Any) -> str:
    return xxhash.xxh3_128_hexdigest("".join(hashes).encode())


def blocks_digest(checksums: pa.Array) -> str:
    """What `Blocks.signals_digest` gives for waveforms with these checksums, in the order of the ECGs."""
    ranges = block_ranges(len(checksums))
    return _joined(waveforms_digest(checksums.slice(start, stop - start)) for _, start, stop in ranges)
