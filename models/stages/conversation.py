"""Stages that learn from pairs: the language alone, alignment of the projector, instruction tuning, dialogue."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ecglm.models.augment import Augmentation, augment
from ecglm.models.ecg_lm import EcgLanguageModel
from ecglm.models.evaluation import StatementAsker
from ecglm.models.fingerprint import fingerprint
from ecglm.models.loop import Optimisation
from ecglm.models.packing import pack
from ecglm.models.pairs import ExampleMaker, Sampler
from ecglm.models.stages.told import ConditionQuestions, NamedQuestions, Told
from ecglm.models.waveforms import Waveforms
from ecglm.models.wording import TokenNames

LENGTHS = 32
"""Batches are padded to a multiple of it: the kernels made for each new shape are kept, and making them takes time."""


class ConversationConfig(BaseModel):
    """One stage over pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    trains: tuple[Literal["projector", "language_model"], ...]
    blank: bool = False
    """Shows nothing of the ECG: what the text alone can tell."""
    families: tuple[str, ...] | None = None
    family_weights: dict[str, float] = Field(default_factory=dict)
    """How often pairs of a family are drawn; 1 if not named."""
    evening: float = Field(default=0.5, ge=0, le=1)
    """How far rare answers are drawn more often: 0 as often as the corpus has them, 1 all alike."""
    questions: int = Field(default=16, ge=1)
    """Pairs about one ECG in one pass."""
    options: int = Field(default=6, ge=2)
    """Options of a question that are judged."""
    named: int = Field(default=0, ge=0)
    """Questions per ECG about what its tokens are called, answered as the encoder says."""
    conditions: int = Field(default=0, ge=0)
    """Questions per ECG whether measurements lie above or below limits drawn at random."""
    full_share: float = Field(default=0.25, ge=0, le=1)
    """Of the questions with a short answer, how many are answered in sentences as well."""
    longest: int = Field(default=512, ge=16)
    """Tokens of a question with its answer; pairs beyond are left out and counted."""
    optimisation: Optimisation
    augmentation: Augmentation = Augmentation()


class Conversation:
    """What pairs teach (see `Losses`), several questions per ECG in one pass."""

    def __init__(
        self,
        model: EcgLanguageModel,
        waveforms: Waveforms | None,
        pairs: pl.DataFrame,
        how: ConversationConfig,
        corpus_fingerprint: str,
        start_fingerprint: str,
        asker: StatementAsker | None,
        told: Sequence[tuple[NamedQuestions | ConditionQuestions, int]] = (),
    ) -> None:
        self.model, self.waveforms, self.how, self.asker = model, waveforms, how, asker
        self.told = told
        self.name = how.name
        self.sampler = Sampler(pairs, how.families, how.family_weights, how.questions, how.evening)
        self.maker = ExampleMaker(pairs, model.codec, how.full_share, how.options, how.longest, _named(model))
        self.module: nn.Module = Trained(model, how.trains)
        self.fingerprint = fingerprint("conversation", how.model_dump(), corpus_fingerprint, start_fingerprint)

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Mean loss of one batch of ECGs."""
        chance = np.random.default_rng(int(torch.randint(0, 2**62, (), generator=draw)))
        how = self.how
        drawn = self.sampler.draw(how.optimisation.batch, chance)
        branches = self.maker.examples(drawn, chance)
        ecg_ids = sorted({ecg_id for group in drawn for ecg_id in group.ecg_ids})
        with self.model.autocast():
            tokens, told = self._encoded(ecg_ids, draw)
        for questions, n in self.told:
            for group, asked in zip(drawn, branches, strict=True):
                asked += questions.about(group.ecg_ids, n, chance, told)
        groups = [group.ecg_ids for group, found in zip(drawn, branches, strict=True) if found]
        branches = [found for found in branches if found]
        ecgs = [[ecg_ids.index(ecg_id) for ecg_id in group] for group in groups]
        with self.model.autocast():
            prefix = self.model.prefix(ecgs, tokens, how.blank)
            losses = self.model.loss(prefix, pack(branches, LENGTHS))
        noted = {f"loss_{name}": float(each.detach()) for name, each in vars(losses).items()}
        return losses.total, {"questions": float(sum(map(len, branches))), **noted}

    def _encoded(self, ecg_ids: list[str], draw: torch.Generator) -> tuple[Tensor, Told]:
        """ECG tokens (n_ecgs, n_tokens, token_width), and what the encoder tells of each ECG; nothing of blank ones."""
        encoder = self.model.encoder
        if not ecg_ids or self.how.blank or self.waveforms is None:
            blank = torch.zeros(max(1, len(ecg_ids)), encoder.n_tokens, encoder.token_width, device=self.model.device)
            return blank, {}
        values, mask, measured = self.waveforms.inputs(encoder, ecg_ids)
        wanted = encoder.preprocessing
        values, mask = augment(values, mask, wanted.leads, wanted.sampling_hz, self.how.augmentation, draw)
        encoder.eval()
        tokens = self.model.encode(values, mask, measured)
        return tokens, dict(zip(ecg_ids, encoder.outputs_of(tokens).cpu().numpy(), strict=True))

    def validate(self) -> dict[str, float]:
        """Macro-AUC over the statements on the validation fold, by asking."""
        return {} if self.asker is None else {"macro_auc": self.asker.macro_auc(self.model, self.how.blank)}


def _named(model: EcgLanguageModel) -> Callable[[str], tuple[int, ...]]:
    """Finds the ECG tokens that a text names; none where the encoder tells nothing that has a name."""
    config = model.encoder.config
    return TokenNames(config).found if config.tokens else lambda text: ()


class Trained(nn.Module):
    """The parts of a model that a stage trains; everything else is frozen."""

    def __init__(self, model: EcgLanguageModel, parts: Collection[str]) -> None:
        super().__init__()
        model.requires_grad_(False)
        for part in [*parts, "resampler", "reader", "comparer"] if "projector" in parts else parts:
            module = getattr(model, part)
            adapters = [p for name, p in module.named_parameters() if "lora_" in name]
            for parameter in adapters or module.parameters():
                parameter.requires_grad_(True)
            self.add_module(part, module)
