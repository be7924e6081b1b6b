"""Which of the waveform files that PTB-XL's metadata names are there."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from ecglm.synth.errors import SourceError
from ecglm.synth.schema import REJECTED
from ecglm.synth.sources import WAVEFORM_SUFFIXES, polars_schema
from ecglm.synth.sources.files import canonical, identity
from ecglm.synth.sources.ptbxl.metadata import DATABASE, PATH_COLUMN


def with_waveforms(root: Path, rows: pl.DataFrame, sampling_hz: int | None) -> tuple[pl.DataFrame, int]:
    """Add `signal_path` and `missing` (text naming what is not there, else null); return the sampling rate taken."""
    choices = [sampling_hz] if sampling_hz else list(PATH_COLUMN)
    for hz in choices:
        column = PATH_COLUMN[hz]
        listed = _listed_files(root, rows[column])
        absent = [
            pl.when(~(pl.col(column) + suffix).is_in(listed.implode())).then(pl.col(column) + suffix)
            for suffix in WAVEFORM_SUFFIXES
        ]
        names = pl.concat_str(absent, separator=" and ", ignore_nulls=True)
        missing = (
            pl.when(pl.col(column).is_null())
            .then(pl.lit(f"{DATABASE}, column {column}: empty cell, so no waveform file is named"))
            .when(names != "")
            .then(pl.format("{}: not in the folder", names))
        )
        found = rows.with_columns(
            pl.col(column).alias("signal_path"),
            missing.alias("missing"),
            pl.col("ecg_id_value").cast(pl.Int64).alias("native_id"),
        )
        if found["missing"].null_count():
            return found, hz
    columns = " and ".join(PATH_COLUMN[hz] for hz in choices)
    example = next((path for path in rows[PATH_COLUMN[choices[0]]] if path), "records100/00000/00001_lr")
    other = f", or leave sampling_hz={sampling_hz} out" if sampling_hz else ""
    raise SourceError(
        f"{root}: none of the waveform files that {DATABASE} names in {columns} is here (for example {example}.hea); "
        f"download or unpack the records100 or records500 folder beside {DATABASE}{other}"
    )


def _listed_files(root: Path, paths: pl.Series) -> pl.Series:
    """Waveform files in the folders that `paths` point to, relative to the root."""
    names: list[str] = []
    for folder in sorted({path.rpartition("/")[0] for path in paths.drop_nulls().to_list()}):
        if (root / folder).is_dir():
            prefix = f"{folder}/" if folder else ""
            with os.scandir(root / folder) as entries:
                names += [prefix + entry.name for entry in entries if entry.name.endswith(WAVEFORM_SUFFIXES)]
    return pl.Series(names, dtype=pl.String)


def rejected_table(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    return canonical(
        rows.filter(pl.col("missing").is_not_null()).select(
            pl.lit("source").alias("stage"),
            pl.concat_list(identity(name, "native_id")).alias("ecg_ids"),
            pl.lit(None, pl.String).alias("template_id"),
            pl.lit(None, pl.String).alias("slots"),
            pl.lit("missing_waveform").alias("reason"),
            (pl.col("missing") + "; download or unpack this record to use it").alias("detail"),
        ),
        polars_schema(REJECTED),
    )
