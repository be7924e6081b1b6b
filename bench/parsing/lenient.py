"""The lenient reading of an answer: the options that are found in what a model writes around them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ecglm.bench.parsing.claims import (
    denies_kind,
    is_told,
    leaves_open,
    left_out,
    lists_options,
    only_denies,
    says_none,
    votes_of,
)
from ecglm.bench.parsing.leads import lead_options, lead_spans
from ecglm.bench.parsing.lexicon import Phrases, Target, cue_phrases, option_names, tables
from ecglm.bench.parsing.marked import json_answer, marked_parts, plain_markup, without_thoughts
from ecglm.bench.parsing.reading import Mention, Sentence, sentences, units
from ecglm.bench.parsing.text import NEGATING, Words, first_word, forms, visible, words

MAX_CHARS = 20_000
"""A longer answer is read only if its end says "Answer: …"; nobody reads more than this before the answer."""
_TAIL_CHARS = 2_000
_MAX_LETTERS = 10
_LETTER_FIRST = re.compile(
    r"^\W{0,8}(?:option|choice)?\W{0,3}(?:\((?P<closed>[a-j])\)|\[(?P<square>[a-j])\]|(?P<open>[a-j])[).\]])(?=\W|$)",
    re.I,
)
_OPTION_NUMBER = re.compile(r"^\W{0,8}(?:option|choice|number|no\.)\s{0,3}#?(?P<number>\d{1,2})\W{0,8}$", re.I)
_CHECKBOX = re.compile(r"\[[ xX✓✔]\]|[☐☑☒]")
_SLOT = re.compile(r"\[[^\]\n]{0,40}\binsert\b[^\]\n]{0,40}\]|\{\{[^}\n]{0,80}\}\}", re.I)


@dataclass(frozen=True)
class Found:
    """A lenient reading as places of options; None with the reason why there is none."""

    places: frozenset[int] | None
    reason: str


def is_none(form: tuple[str, ...]) -> bool:
    return form[:1] == ("none",) or "none" in (cue_phrases().get(form) or ())


def _is_undecided(form: tuple[str, ...]) -> bool:
    return form[:1] == ("unknown",) or "not_sure" in (cue_phrases().get(form) or ())


class LenientReader:
    """Everything a lenient reading needs to know about the options."""

    def __init__(self, options: tuple[str, ...], *, multiple: bool) -> None:
        self.options, self.multiple = options, multiple
        by_form = {forms(option): place for place, option in enumerate(options)}
        self.yes, self.no = (by_form.get((word,)) for word in ("yes", "no"))
        self.decides = self.yes is not None and self.no is not None
        self.none = next((place for form, place in by_form.items() if is_none(form)), None)
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

    def read(self, text: str) -> Found:
        """The lenient reading of a whole answer: its marked answer if it has one, else all of it."""
        if len(text) > MAX_CHARS:
            return self._marked(self._clean(text[-_TAIL_CHARS:]), conclusions=False) or Found(None, "too_long")
        if not text:
            return Found(None, "empty")
        if (answer := json_answer(without_thoughts(text))) is not None:
            return self._part(visible(answer))
        text = self._clean(text)
        if not first_word(text):
            return Found(None, "empty")
        return self._marked(text, conclusions=True) or self._part(text)

    def _clean(self, text: str) -> str:
        return plain_markup(visible(without_thoughts(text)))

    def _marked(self, text: str, *, conclusions: bool) -> Found | None:
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
                return Found(None, "contradiction")
            return told[-1]
        return None

    # ---------------------------------------------------------------------------------------------------------- a part

    def _part(self, text: str) -> Found:
        text = text.strip()
        found = words(text, lenient=True)
        if not found.tokens:
            return Found(None, "empty")
        if _CHECKBOX.search(text) or _SLOT.search(text):
            return Found(None, "unfilled")
        if any(sign in text for sign in NEGATING - {"?", "¿"}):
            return Found(None, "nothing_found")
        letters = self._letters(text, found)
        if letters is not None:
            return letters
        grouped = units(found, self.names, self._lead_spans(found))
        every = sentences(found, grouped)
        said = [sentence for sentence in every if "refusals" not in sentence.cues]
        reading = self._yes_or_no(found, said) if self.decides else self._names_said(found, said)
        if len(said) < len(every) and reading.places is None:
            return Found(None, "refusal")
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

    def _letters(self, text: str, found: Words) -> Found | None:
        """An answer that is only option letters, or `option 2`."""
        if numbered := _OPTION_NUMBER.match(text):
            place = int(numbered["number"]) - 1
            if not text.lstrip().lower().startswith("no"):
                inside = 0 <= place < len(self.options)
                return Found(frozenset({place}), "letter") if inside else Found(None, "nothing_found")
        rest = [token for token in found.tokens if token.form not in ("option", "choice", "and", "both", "letter")]
        if not rest or self.leads or any(len(token.raw) != 1 or not token.raw.isalpha() for token in rest):
            return None
        if "?" in text or any(token.raw in "Ii" and f"({token.raw})" not in text for token in rest):
            return Found(None, "nothing_found")
        places = {self._letter(token.raw) if token.raw.isascii() else None for token in rest}
        if None in places:
            return Found(None, "nothing_found")
        return self._allowed(frozenset(place for place in places if place is not None), "letter")

    def _with_leading_letter(self, text: str, reading: Found) -> Found:
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
        return reading if place in reading.places else Found(None, "contradiction")

    # ------------------------------------------------------------------------------------------------------ yes and no

    def _yes_or_no(self, found: Words, said: list[Sentence]) -> Found:
        """A yes or no that stands as such; else a denial of one finding and nothing more, which is a no."""
        form = tuple(token.form for token in found.tokens)
        if "?" not in found.tail and (place := self.whole.get(form)) is not None:
            return Found(frozenset({place}), "sentence")
        votes = {vote for sentence in said if is_told(sentence, "asked") for vote in votes_of(found, sentence)}
        cues = {cue for sentence in said for cue in sentence.cues}
        if "hedges" in cues or ("maybes" in cues and (votes or len(said) == 1)):
            return self._undecided("contradiction" if votes & {True, False} else "hedged")
        if len(votes) > 1:
            return Found(None, "contradiction")
        if True in votes and self.yes is not None:
            return Found(frozenset({self.yes}), "sentence")
        if False in votes and self.no is not None:
            return Found(frozenset({self.no}), "sentence")
        if votes:
            return Found(None, "denied")
        if cues & {"hedges_elsewhere", "not_sure"}:
            return self._undecided("hedged")
        if len(said) == 1 and self.no is not None and only_denies(said[0]):
            return Found(frozenset({self.no}), "sentence")
        return Found(None, "nothing_found")

    def _undecided(self, reason: str) -> Found:
        """Undecided: the option for that if there is one and nothing else was said."""
        if self.undecided is None or reason != "hedged":
            return Found(None, "hedged" if self.undecided is None else reason)
        return Found(frozenset({self.undecided}), "undecided")

    # ----------------------------------------------------------------------------------------------------------- names

    def _names_said(self, found: Words, said: list[Sentence]) -> Found:
        told = [
            sentence
            for sentence in said
            if is_told(sentence, "asked", "general") and not lists_options(found, sentence)
        ]
        cues = {cue for sentence in said for cue in sentence.cues}
        mentions = [mention for sentence in told for mention in self._findings(found, sentence)]
        asserted = {place for mention in mentions if mention.polarity == "asserted" for place in mention.options}
        explicit = [mention for mention in mentions if not mention.implied]
        denied = {place for mention in explicit if mention.polarity == "denied" for place in mention.options}
        if "hedges" in cues:
            return self._undecided("contradiction" if asserted else "hedged")
        none = any(says_none(sentence) for sentence in told)
        if self.leads:
            asserted -= {place for sentence in told for place in left_out(sentence)}
        if asserted:
            if asserted & denied or (none and asserted != {self.none}):
                return Found(None, "contradiction")
            if any(leaves_open(sentence) for sentence in told):
                return Found(None, "alternatives")
            if not self.leads and self._has_unknown_item(found, told, asserted):
                return Found(None, "unknown_item")
            return self._allowed(frozenset(asserted), "sentence")
        if none or (self.real and denied >= self.real):
            return self._none()
        if not any(mention.options for mention in mentions):
            if "both" in cues and len(self.real) == 2:
                return self._allowed(self.real, "both")
            if "all" in cues and self.none is None and self.real:
                return self._allowed(self.real, "all")
            if self.none is not None and any(denies_kind(sentence) for sentence in told):
                return self._none()
        if cues & {"hedges_elsewhere", "not_sure", "maybes"}:
            return self._undecided("hedged")
        if any(mention.options and mention.polarity == "possible" for mention in mentions):
            return Found(None, "hedged")
        return Found(None, "denied" if denied else "nothing_found")

    def _findings(self, found: Words, sentence: Sentence) -> list[Mention]:
        """The names of a sentence without one that only says where something holds: `In atrial fibrillation, …`."""
        units_ = sentence.units
        if not self.leads and len(units_) > 2 and units_[1].named and "," in units_[2].gap:
            first = found.tokens[units_[0].start].form
            if first in ("in", "bei", "during", "vid"):
                return [mention for mention in sentence.mentions if mention.unit != 1]
        return sentence.mentions

    def _none(self) -> Found:
        if self.none is not None:
            return Found(frozenset({self.none}), "none")
        return Found(frozenset(), "none") if self.multiple else Found(None, "nothing_found")

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

    def _allowed(self, places: frozenset[int], reason: str) -> Found:
        if len(places) > 1 and not self.multiple:
            return Found(None, "several")
        if self.none in places and len(places) > 1:
            return Found(None, "contradiction")
        return Found(places, reason)
