"""`synth signals`: every waveform of a source read once into a signal store, whole or not at all."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from ecglm.synth.build.arrow_files import read_arrow, write_arrow
from ecglm.synth.build.config import SourceConfig
from ecglm.synth.build.inputs import ecgs_table, ids_digest, none_usable, open_source, waveform_files
from ecglm.synth.build.progress import Progress
from ecglm.synth.build.staging import Kind, finish_swap, locked, prepare_work, swap, told_plainly, work_folder
from ecglm.synth.build.workers import nothing_open, workers
from ecglm.synth.corpus import ParquetFile, write_json
from ecglm.synth.errors import CorpusError, DefinitionError, SourceError
from ecglm.synth.measure.ecgs import Shape, WaveformFiles, Waveforms, chunks_by_shape, rejection_table
from ecglm.synth.schema import REJECTED
from ecglm.synth.signal_store import (
    CACHE_VARIABLE,
    FORMAT,
    FORMAT_VERSION,
    LOG,
    MANIFEST,
    REJECTED_FILE,
    SIGNALS,
    TABLE,
    SignalStore,
    StoredWaveforms,
    cache_folder,
)
from ecglm.synth.sources import Source, signal_stamp

STORE = Kind("a signal store", MANIFEST, "store")
MOST_BYTES = 1 << 30
"""Of one array; a single ECG may be larger."""


class StoreConfig(SourceConfig):
    """Which waveforms are stored, and where; without `out` in the cache folder."""

    out: Path | None = None


@dataclass(frozen=True)
class StoreResult:
    """What was stored."""

    out: Path
    source: str
    ecgs: int
    """ECGs of the source that have waveform files."""
    stored: int
    arrays: int
    bytes: int
    rejected_reasons: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class _Part:
    """Some ECGs of one shape, and where they go."""

    shape: Shape
    file: str
    first_row: int
    rows: tuple[int, ...]
    """In the table `ecgs`."""


def store(config: StoreConfig, progress: Progress | None = None) -> StoreResult:
    """Stores the waveforms of a source.

    Raises:
        ECGLMError: bad input or a full disk; the folder is as it was before.
    """
    started = time.perf_counter()
    if config.folder is None:
        raise DefinitionError("signals: name the folder of the ECGs")
    source = open_source(config, config.folder.absolute())
    made = store_source(source, config.out, config.workers, config.resume, progress)
    manifest = dict(made.manifest)
    return StoreResult(
        out=made.root,
        source=manifest["source"],
        **manifest["counts"],
        rejected_reasons=manifest["rejected_reasons"],
        seconds=round(time.perf_counter() - started, 3),
    )


def store_source(
    source: Source,
    out: Path | None = None,
    n_workers: int = 1,
    resume: str = "if-possible",
    progress: Progress | None = None,
) -> SignalStore:
    """The store of a source's waveforms in `out`, or in the cache folder; made if it is not there or not of these."""
    ecgs = ecgs_table(source)
    stamp = _stamp(source, ecgs)
    out = (out or cache_folder() / "signals" / stamp).absolute()
    work = work_folder(out, STORE)
    out.parent.mkdir(parents=True, exist_ok=True)
    with told_plainly(work, out, STORE), locked(work, out, STORE):
        finish_swap(work, out)
        found = _found(out, stamp) if resume != "never" else None
        if found is None:
            _store_locked(source, ecgs, work, out, stamp, n_workers, resume, progress or (lambda *_: None))
            shutil.rmtree(work, ignore_errors=True)
            found = SignalStore.open(out)
    return found


def waveforms_of(source: Source, ecgs: pa.Table, n_workers: int, progress: Progress) -> Waveforms:
    """How a command reads waveforms: from a store in the cache folder if there is one of them, else from their files.

    Where the environment variable ECGLM_CACHE names a folder, a store that is not there is made first.
    """
    files = waveform_files(source)
    stamp = _stamp(source, ecgs)
    if os.environ.get(CACHE_VARIABLE):
        try:
            return StoredWaveforms(store_source(source, None, n_workers, "if-possible", progress).root, files)
        except CorpusError:  # another process is making it, or it cannot be written
            return files
    found = _found(cache_folder() / "signals" / stamp, stamp)
    return files if found is None else StoredWaveforms(found.root, files)


def _found(out: Path, stamp: str) -> SignalStore | None:
    try:
        found = SignalStore.open(out)
    except SourceError:
        return None
    return found if found.log().get("stamp") == stamp else None


def _stamp(source: Source, ecgs: pa.Table) -> str:
    """What tells whether the waveforms changed, found without reading them; another folder has another."""
    parts = (FORMAT_VERSION, os.path.realpath(source.root), source.name, signal_stamp(source), ids_digest(ecgs))
    return xxhash.xxh3_128_hexdigest("\x1f".join(parts).encode())


