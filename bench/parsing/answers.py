"""Strict and lenient readings of an answer to a question with options."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ecglm.bench.parsing.lenient import LenientReader, is_none
from ecglm.bench.parsing.text import NEGATING, Token, Words, first_word, forms, visible, words
from ecglm.synth.errors import ECGLMError

_REMEMBERED_CHARS = 300
_REMEMBERED = 4096
_SEPARATORS = frozenset(",;\n•|/&+[]")


class ParsingError(ECGLMError):
    """Options or a unit that no answer can be read against."""


@dataclass(frozen=True)
class Parsed:
    """What an answer was read as; None is unparsed, which is wrong and counted, never replaced.

    `strict` and `lenient` hold options as they were given, in their order, each once; `()` says that none of the
    options applies and there is no option for that. Where `strict` is known, `lenient` is the same. `reason` is a short
    snake_case word to count by. How it was read: `exact`, `letter`, `sentence`, `none`, `both`, `all`, `undecided` (an
    option such as "not sure"). Why it was not: `empty`, `too_long`, `refusal`, `hedged` (undecided), `contradiction`,
    `alternatives` (A or B), `several` (more than one option where one was asked for), `unknown_item` (a list with
    something that is no option), `denied` (one option is denied and nothing said of the others), `unfilled` (a form
    or tick boxes), `nothing_found`.
    """

    strict: tuple[str, ...] | None
    lenient: tuple[str, ...] | None
    reason: str


class OptionReader:
    """Reads answers to questions with the same options; building one costs more than using it.

    Raises:
        ParsingError: no options, an empty one, or two that are the same when case and punctuation are ignored.
    """

    def __init__(self, options: Sequence[str], *, multiple: bool) -> None:
        self.options = tuple(options)
        self.multiple = multiple
        if isinstance(options, str) or not self.options:
            raise ParsingError(f"found options {options!r}; expected a list with at least one option")
        self._plain = [_plain_words(option) for option in self.options]
        seen: dict[tuple[str, ...], str] = {}
        for option, plain in zip(self.options, self._plain, strict=True):
            key = tuple(token.plain for token in plain.tokens)
            if not key:
                raise ParsingError(f"the option {option!r} has no letter or digit; answers cannot name it")
            if key in seen:
                raise ParsingError(
                    f"the options {seen[key]!r} and {option!r} differ only in case or punctuation; an answer could mean"
                    " either: name them apart"
                )
            seen[key] = option
        self._exact = {option.casefold(): place for place, option in enumerate(self.options)}
        self._by_length = sorted(range(len(self.options)), key=lambda place: -len(self._plain[place].tokens))
        self._first_words = {plain.tokens[0].plain for plain in self._plain}
        self._max_exact = 4 * sum(map(len, self.options)) + 200
        self._lenient: LenientReader | None = None
        self._remembered: dict[str, Parsed] = {}

    def parse(self, text: str) -> Parsed:
        """Reads one answer.

        Raises:
            ParsingError: the answer is not text.
        """
        if not isinstance(text, str):
            raise ParsingError(f"found an answer of type {type(text).__name__}; expected text")
        place = self._exact.get(text.strip().casefold()) if len(text) <= self._max_exact else None
        if place is not None:
            return Parsed((self.options[place],), (self.options[place],), "exact")
        known = self._remembered.get(text) if len(text) <= _REMEMBERED_CHARS else None
        if known is not None:
            return known
        parsed = self._parse(text)
        if len(text) <= _REMEMBERED_CHARS and len(self._remembered) < _REMEMBERED:
            self._remembered[text] = parsed
        return parsed

    def _parse(self, text: str) -> Parsed:
        stripped = text.strip()
        if len(stripped) <= self._max_exact and (places := self._strict(stripped)) is not None:
            exact = self._named(places)
            return Parsed(exact, exact, "exact")
        if self._lenient is None:
            self._lenient = LenientReader(self.options, multiple=self.multiple)
        found = self._lenient.read(stripped)
        return Parsed(None, None if found.places is None else self._named(found.places), found.reason)

    def _named(self, places: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.options[place] for place in sorted(set(places)))

    def _strict(self, text: str) -> list[int] | None:
        """The options that the text is a list of, and nothing else."""
        shown = visible(text)
        if first_word(shown) not in self._first_words:
            return None
        found = words(shown, lenient=False)
        tokens = found.tokens
        if any(NEGATING & set(gap) for gap in (*(token.gap for token in tokens), found.tail)):
            return None
        places: list[int] = []
        start = 0
        while start < len(tokens):
            if places and tokens[start].plain in ("and", "und", "och") and start + 1 < len(tokens):
                start += 1
            elif places and not _SEPARATORS & set(tokens[start].gap):
                return None
            match = next((place for place in self._by_length if self._stands_at(place, tokens, start)), None)
            if match is None:
                return None
            places.append(match)
            start += len(self._plain[match].tokens)
        if len(places) > 1 and (not self.multiple or self._none_with_others(places)):
            return None
        return places

    def _stands_at(self, place: int, tokens: list[Token], start: int) -> bool:
        option = self._plain[place].tokens
        part = tokens[start : start + len(option)]
        return len(part) == len(option) and all(
            token.plain == word.plain and (number == 0 or not set(token.gap) & set(",;.:•|") - set(word.gap))
            for number, (token, word) in enumerate(zip(part, option, strict=True))
        )

    def _none_with_others(self, places: list[int]) -> bool:
        none = {place for place, option in enumerate(self.options) if is_none(forms(option))}
        return bool(none & set(places)) and bool(set(places) - none)


def _plain_words(text: str) -> Words:
    return words(visible(text), lenient=False)


@lru_cache(maxsize=512)
def _reader(options: tuple[str, ...], multiple: bool) -> OptionReader:
    return OptionReader(options, multiple=multiple)


def parse_answer(text: str, options: Sequence[str], *, multiple: bool) -> Parsed:
    """Reads an answer as options; `multiple` says whether it may name more than one.

    Readers are kept per options, so many answers with the same options cost one preparation.

    Raises:
        ParsingError: no options, an empty one, or two that differ only in case or punctuation; an answer that is not
            text.
    """
    if isinstance(options, str):
        raise ParsingError(f"found options {options!r}; expected a list with at least one option")
    return _reader(tuple(options), multiple).parse(text)
