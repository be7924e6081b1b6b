"""The working tables of a build, cut into blocks of ECGs so that memory does not grow with the source."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ecglm.synth.corpus import write_json
from ecglm.synth.facts import ECG_VIEWS, derive_comparisons, derive_views, merge_measurements
from ecglm.synth.guidelines import GuidelineSet, load_guidelines
from ecglm.synth.schema import REJECTED

BLOCK_ECGS = 4096
_SIGNAL_CHUNK = 512
_REJECTING = "signal"


def write_arrow(path: Path, table: pa.Table) -> str:
    """Writes a table uncompressed, to be memory-mapped; a hash of its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    digest = xxhash.xxh3_128()
    with temporary.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    temporary.replace(path)
    return digest.hexdigest()


def read_arrow(path: Path) -> pa.Table:
    """A memory-mapped table."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


@dataclass(frozen=True)
class BlockJob:
    """What a worker needs to prepare blocks; all of it small."""

    work: Path
    source: str
    signal_root: Path
    guidelines: Path | None
    providers: tuple[str, ...]
    measured: bool
    """Whether `measured` values are taken from providers/measured.arrow instead of from the waveforms."""


def block_folder(work: Path, number: int) -> Path:
    """Where one block's tables are."""
    return work / "blocks" / f"{number:05d}"


def block_ranges(n_ecgs: int) -> list[tuple[int, int, int]]:
    """(number, first row, row behind the last) of every block."""
    return [
        (number, start, min(start + BLOCK_ECGS, n_ecgs)) for number, start in enumerate(range(0, n_ecgs, BLOCK_ECGS))
    ]


def block_done(work: Path, number: int) -> dict[str, Any] | None:
    """What was noted of a finished block; None if it is not finished."""
    path = block_folder(work, number) / "block.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


@cache
def guidelines_of_worker(folder: Path | None) -> GuidelineSet:
    """The guidelines, read once by each process of a build."""
    return load_guidelines(folder, check_sql=False)


def prepare_block(job: BlockJob, number: int, start: int, stop: int) -> dict[str, Any]:
    """Reads and measures the waveforms of a block, decides the criteria, and writes the views templates see."""
    folder = block_folder(job.work, number)
    ecgs = read_arrow(job.work / "ecgs.arrow").slice(start, stop - start)
    ecg_index = pa.array(range(start, stop), pa.int64())
    providers = {name: _rows_of(read_arrow(job.work / "providers" / f"{name}.arrow"), ecgs) for name in job.providers}
    digest, rejected = "", REJECTED.empty_table()
    if not job.measured:
        measured, rejected, usable, digest = measure_ecgs(job.signal_root, ecgs)
        ecgs, ecg_index = ecgs.filter(usable), ecg_index.filter(usable)
        providers["measured"] = measured
    else:
        usable = pc.is_in(ecgs["ecg_id"].combine_chunks(), value_set=providers["measured"]["ecg_id"].combine_chunks())
        ecgs, ecg_index = ecgs.filter(usable), ecg_index.filter(usable)
    labels = read_arrow(job.work / "labels.arrow")
    labels = labels.filter(pc.is_in(labels["ecg_id"], value_set=ecgs["ecg_id"].combine_chunks()))
    merged = merge_measurements(ecgs, list(providers.items()), ecg_index)
    views = derive_views(merged, labels, guidelines_of_worker(job.guidelines))
    digests = {name: write_arrow(folder / f"{name}.arrow", table) for name, table in views.items()}
    write_arrow(folder / "ecgs.arrow", ecgs)
    write_arrow(folder / "source_labels.arrow", labels)
    for name, table in providers.items():
        write_arrow(folder / f"provider_{name}.arrow", table)
    write_arrow(folder / "rejected.arrow", rejected)
    facts = views["facts"]
    note = {
        "digests": digests,
        "signals": digest,
        "n_ecgs": ecgs.num_rows,
        "rows": {name: table.num_rows for name, table in views.items()},
        "known": {name: facts.num_rows - facts[name].null_count for name in facts.column_names},
    }
    write_json(folder / "block.json", note)
    return note


def _rows_of(table: pa.Table, ecgs: pa.Table) -> pa.Table:
    return table.filter(pc.is_in(table["ecg_id"], value_set=ecgs["ecg_id"].combine_chunks()))


