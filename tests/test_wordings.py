"""What every template owes its reader: enough ways of asking, none like another, and evidence behind each pair."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import pyarrow.compute as pc

from ecglm.synth.corpus import Corpus
from ecglm.synth.templates import Template, read_templates

FEWEST_WORDINGS, MOST_ALIKE = 8, 0.8
OWN_WORDS = {"ecgqa"}
"""Families that keep the words of a published dataset."""


def templates() -> list[Template]:
    return [template for template in read_templates()[0] if template.header.family not in OWN_WORDS]


def skeleton(wording: str) -> tuple[str, ...]:
    """The words of a wording; every field it prints is the same word."""
    plain = re.sub(r"\{\{.*?\}\}", " x ", re.sub(r"\{%.*?%\}", " ", wording, flags=re.S), flags=re.S)
    return tuple(re.findall(r"\w+", plain.lower()))


def likeness(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """Dice's coefficient of the pairs of neighbouring words, beginning and end included."""
    pairs = [
        {pair for pair in zip(("^", *words), (*words, "$"), strict=True) if pair != ("x", "x")}
        for words in (one, other)
    ]
    return 2 * len(pairs[0] & pairs[1]) / (len(pairs[0]) + len(pairs[1]))


def test_every_question_is_asked_in_eight_ways() -> None:
    few = [
        f"{template.id}: turn {number} has {len(turn.alternatives)}"
        for template in templates()
        for number, turn in enumerate(template.turns)
        if turn.role == "user" and len(turn.alternatives) < FEWEST_WORDINGS
    ]
    assert not few


def test_no_two_ways_of_asking_are_alike() -> None:
    asked = [
        (skeleton(wording), f"{template.id}: {wording}")
        for template in templates()
        for turn in template.turns
        if turn.role == "user"
        for wording in turn.alternatives
    ]
    # two wordings over the limit share a pair of neighbouring words, so only those that share a rare one are compared
    sharing: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, (words, _) in enumerate(asked):
        for pair in set(zip(("^", *words), (*words, "$"), strict=True)):
            sharing[pair].append(number)
    candidates = {two for numbers in sharing.values() if len(numbers) <= 60 for two in combinations(sorted(numbers), 2)}
    alike = [
        f"{asked[one][1]}  |  {asked[other][1]}"
        for one, other in sorted(candidates)
        if likeness(asked[one][0], asked[other][0]) >= MOST_ALIKE
    ]
    assert not alike, "\n".join(alike)


def test_every_template_gives_evidence_or_a_guideline() -> None:
    bare = [t.id for t in templates() if not re.search(r"\b(evidence|guideline_ids)\b", t.header.sql)]
    assert not bare


def test_a_set_of_templates_is_complete() -> None:
    known = templates()
    assert len(known) >= 120
    assert len({template.header.family for template in known}) >= 16


def test_a_difference_is_taken_between_the_numbers_said() -> None:
    rounded_after = re.compile(r"quantity\(abs\([^()]+ - [^()]+\)")
    assert [template.id for template in templates() if rounded_after.search(template.header.sql)] == []


def test_what_is_not_met_is_said_once(simulated_corpus: Path) -> None:
    chosen = pc.field("template_id") == "rationale-support"
    pairs = Corpus.open(simulated_corpus).table("pairs").to_table(columns=["messages"], filter=chosen).to_pylist()
    parts = [
        re.split("; |: |, whereas this is not met: ", str(pair["messages"][1]["content"]).split("met nevertheless")[0])
        for pair in pairs
    ]
    assert any("frontal QRS axis" in part for said in parts for part in said)
    assert not [said for said in parts if len(set(said)) < len(said)]
