"""Ways to a model under test, by the words after `--model`.

- `majority`, `random`, `oracle`, `adversary`: built in;
- `predictions:FILE`: answers made elsewhere (Parquet, CSV, JSON Lines);
- `python:module:name`: a function from a list of items to answers, or a class with `answer`;
- any other word: a model some installed package offers in the entry-point group `ecglm.models`.

Code that is not ecglm's own runs in a process of its own, so that what it prints, and whether it hangs or dies, harms
no answer.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ecglm.bench.protocol import MAX_ANSWER_CHARS, Item
from ecglm.bench.questions import Questions
from ecglm.synth.errors import ModelError

ENTRY_POINTS = "ecglm.models"
ASK = ("statement", "list")


class AnswerFailure(Exception):  # noqa: N818 - a signal between the modules of this package, never shown as it is
    """A batch that was not answered to its end; answers given before count."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(status, detail)
        self.status, self.detail = status, detail


@dataclass(frozen=True, slots=True)
class Given:
    """An answer as it was given, but for the end of a text that is too long."""

    id: str
    text: str | None
    n_chars: int | None
    """Length of the whole text."""
    scores: list[float] | None


def given(answer: Any) -> Given:
    """An answer of a model, its types checked and its text cut to MAX_ANSWER_CHARS.

    Args:
        answer: an `ecglm.bench.Answer`, or any object with its attributes id, text and scores: a model need not import
            the bench.

    Raises:
        TypeError: what a model gave is no answer.
    """
    try:
        item_id, text, found = answer.id, answer.text, answer.scores
    except AttributeError as error:
        raise TypeError(
            f"answered with {type(answer).__name__}; expected ecglm.bench.Answer(id, text=…, scores=…), or an object"
            " with these attributes"
        ) from error
    if text is not None and not isinstance(text, str):
        raise TypeError(f"item {item_id}: the text is {type(text).__name__}; expected str or None")
    scores = None if found is None else [float(score) for score in found]
    if text is None:
        return Given(str(item_id), None, None, scores)
    return Given(str(item_id), text[:MAX_ANSWER_CHARS], len(text), scores)


@dataclass
class About:
    """What a model says of itself."""

    name: str
    fingerprint: str
    ask: str = "statement"
    batch_size: int = 256
    reads_signals: bool = True
    trained_on: Collection[str] | None = field(default=None, repr=False)
    thresholds: bool = True
    """Whether it answers questions about the threshold folds as well."""


class Asker(Protocol):
    """A model that can be asked, wherever it runs."""

    about: About

    def prepare(self, questions: Sequence[Questions]) -> None:
        """Called once with all questions; may refuse them, and completes `about`."""
        ...

    def ask(self, batch: Sequence[Item]) -> Iterator[list[Given]]:
        """Answers in groups as they come.

        Raises:
            AnswerFailure: the model raised, hung, or died before the batch was done.
        """
        ...

    def close(self) -> None:
        """Ends whatever runs."""
        ...


class Local:
    """A model of ecglm's own, asked in this process."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.about = about_model(model, model.name, model.fingerprint)

    def prepare(self, questions: Sequence[Questions]) -> None:
        """Gives the model its questions."""
        self.model.prepare(questions)
        self.about = about_model(self.model, self.model.name, self.model.fingerprint)

    def ask(self, batch: Sequence[Item]) -> Iterator[list[Given]]:
        """All answers at once."""
        yield [given(answer) for answer in self.model.answer(batch)]

    def close(self) -> None:
        """Nothing runs."""


def about_model(model: Any, name: str, fingerprint: str) -> About:
    """The optional attributes of a model, checked.

    Raises:
        ModelError: an attribute that is not what the protocol says.
    """
    about = About(
        name=str(getattr(model, "name", None) or name),
        fingerprint=str(getattr(model, "fingerprint", None) or fingerprint),
        ask=getattr(model, "ask", "statement"),
        batch_size=getattr(model, "batch_size", 256),
        reads_signals=bool(getattr(model, "reads_signals", True)),
        trained_on=getattr(model, "trained_on", None),
        thresholds=bool(getattr(model, "thresholds", True)),
    )
    if about.ask not in ASK:
        raise ModelError(f"{name}: attribute ask is {about.ask!r}, expected 'statement' or 'list'")
    if not isinstance(about.batch_size, int) or about.batch_size < 1:
        raise ModelError(f"{name}: attribute batch_size is {about.batch_size!r}, expected a whole number from 1 on")
    if about.trained_on is not None:
        if isinstance(about.trained_on, str) or not all(isinstance(ecg_id, str) for ecg_id in about.trained_on):
            raise ModelError(f"{name}: attribute trained_on is not a collection of ECG ids such as 'ptbxl:17'")
        about.trained_on = frozenset(about.trained_on)
    return about


def open_model(spec: str, options: Mapping[str, str], *, log: Path, timeout_s: float) -> Asker:
    """The model that the words of `--model` name.

    Raises:
        ModelError: no such model, or it cannot be loaded.
        PredictionError: the file of predictions cannot be read.
    """
    from ecglm.bench.adapters import builtin

    if spec in builtin.NAMES:
        return Local(builtin.Builtin(spec, dict(options)))
    if spec.startswith("predictions:"):
        from ecglm.bench.adapters.predictions import Predictions

        return Local(Predictions(Path(spec.removeprefix("predictions:")), dict(options)))
    if not spec.startswith("python:"):
        known = entry_points()
        if spec not in known:
            names = [*builtin.NAMES, *known]
            near = difflib.get_close_matches(spec, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}."
            raise ModelError(f"--model {spec}: no such model; {hint} Or give python:module:name or predictions:FILE")
        spec = f"python:{known[spec]}"
    from ecglm.bench.adapters.process import Process

    return Process(spec.removeprefix("python:"), dict(options), log=log, timeout_s=timeout_s)


def entry_points() -> dict[str, str]:
    """Name → `module:name` of the models that installed packages offer."""
    from importlib import metadata

    return {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS)}
