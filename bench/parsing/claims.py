"""What a sentence claims beside the findings it names: a yes or no, a denial of all, a choice left open."""

from __future__ import annotations

from itertools import pairwise

from ecglm.bench.parsing.reading import Sentence, Unit
from ecglm.bench.parsing.text import Words

_MANY_LEADS = 6


def is_told(sentence: Sentence, *kinds: str) -> bool:
    """Whether a sentence is about this ECG: neither a question nor of the kinds that repeat one or speak in general."""
    return not sentence.is_question and not sentence.cues & set(kinds)


def lists_options(found: Words, sentence: Sentence) -> bool:
    units_ = sentence.units
    return len(units_) > 1 and ":" in units_[1].gap and found.tokens[units_[0].start].form in ("option", "choice")


def votes_of(found: Words, sentence: Sentence) -> set[bool | None]:
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


def only_denies(sentence: Sentence) -> bool:
    """Whether a sentence does nothing but deny a finding."""
    if sentence.is_question or sentence.cues & {"possible_after", "turns", "asked", "general"}:
        return False
    if sentence.mentions:
        return all(mention.polarity == "denied" for mention in sentence.mentions)
    for place, unit in enumerate(sentence.units):
        if "denied_after" in unit.cues:
            return any("denied_things" in other.cues for other in sentence.units[place + 1 : place + 4])
    return False


def says_none(sentence: Sentence) -> bool:
    """`none`, `neither`, `nothing` without a name that it belongs to."""
    last_name = max((mention.unit for mention in sentence.mentions), default=-1)
    of_kind = denies_kind(sentence)
    for place, unit in enumerate(sentence.units):
        if "none" not in unit.cues or unit.cues & {"none_of_rest", "no_denial"}:
            continue
        if "denied_after" not in unit.cues or not (last_name > place or of_kind):
            return True
    return False


def denies_kind(sentence: Sentence) -> bool:
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


def left_out(sentence: Sentence) -> set[int]:
    """The leads behind `except` in `all leads except V1`."""
    groups = [mention.unit for mention in sentence.mentions if len(mention.options) >= _MANY_LEADS]
    start = min(groups, default=len(sentence.units))
    behind = (place for place, unit in enumerate(sentence.units) if place > start and "exceptions" in unit.cues)
    first = next(behind, len(sentence.units))
    return {place for mention in sentence.mentions if mention.unit > first for place in mention.options}


def leaves_open(sentence: Sentence) -> bool:
    """`A or B`, `A vs B`: two asserted names of different options joined by a choice."""
    asserted = [mention for mention in sentence.mentions if mention.polarity == "asserted" and mention.options]
    for first, second in pairwise(asserted):
        between = sentence.units[first.unit + 1 : second.unit]
        if first.options == second.options or len(between) > 2:
            continue
        if any("choices" in unit.cues for unit in between) or ">" in sentence.units[second.unit].gap:
            return True
    return False
