"""What a model under test is given and what it gives back: all that an author of a model needs to know.

A model has one method, `answer(batch)`: it takes a list of items and gives one answer for each, in any order, with the
item's id. An answer holds a text, one score per option, or both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

MAX_ANSWER_CHARS = 16_384
"""Of a longer answer only the beginning is kept, and the run says so."""

YES_NO = ("yes", "no")


@dataclass(frozen=True)
class Recording:
    """One ECG of an item: where its waveform is, and the waveform itself, read when it is asked for."""

    ecg_id: str
    root: Path
    signal_path: str
    """The WFDB record below `root`, without extension."""
    leads: tuple[str, ...]
    sampling_hz: int
    measurements: str | None = None
    """Measurements in words, such as "QRS duration 96 ms; ventricular rate 72 /min"; None where none are given."""
    store: Path | None = None
    """A signal store that the waveform is read from; None, or one that lacks it: from the record's own files."""

    @property
    def path(self) -> Path:
        """The record's path without extension, as the WFDB libraries take it."""
        return self.root / self.signal_path

    @cached_property
    def signal(self) -> NDArray[np.float32]:
        """The waveform, `(n_samples, n_leads)` in mV, columns in the order of `leads`.

        Raises:
            SignalError: the record is missing, damaged or not as its source promises.
            SourceError: the signal store was damaged.
        """
        from ecglm.synth.signals import read_record

        record = None
        if self.store is not None:
            from ecglm.synth.signal_store import stored_records

            (record,) = stored_records(self.store, [self.ecg_id])
        if record is None:
            record = read_record(self.root, self.signal_path, leads=self.leads, sampling_hz=self.sampling_hz)
        return record.millivolts()


@dataclass(frozen=True, slots=True)
class Item:
    """One question about one ECG, or about two in the order of time."""

    id: str
    """Same question about the same ECG, same id, in every run. Answers carry it."""
    recordings: tuple[Recording, ...]
    question: str
    options: tuple[str, ...]
    """The possible answers; empty where a number is asked for."""
    multiple: bool
    """Whether any number of the options may hold, rather than exactly one."""
    codes: tuple[str, ...] = ()
    """The statement a yes-or-no question is about; for a question that lists statements, one code per option."""
    unit: str | None = None
    """The unit of a number asked for."""

    @property
    def ecg_id(self) -> str:
        """The (first) ECG."""
        return self.recordings[0].ecg_id

    @property
    def signal(self) -> NDArray[np.float32]:
        """The (first) waveform, `(n_samples, n_leads)` in mV."""
        return self.recordings[0].signal


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says to one item: a text, a probability in [0, 1] for each option, or both."""

    id: str
    text: str | None = None
    scores: Sequence[float] | None = None
    """One per option, in the order of `item.options`. For yes and no, `scores[0] / sum(scores)` is the score of yes."""


@runtime_checkable
class Model(Protocol):
    """A model under test.

    Beside `answer` it may have these attributes:

    - `name` (str): how tables call it;
    - `fingerprint` (str): changes whenever its answers would, such as a hash of the weights;
    - `trained_on` (collection of ECG ids): what it was trained on; left out, the run says "unknown";
    - `ask` ("statement" or "list"): one yes-or-no question for each statement (the default), or one question per ECG
      that lists them all;
    - `batch_size` (int): how many items it would like at a time;
    - `reads_signals` (False): it looks at no waveform, so none is part of what identifies its answers.
    """

    def answer(self, batch: Sequence[Item], /) -> Iterable[Answer]:
        """One answer for every item of the batch, in any order; may be a generator."""
        ...


TrainedOn = Collection[str]
"""ECG ids, `source:native_id`."""
