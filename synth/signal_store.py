"""A signal store: every waveform of a source, read once and kept as int16 arrays that are memory-mapped.

    DIR/000.npy, 001.npy …   (rows, n_samples, n_leads) int16, C order: ECGs of the same leads, rate and length
    DIR/signals.parquet      for every ECG its file and row, gains, baselines, leads, rate, checksum
    DIR/rejected.parquet     waveforms that cannot be used, with the reason
    DIR/signals.json         source, counts, sizes of the files; written last
    DIR/signals.log.json     times; the only file that differs from run to run

A row of an array that signals.parquet does not name belongs to a waveform that could not be used and is zero.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from ecglm.synth.errors import SourceError
from ecglm.synth.measure.ecgs import Problem, Shape, WaveformFiles
from ecglm.synth.signals import Record

FORMAT = "ecglm signals"
FORMAT_VERSION = "1"
MANIFEST = "signals.json"
LOG = "signals.log.json"
TABLE = "signals.parquet"
REJECTED_FILE = "rejected.parquet"
CACHE_VARIABLE = "ECGLM_CACHE"
"""Environment variable that names the cache folder."""

SIGNALS = pa.schema(
    {
        "ecg_id": pa.string(),
        "file": pa.string(),  # which array
        "row": pa.int32(),  # in it, from 0
        "gains": pa.list_(pa.float64()),  # of each lead, stored units per mV; mV = (stored - baseline) / gain
        "baselines": pa.list_(pa.int32()),
        "leads": pa.list_(pa.string()),
        "sampling_hz": pa.int32(),
        "n_samples": pa.int32(),
        "checksum": pa.string(),  # xxh3-128 of the row's bytes
        "digest": pa.string(),  # xxh3-128 of the bytes of the record's own signal files
    }
)


def cache_folder() -> Path:
    """Where stores are kept that no one named a folder for: $ECGLM_CACHE, or ecglm in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecglm"


@dataclass(frozen=True)
class Group:
    """ECGs of the same leads, rate and length."""

    leads: tuple[str, ...]
    sampling_hz: int
    ecg_ids: tuple[str, ...]
    rows: NDArray[np.intp]
    """(n_ecgs,) the row of each ECG in `signal`."""
    signal: NDArray[np.int16]
    """(n_rows, n_samples, n_leads) as stored, memory-mapped, not to be written."""
    gains: NDArray[np.float64]
    """(n_ecgs, n_leads) in stored units per mV."""
    baselines: NDArray[np.int32]
    """(n_ecgs, n_leads) the stored value of 0 mV."""


