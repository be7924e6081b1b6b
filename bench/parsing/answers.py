"""Strict and lenient readings of an answer to a question with options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from ecglm.bench.parsing.leads import lead_options, lead_spans
from ecglm.bench.parsing.lexicon import Phrases, Target, cue_phrases, option_names, tables
from ecglm.bench.parsing.marked import json_answer, marked_parts, plain_markup, without_thoughts
from ecglm.bench.parsing.reading import Mention, Sentence, Unit, sentences, units
from ecglm.bench.parsing.text import Token, Words, first_word, forms, visible, words
from ecglm.synth.errors import ECGLMError

MAX_CHARS = 20_000
"""A longer answer is read only if its end says "Answer: …"; nobody reads more than this before the answer."""
_TAIL_CHARS = 2_000
_REMEMBERED_CHARS = 300
_REMEMBERED = 4096
_SEPARATORS = frozenset(",;\n•|/&+[]")
_NEGATING = frozenset("?¿≠¬✗✘❌👎☐☒")
_MAX_LETTERS = 10
_MANY_LEADS = 6
_LETTER_FIRST = re.compile(
    r"^\W{0,8}(?:option|choice)?\W{0,3}(?:\((?P<closed>[a-j])\)|\[(?P<square>[a-j])\]|(?P<open>[a-j])[).\]])(?=\W|$)",
    re.I,
)
_OPTION_NUMBER = re.compile(r"^\W{0,8}(?:option|choice|number|no\.)\s{0,3}#?(?P<number>\d{1,2})\W{0,8}$", re.I)
_CHECKBOX = re.compile(r"\[[ xX✓✔]\]|[☐☑☒]")
_SLOT = re.compile(r"\[[^\]\n]{0,40}\binsert\b[^\]\n]{0,40}\]|\{\{[^}\n]{0,80}\}\}", re.I)


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


@dataclass(frozen=True)
class _Found:
    """A lenient reading as places of options; None with the reason why there is none."""

    places: frozenset[int] | None
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
        self._prepared: _Prepared | None = None
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
        if self._prepared is None:
            self._prepared = _Prepared(self.options, multiple=self.multiple)
        found = self._prepared.read(stripped)
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
        if any(_NEGATING & set(gap) for gap in (*(token.gap for token in tokens), found.tail)):
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
        none = {place for place, option in enumerate(self.options) if _is_none(forms(option))}
        return bool(none & set(places)) and bool(set(places) - none)


def _plain_words(text: str) -> Words:
    return words(visible(text), lenient=False)


def _is_none(form: tuple[str, ...]) -> bool:
    return form[:1] == ("none",) or "none" in (cue_phrases().get(form) or ())


def _is_undecided(form: tuple[str, ...]) -> bool:
    return form[:1] == ("unknown",) or "not_sure" in (cue_phrases().get(form) or ())


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


# -------------------------------------------------------------------------------------------------------------- lenient


class _Prepared:
    """Everything a lenient reading needs to know about the options."""

    def __init__(self, options: tuple[str, ...], *, multiple: bool) -> None:
        self.options, self.multiple = options, multiple
        by_form = {forms(option): place for place, option in enumerate(options)}
        self.yes, self.no = (by_form.get((word,)) for word in ("yes", "no"))
        self.decides = self.yes is not None and self.no is not None
        self.none = next((place for form, place in by_form.items() if _is_none(form)), None)
        self.undecided = next((place for form, place in by_form.items() if _is_undecided(form)), None)
        special = {self.none, self.undecided}
        self.real = frozenset(place for place in range(len(options)) if place not in special)
        self.leads = lead_options(options)
        self.names: Phrases[Target] = option_names(() if self.decides else options)
        self.own_words = {
            word for place in self.real for word in forms(options[place]) if len(word) >= 4 and word.isalpha()
        }
        if self.leads:
            self.names = Phrases()
            for form, place in by_form.items():
                if place not in self.leads.values():
                    self.names[form] = Target(place)
        if self.decides:
            cues = tables()[0]
            self.whole = {forms(phrase): self.yes for phrase in (*cues["yes_whole"], *cues["yes_at_start"])}
            self.whole |= {forms(phrase): self.no for phrase in (*cues["no_whole"], *cues["no_at_start"])}

    def read(self, text: str) -> _Found:
        """The lenient reading of a whole answer: its marked answer if it has one, else all of it."""
        if len(text) > MAX_CHARS:
            return self._marked(self._clean(text[-_TAIL_CHARS:]), conclusions=False) or _Found(None, "too_long")
        if not text:
            return _Found(None, "empty")
        if (answer := json_answer(without_thoughts(text))) is not None:
            return self._part(visible(answer))
        text = self._clean(text)
        if not first_word(text):
            return _Found(None, "empty")
        return self._marked(text, conclusions=True) or self._part(text)

    def _clean(self, text: str) -> str:
        return plain_markup(visible(without_thoughts(text)))

    def _marked(self, text: str, *, conclusions: bool) -> _Found | None:
        """The reading of the strongest kind of mark under which anything was found; None without any."""
        kinds = marked_parts(text, conclusions=conclusions)
        for parts in kinds:
            readings = []
            for part in parts:
                found = self._part(part.line)
                if found.reason in ("nothing_found", "empty") and part.text != part.line:
                    found = self._part(part.text)
                readings.append(found)
            told = [found for found in readings if found.reason not in ("nothing_found", "empty")]
            if not told:
                continue
            if len({found.places for found in told}) > 1:
                return _Found(None, "contradiction")
            return told[-1]
        return None

    # ---------------------------------------------------------------------------------------------------------- a part

    def _part(self, text: str) -> _Found:
        text = text.strip()
        found = words(text, lenient=True)
        if not found.tokens:
            return _Found(None, "empty")
        if _CHECKBOX.search(text) or _SLOT.search(text):
            return _Found(None, "unfilled")
        if any(sign in text for sign in _NEGATING - {"?", "¿"}):
            return _Found(None, "nothing_found")
        letters = self._letters(text, found)
        if letters is not None:
            return letters
        grouped = units(found, self.names, self._lead_spans(found))
        every = sentences(found, grouped)
        said = [sentence for sentence in every if "refusals" not in sentence.cues]
        reading = self._yes_or_no(found, said) if self.decides else self._names_said(found, said)
        if len(said) < len(every) and reading.places is None:
            return _Found(None, "refusal")
        return self._with_leading_letter(text, reading)

    def _lead_spans(self, found: Words) -> dict[int, tuple[int, tuple[int, ...]]]:
        if not self.leads:
            return {}
        spans = {}
        for span in lead_spans(found):
            options = tuple(self.leads[lead] for lead in span.leads if lead in self.leads)
            spans[span.start] = (span.stop, options)
        return spans

    # --------------------------------------------------------------------------------------------------------- letters

    def _letter(self, letter: str) -> int | None:
        place = ord(letter.lower()) - ord("a")
        return place if 0 <= place < min(len(self.options), _MAX_LETTERS) else None

    def _letters(self, text: str, found: Words) -> _Found | None:
        """An answer that is only option letters, or `option 2`."""
        if numbered := _OPTION_NUMBER.match(text):
            place = int(numbered["number"]) - 1
            if not text.lstrip().lower().startswith("no"):
                inside = 0 <= place < len(self.options)
                return _Found(frozenset({place}), "letter") if inside else _Found(None, "nothing_found")
        rest = [token for token in found.tokens if token.form not in ("option", "choice", "and", "both", "letter")]
        if not rest or self.leads or any(len(token.raw) != 1 or not token.raw.isalpha() for token in rest):
            return None
        if "?" in text or any(token.raw in "Ii" and f"({token.raw})" not in text for token in rest):
            return _Found(None, "nothing_found")
        places = {self._letter(token.raw) if token.raw.isascii() else None for token in rest}
        if None in places:
            return _Found(None, "nothing_found")
        return self._allowed(frozenset(place for place in places if place is not None), "letter")

    def _with_leading_letter(self, text: str, reading: _Found) -> _Found:
        """Checks an answer such as `(B) atrial flutter`: letter and words must agree."""
        leading = _LETTER_FIRST.match(text)
        if leading is None or self.leads:
            return reading
        letter = next(filter(None, leading.groups()))
        place = self._letter(letter)
        if place is None or (reading.places is None and reading.reason != "nothing_found"):
            return reading
        if reading.places is None:
            return self._allowed(frozenset({place}), "letter")
        return reading if place in reading.places else _Found(None, "contradiction")

    # ------------------------------------------------------------------------------------------------------ yes and no

    def _yes_or_no(self, found: Words, said: list[Sentence]) -> _Found:
        """A yes or no that stands as such; else a denial of one finding and nothing more, which is a no."""
        form = tuple(token.form for token in found.tokens)
        if "?" not in found.tail and (place := self.whole.get(form)) is not None:
            return _Found(frozenset({place}), "sentence")
        votes = {vote for sentence in said if _is_told(sentence, "asked") for vote in _votes(found, sentence)}
        cues = {cue for sentence in said for cue in sentence.cues}
        if "hedges" in cues or ("maybes" in cues and (votes or len(said) == 1)):
            return self._undecided("contradiction" if votes & {True, False} else "hedged")
        if len(votes) > 1:
            return _Found(None, "contradiction")
        if True in votes and self.yes is not None:
            return _Found(frozenset({self.yes}), "sentence")
        if False in votes and self.no is not None:
            return _Found(frozenset({self.no}), "sentence")
        if votes:
            return _Found(None, "denied")
        if cues & {"hedges_elsewhere", "not_sure"}:
            return self._undecided("hedged")
        if len(said) == 1 and self.no is not None and _only_denies(said[0]):
            return _Found(frozenset({self.no}), "sentence")
        return _Found(None, "nothing_found")

    def _undecided(self, reason: str) -> _Found:
        """Undecided: the option for that if there is one and nothing else was said."""
        if self.undecided is None or reason != "hedged":
            return _Found(None, "hedged" if self.undecided is None else reason)
        return _Found(frozenset({self.undecided}), "undecided")

    # ----------------------------------------------------------------------------------------------------------- names

    def _names_said(self, found: Words, said: list[Sentence]) -> _Found:
        told = [
            sentence
            for sentence in said
            if _is_told(sentence, "asked", "general") and not _lists_options(found, sentence)
        ]
        cues = {cue for sentence in said for cue in sentence.cues}
        mentions = [mention for sentence in told for mention in self._findings(found, sentence)]
        asserted = {place for mention in mentions if mention.polarity == "asserted" for place in mention.options}
        explicit = [mention for mention in mentions if not mention.implied]
        denied = {place for mention in explicit if mention.polarity == "denied" for place in mention.options}
        if "hedges" in cues:
            return self._undecided("contradiction" if asserted else "hedged")
        none = any(_says_none(sentence) for sentence in told)
        if self.leads:
            asserted -= {place for sentence in told for place in _left_out(sentence)}
        if asserted:
            if asserted & denied or (none and asserted != {self.none}):
                return _Found(None, "contradiction")
            if any(_leaves_open(sentence) for sentence in told):
                return _Found(None, "alternatives")
            if not self.leads and self._has_unknown_item(found, told, asserted):
                return _Found(None, "unknown_item")
            return self._allowed(frozenset(asserted), "sentence")
        if none or (self.real and denied >= self.real):
            return self._none()
        if not any(mention.options for mention in mentions):
            if "both" in cues and len(self.real) == 2:
                return self._allowed(self.real, "both")
            if "all" in cues and self.none is None and self.real:
                return self._allowed(self.real, "all")
            if self.none is not None and any(_denies_kind(sentence) for sentence in told):
                return self._none()
        if cues & {"hedges_elsewhere", "not_sure", "maybes"}:
            return self._undecided("hedged")
        if any(mention.options and mention.polarity == "possible" for mention in mentions):
            return _Found(None, "hedged")
        return _Found(None, "denied" if denied else "nothing_found")

    def _findings(self, found: Words, sentence: Sentence) -> list[Mention]:
        """The names of a sentence without one that only says where something holds: `In atrial fibrillation, …`."""
        units_ = sentence.units
        if not self.leads and len(units_) > 2 and units_[1].named and "," in units_[2].gap:
            first = found.tokens[units_[0].start].form
            if first in ("in", "bei", "during", "vid"):
                return [mention for mention in sentence.mentions if mention.unit != 1]
        return sentence.mentions

    def _none(self) -> _Found:
        if self.none is not None:
            return _Found(frozenset({self.none}), "none")
        return _Found(frozenset(), "none") if self.multiple else _Found(None, "nothing_found")

    def _has_unknown_item(self, found: Words, told: list[Sentence], asserted: set[int]) -> bool:
        """Whether a bare list has an item that is no name but shares a word with an option that was not named."""
        if any("verbs" in sentence.cues for sentence in told):
            return False
        foreign = self.own_words - {word for place in asserted for word in forms(self.options[place])}
        items: list[list[str] | None] = [[]]
        for sentence in told:
            for place, unit in enumerate(sentence.units):
                if place == 0 or set(unit.gap) & set(",;\n") or "adds" in unit.cues:
                    items.append([])
                if unit.named or unit.cues - {"adds", "nothing_of_kind", "denied_things"}:
                    items[-1] = None
                elif items[-1] is not None:
                    items[-1].append(found.tokens[unit.start].form)
        return any(item and foreign & set(item) and not any(word.isdigit() for word in item) for item in items)

    def _allowed(self, places: frozenset[int], reason: str) -> _Found:
        if len(places) > 1 and not self.multiple:
            return _Found(None, "several")
        if self.none in places and len(places) > 1:
            return _Found(None, "contradiction")
        return _Found(places, reason)


def _is_told(sentence: Sentence, *kinds: str) -> bool:
    """Whether a sentence is about this ECG: neither a question nor of the kinds that repeat one or speak in general."""
    return not sentence.is_question and not sentence.cues & set(kinds)


def _lists_options(found: Words, sentence: Sentence) -> bool:
    units_ = sentence.units
    return len(units_) > 1 and ":" in units_[1].gap and found.tokens[units_[0].start].form in ("option", "choice")


def _votes(found: Words, sentence: Sentence) -> set[bool | None]:
    """True for a yes, False for a no, None for a denied yes."""
    votes: set[bool | None] = set()
    for place, unit in enumerate(sentence.units):
        before = sentence.units[place - 1] if place else None
        if "yes" in unit.cues:
            votes.add(
                None if before is not None and "denied_after" in before.cues and not _is_no(found, before) else True
            )
        elif "no" in unit.cues or (place == 0 and "no_at_start" in unit.cues):
            votes.add(False)
        elif place == 0 and "yes_at_start" in unit.cues and _ends_or_explains(found, sentence, place):
            votes.add(True)
        elif _is_no(found, unit) and _stands_alone(found, sentence, place):
            votes.add(False)
    return votes


def _ends_or_explains(found: Words, sentence: Sentence, place: int) -> bool:
    """Whether a word is followed by punctuation, by nothing, or by a pronoun that begins the reason."""
    unit = sentence.units[place]
    behind = found.gap_after(unit.stop - 1)
    following = sentence.units[place + 1] if place + 1 < len(sentence.units) else None
    return following is None or bool(behind.strip()) or "after_no" in following.cues


def _is_no(found: Words, unit: Unit) -> bool:
    return unit.stop == unit.start + 1 and found.tokens[unit.start].form == "no"


def _stands_alone(found: Words, sentence: Sentence, place: int) -> bool:
    """Whether a `no` is the answer and not part of `no evidence`, `no. 4`."""
    unit = sentence.units[place]
    gap = found.gap_after(unit.start)
    following = found.tokens[unit.stop].form if unit.stop < len(found.tokens) else ""
    if not following:
        return True
    if gap.strip():
        return (not (gap.strip() == "." and following.isdigit()) and gap.strip() not in ("-", "/", "|")) or " - " in gap
    if following == "no":
        return True
    says = place == 0 or ":" in unit.gap or found.tokens[unit.start - 1].form in ("is", "be", "say", "answer", "so")
    return "\n" in gap or (says and any("after_no" in other.cues for other in sentence.units[place + 1 : place + 2]))


def _only_denies(sentence: Sentence) -> bool:
    """Whether a sentence does nothing but deny a finding."""
    if sentence.is_question or sentence.cues & {"possible_after", "turns", "asked", "general"}:
        return False
    if sentence.mentions:
        return all(mention.polarity == "denied" for mention in sentence.mentions)
    for place, unit in enumerate(sentence.units):
        if "denied_after" in unit.cues:
            return any("denied_things" in other.cues for other in sentence.units[place + 1 : place + 4])
    return False


def _says_none(sentence: Sentence) -> bool:
    """`none`, `neither`, `nothing` without a name that it belongs to."""
    last_name = max((mention.unit for mention in sentence.mentions), default=-1)
    of_kind = _denies_kind(sentence)
    for place, unit in enumerate(sentence.units):
        if "none" not in unit.cues or unit.cues & {"none_of_rest", "no_denial"}:
            continue
        if "denied_after" not in unit.cues or not (last_name > place or of_kind):
            return True
    return False


def _denies_kind(sentence: Sentence) -> bool:
    """`no symptoms`, `none of the leads`: everything of a kind is denied."""
    for place, unit in enumerate(sentence.units):
        if "denied_after" not in unit.cues:
            continue
        for other in sentence.units[place + 1 : place + 5]:
            if other.named or any(mark in other.gap for mark in ",:"):
                break
            if "nothing_of_kind" in other.cues:
                return True
    return False


def _left_out(sentence: Sentence) -> set[int]:
    """The leads behind `except` in `all leads except V1`."""
    groups = [mention.unit for mention in sentence.mentions if len(mention.options) >= _MANY_LEADS]
    start = min(groups, default=len(sentence.units))
    behind = (place for place, unit in enumerate(sentence.units) if place > start and "exceptions" in unit.cues)
    first = next(behind, len(sentence.units))
    return {place for mention in sentence.mentions if mention.unit > first for place in mention.options}


def _leaves_open(sentence: Sentence) -> bool:
    """`A or B`, `A vs B`: two asserted names of different options joined by a choice."""
    asserted = [mention for mention in sentence.mentions if mention.polarity == "asserted" and mention.options]
    for first, second in pairwise(asserted):
        between = sentence.units[first.unit + 1 : second.unit]
        if first.options == second.options or len(between) > 2:
            continue
        if any("choices" in unit.cues for unit in between) or ">" in sentence.units[second.unit].gap:
            return True
    return False
