"""What a text says of each name in it: asserted, denied or only possible.

The rules follow the idea of NegEx (Chapman et al. 2001, doi:10.1006/jbin.2001.1029): words of denial reach forward to
the end of their clause, some also back; the sentence is cut at words such as "but". One pass, linear in the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ecglm.bench.parsing.lexicon import Phrases, Target, cue_phrases
from ecglm.bench.parsing.text import Words

Polarity = Literal["asserted", "denied", "possible"]
_NO_CUES: frozenset[str] = frozenset()
_BEFORE_NAMES = frozenset({"none", "not_sure", "both", "all"})


class Unit(NamedTuple):
    """A name, a word that decides something, or any other word."""

    start: int
    stop: int
    gap: str
    target: Target | None
    options: tuple[int, ...]
    cues: frozenset[str]

    @property
    def named(self) -> bool:
        """Whether this is a name of an option or of something else."""
        return self.target is not None or bool(self.options)


@dataclass
class Mention:
    """One name with what is said of it; `options` is empty for names of what is no option."""

    options: tuple[int, ...]
    implied: bool
    polarity: Polarity
    unit: int
    """Its place in the sentence."""


@dataclass
class Sentence:
    """Units between two ends of sentences."""

    units: list[Unit]
    is_question: bool = False
    mentions: list[Mention] = field(default_factory=list)

    @property
    def cues(self) -> set[str]:
        """All kinds of deciding words in it."""
        return {cue for unit in self.units for cue in unit.cues}


def units(words: Words, names: Phrases[Target], spans: dict[int, tuple[int, tuple[int, ...]]]) -> list[Unit]:
    """The words of a text grouped into names, deciding phrases and the rest; leads in `spans` by their start."""
    tokens = words.tokens
    found: list[Unit] = []
    cues = cue_phrases()
    place = 0
    while place < len(tokens):
        gap = tokens[place].gap
        if place in spans:
            stop, options = spans[place]
            found.append(Unit(place, stop, gap, None, options, _NO_CUES))
            place = stop
            continue
        name, cue = names.at(tokens, place), cues.at(tokens, place)
        if name is not None and name[1].capitals and len(tokens) > 1 and not _in_capitals(tokens[place].raw):
            name = None
        if name is not None and (cue is None or name[0] > cue[0] or (name[0] == cue[0] and not cue[1] & _BEFORE_NAMES)):
            option = name[1].option
            options = () if option is None else (option,)
            found.append(Unit(place, place + name[0], gap, name[1], options, _NO_CUES))
            place += name[0]
        elif cue is not None:
            found.append(Unit(place, place + cue[0], gap, None, (), cue[1]))
            place += cue[0]
        else:
            found.append(Unit(place, place + 1, gap, None, (), _NO_CUES))
            place += 1
    return found


def _in_capitals(raw: str) -> bool:
    return (raw[:-1] if len(raw) > 2 and raw.endswith("s") else raw).isupper()


def sentences(words: Words, found: list[Unit]) -> list[Sentence]:
    """The units cut at ends of sentences, with every name's polarity decided."""
    result: list[Sentence] = []
    for place, unit in enumerate(found):
        if place == 0 or _ends(unit.gap):
            if result and "?" in unit.gap:
                result[-1].is_question = True
            result.append(Sentence([]))
        result[-1].units.append(unit)
    if result and "?" in words.tail:
        result[-1].is_question = True
    for sentence in result:
        _decide(sentence)
    return result


def _ends(gap: str) -> bool:
    if not any(mark in gap for mark in ".;!?\n"):
        return False
    return "\n" in gap or ";" in gap or "!" in gap or "?" in gap or gap.strip(" \"')]}").startswith(".")


