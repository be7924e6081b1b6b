"""PTB-XL (Wagner et al. 2020), versions 1.0.1 to 1.0.3, whole or in part, and simulated folders of the same layout."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from ecglm.synth.errors import SourceError
from ecglm.synth.sources import Source
from ecglm.synth.sources.files import identity, read_bytes
from ecglm.synth.sources.ptbxl.metadata import DATABASE, PATH_COLUMN, check, read_database, read_statements
from ecglm.synth.sources.ptbxl.tables import ecgs_table, labels_table, with_previous
from ecglm.synth.sources.ptbxl.waveforms import rejected_table, with_waveforms

SIMULATED = "SIMULATED.json"

_VERSIONS = {
    21837: ("1.0.1", "10.13026/x4td-x982"),
    21801: ("1.0.2", "10.13026/zx4k-te85"),
    21799: ("1.0.3", "10.13026/kfzx-aw45"),
}
"""Number of ECGs → version and DOI."""
_DOI_OF_ANY_VERSION = "10.13026/6sec-a640"
_CITATION = (
    "Wagner P, Strodthoff N, Bousseljot R-D, Kreiseler D, Lunze FI, Samek W, Schaeffter T. PTB-XL, a large publicly "
    "available electrocardiography dataset. Scientific Data 2020;7:154. doi:10.1038/s41597-020-0495-6"
)


def open_ptbxl(root: Path, *, limit: int | None = None, sampling_hz: int | None = None) -> Source:
    """The PTB-XL folder at `root` as canonical tables; the first `limit` ECGs by id that have their waveform files.

    `sampling_hz` is 100 or 500; left out, 100 where the folder has any. A folder with a SIMULATED.json becomes the
    source "simulated", with the attribution that file gives and the tables of `features/` as measurement providers.

    `previous_ecg_id` comes from all rows of the metadata, and is null where that ECG is not among those returned:
    an ECG two visits back is never passed off as the one before.

    Raises:
        SourceError: a metadata file is missing, damaged or contradicts itself (all problems at once), or no waveform
            file is there.
    """
    root = Path(root)
    if not root.is_dir():
        raise SourceError(f"{root}: not a folder; give the folder that holds {DATABASE}")
    if limit is not None and limit < 1:
        raise SourceError(f"limit {limit}: expected at least 1; leave it out to take every ECG")
    if sampling_hz is not None and sampling_hz not in PATH_COLUMN:
        raise SourceError(f"sampling_hz {sampling_hz}: PTB-XL has {' and '.join(map(str, PATH_COLUMN))} Hz; choose one")
    fingerprint: dict[str, str] = {}
    simulated = _simulated_attribution(root, fingerprint)
    name = "ptbxl" if simulated is None else "simulated"
    statements = read_statements(root, fingerprint)
    rows = read_database(root, fingerprint)
    labels = check(root / DATABASE, rows, statements)
    rows, sampling_hz = with_waveforms(root, rows, sampling_hz)
    rows = with_previous(rows)
    if limit is not None:
        last = rows.filter(pl.col("missing").is_null()).head(limit)["native_id"][-1]
        told = pl.when(pl.col("previous_id") <= last)
        rows = rows.filter(pl.col("native_id") <= last).with_columns(
            told.then(column).alias(column) for column in ("previous_id", "days_since_previous")
        )
    ecgs = ecgs_table(rows, name, sampling_hz)
    return Source(
        name=name,
        root=root,
        ecgs=ecgs.lazy(),
        labels=labels_table(labels, statements, ecgs, name).lazy(),
        providers=_providers(root, name, ecgs, fingerprint) if simulated is not None else {},
        rejected=rejected_table(rows, name).lazy(),
        statements=statements,
        attribution=simulated or _attribution(rows["n_rows"][0]),
        fingerprint=fingerprint,
    )


def _simulated_attribution(root: Path, fingerprint: dict[str, str]) -> dict[str, str] | None:
    path = root / SIMULATED
    if not path.exists():
        return None
    try:
        told = json.loads(read_bytes(path, root, fingerprint))
    except ValueError as error:
        raise SourceError(f"{path}: not valid JSON: {error}; write the folder again") from error
    if not isinstance(told, dict):
        raise SourceError(f"{path}: found a {type(told).__name__}, expected an object with name, version and licence")
    told = {"version": told.get("simulator_version"), **told}
    defaults = {"name": "simulated ECGs", "version": "", "licence": "CC0-1.0", "citation": "", "doi": ""}
    return {field: str(told.get(field) or default) for field, default in defaults.items()}


def _attribution(n_rows: int) -> dict[str, str]:
    version, doi = _VERSIONS.get(n_rows, (f"unknown ({n_rows} rows)", _DOI_OF_ANY_VERSION))
    return {"name": "PTB-XL", "version": version, "licence": "CC BY 4.0", "citation": _CITATION, "doi": doi}


def _providers(root: Path, name: str, ecgs: pl.DataFrame, fingerprint: dict[str, str]) -> dict[str, pl.LazyFrame]:
    """features/<provider>_features.parquet or .csv, with the canonical `ecg_id`, for the ECGs at hand."""
    providers: dict[str, pl.LazyFrame] = {}
    for path in sorted(
        (root / "features").glob("*_features.*"), key=lambda path: (path.stem, path.suffix != ".parquet")
    ):
        provider = path.stem.removesuffix("_features")
        if path.suffix not in (".parquet", ".csv") or provider in providers:
            continue
        read_bytes(path, root, fingerprint)
        try:
            table = pl.scan_parquet(path) if path.suffix == ".parquet" else pl.scan_csv(path, infer_schema_length=None)
            id_type = table.collect_schema().get("ecg_id")
            if id_type is None or not id_type.is_integer():
                raise SourceError(
                    f"{path}: column ecg_id: found {id_type}, expected whole numbers; write the file again"
                )
            doubled = table.filter(pl.col("ecg_id").is_duplicated()).select("ecg_id").head(1).collect()
        except pl.exceptions.PolarsError as error:
            reason = str(error).split("\n", 1)[0]
            raise SourceError(f"{path}: cannot be read as a table: {reason}; write the file again") from error
        if doubled.height:
            raise SourceError(f"{path}: ecg_id {doubled.item()} appears twice, expected once; write the file again")
        canonical = table.with_columns(identity(name, "ecg_id").alias("ecg_id"))
        providers[provider] = canonical.join(
            ecgs.lazy().select("ecg_id"), on="ecg_id", how="semi", maintain_order="left"
        )
    return providers
