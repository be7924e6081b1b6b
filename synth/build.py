"""`synth build`: from a source to a corpus folder, whole or not at all, resumable, the same bytes every time."""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import platform
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ecglm.synth import corpus as layout
from ecglm.synth.blocks import (
    BlockJob,
    Blocks,
    block_done,
    block_folder,
    block_ranges,
    guidelines_of_worker,
    prepare_block,
    read_arrow,
    write_arrow,
)
from ecglm.synth.card import write_card
from ecglm.synth.corpus import Corpus, ParquetFile, file_sha256, write_json, write_table
from ecglm.synth.database import LockedConnection
from ecglm.synth.errors import CorpusError, DefinitionError, SourceError
from ecglm.synth.facts import ECG_VIEWS, KNOWLEDGE_VIEWS
from ecglm.synth.guidelines import GuidelineSet, load_guidelines, relation_tables
from ecglm.synth.measure import MEASURED_COLUMNS, MEASURED_VERSION
from ecglm.synth.render import EcgRegister, render_block
from ecglm.synth.schema import ECGS, FAMILIES, FINDINGS, GUIDELINES, LABELS, PAIRS, REJECTED, SCHEMA_VERSION, TEMPLATES
from ecglm.synth.sources import Source
from ecglm.synth.templates import ENGINE_VERSION, Template, TemplateSet, load_templates
from ecglm.synth.yaml_files import read_yaml

Progress = Callable[[str, int, int], None]
"""Called with the stage, steps done and steps in all."""

_GROUP_BLOCKS = 4
"""Blocks a template sees at once: more make fewer queries, fewer take less memory."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def stepper(progress: Progress, stage: str, of: int) -> Callable[[int], None]:
    """A function to call with each number of further steps done."""
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        progress(stage, done, of)

    return step


class BuildConfig(BaseModel):
    """Everything that decides what a build makes, and how it runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ptbxl: Path | None = None
    simulated: int = Field(default=300, ge=1, le=10_000_000)
    seed: int = Field(default=1, ge=0)
    sampling_hz: Literal[100, 500] | None = None
    limit: int | None = Field(default=None, ge=1)
    guidelines: Path | None = None
    templates: Path | None = None
    families: tuple[Literal[FAMILIES], ...] = FAMILIES  # type: ignore[valid-type]
    out: Path = Path("corpus")
    workers: int = Field(default_factory=lambda: min(os.cpu_count() or 1, 8), ge=1, le=256)
    resume: Literal["never", "if-possible", "always"] = "if-possible"

    @model_validator(mode="after")
    def _some_family(self) -> BuildConfig:
        if not self.families:
            raise ValueError(f"families: name at least one of {', '.join(FAMILIES)}")
        return self


def read_config(path: Path | None, **options: Any) -> BuildConfig:
    """The configuration of a YAML file, with options given on the command line in front of it.

    Raises:
        DefinitionError: names the file, the field and what it may be.
    """
    content = read_yaml(path) or {} if path else {}
    if not isinstance(content, dict):
        raise DefinitionError(f"{path}: expected `name: value` lines, e.g. `limit: 500`")
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return BuildConfig.model_validate({**content, **given})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'config'}: {p['msg']}" for p in error.errors())
        raise DefinitionError(f"{path or 'options'}: {problems}") from error


@dataclass(frozen=True)
class BuildResult:
    """What a build made."""

    out: Path
    pairs: int
    rejected: int
    ecgs: int
    skipped: dict[str, str]
    rendered: int
    reused: int
    seconds: float
    content_fingerprint: str
    rejected_reasons: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """What a build would do, found without writing anything."""

    source: str
    ecgs: int
    rejected: int
    templates: tuple[str, ...]
    statements: int
    up_to_date: bool


# ---------------------------------------------------------------------------------------------------------- the build


def plan(config: BuildConfig) -> Plan:
    """What `build` would do; nothing is written."""
    guidelines, templates = load_guidelines(config.guidelines), load_templates(config.templates)
    chosen = tuple(t.id for t in templates if t.header.family in config.families)
    stamp = _input_stamp(config, guidelines, templates)
    up_to_date = _is_up_to_date(config.out, stamp)
    if config.ptbxl is None:
        ecgs = min(config.simulated, config.limit or config.simulated)
        return Plan("simulated", ecgs, 0, chosen, len(guidelines.by_code), up_to_date)
    source = _open_source(config, config.ptbxl)
    ecgs = source.ecgs.select("ecg_id").collect().height
    return Plan(source.name, ecgs, source.rejected.collect().height, chosen, len(guidelines.by_code), up_to_date)


