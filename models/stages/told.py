"""Questions made while training: whether an ECG shows what its tokens are called, and whether measurements meet
conditions such as definitions are made of."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ecglm.models.comparing import in_units, quantities
from ecglm.models.encoder import EncoderConfig
from ecglm.models.measured import ANGLES
from ecglm.models.packing import Branch
from ecglm.models.pairs import said
from ecglm.models.targets import of_statements
from ecglm.models.text import Codec
from ecglm.models.withheld import UNNAMED, unmentioned
from ecglm.models.wording import STATEMENT_QUESTION, token_phrases
from ecglm.synth.criteria import format_quantity
from ecglm.synth.measure.dictionary import measurements

MOST_CONDITIONS = 3
"""In one question."""
STEPS = {"/min": 5.0, "ms": 10.0, "mV": 0.05, "°": 5.0}
"""What limits are multiples of, by unit."""
_ABOVE = ("above {limit}", "of more than {limit}", "greater than {limit}", "of at least {limit}", "of {limit} or more")
_BELOW = ("below {limit}", "of less than {limit}", "smaller than {limit}", "of at most {limit}", "of {limit} or less")
_BETWEEN = ("between {limit} and {other}", "from {limit} to {other}")
_POSITIVE = ("/min", "ms")
_SYNONYMS = {"HR__Global": ("heart rate",), "PR_Int_Global": ("time from the onset of P to the onset of QRS",)}


Told = Mapping[str, NDArray[np.floating]]
"""ECG → the encoder's outputs (n_targets,)."""


class NamedQuestions:
    """Whether an ECG shows what one of its tokens is called: half of them things that it does show.

    The answer's logit is the encoder's, not what the label says: what is learned is to say what the token says, of a
    rare statement as well as of a common one, and not how far an encoder can be trusted on ECGs it was trained on.
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
        named = ((column, encoder.targets[column].token) for column in of_statements(encoder.targets))
        kept = [(column, token) for column, token in named if phrases[token] != UNNAMED]
        self.codec = codec
        self.phrases = [phrases[token] for _, token in kept]
        questions = [STATEMENT_QUESTION.format(phrase=phrase) for phrase in self.phrases]
        self.questions = [[*codec.user, *codec.encode(question), *codec.short] for question in questions]
        self.tokens = [place[token] for _, token in kept]
        self.columns = [column for column, _ in kept]
        self.holds: NDArray[np.bool_] = values[:, self.columns] > 0.5
        self.rows = {ecg_id: number for number, ecg_id in enumerate(ecg_ids)}

    def row(self, ecg_ids: Sequence[str]) -> int | None:
        """Where a single ECG stands; None of two, and of one that is not known."""
        return self.rows.get(ecg_ids[0]) if len(ecg_ids) == 1 else None

    def about(self, ecg_ids: Sequence[str], n: int, chance: np.random.Generator, told: Told) -> list[Branch]:
        """Questions about a single ECG of which is known what the encoder tells; none about two."""
        row = self.row(ecg_ids)
        if row is None or ecg_ids[0] not in told:
            return []
        holds = self.holds[row]
        logits = told[ecg_ids[0]][self.columns]
        shown, absent = np.flatnonzero(holds), np.flatnonzero(~holds)
        chosen = chance.permutation(shown)[: n // 2].tolist()
        chosen += chance.permutation(absent)[: n - len(chosen)].tolist()
        return [
            Branch(self.questions[place], verdict=float(logits[place]), about=(self.tokens[place],)) for place in chosen
        ]


@dataclass(frozen=True)
class Condition:
    """Something that an ECG shows or does not."""

    phrase: str
    token: int
    """The ECG token it rests on."""
    limits: tuple[int, ...] = ()
    """For each number in the phrase the quantity it limits."""


class ConditionQuestions:
    """Whether measurements lie above or below a limit, one or several at once, perhaps beside a statement.

    Definitions are made of such conditions; limits are drawn around what was measured, so that every limit is met as
    often as not. As many questions are answered yes as no.
    """

    def __init__(self, named: NamedQuestions, encoder: EncoderConfig, values: NDArray[np.float32]) -> None:
        self.named = named
        known = measurements()
        raw = in_units(encoder, torch.from_numpy(values)).numpy()
        self.quantities = [
            (
                each.name,
                (known[each.name].words, *_SYNONYMS.get(each.name, ())),
                known[each.name].unit,
                each.token,
                number,
            )
            for number, each in enumerate(quantities(encoder))
            if known[each.name].unit in STEPS
        ]
        self.values: NDArray[np.float64] = raw
        self.spread = np.nanstd(raw, axis=0)
        self.of_recording = [number for number, each in enumerate(self.quantities) if each[0].endswith("_Global")]

    def about(self, ecg_ids: Sequence[str], n: int, chance: np.random.Generator, _told: Told) -> list[Branch]:
        """Questions about a single ECG; none about two."""
        row = self.named.row(ecg_ids)
        if row is None:
            return []
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
        answer = said(codec.short, [codec.yes if holds else codec.no], tuple(each.token for each in found))
        limits = [limit for each in found for limit in each.limits]
        if len(codec.numbers(question)) != len(limits):
            limits = []  # what a statement is called has a number too
        return Branch(question, compared=limits, children=[answer])

    def _statement(self, row: int, holds: bool, chance: np.random.Generator) -> Condition | None:
        columns = np.flatnonzero(self.named.holds[row] == holds)
        if not len(columns):
            return None
        column = int(chance.choice(columns))
        return Condition(self.named.phrases[column], self.named.tokens[column])

    def _measured(self, row: int, holds: bool, chance: np.random.Generator) -> Condition | None:
        several = self.of_recording if self.of_recording and chance.random() < 0.7 else range(len(self.quantities))
        number = int(chance.choice(np.asarray(several)))
        name, words, unit, token, place = self.quantities[number]
        value = float(self.values[row, place])
        if math.isnan(value):
            return None
        if name in ANGLES and chance.random() < 0.7:
            bounds = self._sector(value, holds, chance)
        else:
            bounds = self._bound(value, unit, holds, float(self.spread[place]), chance)
        if bounds is None:
            return None
        word = words[int(chance.integers(len(words)))]
        article = "an" if word.startswith(("R ", "S ", "ST ")) else "a"
        return Condition(f"{article} {word} {bounds[0]}", token, (place,) * bounds[1])

    def _bound(
        self, value: float, unit: str, holds: bool, spread: float, chance: np.random.Generator
    ) -> tuple[str, int] | None:
        """Words for a limit, and how many numbers they have."""
        step = STEPS[unit]
        above = bool(chance.random() < 0.5)
        away = step * math.ceil(abs(chance.normal()) * spread / step)
        limit = step * round(value / step) + (-away if above == holds else away)
        if (value > limit) != (above == holds) or value == limit or (unit in _POSITIVE and limit <= 0):
            return None
        forms = _ABOVE if above else _BELOW
        return forms[int(chance.integers(len(forms)))].format(limit=format_quantity(limit, unit)), 1

    def _sector(self, value: float, holds: bool, chance: np.random.Generator) -> tuple[str, int] | None:
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
        return _BETWEEN[int(chance.integers(len(_BETWEEN)))].format(limit=limit, other=other), 2
