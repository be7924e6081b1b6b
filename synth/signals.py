"""Reading WFDB records: a fast exact path for headers as PTB-XL writes them, the wfdb library for all others.

A header is checked before any file it names is opened: it may name only files in its own folder, and no file that is
read may lie outside the root, symbolic links followed.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ecglm.synth.errors import SignalError
from ecglm.synth.schema import LEADS

MAX_HEADER_BYTES = 64 * 1024
MAX_DATA_BYTES = 1024**3
MAX_VALUES = 2**26
"""Samples times leads of one record: a day of three leads at 250 Hz."""
INVALID_16 = -32768
"""What format 16 writes for a missing sample."""
PER_MILLIVOLT = {"mv": 1.0, "uv": 1000.0, "µv": 1000.0, "μv": 1000.0, "v": 0.001}
"""A header's units in lower case → how many of them make 1 mV."""

_LEAD_SPELLING = {lead.upper(): lead for lead in LEADS}
_LEAD_PREFIX = re.compile(r"^(?:ECG|EKG|LEAD)[\s_:-]*(?:LEAD[\s_:-]*)?(?=\S)")
"""What some headers write before the name of a standard lead: "ECG II", "lead V1"."""
_OTHER_SIGNAL = re.compile(
    r"^(?:PLETH\w*|PPG|SPO2|SAO2|RESP\w*|IMP\w*|ABP|ART|I?BP|NBP|CVP|PAP|ICP|CO2|ETCO2|EEG|EOG|EMG|ACC\w*|TEMP|MARKER"
    r"|TRIGGER|ANNOT\w*|RR|HR)(?![A-Z])"
)
"""Names of signals that are no ECG though they may be voltages: pulse wave, breathing, pressures, EEG …"""
_PLAIN_RECORD = re.compile(r"[\w-]+ (\d{1,4}) (\d{1,6}(?:\.\d{1,6})?) (\d{1,9})\n", re.ASCII)
_PLAIN_SIGNAL = re.compile(
    r"^(\w[\w.-]*) 16 (\d{1,9}(?:\.\d{1,9})?)\((-?\d{1,6})\)/mV 16 0 (-?\d{1,6}) (-?\d{1,6}) 0 (\S[^\r\n]*)$",
    re.ASCII | re.MULTILINE,
)
_RECORD = re.compile(
    r"(?P<name>[\w-]+)(?P<segments>/\d+)?\s+(?P<n_leads>\d{1,4})"
    r"(?:\s+(?P<hz>\d{1,6}(?:\.\d{1,6})?)(?:/\S+)?(?:\s+(?P<n_samples>\d{1,12})(?:\s.*)?)?)?",
    re.ASCII,
)
_SIGNAL = re.compile(
    r"(?P<file>\S+)\s+(?P<format>\d{1,3})(?:x(?P<per_frame>\d{1,6}))?(?P<skew>:\d+)?(?:\+\d+)?"
    r"(?:\s+(?P<gain>-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(?:\(-?\d+\))?(?:/\S+)?(?:\s.*)?)?",
    re.ASCII,
)


@dataclass(frozen=True)
class Record:
    """One record as stored: `signal` is int16 (n_samples, n_leads); mV = (signal - baseline) / gain."""

    signal: NDArray[np.int16]
    """Missing samples are INVALID_16, whatever the file's own format writes for them."""
    gains: NDArray[np.float64]
    """(n_leads,) in stored units per mV; NaN for a signal that is no voltage, such as PLETH."""
    baselines: NDArray[np.int32]
    """(n_leads,) the stored value of 0 mV."""
    leads: tuple[str, ...]
    """Names as the header gives them, in the spelling of schema.LEADS ("AVR" becomes "aVR")."""
    sampling_hz: float
    digest: str
    """xxh3-128 of the signal files' bytes."""

    def millivolts(self) -> NDArray[np.float32]:
        """(n_samples, n_leads) in mV; missing samples, and signals that are no voltages, are NaN."""
        values = ((self.signal - self.baselines) / self.gains).astype(np.float32)
        values[self.signal == INVALID_16] = np.nan
        return values

    def ecg_only(self) -> Record:
        """The same record without signals that are no ECG by unit or name (see `is_ecg`).

        Leads of one name are told apart, `II (1)` and `II (2)`: neither can be taken for that lead.
        """
        names = _told_apart(self.leads)
        kept = [number for number, name in enumerate(names) if is_ecg(name, self.gains[number])]
        if len(kept) == len(names):
            return replace(self, leads=names)
        return replace(
            self,
            signal=np.ascontiguousarray(self.signal[:, kept]),
            gains=self.gains[kept],
            baselines=self.baselines[kept],
            leads=tuple(names[number] for number in kept),
        )