def build(config: BuildConfig, progress: Progress | None = None) -> BuildResult:
    """Builds a corpus.

    Raises:
        ECGLMError: bad input or a full disk; the folder `out` is as it was before.
    """
    started = time.perf_counter()
    tell = progress or (lambda stage, done, of: None)
    out = config.out.absolute()
    guidelines, templates = load_guidelines(config.guidelines), load_templates(config.templates)
    work = out.parent / f".{out.name}.building"
    try:
        with _locked(work, out):
            _finish_swap(work, out)
            stamp = _input_stamp(config, guidelines, templates)
            if config.resume != "never" and _is_up_to_date(out, stamp):
                finished = Corpus.open(out)
                return _result(finished, 0, len(finished.manifest["templates"]), time.perf_counter() - started)
            result = _build_locked(config, work, out, guidelines, templates, stamp, tell, started)
        shutil.rmtree(work, ignore_errors=True)
        return result
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise CorpusError(
                f"{work}: no space left on the device; {out.name} is as it was. Free space and build again:"
                " what is finished is kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR):
            raise CorpusError(
                f"{error.filename or out}: cannot be written ({error.strerror}); choose another --out"
            ) from error
        raise


def _build_locked(
    config: BuildConfig,
    work: Path,
    out: Path,
    guidelines: GuidelineSet,
    templates: TemplateSet,
    stamp: str | None,
    tell: Progress,
    started: float,
) -> BuildResult:
    timings: dict[str, float] = {}
    previous = _previous(out) if config.resume != "never" else None
    root = _source_root(config, work, tell)
    _prepare_work(work, stamp, config)
    with _timed(timings, "source"):
        source = _open_source(config, root)
        source_files = _write_source(work, source, previous)
    stage = work / "stage"
    stage.mkdir(exist_ok=True)
    job = BlockJob(
        work=work,
        source=source.name,
        signal_root=root,
        guidelines=config.guidelines,
        providers=source_files.providers,
        measured=source_files.measured_before is not None,
    )
    ranges = block_ranges(source_files.n_ecgs)
    selected = [template for template in templates if template.header.family in config.families]
    with _workers(config.workers) as run:
        with _timed(timings, "measure and join"):
            tasks = [(job, *each) for each in ranges if block_done(work, each[0]) is None]
            run(prepare_block, tasks, lambda done: tell("measuring ECGs", done + len(ranges) - len(tasks), len(ranges)))
            blocks = Blocks(work, len(ranges))
            if not sum(note["n_ecgs"] for note in blocks.notes):
                raise SourceError(f"{root}: no ECG has a usable waveform; see the messages above or run with --limit 5")
            comparisons_digest, n_comparisons = blocks.write_comparisons()
            knowledge = {
                name: write_arrow(work / "knowledge" / f"{name}.arrow", table)
                for name, table in relation_tables(guidelines).items()
            }
            ecgs = pa.concat_tables(blocks.parts("ecgs"))
            register = write_arrow(
                work / "register.arrow", ecgs.select(["ecg_id", "patient_id", "strat_fold", "split"])
            )
        with _timed(timings, "tables"):
            _write_tables(stage, blocks, source_files, guidelines)
        digests = {
            **blocks.digests(),
            **knowledge,
            "comparisons": comparisons_digest,
            "register": register,
        }
        available = {name for name, rows in {**blocks.rows(), "comparisons": n_comparisons}.items() if rows}
        available |= {name for name, known in blocks.known().items() if known} | set(KNOWLEDGE_VIEWS)
        skipped = {
            t.id: f"needs {', '.join(sorted(set(t.header.needs) - available))}"
            for t in selected
            if set(t.header.needs) - available
        }
        with _timed(timings, "render"):
            done, reused = _render_all(
                run,
                work,
                out,
                previous,
                source.name,
                [t for t in selected if t.id not in skipped],
                digests,
                config,
                tell,
            )
    with _timed(timings, "finish"):
        _remove_unfinished(stage, done)
        _write_template_tables(stage, work, templates, skipped, done, blocks, previous, source_files.measured_before)
        _keep_simulated(config, work, stage)
        manifest = _manifest(stage, config, source, guidelines, blocks, done, skipped, source_files.measured_before)
        write_card(stage, manifest)
        card = stage / layout.CARD
        manifest["files"][layout.CARD] = {"bytes": card.stat().st_size, "sha256": file_sha256(card)}
        seconds = time.perf_counter() - started
        write_json(
            stage / layout.BUILD_LOG,
            {
                "input_stamp": stamp,
                "signals_stamp": source_files.signal_stamp,
                "workers": config.workers,
                "seconds": round(seconds, 3),
                "stages": {name: round(value, 3) for name, value in timings.items()},
                "templates_rendered": len(done) - reused,
                "templates_reused": reused,
                "platform": platform.platform(),
            },
        )
        write_json(stage / layout.MANIFEST, manifest)
        _swap(work, out)
    return _result(Corpus.open(out), len(done) - reused, reused, time.perf_counter() - started)


def _result(finished: Corpus, rendered: int, reused: int, seconds: float) -> BuildResult:
    manifest = finished.manifest
    return BuildResult(
        out=finished.root,
        pairs=manifest["counts"]["pairs"],
        rejected=manifest["counts"]["rejected"],
        ecgs=manifest["counts"]["ecgs"],
        skipped=manifest["skipped"],
        rendered=rendered,
        reused=reused,
        seconds=round(seconds, 3),
        content_fingerprint=manifest["content_fingerprint"],
        rejected_reasons=manifest["rejected_reasons"],
    )


# ------------------------------------------------------------------------------------------------------------- inputs


@dataclass(frozen=True)
class _SourceFiles:
    n_ecgs: int
    providers: tuple[str, ...]
    signal_stamp: str
    measured_before: Corpus | None
    """The earlier corpus whose measurements of the same waveforms are taken over."""


def _source_root(config: BuildConfig, work: Path, tell: Progress) -> Path:
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


def _open_source(config: BuildConfig, root: Path) -> Source:
    from ecglm.synth.sources.ptbxl import open_ptbxl

    return open_ptbxl(root, limit=config.limit, sampling_hz=config.sampling_hz)


def _write_source(work: Path, source: Source, previous: Corpus | None) -> _SourceFiles:
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
        previous if previous is not None and _build_log(previous.root).get("signals_stamp") == stamp else None
    )
    if measured_before is not None:
        rows = measured_before.table("measurements").to_table(filter=pc.field("provider") == "measured")
        measured = rows.select(["ecg_id", *MEASURED_COLUMNS])
        write_arrow(work / "providers" / "measured.arrow", measured)
        providers.append("measured")
    return _SourceFiles(ecgs.num_rows, tuple(providers), stamp, measured_before)


