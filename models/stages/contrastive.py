"""Encoder pre-training against text: which sentences belong to which ECG (as CLIP, Radford et al., ICML 2021).

The text is what the pairs of an ECG answer, reports first. Two ECGs with the same words are both right.
"""

from __future__ import annotations

import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecglm.models.augment import Augmentation, augment
from ecglm.models.encoder import Encoder
from ecglm.models.fingerprint import fingerprint
from ecglm.models.loop import Optimisation
from ecglm.models.stages.simclr import PROJECTED, WithHead
from ecglm.models.stages.supervised import epoch_members
from ecglm.models.text import Codec, Markers, train_tokenizer
from ecglm.models.waveforms import Waveforms
from ecglm.synth.errors import ModelError

VOCABULARY = 2000
WORD_WIDTH = 128
WARMEST, COLDEST = 1.0, 100.0
"""Bounds of the factor on the cosine."""
_FIRST = ("report", "query", "verify")
"""Families whose answers describe an ECG, the best first."""


class TextEncoder(nn.Module):
    """Mean of word embeddings, then two layers."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(vocabulary, WORD_WIDTH, mode="mean")
        self.head = nn.Sequential(nn.Linear(WORD_WIDTH, WORD_WIDTH), nn.GELU(), nn.Linear(WORD_WIDTH, PROJECTED))

    def forward(self, tokens: Tensor, starts: Tensor) -> Tensor:
        """Texts laid one after another → (batch, PROJECTED) of length 1."""
        return F.normalize(self.head(self.words(tokens, starts)), dim=-1)


class TwoEncoders(nn.Module):
    """Encoder of ECGs, encoder of texts, and how sharply likeness is judged."""

    def __init__(self, encoder: Encoder, vocabulary: int) -> None:
        super().__init__()
        self.ecg = WithHead(encoder)
        self.text = TextEncoder(vocabulary)
        self.sharpness = nn.Parameter(torch.tensor(10.0).log())


class Contrastive:
    """Symmetric cross-entropy between ECGs and texts of a batch."""

    name = "encoder"

    def __init__(
        self,
        encoder: Encoder,
        waveforms: Waveforms,
        pairs: pl.DataFrame,
        how: Optimisation,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self.texts = texts_of(pairs)
        self.ecg_ids = sorted(ecg_id for ecg_id in self.texts if ecg_id in waveforms)
        if not self.ecg_ids:
            raise ModelError(
                "no pair about a single ECG to learn from: the corpus needs reports, query or verify pairs"
            )
        everything = [text for ecg_id in self.ecg_ids for text in self.texts[ecg_id]]
        self.codec = Codec(train_tokenizer([*everything, "yes", "no"], VOCABULARY, Markers()), Markers())
        self.module = TwoEncoders(encoder, self.codec.size)
        self.preprocessing = encoder.preprocessing
        self.waveforms, self.how, self.augmentation, self.seed = waveforms, how, augmentation, seed
        self.fingerprint = fingerprint(
            "contrastive",
            [(ecg_id, self.texts[ecg_id]) for ecg_id in self.ecg_ids],
            encoder.config.model_dump(),
            encoder.preprocessing.model_dump(),
            how.model_dump(),
            augmentation.model_dump(),
        )

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Mean loss of one batch, and how often the right text was the nearest."""
        chosen = epoch_members(len(self.ecg_ids), self.how.batch, step, self.seed, self.name)
        ecg_ids = [self.ecg_ids[place] for place in chosen]
        values, mask = self.waveforms.batch(ecg_ids)
        wanted = self.preprocessing
        varied = augment(values, mask, wanted.leads, wanted.sampling_hz, self.augmentation, draw)
        with torch.autocast("cpu", torch.bfloat16):
            ecgs = self.module.ecg(*varied)
        said = [self._one(self.texts[ecg_id], draw) for ecg_id in ecg_ids]
        encoded = self.codec.encode_all(said)
        starts = torch.tensor([0, *(len(each) for each in encoded[:-1])]).cumsum(0)
        texts = self.module.text(torch.tensor([token for each in encoded for token in each]), starts)
        likeness = ecgs @ texts.T * self.module.sharpness.exp().clamp(WARMEST, COLDEST)
        same = torch.tensor([[one == other for other in said] for one in said]).float()
        right = same / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(likeness, right) + F.cross_entropy(likeness.T, right)) / 2
        found = float(same[torch.arange(len(said)), likeness.argmax(1)].mean())
        return loss, {"found": found}

    def _one(self, texts: list[str], draw: torch.Generator) -> str:
        return texts[int(torch.randint(len(texts), (), generator=draw))]

    def validate(self) -> dict[str, float]:
        """The stages that follow are judged on the validation fold."""
        return {}


def texts_of(pairs: pl.DataFrame) -> dict[str, list[str]]:
    """ECG → what is answered about it: of the first family of `_FIRST` it has pairs of, at most sixteen texts."""
    single = pairs.filter((pl.col("ecg_ids").list.len() == 1) & pl.col("family").is_in(_FIRST))
    table = single.select(
        "pair_id",
        "family",
        pl.col("ecg_ids").list.first().alias("ecg_id"),
        pl.col("messages").list.get(1).struct.field("content").alias("text"),
    ).filter(pl.col("text").str.len_chars() > 0)
    found: dict[str, list[str]] = {}
    for family in _FIRST:
        part = table.filter((pl.col("family") == family) & ~pl.col("ecg_id").is_in(list(found)))
        grouped = part.sort("pair_id").group_by("ecg_id", maintain_order=True).agg(pl.col("text").head(16))
        found |= {ecg_id: list(texts) for ecg_id, texts in grouped.iter_rows()}
    return found
