"""Reading WFDB records: a fast exact path for PTB-XL's own headers, the wfdb library for all others.

A header is checked before any other file is opened: it may name only a `.dat` file in its own folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ecglm.synth.errors import SignalError
from ecglm.synth.schema import LEADS

MAX_HEADER_BYTES = 64 * 1024
INVALID_16 = -32768
"""What format 16 writes for a missing sample."""

_LEAD_SPELLING = {lead.upper(): lead for lead in LEADS}
_RECORD_LINE = re.compile(r"(\S+) (\d+) (\d+(?:\.\d+)?) (\d+)")
_SIGNAL_LINE = re.compile(
    r"(?P<file>\S+) 16 (?P<gain>\d+(?:\.\d+)?)\((?P<baseline>-?\d+)\)/mV 16 0 (?P<first>-?\d+)"
    r" (?P<checksum>-?\d+) 0 (?P<lead>\S+)"
)


@dataclass(frozen=True)
class Record:
    """One record as stored: `signal` is int16 (n_samples, n_leads); mV = (signal - baseline) / gain."""

    signal: NDArray[np.int16]
    gains: NDArray[np.float64]  # (n_leads,) units per mV
    baselines: NDArray[np.int32]  # (n_leads,)
    leads: tuple[str, ...]
    sampling_hz: float
    digest: str

    def millivolts(self) -> NDArray[np.float32]:
        """(n_samples, n_leads) in mV; missing samples are NaN."""
        values = ((self.signal - self.baselines) / self.gains).astype(np.float32)
        values[self.signal == INVALID_16] = np.nan
        return values


def read_record(
    root: Path,
    signal_path: str,
    *,
    leads: Sequence[str] | None = None,
    sampling_hz: float | None = None,
    n_samples: int | None = None,
) -> Record:
    """One record; `leads`, `sampling_hz` and `n_samples` are what its source promises, checked where given.

    Args:
        root: folder of the source.
        signal_path: the record below it, without extension.

    Raises:
        SignalError: missing, damaged, pointing outside its folder, or not as promised.
    """
    header = root / f"{signal_path}.hea"
    text = _header_text(header)
    names = _signal_files(header, text)
    record = _read_plain(header, text, names) or _read_with_wfdb(header, text)
    found = tuple(_LEAD_SPELLING.get(lead.upper(), lead) for lead in record.leads)
    record = Record(record.signal, record.gains, record.baselines, found, record.sampling_hz, record.digest)
    if leads is not None and found != tuple(leads):
        raise SignalError(
            "lead_names_differ",
            f"{header}: leads are {', '.join(found)}, expected {', '.join(leads)}; correct the header",
        )
    if sampling_hz is not None and record.sampling_hz != sampling_hz:
        raise SignalError(
            "sampling_rate_differs",
            f"{header}: sampling frequency is {record.sampling_hz:g}, expected {sampling_hz:g} Hz; correct the header",
        )
    if n_samples is not None and len(record.signal) != n_samples:
        raise SignalError(
            "sample_count_differs",
            f"{header}: number of samples is {len(record.signal)}, expected {n_samples}; get the record again",
        )
    return record


def read_block(
    root: Path, signal_paths: Sequence[str], **promised: Any
) -> tuple[list[Record | None], list[tuple[int, str, str]]]:
    """Many records; one that cannot be used is None, with (its number, reason, detail) among the problems."""
    records: list[Record | None] = []
    problems: list[tuple[int, str, str]] = []
    for number, signal_path in enumerate(signal_paths):
        try:
            records.append(read_record(root, signal_path, **promised))
        except SignalError as error:
            records.append(None)
            problems.append((number, error.reason, str(error)))
    return records, problems


def _header_text(header: Path) -> str:
    try:
        with header.open("rb") as file:
            content = file.read(MAX_HEADER_BYTES + 1)
    except OSError as error:
        raise SignalError(
            "missing_waveform", f"{header}: cannot be read ({error.strerror}); get the record again"
        ) from error
    if len(content) > MAX_HEADER_BYTES:
        raise SignalError(
            "header_invalid", f"{header}: longer than {MAX_HEADER_BYTES // 1024} kB; this is no WFDB header"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SignalError("header_invalid", f"{header}: not text ({error.reason}); get the record again") from error


def _signal_files(header: Path, text: str) -> list[str]:
    """The file each signal line names, refused unless it is a plain name in the header's own folder."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise SignalError("header_invalid", f"{header}: is empty; get the record again")
    if "/" in lines[0].split()[0]:
        raise SignalError("multi_segment", f"{header}: records in several segments are not read; join them first")
    fields = lines[0].split()
    if len(fields) < 2 or not fields[1].isdigit() or len(lines) - 1 != int(fields[1]):
        raise SignalError(
            "header_invalid",
            f"{header}: number of signals is {fields[1] if len(fields) > 1 else 'missing'}, but {len(lines) - 1} signal"
            " lines follow; correct the header",
        )
    names = [line.split()[0] for line in lines[1:]]
    for name in names:
        if name != Path(name).name or "\\" in name or name in (".", "..", "~", "-"):
            raise SignalError(
                "header_outside_folder",
                f"{header}: file name {name!r} points outside its folder; name a file beside it",
            )
    return names


