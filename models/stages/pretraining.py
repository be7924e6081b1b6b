"""The stages that pre-train an encoder, by the method that a configuration names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ecglm.models.config import EncoderStage
from ecglm.models.encoder import Encoder
from ecglm.models.loop import Optimisation, Stage
from ecglm.models.stages.measured_only import MeasuredOnly
from ecglm.models.stages.supervised import Supervised

if TYPE_CHECKING:
    from ecglm.models.train import Material


def pretraining_stages(
    how: EncoderStage, encoder: Encoder, material: Material, seed: int
) -> Iterator[tuple[Stage, Optimisation]]:
    """Supervised on statements, findings and values; SimCLR; or contrastive against the text of the pairs.

    Each stage is made when those before it are done: its fingerprint tells the weights that it starts from.
    """
    waveforms, train, validation = material.waveforms, material.train, material.validation
    if how.method == "supervised":
        if encoder.measured is not None:
            fewer = how.augmentation.fewer_leads
            yield MeasuredOnly(encoder, waveforms, train, validation, how.measured, fewer, seed), how.measured
        stage: Stage = Supervised(encoder, waveforms, train, validation, how.optimisation, how.augmentation, seed)
    elif how.method == "simclr":
        from ecglm.models.stages.simclr import SimClr

        stage = SimClr(encoder, waveforms, train[0], how.optimisation, how.augmentation, seed)
    else:
        from ecglm.models.stages.contrastive import Contrastive

        stage = Contrastive(encoder, waveforms, material.pairs, how.optimisation, how.augmentation, seed)
    yield stage, how.optimisation
