"""Encoder pre-training without labels: SimCLR (Chen et al., ICML 2020), two varied views of each recording."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecglm.models.augment import Augmentation, augment
from ecglm.models.encoder import Encoder
from ecglm.models.fingerprint import fingerprint
from ecglm.models.loop import Optimisation
from ecglm.models.stages.supervised import epoch_members
from ecglm.models.waveforms import Waveforms

TEMPERATURE = 0.1
PROJECTED = 128


class WithHead(nn.Module):
    """An encoder with the head that is thrown away after pre-training."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        width = 2 * encoder.config.widths[-1]
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, PROJECTED))

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Recordings → (batch, PROJECTED) of length 1."""
        return F.normalize(self.head(self.encoder(values, mask).embedding).float(), dim=-1)


class SimClr:
    """NT-Xent: of all views in a batch, find the other view of the same recording."""

    name = "encoder"

    def __init__(
        self,
        encoder: Encoder,
        waveforms: Waveforms,
        ecg_ids: Sequence[str],
        how: Optimisation,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self.module = WithHead(encoder)
        self.waveforms, self.ecg_ids, self.how, self.augmentation, self.seed = (
            waveforms,
            list(ecg_ids),
            how,
            augmentation,
            seed,
        )
        self.fingerprint = fingerprint(
            "simclr",
            self.ecg_ids,
            encoder.config.model_dump(),
            encoder.preprocessing.model_dump(),
            how.model_dump(),
            augmentation.model_dump(),
        )

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Mean loss of one batch, and how often the other view was the nearest."""
        chosen = epoch_members(len(self.ecg_ids), self.how.batch, step, self.seed, self.name)
        values, mask = self.waveforms.batch([self.ecg_ids[place] for place in chosen])
        wanted = self.module.encoder.preprocessing
        views = []
        for _ in range(2):
            varied = augment(values, mask, wanted.leads, wanted.sampling_hz, self.augmentation, draw)
            with torch.autocast("cpu", torch.bfloat16):
                views.append(self.module(*varied))
        return nt_xent(*views)

    def validate(self) -> dict[str, float]:
        """Nothing is learned that the validation fold could judge."""
        return {}


def nt_xent(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> tuple[Tensor, dict[str, float]]:
    """Normalised temperature-scaled cross-entropy of two views, (batch, width) each, of length 1."""
    n = len(first)
    views = torch.cat([first, second])
    likeness = (views @ views.T / temperature).masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
    partner = (torch.arange(2 * n) + n) % (2 * n)
    found = float((likeness.argmax(1) == partner).float().mean())
    return F.cross_entropy(likeness, partner), {"found": found}
