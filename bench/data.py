"""The data a task asks about: folders given by the user, opened once, each with its fingerprint."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ecglm.bench.protocol import Recording
from ecglm.synth.errors import SourceError, TaskError

if TYPE_CHECKING:
    from ecglm.synth.build.progress import Progress
    from ecglm.synth.guidelines import GuidelineSet
    from ecglm.synth.sources import Source


@dataclass(frozen=True)
class Data:
    """Where the data is; what is not given is asked for by the task that needs it."""

    ptbxl: Path | None = None
    ecgqa: Path | None = None
    measurements: Path | None = None
    sampling_hz: int | None = None
    with_measurements: bool = False
    """Whether items carry measurements in words."""

    @cached_property
    def source(self) -> Source:
        """The ECGs and their labels.

        Raises:
            TaskError: no folder was given.
            SourceError: it cannot be read as promised.
        """
        if self.ptbxl is None:
            raise TaskError(
                "this task needs PTB-XL; give its folder with --ptbxl DIR (or one made by `synth simulate`)"
            )
        from ecglm.synth.sources.ptbxl import open_ptbxl

        return open_ptbxl(self.ptbxl, sampling_hz=self.sampling_hz)

    @cached_property
    def ecgs(self) -> pl.DataFrame:
        """ecg_id, patient_id, strat_fold, signal_path, sampling_hz, leads; an ECG without a patient is its own."""
        columns = ["ecg_id", "patient_id", "strat_fold", "signal_path", "sampling_hz", "leads"]
        table = self.source.ecgs.select(columns).collect()
        return table.with_columns(pl.col("patient_id").fill_null(pl.col("ecg_id")))

    @cached_property
    def labels(self) -> pl.DataFrame:
        """The canonical labels of these ECGs."""
        return self.source.labels.collect()

    @cached_property
    def guidelines(self) -> GuidelineSet:
        """Names and synonyms of the statements."""
        from ecglm.synth.guidelines import load_guidelines

        return load_guidelines(check_sql=False)

    @cached_property
    def measured(self) -> Mapping[str, pl.DataFrame]:
        """Provider → ecg_id and measurement columns: those of the source, and those of the file given."""
        found = {name: table.collect() for name, table in self.source.providers.items()}
        if self.measurements is not None:
            found |= _read_measurements(self.measurements, self.source.name)
        return found

    def signal_store(self, tell: Progress) -> Path | None:
        """The signal store of these ECGs that is at hand, or can be made (see `waveforms_of`); None: read the files."""
        from ecglm.synth.build.inputs import ecgs_table
        from ecglm.synth.build.storing import waveforms_of
        from ecglm.synth.signal_store import StoredWaveforms

        try:
            waveforms = waveforms_of(self.source, ecgs_table(self.source), 1, tell)
        except SourceError:  # not one waveform is usable: the file is named with the question that needs it
            return None
        return waveforms.store if isinstance(waveforms, StoredWaveforms) else None

    def recordings(self, ecg_ids: Iterable[str], store: Path | None = None) -> dict[str, Recording]:
        """What a model is given of each of these ECGs, with their waveforms from a signal store if one is given."""
        return {ecg_id: self._recording(ecg_id, store) for ecg_id in set(ecg_ids)}

    @cached_property
    def _rows(self) -> dict[str, tuple[str, int, tuple[str, ...]]]:
        columns = self.ecgs.select("ecg_id", "signal_path", "sampling_hz", "leads").iter_rows()
        return {ecg_id: (path, hz, tuple(leads)) for ecg_id, path, hz, leads in columns}

    @cached_property
    def _texts(self) -> dict[str, str]:
        return measurement_texts(self.measured) if self.with_measurements else {}

    def _recording(self, ecg_id: str, store: Path | None) -> Recording:
        path, hz, leads = self._rows[ecg_id]
        return Recording(ecg_id, self.source.root, path, leads, hz, self._texts.get(ecg_id), store)

    def fingerprint(self) -> dict[str, Any]:
        """Name, version and file hashes of the source, and the hash of the measurement file."""
        told: dict[str, Any] = {
            "source": self.source.name,
            "version": self.source.attribution["version"],
            "files": dict(self.source.fingerprint),
            "sampling_hz": int(self.ecgs["sampling_hz"][0]),
        }
        if self.measurements is not None:
            told["measurements"] = hashlib.sha256(self.measurements.read_bytes()).hexdigest()
        return told


def _read_measurements(path: Path, source: str) -> dict[str, pl.DataFrame]:
    """A table of measurements, such as a corpus's measurements.parquet or a PTB-XL+ feature table, by provider."""
    if not path.is_file():
        raise TaskError(f"{path}: no such file; give a Parquet or CSV table with ecg_id and measurement columns")
    try:
        table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TaskError(f"{path}: cannot be read as a table: {str(error).splitlines()[0]}") from error
    if "ecg_id" not in table.columns:
        near = difflib.get_close_matches("ecg_id", table.columns, 1)
        hint = f"did you mean {near[0]}?" if near else "give the column with the ids of the ECGs that name"
        raise TaskError(f"{path}: no column ecg_id; {hint}")
    if table["ecg_id"].dtype.is_integer():
        table = table.with_columns(pl.format(f"{source}:{{}}", "ecg_id").alias("ecg_id"))
    if "provider" not in table.columns:
        name = path.stem.removesuffix("_features")
        table = table.with_columns(pl.lit(name).alias("provider"))
    doubled = table.filter(pl.struct("ecg_id", "provider").is_duplicated())
    if doubled.height:
        raise TaskError(f"{path}: ecg_id {doubled['ecg_id'][0]} has {doubled['provider'][0]} twice; expected once")
    return {str(name): part.drop("provider") for (name,), part in table.group_by("provider", maintain_order=True)}


def measurement_texts(measured: Mapping[str, pl.DataFrame]) -> dict[str, str]:
    """ECG → its measurements that are not of single leads, in words; the first provider that has a value."""
    from ecglm.synth.measure.dictionary import measurements

    texts: dict[str, dict[str, str]] = {}
    for table in measured.values():
        known = [m for m in measurements().values() if m.name in table.columns and m.name.endswith("_Global")]
        for row in table.select("ecg_id", *(m.name for m in known)).iter_rows(named=True):
            told = texts.setdefault(row["ecg_id"], {})
            for measurement in known:
                value = row[measurement.name]
                if value is not None and measurement.none_found is None:
                    told.setdefault(measurement.name, f"{measurement.words} {value:.4g} {measurement.unit}".strip())
    return {ecg_id: "; ".join(told.values()) for ecg_id, told in texts.items() if told}
