"""The names of statements and the words that decide how an answer is read, as tables to look phrases up in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Generic, TypeVar

from ecglm.bench.parsing.text import Token, forms

_Value = TypeVar("_Value")
_TABLES = ("words.yaml", "statements.yaml")


class Phrases(Generic[_Value]):
    """Phrases with a value each; finds the longest one that starts at a word."""

    def __init__(self) -> None:
        self._lengths: dict[str, tuple[int, ...]] = {}
        self._values: dict[tuple[str, ...], _Value] = {}

    def __setitem__(self, phrase: tuple[str, ...], value: _Value) -> None:
        lengths = {*self._lengths.get(phrase[0], ()), len(phrase)}
        self._lengths[phrase[0]] = tuple(sorted(lengths, reverse=True))
        self._values[phrase] = value

    def get(self, phrase: tuple[str, ...]) -> _Value | None:
        """The value of exactly this phrase."""
        return self._values.get(phrase)

    def at(self, tokens: Sequence[Token], start: int) -> tuple[int, _Value] | None:
        """Length and value of the longest phrase that begins at word `start`; none goes across a paragraph."""
        for length in self._lengths.get(tokens[start].form, ()):
            if start + length > len(tokens):
                continue
            value = self._values.get(tuple(token.form for token in tokens[start : start + length]))
            if value is not None and not any(_separates(token.gap) for token in tokens[start + 1 : start + length]):
                return length, value
        return None


def _separates(gap: str) -> bool:
    return ";" in gap or "?" in gap or "!" in gap or ":" in gap or "\n\n" in gap or "\n-" in gap


@dataclass(frozen=True)
class Statement:
    """Names of one statement, or of something else that options may name."""

    key: str
    folder: str
    names: tuple[str, ...]
    forms: frozenset[tuple[str, ...]] = field(repr=False)


def _table(name: str) -> Any:
    from ecglm.synth.yaml_files import parse_yaml

    path = resources.files("ecglm.bench.parsing") / name
    return parse_yaml(path.read_text(encoding="utf-8"), name)


@cache
def tables() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The two files of words that come with the parser."""
    cues, names = (_table(name) for name in _TABLES)
    return cues, names


@cache
def statements() -> tuple[Statement, ...]:
    """Every statement the guidelines know, with the further names of `statements.yaml`, and the things beside them."""
    from ecglm.synth.guidelines import load_guidelines

    _, further = tables()
    guidelines = load_guidelines(check_sql=False)
    found = []
    for code, guideline in guidelines.by_code.items():
        synonyms = guideline.synonyms
        names = (
            guideline.name,
            guideline.phrase,
            *synonyms.en,
            *synonyms.de,
            *synonyms.sv,
            *further["statements"].get(code, ()),
        )
        found.append(_statement(code, guidelines.categories[code], (code, *names)))
    found += [_statement(key, "", tuple(names)) for key, names in further["others"].items()]
    return tuple(found)


def _statement(key: str, folder: str, names: tuple[str, ...]) -> Statement:
    return Statement(key, folder, names, frozenset(form for name in names if (form := forms(_bare(name)))))


def _bare(name: str) -> str:
    """Without a leading article."""
    first, _, rest = name.partition(" ")
    return rest if first in ("a", "an") else name


@dataclass(frozen=True)
class Target:
    """What a name stands for: the place of an option, or None for something that is no option of the question."""

    option: int | None
    implied: bool = False
    """The name is of something narrower: saying it says the option, denying it does not deny the option."""
    capitals: bool = False
    """An abbreviation that is also a word: it counts in capitals only, or as the whole answer."""


@cache
def cue_phrases() -> Phrases[frozenset[str]]:
    """The phrases of `words.yaml` with the names of the lists they are in."""
    lists: dict[tuple[str, ...], set[str]] = {}
    for name, phrases in tables()[0].items():
        if name.endswith("_whole"):  # whole answers, not words within one
            continue
        for phrase in phrases:
            lists.setdefault(forms(phrase), set()).add(name)
    cues: Phrases[frozenset[str]] = Phrases()
    for form, names in lists.items():
        cues[form] = frozenset(names)
    return cues


def option_names(options: Sequence[str]) -> Phrases[Target]:
    """The names that options go by, and those of everything else, so that a longer name hides a shorter one in it."""
    _, further = tables()
    own: dict[tuple[str, ...], set[int]] = {}
    implied: dict[tuple[str, ...], set[int]] = {}
    capitals: dict[tuple[str, ...], bool] = {}
    for place, option in enumerate(options):
        form = forms(option)
        named = [statement for statement in statements() if form in statement.forms]
        group = _superclass(form, further["superclasses"])
        names: list[str] = [option]
        names += [name for statement in named for name in statement.names]
        if group is not None:
            names += further["superclasses"][group]["names"] + [group]
            for statement in _members(further["superclasses"][group]):
                _add(implied, capitals, statement.names, place)
        _add(own, capitals, names, place)
    phrases: Phrases[Target] = Phrases()
    for statement in statements():
        for name in statement.names:
            if form := forms(_bare(name)):
                phrases[form] = Target(None, capitals=_needs_capitals(name, form))
    for name in further["unclear"]:
        phrases[forms(name)] = Target(None)
    whole = {forms(option): place for place, option in enumerate(options)}
    for claims, is_implied in ((implied, True), (own, False)):
        for form, places in claims.items():
            if form in whole:
                phrases[form] = Target(whole[form], False, capitals[form])
            elif len(places) == 1:
                phrases[form] = Target(next(iter(places)), is_implied, capitals[form])
            else:
                phrases[form] = Target(None)
    return phrases


def _superclass(form: tuple[str, ...], groups: Mapping[str, Any]) -> str | None:
    for code, group in groups.items():
        if form == forms(code) or form in {forms(name) for name in group["names"]}:
            return code
    return None


def _members(group: Mapping[str, Any]) -> Iterable[Statement]:
    folders, codes = group.get("folders", ()), group.get("codes", ())
    return (statement for statement in statements() if statement.folder in folders or statement.key in codes)


def _add(
    claims: dict[tuple[str, ...], set[int]],
    capitals: dict[tuple[str, ...], bool],
    names: Iterable[str],
    place: int,
) -> None:
    for name in names:
        if form := forms(_bare(name)):
            claims.setdefault(form, set()).add(place)
            capitals[form] = capitals.get(form, True) and _needs_capitals(name, form)


def _needs_capitals(name: str, form: tuple[str, ...]) -> bool:
    return len(form) == 1 and name.isupper() and (len(name) <= 3 or name == "NORM")
