"""The ECG encoder: a one-dimensional ResNet-18 for any named leads and length, its head one query per finding.

Beside it stands a branch that takes what is measured on the same recording (see `measured`). Each is trained to tell
everything by itself; what the encoder tells is the mean of both, and of a value what was measured, if it was.

Backbone after He et al. (CVPR 2016), one-dimensional as in Strodthoff et al. (IEEE JBHI 2021). What is absent is
masked, not taken for 0 mV: every lead comes with a channel that says where it was recorded, the leads there are
rescaled by their share, and samples beyond the end of a recording take part in nothing. The head follows Query2Label
(Liu et al. 2021): each finding has a learned query that attends to the feature map; what it gathers becomes one token
of the ECG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from ecglm.models.measured import NUMBERS, MeasuredBranch, measure_batch, numbers, of_leads
from ecglm.models.preprocessing import Preprocessing, encoder_input

MOST_TOLD = 12.0
"""Beyond it, what a token says is cut: a logit, or a value's standard deviations."""


class Target(BaseModel):
    """One thing the encoder is trained to tell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """`AFIB`, `HR__Global`, `static_noise:V1` …"""
    token: str
    """The ECG token that tells it; several targets may share one."""
    kind: Literal["statement", "finding", "value"]
    mean: float = 0.0
    scale: float = 1.0
    """Of a value: (value - mean) / scale is what is told."""


class EncoderConfig(BaseModel):
    """Size of an encoder, and what it tells."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    kernel: int = Field(default=5, ge=3)
    stem_kernel: int = Field(default=15, ge=3)
    query_width: int = 128
    n_time_tokens: int = Field(default=8, ge=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    measured_width: int = Field(default=256, ge=0)
    """Of the branch that takes measurements; 0 leaves it out."""
    measured_dropout: float = Field(default=0.3, ge=0, lt=1)
    targets: tuple[Target, ...] = ()

    @property
    def tokens(self) -> tuple[str, ...]:
        """The queries, in order."""
        return tuple(dict.fromkeys(target.token for target in self.targets))


@dataclass
class Encoded:
    """What an encoder says of a batch of recordings."""

    outputs: Tensor
    """(batch, n_targets) logits of statements and findings, standardised values."""
    tokens: Tensor
    """(batch, n_tokens, token_width): one per query, then `n_time_tokens` in the order of time."""
    embedding: Tensor
    """(batch, 2 · widths[-1]) mean and maximum over time."""
    branches: tuple[Tensor, ...]
    """What the waveform's branch tells by itself, and the measurements' one if there is one; as `outputs`."""


class Block(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, width_in: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(width_in, width, kernel, stride)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, kernel, 1)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(_conv(width_in, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, width_in, 1, time) → (batch, width, 1, time / stride), 0 where the mask of that size is."""
        inner = _masked(functional.relu(self.norm1(self.conv1(x))), mask)
        return _masked(functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(x)), mask)


def _conv(width_in: int, width: int, kernel: int, stride: int) -> nn.Conv2d:
    # A convolution over (1, time) in channels_last memory: oneDNN is several times quicker at it than at Conv1d.
    return nn.Conv2d(width_in, width, (1, kernel), (1, stride), (0, kernel // 2), bias=False)


class Backbone(nn.Module):
    """ResNet-18 over time; one feature for every 32 samples."""

    def __init__(self, n_leads: int, config: EncoderConfig) -> None:
        super().__init__()
        first = config.widths[0]
        self.n_leads = n_leads
        self.stem = _conv(2 * n_leads, first, config.stem_kernel, 2)
        self.stem_norm = nn.BatchNorm2d(first)
        blocks: list[nn.Module] = []
        width_in = first
        for number, width in enumerate(config.widths):
            blocks += [Block(width_in, width, config.kernel, 1 if number == 0 else 2)]
            blocks += [Block(width, width, config.kernel, 1)]
            width_in = width
        self.blocks = nn.ModuleList(blocks)
        self.halved_precision = all(width % 16 == 0 for width in config.widths)
        """Whether bfloat16 may be used: oneDNN's convolutions write beyond their memory where channels are no multiple
        of 16 (seen with torch 2.13 on AVX512-BF16)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 2 · n_leads, n_samples) → features (batch, time, width); which are of a recording (batch, time)."""
        if self.halved_precision:
            return self._features(x)
        with torch.autocast(x.device.type, enabled=False):
            return self._features(x)

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        there = x[:, self.n_leads :]
        share = there.amax(-1).mean(1)  # (batch,) of the leads that were recorded
        x = torch.cat([x[:, : self.n_leads] / share.clamp(min=1 / self.n_leads)[:, None, None].sqrt(), there], 1)
        known = there.amax(1, keepdim=True)[:, :, None]  # (batch, 1, 1, n_samples)
        mask = None if bool(known.all()) else known
        x = x[:, :, None].contiguous(memory_format=torch.channels_last)
        mask = _halved(mask)
        x = _masked(functional.relu(self.stem_norm(self.stem(x))), mask)
        mask = _halved(mask)
        x = _masked(functional.max_pool2d(x, (1, 3), (1, 2), (0, 1)), mask)
        for number, block in enumerate(self.blocks):
            if number and number % 2 == 0:
                mask = _halved(mask)
            x = block(x, mask)
        if mask is None:
            mask = x.new_ones(len(x), 1, 1, x.shape[-1])
        return x[:, :, 0].transpose(1, 2), mask[:, 0, 0] > 0


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def _halved(mask: Tensor | None) -> Tensor | None:
    """Of every two samples whether one is there: as many places as a layer with stride 2 gives."""
    return None if mask is None else functional.max_pool2d(mask, (1, 2), (1, 2), ceil_mode=True)


class Encoder(nn.Module):
    """Recordings → what they show, as numbers and as tokens."""

    def __init__(self, preprocessing: Preprocessing, config: EncoderConfig) -> None:
        super().__init__()
        self.preprocessing, self.config = preprocessing, config
        width, inner = config.widths[-1], config.query_width
        place = {token: number for number, token in enumerate(config.tokens)}
        slots: dict[str, int] = {}
        self.backbone = Backbone(len(preprocessing.leads), config)
        self.keys = nn.Linear(width, inner)
        self.values = nn.Linear(width, inner)
        self.queries = nn.Parameter(torch.randn(len(place), inner) * inner**-0.5)
        self.dropout = nn.Dropout(config.dropout)
        self.readout = nn.Parameter(torch.randn(len(config.targets), inner) * inner**-0.5)
        self.summary = nn.Linear(2 * width, len(config.targets))
        at_token, at_slot = [], []
        for target in config.targets:
            at_token.append(place[target.token])
            at_slot.append(slots.get(target.token, 0))
            slots[target.token] = at_slot[-1] + 1
        self.n_slots = max(slots.values(), default=0)
        self.measured: MeasuredBranch | None = None
        if config.measured_width and config.targets:
            self.measured = MeasuredBranch(config.measured_width, len(config.targets), config.measured_dropout)
        copied = [
            (place, NUMBERS.index(target.name), target)
            for place, target in enumerate(config.targets)
            if target.kind == "value" and target.name in NUMBERS
        ]
        self.copied = [place for place, _, _ in copied], [number for _, number, _ in copied]
        """Targets that are measured, and their places among `NUMBERS`."""
        self.register_buffer("copied_mean", torch.tensor([target.mean for _, _, target in copied]), persistent=False)
        self.register_buffer("copied_scale", torch.tensor([target.scale for _, _, target in copied]), persistent=False)
        self.copied_mean: Tensor
        self.copied_scale: Tensor
        self.register_buffer("at_token", torch.tensor(at_token, dtype=torch.long), persistent=False)
        self.register_buffer("at_slot", torch.tensor(at_slot, dtype=torch.long), persistent=False)
        self.at_token: Tensor
        self.at_slot: Tensor

    @property
    def token_width(self) -> int:
        """Width of an ECG token: what a query gathered, and what its targets say."""
        return self.config.query_width + self.n_slots

    @property
    def n_tokens(self) -> int:
        """ECG tokens of one recording."""
        return len(self.config.tokens) + self.config.n_time_tokens

    def forward(self, values: Tensor, mask: Tensor, measured: Tensor | None = None) -> Encoded:
        """Recordings of one padded length.

        Args:
            values: (batch, n_leads, n_samples) in mV, 0 where nothing is.
            mask: the same shape, whether there is a value.
            measured: (batch, n_columns) their measurements, if they are known; else they are taken here.
        """
        features, known = self.backbone(encoder_input(values, mask, self.preprocessing))  # (batch, time, width)
        count = known.sum(1, keepdim=True).clamp(min=1)
        mean = features.sum(1) / count
        maximum = features.masked_fill(~known[..., None], float("-inf")).amax(1)
        embedding = torch.cat([mean, maximum], 1)  # (batch, 2 · width)
        scores = self.queries @ self.keys(features).transpose(1, 2) * self.config.query_width**-0.5
        weights = scores.masked_fill(~known[:, None], float("-inf")).float().softmax(-1).to(features.dtype)
        gathered = weights @ self.values(features)  # (batch, n_queries, query_width)
        read = (self.dropout(gathered)[:, self.at_token] * self.readout).sum(-1)
        seen = (read + self.summary(self.dropout(embedding))).float()  # (batch, n_targets)
        branches: tuple[Tensor, ...] = (seen,)
        outputs = seen
        if self.measured is not None:
            wanted = self.preprocessing
            if measured is None:
                measured = measure_batch(values, mask, wanted.leads, wanted.sampling_hz)
            measured = of_leads(measured, mask.any(-1), wanted.leads)
            branches = seen, self.measured(measured).float()
            outputs = self._together(*branches, measured)
        return Encoded(outputs, self._tokens(features, known, gathered, outputs), embedding, branches)

    def _together(self, seen: Tensor, concluded: Tensor, measured: Tensor) -> Tensor:
        """The mean of both branches, the waveform's alone where nothing was measured; values as they were measured."""
        anything = measured.isfinite().any(1, keepdim=True)
        told = torch.where(anything, (seen + concluded) / 2, seen)
        places, columns = self.copied
        copies = (numbers(measured)[:, columns] - self.copied_mean) / self.copied_scale
        told[:, places] = torch.where(copies.isfinite(), copies.clamp(-5, 5), seen[:, places])
        return told

    def _tokens(self, features: Tensor, known: Tensor, gathered: Tensor, outputs: Tensor) -> Tensor:
        """(batch, n_tokens, token_width)."""
        told = outputs.new_zeros(len(outputs), len(self.config.tokens), self.n_slots)
        told[:, self.at_token, self.at_slot] = outputs.clamp(-MOST_TOLD, MOST_TOLD)
        tokens = torch.cat([gathered.float(), told], -1)
        if not self.config.n_time_tokens:
            return tokens
        n = self.config.n_time_tokens
        part = (known.cumsum(1) - 1) * n // known.sum(1, keepdim=True).clamp(min=1)  # of what was recorded
        inside = functional.one_hot(part.clamp(0, n - 1), n).float() * known[..., None]  # (batch, time, n_time_tokens)
        pooled = inside.transpose(1, 2) @ self.values(features).float() / inside.sum(1).clamp(min=1)[..., None]
        return torch.cat([tokens, functional.pad(pooled, (0, self.n_slots))], 1)

    def outputs_of(self, tokens: Tensor) -> Tensor:
        """What ECG tokens say, (batch, n_tokens, token_width) → (batch, n_targets), as `Encoded.outputs`."""
        return tokens[:, self.at_token, self.config.query_width + self.at_slot]

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(batch, n_targets): statements and findings as probabilities, values in their own units."""
        told = torch.empty_like(outputs)
        for number, target in enumerate(self.config.targets):
            column = outputs[:, number]
            told[:, number] = column * target.scale + target.mean if target.kind == "value" else column.sigmoid()
        return told


def padded(recordings: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Recordings of several lengths as one batch: values and mask, (batch, n_leads, longest)."""
    longest = max(values.shape[-1] for values, _ in recordings)
    pads = [(0, longest - values.shape[-1]) for values, _ in recordings]
    values = torch.stack([functional.pad(values, pad) for (values, _), pad in zip(recordings, pads, strict=True)])
    mask = torch.stack([functional.pad(mask, pad) for (_, mask), pad in zip(recordings, pads, strict=True)])
    return values, mask
