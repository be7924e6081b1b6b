"""From probabilities of statements and classes to what a task of the bench asks about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from ecglm.models.evidence import named_statements
from ecglm.synth.errors import ModelError
from ecglm.synth.guidelines import load_guidelines

YES_NO = ("yes", "no")


class Place(Protocol):
    """Where an ECG comes from."""

    @property
    def root(self) -> Path:
        """The folder of its source."""
        ...


class StatementItem(Protocol):
    """A question of the bench about statements."""

    @property
    def recordings(self) -> Sequence[Place]:
        """One recording."""
        ...

    @property
    def question(self) -> str:
        """What is asked."""
        ...

    @property
    def options(self) -> tuple[str, ...]:
        """Yes and no, or names of statements."""
        ...

    @property
    def codes(self) -> tuple[str, ...]:
        """The class asked about, or one per option."""
        ...


def class_scores(item: StatementItem, known: Mapping[str, float]) -> tuple[float, ...]:
    """The probability of each option of a question about statements.

    Args:
        item: the question.
        known: probabilities by code, and of classes as `superclass:MI` or `subclass:AMI`; a class that is not among
            them is as likely as its likeliest statement.

    Raises:
        ModelError: a question of another kind.
    """
    if not item.codes:
        raise ModelError(f"question {item.question!r} is about no statement; a classifier answers only such questions")
    listed = item.options != YES_NO
    words = item.options if listed else (item.question,)
    root = item.recordings[0].root
    found = [_score(meant(root, code, said), known) for code, said in zip(item.codes, words, strict=True)]
    return tuple(found) if listed else (found[0], 1 - found[0])


@dataclass(frozen=True)
class Meant:
    """What a code of a task stands for."""

    name: str
    """`superclass:MI`, `subclass:AMI`, or the code of a statement."""
    members: tuple[str, ...]
    """The statements that make it hold."""


def _score(what: Meant, known: Mapping[str, float]) -> float:
    if what.name in known:
        return known[what.name]
    return max((known[member] for member in what.members if member in known), default=0.0)


@dataclass(frozen=True)
class _Classes:
    subclasses: dict[str, list[str]]
    superclasses: dict[str, list[str]]


@cache
def meant(root: Path, code: str, said: str) -> Meant:
    """The class or statement that a code stands for.

    Some names stand for several: AMI is a statement and a subclass, STTC a subclass and a superclass. What is said of
    it tells them apart: a statement is called what its guideline calls it, a subclass by some of its statements.
    """
    guideline = load_guidelines(check_sql=False).by_code.get(code)
    if guideline is not None and (guideline.phrase in said or guideline.name == said):
        return Meant(code, (code,))
    known = _classes(root)
    below = known.subclasses.get(code, [])
    if code in known.superclasses and not set(below) & set(named_statements(said)):
        return Meant(f"superclass:{code}", tuple(known.superclasses[code]))
    return Meant(f"subclass:{code}", tuple(below)) if below else Meant(code, (code,))


@cache
def _classes(root: Path) -> _Classes:
    from ecglm.synth.sources.ptbxl import open_ptbxl

    known = _Classes({}, {})
    for code, superclass, subclass in open_ptbxl(root).statements.select("code", "superclass", "subclass").iter_rows():
        if superclass is not None:
            known.superclasses.setdefault(superclass, []).append(code)
        if subclass is not None:
            known.subclasses.setdefault(subclass, []).append(code)
    return known
