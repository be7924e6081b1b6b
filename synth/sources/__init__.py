"""Where ECGs come from. Every source is read into the same canonical tables (see `ecglm.synth.schema`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import xxhash

if TYPE_CHECKING:
    import polars as pl

WAVEFORM_SUFFIXES = (".hea", ".dat")


@dataclass(frozen=True)
class Source:
    """One folder of ECGs as lazy tables in the canonical schema, with what a corpus must say about its origin."""

    name: str
    """Stands before the colon of every ECG and patient id: "ptbxl" or "simulated"."""
    root: Path
    ecgs: pl.LazyFrame
    """Columns of schema.ECGS, in the order of the native ids; only ECGs whose waveform files are there."""
    labels: pl.LazyFrame
    """Columns of schema.LABELS, in the order of `ecgs`, then as the source lists the statements of an ECG."""
    providers: Mapping[str, pl.LazyFrame]
    """Provider name → `ecg_id` and measurement columns."""
    rejected: pl.LazyFrame
    """Columns of schema.REJECTED: rows of the metadata that cannot be used, and why."""
    statements: pl.DataFrame
    """Columns code, description, kinds, superclass, subclass: every statement the source can make."""
    attribution: Mapping[str, str]
    """name, version, licence, citation, doi."""
    fingerprint: Mapping[str, str]
    """Metadata file, relative to the root → SHA-256 of its bytes."""
    ecg_only: bool = False
    """Whether a record may hold signals that are no ECG, which are left out, and keep them in files of any name; else
    it is not usable, and its files are those with WAVEFORM_SUFFIXES."""


def polars_schema(schema: pa.Schema) -> pl.Schema:
    """The polars names and types of a canonical Arrow schema."""
    import polars as pl  # the workers of a build need none of it, and it takes as long as all else they import

    frame = pl.from_arrow(schema.empty_table())
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table never becomes a Series
    return frame.schema


def signal_stamp(source: Source) -> str:
    """Hash over name, size and modification time of the waveform files of `source.ecgs`; reads none of them."""
    paths = set(source.ecgs.select("signal_path").collect().to_series().to_list())
    stamp = xxhash.xxh3_128()
    for folder in sorted({path.rpartition("/")[0] for path in paths}):
        with os.scandir(source.root / folder) as entries:
            lines = []
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - 44,000 Path objects take half a second
                path = f"{folder}/{stem}" if folder else stem
                ours = entry.is_file() if source.ecg_only else suffix in WAVEFORM_SUFFIXES and path in paths
                if ours:
                    status = entry.stat()
                    lines.append(f"{path}{suffix} {status.st_size} {status.st_mtime_ns}\n")
        stamp.update("".join(sorted(lines)).encode())
    return stamp.hexdigest()
