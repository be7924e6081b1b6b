"""`synth audit`: every criterion of every guideline against the labels of a source, as tables and as a page."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.audit.disagreements import KINDS, disagreement_table
from ecglm.synth.audit.judged import Judged, Rulebook, judge
from ecglm.synth.audit.page import write_page
from ecglm.synth.audit.rates import criteria_table, patient_bootstrap
from ecglm.synth.audit.standing import Labels, Standing, read_standing
from ecglm.synth.build.arrow_files import read_arrow
from ecglm.synth.build.blocks import MEASURED
from ecglm.synth.build.config import MeasuredConfig
from ecglm.synth.build.inputs import open_source, source_root, versions, write_source
from ecglm.synth.build.measuring import MeasureConfig, measure
from ecglm.synth.build.progress import Progress
from ecglm.synth.build.source_files import SourceFiles
from ecglm.synth.build.staging import Kind, finish_swap, locked, prepare_work, swap, told_plainly, work_folder
from ecglm.synth.corpus import file_sha256, write_json, write_table
from ecglm.synth.errors import SourceError
from ecglm.synth.guidelines import load_guidelines
from ecglm.synth.measure import MEASURED_VERSION
from ecglm.synth.measure import table as measured_layout
from ecglm.synth.schema import AUDIT_CRITERIA, AUDIT_DISAGREEMENTS
from ecglm.synth.sources import Source

FORMAT = "ecglm audit"
MANIFEST = "audit.json"
PAGE = "index.html"
N_RESAMPLES = 1000
BOOTSTRAP_SEED = 0

AUDIT = Kind("an audit", MANIFEST, "audit")


class AuditConfig(MeasuredConfig):
    """Which ECGs, whose measurements and which guidelines are audited, and where the audit goes."""

    out: Path = Path("audit")


@dataclass(frozen=True)
class AuditResult:
    """What an audit found."""

    out: Path
    source: str
    providers: tuple[str, ...]
    ecgs: int
    patients: int
    statements: int
    """Statements with criteria."""
    labelled: int
    """Those of them that the source labels."""
    criteria: int
    disagreements: dict[str, dict[str, int]]
    """Provider → kind → number of rows."""
    pictures: int
    """ECGs drawn on the page."""
    seconds: float


def audit(config: AuditConfig, progress: Progress | None = None) -> AuditResult:
    """Audits guidelines on a source.

    Raises:
        ECGLMError: bad input or a full disk; the folder `out` is as it was before.
    """
    started = time.perf_counter()
    tell = progress or (lambda stage, done, of: None)
    out = config.out.absolute()
    work = work_folder(out, AUDIT)
    with told_plainly(work, out, AUDIT), locked(work, out, AUDIT):
        finish_swap(work, out)
        prepare_work(work, None, config.out, "never")
        manifest = _audit_locked(config, work, tell)
        swap(work, out)
        shutil.rmtree(work, ignore_errors=True)
    counts = dict(manifest["counts"])
    return AuditResult(
        out=out,
        source=manifest["source"],
        providers=tuple(manifest["providers"]),
        **counts,
        seconds=round(time.perf_counter() - started, 3),
    )


def _audit_locked(config: AuditConfig, work: Path, tell: Progress) -> dict[str, Any]:
    rulebook = Rulebook.of(load_guidelines(config.guidelines))
    root = source_root(config, work, tell)
    config = _with_measurements(config, root, work, tell)
    source = open_source(config, root)
    files = write_source(work, source, config, None, tell)
    ecgs, labels = read_arrow(work / "ecgs.arrow"), read_arrow(work / "labels.arrow")
    labels = labels.filter(pc.is_in(labels["ecg_id"], value_set=ecgs["ecg_id"].combine_chunks()))
    if not labels.num_rows:
        raise SourceError(f"{root}: no ECG has a label, so there is nothing to audit against; add labels to the source")
    bootstrap = patient_bootstrap(ecgs, N_RESAMPLES, BOOTSTRAP_SEED)
    judgements: list[tuple[Judged, Labels]] = []
    criteria, disagreements = [], []
    steps = 2 * len(files.providers) + 1
    for number, provider in enumerate(files.providers):
        tell("auditing", 2 * number, steps)
        judged = judge(provider, read_arrow(work / "providers" / f"{provider}.arrow"), ecgs, rulebook)
        standing = read_standing(ecgs, labels, rulebook.guidelines, judged)
        disagreements.append(disagreement_table(judged, standing, ecgs, labels, rulebook))
        tell("auditing", 2 * number + 1, steps)
        criteria.append(criteria_table(judged, standing, ecgs, rulebook, bootstrap))
        judgements.append((judged, standing))
    tell("auditing", steps - 1, steps)
    stage = work / "stage"
    stage.mkdir(exist_ok=True)
    write_table(stage, "criteria", criteria, AUDIT_CRITERIA)
    write_table(stage, "disagreements", disagreements, AUDIT_DISAGREEMENTS)
    manifest = _manifest(config, source, files, ecgs, rulebook, judgements[0][1], disagreements)
    manifest["counts"]["pictures"] = write_page(
        stage / PAGE, manifest, source, ecgs, rulebook, criteria, disagreements, judgements[0]
    )
    names = ("criteria.parquet", "disagreements.parquet", PAGE)
    manifest["files"] = {
        name: {"bytes": (stage / name).stat().st_size, "sha256": file_sha256(stage / name)} for name in names
    }
    write_json(stage / MANIFEST, manifest)
    tell("auditing", steps, steps)
    return manifest


def _with_measurements(config: AuditConfig, root: Path, work: Path, tell: Progress) -> AuditConfig:
    """The configuration with a folder of measurements, made now if none of those given has them."""
    wanted = config.providers is None or MEASURED in config.providers
    if not wanted or any((folder / measured_layout.MANIFEST).is_file() for folder in config.ptbxl_plus):
        return config
    named = config.model_dump(include=set(MeasureConfig.model_fields), exclude_unset=True, exclude={"out"})
    if config.folder is None:
        named["ptbxl"] = root
    made = work / "measured"
    measure(MeasureConfig.model_validate({**named, "out": made}), tell)
    return config.model_copy(update={"ptbxl_plus": (*config.ptbxl_plus, made)})


def _manifest(
    config: AuditConfig,
    source: Source,
    files: SourceFiles,
    ecgs: pa.Table,
    rulebook: Rulebook,
    standing: Labels,
    disagreements: list[pa.Table],
) -> dict[str, Any]:
    patients = pc.count_distinct(ecgs["patient_id"]).as_py()
    kinds = {
        provider: {kind: pc.sum(pc.equal(table["kind"], kind)).as_py() or 0 for kind in KINDS}
        for provider, table in zip(files.providers, disagreements, strict=True)
    }
    return {
        "format": FORMAT,
        "source": files.name,
        "providers": list(files.providers),
        "limit": config.limit,
        **({"simulated": config.simulated, "seed": config.seed} if config.folder is None else {}),
        "bootstrap": {"over": "patients", "resamples": N_RESAMPLES, "seed": BOOTSTRAP_SEED, "level": 0.95},
        "counts": {
            "ecgs": ecgs.num_rows,
            "patients": patients,
            "statements": len(rulebook.codes),
            "labelled": int((standing.standing == Standing.POSITIVE).any(axis=0).sum()),
            "criteria": len(rulebook.rules),
            "disagreements": kinds,
        },
        "inputs": {
            "source_files": dict(sorted(files.fingerprint.items())),
            "signals": files.taken_over.signals if files.taken_over else None,
            "measured_version": MEASURED_VERSION if MEASURED in files.providers else None,
            "guidelines": rulebook.guidelines.fingerprint,
        },
        "attribution": [dict(each) for each in files.attribution],
        "versions": versions(),
    }
