"""Encoder pre-training, supervised: statements, findings and measured values of the training ECGs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ecglm.models.augment import Augmentation, augment
from ecglm.models.encoder import Encoder, Target
from ecglm.models.evaluation import encode_all, macro_auc
from ecglm.models.fingerprint import fingerprint, weights_hash
from ecglm.models.loop import Optimisation, step_seed
from ecglm.models.targets import TargetTable, is_class
from ecglm.models.waveforms import Waveforms

CLASS_WEIGHT = 0.5
"""Of the diagnostic classes: they are fewer than statements, so that each counts for more."""
FINDING_WEIGHT = 0.25
VALUE_WEIGHT = 0.25


class Objective:
    """Statements by binary cross-entropy; classes of them, findings and values beside them, each by a weight."""

    def __init__(self, targets: Sequence[Target]) -> None:
        kinds = ["class" if is_class(target) else target.kind for target in targets]
        self.columns = {
            kind: torch.tensor([k == kind for k in kinds]) for kind in ("statement", "class", "finding", "value")
        }

    def __call__(self, outputs: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss of what is told, (batch, n_targets), and its part of each kind of target."""
        parts = {
            "statement": binary(outputs, truth, self.columns["statement"]),
            "class": CLASS_WEIGHT * binary(outputs, truth, self.columns["class"]),
            "finding": FINDING_WEIGHT * binary(outputs, truth, self.columns["finding"]),
            "value": VALUE_WEIGHT * huber(outputs, truth, self.columns["value"]),
        }
        total = torch.stack(list(parts.values())).sum()
        return total, {f"loss_{kind}": float(part.detach()) for kind, part in parts.items()}


class Supervised:
    """The branch that reads waveforms learns what the targets are; beside it the other branch is left as it is."""

    name = "encoder"

    def __init__(
        self,
        encoder: Encoder,
        waveforms: Waveforms,
        train: tuple[Sequence[str], TargetTable],
        validation: tuple[Sequence[str], TargetTable],
        how: Optimisation,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self.module = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.waveforms, self.how, self.augmentation, self.seed = waveforms, how, augmentation, seed
        self.ecg_ids, self.table = train
        self.validation = validation
        self.truth = torch.from_numpy(self.table.values)
        self.objective = Objective(self.table.targets)
        if encoder.measured is not None:
            encoder.measured.requires_grad_(False)
        self.fingerprint = fingerprint(
            "supervised",
            list(self.ecg_ids),
            self.table.values.tobytes(),
            [target.model_dump() for target in self.table.targets],
            encoder.config.model_dump(),
            encoder.preprocessing.model_dump(),
            how.model_dump(),
            augmentation.model_dump(),
            None if encoder.measured is None else weights_hash(encoder.measured),
        )

    def members(self, step: int) -> list[int]:
        """Which ECGs step number `step` takes: every epoch in an order of its own."""
        return epoch_members(len(self.ecg_ids), self.how.batch, step, self.seed, self.name)

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Mean loss of one batch."""
        chosen = self.members(step)
        values, mask, measured = self.waveforms.inputs(self.module, [self.ecg_ids[place] for place in chosen])
        preprocessing = self.module.preprocessing
        values, mask = augment(values, mask, preprocessing.leads, preprocessing.sampling_hz, self.augmentation, draw)
        with torch.autocast("cpu", torch.bfloat16):
            seen = self.module(values, mask, measured).branches[0]
        return self.objective(seen, self.truth[chosen])

    def validate(self) -> dict[str, float]:
        """Macro-AUC over the statements on the validation fold."""
        ecg_ids, table = self.validation
        truth = table.values[:, : table.n_statements]
        return {
            "macro_auc": macro_auc(truth, encode_all(self.module, self.waveforms, ecg_ids)[:, : table.n_statements]),
        }


def epoch_members(n: int, batch: int, step: int, seed: int, stage: str) -> list[int]:
    """The rows of one step: epochs of n rows, each shuffled by its own seed, cut into batches across their bounds."""
    start = step * batch
    members: list[int] = []
    while len(members) < batch:
        epoch, within = divmod(start + len(members), n)
        order = np.random.default_rng(step_seed(seed, f"{stage}:epoch", epoch)).permutation(n)
        members += order[within : within + batch - len(members)].tolist()
    return members


def binary(outputs: Tensor, truth: Tensor, columns: Tensor) -> Tensor:
    """Mean binary cross-entropy over the columns that are known."""
    if not columns.any():
        return outputs.new_zeros(())
    wanted, given = truth[:, columns], outputs[:, columns]
    known = torch.isfinite(wanted)
    loss = functional.binary_cross_entropy_with_logits(given, wanted.nan_to_num(), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


def huber(outputs: Tensor, truth: Tensor, columns: Tensor) -> Tensor:
    """Mean Huber loss over the columns that are known."""
    if not columns.any():
        return outputs.new_zeros(())
    wanted, given = truth[:, columns], outputs[:, columns]
    known = torch.isfinite(wanted)
    loss = functional.smooth_l1_loss(given, wanted.nan_to_num(), reduction="none", beta=0.5)
    return (loss * known).sum() / known.sum().clamp(min=1)
