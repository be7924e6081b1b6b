"""What a build reads: the source it names, and hashes that tell whether anything changed."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ecglm.synth.build.arrow_files import write_arrow, write_parts
from ecglm.synth.build.blocks import ECGQA_LISTS, MEASURED, blocks_digest
from ecglm.synth.build.config import BuildConfig, MeasuredConfig, SourceConfig
from ecglm.synth.build.extras import chosen_providers, read_extras
from ecglm.synth.build.progress import Progress, stepper
from ecglm.synth.build.source_files import SourceFiles, TakenOver, optional_path, source_rejected_path
from ecglm.synth.corpus import BUILD_LOG, Corpus
from ecglm.synth.errors import CorpusError, SourceError
from ecglm.synth.guidelines import load_guidelines
from ecglm.synth.measure import MEASURED_COLUMNS, MEASURED_VERSION
from ecglm.synth.measure.ecgs import WaveformFiles
from ecglm.synth.measure.table import MeasuredTable
from ecglm.synth.schema import ECGS, LABELS, REJECTED, SCHEMA_VERSION
from ecglm.synth.signal_store import CACHE_VARIABLE
from ecglm.synth.sources import Source
from ecglm.synth.sources.ecgqa import ATTRIBUTION, read_lists, rejections
from ecglm.synth.templates import ENGINE_VERSION

if TYPE_CHECKING:
    import polars as pl

_COPIED_ROWS = 4096
"""Rows of a wide table that are copied at once."""


def source_root(config: SourceConfig, work: Path, tell: Progress) -> Path:
    """The folder of the source; simulated ECGs are written first."""
    if config.folder is not None:
        return config.folder.absolute()
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


def open_source(config: SourceConfig, root: Path) -> Source:
    """The source a configuration names, whose folder is `root`."""
    if config.wfdb is not None:
        from ecglm.synth.sources.wfdb_folder import open_wfdb

        return open_wfdb(root, known_statements(), metadata=config.metadata, splits=config.splits, limit=config.limit)
    from ecglm.synth.sources.ptbxl import open_ptbxl

    return open_ptbxl(root, limit=config.limit, sampling_hz=config.sampling_hz)


def known_statements() -> pl.DataFrame:
    """The statements with a guideline, as a source without a list of its own takes them; no superclass is known."""
    import polars as pl

    from ecglm.synth.sources.ptbxl.metadata import KINDS

    rows = [
        (code, guideline.name, list(guideline.kinds), None, None)
        for code, guideline in sorted(load_guidelines(check_sql=False).by_code.items())
        if set(guideline.kinds) <= set(KINDS)
    ]
    text = pl.String()
    names = {"code": text, "description": text, "kinds": pl.List(text), "superclass": text, "subclass": text}
    return pl.DataFrame(rows, schema=pl.Schema(names), orient="row")


def write_source(
    work: Path, source: Source, config: MeasuredConfig, previous: Corpus | None, tell: Progress
) -> SourceFiles:
    """Writes the tables of a source where workers find them, and those of the folders given with it."""
    from ecglm.synth.sources import signal_stamp

    every_ecg = ecgs_table(source)
    extras = read_extras(config.ptbxl_plus, source)
    ecgs, left_out = every_ecg, REJECTED.empty_table()
    if isinstance(config, BuildConfig) and config.ecgqa_folder is not None:
        listed, lists = _ecgqa_lists(config, every_ecg)
        excluded = pc.is_in(every_ecg["ecg_id"], listed.filter(listed["excluded"])["ecg_id"].combine_chunks())
        ecgs, left_out = every_ecg.filter(pc.invert(excluded)), rejections(every_ecg.filter(excluded))
        extras = dataclasses.replace(
            extras,
            tables={**extras.tables, "ecgqa_ecgs": listed},
            fingerprint={**extras.fingerprint, **{f"ecgqa/{name}": digest for name, digest in lists.items()}},
            attribution=(*extras.attribution, ATTRIBUTION),
        )
        write_arrow(work / ECGQA_LISTS, listed)
    labels = source.labels.collect().to_arrow().select(LABELS.names).cast(LABELS)
    labels = labels.filter(pc.is_in(labels["ecg_id"], ecgs["ecg_id"].combine_chunks()))
    write_arrow(work / "ecgs.arrow", ecgs)
    write_arrow(work / "labels.arrow", labels)
    rejected = source.rejected.collect().to_arrow().select(REJECTED.names).cast(REJECTED)
    write_arrow(source_rejected_path(work), pa.concat_tables([rejected, extras.rejected, left_out]))
    providers = chosen_providers(config.providers, [*source.providers], [*extras.providers])
    for name, frame in {**source.providers, **extras.providers}.items():
        if name in providers:
            _write_in_order_of(work / "providers" / f"{name}.arrow", ecgs, frame)
    for name, table in extras.tables.items():
        write_arrow(optional_path(work, name), table)
    files = SourceFiles(
        name=source.name,
        n_ecgs=ecgs.num_rows,
        providers=providers,
        signal_stamp="",
        taken_over=None,
        tables=tuple(extras.tables),
        fingerprint={**source.fingerprint, **extras.fingerprint},
        attribution=(source.attribution, *extras.attribution),
    )
    if MEASURED not in providers:
        return files
    before: tuple[pa.Table, TakenOver] | None
    with ThreadPoolExecutor(1) as beside:
        reading = beside.submit(extras.measured.values) if extras.measured is not None else None
        signals = f"{MEASURED_VERSION} {signal_stamp(source)}"
        stamp = f"{signals} {ids_digest(ecgs)}"
        if extras.measured is not None and reading is not None:
            unchanged = extras.measured.log().get("signals_stamp") == f"{signals} {ids_digest(every_ecg)}"
            taken_over = _measured_in_table(source, ecgs, extras.measured, unchanged, tell)
            before = _rows_about(ecgs, reading.result()), taken_over
        else:
            before = _measured_by_build(stamp, previous)
    if before is None:
        return dataclasses.replace(files, signal_stamp=stamp)
    values, taken_over = before
    write_arrow(work / "providers" / f"{MEASURED}.arrow", values)
    return dataclasses.replace(files, signal_stamp=stamp, taken_over=taken_over)


def ecgs_table(source: Source) -> pa.Table:
    """The table `ecgs` of a source."""
    return source.ecgs.collect().to_arrow().select(ECGS.names).cast(ECGS)


def waveform_files(source: Source) -> WaveformFiles:
    """The records of a source, as they are read to be measured."""
    return WaveformFiles(source.root, ecg_only=source.ecg_only)


def none_usable(root: Path, rejected: pa.Table) -> SourceError:
    """The error of a source without a single usable waveform; the first of its rejected rows says why."""
    first = rejected["detail"][0].as_py() if rejected.num_rows else "there are none"
    return SourceError(f"{root}: no ECG has a usable waveform ({first}); correct them and try again")


def _write_in_order_of(path: Path, ecgs: pa.Table, frame: pl.LazyFrame) -> None:
    table = frame.collect().to_arrow()
    table = table.set_column(table.column_names.index("ecg_id"), "ecg_id", table["ecg_id"].cast(pa.string()))
    places = pc.index_in(ecgs["ecg_id"].combine_chunks(), value_set=table["ecg_id"].combine_chunks()).drop_null()
    starts = range(0, len(places), _COPIED_ROWS)
    write_parts(path, table.schema, (_taken(table, places[start : start + _COPIED_ROWS]) for start in starts))


def _taken(table: pa.Table, places: pa.Array) -> pa.Table:
    """Rows of a table; it joins no more than the chunks that they are in, which are few where they lie together."""
    bounds = pc.min_max(places).as_py()
    return table[bounds["min"] : bounds["max"] + 1].take(pc.subtract(places, bounds["min"]))


def _ecgqa_lists(config: BuildConfig, ecgs: pa.Table) -> tuple[pa.Table, Mapping[str, str]]:
    """`ECGQA_ECGS` of these ECGs, and the hashes of the files it is read from."""
    lists = read_lists(config.ecgqa_folder or Path())
    return lists.table(ecgs, exclude_test=config.exclude_ecgqa_test is not None), lists.fingerprint


def n_excluded(config: BuildConfig, source: Source) -> int:
    """How many ECGs are left out because ECG-QA tests on their patients."""
    if config.exclude_ecgqa_test is None:
        return 0
    listed, _ = _ecgqa_lists(config, ecgs_table(source))
    return int(pc.sum(listed["excluded"]).as_py() or 0)


def _measured_in_table(
    source: Source, ecgs: pa.Table, measured: MeasuredTable, unchanged: bool, tell: Progress
) -> TakenOver:
    """What is taken over beside the values of these ECGs, whose waveforms are found to be those that were measured."""
    compared = stepper(tell, "comparing waveforms", ecgs.num_rows)
    checksums = measured.checksums_of(source.name, ecgs, None if unchanged else waveform_files(source), compared)
    return TakenOver(measured.rejected(ecgs["ecg_id"].combine_chunks()), blocks_digest(checksums))


def _rows_about(ecgs: pa.Table, values: pa.Table) -> pa.Table:
    ours = pc.is_in(values["ecg_id"], value_set=ecgs["ecg_id"].combine_chunks())
    return values if pc.all(ours).as_py() else values.filter(ours)


def _measured_by_build(stamp: str, previous: Corpus | None) -> tuple[pa.Table, TakenOver] | None:
    if previous is None or build_log(previous.root).get("signals_stamp") != stamp:
        return None
    rows = previous.table("measurements").to_table(filter=pc.field("provider") == MEASURED)
    rejected = previous.table("rejected").to_table(filter=pc.field("stage") == "signal")
    return rows.select(["ecg_id", *MEASURED_COLUMNS]), TakenOver(rejected, previous.manifest["inputs"]["signals"])


def ids_digest(ecgs: pa.Table) -> str:
    """A hash of the paths of the waveforms, in order."""
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


@dataclass(frozen=True)
class InputStamps:
    """Hashes of what a build depends on, found without reading waveforms."""

    everything: str
    prepared: str
    """Of what it makes before it renders: of all but the templates."""


def input_stamps(config: BuildConfig) -> InputStamps | None:
    """The stamps of a configuration; None if the source is not there."""
    source = source_stamp(config)
    if source is None:
        return None
    before_rendering = [
        source,
        f"ecgqa {_ecgqa_stamp(config)}",
        *(f"ptbxl_plus {folder_stamp(folder) if folder.is_dir() else None}" for folder in config.ptbxl_plus),
        f"providers {config.providers}",
        _definitions_stamp("ecglm.guidelines", config.guidelines),
        _definitions_stamp("ecglm.guidelines", None) if config.wfdb is not None else "",  # see known_statements
        SCHEMA_VERSION,
        MEASURED_VERSION,
        json.dumps(versions(), sort_keys=True),
    ]
    rendering = [*sorted(config.families), _definitions_stamp("ecglm.templates", config.templates), ENGINE_VERSION]
    asks_ecgqa = f"asks ecgqa {'ecgqa' in config.families}"
    return InputStamps(_hash_of(*before_rendering, *rendering), _hash_of(*before_rendering, asks_ecgqa))


def cached_stamp(config: BuildConfig, stamps: InputStamps | None) -> str | None:
    """What blocks in the cache folder are found by; None where they are not to be kept there."""
    if stamps is None or config.folder is None or not os.environ.get(CACHE_VARIABLE):
        return None
    return _hash_of(stamps.prepared, os.path.realpath(config.folder), code_stamp(), platform.python_version())


@cache
def code_stamp() -> str:
    """Changes with every line of this package: versions do not tell what was changed in one that is worked on."""
    return _files_stamp(Path(str(resources.files("ecglm.synth"))), (".py", ".yaml"))


def made_by_this_code(corpus: Corpus | None) -> bool:
    return corpus is not None and build_log(corpus.root).get("code") == code_stamp()


def _hash_of(*parts: str) -> str:
    return xxhash.xxh3_128_hexdigest("\x1f".join(parts).encode())


def _ecgqa_stamp(config: BuildConfig) -> str | None:
    """A hash of the lists of ECG-QA, and whether its test patients are left out."""
    if config.ecgqa_folder is None:
        return None
    return f"{sorted(read_lists(config.ecgqa_folder).fingerprint.items())} {config.exclude_ecgqa_test is not None}"


def source_stamp(config: SourceConfig) -> str | None:
    """What tells whether the ECGs of a source changed, found without reading waveforms; None if it is not there."""
    if config.folder is None:
        from ecglm.synth.sources.simulator import SIMULATOR_VERSION

        source = f"simulated {config.simulated} {config.seed} {SIMULATOR_VERSION}"
    elif config.folder.is_dir():
        source = folder_stamp(config.folder)
    else:
        return None
    table = ""
    if config.metadata is not None and config.metadata.is_file():
        status = config.metadata.stat()
        table = f"{config.metadata.name} {status.st_size} {status.st_mtime_ns}"
    kind = "wfdb" if config.wfdb is not None else "ptbxl"
    return f"{kind} {source} {config.limit} {config.sampling_hz} {config.splits} {table}"


def _definitions_stamp(package: str, folder: Path | None) -> str:
    """A hash of the files of a guideline or template folder; the built-in one if `folder` is None."""
    return _files_stamp(folder if folder is not None else Path(str(resources.files(package))), (".yaml", ".jinja"))


def _files_stamp(root: Path, suffixes: Sequence[str]) -> str:
    """A hash of the files of a folder that are of some kinds."""
    stamp = xxhash.xxh3_128()
    for path in sorted(root.rglob("*")):
        if path.suffix in suffixes:
            stamp.update(f"{path.relative_to(root).as_posix()}\x1f".encode() + path.read_bytes() + b"\x1e")
    return stamp.hexdigest()


def folder_stamp(root: Path) -> str:
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


def is_up_to_date(out: Path, stamps: InputStamps | None) -> bool:
    if stamps is None or previous_corpus(out) is None:
        return False
    return bool(build_log(out).get("input_stamp") == stamps.everything)


def previous_corpus(out: Path) -> Corpus | None:
    try:
        return Corpus.open(out)
    except CorpusError:
        return None
