"""Where an answer says which part of it is the answer: JSON, tags, boxes, "Answer:", "therefore"."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

_KEYS = ("final_answer", "answer", "response", "result", "prediction", "label", "diagnosis", "output", "antwort")
_JSON_CHARS = 20_000
_SPECIAL = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?(?:s|b|i|p|em|strong|br|div|span|code)\s{0,3}/?>", re.IGNORECASE)
_LATEX = re.compile(r"\\(?:text|mathrm|mathbf|textbf|rm)\b|\$|\\[()\[\]]")
_TAGGED = re.compile(r"<(?:final_?)?answer>", re.IGNORECASE)
_END_TAG = re.compile(r"</(?:final_?)?answer>", re.IGNORECASE)
_BOXED = "\\boxed{"
_RANKS = (
    re.compile(
        r"\b(?:final answer|endgültige antwort|slutgiltigt svar)\b[ \t]*(?:is\b|lautet\b|ist\b|är\b)?[\s:=-]*",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:answer|choice|response|antwort|svar|svaret)[ \t]*"
        r"(?:\bis\b|\bwould be\b|\blautet\b|\bist\b|\bär\b|[:=]|-|\n)[\s:=-]*"
        r"|\b(?:correct|right|best) option is\b[\s:]*"
        r"|^[ \t#>]*(?:assistant|a)[ \t]?:[ \t]*",
        re.IGNORECASE | re.MULTILINE,
    ),
)
_CONCLUSION = re.compile(
    r"\b(?:therefore|thus|hence|in conclusion|conclusion|in summary|to conclude|overall|daher|somit|fazit)\b[\s:,]*"
    r"|(?:^|[.,;:\n])[ \t]*so\b[ \t,]*(?!far\b)",
    re.IGNORECASE,
)
# A text without these needs no search: substrings are found ten times as fast as patterns.
_HINTS = (
    ("final", "endgültig", "slutgiltig"),
    ("answer", "choice", "respon", "antwort", "svar", "option", "assistant", "a:", "a\t:", "a :"),
    ("therefore", "thus", "hence", "conclu", "summary", "overall", "daher", "somit", "fazit", "so"),
)


class Part(NamedTuple):
    """A piece of an answer that is marked as the answer."""

    text: str
    line: str
    """Its first line, read before the rest is."""


def without_thoughts(text: str) -> str:
    """Drops what stands between think tags; an open tag drops the rest."""
    for name in ("think", "thinking", "thought", "reasoning", "scratchpad"):
        opening, closing = f"<{name}>", f"</{name}>"
        if opening not in text and closing not in text:
            continue
        kept, end = [], 0
        if closing in text and (opening not in text or text.index(closing) < text.index(opening)):
            end = text.index(closing) + len(closing)
        while (start := text.find(opening, end)) >= 0:
            kept.append(text[end:start])
            close = text.find(closing, start)
            end = len(text) if close < 0 else close + len(closing)
        text = " ".join([*kept, text[end:]])
    return text


def plain_markup(text: str) -> str:
    """Drops marks of chat formats, HTML and LaTeX that mean nothing here."""
    return _LATEX.sub(" ", _SPECIAL.sub(" ", text))


def json_answer(text: str) -> str | None:
    """The answer that a JSON object in the text gives, as text; None where there is no such object."""
    start, stop = text.find("{"), text.rfind("}")
    if start < 0 or stop < start or stop - start > _JSON_CHARS:
        return None
    try:
        content = json.loads(text[start : stop + 1])
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    by_name = {str(key).strip().casefold().replace(" ", "_"): value for key, value in content.items()}
    for key in _KEYS:
        if key in by_name:
            return _as_text(by_name[key])
    return None


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_as_text(item) for item in value)
    return "" if value is None else str(value)


def marked_parts(text: str, *, conclusions: bool) -> list[list[Part]]:
    """The parts marked as the answer, the strongest kind of mark first, `conclusions` such as "therefore" last."""
    folded = text.casefold()
    kinds = [_enclosed(text)] if "answer>" in folded or _BOXED in text else []
    for pattern, hints in zip(_RANKS, _HINTS, strict=False):
        if not any(hint in folded for hint in hints):
            continue
        found = list(pattern.finditer(text))
        ends = [*(match.start() for match in found), len(text)][1:]
        kinds.append([_part(text[match.end() : end]) for match, end in zip(found, ends, strict=True)])
    if conclusions and any(hint in folded for hint in _HINTS[-1]):
        *_, last = (None, *_CONCLUSION.finditer(text))
        if last is not None:
            kinds.append([_part(text[last.end() :])])
    return [kind for kind in kinds if kind]


def _part(text: str) -> Part:
    stripped = text.strip()
    return Part(stripped, stripped.partition("\n")[0])


def _enclosed(text: str) -> list[Part]:
    parts = []
    for opening in _TAGGED.finditer(text):
        close = _END_TAG.search(text, opening.end())
        parts.append(_part(text[opening.end() : close.start() if close else len(text)]))
        if close is None:
            break
    start = text.find(_BOXED)
    while start >= 0:
        begin, depth, end = start + len(_BOXED), 1, start + len(_BOXED)
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        parts.append(_part(text[begin : end - 1 if depth == 0 else end]))
        start = text.find(_BOXED, end)
    return parts
