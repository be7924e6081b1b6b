"""The tables beside the pairs, and the manifest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecglm.synth.build.arrow_files import file_digest, is_as_written, read_arrow
from ecglm.synth.build.blocks import Blocks
from ecglm.synth.build.config import BuildConfig
from ecglm.synth.build.inputs import versions
from ecglm.synth.build.source_files import SourceFiles, TakenOver, optional_path, source_rejected_path
from ecglm.synth.build.used import USED
from ecglm.synth.corpus import TABLES, Corpus, file_sha256, read_parquet, table_path, write_table
from ecglm.synth.guidelines import GuidelineSet
from ecglm.synth.measure import MEASURED_VERSION
from ecglm.synth.schema import (
    ECGS,
    FINDINGS,
    GATE,
    GUIDELINES,
    LABELS,
    OPTIONAL_TABLES,
    REJECTED,
    SCHEMA_VERSION,
    TEMPLATES,
)
from ecglm.synth.templates import TemplateSet


def write_tables(stage: Path, blocks: Blocks, source: SourceFiles, guidelines: GuidelineSet) -> None:
    """The small ones; see `write_findings` and `write_measurements`."""
    write_table(stage, "ecgs", blocks.parts("ecgs"), ECGS)
    write_table(stage, "labels", blocks.parts("source_labels"), LABELS)
    write_table(stage, "guidelines", [guidelines.table()], GUIDELINES)
    write_table(stage, "gate", [blocks.gate()], GATE)
    for name in source.tables:
        write_table(stage, name, [read_arrow(optional_path(blocks.work, name))], OPTIONAL_TABLES[name])
    (stage / "guideline_sources.yaml").write_text(guidelines.sources_text, encoding="utf-8")


def write_findings(stage: Path, blocks: Blocks) -> None:
    _written_once(stage, blocks, "findings", lambda: (blocks.parts("decided"), FINDINGS))


def write_measurements(stage: Path, blocks: Blocks, providers: Sequence[str]) -> None:
    def content() -> tuple[Iterator[pa.Table], pa.Schema]:
        schema = _measurements_schema(blocks, providers)
        return _measurement_parts(blocks, providers, schema), schema

    _written_once(stage, blocks, "measurements", content)


def _written_once(
    stage: Path, blocks: Blocks, name: str, content: Callable[[], tuple[Iterator[pa.Table], pa.Schema]]
) -> None:
    """Writes a table, or takes over what an earlier build of the same blocks wrote.

    Args:
        stage: where it goes.
        blocks: beside which it is kept.
        name: of the table.
        content: gives its parts and its schema.
    """
    target = table_path(stage, name)
    for kept in blocks.root.glob(f"{name}-*{target.suffix}"):
        if is_as_written(kept, kept.stem.removeprefix(f"{name}-")):
            shutil.copyfile(kept, target)
            return
        kept.unlink(missing_ok=True)
    write_table(stage, name, *content())
    kept = blocks.root / f"{name}-{file_digest(target)}{target.suffix}"
    temporary = kept.with_name(f"{kept.name}.{os.getpid()}")  # other builds may look at these blocks
    try:
        shutil.copyfile(target, temporary)
        temporary.replace(kept)
    except OSError:  # the build goes on without
        temporary.unlink(missing_ok=True)


def _measurements_schema(blocks: Blocks, providers: Sequence[str]) -> pa.Schema:
    columns: dict[str, pa.DataType] = {"ecg_id": pa.string(), "provider": pa.string(), USED: pa.list_(pa.string())}
    for provider in providers:
        schema = next(blocks.parts(f"provider_{provider}")).schema
        columns |= {field.name: pa.float64() for field in schema if field.name not in columns}
    return pa.schema(columns)


def _measurement_parts(blocks: Blocks, providers: Sequence[str], schema: pa.Schema) -> Iterator[pa.Table]:
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


def write_template_tables(
    stage: Path,
    work: Path,
    templates: TemplateSet,
    skipped: dict[str, str],
    done: dict[str, dict[str, Any]],
    blocks: Blocks,
    previous: Corpus | None,
    taken_over: TakenOver | None,
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
    write_table(stage, "rejected", _rejected_parts(work, done, blocks, previous, taken_over), REJECTED)


def _rejected_parts(
    work: Path,
    done: dict[str, dict[str, Any]],
    blocks: Blocks,
    previous: Corpus | None,
    taken_over: TakenOver | None,
) -> Iterator[pa.Table]:

    yield read_arrow(source_rejected_path(work))
    if taken_over is not None:
        yield taken_over.rejected
    yield from blocks.parts("rejected")
    before: pa.Table | None = None
    for template_id in sorted(done):
        if done[template_id].get("reused") and previous is not None:
            if before is None:
                texts = [field.name for field in REJECTED if field.type == pa.string()]
                before = read_parquet(table_path(previous.root, "rejected"), repeated=texts)
            yield before.filter(pc.equal(before["template_id"], template_id))
        else:
            yield read_parquet(work / "rejected" / f"{template_id}.parquet")


def remove_unfinished(stage: Path, done: dict[str, dict[str, Any]]) -> None:
    """Removes what a killed run had begun and no finished template owns."""
    finished = {name for note in done.values() for name in note["files"]}
    for path in (stage / "pairs").rglob("*.parquet"):
        if str(path.relative_to(stage)) not in finished:
            path.unlink()


def keep_simulated(config: BuildConfig, work: Path, stage: Path) -> None:
    if config.folder is None:
        shutil.rmtree(stage / "simulated", ignore_errors=True)
        shutil.copytree(work / "simulated", stage / "simulated", copy_function=_link)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def make_manifest(
    stage: Path,
    config: BuildConfig,
    source: SourceFiles,
    guidelines: GuidelineSet,
    blocks: Blocks,
    done: dict[str, dict[str, Any]],
    skipped: dict[str, str],
) -> dict[str, Any]:

    files: dict[str, dict[str, Any]] = {}
    counts = {}
    for table in (*TABLES, *source.tables):
        if table == "pairs":
            continue
        path = table_path(stage, table)
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
    reasons = read_parquet(table_path(stage, "rejected"), ["reason"])["reason"].value_counts().to_pylist()
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
            **({"exclude_ecgqa_test": config.exclude_ecgqa_test is not None} if config.ecgqa_folder else {}),
            "providers": list(source.providers),
            **({"splits": list(config.splits)} if config.wfdb is not None else {}),
            **({"simulated": config.simulated, "seed": config.seed} if config.folder is None else {}),
        },
        "inputs": {
            "source_files": dict(sorted(source.fingerprint.items())),
            "signals": source.taken_over.signals if source.taken_over else blocks.signals_digest(),
            "measured_version": MEASURED_VERSION,
            "guidelines": guidelines.fingerprint,
        },
        "attribution": list(source.attribution),
        "versions": versions(),
        "skipped": dict(sorted(skipped.items())),
        "rejected_reasons": {row["values"]: row["counts"] for row in sorted(reasons, key=lambda row: row["values"])},
        "templates": entries,
        "files": dict(sorted(files.items())),
    }