def is_ecg(name: str, gain: float) -> bool:
    """Whether a signal is an ECG lead: a voltage (`gain` in units per mV is a number) that is not named otherwise."""
    return not math.isnan(gain) and _OTHER_SIGNAL.match(name.upper()) is None


@dataclass(frozen=True)
class Header:
    """What a header says of its record, the samples unread."""

    leads: tuple[str, ...]
    """Its ECG leads."""
    left_out: tuple[str, ...]
    """Its other signals, each as `name (unit)`."""
    sampling_hz: float
    n_samples: int | None
    """None where the header does not say."""


def read_header(root: Path, signal_path: str) -> Header:
    """The header of one record.

    Raises:
        SignalError: missing, not a header, or one that `read_record` would refuse.
    """
    header = f"{signal_path}.hea"
    text = _header_text(header, _Folder(root).read(header, MAX_HEADER_BYTES))
    _, gains, _ = _check_header(header, text)
    lines = [line.strip() for line in text.splitlines()]
    first, *signals = [line.split(None, 8) for line in lines if line and not line.startswith("#")]
    names = _told_apart(_spelled([parts[8] if len(parts) > 8 else None for parts in signals]))
    units = [(parts[2].partition("/")[2] or "mV") for parts in signals]
    chosen = [
        is_ecg(name, gain * PER_MILLIVOLT.get(unit.lower(), math.nan))
        for name, gain, unit in zip(names, gains, units, strict=True)
    ]
    return Header(
        leads=tuple(name for name, kept in zip(names, chosen, strict=True) if kept),
        left_out=tuple(f"{n} ({u})" for n, u, kept in zip(names, units, chosen, strict=True) if not kept),
        sampling_hz=float(re.split(r"[/(]", first[2])[0]),
        n_samples=int(first[3]) if len(first) > 3 and int(first[3]) else None,
    )


def read_record(
    root: Path,
    signal_path: str,
    *,
    leads: Sequence[str] | None = None,
    sampling_hz: float | None = None,
    n_samples: int | None = None,
    ecg_only: bool = False,
) -> Record:
    """One record; `leads`, `sampling_hz` and `n_samples` are what its source promises, checked where given.

    Args:
        root: folder of the source.
        signal_path: the record below it, without extension.
        ecg_only: whether signals that are no ECG are left out before the leads are compared.

    Raises:
        SignalError: missing, damaged, pointing outside its folder, or not as promised; files are named below `root`.
    """
    return _read(_Folder(root), signal_path, leads, sampling_hz, n_samples, ecg_only)


def read_block(
    root: Path,
    signal_paths: Sequence[str],
    *,
    leads: Sequence[str] | None = None,
    sampling_hz: float | None = None,
    n_samples: int | None = None,
    ecg_only: bool = False,
) -> tuple[list[Record | None], list[tuple[int, str, str]]]:
    """Many records; one that cannot be used is None, with (its number, reason, detail) among the problems."""
    folder = _Folder(root)
    records: list[Record | None] = []
    problems: list[tuple[int, str, str]] = []
    for number, signal_path in enumerate(signal_paths):
        try:
            records.append(_read(folder, signal_path, leads, sampling_hz, n_samples, ecg_only))
        except SignalError as error:
            records.append(None)
            problems.append((number, error.reason, str(error)))
    return records, problems


