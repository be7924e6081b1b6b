"""What a build reads: the source it names, and hashes that tell whether anything changed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ecglm.synth.build.blocks import write_arrow
from ecglm.synth.build.config import BuildConfig
from ecglm.synth.build.progress import Progress, stepper
from ecglm.synth.corpus import BUILD_LOG, Corpus
from ecglm.synth.errors import CorpusError
from ecglm.synth.measure import MEASURED_COLUMNS, MEASURED_VERSION
from ecglm.synth.schema import ECGS, LABELS, REJECTED, SCHEMA_VERSION
from ecglm.synth.sources import Source
from ecglm.synth.templates import ENGINE_VERSION


@dataclass(frozen=True)
class SourceFiles:
    n_ecgs: int
    providers: tuple[str, ...]
    signal_stamp: str
    measured_before: Corpus | None
    """The earlier corpus whose measurements of the same waveforms are taken over."""


def source_root(config: BuildConfig, work: Path, tell: Progress) -> Path:
    if config.ptbxl is not None:
        return config.ptbxl.absolute()
    from ecglm.synth.sources.simulator import SIMULATOR_VERSION, simulate

    root = work / "simulated"
    wanted = {"n": config.simulated, "seed": config.seed, "simulator_version": SIMULATOR_VERSION}
    marker = root / "SIMULATED.json"
    if marker.is_file():
        content = json.loads(marker.read_text(encoding="utf-8"))
        if {name: content.get(name) for name in wanted} == wanted:
            return root
        shutil.rmtree(root)
    simulate(root, config.simulated, config.seed, progress=stepper(tell, "simulating ECGs", config.simulated))
    return root


def open_source(config: BuildConfig, root: Path) -> Source:
    from ecglm.synth.sources.ptbxl import open_ptbxl

    return open_ptbxl(root, limit=config.limit, sampling_hz=config.sampling_hz)


def write_source(work: Path, source: Source, previous: Corpus | None) -> SourceFiles:
    from ecglm.synth.sources import signal_stamp

    ecgs = source.ecgs.collect().to_arrow().select(ECGS.names).cast(ECGS)
    labels = source.labels.collect().to_arrow().select(LABELS.names).cast(LABELS)
    write_arrow(work / "ecgs.arrow", ecgs)
    write_arrow(work / "labels.arrow", labels)
    providers = []
    for name, frame in source.providers.items():
        table = frame.collect().to_arrow()
        table = table.set_column(table.column_names.index("ecg_id"), "ecg_id", table["ecg_id"].cast(pa.string()))
        write_arrow(work / "providers" / f"{name}.arrow", table)
        providers.append(name)
    write_arrow(
        work / "source_rejected.arrow", source.rejected.collect().to_arrow().select(REJECTED.names).cast(REJECTED)
    )
    stamp = f"{MEASURED_VERSION} {signal_stamp(source)} {_ids_digest(ecgs)}"
    measured_before = (
        previous if previous is not None and build_log(previous.root).get("signals_stamp") == stamp else None
    )
    if measured_before is not None:
        rows = measured_before.table("measurements").to_table(filter=pc.field("provider") == "measured")
        measured = rows.select(["ecg_id", *MEASURED_COLUMNS])
        write_arrow(work / "providers" / "measured.arrow", measured)
        providers.append("measured")
    return SourceFiles(ecgs.num_rows, tuple(providers), stamp, measured_before)


def _ids_digest(ecgs: pa.Table) -> str:
    return xxhash.xxh3_128_hexdigest("\x1f".join(ecgs["signal_path"].to_pylist()).encode())


def build_log(root: Path) -> dict[str, Any]:
    try:
        log: dict[str, Any] = json.loads((root / BUILD_LOG).read_text(encoding="utf-8"))
        return log
    except (OSError, ValueError):
        return {}


def versions() -> dict[str, str]:
    names = ("duckdb", "ecglm", "jinja2", "numpy", "polars", "pyarrow", "scipy", "xxhash")
    return {name: metadata.version(name) for name in names}


def input_stamp(config: BuildConfig) -> str | None:
    """A hash of everything a build depends on, found without reading waveforms; None if the source is not there."""
    if config.ptbxl is None:
        from ecglm.synth.sources.simulator import SIMULATOR_VERSION

        source = f"simulated {config.simulated} {config.seed} {SIMULATOR_VERSION}"
    elif config.ptbxl.is_dir():
        source = _folder_stamp(config.ptbxl)
    else:
        return None
    parts = [
        source,
        str(config.limit),
        str(config.sampling_hz),
        *sorted(config.families),
        _definitions_stamp("ecglm.guidelines", config.guidelines),
        _definitions_stamp("ecglm.templates", config.templates),
        ENGINE_VERSION,
        SCHEMA_VERSION,
        MEASURED_VERSION,
        json.dumps(versions(), sort_keys=True),
    ]
    return xxhash.xxh3_128_hexdigest("\x1f".join(parts).encode())


def _definitions_stamp(package: str, folder: Path | None) -> str:
    """A hash of the files of a guideline or template folder; the built-in one if `folder` is None."""
    root = folder if folder is not None else Path(str(resources.files(package)))
    stamp = xxhash.xxh3_128()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".yaml", ".jinja"):
            stamp.update(f"{path.relative_to(root).as_posix()}\x1f".encode() + path.read_bytes() + b"\x1e")
    return stamp.hexdigest()


def _folder_stamp(root: Path) -> str:
    """A hash over name, size and modification time of every file of a source; reads none of them."""
    stamp = xxhash.xxh3_128()
    folders = [str(root)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    folders.append(entry.path)
                else:
                    status = entry.stat()
                    stamp.update(f"{entry.path[len(str(root)) :]} {status.st_size} {status.st_mtime_ns}\n".encode())
    return stamp.hexdigest()


def is_up_to_date(out: Path, stamp: str | None) -> bool:
    return stamp is not None and previous_corpus(out) is not None and build_log(out).get("input_stamp") == stamp


def previous_corpus(out: Path) -> Corpus | None:
    try:
        return Corpus.open(out)
    except CorpusError:
        return None
