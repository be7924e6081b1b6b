"""`synth build`: from a source to a corpus folder, whole or not at all, resumable, the same bytes every time."""

from __future__ import annotations

import contextlib
import platform
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ecglm.synth.build.arrow_files import write_arrow
from ecglm.synth.build.blocks import (
    BlockJob,
    Blocks,
    across_tasks,
    block_is_whole,
    block_ranges,
    close_derivation,
    joined_across,
    prepare_block,
    write_across_blocks,
)
from ecglm.synth.build.config import BuildConfig, read_config
from ecglm.synth.build.inputs import (
    InputStamps,
    cached_stamp,
    code_stamp,
    input_stamps,
    is_up_to_date,
    made_by_this_code,
    n_excluded,
    none_usable,
    open_source,
    previous_corpus,
)
from ecglm.synth.build.kept import Prepared, blocks_held, found_prepared, is_prepared, keep_prepared
from ecglm.synth.build.progress import Progress, stepper
from ecglm.synth.build.reading import read_source
from ecglm.synth.build.rendering import close_views, render_all
from ecglm.synth.build.source_files import SourceFiles
from ecglm.synth.build.staging import finish_swap, holds_work, locked, prepare_work, swap, told_plainly, work_folder
from ecglm.synth.build.tables import (
    keep_simulated,
    make_manifest,
    remove_unfinished,
    write_findings,
    write_measurements,
    write_tables,
    write_template_tables,
)
from ecglm.synth.build.workers import apart, workers
from ecglm.synth.card import write_card
from ecglm.synth.corpus import BUILD_LOG, CARD, MANIFEST, Corpus, file_sha256, write_json
from ecglm.synth.facts import KNOWLEDGE_VIEWS
from ecglm.synth.guidelines import GuidelineSet, load_guidelines
from ecglm.synth.schema import REJECTED
from ecglm.synth.templates import TemplateSet, load_templates

Definitions = tuple[GuidelineSet, TemplateSet]


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


def plan(config: BuildConfig) -> Plan:
    """What `build` would do; nothing is written."""
    guidelines, templates = load_guidelines(config.guidelines), load_templates(config.templates)
    chosen = tuple(t.id for t in templates if t.header.family in config.families)
    up_to_date = is_up_to_date(config.out, input_stamps(config))
    if config.folder is None:
        ecgs = min(config.simulated, config.limit or config.simulated)
        return Plan("simulated", ecgs, 0, chosen, len(guidelines.by_code), up_to_date)
    source = open_source(config, config.folder)
    ecgs = source.ecgs.select("ecg_id").collect().height
    left_out = n_excluded(config, source)
    return Plan(
        source.name,
        ecgs - left_out,
        source.rejected.collect().height + left_out,
        chosen,
        len(guidelines.by_code),
        up_to_date,
    )


def build(config: BuildConfig, progress: Progress | None = None) -> BuildResult:
    """Builds a corpus.

    Raises:
        ECGLMError: bad input or a full disk; the folder `out` is as it was before.
    """
    started = time.perf_counter()
    tell = progress or (lambda stage, done, of: None)
    out = config.out.absolute()
    work = work_folder(out)
    with told_plainly(work, out), locked(work, out):
        finish_swap(work, out)
        stamps = input_stamps(config)
        if config.resume != "never" and is_up_to_date(out, stamps):
            finished = Corpus.open(out)
            return _result(finished, 0, len(finished.manifest["templates"]), time.perf_counter() - started)
        result = _build_locked(config, work, out, stamps, tell, started)
        shutil.rmtree(work, ignore_errors=True)
        return result


