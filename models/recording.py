"""A WFDB record as a model and the measurements take it: its ECG leads, a part of it if one is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecglm.models.preprocessing import lead_names
from ecglm.synth.errors import ModelError, SignalError
from ecglm.synth.signals import Record, read_record

_AGE = re.compile(r"^#.*?\bage\b\W{0,4}(\d{1,3})\b", re.IGNORECASE | re.MULTILINE)
_SEX = re.compile(r"^#.*?\b(?:sex|gender)\b\W{0,4}(m|f)(?:ale|emale)?\b", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Patient:
    """What some limits depend on; None where it is not known."""

    age_years: float | None = None
    sex: str | None = None
    """male or female."""


@dataclass(frozen=True)
class Recording:
    """What is asked about."""

    name: str
    signal: NDArray[np.float32]
    """(n_samples, n_leads) in mV, NaN where a sample is missing."""
    leads: tuple[str, ...]
    sampling_hz: float
    notes: tuple[str, ...] = ()
    """What of the record is not used."""
    patient: Patient = Patient()
    """As far as the comments of the header say ("# Age: 63", "# Sex: F")."""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.signal) / self.sampling_hz

    def about(self, age_years: float | None, sex: str | None) -> Recording:
        """The same with what is told of the patient in front of what the header says."""
        told = self.patient
        patient = Patient(told.age_years if age_years is None else age_years, told.sex if sex is None else sex)
        return replace(self, patient=patient)


def read_recording(path: Path, start_s: float = 0.0, seconds: float | None = None) -> Recording:
    """The ECG leads of the WFDB record at `path` (with or without `.hea`), whatever their unit of voltage.

    Args:
        path: the record.
        start_s: where the part that is read begins.
        seconds: how long that part is; None for all that follows.

    Raises:
        SignalError: missing, damaged, without an ECG lead, or shorter than the part asked for; names the record.
    """
    record = path.with_name(path.name.removesuffix(".hea"))
    try:
        whole = read_record(record.parent, record.name)
    except SignalError as error:
        raise SignalError(error.reason, f"{record.parent}/{error}") from error
    ecg = whole.ecg_only()
    notes = [f"signal {name} is no ECG lead: left out" for name in _left_out(whole, ecg)]
    kept = [number for number, name in enumerate(ecg.leads) if _known(name)]
    notes += [f"lead {name} has an unknown name: left out" for name in ecg.leads if not _known(name)]
    if not kept:
        found = ", ".join(whole.leads) or "none"
        raise SignalError("no_leads", f"{record}: no ECG lead with a known name (signals: {found}); rename its leads")
    length = len(ecg.signal) / ecg.sampling_hz
    end = length if seconds is None else start_s + seconds
    if not 0 <= start_s < end <= length + 0.5 / ecg.sampling_hz:
        raise SignalError(
            "too_short", f"{record}: {length:g} s long; seconds {start_s:g} to {end:g} are not all within it"
        )
    part = slice(round(start_s * ecg.sampling_hz), round(end * ecg.sampling_hz))
    return Recording(
        name=record.name,
        signal=np.ascontiguousarray(ecg.millivolts()[part, kept]),
        leads=tuple(ecg.leads[number] for number in kept),
        sampling_hz=ecg.sampling_hz,
        notes=tuple(notes),
        patient=_patient(record),
    )


def _patient(record: Path) -> Patient:
    text = record.with_name(f"{record.name}.hea").read_text(encoding="utf-8")
    age, sex = _AGE.search(text), _SEX.search(text)
    return Patient(
        float(age[1]) if age and int(age[1]) <= 120 else None,
        {"m": "male", "f": "female"}[sex[1].lower()] if sex else None,
    )


def _known(name: str) -> bool:
    try:
        lead_names((name,))
    except ModelError:
        return False
    return True


def _left_out(whole: Record, ecg: Record) -> list[str]:
    kept = {name.partition(" (")[0] for name in ecg.leads}
    return [name for name in whole.leads if name not in kept]