class _Folder:
    """A source's root, and the only way from a relative name to the bytes of a file."""

    def __init__(self, root: Path) -> None:
        self.real = os.path.realpath(root)
        self._folders: dict[str, str] = {}

    def read(self, name: str, max_bytes: int) -> bytes:
        """The bytes of the regular file `name`, which lies below the root, links followed."""
        parent, _, last = name.rpartition("/")
        try:
            if parent not in self._folders:
                self._folders[parent] = self._inside(os.path.realpath(f"{self.real}/{parent}"), name)
            path = f"{self._folders[parent]}/{last}"
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                path = self._inside(os.path.realpath(path), name)
                status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                raise SignalError("missing_waveform", f"{name}: found no ordinary file; get the record again")
            if status.st_size > max_bytes:
                raise SignalError(
                    "too_large", f"{name}: {status.st_size} bytes, expected at most {max_bytes}; split the record"
                )
            with open(path, "rb") as file:  # noqa: PTH123 - a Path object costs as much as the read
                return file.read()
        except FileNotFoundError:
            raise SignalError("missing_waveform", f"{name}: no such file; get the record again") from None
        except OSError as error:
            raise SignalError(
                "missing_waveform", f"{name}: cannot be read ({error.strerror}); get the record again"
            ) from error
        except ValueError as error:  # a name the operating system cannot take
            raise SignalError("missing_waveform", f"{name!r}: cannot be read ({error}); correct the name") from error

    def _inside(self, path: str, name: str) -> str:
        if path != self.real and not path.startswith(self.real.rstrip(os.sep) + os.sep):
            raise SignalError("outside_root", f"{name}: leads outside the source folder; put the file itself there")
        return path


