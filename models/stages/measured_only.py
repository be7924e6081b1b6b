"""Encoder pre-training from measurements: the second branch by itself, whose steps need no waveform."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ecglm.models.augment import lead_subsets
from ecglm.models.encoder import Encoder
from ecglm.models.evaluation import macro_auc
from ecglm.models.fingerprint import fingerprint
from ecglm.models.loop import Optimisation
from ecglm.models.measured import of_leads
from ecglm.models.stages.supervised import Objective, epoch_members
from ecglm.models.targets import TargetTable
from ecglm.models.waveforms import Waveforms
from ecglm.synth.errors import ModelError


class MeasuredOnly:
    """What the targets are, from what was measured on each ECG; of some ECGs, on some leads only."""

    name = "measured"

    def __init__(
        self,
        encoder: Encoder,
        waveforms: Waveforms,
        train: tuple[Sequence[str], TargetTable],
        validation: tuple[Sequence[str], TargetTable],
        how: Optimisation,
        fewer_leads: float,
        seed: int,
    ) -> None:
        if encoder.measured is None:
            raise ModelError("this encoder takes no measurements in (measured_width: 0)")
        self.branch = encoder.measured
        self.leads = encoder.preprocessing.leads
        self.how, self.fewer_leads, self.seed = how, fewer_leads, seed
        self.rows, self.held_rows = (waveforms.measured(ecg_ids) for ecg_ids, _ in (train, validation))
        self.truth, self.held = torch.from_numpy(train[1].values), validation[1]
        self.objective = Objective(train[1].targets)
        self.subsets = torch.stack(lead_subsets(self.leads))
        self.fingerprint = fingerprint(
            "measured",
            list(train[0]),
            train[1].values.tobytes(),
            self.rows.numpy().tobytes(),
            [target.model_dump() for target in train[1].targets],
            encoder.config.model_dump(),
            how.model_dump(),
            fewer_leads,
        )

    @property
    def module(self) -> nn.Module:
        """The branch."""
        return self.branch

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Mean loss of one batch."""
        chosen = epoch_members(len(self.rows), self.how.batch, step, self.seed, self.name)
        some = self.subsets[torch.randint(len(self.subsets), (len(chosen),), generator=draw)]
        there = some | (torch.rand(len(chosen), 1, generator=draw) >= self.fewer_leads)
        return self.objective(self.branch(of_leads(self.rows[chosen], there, self.leads)), self.truth[chosen])

    def validate(self) -> dict[str, float]:
        """Macro-AUC over the statements on the validation fold."""
        n = self.held.n_statements
        with torch.inference_mode():
            told = self.branch(self.held_rows)[:, :n]
        return {"macro_auc": macro_auc(self.held.values[:, :n], told.numpy())}
