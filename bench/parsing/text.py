"""Text made comparable: words with what stands between them, the same whatever the case, accents and look-alikes."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u2069\ufe00-\ufe0f\ufeff]"
)
_TYPOGRAPHY = str.maketrans(
    {"‘": "'", "’": "'", "‚": "'", "′": "'", "`": " ", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "*": " "}
    | dict.fromkeys("‐‑‒–—―−", "-")
    | {"\r": "\n", "\u2028": "\n", "\u2029": "\n"}
)
# Letters of other scripts that are drawn like Latin ones (from the Unicode confusables, only whole-letter twins).
_LOOK_ALIKES = str.maketrans(
    dict(zip("аеорсухіїјѕһԁɡкмнтвӏ", "aeopcyxiijshdgkmhtbl", strict=True))  # Cyrillic
    | dict(zip("αεορυνικτχ", "aeopuviktx", strict=True))  # Greek
    | {"ı": "i", "ℓ": "l"}
)
_WORD = re.compile(r"[^\W_]+(?:_[^\W_]+)*")
_NOT = re.compile(r"(?<=\w)n't\b", re.IGNORECASE)
_JOINED = {
    "cannot": ("can", "not"),
    "cant": ("can", "not"),
    "dont": ("do", "not"),
    "doesnt": ("does", "not"),
    "isnt": ("is", "not"),
    "nonspecific": ("non", "specific"),
    "nondiagnostic": ("non", "diagnostic"),
    "unspecific": ("non", "specific"),
    "preexcitation": ("pre", "excitation"),
    "couldn": ("could",),
}
_NEGATED = {"can't": "can not", "won't": "will not", "shan't": "shall not"}
_NEGATED_RE = re.compile(r"\b(?:can't|won't|shan't)", re.IGNORECASE)

NEGATING = frozenset("?¿≠¬✗✘❌👎☐☒")
"""Signs that turn what stands beside them into no answer."""


class Token(NamedTuple):
    """One word.

    `form` is what is compared leniently (case, accents, look-alikes and plural folded), `plain` strictly (case only),
    `raw` as it was written; `gap` is what stands between the word before and this one.
    """

    form: str
    plain: str
    raw: str
    gap: str


class Words(NamedTuple):
    """The words of a text, and what follows the last of them."""

    tokens: list[Token]
    tail: str

    def gap_after(self, place: int) -> str:
        """What stands behind the word at `place`."""
        return self.tokens[place + 1].gap if place + 1 < len(self.tokens) else self.tail


def visible(text: str) -> str:
    """Full-width letters and Roman numerals made plain, quotes and dashes too; invisible characters dropped."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).translate(_TYPOGRAPHY)


def words(text: str, *, lenient: bool) -> Words:
    """Splits a text that went through `visible`; leniently `n't` becomes `not` and the word `the` is left out."""
    if lenient and "'" in text:
        text = _NOT.sub(" not", _NEGATED_RE.sub(lambda found: _NEGATED[found[0].lower()], text))
    tokens: list[Token] = []
    end, held = 0, ""
    for found in _WORD.finditer(text):
        raw, gap = found[0], held + text[end : found.start()]
        end, held = found.end(), ""
        plain = raw.casefold()
        if not lenient:
            tokens.append(Token(plain, plain, raw, gap))
            continue
        if plain == "the":
            held = gap
            continue
        folded = _fold(plain)
        if folded in _JOINED:
            parts = _JOINED[folded]
            tokens.extend(Token(part, plain, raw, gap if place == 0 else " ") for place, part in enumerate(parts))
        else:
            tokens.append(Token(_singular(folded), plain, raw, gap))
    return Words(tokens, held + text[end:])


def first_word(text: str) -> str:
    """The first word of a text as `Token.plain` has it; empty where there is no word."""
    found = _WORD.search(text)
    return found[0].casefold() if found else ""


def forms(text: str) -> tuple[str, ...]:
    """The lenient forms of a phrase."""
    return tuple(token.form for token in words(visible(text), lenient=True).tokens)


def _fold(plain: str) -> str:
    if not plain.isascii():
        plain = plain.translate(_LOOK_ALIKES)
        plain = "".join(char for char in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(char))
    if "aem" in plain:
        plain = plain.replace("ischaem", "ischem")
    return plain


def _singular(word: str) -> str:
    if len(word) < 4 or not word.isalpha():
        return word
    if word.endswith("systolen"):
        return word[:-1]
    if not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 5:
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes")):
        return word[:-2]
    return word[:-1]
