"""What an encoder says of many ECGs, and how good it is on the validation fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ecglm.models.ecg_lm import EcgLanguageModel
from ecglm.models.encoder import Encoder
from ecglm.models.packing import Branch
from ecglm.models.waveforms import Waveforms


def encode_all(encoder: Encoder, waveforms: Waveforms, ecg_ids: Sequence[str], batch: int = 128) -> NDArray[np.float32]:
    """Outputs (n_ecgs, n_targets) of an encoder."""
    was_training = encoder.training
    encoder.eval()
    told = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(ecg_ids), batch):
            told.append(encoder(*waveforms.inputs(encoder, ecg_ids[start : start + batch])).outputs)
    encoder.train(was_training)
    return torch.cat(told).numpy()


def macro_auc(truth: NDArray[np.floating], scores: NDArray[np.floating]) -> float:
    """Mean area under the ROC curve over the columns that have both positives and negatives (Mann-Whitney)."""
    from scipy.stats import rankdata

    areas = []
    for wanted, given in zip(truth.T > 0.5, scores.T, strict=True):
        positives = int(wanted.sum())
        if 0 < positives < len(wanted):
            ranks = rankdata(given)[wanted].sum()
            areas.append((ranks - positives * (positives + 1) / 2) / (positives * (len(wanted) - positives)))
    return float(np.mean(areas)) if areas else float("nan")


class StatementAsker:
    """Asks a model about every statement of some ECGs, as `bench` does, and ranks by what it says."""

    def __init__(
        self, waveforms: Waveforms, ecg_ids: Sequence[str], truth: NDArray[np.floating], questions: Sequence[str]
    ) -> None:
        self.waveforms, self.ecg_ids, self.truth, self.questions = waveforms, ecg_ids, truth, questions

    def scores(self, model: EcgLanguageModel, blank: bool = False, batch: int = 16) -> NDArray[np.float32]:
        """(n_ecgs, n_statements) logit of yes minus that of no."""
        was_training = model.training
        model.eval()
        codec = model.codec
        branches = [Branch([*codec.user, *codec.encode(question), *codec.short]) for question in self.questions]
        told = []
        with torch.inference_mode(), model.autocast():
            for start in range(0, len(self.ecg_ids), batch):
                tokens = model.encode(*self.waveforms.inputs(model.encoder, self.ecg_ids[start : start + batch]))
                prefix = model.prefix([[row] for row in range(len(tokens))], tokens, blank)
                told += [logits.cpu() for logits in model.yes_minus_no(prefix, [branches] * len(tokens))]
        model.train(was_training)
        return torch.stack(told).numpy()

    def macro_auc(self, model: EcgLanguageModel, blank: bool = False) -> float:
        """Over the statements with both positives and negatives."""
        return macro_auc(self.truth, self.scores(model, blank))
