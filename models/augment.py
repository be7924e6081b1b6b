"""Variation of training recordings: parts of them, fewer leads, noise. Every draw comes from the generator given."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ecglm.models.preprocessing import FROM_I_II
from ecglm.synth.schema import LIMB_LEADS

CROP_STEP = 32
"""Samples by which lengths differ: every new length costs a convolution its set-up."""


class Augmentation(BaseModel):
    """How recordings are varied; probabilities are per recording, that of a crop per batch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop: float = Field(default=0.4, ge=0, le=1)
    shortest_crop_s: float = 5.0
    fewer_leads: float = Field(default=0.3, ge=0, le=1)
    noise: float = Field(default=0.5, ge=0, le=1)
    noise_millivolts: float = 0.02
    drift: float = Field(default=0.3, ge=0, le=1)
    drift_millivolts: float = 0.1
    gain: float = Field(default=0.05, ge=0, lt=1)


def augment(
    values: Tensor, mask: Tensor, leads: Sequence[str], sampling_hz: int, how: Augmentation, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A varied batch.

    Args:
        values: (batch, n_leads, n_samples) in mV.
        mask: the same shape.
        leads: name of each lead.
        sampling_hz: samples per second.
        how: probabilities and sizes.
        draw: where chance comes from.
    """
    batch, _, n_samples = values.shape

    def chance(probability: float) -> Tensor:
        return torch.rand(batch, 1, 1, generator=draw) < probability

    fewest, most = math.ceil(how.shortest_crop_s * sampling_hz / CROP_STEP), n_samples // CROP_STEP
    if fewest <= most and float(torch.rand((), generator=draw)) < how.crop:
        length = int(torch.randint(fewest, most + 1, (), generator=draw)) * CROP_STEP
        start = int(torch.randint(0, n_samples - length + 1, (), generator=draw))
        values, mask = values[..., start : start + length], mask[..., start : start + length]
    values = values * (1 + how.gain * (2 * torch.rand(batch, 1, 1, generator=draw) - 1))
    strength = how.noise_millivolts * torch.rand(batch, values.shape[1], 1, generator=draw) * chance(how.noise)
    values = values + strength * torch.randn(values.shape, generator=draw)
    seconds = torch.arange(values.shape[-1]) / sampling_hz
    hertz, phase = 0.05 + 0.35 * torch.rand(batch, 1, 1, generator=draw), 6.3 * torch.rand(batch, 1, 1, generator=draw)
    height = how.drift_millivolts * torch.randn(batch, values.shape[1], 1, generator=draw) * chance(how.drift)
    values = values + height * torch.sin(2 * torch.pi * hertz * seconds + phase)
    subsets = lead_subsets(leads)
    chosen = torch.randint(0, len(subsets), (batch,), generator=draw)
    kept = torch.stack(subsets)[chosen] | ~chance(how.fewer_leads)[..., 0]
    mask = mask & kept[..., None]
    return values * mask, mask


def lead_subsets(leads: Sequence[str]) -> list[Tensor]:
    """The sets of leads that recordings are cut down to, each a mask (n_leads,).

    Any two limb leads give all six, so the sets are: the limb leads (twice as likely as any other), one lead, one limb
    lead and one chest lead, all limb leads and one chest lead, the chest leads.
    """
    limb = [lead for lead in leads if lead in FROM_I_II]
    chest = [lead for lead in leads if lead not in FROM_I_II]
    single = [["I"]] * 3 + [["II"]] * 2 + [["V1"], ["V2"], ["V5"]]
    sets = [limb] * 6 + single + [["II", "V5"], ["II", "V1"]]
    sets += [[*limb, lead] for lead in ("V1", "V2", "V5")] + [chest, [*LIMB_LEADS, "V1", "V5"]]
    masks = [torch.tensor([lead in kept for lead in leads]) for kept in sets]
    return [mask for mask in masks if mask.any()] or [torch.ones(len(leads), dtype=torch.bool)]