def _read(
    folder: _Folder,
    signal_path: str,
    leads: Sequence[str] | None,
    sampling_hz: float | None,
    n_samples: int | None,
    ecg_only: bool,
) -> Record:
    header = f"{signal_path}.hea"
    text = _header_text(header, folder.read(header, MAX_HEADER_BYTES))
    record = _read_plain(folder, header, text) or _read_with_wfdb(folder, header, text)
    if ecg_only:
        record = record.ecg_only()
    if leads is not None and record.leads != tuple(leads):
        raise SignalError(
            "lead_names_differ",
            f"{header}: leads are {', '.join(record.leads)}, expected {', '.join(leads)}; correct the header",
        )
    if leads is not None and np.isnan(record.gains).any():
        odd = record.leads[int(np.isnan(record.gains).argmax())]
        raise SignalError(
            "unit_not_voltage", f"{header}: lead {odd} is in other units than mV, uV or V; correct the header"
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


def _header_text(header: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SignalError("header_invalid", f"{header}: not text ({error.reason}); get the record again") from error


# --- one format-16 file, as PTB-XL writes it --------------------------------------------------------------------------


def _read_plain(folder: _Folder, header: str, text: str) -> Record | None:
    """The record, checked against its header's own sums; None if the header is of another kind."""
    first = _PLAIN_RECORD.match(text)
    if first is None:
        return None
    lines = _PLAIN_SIGNAL.findall(text, first.end())
    n_leads, n_samples = int(first[1]), int(first[3])
    if not lines or len(lines) != n_leads or text.count("\n") != n_leads + 1:
        return None
    files, gains, baselines, initial, checksums, names = zip(*lines, strict=True)
    calibration = _calibration(gains, baselines, names)
    if len(set(files)) != 1 or not float(first[2]) or not calibration[0].all():
        return None
    data = _beside(header, files[0])
    content = folder.read(data, MAX_DATA_BYTES)
    expected = 2 * n_samples * n_leads
    if len(content) != expected:
        raise SignalError(
            "truncated",
            f"{data}: {len(content)} bytes, expected {expected} ({n_samples} samples of {n_leads} leads);"
            " get the record again",
        )
    signal = np.frombuffer(content, dtype="<i2").astype(np.int16, copy=False).reshape(n_samples, n_leads)
    sums = _sums(signal)
    for number, (start, checksum) in enumerate(zip(initial, checksums, strict=True)):
        if (sums[number] - int(checksum)) % 65536:
            raise _damaged(data, names[number], int(checksum) % 65536, sums[number] % 65536)
        if n_samples and signal[0, number] != int(start):
            raise SignalError(
                "damaged_checksum",
                f"{data}: the first sample of lead {names[number]} is {signal[0, number]}, the header says {start};"
                " get the record again",
            )
    return Record(
        signal=signal,
        gains=calibration[0],
        baselines=calibration[1],
        leads=calibration[2],
        sampling_hz=float(first[2]),
        digest=xxhash.xxh3_128_hexdigest(content),
    )


@lru_cache(maxsize=64)
def _calibration(
    gains: tuple[str, ...], baselines: tuple[str, ...], names: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.int32], tuple[str, ...]]:
    """Gains, baselines and spelled leads: the same in nearly every record of a source, so kept, read-only."""
    gain = np.array([float(text) for text in gains])
    baseline = np.array([int(text) for text in baselines], dtype=np.int32)
    gain.flags.writeable = baseline.flags.writeable = False
    return gain, baseline, _spelled(names)


def _spelled(names: Sequence[str | None]) -> tuple[str, ...]:
    """Names in the spelling of schema.LEADS; an empty one becomes `signal 2`."""
    given = [(name or "").strip() for name in names]
    return tuple(
        _LEAD_SPELLING.get(_LEAD_PREFIX.sub("", name.upper()), name) or f"signal {number}"
        for number, name in enumerate(given, start=1)
    )


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Names given more than once numbered: `II (1)`, `II (2)`."""
    places = {name: [number for number, other in enumerate(names) if other == name] for name in set(names)}
    return tuple(
        name if len(places[name]) == 1 else f"{name} ({places[name].index(number) + 1})"
        for number, name in enumerate(names)
    )


def _beside(header: str, name: str) -> str:
    parent = header.rpartition("/")[0]
    return f"{parent}/{name}" if parent else name


def _sums(signal: NDArray[np.int16]) -> list[int]:
    """Sum of each lead's samples modulo 2**16, the checksum of WFDB headers."""
    n_samples, n_leads = signal.shape
    together = math.gcd(n_samples, 40)  # rows added side by side: four times as fast as twelve values at a time
    wide = signal.reshape(n_samples // together, together * n_leads)
    sums: list[int] = wide.sum(axis=0, dtype=np.int16).reshape(together, n_leads).sum(axis=0, dtype=np.int16).tolist()
    return sums


def _damaged(data: str, lead: str, expected: int, found: int) -> SignalError:
    return SignalError(
        "damaged_checksum",
        f"{data}: the samples of lead {lead} add up to {found}, the header's checksum is {expected};"
        " get the record again",
    )


# --- everything else --------------------------------------------------------------------------------------------------


def _read_with_wfdb(folder: _Folder, header: str, text: str) -> Record:
    files, gains, skewed = _check_header(header, text)
    digest = xxhash.xxh3_128()
    for name in files:
        digest.update(folder.read(_beside(header, name), MAX_DATA_BYTES))
    raw = _wfdb_record(header, f"{folder.real}/{header}")
    if list(raw.adc_gain) != gains:
        raise SignalError("header_invalid", f"{header}: gains can be read in two ways; write them as 1000(0)/mV")
    if raw.sig_len is not None and len(raw.d_signal) != raw.sig_len:
        raise SignalError(
            "truncated", f"{header}: {len(raw.d_signal)} samples, expected {raw.sig_len}; get the record again"
        )
    sums = raw.d_signal.sum(axis=0, dtype=np.int64)
    for name, checksum, total in zip(raw.sig_name, raw.checksum, sums, strict=True):
        if checksum is not None and not skewed and (int(total) - checksum) % 65536:
            raise _damaged(header, name, checksum % 65536, int(total) % 65536)
    missing = np.isnan(raw.dac())
    values = np.where(missing, 0, raw.d_signal)
    if values.size and (values.min() <= INVALID_16 or values.max() > -INVALID_16 - 1):
        raise SignalError(
            "too_large",
            f"{header}: samples from {values.min()} to {values.max()} do not fit 16 bits; write it in format 16",
        )
    signal = values.astype(np.int16)
    signal[missing] = INVALID_16
    return Record(
        signal=signal,
        gains=np.array(
            [gain * PER_MILLIVOLT.get(unit.lower(), np.nan) for gain, unit in zip(gains, raw.units, strict=True)]
        ),
        baselines=np.array(raw.baseline, dtype=np.int32),
        leads=_spelled(raw.sig_name),
        sampling_hz=float(raw.fs),
        digest=digest.hexdigest(),
    )


def _wfdb_record(header: str, path: str) -> Any:
    import wfdb

    try:
        return wfdb.rdrecord(path.removesuffix(".hea"), physical=False)
    except Exception as error:  # the library raises many kinds; all mean that the record cannot be read
        raise SignalError("unreadable", f"{header}: wfdb cannot read it ({error}); get the record again") from error


def _check_header(header: str, text: str) -> tuple[list[str], list[float], bool]:
    """The signal files, each once, the gains, and whether any signal is skewed; refuses what must not be opened."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    record = _RECORD.fullmatch(lines[0]) if lines else None
    if record is None:
        found = repr(lines[0][:60]) if lines else "nothing"
        raise SignalError(
            "header_invalid", f"{header}: record line is {found}, expected as '00001_lr 12 100 1000'; correct it"
        )
    if record["segments"]:
        raise SignalError("multi_segment", f"{header}: records in several segments are not read; join them first")
    if len(lines) - 1 != int(record["n_leads"]) or len(lines) == 1:
        raise SignalError(
            "header_invalid",
            f"{header}: number of signals is {record['n_leads']}, but {len(lines) - 1} signal lines follow;"
            " correct the header",
        )
    if not record["hz"] or not float(record["hz"]):
        raise SignalError("header_invalid", f"{header}: no sampling frequency; write it after the number of signals")
    files: list[str] = []
    gains: list[float] = []
    skewed = False
    for number, line in enumerate(lines[1:], start=1):
        name = line.split()[0]
        if "/" in name or "\\" in name or ":" in name or name in (".", "..") or name.startswith("~"):
            raise SignalError(
                "header_outside_folder",
                f"{header}, signal {number}: file name {name!r} points outside its folder; name a file beside it",
            )
        signal = _SIGNAL.fullmatch(line)
        if signal is None or int(signal["per_frame"] or 1) != 1:
            raise SignalError(
                "header_invalid",
                f"{header}, signal {number}: found {line[:60]!r}, expected as '00001_lr.dat 16 1000(0)/mV …' with one"
                " sample per frame; correct the header",
            )
        gain = float(signal["gain"] or 0)
        if not gain:
            raise SignalError(
                "gain_missing", f"{header}, signal {number}: no gain; write how many units make 1 mV, as 1000(0)/mV"
            )
        if not math.isfinite(gain) or gain < 0:
            raise SignalError(
                "gain_invalid", f"{header}, signal {number}: gain is {signal['gain']}, expected above 0; correct it"
            )
        files += [name] * (name not in files)
        gains.append(gain)
        skewed = skewed or signal["skew"] is not None
    n_values = int(record["n_samples"] or 0) * int(record["n_leads"])
    if n_values > MAX_VALUES:
        raise SignalError("too_large", f"{header}: {n_values} values, expected at most {MAX_VALUES}; split the record")
    return files, gains, skewed
