"""`synth measure`: from a source to a folder of measurements under PTB-XL+'s names, whole or not at all."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from pydantic import Field

from ecglm.synth.build.arrow_files import read_arrow, write_arrow
from ecglm.synth.build.blocks import block_ranges, blocks_digest
from ecglm.synth.build.config import SourceConfig
from ecglm.synth.build.inputs import ecgs_table, ids_digest, none_usable, open_source, source_stamp, versions
from ecglm.synth.build.progress import Progress
from ecglm.synth.build.staging import Kind, finish_swap, locked, prepare_work, swap, told_plainly, work_folder
from ecglm.synth.build.storing import waveforms_of
from ecglm.synth.build.workers import nothing_open, workers
from ecglm.synth.corpus import ParquetFile, file_sha256, write_json
from ecglm.synth.errors import DefinitionError, SourceError
from ecglm.synth.measure import MEASURED_COLUMNS, MEASURED_VERSION
from ecglm.synth.measure import table as layout
from ecglm.synth.measure.ecgs import Waveforms, measure_ecgs
from ecglm.synth.schema import REJECTED
from ecglm.synth.sources import Source, signal_stamp

MEASUREMENTS = Kind("measurements", layout.MANIFEST, "measure")
PART_ECGS = 1024
"""ECGs measured by one task: what a killed run loses."""


class MeasureConfig(SourceConfig):
    """Which ECGs are measured, and where the measurements go."""

    out: Path = Field(default=Path("measured"))


@dataclass(frozen=True)
class MeasureResult:
    """What was measured."""

    out: Path
    source: str
    ecgs: int
    """ECGs of the source that have waveform files."""
    measured: int
    """Those whose waveform could be used."""
    columns: int
    values: int
    """Values that were measured; the rest of `measured` times `columns` is missing."""
    rejected_reasons: dict[str, int]
    """Reason → number of rows in rejected.parquet: ECGs or values left out, and what was passed over."""
    measured_version: str
    seconds: float


def measure(config: MeasureConfig, progress: Progress | None = None) -> MeasureResult:
    """Measures every ECG of a source.

    Raises:
        ECGLMError: bad input or a full disk; the folder `out` is as it was before.
    """
    started = time.perf_counter()
    if config.folder is None:
        raise DefinitionError("measure: name the ECGs with --ptbxl DIR or --wfdb FOLDER")
    out = config.out.absolute()
    work = work_folder(out, MEASUREMENTS)
    with told_plainly(work, out, MEASUREMENTS), locked(work, out, MEASUREMENTS):
        finish_swap(work, out)
        source_now = source_stamp(config)
        stamp = source_now and _stamp(source_now)
        if config.resume != "never" and stamp is not None and _stamp_of(out) == stamp:
            return _result(layout.MeasuredTable.open(out), time.perf_counter() - started)
        _measure_locked(config, config.folder.absolute(), work, out, stamp, progress or (lambda *_: None), started)
        shutil.rmtree(work, ignore_errors=True)
    return _result(layout.MeasuredTable.open(out), time.perf_counter() - started)


def _stamp(source: str) -> str:
    parts = (source, MEASURED_VERSION, json.dumps(versions(), sort_keys=True))
    return xxhash.xxh3_128_hexdigest("\x1f".join(parts).encode())


def _stamp_of(out: Path) -> str | None:
    """The stamp of what was measured into `out` before; None if it cannot be used."""
    try:
        stamp: str | None = layout.MeasuredTable.open(out).log().get("input_stamp")
    except SourceError:
        return None
    return stamp


def _measure_locked(
    config: MeasureConfig, root: Path, work: Path, out: Path, stamp: str | None, tell: Progress, started: float
) -> None:
    prepare_work(work, stamp, config.out, config.resume)
    source = open_source(config, root)
    ecgs = ecgs_table(source)
    write_arrow(work / "ecgs.arrow", ecgs)
    ranges = block_ranges(ecgs.num_rows, PART_ECGS)
    waveforms = waveforms_of(source, ecgs, config.workers, tell)
    tasks = [
        (work, waveforms, number, start, stop)
        for number, start, stop in ranges
        if not _part_done(work, number).is_file()
    ]
    with workers(config.workers, nothing_open) as run:
        step = ecgs.num_rows / max(len(ranges), 1)
        run(
            _measure_part,
            tasks,
            lambda done: tell("measuring ECGs", round(step * (done + len(ranges) - len(tasks))), ecgs.num_rows),
        )
    stage = work / "stage"
    stage.mkdir(exist_ok=True)
    _write_folder(stage, work, config, source, ecgs, len(ranges))
    write_json(
        stage / layout.LOG,
        {
            "input_stamp": stamp,
            "signals_stamp": f"{MEASURED_VERSION} {signal_stamp(source)} {ids_digest(ecgs)}",
            "workers": config.workers,
            "seconds": round(time.perf_counter() - started, 3),
            "platform": platform.platform(),
        },
    )
    swap(work, out)


def _part_done(work: Path, number: int) -> Path:
    return work / "blocks" / f"{number:05d}" / "done"


def _measure_part(work: Path, waveforms: Waveforms, number: int, start: int, stop: int) -> None:
    """Measures some ECGs into a folder of their own."""
    measured = measure_ecgs(waveforms, read_arrow(work / "ecgs.arrow").slice(start, stop - start))
    done = _part_done(work, number)
    write_arrow(done.parent / "values.arrow", measured.table)
    write_arrow(done.parent / "rejected.arrow", measured.rejected)
    write_arrow(done.parent / "checksums.arrow", pa.table({"checksum": measured.checksums}))
    done.touch()


def _write_folder(stage: Path, work: Path, config: MeasureConfig, source: Source, ecgs: pa.Table, n_parts: int) -> None:
    def parts(name: str) -> Iterator[pa.Table]:
        return (read_arrow(work / "blocks" / f"{number:05d}" / f"{name}.arrow") for number in range(n_parts))

    checksums = pa.concat_tables(parts("checksums"))["checksum"].combine_chunks()
    if checksums.null_count == len(checksums):
        raise none_usable(source.root, pa.concat_tables(parts("rejected")))
    native_type = pa.int64() if _all_numbers(ecgs["ecg_id"]) else pa.string()
    schema = pa.schema({"ecg_id": native_type, **dict.fromkeys(MEASURED_COLUMNS, pa.float64())})
    n_values = 0
    with ParquetFile(stage / layout.FEATURES, schema) as file:
        for part in parts("values"):
            native = pc.utf8_slice_codeunits(part["ecg_id"], len(source.name) + 1)
            file.write(part.set_column(0, "ecg_id", native.cast(native_type)).select(schema.names))
            n_values += sum(len(part) - part[name].null_count for name in MEASURED_COLUMNS)
    with ParquetFile(stage / layout.WAVEFORMS, layout.WAVEFORM_ROWS) as file:
        chosen = ecgs.select([name for name in layout.WAVEFORM_ROWS.names if name != "checksum"])
        file.write(chosen.append_column("checksum", checksums))
    with ParquetFile(stage / layout.REJECTED_FILE, REJECTED) as file:
        file.write(source.rejected.collect().to_arrow().select(REJECTED.names).cast(REJECTED))
        for part in parts("rejected"):
            file.write(part)
    reasons = pq.read_table(stage / layout.REJECTED_FILE, columns=["reason"])["reason"].value_counts().to_pylist()
    write_json(
        stage / layout.MANIFEST,
        {
            "format": layout.FORMAT,
            "measured_version": MEASURED_VERSION,
            "source": source.name,
            "limit": config.limit,
            "sampling_hz": config.sampling_hz,
            "counts": {
                "ecgs": ecgs.num_rows,
                "measured": len(checksums) - checksums.null_count,
                "columns": len(MEASURED_COLUMNS),
                "values": n_values,
            },
            "rejected_reasons": {row["values"]: row["counts"] for row in sorted(reasons, key=lambda r: r["values"])},
            "inputs": {
                "source_files": dict(sorted(source.fingerprint.items())),
                "signals": blocks_digest(checksums),
            },
            "attribution": [dict(source.attribution)],
            "versions": versions(),
            "files": {
                name: {"bytes": (stage / name).stat().st_size, "sha256": file_sha256(stage / name)}
                for name in layout.FILES
            },
        },
    )


def _all_numbers(ecg_ids: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.match_substring_regex(ecg_ids, r"^[^:]+:(0|[1-9][0-9]{0,17})$")).as_py())


def _result(table: layout.MeasuredTable, seconds: float) -> MeasureResult:
    manifest: dict[str, Any] = dict(table.manifest)
    return MeasureResult(
        out=table.root,
        source=table.source,
        **manifest["counts"],
        rejected_reasons=manifest["rejected_reasons"],
        measured_version=manifest["measured_version"],
        seconds=round(seconds, 3),
    )
