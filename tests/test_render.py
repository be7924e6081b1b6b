"""From rows to pairs: identities that never move, caps by hash, splits that are never crossed, and nothing silent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest
import xxhash

from ecglm.synth.database import LockedConnection
from ecglm.synth.errors import RenderError
from ecglm.synth.identities import content_hash, pair_fingerprint
from ecglm.synth.render import EcgRegister, render_block
from ecglm.synth.schema import ECGS, PAIRS, REJECTED
from ecglm.synth.templates import Template, Vocabulary, parse_template

YES_NO = Vocabulary(name="yes_no", description="closed", answers=("yes", "no"))
QUESTION, ANSWER = "- Is there {{ phrase }}?\n- Any {{ phrase }}?", "- Yes."

ECGS_AT_HAND = pa.Table.from_pylist(
    [
        {"ecg_id": "made:1", "patient_id": "made:10", "strat_fold": 1, "split": "train"},
        {"ecg_id": "made:2", "patient_id": "made:10", "strat_fold": 1, "split": "train"},
        {"ecg_id": "made:3", "patient_id": "made:30", "strat_fold": 9, "split": "validation"},
        {"ecg_id": "made:4", "patient_id": "made:40", "strat_fold": 10, "split": "test"},
    ],
    schema=ECGS,
)
LABELS = pa.table(
    {
        "ecg_id": ["made:1", "made:1", "made:2", "made:3", "made:4"],
        "code": ["AFIB", "LVH", "AFIB", "PACE", "LVH"],
        "phrase": ["atrial fibrillation", "hypertrophy", "atrial fibrillation", "a pacemaker", "hypertrophy"],
    }
)


def template_of(
    sql: str,
    *,
    user: str = QUESTION,
    assistant: str = ANSWER,
    template_id: str = "an-example",
    family: str = "verify",
    slots: str = "[code]",
    answers: str = "free",
    cap: int | None = None,
    version: int = 1,
) -> Template:
    text = (
        f"---\nid: {template_id}\nversion: {version}\nfamily: {family}\nquestion_type: single-verify\n"
        f"description: an example\nslots: {slots}\nanswers: {answers}\n"
        + (f"cap_per_ecg: {cap}\n" if cap else "")
        + f"sql: |\n  {sql}\n---\n## user\n{user}\n## assistant\n{assistant}\n"
    )
    template, violations = parse_template(text, "an-example.jinja", {"yes_no": YES_NO})
    assert template is not None, violations
    return template


def render(template: Template, labels: pa.Table = LABELS, source: str = "made") -> tuple[list[dict], list[dict]]:
    """Pairs and rejected rows, as plain data."""
    with LockedConnection({"labels": labels}) as connection:
        parts = list(render_block(template, connection, EcgRegister.of(ECGS_AT_HAND), source))
    assert all(part.pairs.schema == PAIRS and part.rejected.schema == REJECTED for part in parts)
    return together(part.pairs for part in parts), together(part.rejected for part in parts)


def together(tables: Iterable[pa.Table]) -> list[dict[str, Any]]:
    return [row for table in tables for row in table.to_pylist()]


def by_slot(pairs: list[dict[str, Any]], name: str) -> dict[tuple[str, ...], str]:
    return {(*pair["ecg_ids"], *pair["codes"]): pair[name] for pair in pairs}


ALL = "SELECT *, [code] AS codes FROM labels"

# ----------------------------------------------------------------------------------------------------------- identity


def test_a_pair_carries_whatever_its_provenance_needs() -> None:
    pairs, rejected = render(template_of(ALL))
    assert rejected == []
    first = pairs[0]
    assert first["ecg_ids"] == ["made:1"]
    assert first["patient_ids"] == ["made:10"]
    assert first["strat_folds"] == [1]
    assert (first["split"], first["family"], first["question_type"]) == ("train", "verify", "single-verify")
    assert (first["template_id"], first["source"], first["language"]) == ("an-example", "made", "en")
    assert first["template_hash"] == template_of(ALL).hash
    assert first["messages"][0] in (
        {"role": "user", "content": "Is there atrial fibrillation?"},
        {"role": "user", "content": "Any atrial fibrillation?"},
    )
    assert first["messages"][1] == {"role": "assistant", "content": "Yes."}
    assert [first[name] for name in ("answers", "options", "evidence", "guideline_ids")] == [[], [], [], []]


def test_identity_is_made_of_source_ecgs_template_slots_and_wording() -> None:
    (pair,) = [pair for pair in render(template_of(ALL))[0] if pair["ecg_ids"] == ["made:3"]]
    key = "made\x1fan-example\x1fmade:3\x1fPACE"
    assert pair["pair_id"] == xxhash.xxh3_128_hexdigest(f"{key}\x1f{pair['variant']}".encode())
    assert pair["variant"] == f"{xxhash.xxh3_64_intdigest(key.encode()) % 2}.0"


def test_identity_does_not_depend_on_text_and_version() -> None:
    before = render(template_of(ALL))[0]
    after = render(template_of(ALL, user="- {{ phrase }} here?\n- Seen {{ phrase }}?", version=2))[0]
    assert by_slot(before, "pair_id") == by_slot(after, "pair_id")
    assert set(by_slot(before, "content_hash").values()).isdisjoint(by_slot(after, "content_hash").values())
    assert before[0]["template_hash"] != after[0]["template_hash"]


@pytest.mark.parametrize("changes", [{"template_id": "another"}, {"slots": "[code, phrase]"}])
def test_identity_depends_on_template_and_slots(changes: dict[str, str]) -> None:
    before, after = render(template_of(ALL))[0], render(template_of(ALL, **changes))[0]
    assert set(by_slot(before, "pair_id").values()).isdisjoint(by_slot(after, "pair_id").values())


def test_identity_depends_on_the_source() -> None:
    before, after = render(template_of(ALL))[0], render(template_of(ALL), source="other")[0]
    assert set(by_slot(before, "pair_id").values()).isdisjoint(by_slot(after, "pair_id").values())


def test_a_missing_slot_value_is_an_identity_of_its_own() -> None:
    sql = "SELECT DISTINCT ecg_id, NULL AS code, 'it' AS phrase FROM labels"
    assert len({pair["pair_id"] for pair in render(template_of(sql))[0]}) == 4


def test_pairs_are_in_the_order_of_ecgs_and_slots_whatever_the_order_of_rows() -> None:
    forwards = render(template_of(ALL + " ORDER BY ecg_id, code"))[0]
    backwards = render(template_of(ALL + " ORDER BY ecg_id DESC, code DESC"))[0]
    assert [pair["pair_id"] for pair in forwards] == [pair["pair_id"] for pair in backwards]
    assert [pair["ecg_ids"][0] for pair in forwards] == ["made:1", "made:1", "made:2", "made:3", "made:4"]


def test_hashes_follow_the_messages_and_the_fingerprint_follows_both() -> None:
    template = template_of(ALL)
    with LockedConnection({"labels": LABELS}) as connection:
        parts = list(render_block(template, connection, EcgRegister.of(ECGS_AT_HAND), "made"))
    pairs = together(part.pairs for part in parts)
    for pair in pairs:
        assert pair["content_hash"] == content_hash([message["content"] for message in pair["messages"]])
    assert sum(part.fingerprint for part in parts) == sum(
        pair_fingerprint(pair["pair_id"], pair["content_hash"]) for pair in pairs
    )


def test_two_rows_with_one_identity_are_an_error_that_names_it() -> None:
    with pytest.raises(RenderError, match=r"an-example.*same identity \['made:1'\].*slots"):
        render(template_of(ALL, slots="[]"))


def test_a_slot_that_is_no_column_is_named() -> None:
    with pytest.raises(RenderError, match=r"slots \['kind'\]"):
        render(template_of(ALL, slots="[code, kind]"))


# --------------------------------------------------------------------------------------------------------------- caps

MANY = pa.table(
    {
        "ecg_id": [f"made:{1 + number // 10}" for number in range(40)],
        "code": [f"C{number % 10}" for number in range(40)],
        "phrase": ["something"] * 40,
    }
)


def test_how_many_rows_are_rendered_together_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = render(template_of(ALL), MANY)
    monkeypatch.setattr("ecglm.synth.render._BATCH_ROWS", 7)
    monkeypatch.setattr("ecglm.synth.templates._ROWS_AT_ONCE", 3)
    assert render(template_of(ALL), MANY) == at_once


def capped(sql: str, cap: int = 3) -> dict[str, set[str]]:
    chosen: dict[str, set[str]] = {}
    for pair in render(template_of(sql, cap=cap), MANY)[0]:
        chosen.setdefault(pair["ecg_ids"][0], set()).add(pair["codes"][0])
    return chosen


def test_a_cap_keeps_so_many_pairs_of_each_ecg() -> None:
    assert {ecg: len(codes) for ecg, codes in capped(ALL).items()} == {f"made:{n}": 3 for n in range(1, 5)}
    with LockedConnection({"labels": MANY}) as connection:
        parts = list(render_block(template_of(ALL, cap=3), connection, EcgRegister.of(ECGS_AT_HAND), "made"))
    assert sum(part.n_capped for part in parts) == 40 - 12


def test_what_a_cap_keeps_depends_on_nothing_but_the_rows_own_identity() -> None:
    chosen = capped(ALL)
    assert capped(ALL + " ORDER BY stable_hash(code)") == chosen
    alone = capped(ALL + " WHERE ecg_id = 'made:3'")
    assert alone["made:3"] == chosen["made:3"]
    assert all(codes <= capped(ALL, cap=5)[ecg] for ecg, codes in chosen.items()), "a higher cap adds, it never swaps"
    assert len(set(map(frozenset, chosen.values()))) > 1, "each ECG draws for itself"


def test_rejected_rows_are_all_kept_and_use_up_no_cap() -> None:
    sql = "SELECT *, [code] AS codes, CASE WHEN code < 'C5' THEN 'doubtful' END AS rejected FROM labels"
    pairs, rejected = render(template_of(sql, cap=3), MANY)
    assert len(pairs) == 12
    assert {pair["codes"][0] for pair in pairs} <= {f"C{number}" for number in range(5, 10)}
    assert len(rejected) == 20


THOUSANDS = (
    "SELECT 'made:' || (number % 4 + 1) AS ecg_id, 'C' || number // 4 AS code, 'something' AS phrase, [code] AS codes,"
    " CASE WHEN number % 1000 = 0 THEN 'doubtful' END AS rejected FROM range(20000) AS numbers(number)"
)


@pytest.mark.parametrize("sql", [THOUSANDS, THOUSANDS + " ORDER BY ecg_id"], ids=["mixed", "ECG by ECG"])
def test_a_large_answer_is_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    def outcome() -> tuple[list[dict], list[dict], int]:
        template = template_of(sql, cap=3)
        with LockedConnection({}) as connection:
            found = list(render_block(template, connection, EcgRegister.of(ECGS_AT_HAND), "made"))
        rejected = together(part.rejected for part in found)
        return together(part.pairs for part in found), rejected, sum(part.n_capped for part in found)

    whole = outcome()
    assert (len(whole[0]), len(whole[1]), whole[2]) == (12, 20, 20_000 - 32)
    monkeypatch.setattr("ecglm.synth.render._PART_ROWS", 2048)
    assert outcome() == whole


def test_two_rows_with_one_identity_are_told_of_in_a_large_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecglm.synth.render._PART_ROWS", 2048)
    far_apart = THOUSANDS.replace("number // 4", "CASE WHEN number = 19996 THEN 0 ELSE number // 4 END")
    for sql in (far_apart, THOUSANDS.replace("number // 4", "number // 8")):
        with pytest.raises(RenderError, match="two rows have the same identity"):
            render(template_of(sql, cap=1))


def test_knowledge_with_a_cap_is_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    sql = "SELECT 'C' || number AS code, 'something' AS phrase FROM range(10000) AS numbers(number)"
    whole = render(template_of(sql, family="knowledge", cap=3))
    assert len(whole[0]) == 3
    monkeypatch.setattr("ecglm.synth.render._PART_ROWS", 2048)
    assert render(template_of(sql, family="knowledge", cap=3)) == whole


# ------------------------------------------------------------------------------------------------- splits and rejection


TWO = "SELECT ['{}', '{}'] AS ecg_ids, 'a change' AS phrase"


def test_two_ecgs_of_one_split_make_a_pair_with_both_in_order() -> None:
    pairs, rejected = render(template_of(TWO.format("made:2", "made:1"), slots="[]"))
    assert rejected == []
    assert pairs[0]["ecg_ids"] == ["made:2", "made:1"]
    assert (pairs[0]["patient_ids"], pairs[0]["strat_folds"]) == (["made:10", "made:10"], [1, 1])


@pytest.mark.parametrize(("first", "second"), [("made:1", "made:3"), ("made:3", "made:4"), ("made:4", "made:1")])
def test_two_ecgs_of_different_splits_never_make_a_pair(first: str, second: str) -> None:
    pairs, rejected = render(template_of(TWO.format(first, second), slots="[]"))
    assert pairs == []
    assert [row["reason"] for row in rejected] == ["crosses_split"]
    assert rejected[0]["ecg_ids"] == [first, second]


def test_a_rejected_row_says_which_and_why() -> None:
    sql = "SELECT *, CASE WHEN code = 'LVH' THEN 'too_close_to_tell' END AS rejected FROM labels"
    pairs, rejected = render(template_of(sql))
    assert len(pairs) == 3
    assert rejected[0] == {
        "stage": "render",
        "ecg_ids": ["made:1"],
        "template_id": "an-example",
        "slots": "code=LVH",
        "reason": "too_close_to_tell",
        "detail": None,
    }


def test_knowledge_is_about_no_ecg_and_in_train() -> None:
    pairs, _ = render(template_of("SELECT 'AFIB' AS code, 'a rhythm' AS phrase", family="knowledge"))
    assert pairs[0]["split"] == "train"
    assert [pairs[0][name] for name in ("ecg_ids", "patient_ids", "strat_folds")] == [[], [], []]


def test_knowledge_about_an_ecg_is_refused() -> None:
    with pytest.raises(RenderError, match="knowledge is about no ECG"):
        render(template_of(ALL, family="knowledge"))


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT code, phrase FROM labels", "neither ecg_id nor ecg_ids"),
        ("SELECT 'made:99' AS ecg_id, 'X' AS code, 'x' AS phrase", "made:99 is not an ECG of this source"),
        ("SELECT ecg_id, code, no_such_column AS phrase FROM labels", "sql: .*no_such_column"),
        ("SELECT ecg_id, code, phrase, 5 AS answers FROM labels", "answers must be list"),
        ("SELECT ecg_id, code, phrase, ['PR 200 ms'] AS evidence FROM labels", "evidence must be list"),
        ("SELECT ecg_id, code, phrase, [{'name': 'PR'}] AS evidence FROM labels", "evidence must be list"),
        ("SELECT ecg_id, code, NULL::VARCHAR AS phrase FROM labels", "NULL would be printed"),
        ("SELECT ecg_id, code, 'a' || chr(31) || 'b' AS phrase FROM labels", "control characters"),
        ("SELECT ecg_id, code, repeat('x', 70000) AS phrase FROM labels", "64 kB"),
    ],
)
def test_what_a_select_may_not_return_is_named_with_the_template(sql: str, message: str) -> None:
    with pytest.raises(RenderError, match=rf"(?s)template an-example: .*{message}"):
        render(template_of(sql))


# -------------------------------------------------------------------------------------------------- answers and columns


def test_an_answer_outside_the_vocabulary_is_named() -> None:
    sql = "SELECT *, [CASE code WHEN 'PACE' THEN 'maybe' ELSE 'yes' END] AS answers FROM labels"
    with pytest.raises(RenderError, match=r"answers \['maybe'\] are not in its vocabulary yes_no"):
        render(template_of(sql, answers="yes_no"))
    pairs, _ = render(template_of(sql.replace("maybe", "no"), answers="yes_no"))
    assert {answer for pair in pairs for answer in pair["answers"]} == {"yes", "no"}


def test_lists_and_evidence_take_their_canonical_types() -> None:
    sql = (
        "SELECT *, [1, 2] AS options, NULL AS answers, []::INT[] AS guideline_ids,"
        " CASE WHEN code = 'LVH' THEN [{'value': 212, 'unit': 'ms', 'limit': NULL, 'name': 'PR_Int_Global'}] END"
        " AS evidence FROM labels"
    )
    pairs, _ = render(template_of(sql))
    of_code = {pair["messages"][0]["content"].rstrip("?").rsplit(" ", 1)[-1]: pair for pair in pairs}
    assert of_code["hypertrophy"]["evidence"] == [
        {"name": "PR_Int_Global", "value": 212.0, "unit": "ms", "limit": None}
    ]
    assert of_code["pacemaker"]["evidence"] == []
    assert of_code["pacemaker"]["options"] == ["1", "2"]
    assert (of_code["pacemaker"]["answers"], of_code["pacemaker"]["guideline_ids"]) == ([], [])


def test_no_rows_make_empty_tables_and_no_error() -> None:
    assert render(template_of(ALL + " WHERE false")) == ([], [])


def test_every_wording_is_chosen_for_some_row() -> None:
    user = "\n".join(f"- Wording {number}, {{{{ phrase }}}}?" for number in range(6))
    pairs, _ = render(template_of(ALL, user=user), MANY)
    assert {pair["messages"][0]["content"][8] for pair in pairs} == set("012345")
