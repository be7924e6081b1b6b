"""Folders given beside a source with `--ptbxl-plus`: what they bring, and which provider is asked first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from ecglm.synth.build.blocks import MEASURED
from ecglm.synth.errors import DefinitionError, SourceError
from ecglm.synth.measure import table as measured_table
from ecglm.synth.schema import OPTIONAL_TABLES, REJECTED
from ecglm.synth.sources import Source

if TYPE_CHECKING:
    import polars as pl

    from ecglm.synth.sources.ptbxl_plus import PtbxlPlus

PREFERRED = ("12sl", "unig")
"""Providers asked before `measured` unless the configuration says otherwise; others are asked only if it names them."""


@dataclass(frozen=True)
class Extras:
    """What the folders beside a source bring."""

    providers: Mapping[str, pl.LazyFrame] = field(default_factory=dict)
    """Provider name → canonical `ecg_id` and measurement columns."""
    measured: measured_table.MeasuredTable | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    """File, under the name of its kind of folder → SHA-256 of its bytes."""
    attribution: tuple[Mapping[str, str], ...] = ()
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    """Of schema.OPTIONAL_TABLES."""
    rejected: pa.Table = field(default_factory=REJECTED.empty_table)


def read_extras(folders: Sequence[Path], source: Source) -> Extras:
    """What the folders bring for the ECGs of a source.

    Raises:
        SourceError: a folder is neither PTB-XL+ nor made by `synth measure`, or two bring the same provider.
    """
    from ecglm.synth.sources.ptbxl_plus import is_ptbxl_plus, open_ptbxl_plus

    measured: measured_table.MeasuredTable | None = None
    official: PtbxlPlus | None = None
    fingerprint: dict[str, str] = {}
    for folder in folders:
        if not folder.is_dir():
            raise SourceError(f"{folder}: not a folder; give the folder of PTB-XL+, or one made by `synth measure`")
        made_here = (folder / measured_table.FEATURES).is_file() or (folder / measured_table.MANIFEST).is_file()
        if made_here:
            if measured is not None:
                raise SourceError(f"{folder}: {measured.root} brings the provider measured too; give one of them")
            measured = measured_table.MeasuredTable.open(folder)
            files = measured.manifest["files"]
            fingerprint |= {f"measured/{name}": files[name]["sha256"] for name in measured_table.FILES}
        if is_ptbxl_plus(folder):
            if official is not None:
                raise SourceError(f"{folder}: a second folder of PTB-XL+; give one of them")
            official = open_ptbxl_plus(folder, source.name, source.ecgs.select("ecg_id").collect().to_series())
            fingerprint |= {f"ptbxl_plus/{name}": digest for name, digest in official.fingerprint.items()}
        elif not made_here:
            raise SourceError(
                f"{folder}: no features/*_features.csv of PTB-XL+ and no {measured_table.FEATURES} of `synth measure`"
                " here; give the folder that holds features/"
            )
    if official is None:
        return Extras(measured=measured, fingerprint=fingerprint)
    return Extras(
        providers=official.providers,
        measured=measured,
        fingerprint=fingerprint,
        attribution=(official.attribution,),
        tables={name: table.to_arrow().cast(OPTIONAL_TABLES[name]) for name, table in official.tables.items()},
        rejected=official.rejected.to_arrow().cast(REJECTED),
    )


def chosen_providers(wanted: Sequence[str] | None, own: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """The providers of a build in order of preference.

    Args:
        wanted: as configured; None for the source's own, then `PREFERRED`, then `measured`.
        own: what the source itself brings.
        others: what folders beside it bring.

    Raises:
        DefinitionError: one that is not there, or named twice; says which there are.
    """
    there = tuple(dict.fromkeys((*own, *others, MEASURED)))
    if wanted is None:
        return tuple(dict.fromkeys((*own, *(name for name in PREFERRED if name in others), MEASURED)))
    absent = [name for name in wanted if name not in there]
    if absent or not wanted or len(set(wanted)) < len(wanted):
        found = f"no provider {absent[0]!r}" if absent else f"found {', '.join(wanted) or 'none'}"
        raise DefinitionError(f"providers: {found}; name each once, out of {', '.join(there)}, the preferred one first")
    return tuple(wanted)