def measure_ecgs(signal_root: Path, ecgs: pa.Table) -> tuple[pa.Table, pa.Table, pa.Array, str]:
    """Waveforms to measurements.

    Returns:
        The `measured` table (ecg_id and columns, NULL where not measured), `rejected` rows, which ECGs have a
        usable waveform, and a hash of all waveforms read.
    """
    from ecglm.synth.measure import MEASURED_COLUMNS, measure_block
    from ecglm.synth.signals import read_block

    ids = ecgs["ecg_id"].to_pylist()
    values = {name: np.full(len(ids), np.nan, dtype=np.float64) for name in MEASURED_COLUMNS}
    usable = np.zeros(len(ids), dtype=bool)
    rejected: list[dict[str, Any]] = []
    digest = xxhash.xxh3_128()
    for start in range(0, len(ids), _SIGNAL_CHUNK):
        part = ecgs.slice(start, _SIGNAL_CHUNK).to_pylist()
        records, problems = read_block(
            signal_root,
            [row["signal_path"] for row in part],
            leads=part[0]["leads"],
            sampling_hz=part[0]["sampling_hz"],
            n_samples=part[0]["n_samples"],
        )
        for row, reason, detail in problems:
            rejected.append(_rejection(ids[start + row], reason, detail))
        good = [(row, record) for row, record in enumerate(records) if record is not None]
        if not good:
            continue
        for _, record in good:
            digest.update(record.digest.encode())
        signal = np.stack([record.millivolts() for _, record in good])
        measured, problems = measure_block(signal, part[0]["leads"], part[0]["sampling_hz"])
        places = np.array([row for row, _ in good]) + start
        usable[places] = True
        for name, column in measured.items():
            values[name][places] = np.round(column.astype(np.float64), 4)
        for row, reason, detail in problems:
            rejected.append(_rejection(ids[places[row]], reason, detail))
    mask = pa.array(usable)
    table = pa.table(
        {
            "ecg_id": ecgs["ecg_id"],
            **{name: pa.array(column, mask=np.isnan(column)) for name, column in values.items()},
        }
    ).filter(mask)
    return table, pa.Table.from_pylist(rejected, schema=REJECTED), mask, digest.hexdigest()


def _rejection(ecg_id: str, reason: str, detail: str) -> dict[str, Any]:
    return {
        "stage": _REJECTING,
        "ecg_ids": [ecg_id],
        "template_id": None,
        "slots": None,
        "reason": reason,
        "detail": detail,
    }


class Blocks:
    """All finished blocks of a build."""

    def __init__(self, work: Path, n_blocks: int) -> None:
        self.work = work
        self.numbers = range(n_blocks)
        notes = [block_done(work, number) for number in self.numbers]
        self.notes: list[dict[str, Any]] = [note for note in notes if note is not None]

    def parts(self, name: str) -> Iterator[pa.Table]:
        """One table, block by block."""
        for number in self.numbers:
            yield read_arrow(block_folder(self.work, number) / f"{name}.arrow")

    def rows(self) -> dict[str, int]:
        """Rows of each view that has rows per ECG, comparisons left out."""
        return {name: sum(note["rows"][name] for note in self.notes) for name in ECG_VIEWS if name != "comparisons"}

    def known(self) -> dict[str, int]:
        """How many ECGs have a value in each column of facts."""
        columns: Sequence[str] = self.notes[0]["known"] if self.notes else ()
        return {name: sum(note["known"][name] for note in self.notes) for name in columns}

    def digests(self) -> dict[str, str]:
        """A hash of each view over all blocks."""
        names: Mapping[str, str] = self.notes[0]["digests"] if self.notes else {}
        return {name: _joined(note["digests"][name] for note in self.notes) for name in names}

    def signals_digest(self) -> str:
        """A hash of every waveform read."""
        return _joined(note["signals"] for note in self.notes)

    def write_comparisons(self) -> tuple[str, int]:
        """Compares consecutive ECGs of a patient across blocks; hash and rows of the view, left in the first block."""
        linked: set[str] = set()
        for facts in self.parts("facts"):
            later = facts.filter(pc.is_valid(facts["previous_ecg_id"]))
            linked.update(later["ecg_id"].to_pylist(), later["previous_ecg_id"].to_pylist())
        wanted = pa.array(sorted(linked), pa.string())
        chosen = [facts.filter(pc.is_in(facts["ecg_id"], value_set=wanted)) for facts in self.parts("facts")]
        comparisons = derive_comparisons(pa.concat_tables(chosen))
        digest = ""
        for number in self.numbers:
            ids = read_arrow(block_folder(self.work, number) / "ecgs.arrow")["ecg_id"].combine_chunks()
            part = comparisons.filter(pc.is_in(comparisons["ecg_id"], value_set=ids))
            digest = _joined([digest, write_arrow(block_folder(self.work, number) / "comparisons.arrow", part)])
        return digest, comparisons.num_rows


def _joined(hashes: Any) -> str:
    return xxhash.xxh3_128_hexdigest("".join(hashes).encode())
