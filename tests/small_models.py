"""Models with random weights, made in a moment: what does not depend on training is tested on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ecglm.models.ecg_lm import EcgLanguageModel, built_in_language_model
from ecglm.models.ecglm import ECGLM
from ecglm.models.encoder import Encoder, EncoderConfig, Target
from ecglm.models.preprocessing import Preprocessing
from ecglm.models.text import Codec, Markers, train_tokenizer
from ecglm.synth.measure import MEASURED_VERSION

TEXTS = [
    "Does this ECG show atrial fibrillation?",
    "Is this a normal ECG?",
    "yes no none sinus rhythm 72/min",
    "What is the ventricular rate? left bundle branch block",
    *["yes", "no"] * 50,
]
SIZE = {"width": 32, "inner_width": 48, "layers": 2, "heads": 2, "vocabulary": 400}
TARGETS = tuple(
    Target(name=name, token=token, kind=kind)  # type: ignore[arg-type]
    for name, token, kind in (
        ("AFIB", "AFIB", "statement"),
        ("NORM", "NORM", "statement"),
        ("IMI", "IMI", "statement"),
        ("static_noise:V1", "lead:V1", "finding"),
        ("HR__Global", "HR__Global", "value"),
    )
)


def small_encoder(targets: tuple[Target, ...] = TARGETS) -> Encoder:
    """An encoder of a few thousand numbers, its norms as if it had been trained."""
    torch.manual_seed(3)
    config = EncoderConfig(widths=(8, 8, 12, 16), query_width=8, n_time_tokens=2, targets=targets)
    encoder = Encoder(Preprocessing(), config).eval()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            module.bias.data.uniform_(-0.3, 0.3)
    return encoder


def small_model(**about: Any) -> ECGLM:
    """A whole model with random weights."""
    encoder = small_encoder()
    codec = Codec(train_tokenizer(TEXTS, SIZE["vocabulary"], Markers()), Markers())
    model = EcgLanguageModel(encoder, built_in_language_model(SIZE, codec.size), codec)
    with torch.no_grad():  # so that ECGs and questions differ by more than bfloat16 drops
        made_up = torch.randn(32, 12, 1000).cumsum(-1) * torch.rand(32, 1, 1) * 0.1
        made_up -= made_up.mean(-1, keepdim=True)
        model.projector.standardise(encoder(made_up, torch.ones(32, 12, 1000, dtype=torch.bool)).tokens)
        model.embedding.weight.mul_(15)
        for parameter in model.projector.layers.parameters():
            parameter.mul_(4)
    told = {
        "name": "small",
        "preprocessing": encoder.preprocessing.model_dump(mode="json"),
        "encoder": encoder.config.model_dump(mode="json"),
        "measurements_version": MEASURED_VERSION,
        "language_model": {"kind": "built_in", "built_in": SIZE},
        "markers": Markers().model_dump(),
        "trained_on": {"simulated": ["1-3", "7"]},
    }
    return ECGLM(model, told | about)


def saved(folder: Path, **about: Any) -> Path:
    """The same in a folder."""
    small_model(**about).save(folder)
    return folder
