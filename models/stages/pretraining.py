"""The stage that pre-trains an encoder, by the method that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecglm.models.config import EncoderStage
from ecglm.models.encoder import Encoder
from ecglm.models.loop import Stage
from ecglm.models.stages.supervised import Supervised

if TYPE_CHECKING:
    from ecglm.models.train import Material


def pretraining_stage(how: EncoderStage, encoder: Encoder, material: Material, seed: int) -> Stage:
    """Supervised on statements, findings and values; SimCLR; or contrastive against the text of the pairs."""
    waveforms = material.waveforms
    if how.method == "supervised":
        return Supervised(
            encoder, waveforms, material.train, material.validation, how.optimisation, how.augmentation, seed
        )
    if how.method == "simclr":
        from ecglm.models.stages.simclr import SimClr

        return SimClr(encoder, waveforms, material.train[0], how.optimisation, how.augmentation, seed)
    from ecglm.models.stages.contrastive import Contrastive

    return Contrastive(encoder, waveforms, material.pairs, how.optimisation, how.augmentation, seed)
