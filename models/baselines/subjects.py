"""What a question of ECG-QA asks about, told from its words: the trees answer those they were trained on.

Each of its templates asks in a few fixed forms in which names stand: of statements, leads, noises, ranges. A question,
or one of its options, is about the names in it, its subject; "Does lead I show baseline drift?" and the option
"baseline drift" of "Which noises are in lead I?" have the same. Which form it was asked in tells how often it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecglm.models.ecglm import NONE, YES_NO
from ecglm.models.pairs import open_answers
from ecglm.models.wording import names_pattern
from ecglm.synth.ecgqa import attributes

FAMILY = "ecgqa"


@dataclass(frozen=True)
class Cases:
    """What is known of one thing that trees tell."""

    rows: NDArray[np.int64]
    """(n,) rows of the table of ECGs."""
    forms: NDArray[np.float32]
    """(n,) which form it was asked in; NaN where it was not."""
    holds: NDArray[np.bool_]
    """(n,)"""


@dataclass(frozen=True)
class Subject:
    """What a question or one of its options is about."""

    name: str
    form: float
    """Number of the template that asks in these words; NaN if none does."""


class Subjects:
    """Tells what questions ask about."""

    def __init__(self, names: Collection[str], forms: Mapping[str, int]) -> None:
        self.names, self.forms = sorted(names), dict(forms)
        self._pattern = names_pattern(names)

    def asked(self, question: str, options: Sequence[str] = ()) -> list[Subject]:
        """The subject of a question that is answered by yes or no, or of each of its options."""
        text = question.casefold()
        named = {match[0] for match in self._pattern.finditer(text)}
        form = self.forms.get(self.form(text))
        number = float("nan") if form is None else float(form)
        if not options:
            return [Subject(" / ".join(sorted(named)) or f"form {form}", number)]
        beside = named - {option.casefold() for option in options}
        return [Subject(" / ".join(sorted({*beside, option.casefold()})), number) for option in options]

    def form(self, text: str) -> str:
        """A text without the names in it."""
        return self._pattern.sub("…", text.casefold())


def learn_subjects(pairs: pl.DataFrame) -> Subjects:
    """Names and forms of the training questions."""
    known = attributes()
    names = {*(each.name for each in known.statements.values()), *known.superclasses.values(), *known.features}
    names |= {*known.noises.values(), *(option for _, options, _ in _asked(pairs) for option in options)}
    names = {name.casefold() for name in names} - {NONE, *YES_NO}
    plain = Subjects(names, {})
    templates = sorted(set(pairs.filter(pl.col("family") == FAMILY)["template_id"]))
    number = {template: place for place, template in enumerate(templates)}
    return Subjects(names, {plain.form(row["question"]): number[row["template_id"]] for row, *_ in _asked(pairs)})


def cases_of(pairs: pl.DataFrame, subjects: Subjects, ecg_ids: Sequence[str]) -> dict[str, Cases]:
    """Subject → the training questions about it."""
    place = {ecg_id: row for row, ecg_id in enumerate(ecg_ids)}
    found: dict[str, tuple[list[int], list[float], list[bool]]] = {}
    for row, options, answers in _asked(pairs):
        told = subjects.asked(row["question"], options)
        holds = [option in answers for option in options] if options else ["yes" in answers]
        for subject, each, option in zip(told, holds, options or (None,), strict=True):
            if option != NONE:
                rows, forms, truth = found.setdefault(subject.name, ([], [], []))
                rows.append(place[row["ecg_id"]])
                forms.append(subject.form)
                truth.append(each)
    return {
        name: Cases(np.asarray(rows), np.asarray(forms, np.float32), np.asarray(truth))
        for name, (rows, forms, truth) in sorted(found.items())
    }


def _asked(pairs: pl.DataFrame) -> Iterator[tuple[dict[str, Any], tuple[str, ...], frozenset[str]]]:
    """Each training question about one ECG with its options, none if it is answered by yes or no, and its answers."""
    of_template = open_answers(pairs)
    asked = pairs.filter(pl.col("family") == FAMILY, pl.col("ecg_ids").list.len() == 1)
    columns = asked.select(
        pl.col("ecg_ids").list.first().alias("ecg_id"),
        pl.col("messages").list.first().struct.field("content").alias("question"),
        *("template_id", "options", "answers"),
    )
    for row in columns.iter_rows(named=True):
        options = tuple(row["options"] or of_template.get(row["template_id"], ()))
        yes_no = set(options) <= set(YES_NO)
        yield row, () if yes_no else options, frozenset(row["answers"])
