"""The provider named `measured`: rate, regularity, QRS amplitudes and axis from waveforms alone.

The steps, each cited where it is written: find the beats in all leads together and keep the dominant kind (`beats`),
take the median of those (`median_beat`), find the QRS complex in it and read waves and axis (`waves`). Nothing adds
numbers of different records, so a record's values do not depend on the block it is measured in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecglm.synth.errors import SignalError
from ecglm.synth.measure import beats, median_beat, waves
from ecglm.synth.measure.arrays import Bools, Floats
from ecglm.synth.schema import LEADS

MEASURED_VERSION = "1"
"""Changes whenever the same waveform would give another number."""

MEASURED_COLUMNS = (
    "HR__Global",
    "RR_Mean_Global",
    "RR_StdDev_Global",
    "QRS_Count_Global",
    "QRS_AxisFront_Global",
    *(f"{wave}_{lead}" for wave in ("R_Amp", "S_Amp", "QRS_AmpPP") for lead in LEADS),
)
"""Every column `measure_block` returns, in order: names and units of PTB-XL+."""

MIN_HZ, MAX_HZ = 90, 1100
MIN_SECONDS, MAX_SECONDS = 2.5, 120.0
MOST_MISSING = 0.5
"""A lead with more than this share of its samples missing is not measured."""
NOISE_MV, NOISE_SHARE = 0.1, 0.2
"""A lead is too noisy when the standard error of its median beat exceeds both 0.1 mV and a fifth of its QRS."""
MOST_MV = 25.0
"""No QRS complex is taller: such a number comes from wrong units or a broken lead."""
_RECORDS_AT_ONCE = 32  # keeps the working arrays near the processor

Problem = tuple[int, str, str]
"""(index of the record in the block, reason to count by, which leads and what was found)."""


def measure_block(signal: Floats, leads: Sequence[str], sampling_hz: int) -> tuple[dict[str, Floats], list[Problem]]:
    """Measure a block of ECGs of equal length; NaN stands for whatever could not be measured.

    HR__Global is 60,000 / RR_Mean_Global, the mean of all RR intervals, as in 12SL. RR_StdDev_Global is the standard
    deviation of the normal RR intervals, as in Uni-G (see `beats.rhythm`). Amplitudes are those of the median beat
    relative to the level just before the QRS complex (see `waves.qrs_waves`).

    Args:
        signal: (n_records, n_samples, n_leads) in mV; NaN marks samples that were not recorded.
        leads: name of each lead; names outside `schema.LEADS` (compared without case) only help to find the beats.
        sampling_hz: samples per second, 90 to 1,100.

    Returns:
        `MEASURED_COLUMNS` → (n_records,) float32; and the problems met: too_short, too_long, flat_lead, nan_samples,
        noisy_lead, implausible_amplitude, no_beats, too_few_beats, indeterminate_axis.

    Raises:
        SignalError: the array does not fit `leads`, a lead is named twice, or the sampling frequency is out of range.
    """
    signal = np.asarray(signal)
    names = _canonical(leads)
    if signal.ndim != 3 or signal.shape[2] != len(names):
        raise SignalError(
            "bad_shape", f"signal has shape {signal.shape}; expected (n_records, n_samples, {len(names)} leads)"
        )
    if not MIN_HZ <= sampling_hz <= MAX_HZ:
        raise SignalError(
            "sampling_frequency",
            f"sampling_hz is {sampling_hz}; expected {MIN_HZ} to {MAX_HZ}: resample the signal first",
        )
    n_records, n_samples, n_leads = signal.shape
    columns = {name: np.full(n_records, np.nan, np.float32) for name in MEASURED_COLUMNS}
    problems: list[Problem] = []
    seconds = n_samples / sampling_hz
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        reason = "too_short" if seconds < MIN_SECONDS else "too_long"
        detail = f"{seconds:g} s; one piece of {MIN_SECONDS:g} to {MAX_SECONDS:g} s can be measured"
        return columns, [(record, reason, detail) for record in range(n_records)]
    at_once = max(1, min(_RECORDS_AT_ONCE, 1_000_000 // (n_samples * max(1, n_leads))))
    for first in range(0, n_records, at_once):
        part = np.ascontiguousarray(signal[first : first + at_once].transpose(0, 2, 1), dtype=np.float32)
        measured, found = _measure_part(part, names, sampling_hz)
        for name, values in measured.items():
            columns[name][first : first + at_once] = values
        problems += [(first + record, reason, detail) for record, reason, detail in found]
    return columns, problems


def _canonical(leads: Sequence[str]) -> list[str]:
    """The leads as `schema.LEADS` spells them; other names as they are."""
    spelling = {lead.upper(): lead for lead in LEADS}
    names = [spelling.get(lead.strip().upper(), lead) for lead in leads]
    if len(set(names)) < len(names):
        raise SignalError(
            "duplicate_leads",
            f"leads {list(leads)} name a lead twice; expected each lead once: leave one out or rename it",
        )
    return names


def _measure_part(signal: Floats, names: list[str], sampling_hz: int) -> tuple[dict[str, Floats], list[Problem]]:
    """Measure (n_records, n_leads, n_samples) in mV."""
    problems: list[Problem] = []
    signal, missing = _bridge(signal)
    coarse = beats.at_detection_rate(signal, sampling_hz)
    slope = beats.slope(coarse)
    weight, flat = beats.lead_weights(slope)
    absent = missing.mean(axis=2)  # (n_records, n_leads)
    usable = ~flat & (absent <= MOST_MISSING)
    weight[~usable] = 0
    _report(problems, "nan_samples", absent > 0, names, absent, "{:.0%} of the samples missing")
    _report(problems, "flat_lead", flat & (absent <= MOST_MISSING), names)

    found, clear = beats.find_beats(coarse, slope, weight)
    columns = beats.rhythm(found, (missing | ~usable[:, :, None]).all(axis=1), sampling_hz)
    columns["QRS_Count_Global"][~clear] = np.nan
    beat, spread, hz = median_beat.median_beats(signal, missing, found, sampling_hz)
    onset, offset = waves.qrs_bounds(beat, usable, hz)
    read = waves.qrs_waves(beat, onset, offset, hz)
    noisy = usable & (spread > NOISE_MV) & (spread > NOISE_SHARE * read.peak_to_peak)
    _report(problems, "noisy_lead", noisy, names, spread, "standard error {:.2f} mV")
    implausible = usable & (read.peak_to_peak > MOST_MV)
    _report(problems, "implausible_amplitude", implausible, names, read.peak_to_peak, "{:.0f} mV; are the units right?")
    for values in (read.r, read.s, read.peak_to_peak, read.area, read.absolute_area):
        values[~usable | noisy | implausible] = np.nan
    axis, doubtful = waves.frontal_axis(read.area, read.absolute_area, names)
    columns["QRS_AxisFront_Global"] = axis
    for index, lead in enumerate(names):
        if lead in LEADS:
            columns[f"R_Amp_{lead}"] = read.r[:, index]
            columns[f"S_Amp_{lead}"] = read.s[:, index]
            columns[f"QRS_AmpPP_{lead}"] = read.peak_to_peak[:, index]

    no_signal = ~usable.any(axis=1)
    for record in np.flatnonzero(~clear):
        detail = "no lead carries a signal" if no_signal[record] else "no QRS complexes stand out from the background"
        problems.append((int(record), "no_beats", detail))
    too_few = clear & (np.isnan(columns["HR__Global"]) | np.isnan(beat).all(axis=(1, 2)))
    for record in np.flatnonzero(too_few):
        count = int(columns["QRS_Count_Global"][record])
        problems.append((int(record), "too_few_beats", f"{count} QRS complexes, one of them whole at least is needed"))
    problems += [
        (int(record), "indeterminate_axis", "the net QRS area is near zero in every limb lead")
        for record in np.flatnonzero(doubtful)
    ]
    return columns, problems


def _bridge(signal: Floats) -> tuple[Floats, Bools]:
    """The signal with missing samples bridged by straight lines, and where they were."""
    missing = ~np.isfinite(signal)
    if not missing.any():
        return signal, missing
    signal = np.where(missing, np.float32(0), signal)
    time = np.arange(signal.shape[2])
    for record, lead in np.argwhere(missing.any(axis=2)):
        holes = missing[record, lead]
        if not holes.all():
            signal[record, lead, holes] = np.interp(time[holes], time[~holes], signal[record, lead, ~holes])
    return signal, missing


def _report(
    problems: list[Problem],
    reason: str,
    where: Bools,
    names: list[str],
    values: Floats | None = None,
    words: str = "no signal",
) -> None:
    """Add one problem per record, naming its leads, for the (n_records, n_leads) marked in `where`."""
    for record in np.flatnonzero(where.any(axis=1)):
        told = [
            f"{names[lead]}: {words if values is None else words.format(values[record, lead])}"
            for lead in np.flatnonzero(where[record])
        ]
        problems.append((int(record), reason, "; ".join(told)))