def _ids_digest(ecgs: pa.Table) -> str:
    return xxhash.xxh3_128_hexdigest("\x1f".join(ecgs["signal_path"].to_pylist()).encode())


def _build_log(root: Path) -> dict[str, Any]:
    try:
        log: dict[str, Any] = json.loads((root / layout.BUILD_LOG).read_text(encoding="utf-8"))
        return log
    except (OSError, ValueError):
        return {}


def _versions() -> dict[str, str]:
    names = ("duckdb", "ecglm", "jinja2", "numpy", "polars", "pyarrow", "scipy", "xxhash")
    return {name: metadata.version(name) for name in names}


def _input_stamp(config: BuildConfig, guidelines: GuidelineSet, templates: TemplateSet) -> str | None:
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
        guidelines.fingerprint,
        templates.fingerprint,
        ENGINE_VERSION,
        SCHEMA_VERSION,
        MEASURED_VERSION,
        json.dumps(_versions(), sort_keys=True),
    ]
    return xxhash.xxh3_128_hexdigest("\x1f".join(parts).encode())


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


def _is_up_to_date(out: Path, stamp: str | None) -> bool:
    return stamp is not None and _previous(out) is not None and _build_log(out).get("input_stamp") == stamp


def _previous(out: Path) -> Corpus | None:
    try:
        return Corpus.open(out)
    except CorpusError:
        return None


# -------------------------------------------------------------------------------------------------- work folder, swap


@contextlib.contextmanager
def _locked(work: Path, out: Path) -> Iterator[None]:
    if out.exists() and not out.is_dir():
        raise CorpusError(f"{out}: is a file; choose another --out")
    if out.is_dir() and any(out.iterdir()) and not (out / layout.MANIFEST).is_file():
        raise CorpusError(f"{out}: holds files that are not a corpus; choose an empty or new folder for --out")
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CorpusError(f"{out}: another build is writing here; wait for it or choose another --out") from error
        yield


