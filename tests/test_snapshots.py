"""One pair of every template, as it was when a person last read it. After reading: pytest --snapshot-update."""

from __future__ import annotations

from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from ecglm.synth.build import BuildConfig, build
from ecglm.synth.corpus import Corpus
from ecglm.synth.schema import DEFAULT_FAMILIES

N_ECGS, SEED = 150, 1


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of each template the pair with the lowest id: a fixed draw that no edit of a text changes."""
    out = tmp_path_factory.mktemp("snapshots") / "corpus"
    build(BuildConfig(simulated=N_ECGS, seed=SEED, workers=1, out=out))
    columns = ["pair_id", "template_id", "family", "ecg_ids", "messages", "answers", "options", "evidence"]
    table = Corpus.open(out).table("pairs").to_table(columns=columns).sort_by("pair_id")
    drawn: dict[str, dict[str, Any]] = {}
    for pair in table.to_pylist():
        drawn.setdefault(pair["template_id"], pair)
    return drawn


def as_read(pair: dict[str, Any]) -> str:
    lines = [f"{pair['template_id']}  {' '.join(pair['ecg_ids'])}".rstrip()]
    lines += [f"{message['role']}: {message['content']}" for message in pair["messages"]]
    if 0 < len(pair["options"]) <= 8:  # longer lists are every statement of a kind
        lines.append(f"options: {' | '.join(pair['options'])}")
    if pair["answers"]:
        lines.append(f"answers: {' | '.join(pair['answers'])}")
    lines += [
        f"evidence: {item['name']} {_number(item['value'])} {item['unit']}  {item['limit'] or ''}".rstrip()
        for item in pair["evidence"]
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    """A statement of form or rhythm is annotated without a likelihood."""
    return "-" if value is None else f"{value:g}"


@pytest.mark.slow
@pytest.mark.parametrize("family", DEFAULT_FAMILIES)
def test_pairs_read_as_they_did(family: str, pairs: dict[str, dict[str, Any]], snapshot: SnapshotAssertion) -> None:
    drawn = [as_read(pair) for _, pair in sorted(pairs.items()) if pair["family"] == family]
    assert drawn, f"no template of family {family} made a pair"
    assert "\n\n".join(drawn) == snapshot
