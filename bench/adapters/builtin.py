"""Models that know the answers, or nothing: what every score must be measured against.

`oracle` gives the right answer and 1.0, `adversary` a wrong one and 0.0, `random` draws, `majority` says what was most
frequent in training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import xxhash

from ecglm.bench.kinds import answer_key, priors
from ecglm.bench.protocol import Answer, Item
from ecglm.bench.questions import Questions
from ecglm.synth.errors import ModelError

NAMES = ("majority", "random", "oracle", "adversary")
VERSION = "1"


class Builtin:
    """A built-in model; it reads the truth or the priors of the questions it is prepared for."""

    batch_size = 20_000
    reads_signals = False
    ask = "statement"

    def __init__(self, name: str, options: dict[str, str]) -> None:
        self.name = name
        self.trained_on: frozenset[str] | None = None if name in ("oracle", "adversary") else frozenset()
        self.seed = self._seed(options)
        self.fingerprint = f"{name} {VERSION} seed {self.seed}" if name == "random" else f"{name} {VERSION}"
        self._key: dict[str, tuple[str, ...]] = {}
        self._priors: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {}

    def _seed(self, options: dict[str, str]) -> int:
        unknown = sorted(set(options) - ({"seed"} if self.name == "random" else set()))
        if unknown:
            raise ModelError(f"{self.name}: unknown option {unknown[0]}; random knows seed=N, the others none")
        try:
            return int(options.get("seed", "0"))
        except ValueError:
            raise ModelError(f"random: seed is {options['seed']!r}, expected a whole number") from None

    def prepare(self, questions: Sequence[Questions]) -> None:
        """Takes what it may know of these questions."""
        for each in questions:
            if self.name == "majority":
                self._priors |= priors(each)
                self.trained_on = (self.trained_on or frozenset()) | frozenset(each.priors.get("ecg_ids", ()))
            elif self.name != "random":
                self._key |= answer_key(each)
        if self.name == "majority":  # answers follow from the priors
            digest = xxhash.xxh3_64()
            for each in sorted(questions, key=lambda each: each.id):
                known = {name: value for name, value in each.priors.items() if name != "ecg_ids"}
                digest.update(f"{each.id} {known!r}".encode())
            self.fingerprint = f"majority {VERSION} {digest.hexdigest()}"

    def answer(self, batch: Sequence[Item], /) -> Iterator[Answer]:
        """One answer with text and scores for each item."""
        for item in batch:
            if self.name == "majority":
                told, scores = self._priors[item.id]
                yield Answer(item.id, _text(told, item), scores or None)
            elif self.name == "random":
                yield self._random(item)
            else:
                yield _knowing(item, self._key[item.id], right=self.name == "oracle")

    def _random(self, item: Item) -> Answer:
        draws = [self._uniform(item.id, place) for place in range(len(item.options) or 1)]
        if not item.options:
            return Answer(item.id, f"{1400 * draws[0] - 200:.0f} {item.unit or ''}".strip())
        if item.multiple:
            chosen = tuple(option for option, score in zip(item.options, draws, strict=True) if score > 0.5)
            return Answer(item.id, _text(chosen, item), draws)
        weights = [-math.log(draw) for draw in draws]  # exponential, so that their shares are uniform on the simplex
        scores = [weight / sum(weights) for weight in weights]
        return Answer(item.id, item.options[scores.index(max(scores))], scores)

    def _uniform(self, item_id: str, place: int) -> float:
        """A number in (0, 1] that only seed, item and place decide."""
        return float(xxhash.xxh3_64_intdigest(f"{self.seed} {item_id} {place}".encode()) + 1) / 2.0**64


def _knowing(item: Item, right_options: tuple[str, ...], *, right: bool) -> Answer:
    if not item.options:
        if right:
            return Answer(item.id, right_options[0])
        value = float(right_options[0].split()[0])
        wrong = (value + 360) % 360 - 180 if item.unit == "°" else 2 * value + 1000  # the opposite direction
        return Answer(item.id, f"{wrong:g} {item.unit or ''}".strip())
    scores = [float((option in right_options) == right) for option in item.options]
    told = tuple(option for option, score in zip(item.options, scores, strict=True) if score)
    if not right and not item.multiple:
        told = told[:1]
    return Answer(item.id, _text(told, item), scores)


def _text(told: tuple[str, ...], item: Item) -> str:
    return ", ".join(told) if told else "none"