def _decide(sentence: Sentence) -> None:
    """Polarity of every name of a sentence: what stands before it in its clause, then what stands behind it."""
    denied = possible = False
    told = ""  # what the denial is of: nothing yet, something (`no P waves`), or evidence, which cannot point elsewhere
    for place, unit in enumerate(sentence.units):
        if denied and place and _stops(sentence.units, place):
            denied = False
        if possible and place and ("," in unit.gap or ":" in unit.gap):
            possible = False
        if "turns" in unit.cues:
            denied = possible = False
        if "concludes" in unit.cues and told == "something":
            denied = False
        if "possible_after" in unit.cues:
            possible = True
        elif "denied_after" in unit.cues and "no_denial" not in unit.cues:
            denied = True
            told = "evidence" if unit.cues & {"denied_verb", "none"} else ""
        elif unit.cues & {"evidence", "nothing_of_kind"}:
            told = "evidence"
        elif not told and not unit.cues:
            told = "something"
        if not unit.named:
            continue
        polarity: Polarity = "possible" if possible else "denied" if denied else "asserted"
        behind = _behind(sentence.units, place)
        if behind is not None:
            polarity = behind
        implied = unit.target is not None and unit.target.implied
        sentence.mentions.append(Mention(unit.options, implied, polarity, place))


def _stops(units: list[Unit], place: int) -> bool:
    """Whether a denial that came before does not reach this unit: after a comma, a colon, or a new clause."""
    unit = units[place]
    gap = unit.gap
    if ":" in gap or " - " in gap or "(" in gap or ")" in gap:
        return True
    if "," in gap:
        return not _list_goes_on(units, place)
    return "adds" in unit.cues and _has_verb_before_name(units, place)


def _list_goes_on(units: list[Unit], place: int) -> bool:
    """Whether what follows a comma is more of a list that an `or` ends: `no A, B, or C`."""
    for unit in units[place : place + 40]:
        if "joins" in unit.cues:
            return True
        if unit.cues & {"verbs", "turns", "adds"} or ("denied_after" in unit.cues):
            return False
    return False


def _has_verb_before_name(units: list[Unit], place: int) -> bool:
    for unit in units[place : place + 12]:
        if unit.named:
            return False
        if "verbs" in unit.cues:
            return True
    return False


def _behind(units: list[Unit], place: int) -> Polarity | None:
    """What the words behind a name make of it: `X is not present`, `X and Y are absent`, `X: no`."""
    verb = False
    for unit in units[place + 1 : place + 25]:
        cues = unit.cues
        if "turns" in cues or (verb and ("," in unit.gap or cues & {"adds", "joins"} or unit.named)):
            return None
        if unit.named:
            if unit.gap.strip(" \"'") not in ("", ",", "/", "&", "-"):
                return None
            continue
        if cues & {"possible_before", "denied_before"}:
            if not _is_status(units, unit, verb):
                return None
            return "possible" if "possible_before" in cues else "denied"
        if "denied_after" in cues or "no" in cues:
            return "denied" if _denies_back(units, unit, verb) else None
        if "verbs" in cues:
            verb = True
        elif "yes" in cues or (not verb and not cues & {"adds", "joins"} and ":" in unit.gap):
            return None
    return None


def _is_status(units: list[Unit], unit: Unit, verb: bool) -> bool:
    """Whether `absent` is said of what stands before it: `X is absent in V1`, `X absent`, not `X, absent Y`."""
    if not verb and "," in unit.gap:
        return False
    place = next(number for number, other in enumerate(units) if other is unit)
    follows = units[place + 1] if place + 1 < len(units) else None
    return (
        follows is None
        or any(mark in follows.gap for mark in ",;:)(")
        or bool(follows.cues & {"after_status", "adds", "joins", "turns"})
    )


def _denies_back(units: list[Unit], unit: Unit, verb: bool) -> bool:
    """Whether `not` or `no` behind a name is about that name: `X is not`, `X: no`, not `X, not Y`."""
    place = next(number for number, other in enumerate(units) if other is unit)
    follows = units[place + 1] if place + 1 < len(units) else None
    last = follows is None or any(mark in follows.gap for mark in ",;:)|")
    if verb:
        return last
    return last and any(mark in unit.gap for mark in ":-=(|")