@dataclass(frozen=True)
class SignalStore:
    """A finished signal store."""

    root: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, root: Path) -> SignalStore:
        """Opens a store; its files are there in the size they should have. Samples are checked when they are read.

        Raises:
            SourceError: no store, unfinished, or damaged; says what to do.
        """
        root = Path(root)
        path = root / MANIFEST
        again = "make it again with `synth signals`"
        if not path.is_file():
            raise SourceError(f"{root}: no {MANIFEST} here, so this is no finished signal store; {again}")
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            found = (manifest["format"], manifest["format_version"])
            sizes = {str(name): int(entry["bytes"]) for name, entry in dict(manifest["files"]).items()}
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{path}: not as `synth signals` writes it ({error!r}); {again}") from error
        if found != (FORMAT, FORMAT_VERSION):
            raise SourceError(f"{path}: format {found}, expected {(FORMAT, FORMAT_VERSION)}; {again}")
        for name, size in sizes.items():
            if not (root / name).is_file() or (root / name).stat().st_size != size:
                raise SourceError(f"{root / name}: missing, or not of {size} bytes; {again}")
        return cls(root, manifest)

    @cached_property
    def table(self) -> pa.Table:
        """`SIGNALS` of every ECG, in the order of the source."""
        return pq.read_table(self.root / TABLE, schema=SIGNALS)

    @property
    def ecg_ids(self) -> list[str]:
        """The ECGs, in the order of the source."""
        ids: list[str] = self.table["ecg_id"].to_pylist()
        return ids

    def log(self) -> dict[str, Any]:
        """What was noted of the run that made it; empty if it is not there."""
        try:
            content: dict[str, Any] = json.loads((self.root / LOG).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content

    @cached_property
    def _arrays(self) -> dict[str, NDArray[np.int16]]:
        return {}

    @cached_property
    def _sorted_ids(self) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
        """The ECGs in the order of their bytes, and the row of each: all that is kept of a table of any size."""
        ids = np.array(
            pq.read_table(self.root / TABLE, columns=["ecg_id"])["ecg_id"].cast(pa.binary()).to_pylist(), "S"
        )
        order = np.argsort(ids)
        return ids[order], order

    def _rows_of(self, ecg_ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each ECG; -1 where it is not in the store."""
        ids, rows = self._sorted_ids
        asked = np.array([ecg_id.encode() for ecg_id in ecg_ids], "S")
        places = np.minimum(np.searchsorted(ids, asked), len(ids) - 1)
        return np.where(ids[places] == asked, rows[places], -1)

    @cached_property
    def _group_ends(self) -> NDArray[np.int64]:
        """Behind the last row of each row group."""
        metadata = pq.read_metadata(self.root / TABLE)
        return np.cumsum([metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)])

    @cached_property
    def _row_groups(self) -> dict[int, pa.Table]:
        """The row group asked for last."""
        return {}

    def _row_group(self, number: int) -> pa.Table:
        if number not in self._row_groups:
            self._row_groups.clear()
            with pq.ParquetFile(self.root / TABLE) as file:
                self._row_groups[number] = file.read_row_group(number)
        return self._row_groups[number]

    def _rows(self, places: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Rows of the table at these places, read with the others of their row groups."""
        of_group = np.searchsorted(self._group_ends, places, side="right")
        rows: dict[int, dict[str, Any]] = {}
        for number in np.unique(of_group).tolist():
            group = self._row_group(number)
            there = places[of_group == number]
            found = group.take(pa.array(there - (self._group_ends[number] - group.num_rows)))
            rows |= zip(there.tolist(), found.to_pylist(), strict=True)
        return [rows[place] for place in places.tolist()]

    def array(self, file: str) -> NDArray[np.int16]:
        """One array, (n_rows, n_samples, n_leads), memory-mapped."""
        if file not in self._arrays:
            self._arrays[file] = np.load(self.root / file, mmap_mode="r", allow_pickle=False)
        return self._arrays[file]

    def found(self, ecg_ids: Sequence[str]) -> list[Record | None]:
        """ECGs as stored; None for one that is not in the store.

        Raises:
            SourceError: samples were changed since they were stored.
        """
        places = self._rows_of(ecg_ids)
        there = iter(self._rows(places[places >= 0]))
        return [None if place < 0 else self._record(next(there)) for place in places.tolist()]

    def records(self, ecg_ids: Sequence[str]) -> list[Record]:
        """ECGs as stored.

        Raises:
            SourceError: no such ECG, or its samples were changed since they were stored.
        """
        records: list[Record] = []
        for ecg_id, record in zip(ecg_ids, self.found(ecg_ids), strict=True):
            if record is None:
                raise SourceError(f"{self.root}: no ECG {ecg_id!r}; it holds {len(self._sorted_ids[0])} others")
            records.append(record)
        return records

    def _record(self, row: Mapping[str, Any]) -> Record:
        if not self._is_whole(row):
            raise SourceError(
                f"{self.root / row['file']}: the samples of {row['ecg_id']} were changed or damaged; make the store"
                " again with `synth signals`"
            )
        return Record(
            signal=self.array(row["file"])[row["row"]],
            gains=np.array(row["gains"]),
            baselines=np.array(row["baselines"], dtype=np.int32),
            leads=tuple(row["leads"]),
            sampling_hz=float(row["sampling_hz"]),
            digest=row["digest"],
        )

    def read(self, ecg_ids: Sequence[str]) -> list[NDArray[np.float32]]:
        """ECGs in mV, each (n_samples, n_leads), NaN where a sample is missing; leads as the table says.

        Raises:
            SourceError: no such ECG, or its samples were changed since they were stored.
        """
        return [record.millivolts() for record in self.records(ecg_ids)]

    def groups(self) -> Iterator[Group]:
        """All ECGs, array by array."""
        files = self.table["file"].to_pylist()
        for file in sorted(set(files)):
            members = self.table.filter(pc.equal(self.table["file"], file))
            yield Group(
                leads=tuple(members["leads"][0].as_py()),
                sampling_hz=members["sampling_hz"][0].as_py(),
                ecg_ids=tuple(members["ecg_id"].to_pylist()),
                rows=members["row"].to_numpy().astype(np.intp),
                signal=self.array(file),
                gains=np.array(members["gains"].to_pylist()),
                baselines=np.array(members["baselines"].to_pylist(), dtype=np.int32),
            )

    def damaged(self) -> list[str]:
        """ECGs whose samples are not those that were stored; reads all of them."""
        with pq.ParquetFile(self.root / TABLE) as file:
            batches = file.iter_batches(batch_size=512)
            return [row["ecg_id"] for batch in batches for row in batch.to_pylist() if not self._is_whole(row)]

    def _is_whole(self, row: Mapping[str, Any]) -> bool:
        signal = self.array(row["file"])[row["row"]]
        return bool(xxhash.xxh3_128_hexdigest(signal.tobytes()) == row["checksum"])


@lru_cache(maxsize=4)
def _opened(root: Path, made_ns: int) -> SignalStore:
    """The store in a folder, opened once by each process; a new one there was made at another time."""
    return SignalStore.open(root)


def stored_records(root: Path, ecg_ids: Sequence[str]) -> list[Record | None]:
    """ECGs of the store in a folder, which is opened once by each process; None for one that it does not hold.

    Raises:
        SourceError: no store, or its samples were changed since they were stored.
    """
    try:
        made_ns = (root / MANIFEST).stat().st_mtime_ns
    except OSError:
        made_ns = 0  # opening it says what is missing
    return _opened(root, made_ns).found(ecg_ids)


@dataclass(frozen=True)
class StoredWaveforms:
    """The waveforms of a source, read from a store; those it does not hold from their files, to say what is wrong."""

    store: Path
    files: WaveformFiles

    def read(
        self, ecg_ids: Sequence[str], signal_paths: Sequence[str], shape: Shape
    ) -> tuple[list[Record | None], list[Problem]]:
        """As `ecglm.synth.measure.ecgs.Waveforms` says."""
        records: list[Record | None] = []
        problems: list[Problem] = []
        stored = stored_records(self.store, ecg_ids)
        for place, (record, ecg_id, path) in enumerate(zip(stored, ecg_ids, signal_paths, strict=True)):
            if record is not None:
                records.append(record)
                continue
            found, told = self.files.read([ecg_id], [path], shape)
            records += found
            problems += [(place, reason, detail) for _, reason, detail in told]
        return records, problems
