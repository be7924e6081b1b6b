"""Template files: what is accepted renders fast and exactly; what could do harm is refused when it is read."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecglm.synth.database import LockedConnection
from ecglm.synth.errors import DefinitionError, RenderError
from ecglm.synth.facts import ACROSS_BLOCKS, ECG_VIEWS
from ecglm.synth.gate import DOUBTS
from ecglm.synth.guidelines import load_guidelines
from ecglm.synth.sandbox import number, sentence
from ecglm.synth.templates import MAX_TEXT, TURN_END, Template, load_templates, parse_template
from ecglm.synth.validate import empty_views, sql_problems

HEADER = """---
id: an-example
version: 1
family: verify
question_type: single-verify
description: an example
slots: [code]
answers: free
sql: SELECT ecg_id, code, phrase FROM labels
---
"""


def template_of(*turns: str, header: str = HEADER) -> Template:
    body = "".join(f"## {'user' if n % 2 == 0 else 'assistant'}\n{text}\n" for n, text in enumerate(turns))
    template, violations = parse_template(header + body, "an-example.jinja", {})
    assert not violations, violations
    assert template is not None
    return template


def rendered(template: Template, columns: dict[str, list[object]], variants: list[list[int]]) -> list[list[str]]:
    """The turns of each row."""
    chosen = [np.array(each, np.int64) for each in variants]
    said = template.compiled.render(pa.table(columns), chosen).text.decode().split(TURN_END)[:-1]
    turns = len(template.turns)
    return [said[start : start + turns] for start in range(0, len(said), turns)]


def problems_of(text: str) -> list[str]:
    body = f"## user\n- Question?\n## assistant\n- {text}\n"
    _, violations = parse_template(HEADER + body, "an-example.jinja", {})
    return [violation.message for violation in violations]


def test_each_row_gets_the_wording_its_variant_names() -> None:
    template = template_of("- Is {{ phrase }} there?\n- Any {{ phrase }}?", "- Yes, {{ phrase }}.")
    texts = rendered(template, {"phrase": ["AFIB", "LVH"]}, [[1, 0], [0, 0]])
    assert texts == [["Any AFIB?", "Yes, AFIB."], ["Is LVH there?", "Yes, LVH."]]


def test_continued_lines_keep_their_breaks() -> None:
    template = template_of("- Report?", "- Rhythm: {{ rhythm }}\n  Rate: {{ rate }}")
    assert (
        rendered(template, {"rhythm": ["sinus"], "rate": ["72/min"]}, [[0], [0]])[0][1] == "Rhythm: sinus\nRate: 72/min"
    )


def test_wordings_know_their_line_in_the_file() -> None:
    template = template_of("- One?\n- Two?", "- Answer.")
    lines = template.text.split("\n")
    for turn in template.turns:
        for alternative, line in zip(turn.alternatives, turn.lines, strict=True):
            assert lines[line - 1] == f"- {alternative}"


@pytest.mark.parametrize(
    "text",
    [
        "{{ phrase.__class__ }}",
        "{{ phrase.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.format }}",
        "{{ self }}",
        "{{ _rows }}",
        "{{ phrase[0] }}",
        "{{ phrase() }}",
        "{{ cycler('a') }}",
        "{{ lipsum(100000) }}",
        "{% for a in range(1000000000) %}x{% endfor %}",
        "{% for a in items %}{% for b in a.more %}{% for c in b.more %}x{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in items recursive %}{{ a }}{% endfor %}",
        "{% for a in 'abc' %}{{ a }}{% endfor %}",
        "{% for a in items %}{{ a.items }}{% endfor %}",
        "{% for a in items %}{{ a.__class__ }}{% endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{{ 2 ** 1000000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ phrase ~ phrase }}",
        "{{ phrase + phrase }}",
        "{{ phrase|center(1000000000) }}",
        "{{ phrase|replace('a', phrase) }}",
        "{{ phrase|attr('__class__') }}",
        "{{ items|map(attribute='x')|list }}",
        "{{ phrase is defined }}",
        "{% set a = phrase %}",
        "{% macro f() %}{% endmacro %}",
        "{% include 'other' %}",
        "{% import 'other' as o %}",
        "{% extends 'other' %}",
        "{% block b %}{% endblock %}",
        "{% with a = 1 %}{% endwith %}",
        "{% filter upper %}x{% endfilter %}",
        "{% call f() %}{% endcall %}",
        "{% do phrase %}",
        "{% endfor %}{% for a in items %}",
        "{% if phrase %}",
        "{{ phrase",
        "{{ }}",
    ],
)
def test_what_could_do_harm_is_refused_when_it_is_read(text: str) -> None:
    assert problems_of(text)


@pytest.mark.parametrize("depth", [20, 49, 50, 51, 52, 53, 54, 96, 97, 98, 99, 190, 198, 199, 200, 300, 480, 600, 2000])
@pytest.mark.parametrize(
    ("opening", "middle", "closing", "end"),
    [
        ("{{ phrase", "|upper", "", " }}"),
        ("{{ phrase", " or (phrase", ")", " }}"),
        ("{% if phrase", " and phrase", "", " %}x{% endif %}"),
        ("x", "{% if phrase %}x", "{% endif %}", ""),
    ],
)
def test_what_is_nested_too_deeply_is_told_when_it_is_read(
    opening: str, middle: str, closing: str, end: str, depth: int
) -> None:
    text = opening + middle * depth + closing * depth + end
    body = f"## user\n- Question?\n- Another?\n## assistant\n- Short.\n- {text}\n"
    template, violations = parse_template(HEADER + body, "an-example.jinja", {})
    if template is None:
        (violation,) = violations
        assert re.search(r"line 16: .*(nested too deeply|too many|recursion)", violation.message)
        return
    for phrases in (["an LVH"], ["an LVH", "an LVH", None]):  # compiled in another way where there is a NULL
        with contextlib.suppress(RenderError):
            rendered(template, {"phrase": phrases}, [[0] * len(phrases), [1] * len(phrases)])


def test_an_undefined_name_and_a_null_are_never_printed() -> None:
    template = template_of("- Q?", "- {{ rate }}")
    with pytest.raises(RenderError, match="NULL"):
        rendered(template, {"rate": ["72/min", None]}, [[0, 0], [0, 0]])


def test_a_null_may_be_asked_about() -> None:
    template = template_of("- Q?", "- {% if rate is none %}not measured{% else %}{{ rate }}{% endif %}")
    assert [t[1] for t in rendered(template, {"rate": [None, "72/min"]}, [[0, 0]] * 2)] == [
        "not measured",
        "72/min",
    ]


def test_a_field_that_an_item_of_a_loop_lacks_is_named() -> None:
    template = template_of("- Q?", "- {% for item in items %}{{ item.source }}{% endfor %}")
    assert rendered(template, {"items": [[{"source": "ESC"}]]}, [[0], [0]]) == [["Q?", "ESC"]]
    with pytest.raises(RenderError, match="no field 'source'"):
        rendered(template, {"items": [[{"words": "PR > 200 ms"}]]}, [[0], [0]])
    with pytest.raises(RenderError, match="does not fit its value"):
        rendered(template, {"items": [["PR > 200 ms"]]}, [[0], [0]])


def test_a_name_outside_a_loop_is_a_row_field_whatever_the_loop_calls_its_items() -> None:
    template = template_of("- Q?", "- {% for name in names %}{{ name }}, {% endfor %}{{ name }}")
    assert template.variables == ("name", "names")
    assert rendered(template, {"name": ["LVH"], "names": [["AFIB"]]}, [[0], [0]]) == [["Q?", "AFIB, LVH"]]


def test_a_loop_cannot_fill_the_memory() -> None:
    template = template_of("- Q?", "- {% for a in items %}{% for b in items %}{{ a }}{{ b }}{% endfor %}{% endfor %}")
    with pytest.raises(RenderError, match="64 kB"):
        rendered(template, {"items": [["x" * 1000] * 10_000]}, [[0], [0]])


def test_one_over_long_text_among_short_ones_is_refused() -> None:
    template = template_of("- Q?", "- {{ report }}")
    with pytest.raises(RenderError, match="64 kB"):
        rendered(template, {"report": ["fine", "x" * (MAX_TEXT + 1)]}, [[0, 0]] * 2)


def test_control_characters_in_a_field_are_an_error_not_a_shift_of_rows() -> None:
    template = template_of("- Q?", "- {{ report }}")
    with pytest.raises(RenderError, match="control characters"):
        rendered(template, {"report": ["a\x1eb", "c"]}, [[0, 0]] * 2)
    with pytest.raises(RenderError, match="control characters"):
        rendered(template, {"report": ["a\x1fb", "c"]}, [[0, 0]] * 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no front matter", "front matter"),
        (HEADER.replace("version: 1", "version: 1\nversion: 2") + "## user\n- Q?\n## assistant\n- A.", "appears twice"),
        (HEADER.replace("version: 1", "versio: 1") + "## user\n- Q?\n## assistant\n- A.", "versio"),
        (HEADER.replace("answers: free", "answers: colours") + "## user\n- Q?\n## assistant\n- A.", "no vocabulary"),
        (HEADER + "## assistant\n- A.", "alternate"),
        (HEADER + "## user\n- Q?", "alternate"),
        (HEADER + "## user\nQ?\n## assistant\n- A.", "expected `- `"),
        (HEADER + "## user\n- Q?\n- Q?\n## assistant\n- A.", "says the same twice"),
        (HEADER + "## user\n## assistant\n- A.", "without a wording"),
        (HEADER + "x" * MAX_TEXT, "64 kB"),
    ],
)
def test_each_mistake_is_named(text: str, message: str) -> None:
    template, violations = parse_template(text, "an-example.jinja", {})
    assert template is None
    assert any(message in violation.message for violation in violations), violations


def test_all_mistakes_of_a_folder_are_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "verify").mkdir()
    (tmp_path / "verify" / "an-example.jinja").write_text(HEADER + "## user\n- {{ a\n## assistant\n- {% set b = 1 %}\n")
    (tmp_path / "verify" / "other.jinja").write_text(HEADER + "## user\n- Q?\n## assistant\n- A.\n")
    with pytest.raises(DefinitionError) as error:
        load_templates(tmp_path)
    assert str(error.value).count("\n") >= 2
    for place in ("an-example.jinja", "other.jinja"):
        assert place in str(error.value)


@given(st.text(max_size=40))
def test_sentence_changes_the_first_letter_only(text: str) -> None:
    assert sentence(text)[1:] == text[1:] or sentence(text).endswith(text[1:])


@given(st.floats(-1e6, 1e6), st.integers(0, 6))
def test_number_never_prints_minus_zero(value: float, digits: int) -> None:
    text = number(value, digits)
    assert float(text) == pytest.approx(value, abs=10.0**-digits)
    assert not (text.startswith("-") and float(text) == 0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("round(0.15 * abs(label_index), 2)", "version of DuckDB"),
        ("ROUND (least(1, (2 + abs(3))) , label_index)", "version of DuckDB"),
        ("random()", "run to run"),
        ("hash(code)", "run to run"),
        ("round(label_index)", None),
        ("round(least(1, 2)) + greatest(3, 4)", None),
        ("floor(15 * label_index + 0.5) / 100", None),
    ],
)
def test_sql_whose_answer_may_change_is_named(value: str, message: str | None) -> None:
    sql = f"SELECT ecg_id, code, phrase, {value} AS shown FROM labels"
    header = re.sub(r"sql: .*", f"sql: {sql}", HEADER)
    template = template_of("- How much {{ phrase }}?", "- {{ shown }}", header=header)
    with LockedConnection(empty_views(load_guidelines(check_sql=False)), setup=[DOUBTS]) as connection:
        problems = sql_problems(template, connection)
    assert [message in problem for problem in problems] == ([True] if message else [])


def test_two_ecgs_are_compared_by_a_view_that_spans_blocks() -> None:
    """The earlier ECG may be in a block that the template does not see: a join of its rows would lose the pair."""
    for template in load_templates(None):
        views = set(re.findall(r"\w+", template.header.sql)) & set(ECG_VIEWS)
        if views & set(ACROSS_BLOCKS):
            assert views <= set(ACROSS_BLOCKS), template.id
