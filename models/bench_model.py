"""The model on the bench: `bench run --model reference`, or with `--option folder=DIR` any trained with `ecglm train`.

Options: `folder`; `blank=true` shows the model nothing of the ECG (what the questions alone give away); `head=true`
takes the encoder's own outputs for questions about statements, for comparison; `leads=I,II` (or `limb`) hides the
other leads; `threshold` above which an option counts as chosen.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ecglm.models.classes import class_scores
from ecglm.models.comparing import MOST_ECGS
from ecglm.models.ecglm import ECGLM, Answered, Asked
from ecglm.models.fingerprint import fingerprint
from ecglm.models.info import expand
from ecglm.models.preprocessing import Prepared, Preprocessing, lead_names, leads_named, prepare
from ecglm.models.targets import of_statements
from ecglm.synth.errors import ModelError

_ENCODED_AT_ONCE = 64
HEADS = ("false", "true", "waveform")
"""What answers instead of the language model: nothing, the encoder, or its branch that reads waveforms."""
_ENCODED_KEPT = 2048
"""ECGs whose tokens are kept for later batches."""


class Recording(Protocol):
    """What of a recording of the bench is used."""

    ecg_id: str
    root: Path
    leads: tuple[str, ...]
    sampling_hz: int

    @property
    def signal(self) -> NDArray[np.float32]:
        """(n_samples, n_leads) in mV."""
        ...


class Item(Protocol):
    """What of a question of the bench is used."""

    id: str
    recordings: tuple[Recording, ...]
    question: str
    options: tuple[str, ...]
    multiple: bool
    codes: tuple[str, ...]


@dataclass(frozen=True)
class Reply:
    """What the bench takes as an answer."""

    id: str
    text: str | None
    scores: tuple[float, ...] | None


class Reference:
    """A model of `ecglm train` as the bench asks it."""

    ask = "statement"
    batch_size = 4096

    def __init__(
        self,
        folder: str = "reference",
        blank: str = "false",
        head: str = "false",
        leads: str = "",
        threshold: str = "0.5",
    ) -> None:
        self.lm = ECGLM.load(folder)
        if head not in HEADS:
            raise ModelError(f"option head={head}: expected {', '.join(HEADS)}")
        self.blank, self.head, self.waveform = (
            truth("blank", blank) or self.lm.blind,
            head != "false",
            head == "waveform",
        )
        if self.blank and self.head:
            raise ModelError(f"blank=true and head={head} exclude each other: the head answers from the ECG alone")
        self.leads = leads_named(leads)
        self.threshold = share("threshold", threshold)
        only = ["waveform"] if self.waveform else []
        shown = [*(["blank"] if self.blank else []), *(["head"] if self.head else []), *only, *self.leads]
        self.name = " ".join([str(self.lm.about["name"]), *shown])
        self.fingerprint = fingerprint(
            self.lm.fingerprint, self.blank, self.head, self.leads or None, self.threshold, *only
        )
        self.trained_on = trained_on(self.lm.about["trained_on"])
        self.reads_signals = not self.blank
        self._kept: OrderedDict[str, tuple[torch.Tensor, torch.Tensor]] = OrderedDict()
        self._said: dict[Asked, Answered] = {}

    def answer(self, batch: Sequence[Item], /) -> Iterator[Reply]:
        """One answer per item, each ECG encoded once."""
        tokens, outputs, place = self._encoded(batch)
        if self.head:
            yield from self._from_head(batch, outputs, place)
            return
        chosen = [item for item in batch if item.options]
        asked = [
            Asked(
                tuple(place[recording.ecg_id] for recording in item.recordings),
                item.question,
                item.options,
                item.multiple,
            )
            for item in chosen
        ]
        told = self._blank(asked) if self.blank else self.lm.answer_all(tokens, asked, self.threshold)
        for item, answered in zip(chosen, told, strict=True):
            yield Reply(item.id, answered.text, answered.scores)
        for item in batch:
            if not item.options:
                yield Reply(item.id, self._read(item, tokens, place).text, None)

    def _blank(self, asked: Sequence[Asked]) -> list[Answered]:
        """Answers without an ECG; the same question gets the same one, or ECGs would be ranked by rounding."""
        plain = [replace(each, ecgs=tuple(range(len(each.ecgs)))) for each in asked]
        new = [each for each in dict.fromkeys(plain) if each not in self._said]
        encoder = self.lm.model.encoder
        nothing = torch.zeros(MOST_ECGS, encoder.n_tokens, encoder.token_width)
        self._said |= dict(zip(new, self.lm.answer_all(nothing, new, self.threshold, blank=True), strict=True))
        return [self._said[each] for each in plain]

    def _read(self, item: Item, tokens: torch.Tensor, place: dict[str, int]) -> Answered:
        shown = tokens[[place[recording.ecg_id] for recording in item.recordings]]
        return self.lm.say(shown, item.question, short=True, blank=self.blank)

    def _from_head(self, batch: Sequence[Item], outputs: torch.Tensor, place: dict[str, int]) -> Iterator[Reply]:
        targets = self.lm.model.encoder.config.targets
        chosen = of_statements(targets)
        rows = outputs.tolist()
        known = {ecg_id: {targets[n].name: rows[row][n] for n in chosen} for ecg_id, row in place.items()}
        for item in batch:
            yield Reply(item.id, None, class_scores(item, known[item.recordings[0].ecg_id]))

    def _encoded(self, batch: Sequence[Item]) -> tuple[torch.Tensor, torch.Tensor, dict[str, int]]:
        """Tokens and probabilities of the ECGs of a batch, and at which row each ECG is."""
        recordings = {recording.ecg_id: recording for item in batch for recording in item.recordings}
        missing = [recording for ecg_id, recording in recordings.items() if ecg_id not in self._kept]
        for start in range(0, len(missing), _ENCODED_AT_ONCE):
            part = missing[start : start + _ENCODED_AT_ONCE]
            for recording, tokens, outputs in zip(part, *self._encode(part), strict=True):
                self._kept[recording.ecg_id] = tokens, outputs
        found = [self._kept[ecg_id] for ecg_id in recordings]
        for ecg_id in recordings:
            self._kept.move_to_end(ecg_id)
        while len(self._kept) > max(_ENCODED_KEPT, len(recordings)):
            self._kept.popitem(last=False)
        place = {ecg_id: row for row, ecg_id in enumerate(recordings)}
        return torch.stack([each for each, _ in found]), torch.stack([each for _, each in found]), place

    def _encode(self, recordings: Sequence[Recording]) -> tuple[torch.Tensor, torch.Tensor]:
        encoder = self.lm.model.encoder
        if self.blank:  # the ECG is not even read
            n = len(recordings)
            return torch.zeros(n, encoder.n_tokens, encoder.token_width), torch.zeros(n, len(encoder.config.targets))
        encoded = self.lm.encode_whole([self._prepared(recording) for recording in recordings])
        outputs = encoded.branches[0] if self.waveform else encoded.outputs
        return encoded.tokens, encoder.probabilities(outputs)

    def _prepared(self, recording: Recording) -> Prepared:
        return prepared(recording, self.leads, self.lm.model.encoder.preprocessing)


def prepared(recording: Recording, leads: Collection[str], wanted: Preprocessing) -> Prepared:
    """A recording as an encoder takes it, of which these leads are kept; no lead keeps all.

    Raises:
        ModelError: it cannot be used; names it.
    """
    names, signal = recording.leads, recording.signal
    if leads:
        kept = [number for number, name in enumerate(lead_names(names)) if name in leads]
        names, signal = tuple(names[number] for number in kept), signal[:, kept]
    try:
        return prepare(signal, names, recording.sampling_hz, wanted)
    except ModelError as error:
        raise ModelError(f"{recording.ecg_id}: {error}") from error


def truth(name: str, told: str) -> bool:
    """An option that is true or false."""
    if told not in ("true", "false"):
        raise ModelError(f"option {name}={told}: expected true or false")
    return told == "true"


def share(name: str, told: str) -> float:
    """An option that is a number between 0 and 1."""
    try:
        value = float(told)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise ModelError(f"option {name}={told}: expected a number between 0 and 1")
    return value


def trained_on(told: dict[str, list[str]]) -> frozenset[str]:
    """ECG ids from runs of numbers by source."""
    return frozenset(f"{source}:{own}" for source, runs in told.items() for own in expand(runs))
