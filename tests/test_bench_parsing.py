"""Answers are read as what they mean: several hundred judged by a reader first, and what must hold for any text."""

from __future__ import annotations

import ast
import csv
import itertools
import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ecglm.bench.parsing import OptionReader, Parsed, ParsingError, parse_answer, parse_number
from ecglm.bench.parsing.text import forms
from ecglm.synth.guidelines import load_guidelines
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


NUMBERS_FILE = Path(__file__).with_name("bench_parsing_numbers.yaml")
NUMBERS = [
    pytest.param(text, unit, strict, strict if lenient == "same" else lenient, id=f"{text[:60]!r} in {unit} ({why})")
    for text, unit, strict, lenient, why in parse_yaml(NUMBERS_FILE.read_text(encoding="utf-8"), NUMBERS_FILE.name)[
        "answers"
    ]
]


@pytest.mark.parametrize(("text", "unit", "strict", "lenient"), NUMBERS)
def test_a_number_is_read_in_the_unit_asked_for(
    text: str, unit: str, strict: float | None, lenient: float | None
) -> None:
    found = parse_number(text, unit)
    assert (found.strict, found.lenient) == (strict, lenient), found.reason


# ------------------------------------------------------------------------------------------- what holds for any answer

OPTION_SETS = [(options, multiple) for options in ANSWERS["option_sets"].values() for multiple in (True, False)]
PIECES = ("yes", "no", "not", "none", "lead", "I", "II", "V1", "-", "V4", "sinus rhythm", "atrial", "fibrillation", ",")
PIECES += ("or", "and", ".", "?", "\n", "(B)", "Answer:", "{", "}", '"answer": ', "<think>", "</think>", "\\boxed{")
PIECES += (
    "is absent",
    "no evidence of",
    "not sure",
    "left",
    "bundle branch block",
    "ß",
    "İ",
    "\u0301",
    "\x00",
    "½",
    "160 ms",
)
texts = st.one_of(
    st.text(max_size=80),
    st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join),
    st.lists(st.sampled_from(PIECES)).map("".join),
)


@settings(deadline=None)
@given(text=texts, choice=st.sampled_from(OPTION_SETS))
def test_a_reading_holds_only_options_in_their_order_and_strict_is_lenient(
    text: str, choice: tuple[list[str], bool]
) -> None:
    options, multiple = choice
    found = parse_answer(text, options, multiple=multiple)
    for reading in (found.strict, found.lenient):
        if reading is not None:
            assert list(reading) == [option for option in options if option in reading]
            assert multiple or len(reading) == 1
    assert found.strict is None or found.lenient == found.strict
    assert found.reason
    assert found == OptionReader(options, multiple=multiple).parse(text)


@settings(deadline=None)
@given(choice=st.sampled_from(OPTION_SETS), data=st.data())
def test_every_set_of_options_joined_by_commas_is_read_back(
    choice: tuple[list[str], bool], data: st.DataObject
) -> None:
    options, multiple = choice
    real = [option for option in options if not option.startswith("none")]
    chosen = data.draw(st.lists(st.sampled_from(real), min_size=1, max_size=5 if multiple else 1, unique=True))
    case = data.draw(st.sampled_from((str, str.upper, str.lower, str.title)))
    text = data.draw(st.sampled_from((", ", "; ", "\n", " and ", " & "))).join(map(case, chosen))
    found = parse_answer(text, options, multiple=multiple)
    assert found.strict == found.lenient == tuple(option for option in options if option in chosen)


WRAPPINGS = (
    "Answer: {}",
    "**{}**",
    "The answer is {}.",
    "<think>It could be none, or not.</think>\n{}",
    "<answer>{}</answer>",
    "\\boxed{{{}}}",
    "```\n{}\n```",
    "Final answer: {}\n",
    "I looked at every lead for a long time.\n\nAnswer: {}",
)


@settings(deadline=None)
@given(choice=st.sampled_from(OPTION_SETS), wrapping=st.sampled_from(WRAPPINGS), data=st.data())
def test_a_wrapping_does_not_change_what_is_read(
    choice: tuple[list[str], bool], wrapping: str, data: st.DataObject
) -> None:
    options, multiple = choice
    chosen = data.draw(st.lists(st.sampled_from(options), min_size=1, max_size=1, unique=True))
    found = parse_answer(wrapping.format(chosen[0]), options, multiple=multiple)
    assert found.lenient == tuple(chosen), found


@settings(deadline=None)
@given(text=texts, unit=st.sampled_from(("ms", "s", "bpm", "mV", "µV", "mm", "°", "%")))
def test_a_number_read_is_finite_and_strict_is_lenient(text: str, unit: str) -> None:
    found = parse_number(text, unit)
    assert found.strict is None or found.strict == found.lenient
    assert found.lenient is None or math.isfinite(found.lenient)


@settings(deadline=None)
@given(value=st.integers(-999_999, 999_999), decimals=st.integers(0, 3), comma=st.booleans())
def test_a_number_written_is_read_back(value: int, decimals: int, comma: bool) -> None:
    assume(not (comma and decimals == 3 and 1000 <= abs(value) < 1_000_000))  # then the comma separates thousands
    written = f"{value / 10**decimals:.{decimals}f}"
    text = written.replace(".", ",") if comma else written
    assert parse_number(f"{text} mV", "mV").strict == float(written)


