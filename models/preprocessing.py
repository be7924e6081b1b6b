"""From a recording as it is to what the encoder takes: named leads at one rate, with a mask of what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ecglm.synth.errors import ModelError
from ecglm.synth.schema import LEADS, LIMB_LEADS

OTHER_LEADS = ("V7", "V8", "V9", "V3R", "V4R", "V5R", "V6R", "X", "Y", "Z")
"""Names that are leads of an ECG, though a model may not have been trained on them."""
_SPELLING = {name.upper(): name for name in (*LEADS, *OTHER_LEADS)}
MAX_MILLIVOLTS = 20.0
"""Larger values are no ECG in mV; they would be in µV, or not calibrated."""
_BASELINE_HZ = 100

LIMB = {
    ("I", "II"): ((1, 0), (0, 1)),
    ("I", "III"): ((1, 0), (1, 1)),
    ("II", "III"): ((1, -1), (1, 0)),
    ("I", "aVR"): ((1, 0), (-1, -2)),
    ("I", "aVL"): ((1, 0), (2, -2)),
    ("I", "aVF"): ((1, 0), (0.5, 1)),
    ("II", "aVR"): ((-1, -2), (1, 0)),
    ("II", "aVL"): ((0.5, 1), (1, 0)),
    ("II", "aVF"): ((2, -2), (1, 0)),
    ("III", "aVR"): ((-0.5, -1), (0.5, -1)),
    ("III", "aVL"): ((1, 2), (2, 2)),
    ("III", "aVF"): ((-2, 2), (-1, 2)),
    ("aVR", "aVL"): ((-2 / 3, 2 / 3), (-4 / 3, -2 / 3)),
    ("aVR", "aVF"): ((-4 / 3, -2 / 3), (-2 / 3, 2 / 3)),
    ("aVL", "aVF"): ((4 / 3, 2 / 3), (2 / 3, 4 / 3)),
}
"""Any two limb leads → factors that make leads I and II of them (Einthoven's law and Goldberger's definitions)."""
FROM_I_II = {"I": (1, 0), "II": (0, 1), "III": (-1, 1), "aVR": (-0.5, -0.5), "aVL": (1, -0.5), "aVF": (-0.5, 1)}
"""Every limb lead as a sum of I and II."""


class Preprocessing(BaseModel):
    """What a model expects of a recording; saved with it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    leads: tuple[str, ...] = Field(default=LEADS, min_length=1, max_length=15)
    sampling_hz: int = Field(default=_BASELINE_HZ, ge=50, le=1000)
    shortest_s: float = 2.0
    longest_s: float = 60.0
    per_millivolt: float = 2.0
    """What 1 mV becomes."""
    limit_millivolts: float = 10.0
    """Deflections beyond are cut: artefacts, not ECG."""


@dataclass(frozen=True)
class Prepared:
    """A recording as the encoder takes it."""

    values: NDArray[np.float32]
    """(n_leads, n_samples) in mV, 0 where nothing was recorded."""
    mask: NDArray[np.bool_]
    """(n_leads, n_samples) whether there is a value."""
    notes: tuple[str, ...]
    """What was not used, and what was worked out from other leads."""


def lead_names(leads: Sequence[str]) -> tuple[str, ...]:
    """Leads in their usual spelling ("AVR" becomes "aVR").

    Raises:
        ModelError: an unknown name, or one given twice.
    """
    names = []
    for lead in leads:
        plain = str(lead).strip().upper().removeprefix("LEAD ").removeprefix("ECG ").strip()
        if plain not in _SPELLING:
            raise ModelError(
                f"unknown lead {lead!r}; known are {', '.join((*LEADS, *OTHER_LEADS))}. Rename or leave out"
            )
        names.append(_SPELLING[plain])
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ModelError(f"lead {', '.join(doubled)} given twice; expected every lead once")
    return tuple(names)


def leads_named(text: str) -> tuple[str, ...]:
    """Leads of an option: names with commas between, "limb" for the six limb leads; none if it is empty.

    Raises:
        ModelError: an unknown name, or one given twice.
    """
    return LIMB_LEADS if text == "limb" else lead_names(text.split(",")) if text else ()


