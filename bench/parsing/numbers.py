"""A measured value out of an answer, in the unit that was asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ecglm.bench.parsing.answers import ParsingError
from ecglm.bench.parsing.lenient import MAX_CHARS
from ecglm.bench.parsing.marked import json_answer, marked_parts, plain_markup, without_thoughts
from ecglm.bench.parsing.text import visible

# What a unit measures, and its size in the first unit of its kind.
_UNITS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds", "millisekunden"), ("time", 1.0)),
        **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "sekunde", "sekunden"), ("time", 1000.0)),
        **dict.fromkeys(
            (
                "bpm", "/min", "/minute", "min-1", "beats per minute", "beats/min", "beats/minute", "per minute",
                "schläge pro minute", "schläge/min", "pro minute", "slag/min", "1/min",
            ),
            ("rate", 1.0),
        ),
        **dict.fromkeys(("mv", "millivolt", "millivolts"), ("voltage", 1000.0)),
        **dict.fromkeys(("μv", "uv", "microvolt", "microvolts", "mikrovolt"), ("voltage", 1.0)),
        **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), ("length", 1.0)),
        **dict.fromkeys(("°", "deg", "degree", "degrees", "grad"), ("angle", 1.0)),
        **dict.fromkeys(("%", "percent", "prozent"), ("share", 1.0)),
        **dict.fromkeys(("hz", "hertz"), ("frequency", 1.0)),
    }
)  # fmt: skip
_UNIT_PATTERN = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
_NUMBER = re.compile(
    r"(?P<sign>[-+])?(?P<digits>\d{1,12}(?:[.,]\d{1,12}){0,3}|[.,]\d{1,12})"
    rf"(?:\s{{0,3}}(?P<unit>(?:{_UNIT_PATTERN})(?![^\W\d_])))?",
    re.IGNORECASE,
)
_UNKNOWN_UNIT = re.compile(r"[-+]?[\d.,]{1,20}\s{0,3}[^\W\d_]{1,20}")
_TO = re.compile(r"\s{0,3}(?:-|to|through|bis|till|\.\.\.?|…|and|und|or|oder)\s{0,3}", re.IGNORECASE)
_BOUND = re.compile(
    r"(?:[<>≤≥]=?|\b(?:less than|more than|greater than|below|above|under|over|at least|at most|up to|between|from|"
    r"unter|über|mindestens|höchstens|zwischen))\s{0,3}$",
    re.IGNORECASE,
)
_SPREAD = re.compile(r"(?:±|\+/-|\+-)\s{0,3}$")
_LIMIT = re.compile(
    r"\b(?:normal|limit|threshold|cut-?off|range|reference|should|would|expected)\b[^.;\n]{0,60}$", re.IGNORECASE
)


@dataclass(frozen=True)
class ParsedNumber:
    """A value in the unit asked for; None is unparsed, which is wrong and counted.

    `strict`: the answer is one number, with or without a unit, and nothing else. `lenient`: one value of the right
    kind was found in the words around it. `reason` as in `Parsed`: `exact`, `sentence`; `empty`, `too_long`,
    `range`, `bound` (less than …), `several` (different values), `other_unit`, `nothing_found`.
    """

    strict: float | None
    lenient: float | None
    reason: str


@dataclass(frozen=True)
class _Value:
    number: float
    has_unit: bool


def parse_number(text: str, unit: str) -> ParsedNumber:
    """Reads a value, given in `unit`: ms, s, bpm (or /min), mV, µV, mm, ° or %.

    A value in another unit of the same kind is converted; one without a unit is taken to be in the unit asked for; one
    of another kind is not taken at all. A decimal point or comma is read; a comma before exactly three digits
    separates thousands unless a zero stands before it. A range or a bound is no reading, whatever its middle.

    Raises:
        ParsingError: a unit that is not known, or an answer that is not text.
    """
    if not isinstance(text, str):
        raise ParsingError(f"found an answer of type {type(text).__name__}; expected text")
    asked = _UNITS.get(visible(unit).strip().casefold())
    if asked is None:
        known = ", ".join(("ms", "s", "bpm", "/min", "mV", "µV", "mm", "°", "%"))
        raise ParsingError(f"found the unit {unit!r}; known are {known}")
    stripped = text.strip()
    if not stripped:
        return ParsedNumber(None, None, "empty")
    if len(stripped) > MAX_CHARS:
        return _marked(plain_markup(visible(stripped[-2_000:])), asked) or ParsedNumber(None, None, "too_long")
    shown = visible(stripped)
    whole = _NUMBER.fullmatch(shown.strip(" \"'!").rstrip("."))
    if whole is not None:
        value = _value(whole, asked)
        return ParsedNumber(value, value, "exact" if value is not None else "other_unit")
    if (answer := json_answer(without_thoughts(shown))) is not None:
        return _part(visible(answer), asked)
    cleaned = plain_markup(without_thoughts(shown))
    return _marked(cleaned, asked) or _part(cleaned, asked)


def _marked(text: str, asked: tuple[str, float]) -> ParsedNumber | None:
    for parts in marked_parts(text, conclusions=True):
        readings = [found for part in parts if (found := _part(part.line, asked)).reason != "nothing_found"]
        if readings:
            return readings[-1] if len(set(readings)) == 1 else ParsedNumber(None, None, "several")
    return None


def _part(text: str, asked: tuple[str, float]) -> ParsedNumber:
    """The one value of the right kind in a text: those with a unit before those without."""
    if _UNKNOWN_UNIT.fullmatch(text.strip(" .!")) and not _NUMBER.fullmatch(text.strip(" .!")):
        return ParsedNumber(None, None, "other_unit")
    found = list(_NUMBER.finditer(text))
    with_unit: list[float] = []
    bare: list[float] = []
    other_unit = ranges = bounds = False
    place = 0
    while place < len(found):
        match, following = found[place], found[place + 1] if place + 1 < len(found) else None
        place += 1
        before = text[max(0, match.start() - 80) : match.start()]
        if _inside_a_word(text, match) or _SPREAD.search(before):
            continue
        if following is not None and _is_range(text, match, following, asked):
            ranges = ranges or _fits(following, asked) or following["unit"] is None
            place += 1
            continue
        if _BOUND.search(before):
            bounds = bounds or _fits(match, asked)
            continue
        if _LIMIT.search(before):
            continue
        value = _value(match, asked)
        if value is None:
            other_unit = True
        elif match["unit"] is not None:
            with_unit.append(value)
        else:
            bare.append(value)
    values = set(with_unit or bare)
    if len(values) == 1 and not (bare and not with_unit and (ranges or bounds)):
        return ParsedNumber(None, values.pop(), "sentence")
    if values:
        return ParsedNumber(None, None, "several")
    reason = "range" if ranges else "bound" if bounds else "other_unit" if other_unit else "nothing_found"
    return ParsedNumber(None, None, reason)


def _inside_a_word(text: str, match: re.Match[str]) -> bool:
    """Whether the digits belong to a name (V1, 12-lead, 2nd) or number a list."""
    before, after = text[: match.start()][-1:], text[match.end() : match.end() + 2]
    if before.isalpha() or before in ("_", "#") or (after[:1].isalpha() or after[:1] == "_"):
        return True
    if match["unit"] is None and after[:1] == "-" and after[1:].isalpha():
        return True
    line_start = not text[: match.start()].rpartition("\n")[2].strip(" #*-")
    return match["unit"] is None and line_start and after[:1] in (".", ")") and after[1:] in (" ", "\n")


def _is_range(text: str, first: re.Match[str], second: re.Match[str], asked: tuple[str, float]) -> bool:
    between = text[first.end() : second.start()]
    if not between and second["sign"] == "-" and second["digits"]:
        return first["unit"] is None or _fits(first, asked)
    return _TO.fullmatch(between) is not None and (first["unit"] is None or second["unit"] is not None)


def _fits(match: re.Match[str], asked: tuple[str, float]) -> bool:
    unit = match["unit"]
    return unit is None or _UNITS[unit.casefold()][0] == asked[0]


def _value(match: re.Match[str], asked: tuple[str, float]) -> float | None:
    """The number in the unit asked for; None for a unit of another kind or a number that cannot be one."""
    number = _number(match["digits"])
    if number is None:
        return None
    number = -number if match["sign"] == "-" else number
    if match["unit"] is None:
        return number
    kind, size = _UNITS[match["unit"].casefold()]
    if kind != asked[0]:
        return None
    return number if size == asked[1] else round(number * size / asked[1], 9)


def _number(digits: str) -> float | None:
    """`1,200` is twelve hundred, `0,120` and `12,5` have decimal commas, `1.200` a decimal point."""
    groups = digits.split(",")
    thousands = (
        len(groups) > 1
        and 1 <= len(groups[0]) <= 3
        and not groups[0].startswith("0")
        and all(len(group.partition(".")[0]) == 3 for group in groups[1:])
        and all("." not in group for group in groups[:-1])
    )
    text = digits.replace(",", "") if thousands else digits.replace(",", ".")
    return float(text) if text.count(".") <= 1 else None
