"""Answers are read as what they mean: several hundred judged by a reader first, and what must hold for any text."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecglm.bench.parsing import Parsed, parse_answer
from ecglm.synth.yaml_files import parse_yaml

FILE = Path(__file__).with_name("bench_parsing_answers.yaml")
ANSWERS = parse_yaml(FILE.read_text(encoding="utf-8"), FILE.name)
CASES = [
    pytest.param(
        text,
        ANSWERS["option_sets"][group["options"]],
        group["multiple"],
        strict,
        strict if lenient == "same" else lenient,
        id=f"{group['name']}: {text[:60]!r} ({why})",
    )
    for group in ANSWERS["groups"]
    for text, strict, lenient, why in group["answers"]
]


def _tuple(reading: list[str] | None) -> tuple[str, ...] | None:
    return None if reading is None else tuple(reading)


@pytest.mark.parametrize(("text", "options", "multiple", "strict", "lenient"), CASES)
def test_an_answer_is_read_as_what_it_means(
    text: str, options: list[str], multiple: bool, strict: list[str] | None, lenient: list[str] | None
) -> None:
    found = parse_answer(text, options, multiple=multiple)
    assert (found.strict, found.lenient) == (_tuple(strict), _tuple(lenient)), found.reason
