"""Lead names in running text: lead I is not lead II, and the pronoun I is no lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ecglm.bench.parsing.text import Words, forms

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_BY_FORM = {lead.casefold(): lead for lead in LEADS} | {"di": "I", "dii": "II", "diii": "III"}
_WORDS = {"lead", "ableitung", "ableitungen", "avledning", "avledningar"}
_NUMBERS = {"1": "I", "2": "II", "3": "III"}
_TO = {"to", "through", "thru", "until", "bis", "till"}
_AND = {"and", "und", "och", "or", "oder", "plus"}
_GROUPS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    forms(name): leads
    for names, leads in (
        (
            ("all leads", "all 12 leads", "all twelve leads", "every lead", "alle Ableitungen", "all of the leads"),
            LEADS,
        ),
        (("precordial leads", "chest leads", "Brustwandableitungen"), LEADS[6:]),
        (("limb leads", "extremity leads", "Extremitätenableitungen"), LEADS[:6]),
        (("inferior leads",), ("II", "III", "aVF")),
    )
    for name in names
}
_LONGEST = max(map(len, _GROUPS))


class Span(NamedTuple):
    """Words that name leads."""

    start: int
    stop: int
    leads: tuple[str, ...]


def lead_options(options: Sequence[str]) -> dict[str, int]:
    """The places of the options that name a lead, `lead aVL` or `aVL`, by the lead's usual name."""
    found = {}
    for place, option in enumerate(options):
        form = forms(option)
        if form and (lead := _BY_FORM.get(form[-1])) and (len(form) == 1 or (len(form) == 2 and form[0] in _WORDS)):
            found[lead] = place
    return found


def lead_spans(words: Words) -> list[Span]:
    """All places where leads are named, in order; ranges such as V1-V4 are filled in."""
    tokens = words.tokens
    spans: list[Span] = []
    place = 0
    while place < len(tokens):
        span = _group(words, place) or _range(words, place) or _single(words, place)
        if span is None:
            place += 1
            continue
        spans.append(span)
        place = span.stop
    return spans


def _group(words: Words, place: int) -> Span | None:
    for length in range(_LONGEST, 1, -1):
        form = tuple(token.form for token in words.tokens[place : place + length])
        if form in _GROUPS:
            return Span(place, place + length, _GROUPS[form])
    return None


def _range(words: Words, place: int) -> Span | None:
    tokens = words.tokens
    first = _named(words, place)
    if first is None or place + 1 >= len(tokens):
        return None
    if tokens[place + 1].form in _TO:
        second = place + 2
    elif tokens[place + 1].gap.strip() == "-":
        second = place + 1
    else:
        return None
    if second < len(tokens) and tokens[second].form in _WORDS:
        second += 1
    if second >= len(tokens):
        return None
    last = _BY_FORM.get(tokens[second].form)
    if last is None and first.startswith("V"):
        last = _BY_FORM.get(f"v{tokens[second].form}")
    if last is None or first.startswith("V") != last.startswith("V"):
        return None
    low, high = sorted((LEADS.index(first), LEADS.index(last)))
    return Span(place, second + 1, LEADS[low : high + 1])


def _single(words: Words, place: int) -> Span | None:
    lead = _named(words, place)
    return None if lead is None else Span(place, place + 1, (lead,))


def _named(words: Words, place: int) -> str | None:
    """The lead that one word names, in its surroundings."""
    tokens = words.tokens
    token = tokens[place]
    before = tokens[place - 1].form if place else ""
    if token.form in _NUMBERS and before in _WORDS and token.gap.isspace():
        return _NUMBERS[token.form]
    lead = _BY_FORM.get(token.form)
    if lead != "I" or token.form == "di":
        return lead
    if len(tokens) == 1 or (before in _WORDS and token.gap.strip() == ""):
        return lead
    if token.raw != "I":
        return None
    listed_before = place > 0 and _is_lead(before) and any(mark in token.gap for mark in ",/&+-")
    joined_before = before in _AND and place > 1 and _is_lead(tokens[place - 2].form)
    if (listed_before or joined_before) and not _speaks(words, place):
        return lead
    gap = words.gap_after(place)
    following = tokens[place + 1].form if place + 1 < len(tokens) else ""
    listed_after = _is_lead(following) and any(mark in gap for mark in ",/&+-")
    joined_after = following in _AND | _TO and place + 2 < len(tokens) and _is_lead(tokens[place + 2].form)
    return lead if listed_after or joined_after else None


def _is_lead(form: str) -> bool:
    return form in _BY_FORM


def _speaks(words: Words, place: int) -> bool:
    """Whether `I` is followed by another word without punctuation: `II, I think`."""
    after = words.gap_after(place)
    following = words.tokens[place + 1].form if place + 1 < len(words.tokens) else ""
    return (
        after.isspace() and "\n" not in after and bool(following) and following not in _AND and not _is_lead(following)
    )