def _prepare_work(work: Path, stamp: str | None, config: BuildConfig) -> None:
    """Keeps what an earlier, killed run of the same build finished, and clears everything else."""
    mark = work / "inputs.json"
    kept = mark.is_file() and json.loads(mark.read_text(encoding="utf-8")).get("stamp") == stamp
    if config.resume == "always" and not kept:
        raise CorpusError(f"{config.out}: nothing to resume for these inputs; build with --resume if-possible")
    if config.resume == "never" or not kept:
        for path in work.iterdir():
            if path.name in ("lock", "simulated"):
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_json(mark, {"stamp": stamp})


def _swap(work: Path, out: Path) -> None:
    """Puts the finished stage in the place of `out`; each step can be redone by `_finish_swap`."""
    (work / "ready").touch()
    _finish_swap(work, out)


def _finish_swap(work: Path, out: Path) -> None:
    if not (work / "ready").exists():
        return
    stage, old = work / "stage", work / "old"
    if stage.exists():
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        stage.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    (work / "ready").unlink()


# ------------------------------------------------------------------------------------------------------------ workers


def _forget() -> None:
    """Closes what a process keeps open from one task to the next."""
    for cache in (_group_connection, _register, guidelines_of_worker):
        cache.cache_clear()


def _start_worker() -> None:
    atexit.register(_forget)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


RunTasks = Callable[[Callable[..., Any], list[tuple[Any, ...]], Callable[[int], None]], list[Any]]


@contextlib.contextmanager
def _workers(count: int) -> Iterator[RunTasks]:
    """Runs tasks here (one worker) or in processes of their own; results in the order of the tasks."""
    if count == 1:

        def run_here(
            function: Callable[..., Any], tasks: list[tuple[Any, ...]], done: Callable[[int], None]
        ) -> list[Any]:
            results = []
            for task in tasks:
                results.append(function(*task))
                done(len(results))
            return results

        _forget()
        try:
            yield run_here
        finally:
            _forget()
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)

    def run(function: Callable[..., Any], tasks: list[tuple[Any, ...]], done: Callable[[int], None]) -> list[Any]:
        futures: list[Future[Any]] = [pool.submit(function, *task) for task in tasks]
        waiting = set(futures)
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
            done(len(futures) - len(waiting))
        return [future.result() for future in futures]

    try:
        yield run
    except BrokenProcessPool as error:
        raise CorpusError(
            "a worker process was killed (out of memory?); build again with fewer --workers: what is finished is kept"
        ) from error
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# ---------------------------------------------------------------------------------------------------------- rendering


@dataclass(frozen=True)
class RenderJob:
    """One template to render over all blocks."""

    work: Path
    source: str
    template: Template
    n_blocks: int
    key: str


def _render_all(
    run: RunTasks,
    work: Path,
    out: Path,
    previous: Corpus | None,
    source: str,
    templates: list[Template],
    digests: dict[str, str],
    config: BuildConfig,
    tell: Progress,
) -> tuple[dict[str, dict[str, Any]], int]:
    n_blocks = len(list((work / "blocks").iterdir()))
    done: dict[str, dict[str, Any]] = {}
    tasks: list[tuple[RenderJob]] = []
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
            tasks.append((RenderJob(work, source, template, n_blocks, key),))
    total = len(templates)
    results = run(render_template, tasks, lambda count: tell("rendering templates", count + total - len(tasks), total))
    for (job,), note in zip(tasks, results, strict=True):
        done[job.template.id] = note
    return done, reused


def _render_key(template: Template, digests: dict[str, str], source: str) -> str:
    """A hash of everything a template's files depend on: itself, and the views its SQL names."""
    words = set(_WORD.findall(template.header.sql))
    used = [f"{name}={digests[name]}" for name in (*ECG_VIEWS, *KNOWLEDGE_VIEWS) if name in words]
    parts = (template.hash, ENGINE_VERSION, SCHEMA_VERSION, source, digests["register"], *used)
    return xxhash.xxh3_128_hexdigest("\x1f".join(parts).encode())


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


@lru_cache(maxsize=16)
def _group_connection(work: Path, group: range) -> LockedConnection:
    """The views of some blocks, memory-mapped; kept open for the next template this process renders."""
    knowledge = {name: read_arrow(work / "knowledge" / f"{name}.arrow") for name in KNOWLEDGE_VIEWS}
    views = {
        name: pa.concat_tables(read_arrow(block_folder(work, number) / f"{name}.arrow") for number in group)
        for name in ECG_VIEWS
    }
    return LockedConnection({**views, **knowledge}, memory_limit="512MB")


