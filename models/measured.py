"""What is measured on a recording, as the encoder takes it: a second branch beside the waveform's.

A network that reads waveforms learns intervals and amplitudes roughly, and from many ECGs; `synth.measure` gives them
exactly. Rows of `MEASURED_COLUMNS`, NaN where something could not be measured, are turned into numbers around 0 with a
flag for each that is missing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecglm.synth.errors import SignalError
from ecglm.synth.measure import MEASURED_COLUMNS, measure_block
from ecglm.synth.schema import LEADS, LIMB_LEADS

ANGLES = tuple(name for name in MEASURED_COLUMNS if name.endswith("_AxisFront_Global"))
_PLAIN = tuple(name for name in MEASURED_COLUMNS if name not in ANGLES)
NUMBERS = (*_PLAIN, *(f"{name}:{part}" for part in ("cos", "sin") for name in ANGLES))
"""What the branch takes: measurements by their columns, angles in degrees as cosine and sine."""
_PLAIN_PLACES = [MEASURED_COLUMNS.index(name) for name in _PLAIN]
_ANGLE_PLACES = [MEASURED_COLUMNS.index(name) for name in ANGLES]
_TWO_LIMB_LEADS, _ANY_LEAD = len(LEADS), len(LEADS) + 1
_NEEDED = [
    _TWO_LIMB_LEADS if name in ANGLES else LEADS.index(lead) if lead in LEADS else _ANY_LEAD
    for name, lead in ((name, name.rpartition("_")[2]) for name in MEASURED_COLUMNS)
]
"""What each measurement needs: the place of its lead, two limb leads, or any lead at all."""
_LIMIT = 5.0
"""Standard deviations beyond which a number is cut."""
_INPUT_DROPOUT = 0.1


def measure_signals(signals: NDArray[np.floating], leads: tuple[str, ...], sampling_hz: int) -> NDArray[np.float32]:
    """Measurements (n_ecgs, n_columns) of recordings (n_ecgs, n_samples, n_leads) in mV, NaN where there is none."""
    try:
        columns, _ = measure_block(np.asarray(signals, np.float32), leads, sampling_hz)
    except SignalError:
        return np.full((len(signals), len(MEASURED_COLUMNS)), np.nan, np.float32)
    return np.stack([columns[name] for name in MEASURED_COLUMNS], 1)


def measure_batch(values: Tensor, mask: Tensor, leads: tuple[str, ...], sampling_hz: int) -> Tensor:
    """Measurements (batch, n_columns) of a padded batch, as the encoder takes it.

    Args:
        values: (batch, n_leads, n_samples) in mV.
        mask: the same shape, whether there is a value.
        leads: name of each lead.
        sampling_hz: samples per second.
    """
    known = mask.cpu().numpy()
    signals = np.where(known, values.detach().float().cpu().numpy(), np.float32(np.nan))
    there = known.any(-1)  # (batch, n_leads)
    anywhere: NDArray[np.bool_] = np.asarray(known.any(1))
    length = known.shape[-1] - anywhere[:, ::-1].argmax(-1)  # samples up to the last that is there
    shapes = np.concatenate([there, length[:, None]], 1)
    table = np.full((len(signals), len(MEASURED_COLUMNS)), np.nan, np.float32)
    for shape in np.unique(shapes, axis=0):
        rows = np.flatnonzero((shapes == shape).all(1))
        kept = np.flatnonzero(shape[:-1])
        if len(kept):
            part = signals[rows][:, kept, : shape[-1]].transpose(0, 2, 1)
            table[rows] = measure_signals(part, tuple(leads[place] for place in kept), sampling_hz)
    return torch.from_numpy(table).to(values.device)


def numbers(measured: Tensor) -> Tensor:
    """Measurements (batch, n_columns) as `NUMBERS` names them."""
    angles = measured[:, _ANGLE_PLACES].deg2rad()
    return torch.cat([measured[:, _PLAIN_PLACES], angles.cos(), angles.sin()], 1)


def of_leads(measured: Tensor, there: Tensor, leads: tuple[str, ...]) -> Tensor:
    """Measurements of which those are missing that leads which are not there would be needed for.

    Args:
        measured: (batch, n_columns).
        there: (batch, n_leads) which leads a recording has.
        leads: name of each lead.
    """
    known = there.new_zeros(len(there), len(LEADS))
    for number, lead in enumerate(leads):
        if lead in LEADS:
            known[:, LEADS.index(lead)] = there[:, number]
    two_limb = known[:, : len(LIMB_LEADS)].sum(1, keepdim=True) >= 2
    fulfilled = torch.cat([known, two_limb, torch.ones_like(two_limb)], 1)
    return measured.masked_fill(~fulfilled[:, _NEEDED], float("nan"))


class MeasuredBranch(nn.Module):
    """Two layers from what was measured to what the encoder tells."""

    def __init__(self, width: int, n_targets: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(len(NUMBERS)))
        self.register_buffer("spread", torch.ones(len(NUMBERS)))
        self.centre: Tensor
        self.spread: Tensor
        self.layers = nn.Sequential(
            nn.Dropout(_INPUT_DROPOUT),
            nn.Linear(2 * len(NUMBERS), width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, n_targets),
        )

    def forward(self, measured: Tensor) -> Tensor:
        """(batch, n_columns) → (batch, n_targets)."""
        standard = ((numbers(measured) - self.centre) / self.spread).clamp(-_LIMIT, _LIMIT)
        missing = standard.isnan()
        result: Tensor = self.layers(torch.cat([standard.nan_to_num(), missing.to(standard.dtype)], 1))
        return result

    def standardise(self, measured: Tensor) -> None:
        """Takes centre and spread of each number from measurements of some ECGs, (n_ecgs, n_columns)."""
        table = numbers(measured).float().cpu().numpy()
        for place, column in enumerate(table.T):
            found = column[np.isfinite(column)]
            if len(found) > 1:
                found = np.clip(found, *np.percentile(found, [1, 99]))
                self.centre[place] = float(found.mean())
                self.spread[place] = max(float(found.std()), 1e-3)
