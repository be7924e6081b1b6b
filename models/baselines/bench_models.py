"""The baselines on the bench: `bench run --model ecglm-trees --option folder=DIR`, `--model ecglm-simclr`.

`ecglm-simclr` takes `share`, how much of the labels its probe learned from: 0.01, 0.1 or 1.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecglm.models.baselines.training import ABOUT, WEIGHTS
from ecglm.models.baselines.trees import tree_probabilities
from ecglm.models.bench_model import Item, Recording, Reply, trained_on
from ecglm.models.checkpoint import load_into, own_tensors, read_tensors
from ecglm.models.classes import class_scores
from ecglm.models.encoder import Encoder, EncoderConfig, padded
from ecglm.models.measured import measure_signals
from ecglm.models.preprocessing import Preprocessing, prepare
from ecglm.synth.errors import ModelError


class Baseline(ABC):
    """A classifier of statements; questions of other kinds are refused."""

    ask = "statement"
    batch_size = 4096
    kind = ""

    def __init__(self, folder: str = "") -> None:
        root = Path(folder)
        if not folder or not (root / ABOUT).is_file():
            raise ModelError(
                f"option folder={folder}: no {ABOUT} there; make one with `ecglm baseline {self.kind} --out DIR`"
            )
        self.about: dict[str, Any] = json.loads((root / ABOUT).read_text(encoding="utf-8"))
        if self.about["kind"] != self.kind:
            raise ModelError(f"{root}: a baseline of the kind {self.about['kind']}, expected {self.kind}")
        self.tensors, _ = read_tensors(root / WEIGHTS)
        self.name = self.kind
        self.fingerprint: str = self.about["fingerprint"]
        self.trained_on = trained_on(self.about["trained_on"])

    def answer(self, batch: Sequence[Item], /) -> Iterator[Reply]:
        """One answer per item, each ECG looked at once."""
        recordings = list({recording.ecg_id: recording for item in batch for recording in item.recordings}.values())
        table = self.probabilities(recordings).tolist()
        codes = self.about["statements"]
        known = {r.ecg_id: dict(zip(codes, row, strict=True)) for r, row in zip(recordings, table, strict=True)}
        for item in batch:
            yield Reply(item.id, None, class_scores(item, known[item.recordings[0].ecg_id]))

    @abstractmethod
    def probabilities(self, recordings: Sequence[Recording]) -> NDArray[np.floating]:
        """(n_recordings, n_statements)."""


class Trees(Baseline):
    """Gradient-boosted trees on what is measured on the waveform."""

    kind = "trees"

    def probabilities(self, recordings: Sequence[Recording]) -> NDArray[np.floating]:
        """(n_recordings, n_statements)."""
        rows = [measure_signals(each.signal[None], each.leads, each.sampling_hz) for each in recordings]
        return tree_probabilities(self.tensors, np.concatenate(rows))


class SimClrProbe(Baseline):
    """A logistic regression on an encoder that was trained without labels."""

    kind = "simclr"

    def __init__(self, folder: str = "", share: str = "1") -> None:
        super().__init__(folder)
        if share not in self.about["shots"]:
            raise ModelError(f"option share={share}: expected one of {', '.join(self.about['shots'])}")
        self.preprocessing = Preprocessing.model_validate(self.about["preprocessing"])
        self.encoder = Encoder(self.preprocessing, EncoderConfig.model_validate(self.about["encoder"])).eval()
        own = {name.removeprefix("encoder."): t for name, t in self.tensors.items() if name.startswith("encoder.")}
        load_into(own_tensors(self.encoder), own, folder)
        self.weight, self.bias = self.tensors[f"probe.{share}.weight"], self.tensors[f"probe.{share}.bias"]
        self.name = f"simclr, {float(share):.0%} of labels"
        self.fingerprint = f"{self.fingerprint} {share}"

    def probabilities(self, recordings: Sequence[Recording]) -> NDArray[np.floating]:
        """(n_recordings, n_statements)."""
        found = []
        for start in range(0, len(recordings), 64):
            ready = [
                prepare(each.signal, each.leads, each.sampling_hz, self.preprocessing)
                for each in recordings[start : start + 64]
            ]
            values, mask = padded([(torch.from_numpy(each.values), torch.from_numpy(each.mask)) for each in ready])
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                embedding = self.encoder(values, mask).embedding.float()
            standard = (embedding - self.tensors["centre"]) / self.tensors["spread"]
            found.append((standard @ self.weight.T + self.bias).sigmoid())
        return np.asarray(torch.cat(found).numpy())