@lru_cache(maxsize=1)
def _register(work: Path) -> EcgRegister:
    return EcgRegister.of(read_arrow(work / "register.arrow"))


def render_template(job: RenderJob) -> dict[str, Any]:
    """Renders one template over all blocks into its own Parquet files; what was made, noted when all is written."""
    template, work = job.template, job.work
    register = _register(work)
    is_knowledge = template.header.family == "knowledge"
    blocks = range(1 if is_knowledge else job.n_blocks)
    groups = [blocks[start : start + _GROUP_BLOCKS] for start in range(0, len(blocks), _GROUP_BLOCKS)]
    (work / "rejected").mkdir(exist_ok=True)
    rejected_path = work / "rejected" / f"{template.id}.parquet"
    counts = {"n_rows": 0, "n_pairs": 0, "n_rejected": 0, "n_capped": 0}
    fingerprint = 0
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(_PairWriter(work / "stage", template.id))
        rejected = stack.enter_context(ParquetFile(rejected_path, REJECTED))
        for group in groups:
            connection = _group_connection(work, group)
            for part in render_block(template, connection, register, job.source):
                writer.write(part.pairs)
                rejected.write(part.rejected)
                counts["n_pairs"] += part.pairs.num_rows
                counts["n_rejected"] += part.rejected.num_rows
                counts["n_capped"] += part.n_capped
                fingerprint += part.fingerprint
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
        for split in pc.unique(pairs["split"]).to_pylist():
            part = pairs.filter(pc.equal(pairs["split"], split))
            while part.num_rows:
                file = self._file(split)
                taken = part.slice(0, layout.ROWS_PER_FILE - file.rows)
                file.write(taken)
                part = part.slice(taken.num_rows)
                if file.rows == layout.ROWS_PER_FILE:
                    file.close()
                    self.files.append((file.path, file.rows))
                    del self._open[split]

    def _file(self, split: str) -> ParquetFile:
        if split not in self._open:
            number = self._count.get(split, 0)
            self._count[split] = number + 1
            self._open[split] = ParquetFile(layout.pairs_path(self._stage, split, self._template_id, number), PAIRS)
        return self._open[split]


# ------------------------------------------------------------------------------------------- tables, manifest, stamps


def _write_tables(stage: Path, blocks: Blocks, source: _SourceFiles, guidelines: GuidelineSet) -> None:
    write_table(stage, "ecgs", blocks.parts("ecgs"), ECGS)
    write_table(stage, "labels", blocks.parts("source_labels"), LABELS)
    write_table(stage, "findings", blocks.parts("decided"), FINDINGS)
    write_table(stage, "guidelines", [guidelines.table()], GUIDELINES)
    (stage / "guideline_sources.yaml").write_text(guidelines.sources_text, encoding="utf-8")
    providers = list(dict.fromkeys((*source.providers, "measured")))
    columns: dict[str, pa.DataType] = {"ecg_id": pa.string(), "provider": pa.string()}
    for provider in providers:
        schema = next(blocks.parts(f"provider_{provider}")).schema
        columns |= {field.name: pa.float64() for field in schema if field.name not in columns}
    schema = pa.schema(columns)
    write_table(stage, "measurements", _measurement_parts(blocks, providers, schema), schema)


def _measurement_parts(blocks: Blocks, providers: list[str], schema: pa.Schema) -> Iterator[pa.Table]:
    for provider in providers:
        for part in blocks.parts(f"provider_{provider}"):
            rows = part.num_rows
            given = {**{name: part[name] for name in part.column_names}, "provider": pa.repeat(provider, rows)}
            yield pa.table(
                [
                    given[field.name].cast(field.type) if field.name in given else pa.nulls(rows, field.type)
                    for field in schema
                ],
                schema=schema,
            )