def prepare(signal: NDArray[np.floating], leads: Sequence[str], sampling_hz: float, wanted: Preprocessing) -> Prepared:
    """A recording as the encoder takes it.

    Args:
        signal: (n_samples, n_leads) in mV, NaN where a sample is missing.
        leads: name of each column, in any order.
        sampling_hz: samples per second.
        wanted: what the model expects.

    Raises:
        ModelError: leads, rate, length, unit or samples that cannot be used; says what was found and what to do.
    """
    names = lead_names(leads)
    signal = np.asarray(signal, dtype=np.float32)
    if signal.ndim != 2 or signal.shape[1] != len(names):
        raise ModelError(f"signal of shape {signal.shape} with {len(names)} leads; expected (n_samples, {len(names)})")
    if not 50 <= sampling_hz <= 2000:
        raise ModelError(f"{sampling_hz:g} samples per second; expected 50 to 2,000")
    seconds = len(signal) / sampling_hz
    if not wanted.shortest_s <= seconds <= wanted.longest_s:
        raise ModelError(
            f"{seconds:.4g} s long; the model takes {wanted.shortest_s:g} to {wanted.longest_s:g} s"
            + ("; choose a part of it" if seconds > wanted.longest_s else "")
        )
    there = np.isfinite(signal)
    if not there.any():
        raise ModelError("no sample is a number; nothing was recorded")
    largest = float(np.abs(signal[there]).max())
    if largest > MAX_MILLIVOLTS * 5:
        raise ModelError(f"values up to {largest:.4g} mV; an ECG stays within {MAX_MILLIVOLTS:g} mV: are they µV?")
    values, mask = _resampled(signal, there, sampling_hz, wanted.sampling_hz)
    notes = [f"lead {name} is not used: the model was not trained on it" for name in names if name not in wanted.leads]
    place = {name: number for number, name in enumerate(names)}
    out = np.zeros((len(wanted.leads), values.shape[1]), np.float32)
    out_mask = np.zeros(out.shape, np.bool_)
    for row, lead in enumerate(wanted.leads):
        if lead in place:
            out[row], out_mask[row] = values[place[lead]], mask[place[lead]]
    ready, known = centred(torch.from_numpy(out), torch.from_numpy(out_mask))
    flat = [lead for lead in names if lead in wanted.leads and not known[wanted.leads.index(lead)].any()]
    notes += [f"lead {lead} is flat or missing: not used" for lead in flat]
    if not known.any():
        raise ModelError(f"no usable lead among {', '.join(names)}; the model takes {', '.join(wanted.leads)}")
    ready, known, derived = with_limb_leads(ready, known, wanted.leads)
    if derived:
        notes.append(f"worked out from two limb leads: {', '.join(derived)}")
    return Prepared(ready.numpy(), known.numpy(), tuple(notes))


def _resampled(
    signal: NDArray[np.float32], there: NDArray[np.bool_], sampling_hz: float, wanted_hz: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(n_leads, n_samples) at the wanted rate; gaps are bridged by straight lines and stay out of the mask."""
    filled = signal.T.copy()
    for row, known in zip(filled, there.T, strict=True):
        if known.any() and not known.all():
            row[~known] = np.interp(np.flatnonzero(~known), np.flatnonzero(known), row[known])
        elif not known.any():
            row[:] = 0
    if sampling_hz == wanted_hz:
        return filled, there.T.copy()
    from scipy.signal import resample_poly

    ratio = Fraction(wanted_hz / sampling_hz).limit_denominator(1000)
    values = resample_poly(filled, ratio.numerator, ratio.denominator, axis=1, padtype="line").astype(np.float32)
    nearest = np.minimum((np.arange(values.shape[1]) * sampling_hz / wanted_hz).astype(int), len(signal) - 1)
    return values, there.T[:, nearest]


def centred(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Each lead around its own mean, 0 where nothing is; a lead that never changes counts as not recorded.

    Args:
        values: (..., n_leads, n_samples) in mV.
        mask: the same shape, whether there is a value.
    """
    count = mask.sum(-1, keepdim=True)
    values = torch.where(mask, values, 0.0)
    values = torch.where(mask, values - values.sum(-1, keepdim=True) / count.clamp(min=1), 0.0)
    alive = (values.abs().amax(-1, keepdim=True) > 1e-4) & (count > 1)
    return values * alive, mask & alive


def with_limb_leads(values: Tensor, mask: Tensor, leads: Sequence[str]) -> tuple[Tensor, Tensor, list[str]]:
    """Limb leads that two others determine, worked out where they are missing.

    Args:
        values: (n_leads, n_samples) in mV, around 0.
        mask: the same shape.
        leads: name of each row.

    Returns:
        values, mask, and which leads were added.
    """
    place = {lead: row for row, lead in enumerate(leads) if lead in FROM_I_II}
    there = [lead for lead in FROM_I_II if lead in place and mask[place[lead]].any()]
    missing = [lead for lead in place if lead not in there]
    pair = next((pair for pair in LIMB if set(pair) <= set(there)), None)
    if pair is None or not missing:
        return values, mask, []
    first, second = (values[place[lead]] for lead in pair)
    both = mask[place[pair[0]]] & mask[place[pair[1]]]
    lead_i, lead_ii = (a * first + b * second for a, b in LIMB[pair])
    values, mask = values.clone(), mask.clone()
    for lead in missing:
        a, b = FROM_I_II[lead]
        values[place[lead]] = torch.where(both, a * lead_i + b * lead_ii, 0.0)
        mask[place[lead]] = both
    return values, mask, missing


def encoder_input(values: Tensor, mask: Tensor, wanted: Preprocessing) -> Tensor:
    """Values in the model's unit, and beside them what is there: (batch, 2 · n_leads, n_samples)."""
    limit = wanted.limit_millivolts
    return torch.cat([values.clamp(-limit, limit) * wanted.per_millivolt * mask, mask.to(values.dtype)], dim=-2)