def _build_locked(
    config: BuildConfig,
    work: Path,
    out: Path,
    stamps: InputStamps | None,
    tell: Progress,
    started: float,
) -> BuildResult:
    timings = dict.fromkeys(("source", "measure and join"), 0.0)
    previous = previous_corpus(out) if config.resume != "never" else None
    # a mistake in them must not cost what an earlier build finished
    definitions = _definitions(config) if holds_work(work) else None
    prepare_work(work, stamps.everything if stamps else None, config.out, config.resume)
    stage = work / "stage"
    kept_as = cached_stamp(config, stamps)
    with blocks_held(work, kept_as, anew=config.resume == "never"):
        with contextlib.ExitStack() as stack:
            prepared: Prepared | None = None
            if is_prepared(work):
                run = stack.enter_context(workers(config.workers, close_views))
                with _timed(timings, "source"):
                    prepared, definitions = _find(config, work, definitions)
            prepared_before = prepared is not None
            if prepared is None or definitions is None:
                # what is kept is of this code alone
                trusted = previous if kept_as is None or made_by_this_code(previous) else None
                source, definitions = _derive(config, work, trusted, definitions, tell, timings)
                run = stack.enter_context(workers(config.workers, close_views))  # without what deriving left in memory
                with _timed(timings, "measure and join"):
                    blocks = Blocks(work, source.n_ecgs)
                    written = run(write_across_blocks, across_tasks(blocks), lambda done: None)
                    prepared = Prepared(source, joined_across(written), blocks.write_knowledge(definitions[0]))
                    keep_prepared(work, prepared, len(blocks.numbers))
            guidelines, templates = definitions
            source, across, blocks = prepared.source, prepared.across, Blocks(work, prepared.source.n_ecgs)
            stage.mkdir(exist_ok=True)
            ecgs = pa.concat_tables(blocks.parts("ecgs")).select(["ecg_id", "patient_id", "strat_fold", "split"])
            register = write_arrow(work / "register.arrow", ecgs)
            digests = {
                **blocks.digests(),
                **prepared.knowledge,
                **{name: view.digest for name, view in across.items()},
                "register": register,
            }
            rows = {**blocks.rows(), **{name: view.n_rows for name, view in across.items()}}
            available = {name for name, n_rows in rows.items() if n_rows}
            available |= {name for name, known in blocks.known().items() if known} | set(KNOWLEDGE_VIEWS)
            selected = [template for template in templates if template.header.family in config.families]
            skipped = {
                t.id: f"needs {', '.join(sorted(set(t.header.needs) - available))}"
                for t in selected
                if set(t.header.needs) - available
            }
            with _timed(timings, "render"):
                done, reused = render_all(
                    run,
                    work,
                    out,
                    previous,
                    source.name,
                    [t for t in selected if t.id not in skipped],
                    len(blocks.numbers),
                    digests,
                    tell,
                    beside=[
                        (write_measurements, stage, blocks, source.providers),
                        (write_findings, stage, blocks),
                        (write_tables, stage, blocks, source, guidelines),
                    ],
                )
                remove_unfinished(stage, done)
                tables = (stage, work, templates, skipped, done, blocks, previous, source.taken_over)
                run(write_template_tables, [tables], lambda done: None)
        with _timed(timings, "finish"):
            keep_simulated(config, work, stage)
            manifest = make_manifest(stage, config, source, guidelines, blocks, done, skipped)
            write_card(stage, manifest)
            card = stage / CARD
            manifest["files"][CARD] = {"bytes": card.stat().st_size, "sha256": file_sha256(card)}
            seconds = time.perf_counter() - started
            write_json(
                stage / BUILD_LOG,
                {
                    "input_stamp": stamps.everything if stamps else None,
                    "code": code_stamp(),
                    "signals_stamp": source.signal_stamp,
                    "workers": config.workers,
                    "prepared_before": prepared_before,
                    "seconds": round(seconds, 3),
                    "stages": {name: round(value, 3) for name, value in timings.items()},
                    "templates_rendered": len(done) - reused,
                    "templates_reused": reused,
                    "platform": platform.platform(),
                },
            )
            write_json(stage / MANIFEST, manifest)
            swap(work, out)
    return _result(Corpus.open(out), len(done) - reused, reused, time.perf_counter() - started)


def _find(config: BuildConfig, work: Path, definitions: Definitions | None) -> tuple[Prepared | None, Definitions]:
    """What an earlier build prepared, if it is whole; it was made with these guidelines, so their SQL is right."""
    with ThreadPoolExecutor(1) as beside:
        finding = beside.submit(found_prepared, work)
        definitions = definitions or _definitions(config, check_sql=False)
        return finding.result(), definitions


def _derive(
    config: BuildConfig,
    work: Path,
    previous: Corpus | None,
    definitions: Definitions | None,
    tell: Progress,
    timings: dict[str, float],
) -> tuple[SourceFiles, Definitions]:
    """Reads the source, and measures and joins its ECGs block by block, but for blocks that are there."""
    with (
        apart(config.workers, tell, read_source, config, work, previous) as source_read,
        workers(config.workers, close_derivation) as run,
    ):
        with _timed(timings, "source"):
            definitions = definitions or _definitions(config)
            source, waveforms = source_read()
        job = BlockJob(
            work=work,
            source=source.name,
            waveforms=waveforms,
            guidelines=config.guidelines,
            providers=source.providers,
            taken_over=source.taken_over is not None,
            ecgqa="ecgqa" in config.families,
        )
        ranges = block_ranges(source.n_ecgs)
        with _timed(timings, "measure and join"):
            tasks = [(job, *each) for each in ranges if not block_is_whole(work, each[0], taken_over=job.taken_over)]
            run(prepare_block, tasks, lambda done: tell("measuring ECGs", done + len(ranges) - len(tasks), len(ranges)))
    blocks = Blocks(work, source.n_ecgs)
    if not sum(note["n_ecgs"] for note in blocks.notes):
        raise none_usable(
            config.folder or work / "simulated", pa.concat_tables([REJECTED.empty_table(), *blocks.parts("rejected")])
        )
    return source, definitions


def _definitions(config: BuildConfig, *, check_sql: bool = True) -> Definitions:
    return load_guidelines(config.guidelines, check_sql=check_sql), load_templates(config.templates)


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


@contextlib.contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - started


__all__ = ["BuildConfig", "BuildResult", "Plan", "Progress", "build", "plan", "read_config", "stepper"]
