"""Questions made while training: whether an ECG shows what its tokens are called, and whether measurements meet
conditions such as definitions are made of."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecglm.models.encoder import EncoderConfig
from ecglm.models.packing import Branch
from ecglm.models.pairs import said
from ecglm.models.targets import ANGLES, is_class
from ecglm.models.text import Codec
from ecglm.models.withheld import UNNAMED, unmentioned
from ecglm.models.wording import STATEMENT_QUESTION, token_phrases
from ecglm.synth.criteria import format_quantity
from ecglm.synth.measure.dictionary import measurements

MOST_CONDITIONS = 3
"""In one question."""
STEPS = {"/min": 5.0, "ms": 10.0, "mV": 0.05, "°": 5.0}
"""What limits are multiples of, by unit."""
_ABOVE = ("above {limit}", "of more than {limit}", "greater than {limit}")
_BELOW = ("below {limit}", "of less than {limit}", "smaller than {limit}")
_BETWEEN = ("between {limit} and {other}", "from {limit} to {other}")
_SYNONYMS = {"HR__Global": ("heart rate",), "PR_Int_Global": ("time from the onset of P to the onset of QRS",)}


Told = Mapping[str, NDArray[np.floating]]
"""ECG → the encoder's outputs (n_targets,)."""


class NamedQuestions:
    """Whether an ECG shows what one of its tokens is called: half of them things that it does show.

    The answer is as likely as the encoder says, not what the label says: what is learned is to say what the token says,
    of a rare statement as well as of a common one, and not how far an encoder can be trusted on ECGs it was trained on.
    """

    def __init__(
        self,
        codec: Codec,
        encoder: EncoderConfig,
        ecg_ids: Sequence[str],
        values: NDArray[np.float32],
        withheld: Collection[str] = (),
    ) -> None:
        phrases = dict(zip(encoder.tokens, unmentioned(token_phrases(encoder), withheld), strict=False))
        place = {token: number for number, token in enumerate(encoder.tokens)}
        kept = [
            (column, target.token)
            for column, target in enumerate(encoder.targets)
            if (target.kind == "statement" or is_class(target)) and phrases[target.token] != UNNAMED
        ]
        self.codec = codec
        self.phrases = [phrases[token] for _, token in kept]
        questions = [STATEMENT_QUESTION.format(phrase=phrase) for phrase in self.phrases]
        self.questions = [[*codec.user, *codec.encode(question)] for question in questions]
        self.tokens = [place[token] for _, token in kept]
        self.columns = [column for column, _ in kept]
        self.holds: NDArray[np.bool_] = values[:, self.columns] > 0.5
        self.rows = {ecg_id: number for number, ecg_id in enumerate(ecg_ids)}

    def about(self, ecg_ids: Sequence[str], n: int, chance: np.random.Generator, told: Told) -> list[Branch]:
        """Questions about a single ECG of which is known what the encoder tells; none about two."""
        if len(ecg_ids) != 1 or ecg_ids[0] not in self.rows or ecg_ids[0] not in told:
            return []
        holds = self.holds[self.rows[ecg_ids[0]]]
        likely = 1 / (1 + np.exp(-told[ecg_ids[0]][self.columns].astype(np.float64)))
        shown, absent = np.flatnonzero(holds), np.flatnonzero(~holds)
        chosen = chance.permutation(shown)[: n // 2].tolist()
        chosen += chance.permutation(absent)[: n - len(chosen)].tolist()
        return [
            _yes_or_no(self.codec, self.questions[place], float(likely[place]), (self.tokens[place],))
            for place in chosen
        ]


@dataclass(frozen=True)
class Condition:
    """Something that an ECG shows or does not."""

    phrase: str
    token: int
    """The ECG token it rests on."""


class ConditionQuestions:
    """Whether measurements lie above or below a limit, one or several at once, perhaps beside a statement.

    Definitions are made of such conditions; limits are drawn around what was measured, so that every limit is met as
    often as not. As many questions are answered yes as no.
    """

    def __init__(self, named: NamedQuestions, encoder: EncoderConfig, values: NDArray[np.float32]) -> None:
        self.named = named
        place = {token: number for number, token in enumerate(encoder.tokens)}
        known = measurements()
        raw = _in_units(encoder, values)
        self.quantities = [
            (name, (known[name].words, *_SYNONYMS.get(name, ())), known[name].unit, place[token], column)
            for name, (token, column) in raw.items()
            if known[name].unit in STEPS
        ]
        self.of_recording = [number for number, each in enumerate(self.quantities) if each[0].endswith("_Global")]
        self.spread = [float(np.nanstd(column)) for *_, column in self.quantities]

    def about(self, ecg_ids: Sequence[str], n: int, chance: np.random.Generator, _told: Told) -> list[Branch]:
        """Questions about a single ECG; none about two."""
        if len(ecg_ids) != 1 or ecg_ids[0] not in self.named.rows:
            return []
        row = self.named.rows[ecg_ids[0]]
        asked = [self._question(row, bool(chance.random() < 0.5), chance) for _ in range(n)]
        return [each for each in asked if each is not None]

    def _question(self, row: int, holds: bool, chance: np.random.Generator) -> Branch | None:
        count = int(chance.integers(1, MOST_CONDITIONS + 1))
        wanted = [True] * count
        if not holds:
            wanted = [bool(chance.random() < 0.5) for _ in range(count)]
            wanted[int(chance.integers(count))] = False
        found: list[Condition] = []
        for number, each in enumerate(wanted):
            of_statement = count > 1 and number == 0 and chance.random() < 0.5
            condition = self._statement(row, each, chance) if of_statement else self._measured(row, each, chance)
            if condition is None or condition.token in {other.token for other in found}:
                return None
            found.append(condition)
        *others, last = (each.phrase for each in found)
        phrase = last if not others else f"{', '.join(others)}{',' * (len(others) > 1)} and {last}"
        codec = self.named.codec
        question = [*codec.user, *codec.encode(STATEMENT_QUESTION.format(phrase=phrase))]
        return _yes_or_no(codec, question, float(holds), tuple(each.token for each in found))

    def _statement(self, row: int, holds: bool, chance: np.random.Generator) -> Condition | None:
        columns = np.flatnonzero(self.named.holds[row] == holds)
        if not len(columns):
            return None
        column = int(chance.choice(columns))
        return Condition(self.named.phrases[column], self.named.tokens[column])

    def _measured(self, row: int, holds: bool, chance: np.random.Generator) -> Condition | None:
        several = self.of_recording if self.of_recording and chance.random() < 0.7 else range(len(self.quantities))
        number = int(chance.choice(np.asarray(several)))
        name, words, unit, token, column = self.quantities[number]
        value = float(column[row])
        if math.isnan(value):
            return None
        if name in ANGLES and chance.random() < 0.7:
            bounds = self._sector(value, holds, chance)
        else:
            bounds = self._bound(value, unit, holds, self.spread[number], chance)
        if bounds is None:
            return None
        word = words[int(chance.integers(len(words)))]
        article = "an" if word.startswith(("R ", "S ", "ST ")) else "a"
        return Condition(f"{article} {word} {bounds}", token)

    def _bound(self, value: float, unit: str, holds: bool, spread: float, chance: np.random.Generator) -> str | None:
        step = STEPS[unit]
        above = bool(chance.random() < 0.5)
        away = step * math.ceil(abs(chance.normal()) * spread / step)
        limit = step * round(value / step) + (-away if above == holds else away)
        if (value > limit) != (above == holds) or value == limit:
            return None
        forms = _ABOVE if above else _BELOW
        return forms[int(chance.integers(len(forms)))].format(limit=format_quantity(limit, unit))

    def _sector(self, value: float, holds: bool, chance: np.random.Generator) -> str | None:
        """A range of angles that does not cross 180°."""
        width = 5 * int(chance.integers(6, 22))
        low = 5 * int(chance.integers(-36, 36 - width // 5 + 1))
        if holds:
            low = 5 * round((value - chance.random() * width) / 5)
        high = low + width
        if not -180 <= low < high <= 180 or (low < value < high) != holds:
            return None
        ends = (low, high) if chance.random() < 0.5 else (high, low)
        limit, other = (format_quantity(float(each), "°") for each in ends)
        return _BETWEEN[int(chance.integers(len(_BETWEEN)))].format(limit=limit, other=other)


def _yes_or_no(codec: Codec, question: Sequence[int], likely: float, about: tuple[int, ...]) -> Branch:
    """A question whose answer is yes with this probability: both answers, each with its weight."""
    answers = [(codec.yes, likely), (codec.no, 1 - likely)]
    answers = sorted((each for each in answers if each[1] > 0), key=lambda each: -each[1])
    children = [said(codec.short, [answer], about if not number else ()) for number, (answer, _) in enumerate(answers)]
    for child, (_, weight) in zip(children, answers, strict=True):
        child.weight = weight
    return Branch(question, children=children)


def _in_units(encoder: EncoderConfig, values: NDArray[np.float32]) -> Mapping[str, tuple[str, NDArray[np.float64]]]:
    """Measurement → its token, and its value of every ECG in its own unit."""
    told = {
        target.name: (target.token, values[:, column].astype(np.float64) * target.scale + target.mean)
        for column, target in enumerate(encoder.targets)
        if target.kind == "value"
    }
    for name in ANGLES:
        if f"{name}:cos" in told and f"{name}:sin" in told:
            token, cosine = told.pop(f"{name}:cos")
            told[name] = token, np.degrees(np.arctan2(told.pop(f"{name}:sin")[1], cosine))
    return told
