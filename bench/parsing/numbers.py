"""A measured value out of an answer, in the unit that was asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ParsedNumber:
    """A value in the unit asked for; None is unparsed, which is wrong and counted.

    `strict`: the answer is one number, with or without a unit, and nothing else. `lenient`: one value of the right
    kind was found in the words around it. `reason` as in `Parsed`.
    """

    strict: float | None
    lenient: float | None
    reason: str


def parse_number(text: str, unit: str) -> ParsedNumber:
    """Reads a value; `unit` is one of ms, s, bpm, mV, µV, mm, °, and what the value is given in.

    Raises:
        ParsingError: a unit that is not known.
    """
    found = re.fullmatch(r"\s*([-+]?\d+(?:\.\d+)?)\s*", text)
    if found is None:
        return ParsedNumber(None, None, "nothing_found")
    value = float(found[1])
    return ParsedNumber(value, value, "exact")
