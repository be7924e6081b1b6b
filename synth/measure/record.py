"""One recording of any usual length: its measurements, and its median beat for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecglm.synth.errors import SignalError
from ecglm.synth.measure import beats, block, quality
from ecglm.synth.measure.arrays import Bools, Doubles, Floats
from ecglm.synth.measure.block import (
    MAX_SECONDS,
    MEASURED_COLUMNS,
    MIN_SECONDS,
    canonical_leads,
    delineate,
    measure_block,
)
from ecglm.synth.measure.median_beat import BEFORE_MS

LONGEST_WHOLE_S = 30.0
"""Longer recordings are measured in windows."""
WINDOW_S, OVERLAP_S = 10.0, 1.0
"""Windows begin every ten seconds; for the rhythm each is seen with this much more on either side."""
MAX_RECORD_SECONDS = 30 * 60.0
RHYTHM_COLUMNS = (
    "HR__Global", "RR_Mean_Global", "RR_StdDev_Global", "QRS_Count_Global", "Ectopic_Count_Global",
)  # fmt: skip
"""What belongs to a recording as a whole; all else is the median over its windows."""
_SAME_BEAT_S = 0.15
_MOST_HIDDEN = 0.5
"""Share of a recording in which beats are hidden; with more, what stands out elsewhere may be artefacts."""
_MOST_WINDOWS_NAMED = 3
_ANGLES = tuple(name for name in MEASURED_COLUMNS if "_AxisFront_" in name)
_YES_OR_NO = ("P_Found_Global", "Pacing_Found_Global")


@dataclass(frozen=True)
class MedianBeat:
    """The typical beat of a recording, as measured."""

    leads: tuple[str, ...]
    hz: int
    signal: Floats
    """(n_leads, n_samples) in mV relative to the level before the QRS complex; NaN where it is not known."""
    fiducials_ms: dict[str, float]
    """p_onset, p_peak, p_offset, qrs_onset, qrs_offset, t_peak, t_offset: ms since the first sample, those found."""
    beats_s: Doubles
    """Times of all QRS complexes, in s since the start of the recording."""


def measure_record(
    signal: Floats, leads: Sequence[str], sampling_hz: int
) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """Measure one recording of 2.5 s to 30 min; NaN stands for whatever could not be measured.

    Recordings over 30 s are measured in windows of 10 s: the rhythm over the whole, everything else as the median over
    the windows, of axes as the direction of the mean vector. A window that is steep but in which no beats stand out is
    no pause: beats are hidden in it. It enters no interval, and beats cannot be counted then; if most of the recording
    is so, nothing is measured.

    Args:
        signal: (n_samples, n_leads) in mV; NaN marks samples that were not recorded.
        leads, sampling_hz: as for `measure_block`.

    Returns:
        `MEASURED_COLUMNS` → number; (reason, detail) of the problems met, as for `measure_block`.

    Raises:
        SignalError: as for `measure_block`.
    """
    signal = _one_record(signal, leads)
    seconds = len(signal) / sampling_hz
    if seconds <= LONGEST_WHOLE_S or seconds > MAX_RECORD_SECONDS:
        if seconds > MAX_RECORD_SECONDS:
            detail = f"{seconds:g} s; up to {MAX_RECORD_SECONDS:g} s can be measured: cut the recording"
            return dict.fromkeys(MEASURED_COLUMNS, float("nan")), [("too_long", detail)]
        columns, problems = measure_block(signal[None], leads, sampling_hz)
        return {name: float(values[0]) for name, values in columns.items()}, [problem[1:] for problem in problems]
    width = round(WINDOW_S * sampling_hz)
    count = len(signal) // width
    windows = np.asarray(signal[: count * width], dtype=np.float32).reshape(count, width, -1)
    columns, problems = measure_block(windows, leads, sampling_hz)
    found, blind, hidden = _beats_of_all(signal, sampling_hz)
    if _mostly(hidden, blind):
        told = [problem for problem in _of_windows(problems, count) if problem[0] != "long_pause"]
        return dict.fromkeys(MEASURED_COLUMNS, float("nan")), told
    combined = {name: _combined(name, values) for name, values in columns.items()}
    rhythm = beats.rhythm(found, (blind | hidden)[None], sampling_hz)
    rhythm["Ectopic_Count_Global"] = quality.premature(found, 1).astype(np.float32)
    for name in RHYTHM_COLUMNS:
        known = len(found.time) and not (hidden.any() and "_Count_" in name)
        combined[name] = float(rhythm[name][0]) if known else float("nan")
    told = _of_windows(problems, count)
    pause, begins = quality.longest_pause(found, (blind | hidden)[None], seconds, sampling_hz)
    told = [problem for problem in told if problem[0] != "long_pause"]
    if len(found.time) and pause[0] >= quality.PAUSE_S:
        told.append(("long_pause", f"{pause[0]:.1f} s without a QRS complex from {begins[0]:.1f} s on"))
    return combined, told


def describe_beat(signal: Floats, leads: Sequence[str], sampling_hz: int) -> MedianBeat:
    """The median beat of one recording with the bounds of its waves, and the times of its beats.

    Of recordings over 30 s the median beat is that of the window of 10 s with the most beats of one kind.

    Args:
        signal: (n_samples, n_leads) in mV; NaN marks samples that were not recorded.
        leads, sampling_hz: as for `measure_block`.

    Raises:
        SignalError: as for `measure_block`; or the recording is shorter than 2.5 s.
    """
    signal = _one_record(signal, leads)
    names = canonical_leads(leads)
    block.check_rate(sampling_hz)
    seconds = len(signal) / sampling_hz
    if seconds < MIN_SECONDS:
        raise SignalError("too_short", f"{seconds:g} s; a recording of {MIN_SECONDS:g} s or more has a median beat")
    shown, nothing = signal, False
    times: Doubles | None = None
    if seconds > LONGEST_WHOLE_S:
        found, unseen, hidden = _beats_of_all(signal, sampling_hz)
        nothing = _mostly(hidden, unseen)
        times = np.zeros(0) if nothing else found.time
        within = np.bincount((found.time[found.dominant] // WINDOW_S).astype(np.int64), minlength=1)
        begin = int(within[: max(1, int(seconds // WINDOW_S))].argmax()) * round(WINDOW_S * sampling_hz)
        shown = signal[begin : begin + round(WINDOW_S * sampling_hz)]
    seen = delineate(np.ascontiguousarray(shown.T[None], dtype=np.float32), names, sampling_hz)
    if times is None:
        times = seen.beats.time if seen.clear[0] else np.zeros(0)
    wave = np.where(seen.usable[0][:, None] & (not nothing), seen.beat[0], np.float32(np.nan))
    fiducials: dict[str, float] = {}
    if seen.whole[0] and not nothing:
        heights, _ = measure_block(shown[None], leads, sampling_hz)
        samples = {"qrs_onset": seen.qrs_onset, "qrs_offset": seen.qrs_offset}
        if seen.p_found[0]:
            samples |= {"p_onset": seen.p.onset, "p_peak": seen.p.peak, "p_offset": seen.p.offset}
        if np.isfinite(heights["QT_Int_Global"][0]):
            samples |= {"t_peak": seen.t_peak, "t_offset": seen.t_offset}
        fiducials = {name: float(at[0]) * 1000 / seen.hz for name, at in sorted(samples.items())}
    return MedianBeat(tuple(names), seen.hz, wave, fiducials, times)


FIDUCIAL_MS = float(BEFORE_MS)
"""Where in the window of a median beat the time of the beat itself lies."""


def _one_record(signal: Floats, leads: Sequence[str]) -> Floats:
    signal = np.asarray(signal)
    if signal.ndim != 2 or signal.shape[1] != len(leads):
        raise SignalError(
            "bad_shape", f"signal has shape {signal.shape}; expected (n_samples, {len(leads)} leads): turn it round"
        )
    return signal


def _combined(name: str, values: Floats) -> float:
    """One number from those of the windows; NaN where no window has one."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return float("nan")
    if name in _ANGLES:
        return float(np.rad2deg(np.arctan2(np.sin(np.deg2rad(known)).sum(), np.cos(np.deg2rad(known)).sum())))
    if name in _YES_OR_NO or name.startswith("T_Morph"):
        kinds, counts = np.unique(known, return_counts=True)
        return float(kinds[counts.argmax()])
    return float(np.median(known))