def _read_plain(header: Path, text: str, names: list[str]) -> Record | None:
    """A record of one format-16 file, as PTB-XL writes them, checked against its own sums; None if it is not such."""
    lines = text.splitlines()
    first = _RECORD_LINE.fullmatch(lines[0])
    signals = [_SIGNAL_LINE.fullmatch(line) for line in lines[1:]]
    if first is None or not signals or None in signals or len(set(names)) != 1:
        return None
    fields = [match.groupdict() for match in signals if match is not None]
    gains = np.array([float(field["gain"]) for field in fields])
    if not gains.all():
        return None
    n_samples, n_leads = int(first[4]), len(fields)
    data = header.with_name(names[0])
    try:
        content = data.read_bytes()
    except OSError as error:
        raise SignalError(
            "missing_waveform", f"{data}: cannot be read ({error.strerror}); get the record again"
        ) from error
    if len(content) != 2 * n_samples * n_leads:
        raise SignalError(
            "truncated",
            f"{data}: {len(content)} bytes, expected {2 * n_samples * n_leads} ({n_samples} samples of {n_leads} leads);"
            " get the record again",
        )
    signal = np.frombuffer(content, dtype="<i2").reshape(n_samples, n_leads)
    sums = signal.sum(axis=0, dtype=np.int64)
    for number, field in enumerate(fields):
        if (int(sums[number]) - int(field["checksum"])) % 65536 or (
            n_samples and signal[0, number] != int(field["first"])
        ):
            raise SignalError(
                "damaged_checksum",
                f"{data}: samples of lead {field['lead']} do not add up to the checksum of the header;"
                " get the record again",
            )
    return Record(
        signal=signal,
        gains=gains,
        baselines=np.array([int(field["baseline"]) for field in fields], dtype=np.int32),
        leads=tuple(field["lead"] for field in fields),
        sampling_hz=float(first[3]),
        digest=xxhash.xxh3_128_hexdigest(content),
    )


_PER_MILLIVOLT = {"mv": 1.0, "uv": 1000.0, "µv": 1000.0, "v": 0.001}


def _read_with_wfdb(header: Path, text: str) -> Record:
    import wfdb

    for line in text.splitlines()[1:]:
        fields = line.split()
        if line.startswith("#") or not fields:
            continue
        gain = re.match(r"[-+.\deE]+", fields[2]) if len(fields) > 2 else None
        if gain is None or float(gain[0]) == 0:
            raise SignalError(
                "gain_missing", f"{header}: no gain for {fields[-1]}; write the units per mV into the header"
            )
    try:
        raw = wfdb.rdrecord(str(header.with_suffix("")), physical=False)
        physical = raw.dac()
    except Exception as error:  # the library raises many kinds; all mean that the record cannot be read
        raise SignalError("unreadable", f"{header}: wfdb cannot read it ({error}); get the record again") from error
    strange = [unit for unit in raw.units if unit.lower() not in _PER_MILLIVOLT]
    if strange:
        raise SignalError(
            "unit_not_voltage", f"{header}: unit {strange[0]!r} is not mV, uV or V; leave that signal out"
        )
    low, high = int(np.nanmin(raw.d_signal)), int(np.nanmax(raw.d_signal))
    if low < INVALID_16 or high > -INVALID_16 - 1:
        raise SignalError(
            "too_large", f"{header}: samples from {low} to {high} do not fit 16 bits; resample the record"
        )
    signal = raw.d_signal.astype(np.int16)
    signal[np.isnan(physical)] = INVALID_16
    per_millivolt = np.array([_PER_MILLIVOLT[unit.lower()] for unit in raw.units])
    return Record(
        signal=signal,
        gains=np.array(raw.adc_gain, dtype=np.float64) / (1 / per_millivolt),
        baselines=np.array(raw.baseline, dtype=np.int32),
        leads=tuple(raw.sig_name),
        sampling_hz=float(raw.fs),
        digest=xxhash.xxh3_128_hexdigest(np.ascontiguousarray(signal).tobytes()),
    )
