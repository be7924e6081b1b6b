"""The provider named `measured`: every measurement of the dictionary that a waveform alone can give.

The steps, each cited where it is written: find the beats in all leads together and keep the dominant kind (`beats`),
take the median of those (`median_beat`), find in it the QRS complex (`waves`), the T wave (`repolarisation`) and the P
wave (`atrial`), and grade what was read (`quality`). Nothing adds numbers of different records, so a record's values do
not depend on the block it is measured in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecglm.synth.errors import SignalError
from ecglm.synth.measure import atrial, beats, median_beat, quality, repolarisation, waves
from ecglm.synth.measure.arrays import Bools, Floats, Integers, mean_between, milliseconds, moving_mean
from ecglm.synth.schema import LEADS

MEASURED_VERSION = "5"
"""Changes whenever the same waveform would give another number."""

GLOBAL_COLUMNS = (
    "HR__Global", "RR_Mean_Global", "RR_StdDev_Global", "QRS_Count_Global", "Ectopic_Count_Global",
    "Pacing_Found_Global", "P_Found_Global", "P_Evidence_Global", "PR_Int_Global", "P_Dur_Global", "QRS_Dur_Global",
    "QT_Int_Global", "QT_IntBazett_Global", "QT_IntFridericia_Global", "QT_IntFramingham_Global", "P_AxisFront_Global",
    "QRS_AxisFront_Global", "T_AxisFront_Global", "Rhythm_Quality_Global", "P_Quality_Global", "QRS_Quality_Global",
    "T_Quality_Global",
)  # fmt: skip
P_COLUMNS = ("P_Amp", "P_Dur", "P-_Amp", "P-_Dur", "P_Area", "P_Quality")
QRS_COLUMNS = (
    "Q_Amp", "Q_Dur", "R_Amp", "R_Dur", "S_Amp", "S_Dur", "Rp_Amp", "Rp_Dur", "Sp_Amp", "Sp_Dur", "R_PeakTime",
    "QRS_AmpPP", "QRS_Area", "QRS_Quality",
)  # fmt: skip
ST_COLUMNS = ("ST_Amp", "ST_Amp40ms", "ST_Amp60ms", "ST_Amp80ms", "ST_Slope")
T_COLUMNS = ("T_Amp", "T_Dur", "T_Area", "T_Morph", "T_Quality")
MEASURED_COLUMNS = (
    *GLOBAL_COLUMNS,
    *(f"{name}_{lead}" for name in (*P_COLUMNS, *QRS_COLUMNS, *ST_COLUMNS, *T_COLUMNS) for lead in LEADS),
)
"""Every column `measure_block` returns, in order: names and units of PTB-XL+ (see dictionary.yaml)."""

MIN_HZ, MAX_HZ = 90, 1100
MIN_SECONDS, MAX_SECONDS = 2.5, 120.0
MOST_MISSING = 0.5
"""A lead with more than this share of its samples missing is not measured."""
NOISE_MV, NOISE_SHARE = 0.1, 0.2
"""A lead is too noisy when the standard error of its median beat exceeds both 0.1 mV and a fifth of its QRS."""
MOST_MV = 25.0
"""No QRS complex is taller: such a number comes from wrong units or a broken lead."""
LEAST_P_AREA = 0.3
"""A P wave whose frontal vector has a smaller area (mV·ms) has no sure direction."""
PACED_SHARE = 0.5
"""A rhythm is called paced when at least this share of the beats has a spike before it."""
CLEAR_CONTRAST, FAIR_CONTRAST = 8.0, 5.0
"""How many times the typical beat stands above the background of a good and of a fair detection of beats."""
SURE_EVIDENCE, FAIR_EVIDENCE = 0.8, 0.6
SMOOTHED_MS = 12
T_END_MARGIN_MS = 12
_RECORDS_AT_ONCE = 32  # keeps the working arrays near the processor

Problem = tuple[int, str, str]
"""(index of the record in the block, reason to count by, which leads and what was found)."""


def measure_block(signal: Floats, leads: Sequence[str], sampling_hz: int) -> tuple[dict[str, Floats], list[Problem]]:
    """Measure a block of ECGs of equal length; NaN stands for whatever could not be measured.

    HR__Global is 60,000 / RR_Mean_Global, the mean of all RR intervals, as in 12SL. RR_StdDev_Global is the standard
    deviation of the normal RR intervals, as in Uni-G (see `beats.rhythm`). Amplitudes are those of the median beat
    relative to the level just before the QRS complex, P amplitudes relative to the line from its onset to its offset.

    Args:
        signal: (n_records, n_samples, n_leads) in mV; NaN marks samples that were not recorded.
        leads: name of each lead; names outside `schema.LEADS` (compared without case) only help to find the beats.
        sampling_hz: samples per second, 90 to 1,100.

    Returns:
        `MEASURED_COLUMNS` → (n_records,) float32; and the problems met: too_short, too_long, flat_lead, nan_samples,
        clipped_lead, noisy_lead, implausible_amplitude, no_beats, too_few_beats, long_pause, indeterminate_axis,
        limb_leads_swapped, paced.

    Raises:
        SignalError: the array does not fit `leads`, a lead is named twice, or the sampling frequency is out of range.
    """
    signal = np.asarray(signal)
    names = canonical_leads(leads)
    if signal.ndim != 3 or signal.shape[2] != len(names):
        raise SignalError(
            "bad_shape", f"signal has shape {signal.shape}; expected (n_records, n_samples, {len(names)} leads)"
        )
    check_rate(sampling_hz)
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


def check_rate(sampling_hz: int) -> None:
    """Raise SignalError for a sampling frequency that cannot be measured at."""
    if not MIN_HZ <= sampling_hz <= MAX_HZ:
        raise SignalError(
            "sampling_frequency",
            f"sampling_hz is {sampling_hz}; expected {MIN_HZ} to {MAX_HZ}: resample the signal first",
        )


def canonical_leads(leads: Sequence[str]) -> list[str]:
    """The leads as `schema.LEADS` spells them; other names as they are."""
    spelling = {lead.upper(): lead for lead in LEADS}
    names = [spelling.get(lead.strip().upper(), lead) for lead in leads]
    if len(set(names)) < len(names):
        raise SignalError(
            "duplicate_leads",
            f"leads {list(leads)} name a lead twice; expected each lead once: leave one out or rename it",
        )
    return names


@dataclass(frozen=True)
class Detection:
    """The beats of a part of a block, and what they were found in."""

    signal: Floats  # (n_records, n_leads, n_samples) in mV, missing samples bridged
    coarse: Floats  # the same at `beats.DETECTION_HZ`
    missing: Bools  # (n_records, n_leads, n_samples)
    usable: Bools  # (n_records, n_leads) leads that carry a signal
    beats: beats.Beats
    clear: Bools  # (n_records,) whether beats stand out
    contrast: Floats  # (n_records,) how many times


def detect(signal: Floats, sampling_hz: int) -> Detection:
    """Find the beats of (n_records, n_leads, n_samples) in mV; NaN marks missing samples."""
    signal, missing = _bridge(signal)
    coarse = beats.at_detection_rate(signal, sampling_hz)
    slope = beats.slope(coarse)
    weight, flat = beats.lead_weights(slope)
    usable = ~flat & (missing.mean(axis=2) <= MOST_MISSING)
    weight[~usable] = 0
    found, clear, contrast = beats.find_beats(coarse, slope, weight)
    return Detection(signal, coarse, missing, usable, found, clear, contrast)


@dataclass(frozen=True)
class Delineation:
    """What a part of a block shows before anything is read from it; times in samples of the median beat."""

    beats: beats.Beats
    clear: Bools  # (n_records,) whether beats stand out
    contrast: Floats  # (n_records,) how many times
    signal: Floats  # (n_records, n_leads, n_samples) in mV, missing samples bridged
    usable: Bools  # (n_records, n_leads) leads that carry a signal
    missing: Bools  # (n_records, n_leads, n_samples)
    beat: Floats  # (n_records, n_leads, n_times) in mV relative to the level before the QRS complex
    smooth: Floats  # the same smoothed, for waves that have no steep flanks
    error: Floats  # (n_records, n_leads) standard error of the median beat in mV
    hz: int  # samples per second of the median beat
    rhythm: dict[str, Floats]
    qrs_onset: Integers  # (n_records,) all of them
    qrs_offset: Integers
    p: atrial.PWaves
    evidence: Floats  # (n_records,) of P waves
    p_found: Bools
    t_peak: Integers
    t_offset: Integers
    latest_t_offset: Integers  # where the search for the end of T ended

    @property
    def whole(self) -> Bools:
        """(n_records,) whether there is a median beat."""
        return self.clear & np.isfinite(self.beat).any(axis=(1, 2))


def blind(missing: Bools, usable: Bools) -> Bools:
    """(n_records, n_samples) where no usable lead was recorded."""
    return np.asarray((missing | ~usable[:, :, None]).all(axis=1))


def delineate(signal: Floats, leads: Sequence[str], sampling_hz: int) -> Delineation:
    """Find beats, median beat and the bounds of its waves in (n_records, n_leads, n_samples) in mV."""
    seen = detect(signal, sampling_hz)
    signal, coarse, missing, usable = seen.signal, seen.coarse, seen.missing, seen.usable
    found, clear, contrast = seen.beats, seen.clear, seen.contrast
    rhythm = beats.rhythm(found, blind(missing, usable), sampling_hz)
    rhythm["QRS_Count_Global"][~clear] = np.nan

    beat, error, hz = median_beat.median_beats(signal, missing, found, sampling_hz)
    onset, offset = waves.qrs_bounds(beat, usable, hz)
    beat = beat - mean_between(beat, onset - milliseconds(20, hz), onset)[:, :, None]
    known = np.where(usable[:, :, None] & np.isfinite(beat), beat, np.float32(0))
    rr = beats.usual_interval(found, len(signal)) * np.float32(hz)
    rr_or_long = np.where(np.isnan(rr), np.float32(2 * known.shape[2]), rr)
    t_peak = repolarisation.t_peak(known, onset, offset, rr_or_long, hz)
    before_next = onset - milliseconds(40, hz) + np.rint(rr_or_long).astype(np.int64)
    t_offset, _ = repolarisation.t_end(known, t_peak, before_next, hz)
    p = atrial.p_bounds(known, leads, onset, t_peak, t_offset, rr_or_long, hz)
    before, _ = median_beat.undisturbed(found, len(signal))
    before = median_beat.preferred(found.dominant, before, found, len(signal))
    fiducial = milliseconds(median_beat.BEFORE_MS, hz)
    at = [((sample - fiducial) / hz).astype(np.float32) for sample in (onset, p.peak)]
    evidence = atrial.p_evidence(coarse, usable, error, found, before, at[0], at[1])
    shown = _smoothed(beat, milliseconds(SMOOTHED_MS, hz))
    per_sample = np.float32(1000 / hz)
    p_found = atrial.believed(
        evidence,
        atrial.p_shapes(shown, p, hz),
        usable,
        leads,
        (onset - p.onset) * per_sample,
        (offset - onset) * per_sample,
        rhythm["RR_StdDev_Global"] / rhythm["RR_Mean_Global"],
        beats.usual_change(found, len(signal)),
    )
    before_p = p.onset - milliseconds(10, hz) + np.rint(rr_or_long).astype(np.int64)
    next_wave = np.where(p_found, before_p, before_next)
    t_offset, latest = repolarisation.t_end(known, t_peak, next_wave, hz)
    return Delineation(
        found, clear, contrast, signal, usable, missing, beat, shown, error, hz, rhythm, onset, offset, p, evidence,
        p_found, t_peak, t_offset, latest,
    )  # fmt: skip


def _measure_part(signal: Floats, names: list[str], sampling_hz: int) -> tuple[dict[str, Floats], list[Problem]]:
    """Measure (n_records, n_leads, n_samples) in mV."""
    problems: list[Problem] = []
    seen = delineate(signal, names, sampling_hz)
    absent, usable = seen.missing.mean(axis=2), seen.usable
    columns = dict(seen.rhythm)
    clear, hz, beat = seen.clear, seen.hz, seen.beat
    read = waves.qrs_waves(beat, seen.qrs_onset, seen.qrs_offset, hz)
    st_t = repolarisation.t_shapes(beat, seen.smooth, seen.qrs_offset, seen.t_offset, hz)
    p = atrial.p_shapes(seen.smooth, seen.p, hz)
    noisy = usable & (seen.error > NOISE_MV) & (seen.error > NOISE_SHARE * read.peak_to_peak)
    implausible = usable & (read.peak_to_peak > MOST_MV)
    good = usable & ~noisy & ~implausible & np.isfinite(read.peak_to_peak)
    t_found = _t_found(st_t, good, seen.error)

    per_lead = {
        **_of_leads(P_COLUMNS, (p.amplitude, p.duration, p.negative_amplitude, p.negative_duration, p.area), good),
        **_of_leads(
            QRS_COLUMNS,
            (
                read.q, read.q_duration, read.r, read.r_duration, read.s, read.s_duration,
                read.r_prime, read.r_prime_duration, read.s_prime, read.s_prime_duration,
                read.peak_time, read.peak_to_peak, read.area,
            ),
            good,
        ),
        **_of_leads(ST_COLUMNS, (st_t.st, *st_t.st_later, st_t.st_slope), good),
        **_of_leads(T_COLUMNS, (st_t.amplitude, st_t.duration, st_t.area, st_t.morphology), good & t_found[:, None]),
    }  # fmt: skip
    for name in P_COLUMNS[:-1]:
        per_lead[name][~seen.p_found] = np.nan
    per_lead["P_Quality"] = quality.grade(np.where(seen.p_found[:, None] & good, p.height, np.nan), seen.error)
    per_lead["QRS_Quality"] = quality.grade(per_lead["QRS_AmpPP"], seen.error)
    per_lead["T_Quality"] = quality.grade(per_lead["T_Amp"], seen.error)
    cut_off = np.asarray(quality.clipped(seen.signal, sampling_hz) & usable)
    for wave in ("P", "QRS", "T"):  # how high a wave is that was cut off, nobody knows
        grades = per_lead[f"{wave}_Quality"]
        grades[cut_off] = np.minimum(grades[cut_off], np.float32(quality.POOR))
    columns |= _intervals(seen, t_found)
    doubtful = _axes(columns, per_lead, (p, read, st_t), names)
    columns |= _grades(seen, per_lead, columns)
    columns["Ectopic_Count_Global"] = np.where(
        clear, quality.premature(seen.beats, len(signal)).astype(np.float32), np.float32(np.nan)
    )
    spikes = quality.pacing(signal, usable, seen.beats, sampling_hz)
    columns["Pacing_Found_Global"] = np.where(np.isnan(spikes), spikes, spikes >= PACED_SHARE).astype(np.float32)
    with_spikes = spikes >= PACED_SHARE  # they may be part of what is measured as P wave or QRS complex
    for grades in (
        *(columns[f"{wave}_Quality_Global"] for wave in ("P", "QRS", "T")),
        *(per_lead[f"{wave}_Quality"] for wave in ("P", "QRS")),
    ):
        grades[with_spikes] = np.minimum(grades[with_spikes], np.float32(quality.POOR))
    for name, values in per_lead.items():
        for index, lead in enumerate(names):
            if lead in LEADS:
                columns[f"{name}_{lead}"] = values[:, index]

    _report(problems, "nan_samples", absent > 0, names, absent, "{:.0%} of the samples missing")
    _report(problems, "flat_lead", ~usable & (absent <= MOST_MISSING), names)
    _report(problems, "clipped_lead", cut_off, names, read.peak_to_peak, "cut off; QRS {:.2f} mV or more")
    _report(problems, "noisy_lead", noisy, names, seen.error, "standard error {:.2f} mV")
    _report(problems, "implausible_amplitude", implausible, names, read.peak_to_peak, "{:.0f} mV; are the units right?")
    no_signal = np.asarray(~usable.any(axis=1))
    for record in np.flatnonzero(~clear):
        detail = "no lead carries a signal" if no_signal[record] else "no QRS complexes stand out from the background"
        problems.append((int(record), "no_beats", detail))
    too_few = clear & (np.isnan(columns["HR__Global"]) | ~seen.whole)
    for record in np.flatnonzero(too_few):
        count = int(columns["QRS_Count_Global"][record])
        problems.append((int(record), "too_few_beats", f"{count} QRS complexes, one of them whole at least is needed"))
    unseen = blind(seen.missing, usable)
    pause, begins = quality.longest_pause(seen.beats, unseen, signal.shape[2] / sampling_hz, sampling_hz)
    for record in np.flatnonzero(clear & (pause >= quality.PAUSE_S)):
        problems.append(
            (int(record), "long_pause", f"{pause[record]:.1f} s without a QRS complex from {begins[record]:.1f} s on")
        )
    problems += [
        (int(record), "indeterminate_axis", "the net QRS area is near zero in every limb lead")
        for record in np.flatnonzero(doubtful)
    ]
    problems += [
        (int(record), "paced", f"spikes before {spikes[record]:.0%} of the QRS complexes")
        for record in np.flatnonzero(with_spikes)
    ]
    if set(LEADS) <= set(names):
        problems += [(record, "limb_leads_swapped", what) for record, what in quality.swapped_limb_leads(columns)]
    return columns, problems


def _of_leads(names: Sequence[str], values: Sequence[Floats], known: Bools) -> dict[str, Floats]:
    """Name → (n_records, n_leads), NaN where a lead is not known; names beyond the values are left out."""
    return {
        name: np.where(known, value, np.float32(np.nan)).astype(np.float32)
        for name, value in zip(names, values, strict=False)
    }


def _smoothed(beat: Floats, size: int) -> Floats:
    """Moving mean over `size` samples; what is not known stays so."""
    known = np.isfinite(beat)
    return np.where(known, moving_mean(np.where(known, beat, np.float32(0)), size), np.float32(np.nan))


def _t_found(st_t: repolarisation.TShapes, good: Bools, error: Floats) -> Bools:
    """(n_records,) whether any lead has a T wave high enough to end somewhere."""
    height = np.where(good, np.abs(st_t.amplitude), 0)
    clear = (height >= repolarisation.SMALLEST_T_MV) & ~(height < quality.FAIR_RATIO * error)
    return np.asarray(clear.any(axis=1))


def _intervals(seen: Delineation, t_found: Bools) -> dict[str, Floats]:
    """Global durations in ms, the QT interval corrected for the mean RR interval, and whether P waves were found."""
    per_sample = np.float32(1000 / seen.hz)

    def span(start: Integers, stop: Integers, known: Bools) -> Floats:
        return np.where(known & seen.whole, (stop - start) * per_sample, np.float32(np.nan)).astype(np.float32)

    qt = span(seen.qrs_onset, seen.t_offset, t_found)
    rr_s = seen.rhythm["RR_Mean_Global"] / np.float32(1000)
    evidence = np.where(seen.whole, seen.evidence, np.float32(np.nan))
    return {
        "P_Evidence_Global": evidence,
        "P_Found_Global": np.where(np.isnan(evidence), evidence, seen.p_found).astype(np.float32),
        "PR_Int_Global": span(seen.p.onset, seen.qrs_onset, seen.p_found),
        "P_Dur_Global": span(seen.p.onset, seen.p.offset, seen.p_found),
        "QRS_Dur_Global": span(seen.qrs_onset, seen.qrs_offset, seen.clear),
        "QT_Int_Global": qt,
        "QT_IntBazett_Global": qt / np.sqrt(rr_s),
        "QT_IntFridericia_Global": qt / np.cbrt(rr_s),
        "QT_IntFramingham_Global": qt + np.float32(154) * (1 - rr_s),
    }


def _axes(
    columns: dict[str, Floats],
    per_lead: dict[str, Floats],
    shapes: tuple[atrial.PShapes, waves.Waves, repolarisation.TShapes],
    names: list[str],
) -> Bools:
    """Add the frontal axes; returns where that of the QRS complex is indeterminate."""
    p, qrs, t = shapes
    doubtful = np.zeros(len(p.area), bool)
    for name, area, absolute, least in (
        ("P", p.area, p.absolute_area, LEAST_P_AREA),
        ("QRS", qrs.area, qrs.absolute_area, waves.LEAST_NET_AREA),
        ("T", t.area, t.absolute_area, waves.LEAST_NET_AREA),
    ):
        known = np.isfinite(per_lead[{"P": "P_Amp", "QRS": "QRS_AmpPP", "T": "T_Amp"}[name]])
        unknown = np.float32(np.nan)
        axis, unsure = waves.frontal_axis(
            np.where(known, area, unknown), np.where(known, absolute, unknown), names, least
        )
        columns[f"{name}_AxisFront_Global"] = axis
        if name == "QRS":
            doubtful = unsure
    return doubtful


def _grades(seen: Delineation, per_lead: dict[str, Floats], columns: dict[str, Floats]) -> dict[str, Floats]:
    """Grades of the global measurements: see the words of each in dictionary.yaml."""

    def steps(value: Floats, good: float, fair: float, known: Bools) -> Floats:
        graded = np.where(value >= good, quality.GOOD, np.where(value >= fair, quality.FAIR, quality.POOR))
        return np.where(known, graded, np.nan).astype(np.float32)

    def best_leads(grades: Floats) -> Floats:
        """(n_records,) the grade that the better half of the leads reaches."""
        ordered = -np.sort(-np.nan_to_num(grades, nan=0.0), axis=1)
        count = np.maximum(np.isfinite(grades).sum(axis=1), 1)
        return np.asarray(ordered[np.arange(len(ordered)), (count - 1) // 2])

    unseen = blind(seen.missing, seen.usable).mean(axis=1)
    rhythm = steps(seen.contrast, CLEAR_CONTRAST, FAIR_CONTRAST, np.isfinite(columns["HR__Global"]))
    qrs = np.where(np.isfinite(columns["QRS_Dur_Global"]), best_leads(per_lead["QRS_Quality"]), np.nan)
    p = steps(seen.evidence, SURE_EVIDENCE, FAIR_EVIDENCE, np.isfinite(columns["PR_Int_Global"]))
    t = np.where(np.isfinite(columns["QT_Int_Global"]), best_leads(per_lead["T_Quality"]), np.nan)
    at_limit = seen.t_offset >= seen.latest_t_offset - milliseconds(T_END_MARGIN_MS, seen.hz)
    return {
        "Rhythm_Quality_Global": np.where(unseen > 0.1, np.minimum(rhythm, quality.POOR), rhythm).astype(np.float32),
        "P_Quality_Global": p,
        "QRS_Quality_Global": np.maximum(qrs, quality.POOR).astype(np.float32),
        "T_Quality_Global": np.where(at_limit, np.minimum(t, quality.POOR), np.maximum(t, quality.POOR)).astype(
            np.float32
        ),
    }


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