def _write_template_tables(
    stage: Path,
    work: Path,
    templates: TemplateSet,
    skipped: dict[str, str],
    done: dict[str, dict[str, Any]],
    blocks: Blocks,
    previous: Corpus | None,
    measured_before: Corpus | None,
) -> None:
    rows = []
    for template in templates:
        note = done.get(template.id, {})
        status = "built" if note else "skipped" if template.id in skipped else "not_selected"
        rows.append(
            {
                "template_id": template.id,
                "version": template.header.version,
                "family": template.header.family,
                "question_type": template.header.question_type,
                "template_hash": template.hash,
                "status": status,
                "status_detail": skipped.get(template.id),
                "vocabulary": list(template.vocabulary),
                **{name: note.get(name, 0) for name in ("n_rows", "n_pairs", "n_rejected", "n_capped")},
                "text": template.text,
            }
        )
    write_table(stage, "templates", [pa.Table.from_pylist(rows, schema=TEMPLATES)], TEMPLATES)
    write_table(stage, "rejected", _rejected_parts(work, done, blocks, previous, measured_before), REJECTED)


def _rejected_parts(
    work: Path,
    done: dict[str, dict[str, Any]],
    blocks: Blocks,
    previous: Corpus | None,
    measured_before: Corpus | None,
) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    yield read_arrow(work / "source_rejected.arrow")
    if measured_before is not None:
        yield measured_before.table("rejected").to_table(filter=pc.field("stage") == "signal")
    yield from blocks.parts("rejected")
    for template_id in sorted(done):
        if done[template_id].get("reused") and previous is not None:
            yield previous.table("rejected").to_table(filter=pc.field("template_id") == template_id)
        else:
            yield pq.read_table(work / "rejected" / f"{template_id}.parquet")


def _remove_unfinished(stage: Path, done: dict[str, dict[str, Any]]) -> None:
    """Removes what a killed run had begun and no finished template owns."""
    finished = {name for note in done.values() for name in note["files"]}
    for path in (stage / "pairs").rglob("*.parquet"):
        if str(path.relative_to(stage)) not in finished:
            path.unlink()


def _keep_simulated(config: BuildConfig, work: Path, stage: Path) -> None:
    if config.ptbxl is None:
        shutil.rmtree(stage / "simulated", ignore_errors=True)
        shutil.copytree(work / "simulated", stage / "simulated", copy_function=_link)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _manifest(
    stage: Path,
    config: BuildConfig,
    source: Source,
    guidelines: GuidelineSet,
    blocks: Blocks,
    done: dict[str, dict[str, Any]],
    skipped: dict[str, str],
    measured_before: Corpus | None,
) -> dict[str, Any]:
    import pyarrow.parquet as pq

    files: dict[str, dict[str, Any]] = {}
    counts = {}
    for table in layout.TABLES:
        if table == "pairs":
            continue
        path = layout.table_path(stage, table)
        counts[table] = pq.read_metadata(path).num_rows
        files[path.name] = {"bytes": path.stat().st_size, "rows": counts[table], "sha256": file_sha256(path)}
    bibliography = stage / "guideline_sources.yaml"
    files[bibliography.name] = {"bytes": bibliography.stat().st_size, "sha256": file_sha256(bibliography)}
    for path in sorted((stage / "simulated").rglob("*")):
        if path.is_file():
            files[str(path.relative_to(stage))] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    entries = []
    fingerprint = 0
    for template_id in sorted(done):
        note = {name: value for name, value in done[template_id].items() if name != "reused"}
        entries.append(note)
        files |= note["files"]
        fingerprint += int(note["fingerprint"], 16)
    counts["pairs"] = sum(note["n_pairs"] for note in entries)
    reasons = (
        pq.read_table(layout.table_path(stage, "rejected"), columns=["reason"])["reason"].value_counts().to_pylist()
    )
    return {
        "format": "ecglm corpus",
        "schema_version": SCHEMA_VERSION,
        "content_fingerprint": f"{fingerprint % (1 << 128):032x}",
        "counts": dict(sorted(counts.items())),
        "config": {
            "source": source.name,
            "limit": config.limit,
            "sampling_hz": config.sampling_hz,
            "families": sorted(config.families),
            **({"simulated": config.simulated, "seed": config.seed} if config.ptbxl is None else {}),
        },
        "inputs": {
            "source_files": dict(sorted(source.fingerprint.items())),
            "signals": measured_before.manifest["inputs"]["signals"] if measured_before else blocks.signals_digest(),
            "measured_version": MEASURED_VERSION,
            "guidelines": guidelines.fingerprint,
        },
        "attribution": [source.attribution],
        "versions": _versions(),
        "skipped": dict(sorted(skipped.items())),
        "rejected_reasons": {row["values"]: row["counts"] for row in sorted(reasons, key=lambda row: row["values"])},
        "templates": entries,
        "files": dict(sorted(files.items())),
    }


@contextlib.contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - started