def _beats_of_all(signal: Floats, sampling_hz: int) -> tuple[beats.Beats, Bools, Bools]:
    """The beats of a long recording as those of one record; (n_samples,) where no lead was recorded, and where hidden.

    Beats are hidden in a window that is steep but in which none stand out; without either there is a pause.
    """
    step, margin = round(WINDOW_S * sampling_hz), round(OVERLAP_S * sampling_hz)
    starts = np.arange(0, len(signal) - margin, step)
    wide = np.pad(
        np.asarray(signal, dtype=np.float32), ((margin, step + margin), (0, 0)), mode="constant", constant_values=np.nan
    )
    times, kinds, clear, steep = [], [], [], []
    for first in range(0, len(starts), 32):
        part = np.stack([wide[at : at + step + 2 * margin].T for at in starts[first : first + 32]])
        seen = block.detect(part, sampling_hz)
        local = seen.beats.time - OVERLAP_S
        kept = (local >= 0) & (local < WINDOW_S) & seen.clear[seen.beats.record]
        times.append(local[kept] + starts[first + seen.beats.record[kept]] / sampling_hz)
        kinds.append(seen.beats.dominant[kept])
        clear.append(seen.clear)
        steep.append(beats.steepness(seen.coarse, seen.usable))
    time, dominant = np.concatenate(times), np.concatenate(kinds)
    order = np.argsort(time, kind="stable")
    time, dominant = time[order], dominant[order]
    fresh = np.diff(time, prepend=-np.inf) > _SAME_BEAT_S
    time, dominant = time[fresh], dominant[fresh]
    found = beats.Beats(np.zeros(len(time), np.int64), time, dominant)
    stands_out, steepness = np.concatenate(clear), np.concatenate(steep)
    hidden = np.zeros(len(signal), dtype=bool)
    if stands_out.any():
        busy = ~stands_out & (steepness > beats.LIKELY * np.median(steepness[stands_out]))
        hidden = np.repeat(busy, step)[: len(signal)]
        hidden = np.pad(hidden, (0, len(signal) - len(hidden)))
    return found, np.asarray(~np.isfinite(signal).any(axis=1)), hidden


def _mostly(hidden: Bools, blind: Bools) -> bool:
    """Whether beats are hidden in most of what was recorded."""
    return bool((hidden & ~blind).sum() > _MOST_HIDDEN * (~blind).sum())


def _of_windows(problems: Sequence[block.Problem], count: int) -> list[tuple[str, str]]:
    """The problems of the windows, each reason once, with when and how often it was met."""
    by_reason: dict[str, list[tuple[int, str]]] = {}
    for window, reason, detail in problems:
        by_reason.setdefault(reason, []).append((window, detail))
    told = []
    for reason, met in by_reason.items():
        when = ", ".join(f"{window * WINDOW_S:g} s" for window, _ in met[:_MOST_WINDOWS_NAMED])
        more = " and others" if len(met) > _MOST_WINDOWS_NAMED else ""
        told.append((reason, f"{met[0][1]}; {len(met)} of {count} windows, at {when}{more}"))
    return told


__all__ = ["FIDUCIAL_MS", "MAX_SECONDS", "MedianBeat", "describe_beat", "measure_record"]
