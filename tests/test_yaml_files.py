"""YAML that people write: plain data, and clear words for everything else."""

from __future__ import annotations

import pytest

from ecglm.synth.errors import DefinitionError
from ecglm.synth.yaml_files import MAX_BYTES, parse_yaml


def test_clinical_words_stay_words() -> None:
    text = "answers: [yes, no, on, off]\ncode: 1AVB\nflag: true\ndate: 2024-01-02\nvalue: 0.35\n"
    assert parse_yaml(text, "f") == {
        "answers": ["yes", "no", "on", "off"],
        "code": "1AVB",
        "flag": True,
        "date": "2024-01-02",
        "value": 0.35,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("code: A\ncode: B\n", "line 2: key 'code' appears twice"),
        ("a: {b: 1, b: 2}\n", "appears twice"),
        ("a: &x [1]\nb: *x\n", "anchors"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "anchors"),
        ("a: [1\n", "line"),
        ("a: !!python/object/apply:os.system ['true']\n", "python"),
        ("x" * (MAX_BYTES + 1), "longer than"),
    ],
)
def test_each_surprise_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        parse_yaml(text, "file.yaml")
