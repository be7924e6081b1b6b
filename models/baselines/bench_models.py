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

from ecglm.models.baselines.subjects import Subjects
from ecglm.models.baselines.training import ABOUT, WEIGHTS
from ecglm.models.baselines.trees import TreeProbabilities
from ecglm.models.bench_model import Item, Recording, Reply, prepared, trained_on
from ecglm.models.checkpoint import load_into, own_tensors, read_tensors
from ecglm.models.classes import class_scores
from ecglm.models.ecglm import consistent, is_verdict, one_at_least
from ecglm.models.encoder import Encoder, EncoderConfig, padded
from ecglm.models.measured import measure_batch
from ecglm.models.preprocessing import Preprocessing
from ecglm.synth.errors import ModelError
from ecglm.synth.measure import MEASURED_VERSION

_AT_ONCE = 64
"""Recordings prepared at once."""


class Baseline(ABC):
    """A classifier of statements and classes; questions of other kinds are refused."""

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
        self.preprocessing = Preprocessing.model_validate(self.about["preprocessing"])
        self.name = self.kind
        self.fingerprint: str = self.about["fingerprint"]
        self.trained_on = trained_on(self.about["trained_on"])

    def answer(self, batch: Sequence[Item], /) -> Iterator[Reply]:
        """One answer per item, each ECG looked at once."""
        recordings = list({recording.ecg_id: recording for item in batch for recording in item.recordings}.values())
        table = self.probabilities(recordings).tolist()
        names = self.about["tells"]
        known = {r.ecg_id: dict(zip(names, row, strict=True)) for r, row in zip(recordings, table, strict=True)}
        for item in batch:
            yield Reply(item.id, None, class_scores(item, known[item.recordings[0].ecg_id]))

    @abstractmethod
    def probabilities(self, recordings: Sequence[Recording]) -> NDArray[np.floating]:
        """(n_recordings, n_statements and classes)."""

    def prepared(self, recordings: Sequence[Recording], leads: Sequence[str] = ()) -> tuple[torch.Tensor, torch.Tensor]:
        """Values in mV and mask, both (n_recordings, n_leads, longest); of these leads if any is named."""
        ready = [prepared(each, leads, self.preprocessing) for each in recordings]
        return padded([(torch.from_numpy(each.values), torch.from_numpy(each.mask)) for each in ready])


class Trees(Baseline):
    """Gradient-boosted trees on what is measured on the waveform: of statements, and of what ECG-QA asks about."""

    kind = "trees"

    def __init__(self, folder: str = "") -> None:
        super().__init__(folder)
        if self.about["measurements_version"] != MEASURED_VERSION:
            raise ModelError(
                f"{folder}: trained on measurements version {self.about['measurements_version']}; this ecglm takes"
                f" version {MEASURED_VERSION}. Train it again"
            )
        self.leads: list[str] = self.about["leads"]
        self.name = " ".join([self.kind, *self.leads])
        self.trees = TreeProbabilities(self.tensors)
        self.subjects = Subjects(self.about["names"], self.about["forms"])
        first = len(self.about["tells"])
        self.place = {subject: first + number for number, subject in enumerate(self.about["subjects"])}
        self._measured: dict[str, NDArray[np.float32]] = {}

    def answer(self, batch: Sequence[Item], /) -> Iterator[Reply]:
        """One answer per item, each ECG measured once."""
        of_subjects = [item for item in batch if not item.codes and len(item.recordings) == 1 and self.place]
        chosen = {item.id for item in of_subjects}
        yield from super().answer([item for item in batch if item.id not in chosen])
        yield from self._about_subjects(of_subjects)

    def probabilities(self, recordings: Sequence[Recording]) -> NDArray[np.floating]:
        """(n_recordings, n_statements and classes)."""
        if not recordings:
            return np.zeros((0, len(self.about["tells"])))
        features = self._features(recordings, np.full(len(recordings), np.nan, np.float32))
        return np.stack([self.trees.of(number, features) for number in range(len(self.about["tells"]))], 1)

    def _about_subjects(self, items: Sequence[Item]) -> Iterator[Reply]:
        """Answers to questions of ECG-QA; what no training question was about is taken not to hold."""
        asked = [self.subjects.asked(each.question, () if is_verdict(each.options) else each.options) for each in items]
        scores = [np.zeros(len(told)) for told in asked]
        cells: dict[str, list[tuple[int, int]]] = {}
        for row, told in enumerate(asked):
            for column, subject in enumerate(told):
                cells.setdefault(subject.name, []).append((row, column))
        for name, members in cells.items():
            if name in self.place:
                forms = np.array([asked[row][column].form for row, column in members], np.float32)
                features = self._features([items[row].recordings[0] for row, _ in members], forms)
                for (row, column), score in zip(members, self.trees.of(self.place[name], features), strict=True):
                    scores[row][column] = score
        for item, found in zip(items, scores, strict=True):
            yield Reply(item.id, None, _decided(item, found))

    def _features(self, recordings: Sequence[Recording], forms: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n_recordings, n_measurements + 1) what is measured, and the form of the question."""
        new = list({each.ecg_id: each for each in recordings if each.ecg_id not in self._measured}.values())
        for start in range(0, len(new), _AT_ONCE):
            some = new[start : start + _AT_ONCE]
            wanted = self.preprocessing
            rows = measure_batch(*self.prepared(some, self.leads), wanted.leads, wanted.sampling_hz).numpy()
            self._measured |= {each.ecg_id: row for each, row in zip(some, rows, strict=True)}
        return np.column_stack([np.stack([self._measured[each.ecg_id] for each in recordings]), forms])


def _decided(item: Item, found: NDArray[np.float64]) -> tuple[float, ...]:
    """The score of each option, given the probability of yes, or of each option by itself."""
    if is_verdict(item.options):
        told = {"yes": float(found[0]), "no": 1 - float(found[0])}
        return tuple(told.get(option, 0.0) for option in item.options)
    logits = consistent(item.options, torch.from_numpy(found).clamp(1e-6, 1 - 1e-6).logit())
    return tuple((one_at_least(logits) if item.multiple else logits).sigmoid().tolist())


class SimClrProbe(Baseline):
    """A logistic regression on an encoder that was trained without labels."""

    kind = "simclr"

    def __init__(self, folder: str = "", share: str = "1") -> None:
        super().__init__(folder)
        if share not in self.about["shots"]:
            raise ModelError(f"option share={share}: expected one of {', '.join(self.about['shots'])}")
        self.encoder = Encoder(self.preprocessing, EncoderConfig.model_validate(self.about["encoder"])).eval()
        own = {name.removeprefix("encoder."): t for name, t in self.tensors.items() if name.startswith("encoder.")}
        load_into(own_tensors(self.encoder), own, folder)
        self.weight, self.bias = self.tensors[f"probe.{share}.weight"], self.tensors[f"probe.{share}.bias"]
        self.name = f"simclr, {float(share):.0%} of labels"
        self.fingerprint = f"{self.fingerprint} {share}"

    def probabilities(self, recordings: Sequence[Recording]) -> NDArray[np.floating]:
        """(n_recordings, n_statements and classes)."""
        found = []
        for start in range(0, len(recordings), _AT_ONCE):
            values, mask = self.prepared(recordings[start : start + _AT_ONCE])
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                embedding = self.encoder(values, mask).embedding.float()
            standard = (embedding - self.tensors["centre"]) / self.tensors["spread"]
            found.append((standard @ self.weight.T + self.bias).sigmoid())
        return np.asarray(torch.cat(found).numpy())
