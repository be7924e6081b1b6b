"""Where the beats are, which of them are of the dominant kind, and what follows for the rhythm.

Pan & Tompkins 1985 (doi:10.1109/TBME.1985.325532) with its parts — band-pass, slope, moving window, threshold that
follows the signal, refractory period, search-back, T-wave test — carried over to all leads together and to a whole
block of records at once. Instead of learning peak by peak, the threshold is a share of the typical peak of the
surrounding ten seconds, and shape decides the doubtful cases: a weak peak counts if it looks like another beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from ecglm.synth.measure.arrays import Bools, Doubles, Floats, Integers

DETECTION_HZ = 100

# Lengths below are in samples of 10 ms, heights in units of the typical beat of the record.
REFRACTORY = 20
T_WAVE_WINDOW = 36  # Pan & Tompkins 1985: a peak within 360 ms and less than half as steep is a T wave
SURE, LIKELY, POSSIBLE = 0.55, 0.35, 0.15
ALIKE, SAME_KIND, SEARCH_BACK_ALIKE = 0.6, 0.75, 0.7  # correlation of the slopes in all leads
SEARCH_BACK_GAP = 1.6  # Pan & Tompkins 1985 use 1.66 mean RR intervals
BROAD_GAP, BROAD_APART, BROAD_SHARE = 1.45, 40, 0.6  # times the usual interval; 10 ms; share of a beat's deflection
CONTRAST = 3.5  # typical beat over median background; noise of 10 s reaches 3 in one lead and 1.4 in twelve
FAST_CONTRAST, FAST_BEATS, FAST_SHARE = 2.0, 8, 0.75  # enough for many beats of one kind: fast, wide QRS complexes
LEAD_CAP = 1.4  # what one lead may add to the envelope, in units of its own steep slopes: artefacts in one lead
FLAT_MV = 0.005  # steep slope, as `slope` gives it, of a lead that carries no ECG
HALF = 6  # samples on each side of a beat whose shape is compared
MOST_LAG = 4
_FAR = 10**9


@dataclass(frozen=True)
class Beats:
    """The beats of a block as flat arrays, ordered by record, then time."""

    record: Integers  # (n_beats,) index of the record
    time: Doubles  # (n_beats,) s since the first sample
    dominant: Bools  # (n_beats,) of the kind that most beats of the record are of


def at_detection_rate(signal: Floats, sampling_hz: int) -> Floats:
    """(n_records, n_leads, n_samples) resampled to `DETECTION_HZ`; sample 0 stays at the same instant."""
    if sampling_hz == DETECTION_HZ:
        return signal
    from scipy.signal import resample_poly

    shared = gcd(sampling_hz, DETECTION_HZ)
    up, down = DETECTION_HZ // shared, sampling_hz // shared
    resampled: Floats = np.asarray(resample_poly(signal, up, down, axis=-1, padtype="line"), dtype=np.float32)
    return resampled


def slope(signal: Floats) -> Floats:
    """Slope between about 6 and 28 Hz of (n_records, n_leads, n_samples): steep in QRS complexes, little in T waves.

    A four-point slope less its own mean over 110 ms: a linear-phase band-pass in the place of Pan & Tompkins's.
    """
    length = signal.shape[2]
    wide = np.pad(signal, ((0, 0), (0, 0), (7, 8)), mode="edge")
    pair = wide[..., :-1] + wide[..., 1:]
    triple = pair[..., :-2] + pair[..., 1:-1]
    triple += pair[..., 2:]
    steep = triple[..., :length] - triple[..., 11 : 11 + length]
    steep *= np.float32(1 / 11)
    steep += pair[..., 8 : 8 + length]
    steep -= pair[..., 5 : 5 + length]
    return steep


def lead_weights(steep: Floats) -> tuple[Floats, Bools]:
    """(n_records, n_leads) weight of each lead in the envelope, and whether it is flat.

    A lead counts by its own steep slopes, less the noisier it is, and less if they are small beside the other leads'.
    """
    sample = np.abs(steep[..., ::4])
    middle, high = sample.shape[2] // 2, int(sample.shape[2] * 0.97)
    sample.partition((middle, high), axis=2)
    noise, peak = sample[..., middle], sample[..., high]
    flat = peak < FLAT_MV
    ordered = np.sort(np.where(flat, np.float32(0), peak), axis=1)
    last = ordered.shape[1] - 1
    usual = ordered[np.arange(len(ordered)), last - np.maximum((~flat).sum(axis=1) - 1, 0) // 2]
    scale = np.float32(10) * noise + np.maximum(peak, np.float32(0.5) * usual[:, None]) + np.float32(1e-6)
    return np.where(flat, np.float32(0), 1 / scale), flat


def envelope(weighted: Floats) -> Floats:
    """(n_records, n_samples) sum over leads of the weighted slope, each lead capped, in a triangular 90 ms window."""
    n_records, n_leads, length = weighted.shape
    total = np.zeros((n_records, length + 8), np.float32)
    for lead in range(n_leads):
        part = np.abs(weighted[:, lead])
        total[:, 4:-4] += np.minimum(part, np.float32(LEAD_CAP), out=part)
    smooth = np.zeros((n_records, length), np.float32)
    for shift, tap in enumerate((1, 2, 3, 4, 5, 4, 3, 2, 1)):
        smooth += np.float32(tap / 25) * total[:, shift : shift + length]
    return smooth


def typical_peak(curve: Floats) -> Floats:
    """(n_records, n_samples) height of the beats around each sample: the median of the maxima of five 2 s stretches."""
    length = curve.shape[1]
    count = max(1, round(length / (2 * DETECTION_HZ)))
    edges = [length * k // count for k in range(count + 1)]
    maxima = np.stack([curve[:, edges[k] : edges[k + 1]].max(axis=1) for k in range(count)], axis=1)
    level = np.empty_like(curve)
    for k in range(count):
        start = max(0, min(k - 2, count - 5))
        level[:, edges[k] : edges[k + 1]] = np.median(maxima[:, start : start + 5], axis=1)[:, None]
    return level


def steepness(coarse: Floats, usable: Bools) -> Floats:
    """(n_records,) how steep beats would be, in mV: the median of the maxima of 2 s stretches, summed over leads.

    Args:
        coarse: (n_records, n_leads, n_samples) at `DETECTION_HZ`.
        usable: (n_records, n_leads) leads that carry a signal.
    """
    steep = np.abs(slope(coarse))
    edges = range(0, steep.shape[2] - DETECTION_HZ, 2 * DETECTION_HZ)
    maxima = np.stack([steep[..., at : at + 2 * DETECTION_HZ].max(axis=2) for at in edges], axis=2)
    return np.asarray(np.where(usable, np.median(maxima, axis=2), np.float32(0)).sum(axis=1))


def find_beats(signal: Floats, steep: Floats, weight: Floats) -> tuple[Beats, Bools, Floats]:
    """Beats of every record, whether they stand out at all (if not, it has none), and how many times they do.

    Args:
        signal, steep: (n_records, n_leads, n_samples) in mV at `DETECTION_HZ`, and its slope from `slope`.
        weight: (n_records, n_leads) from `lead_weights`; 0 leaves a lead out.
    """
    n_records, _, length = steep.shape
    weighted = steep * weight[:, :, None]
    curve = envelope(weighted)
    level = typical_peak(curve)
    contrast = (np.median(level, axis=1) / np.maximum(np.median(curve, axis=1), np.float32(1e-6))).astype(np.float32)
    record, sample = _peaks(curve, level, contrast > FAST_CONTRAST)

    # One row per record, one column per candidate; as wide as the length allows, so that no record sees another's size.
    width = length // REFRACTORY + 2
    column = np.arange(len(record)) - np.searchsorted(record, record)
    position = np.full((n_records, width), -1, np.int64)
    position[record, column] = sample
    there = position >= 0
    height = np.zeros((n_records, width), np.float32)
    height[record, column] = curve[record, sample] / level[record, sample]
    alike = _correlations(weighted, record, sample, column, width)

    accepted = there & (height > LIKELY)
    accepted &= (height > SURE) | (_best_match(alike, accepted) > ALIKE)
    accepted = _without_t_waves(accepted, position, height)
    accepted = _searched_back(accepted, there, position, height, alike)
    accepted = _with_broad_beats(accepted, there, position, signal, weight)
    accepted = _without_t_waves(accepted, position, height)
    dominant = _dominant(accepted, position, alike)
    n_dominant, n_accepted = dominant.sum(axis=1), accepted.sum(axis=1)
    fast = (contrast > FAST_CONTRAST) & (n_dominant >= FAST_BEATS) & (n_dominant > FAST_SHARE * n_accepted)
    clear = (contrast > CONTRAST) | fast
    accepted &= clear[:, None]

    record, column = np.nonzero(accepted)
    sample, of_kind = position[record, column], dominant[record, column]
    shift = _shift(weighted, record, sample, of_kind)
    return Beats(record, (sample + shift) / DETECTION_HZ, of_kind), clear, contrast


def rhythm(beats: Beats, blind: Bools, sampling_hz: int) -> dict[str, Floats]:
    """HR__Global (/min), RR_Mean_Global and RR_StdDev_Global (ms), QRS_Count_Global: each (n_records,).

    The mean is over all RR intervals. The standard deviation is over the normal ones: between two beats of the dominant
    kind, without a premature beat (less than 80 % of the median) and the pause after it, so that a few extrasystoles do
    not look like fibrillation; over all intervals where fewer than two normal ones exist (bigeminy). Compare Task Force
    of the ESC and NASPE 1996, doi:10.1161/01.CIR.93.5.1043, on normal-to-normal intervals. An interval during which
    nothing was recorded for longer than a tenth of a second is left out: a beat may be hidden in it.

    Args:
        blind: (n_records, n_samples) where no lead was recorded.
    """
    n_records = len(blind)
    hidden = np.cumsum(blind, axis=1)
    mean, deviation = (np.full(n_records, np.nan, np.float32) for _ in range(2))
    edges = np.searchsorted(beats.record, np.arange(n_records + 1))
    for index in range(n_records):
        chosen = slice(edges[index], edges[index + 1])
        times, dominant = beats.time[chosen], beats.dominant[chosen]
        intervals, normal = np.diff(times) * 1000, dominant[1:] & dominant[:-1]
        if hidden[index, -1]:
            unseen = np.diff(hidden[index, np.clip(times * sampling_hz, 0, hidden.shape[1] - 1).astype(np.int64)])
            intervals, normal = (values[unseen <= 0.1 * sampling_hz] for values in (intervals, normal))
        if len(intervals):
            mean[index] = intervals.sum() / len(intervals)
        if len(intervals) >= 2:
            deviation[index] = _normal_intervals(intervals, normal).std()
    return {
        "HR__Global": np.float32(60_000) / mean,
        "RR_Mean_Global": mean,
        "RR_StdDev_Global": deviation,
        "QRS_Count_Global": np.diff(edges).astype(np.float32),
    }


def usual_interval(beats: Beats, n_records: int) -> Floats:
    """(n_records,) median RR interval in s, NaN below two beats."""
    usual = np.full(n_records, np.nan, np.float32)
    edges = np.searchsorted(beats.record, np.arange(n_records + 1))
    for index in np.flatnonzero(np.diff(edges) > 1):
        usual[index] = np.median(np.diff(beats.time[edges[index] : edges[index + 1]]))
    return usual


def usual_change(beats: Beats, n_records: int) -> Floats:
    """(n_records,) median change from one RR interval to the next, as a share of the median; NaN below three beats.

    A few extrasystoles or pauses hardly move it: it is large only where hardly any interval is like the one before.
    """
    change = np.full(n_records, np.nan, np.float32)
    edges = np.searchsorted(beats.record, np.arange(n_records + 1))
    for index in np.flatnonzero(np.diff(edges) > 2):
        intervals = np.diff(beats.time[edges[index] : edges[index + 1]])
        change[index] = np.median(np.abs(np.diff(intervals))) / np.median(intervals)
    return change


def _normal_intervals(intervals: Doubles, normal: Bools) -> Doubles:
    kept = np.sort(intervals[normal])
    usual = kept[len(kept) // 2] if len(kept) else np.inf
    premature = (intervals[:-1] < 0.8 * usual) & (intervals[1:] > 1.05 * usual)
    normal[:-1] &= ~premature
    normal[1:] &= ~premature
    return intervals[normal] if normal.sum() >= 2 else intervals


def _peaks(curve: Floats, level: Floats, searched: Bools) -> tuple[Integers, Integers]:
    """(record, sample) of each peak, of the records to be searched, that tops the refractory period around it."""
    from scipy.ndimage import maximum_filter1d

    highest = maximum_filter1d(curve, 2 * REFRACTORY + 1, axis=1, mode="nearest")
    peak = (curve == highest) & (curve > np.float32(0.8 * POSSIBLE) * level) & searched[:, None]
    peak[:, :HALF] = peak[:, -HALF:] = False
    record, sample = np.nonzero(peak)
    twin = np.zeros(len(record), bool)  # equal heights closer than the refractory period
    twin[1:] = (np.diff(record) == 0) & (np.diff(sample) <= REFRACTORY)
    return record[~twin], sample[~twin]


def _windows(weighted: Floats, record: Integers, sample: Integers, half: int) -> Floats:
    """(n_beats, n_leads, 2 half + 1) of the signal around each sample; zero outside the record."""
    wide = np.pad(weighted, ((0, 0), (0, 0), (half, half)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, 2 * half + 1, axis=2)
    return np.ascontiguousarray(windows[record, :, sample])


def _correlations(weighted: Floats, record: Integers, sample: Integers, column: Integers, width: int) -> Floats:
    """(n_records, width, width) correlation of each candidate's slopes in all leads with every other's."""
    shape = _windows(weighted, record, sample, HALF).reshape(len(record), weighted.shape[1] * (2 * HALF + 1))
    shape /= np.maximum(np.sqrt((shape * shape).sum(axis=1)), np.float32(1e-9))[:, None]
    table = np.zeros((len(weighted), width, shape.shape[1]), np.float32)
    table[record, column] = shape
    return np.asarray(table @ table.transpose(0, 2, 1))


def _best_match(alike: Floats, accepted: Bools) -> Floats:
    """(n_records, width) highest correlation of each candidate with an accepted one other than itself."""
    others = accepted[:, None, :] & ~np.eye(alike.shape[1], dtype=bool)
    best: Floats = np.where(others, alike, np.float32(-1)).max(axis=2)
    return best


def _without_t_waves(accepted: Bools, position: Integers, height: Floats) -> Bools:
    """Drop a peak close to one more than twice as steep (T-wave test of Pan & Tompkins 1985, both ways)."""
    near = np.abs(position[:, :, None] - position[:, None, :]) < T_WAVE_WINDOW
    overshadowed = near & accepted[:, None, :] & (height[:, None, :] > 2 * height[:, :, None])
    return np.asarray(accepted & ~overshadowed.any(axis=2))


def _with_broad_beats(accepted: Bools, there: Bools, position: Integers, signal: Floats, weight: Floats) -> Bools:
    """Add, in each overlong gap, the greatest deflection if it is as large as a beat: a broad ventricular extrasystole.

    It must lie at least 400 ms from the beats on either side, where T waves and P waves do not.
    """
    before, after = _neighbours(accepted, position)
    apart = BROAD_APART
    overlong = (after - before > BROAD_GAP * _usual_gap(accepted, position)[:, None]) & (after - before < _FAR)
    lone = there & ~accepted & overlong & (position - before >= apart) & (after - position >= apart)
    for index in np.flatnonzero(lone.any(axis=1)):
        beats, found = np.flatnonzero(accepted[index]), np.flatnonzero(lone[index])
        size = _deflection(signal[index], weight[index], position[index])
        large = found[size[found] > BROAD_SHARE * np.sort(size[beats])[len(beats) // 2]]
        for gap in np.unique(before[index, large]):
            rivals = large[before[index, large] == gap]
            accepted[index, rivals[size[rivals].argmax()]] = True
    return accepted


def _deflection(signal: Floats, weight: Floats, position: Integers) -> Doubles:
    """(n_positions,) peak-to-peak deflection within 80 ms of each position, summed over leads by weight."""
    length = signal.shape[1]
    steps = np.clip(position[:, None] + np.arange(-8, 9), 0, length - 1)
    window = signal[:, steps]  # (n_leads, n_positions, 17)
    spans = (window.max(axis=2) - window.min(axis=2)) * weight[:, None]
    return np.asarray(spans.sum(axis=0), dtype=np.float64)


def _searched_back(accepted: Bools, there: Bools, position: Integers, height: Floats, alike: Floats) -> Bools:
    """Add, in each overlong gap, the tallest weak peak that looks like an accepted beat (after Pan & Tompkins 1985)."""
    for _ in range(3):
        before, after = _neighbours(accepted, position)
        gap = np.where(there & ~accepted, after - before, 0)
        overlong = (gap > SEARCH_BACK_GAP * _usual_gap(accepted, position)[:, None]) & (gap < _FAR)
        weak = (
            overlong
            & (height > POSSIBLE)
            & (position - before > REFRACTORY + 10)
            & (after - position > REFRACTORY + 10)
        )
        if not weak.any():
            break
        weak &= _best_match(alike, accepted) > SEARCH_BACK_ALIKE
        rivals = weak[:, None, :] & (before[:, :, None] == before[:, None, :])
        tallest = np.where(rivals, height[:, None, :], np.float32(0)).max(axis=2)
        accepted = accepted | (weak & (height >= tallest))
    return accepted


def _neighbours(accepted: Bools, position: Integers) -> tuple[Integers, Integers]:
    """(n_records, width) positions of the accepted beats before and after each candidate; far away if there is none."""
    before = np.maximum.accumulate(np.where(accepted, position, -_FAR), axis=1)
    after = np.minimum.accumulate(np.where(accepted, position, _FAR)[:, ::-1], axis=1)[:, ::-1]
    return before, after


def _usual_gap(accepted: Bools, position: Integers) -> Integers:
    """(n_records,) median distance of neighbouring accepted beats; very long where there are fewer than two."""
    latest = np.maximum.accumulate(np.where(accepted, position, -1), axis=1)
    gap = np.full(position.shape, _FAR)
    follows = accepted[:, 1:] & (latest[:, :-1] >= 0)
    gap[:, 1:][follows] = (position[:, 1:] - latest[:, :-1])[follows]
    gap.sort(axis=1)
    count = np.maximum(accepted.sum(axis=1) - 1, 1)
    return np.asarray(gap[np.arange(len(gap)), (count - 1) // 2])


def _dominant(accepted: Bools, position: Integers, alike: Floats) -> Bools:
    """(n_records, width) the accepted beats that resemble the one which most others resemble.

    Kinds of beats that come early before a pause count less, so that in bigeminy the extrasystoles do not prevail.
    """
    pairs = accepted[:, :, None] & accepted[:, None, :]
    same = pairs & (alike > SAME_KIND)
    n_same, n_accepted = same.sum(axis=2), accepted.sum(axis=1)[:, None]
    lateness = _lateness(accepted, position)
    late = (same * lateness[:, None, :]).sum(axis=2) / np.maximum(n_same, 1)
    fraction = np.where(pairs, alike, np.float32(0)).sum(axis=2) / (n_accepted + np.float32(1))
    score = np.where(accepted, n_same * (1 + 0.5 * late) + fraction, -1)
    chosen: Bools = same[np.arange(len(accepted)), score.argmax(axis=1)]
    return chosen


def _lateness(accepted: Bools, position: Integers) -> Doubles:
    """(n_records, width) from -1, long before the middle of its neighbours, to 1; 0 for the first and last beat."""
    before, after = (np.full(position.shape, far) for far in (-_FAR, _FAR))
    earlier, later = _neighbours(accepted, position)
    before[:, 1:], after[:, :-1] = earlier[:, :-1], later[:, 1:]
    between = accepted & (before > -_FAR) & (after < _FAR)
    return np.asarray(np.where(between, (2 * position - before - after) / (after - before), 0.0))


def _shift(weighted: Floats, record: Integers, sample: Integers, dominant: Bools) -> Doubles:
    """(n_beats,) samples, with fraction, by which each dominant beat best fits the mean of them; 0 for other beats.

    Cross-correlation of the slopes in all leads, refined by a parabola through the highest three values
    (Jané et al. 1991, doi:10.1109/10.83572, on alignment before averaging).
    """
    size = 2 * HALF + 1
    wide = _windows(weighted, record, sample, HALF + MOST_LAG)  # (n_beats, n_leads, size + 2 MOST_LAG)
    chosen = np.flatnonzero(dominant)
    if not len(chosen):
        return np.zeros(len(record))
    owners, starts = np.unique(record[chosen], return_index=True)
    template = np.zeros((len(weighted), weighted.shape[1], size), np.float32)
    lag = np.full(len(record), MOST_LAG)
    fit = np.empty((len(record), 2 * MOST_LAG + 1))
    for _ in range(2):
        now = np.take_along_axis(wide, (lag[:, None] + np.arange(size))[:, None, :], axis=2)
        template[owners] = np.add.reduceat(now[chosen], starts, axis=0)
        expected = template[record]
        for k in range(fit.shape[1]):
            fit[:, k] = np.einsum("blt,blt->b", wide[:, :, k : k + size], expected)
        lag = fit.argmax(axis=1)
    beat = np.arange(len(record))
    inner = np.clip(lag, 1, 2 * MOST_LAG - 1)
    left, centre, right = (fit[beat, inner + step] for step in (-1, 0, 1))
    bend = np.minimum(left - 2 * centre + right, -1e-12)
    part = np.where(lag == inner, np.clip(0.5 * (left - right) / bend, -0.5, 0.5), 0.0)
    return np.where(dominant, lag - MOST_LAG + part, 0.0)
