"""What is known of a source beside its ECGs: files that its tables are in, and what a manifest says of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ecglm.synth.build.arrow_files import read_arrow, write_arrow
from ecglm.synth.corpus import write_json

_NOTE = "source.json"
_TAKEN_OVER = "taken_over"


@dataclass(frozen=True)
class TakenOver:
    """Measurements of the same waveforms, made before: by an earlier build, or by `synth measure`."""

    rejected: pa.Table
    """Rows of schema.REJECTED: waveforms that could not be used, values left out."""
    signals: str
    """A hash of the waveforms."""


@dataclass(frozen=True)
class SourceFiles:
    """What `write_source` wrote into the work folder, and what a manifest says of it."""

    name: str
    """Of the source."""
    n_ecgs: int
    providers: tuple[str, ...]
    """In order of preference."""
    signal_stamp: str
    taken_over: TakenOver | None
    tables: tuple[str, ...]
    """Of schema.OPTIONAL_TABLES."""
    fingerprint: Mapping[str, str]
    """File → SHA-256 of its bytes."""
    attribution: tuple[Mapping[str, str], ...]

    def save(self, work: Path) -> None:
        """Writes them into a work folder, beside the tables that are there already."""
        folder = source_folder(work)
        note = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.taken_over is not None:
            note[_TAKEN_OVER] = self.taken_over.signals
            write_arrow(folder / f"{_TAKEN_OVER}.arrow", self.taken_over.rejected)
        write_json(folder / _NOTE, note)

    @classmethod
    def load(cls, work: Path) -> SourceFiles:
        """What `save` wrote."""
        folder = source_folder(work)
        note: dict[str, Any] = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
        if note[_TAKEN_OVER] is not None:
            note[_TAKEN_OVER] = TakenOver(read_arrow(folder / f"{_TAKEN_OVER}.arrow"), note[_TAKEN_OVER])
        fields: dict[str, Any] = {name: tuple(of) if isinstance(of, list) else of for name, of in note.items()}
        return cls(**fields)


def source_folder(work: Path) -> Path:
    """Where in a work folder everything is that `SourceFiles` needs."""
    return work / "source"


def source_rejected_path(work: Path) -> Path:
    """What the source itself rejects, and ECGs that are left out."""
    return source_folder(work) / "rejected.arrow"


def optional_path(work: Path, name: str) -> Path:
    """One of schema.OPTIONAL_TABLES."""
    return source_folder(work) / "optional" / f"{name}.arrow"
