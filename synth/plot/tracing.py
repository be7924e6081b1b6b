"""What a page is drawn from: the voltages of one record, in the order in which leads are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecglm.synth.errors import SignalError
from ecglm.synth.schema import LEADS
from ecglm.synth.signals import Record, read_record

MOST_LEADS = 16
MOST_LETTERS = 14
"""Of a lead's name; a longer one is cut."""
FLAT_MV = 0.005
"""A lead that moves by less is called flat: on paper it is a straight line."""

_SPELLING = {lead.upper(): lead for lead in LEADS}


@dataclass(frozen=True)
class Tracing:
    """The voltages of one record; standard leads first and in standard order, then all others as they come."""

    signal: NDArray[np.float64]
    """(n_samples, n_leads) in mV; NaN where nothing was recorded."""
    leads: tuple[str, ...]
    sampling_hz: float
    left_out: tuple[str, ...] = ()
    """What is not drawn, each with its reason."""

    @property
    def seconds(self) -> float:
        return len(self.signal) / self.sampling_hz

    def between(self, start_s: float, stop_s: float) -> NDArray[np.float64]:
        """(n_samples, n_leads) of these seconds."""
        first, last = (round(second * self.sampling_hz) for second in (start_s, stop_s))
        return self.signal[first:last]


Signal = tuple[ArrayLike, Sequence[str], float]
"""(n_samples, n_leads) in mV with NaN for missing samples; the name of each lead; samples per second."""


def as_tracing(ecg: Record | Signal | Tracing) -> Tracing:
    """The leads that can be drawn, in printing order.

    Raises:
        SignalError: nothing can be drawn (no samples, no lead in volts), or shape, names and rate do not fit together.
    """
    if isinstance(ecg, Tracing):
        return ecg
    signal, leads, hz = (
        (ecg.millivolts(), ecg.leads, ecg.sampling_hz) if isinstance(ecg, Record) else (ecg[0], tuple(ecg[1]), ecg[2])
    )
    values = np.array(signal, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(leads):
        raise SignalError(
            "bad_shape", f"signal has shape {values.shape}; expected (n_samples, {len(leads)}), one column per lead"
        )
    if not np.isfinite(hz) or hz <= 0:
        raise SignalError("sampling_frequency", f"sampling_hz is {hz}; expected samples per second, above 0")
    if len(values) < 2:
        raise SignalError("too_short", f"signal has {len(values)} samples; a curve needs at least 2")
    values[~np.isfinite(values)] = np.nan
    names = [_shown(name) or f"signal {number}" for number, name in enumerate(leads, start=1)]
    no_voltage = np.isnan(ecg.gains) if isinstance(ecg, Record) else np.zeros(len(names), bool)
    left_out = [f"{name} (no voltage)" for name, other in zip(names, no_voltage, strict=True) if other]
    places = {lead: place for place, lead in enumerate(LEADS)}
    order = sorted(np.flatnonzero(~no_voltage), key=lambda index: places.get(names[index], len(LEADS)))
    if not order:
        found = f"found {', '.join(left_out)}" if left_out else "found none"
        raise SignalError("no_leads", f"no lead in volts: {found}; expected at least one lead in mV, uV or V")
    left_out += [f"{names[index]} (at most {MOST_LEADS} leads fit)" for index in order[MOST_LEADS:]]
    order = order[:MOST_LEADS]
    return Tracing(values[:, order], tuple(names[index] for index in order), float(hz), tuple(left_out))


def read_tracing(path: Path) -> tuple[str, Tracing]:
    """Name and voltages of the WFDB record at `path`, given with or without `.hea`.

    Raises:
        SignalError: the record is missing, damaged, or has nothing that can be drawn; names the file.
    """
    record = path.with_name(path.name.removesuffix(".hea"))
    try:
        return record.name, as_tracing(read_record(record.parent, record.name))
    except SignalError as error:
        if error.reason in ("bad_shape", "too_short", "no_leads", "sampling_frequency"):
            raise SignalError(error.reason, f"{record}: {error}") from error
        raise SignalError(error.reason, f"{record.parent}/{error}") from error


def _shown(name: str | None) -> str:
    """A lead's name as it is printed: standard spelling, nothing that cannot be printed, not too long."""
    text = "".join(letter if letter.isprintable() else "?" for letter in (name or "").strip())
    text = _SPELLING.get(text.upper(), text)
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
