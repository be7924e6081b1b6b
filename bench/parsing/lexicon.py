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

    def __init__(self, under: Phrases[_Value] | None = None) -> None:
        self._lengths: dict[str, tuple[int, ...]] = {}
        self._values: dict[tuple[str, ...], _Value] = {}
        self._under = under
        """Phrases that hold where these have none as long."""

    def __setitem__(self, phrase: tuple[str, ...], value: _Value) -> None:
        lengths = {*self._lengths.get(phrase[0], ()), len(phrase)}
        self._lengths[phrase[0]] = tuple(sorted(lengths, reverse=True))
        self._values[phrase] = value

    def get(self, phrase: tuple[str, ...]) -> _Value | None:
        """The value of exactly this phrase."""
        return self._values.get(phrase)

    def at(self, tokens: Sequence[Token], start: int) -> tuple[int, _Value] | None:
        """Length and value of the longest phrase that begins at word `start`; none goes across a paragraph."""
        under = None if self._under is None else self._under.at(tokens, start)
        for length in self._lengths.get(tokens[start].form, ()):
            if under is not None and length < under[0]:
                break
            if start + length > len(tokens):
                continue
            value = self._values.get(tuple(token.form for token in tokens[start : start + length]))
            if value is not None and not any(_separates(token.gap) for token in tokens[start + 1 : start + length]):
                return length, value
        return under


def _separates(gap: str) -> bool:
    return ";" in gap or "?" in gap or "!" in gap or ":" in gap or "\n\n" in gap or "\n-" in gap


@dataclass(frozen=True)
class Statement:
    """Names of one statement, or of something else that options may name."""

    key: str
    folder: str
    forms: Mapping[tuple[str, ...], bool] = field(repr=False)
    """The lenient forms of its names, and whether each must be in capitals."""


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
    return Statement(key, folder, _capitals(names))


def _capitals(names: Iterable[str]) -> dict[tuple[str, ...], bool]:
    """The forms of names; one must be in capitals if none of the names of that form may be in small letters."""
    found: dict[tuple[str, ...], bool] = {}
    for name in names:
        if form := forms(_bare(name)):
            found[form] = found.get(form, True) and _needs_capitals(name, form)
    return found


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


@cache
def _all_names() -> Phrases[Target]:
    """The names of every statement as what is no option."""
    phrases: Phrases[Target] = Phrases()
    for statement in statements():
        for form, capitals in statement.forms.items():
            phrases[form] = Target(None, capitals=capitals)
    for name in tables()[1]["unclear"]:
        phrases[forms(name)] = Target(None)
    return phrases


def option_names(options: Sequence[str]) -> Phrases[Target]:
    """The names that options go by, and those of everything else, so that a longer name hides a shorter one in it."""
    own: dict[tuple[str, ...], set[int]] = {}
    implied: dict[tuple[str, ...], set[int]] = {}
    capitals: dict[tuple[str, ...], bool] = {}
    for place, option in enumerate(options):
        form = forms(option)
        claims: list[tuple[dict[tuple[str, ...], set[int]], Mapping[tuple[str, ...], bool]]] = [
            (own, _capitals([option]))
        ]
        claims += [(own, statement.forms) for statement in statements() if form in statement.forms]
        if (group := _superclass(form)) is not None:
            claims.append((own, _capitals([group.code, *group.names])))
            claims += [(implied, statement.forms) for statement in group.members]
        for claimed, named in claims:
            for name, in_capitals in named.items():
                claimed.setdefault(name, set()).add(place)
                capitals[name] = capitals.get(name, True) and in_capitals
    phrases: Phrases[Target] = Phrases(_all_names())
    whole = {forms(option): place for place, option in enumerate(options)}
    for claimed, is_implied in ((implied, True), (own, False)):
        for name, places in claimed.items():
            if name in whole:
                phrases[name] = Target(whole[name], False, capitals[name])
            elif len(places) == 1:
                phrases[name] = Target(next(iter(places)), is_implied, capitals[name])
            else:
                phrases[name] = Target(None)
    return phrases


@dataclass(frozen=True)
class _Superclass:
    code: str
    names: tuple[str, ...]
    members: tuple[Statement, ...]


@cache
def _superclasses() -> Mapping[tuple[str, ...], _Superclass]:
    """The diagnostic superclasses by the forms of their codes and names."""
    found: dict[tuple[str, ...], _Superclass] = {}
    for code, group in tables()[1]["superclasses"].items():
        folders, codes = group.get("folders", ()), group.get("codes", ())
        members = tuple(
            statement for statement in statements() if statement.folder in folders or statement.key in codes
        )
        superclass = _Superclass(code, tuple(group["names"]), members)
        found |= {forms(name): superclass for name in (code, *group["names"])}
    return found


def _superclass(form: tuple[str, ...]) -> _Superclass | None:
    return _superclasses().get(form)


def _needs_capitals(name: str, form: tuple[str, ...]) -> bool:
    return len(form) == 1 and name.isupper() and (len(name) <= 3 or name == "NORM")
