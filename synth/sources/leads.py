"""Which leads a PTB-XL noise note names. The notes are free text: "I-V1", " , alle,  ", "V1,3,4,6", "noise"."""

from __future__ import annotations

import re

from ecglm.synth.schema import LEAD_UNKNOWN, LEADS, LIMB_LEADS

_INDEX = {lead.upper(): index for index, lead in enumerate(LEADS)} | {"ALF": LEADS.index("aVF")}
_UPPER_ROW = dict(zip('!"§$%&', "123456", strict=True))
"""German keyboard, digit row typed with shift held: "V&" is V6."""

_TOKEN = re.compile(
    r"""
    (?P<every> \b ALLE[NS]? \b (?: \s+ ABL\w* )? )
    | (?P<lead> (?<! \w ) (?: AV[RLF] | ALF | I{1,3} ) (?! \w ) )
    | (?P<chest> (?<! [^\W\d] ) V \s? (?P<number> [1-6!"§$%&] ) (?! \d ) )
    | (?P<digit> (?<! \w ) [1-6] (?! \w ) )
    | (?P<dash> [-–—]+ )
    | (?P<blank> \s+ )
    | (?P<separator> [,;./+&]+ | \b NAN \b )
    | (?P<other> \w+ | . )
    """,
    re.VERBOSE,
)


def parse_noise_leads(text: str | None) -> list[str] | None:
    """The leads a noise note names, in lead order; None when the note is empty.

    Ranges run in lead order whichever end comes first, a bare digit continues a list of chest leads ("V1,3"), "alle"
    means every lead, and words of severity or doubt are passed over. A note that names no lead that exists gives
    `[LEAD_UNKNOWN]`: a disturbance was seen, but not where.
    """
    found: set[int] = set()
    noted = False
    range_start: int | None = None
    after_dash = False
    after_chest_lead = False
    for token in _TOKEN.finditer((text or "").upper()):
        kind = token.lastgroup
        if kind == "every":
            return list(LEADS)
        if kind == "blank":
            continue
        if kind == "separator":
            range_start, after_dash = None, False
            continue
        noted = True
        if kind == "dash":
            after_dash = True
            continue
        index = _lead_index(token, after_chest_lead)
        if index is None:
            range_start, after_dash, after_chest_lead = None, False, False
            continue
        first = range_start if after_dash and range_start is not None else index
        found.update(range(min(first, index), max(first, index) + 1))
        range_start, after_dash, after_chest_lead = index, False, index >= len(LIMB_LEADS)
    if found:
        return [LEADS[index] for index in sorted(found)]
    return [LEAD_UNKNOWN] if noted else None


def _lead_index(token: re.Match[str], after_chest_lead: bool) -> int | None:
    """Place of the lead a token names; None for a word, or a digit that does not continue a list of chest leads."""
    if token["lead"]:
        return _INDEX[token["lead"]]
    number = token["number"] or (token["digit"] if after_chest_lead else None)
    return None if number is None else _INDEX["V" + _UPPER_ROW.get(number, number)]