LONG = {
    "words": "the quick brown fox ",
    "yes": "yes ",
    "white space": " \t",
    "line breaks": "\n",
    "open brackets": "{[(",
    "JSON": '{"answer": ',
    "markers": "answer: ",
    "boxes": "\\boxed{",
    "think tags": "<think>",
    "apostrophes": "can't ",
    "denials": "no ",
    "a denied list": "no atrial fibrillation, ",
    "names": "sinus rhythm and atrial fibrillation or ",
    "leads": "I, II, V1-",
    "combining marks": "a\u0301\u0327",
    "digits": "1",
    "numbers": "1,2.3-",
    "dashes": "-",
    "dots": "... ",
    "conclusions": "so, therefore, ",
    "one word": "a",
    "underscores": "a_",
    "options": "(A) ",
}


@pytest.mark.parametrize("piece", LONG.values(), ids=LONG)
@pytest.mark.parametrize("size", [19_000, 10_000_000], ids=["19 kB", "10 MB"])
def test_a_long_answer_is_read_fast(piece: str, size: int) -> None:
    text = "x" + (piece * (size // len(piece) + 1))[:size]
    started = time.process_time()
    for name in ("rhythms", "verify", "leads"):
        OptionReader(ANSWERS["option_sets"][name], multiple=True).parse(text)
    parse_number(text, "ms")
    assert time.process_time() - started < 2.0


def test_many_sets_of_options_are_prepared_fast() -> None:
    """ECG-QA's choose questions name thousands of pairs."""
    names = [guideline.name for guideline in load_guidelines(check_sql=False).by_code.values()]
    parse_answer("warm up", names[:2], multiple=True)
    pairs = list(itertools.combinations(names[:50], 2))
    started = time.process_time()
    for first, second in pairs:
        assert parse_answer(f"It is {second}.", [first, second, "none"], multiple=True).lenient == (second,)
    assert (time.process_time() - started) / len(pairs) < 0.005


def test_the_end_of_a_very_long_answer_may_say_what_the_answer_is() -> None:
    rambling = "The tracing shows many things, no doubt. " * 250_000
    options = ["no", "yes"]
    assert parse_answer(rambling + "Answer: yes", options, multiple=False) == Parsed(None, ("yes",), "sentence")
    assert parse_answer(rambling + "yes", options, multiple=False) == Parsed(None, None, "too_long")
    assert parse_number(rambling + "Answer: 160 ms", "ms").lenient == 160


def test_an_answer_read_twice_is_read_the_same() -> None:
    options = ["sinus rhythm", "atrial fibrillation"]
    first = parse_answer("It is AF.", options, multiple=True)
    assert first == parse_answer("It is AF.", tuple(options), multiple=True)
    assert first.lenient == ("atrial fibrillation",)


def test_unparsed_is_none_and_never_an_option() -> None:
    options = ["no", "not sure", "yes"]
    readings = {parse_answer("The tracing is of good quality.", options, multiple=False) for _ in range(20)}
    assert readings == {Parsed(None, None, "nothing_found")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "at least one option"),
        ("yes", "expected a list"),
        (["yes", "..."], "no letter or digit"),
        (["Yes", "yes!"], "differ only in case or punctuation"),
    ],
)
def test_options_that_no_answer_can_be_read_against_are_refused(options: Sequence[str], message: str) -> None:
    with pytest.raises(ParsingError, match=message):
        parse_answer("yes", options, multiple=False)


def test_what_is_not_text_or_a_known_unit_is_refused() -> None:
    with pytest.raises(ParsingError, match="type NoneType"):
        parse_answer(None, ["yes", "no"], multiple=False)  # type: ignore[arg-type]
    with pytest.raises(ParsingError, match="'furlong'; known are ms"):
        parse_number("160", "furlong")


def test_every_option_of_ecgqa_is_read_as_itself(data_dir: Path) -> None:
    with (data_dir / "ecgqa" / "template_examples.csv").open(encoding="utf-8", newline="") as file:
        candidates = {row["answer_candidates"] for row in csv.DictReader(file)}
    for text in sorted(candidates):
        options = ast.literal_eval(text)
        for option in options:
            assert parse_answer(option, options, multiple=True).strict == (option,)
            for sentence in (f"Answer: {option}", f"**{option}**.", f"The answer is {option}."):
                assert parse_answer(sentence, options, multiple=True).lenient == (option,), sentence


def test_the_guidelines_synonyms_name_their_statement() -> None:
    guidelines = load_guidelines(check_sql=False).by_code
    names = {code: guideline.name for code, guideline in guidelines.items() if "diagnostic" in guideline.kinds}
    options = list(names.values())
    shared = Counter(
        forms(name) for guideline in guidelines.values() for name in {*guideline.synonyms.en, *guideline.synonyms.de}
    )
    read = asked = 0
    for code, name in names.items():
        for synonym in (*guidelines[code].synonyms.en, *guidelines[code].synonyms.de):
            if shared[forms(synonym)] > 1:
                continue
            asked += 1
            found = parse_answer(synonym, options, multiple=True)
            assert found.lenient in (None, (name,)), synonym
            read += found.lenient == (name,)
    assert asked > 300
    assert read / asked > 0.95
