"""A folder made by `synth measure`: measurements of a source's waveforms under PTB-XL+'s names.

DIR/features/measured_features.parquet   ecg_id as the source has it, one column per measurement
DIR/waveforms.parquet                    what was measured: path, leads, rate, length and checksum of every waveform
DIR/rejected.parquet                     waveforms that cannot be used and values left out, with the reason
DIR/measured.json                        source, version, counts, SHA-256 of every file; written last
DIR/measure.log.json                     times; the only file that differs from run to run
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecglm.synth.corpus import file_sha256
from ecglm.synth.errors import SourceError
from ecglm.synth.measure.block import MEASURED_COLUMNS, MEASURED_VERSION
from ecglm.synth.measure.ecgs import Waveforms, chunks_by_shape
from ecglm.synth.schema import REJECTED

FORMAT = "ecglm measurements"
MANIFEST = "measured.json"
LOG = "measure.log.json"
FEATURES = "features/measured_features.parquet"
WAVEFORMS = "waveforms.parquet"
REJECTED_FILE = "rejected.parquet"
FILES = (FEATURES, WAVEFORMS, REJECTED_FILE)

WAVEFORM_ROWS = pa.schema(
    {
        "ecg_id": pa.string(),  # as in the table `ecgs`
        "signal_path": pa.string(),
        "leads": pa.list_(pa.string()),
        "sampling_hz": pa.int32(),
        "n_samples": pa.int32(),
        "checksum": pa.string(),  # xxh3-128 of the samples' files; null where the waveform cannot be used
    }
)
_ALIKE = ("leads", "sampling_hz", "n_samples")


@dataclass(frozen=True)
class MeasuredTable:
    """A finished folder of `synth measure`."""

    root: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, root: Path) -> MeasuredTable:
        """Opens the folder; its files are compared with their SHA-256.

        Raises:
            SourceError: not such a folder, unfinished, damaged, or measured by another version; says what to do.
        """
        path = root / MANIFEST
        again = "run `synth measure` again"
        if not path.is_file():
            raise SourceError(f"{root}: no {MANIFEST} beside {FEATURES}, so it is unknown what was measured; {again}")
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            found, version, source = manifest["format"], manifest["measured_version"], manifest["source"]
            hashes = {name: manifest["files"][name]["sha256"] for name in FILES}
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{path}: not as `synth measure` writes it ({error!r}); {again}") from error
        if found != FORMAT or not isinstance(source, str):
            raise SourceError(f"{path}: format {found!r}, expected {FORMAT!r}; {again}")
        if version != MEASURED_VERSION:
            raise SourceError(
                f"{path}: measured by version {version} of the measurements, this ecglm has {MEASURED_VERSION}; {again}"
            )
        for name, expected in hashes.items():
            file = root / name
            if not file.is_file() or file_sha256(file) != expected:
                raise SourceError(f"{file}: missing or changed since it was measured; {again}")
        return cls(root, manifest)

    @property
    def source(self) -> str:
        """Name of the source whose waveforms were measured."""
        return str(self.manifest["source"])

    def log(self) -> dict[str, Any]:
        """What was noted of the run; empty if it is not there."""
        try:
            content: dict[str, Any] = json.loads((self.root / LOG).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content

    def waveforms(self) -> pa.Table:
        """`WAVEFORM_ROWS` of every ECG."""
        return pq.read_table(self.root / WAVEFORMS, schema=WAVEFORM_ROWS)

    def rejected(self, ecg_ids: pa.Array) -> pa.Table:
        """Rows of schema.REJECTED about the waveforms of these ECGs."""
        rows = pq.read_table(self.root / REJECTED_FILE, schema=REJECTED)
        rows = rows.filter(pc.equal(rows["stage"], "signal"))
        return rows.filter(pc.is_in(pc.list_element(rows["ecg_ids"], 0), value_set=ecg_ids))

    def values(self) -> pa.Table:
        """Canonical `ecg_id` and `MEASURED_COLUMNS` of every ECG whose waveform was usable."""
        table = pq.read_table(self.root / FEATURES)
        native = table["ecg_id"].cast(pa.string())
        names = pc.binary_join_element_wise(self.source, native, ":")
        return pa.table([names, *(table[name] for name in MEASURED_COLUMNS)], names=["ecg_id", *MEASURED_COLUMNS])

    def checksums_of(
        self, name: str, ecgs: pa.Table, waveforms: Waveforms | None, done: Callable[[int], None] | None = None
    ) -> pa.Array:
        """Checksums of these ECGs' waveforms, which are found to be those that were measured.

        Args:
            name: of the source of `ecgs`.
            ecgs: rows of the table `ecgs`.
            waveforms: read and compared with the checksums; None if nothing changed since they were measured.
            done: called with each number of further ECGs compared.

        Raises:
            SourceError: another source, ECGs that were not measured, or other waveforms.
        """
        again = f"measure them with `synth measure` (--out {self.root}), or build without this folder"
        if name != self.source:
            raise SourceError(
                f"{self.root}: measured on the source {self.source!r}, but these ECGs are {name!r}; {again}"
            )
        known = self.waveforms()
        places = pc.index_in(ecgs["ecg_id"].combine_chunks(), value_set=known["ecg_id"].combine_chunks())
        if places.null_count:
            missing = ecgs.filter(pc.is_null(places))["ecg_id"].to_pylist()
            raise SourceError(
                f"{self.root / FEATURES}: {len(missing)} ECGs were not measured, the first is {missing[0]}; {again}"
            )
        rows = known.take(places)
        checksums = rows["checksum"].combine_chunks()
        for column in ("signal_path", *_ALIKE):
            if rows[column].equals(ecgs[column]):
                continue
            told, found = rows[column].to_pylist(), ecgs[column].to_pylist()
            for ecg_id, before, now in zip(ecgs["ecg_id"].to_pylist(), told, found, strict=True):
                if before != now:
                    raise SourceError(f"{self.root}: {ecg_id} was measured with {column} {before}, now {now}; {again}")
        if waveforms is not None:
            self._compare(ecgs, checksums.to_pylist(), waveforms, again, done)
        return checksums

    def _compare(
        self,
        ecgs: pa.Table,
        checksums: list[str | None],
        waveforms: Waveforms,
        again: str,
        done: Callable[[int], None] | None,
    ) -> None:
        ids, paths = ecgs["ecg_id"].to_pylist(), ecgs["signal_path"].to_pylist()
        for shape, rows in chunks_by_shape(ecgs):
            records, _ = waveforms.read([ids[row] for row in rows], [paths[row] for row in rows], shape)
            for row, record in zip(rows, records, strict=True):
                if (record.digest if record else None) != checksums[row]:
                    raise SourceError(
                        f"{self.root}: the waveform of {ids[row]} is not the one that was measured; {again}"
                    )
            if done is not None:
                done(len(rows))