def _parts(ecgs: pa.Table) -> list[_Part]:
    """Every ECG in its place: arrays of one shape each, none above `MOST_BYTES`."""
    parts: list[_Part] = []
    filled: dict[Shape, tuple[str, int]] = {}
    n_files = 0
    for shape, rows in chunks_by_shape(ecgs):
        file, used = filled.get(shape, ("", 0))
        most = max(len(rows), MOST_BYTES // (2 * len(shape[0]) * shape[2]))
        if not file or used + len(rows) > most:
            file, used = f"{n_files:03d}.npy", 0
            n_files += 1
        parts.append(_Part(shape, file, used, tuple(rows)))
        filled[shape] = (file, used + len(rows))
    return parts


def _store_locked(
    source: Source,
    ecgs: pa.Table,
    work: Path,
    out: Path,
    stamp: str,
    n_workers: int,
    resume: str,
    tell: Progress,
) -> None:
    started = time.perf_counter()
    prepare_work(work, stamp, out, resume)
    write_arrow(work / "ecgs.arrow", ecgs)
    stage = work / "stage"
    stage.mkdir(exist_ok=True)
    parts = _parts(ecgs)
    _lay_out(stage, parts)
    tasks = [(work, waveform_files(source), n, part) for n, part in enumerate(parts) if not _done(work, n).is_file()]
    before = ecgs.num_rows - sum(len(part.rows) for _, _, _, part in tasks)
    sizes = [len(part.rows) for _, _, _, part in tasks]
    with workers(n_workers, nothing_open) as run:
        run(
            _store_part,
            tasks,
            lambda done: tell("storing waveforms", before + sum(sizes[:done]), ecgs.num_rows),
        )
    _write_tables(stage, work, source, ecgs, parts)
    write_json(
        stage / LOG,
        {"stamp": stamp, "seconds": round(time.perf_counter() - started, 3), "platform": platform.platform()},
    )
    swap(work, out)


def _done(work: Path, number: int) -> Path:
    return work / "blocks" / f"{number:05d}" / "done"


def _lay_out(stage: Path, parts: Sequence[_Part]) -> None:
    """Creates every array in its full size, so that parts can be written in any order."""
    lengths: dict[str, tuple[int, Shape]] = {}
    for part in parts:
        lengths[part.file] = (part.first_row + len(part.rows), part.shape)
    for file, (length, (leads, _, n_samples)) in lengths.items():
        path = stage / file
        if path.is_file():
            continue
        header = {"descr": "<i2", "fortran_order": False, "shape": (length, n_samples, len(leads))}
        temporary = path.with_name(path.name + ".part")
        with temporary.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            stream.truncate(stream.tell() + 2 * length * n_samples * len(leads))
        temporary.replace(path)


def _store_part(work: Path, waveforms: WaveformFiles, number: int, part: _Part) -> None:
    """Reads some ECGs and writes them into their rows of an array."""
    ecgs = read_arrow(work / "ecgs.arrow").take(pa.array(part.rows))
    ids, paths = ecgs["ecg_id"].to_pylist(), ecgs["signal_path"].to_pylist()
    records, problems = waveforms.read(ids, paths, part.shape)
    leads, sampling_hz, n_samples = part.shape
    rows: list[dict[str, Any]] = []
    with (work / "stage" / part.file).open("r+b") as stream:
        np.lib.format.read_magic(stream)
        np.lib.format.read_array_header_1_0(stream)
        start, size = stream.tell(), 2 * n_samples * len(leads)
        for place, record in enumerate(records):
            if record is None:
                continue
            content = np.ascontiguousarray(record.signal, dtype="<i2").tobytes()
            row = part.first_row + place
            stream.seek(start + row * size)
            stream.write(content)
            rows.append(
                {
                    "ecg_id": ids[place],
                    "file": part.file,
                    "row": row,
                    "gains": record.gains.tolist(),
                    "baselines": record.baselines.tolist(),
                    "leads": leads,
                    "sampling_hz": sampling_hz,
                    "n_samples": n_samples,
                    "checksum": xxhash.xxh3_128_hexdigest(content),
                    "digest": record.digest,
                }
            )
    folder = _done(work, number).parent
    write_arrow(folder / "signals.arrow", pa.Table.from_pylist(rows, schema=SIGNALS))
    write_arrow(folder / "rejected.arrow", rejection_table(ids, problems))
    _done(work, number).touch()


def _write_tables(stage: Path, work: Path, source: Source, ecgs: pa.Table, parts: Sequence[_Part]) -> None:
    def all_of(name: str) -> Iterator[pa.Table]:
        return (read_arrow(_done(work, number).parent / f"{name}.arrow") for number in range(len(parts)))

    signals = pa.concat_tables(all_of("signals"))
    rejected = pa.concat_tables(all_of("rejected"))
    if not signals.num_rows:
        raise none_usable(source.root, rejected)
    order = pc.index_in(ecgs["ecg_id"].combine_chunks(), value_set=signals["ecg_id"].combine_chunks()).drop_null()
    with ParquetFile(stage / TABLE, SIGNALS) as file:
        file.write(signals.take(order))
    with ParquetFile(stage / REJECTED_FILE, REJECTED) as file:
        file.write(source.rejected.collect().to_arrow().select(REJECTED.names).cast(REJECTED))
        file.write(rejected)
    reasons = pq.read_table(stage / REJECTED_FILE, columns=["reason"])["reason"].value_counts().to_pylist()
    arrays = sorted({part.file for part in parts})
    sizes = {name: (stage / name).stat().st_size for name in (*arrays, TABLE, REJECTED_FILE)}
    write_json(
        stage / MANIFEST,
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "source": source.name,
            "counts": {
                "ecgs": ecgs.num_rows,
                "stored": signals.num_rows,
                "arrays": len(arrays),
                "bytes": sum(sizes[name] for name in arrays),
            },
            "rejected_reasons": {row["values"]: row["counts"] for row in sorted(reasons, key=lambda r: r["values"])},
            "attribution": [dict(source.attribution)],
            "files": {name: {"bytes": size} for name, size in sizes.items()},
        },
    )
