"""From rows of `ecgs` to rows of measurements: reads waveforms, whatever their shapes, and measures them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import xxhash

from ecglm.synth.errors import SignalError
from ecglm.synth.measure.block import MEASURED_COLUMNS, measure_block
from ecglm.synth.measure.record import LONGEST_WHOLE_S, measure_record
from ecglm.synth.schema import REJECTED
from ecglm.synth.signals import Record, read_block

_MOST_RECORDS = 512
_MOST_VALUES = 512 * 12 * 1000
"""Samples times leads that are held at once, one record at least."""
_DECIMALS = 4

Shape = tuple[tuple[str, ...], int, int]
"""Leads, sampling rate in Hz and number of samples: what records measured together have in common."""
Problem = tuple[int, str, str]
"""Number of the record, reason to count by, detail."""


class Waveforms(Protocol):
    """Where the waveforms of ECGs are read from."""

    def read(
        self, ecg_ids: Sequence[str], signal_paths: Sequence[str], shape: Shape
    ) -> tuple[list[Record | None], list[Problem]]:
        """The records of some ECGs of one shape, in order; one that cannot be used is None and among the problems."""


@dataclass(frozen=True)
class WaveformFiles:
    """The record files of a source."""

    root: Path
    ecg_only: bool = False
    """Whether signals that are no ECG are left out; else they make a record unusable."""

    def read(
        self, ecg_ids: Sequence[str], signal_paths: Sequence[str], shape: Shape
    ) -> tuple[list[Record | None], list[Problem]]:
        """As `Waveforms` says."""
        leads, sampling_hz, n_samples = shape
        return read_block(
            self.root, signal_paths, leads=leads, sampling_hz=sampling_hz, n_samples=n_samples, ecg_only=self.ecg_only
        )


@dataclass(frozen=True)
class Measured:
    """Measurements of some rows of `ecgs`."""

    table: pa.Table
    """ecg_id and `MEASURED_COLUMNS` of the ECGs with a usable waveform; NULL where a value could not be measured."""
    rejected: pa.Table
    """Rows of schema.REJECTED, in the order of the ECGs: waveforms that cannot be used, values left out."""
    usable: pa.Array
    """For every ECG whether its waveform was measured."""
    checksums: pa.Array
    """For every ECG the xxh3-128 of its waveform's bytes; NULL where it is not usable."""

    @property
    def digest(self) -> str:
        """A hash of all waveforms measured."""
        return waveforms_digest(self.checksums)


def waveforms_digest(checksums: pa.Array) -> str:
    """A hash of the waveforms with these checksums, those without left out."""
    digest = xxhash.xxh3_128()
    for checksum in checksums.drop_null().to_pylist():
        digest.update(checksum.encode())
    return digest.hexdigest()


def chunks_by_shape(ecgs: pa.Table) -> Iterator[tuple[Shape, list[int]]]:
    """Rows of `ecgs` that can be read into one array: of one shape, few enough for the memory."""
    columns = [ecgs[name].to_pylist() for name in ("leads", "sampling_hz", "n_samples")]
    by_shape: dict[Shape, list[int]] = {}
    for row, (leads, sampling_hz, n_samples) in enumerate(zip(*columns, strict=True)):
        by_shape.setdefault((tuple(leads), sampling_hz, n_samples), []).append(row)
    for shape, rows in by_shape.items():
        at_once = max(1, min(_MOST_RECORDS, _MOST_VALUES // (len(shape[0]) * shape[2])))
        for start in range(0, len(rows), at_once):
            yield shape, rows[start : start + at_once]


def measure_ecgs(waveforms: Waveforms, ecgs: pa.Table) -> Measured:
    """Reads and measures the waveforms of rows of `ecgs`; nothing of one ECG depends on the others."""
    ids, paths = ecgs["ecg_id"].to_pylist(), ecgs["signal_path"].to_pylist()
    values = {name: np.full(len(ids), np.nan, dtype=np.float64) for name in MEASURED_COLUMNS}
    usable = np.zeros(len(ids), dtype=bool)
    checksums: list[str | None] = [None] * len(ids)
    problems: list[Problem] = []
    for shape, rows in chunks_by_shape(ecgs):
        records, unread = waveforms.read([ids[row] for row in rows], [paths[row] for row in rows], shape)
        problems += [(rows[place], reason, detail) for place, reason, detail in unread]
        good = [(row, record) for row, record in zip(rows, records, strict=True) if record is not None]
        if not good:
            continue
        places = np.array([row for row, _ in good])
        try:
            columns, found = _measure([record for _, record in good], shape)
        except SignalError as error:
            problems += [(row, error.reason, str(error)) for row in places.tolist()]
            continue
        usable[places] = True
        for row, record in good:
            checksums[row] = record.digest
        for name, column in columns.items():
            values[name][places] = np.round(column.astype(np.float64), _DECIMALS)
        problems += [(int(places[place]), reason, detail) for place, reason, detail in found]
    problems.sort(key=lambda problem: problem[0])
    mask = pa.array(usable)
    table = pa.table(
        {
            "ecg_id": ecgs["ecg_id"],
            **{name: pa.array(column, mask=np.isnan(column)) for name, column in values.items()},
        }
    )
    return Measured(
        table=table.filter(mask),
        rejected=rejection_table(ids, problems),
        usable=mask,
        checksums=pa.array(checksums, pa.string()),
    )


def _measure(records: Sequence[Record], shape: Shape) -> tuple[dict[str, Any], list[Problem]]:
    leads, sampling_hz, n_samples = shape
    if n_samples <= LONGEST_WHOLE_S * sampling_hz:
        return measure_block(np.stack([record.millivolts() for record in records]), leads, sampling_hz)
    values = {name: np.full(len(records), np.nan) for name in MEASURED_COLUMNS}
    problems: list[Problem] = []
    for place, record in enumerate(records):
        measured, found = measure_record(record.millivolts(), leads, sampling_hz)
        for name, value in measured.items():
            values[name][place] = value
        problems += [(place, reason, detail) for reason, detail in found]
    return values, problems


def rejection_table(ecg_ids: Sequence[str], problems: Sequence[Problem]) -> pa.Table:
    """Problems met in waveforms as rows of schema.REJECTED."""
    rows = [
        {
            "stage": "signal",
            "ecg_ids": [ecg_ids[number]],
            "template_id": None,
            "slots": None,
            "reason": reason,
            "detail": detail,
        }
        for number, reason, detail in problems
    ]
    return pa.Table.from_pylist(rows, schema=REJECTED)
