"""From a template and the views of a block of ECGs to rows of `pairs` and `rejected`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.database import LockedConnection, quote_text
from ecglm.synth.errors import QueryError, RenderError
from ecglm.synth.identities import Identities, choices_of, content_hashes_of, fingerprint_of, keys_of, texts_of
from ecglm.synth.schema import EVIDENCE, MESSAGE, PAIRS, REJECTED, SPLITS
from ecglm.synth.templates import SPECIAL_COLUMNS, TURN_END, Spoken, Template

KNOWLEDGE_SPLIT = "train"
"""Split of a pair about no ECG: it holds no record, and a test of knowledge must not have been trained on."""

_BATCH_ROWS = 8192
_PART_ROWS = 32_768
"""Rows selected that are looked at together."""
_LIST_TYPES = {
    "answers": pa.list_(pa.string()),
    "options": pa.list_(pa.string()),
    "codes": pa.list_(pa.string()),
    "evidence": pa.list_(EVIDENCE),
    "guideline_ids": pa.list_(pa.string()),
}


@dataclass(frozen=True)
class EcgRegister:
    """Who is behind each ECG: parallel arrays in ECG order."""

    ecg_id: pa.Array
    patient_id: pa.Array
    strat_fold: pa.Array
    split: pa.Array

    @classmethod
    def of(cls, ecgs: pa.Table) -> EcgRegister:
        """The register of an `ecgs` table."""
        columns = ("ecg_id", "patient_id", "strat_fold", "split")
        return cls(*(ecgs[name].combine_chunks() for name in columns))

    @cached_property
    def split_number(self) -> npt.NDArray[np.int8]:
        """The split of each ECG as a place in `SPLITS`."""
        return np.asarray(pc.index_in(self.split, value_set=pa.array(SPLITS)), np.int8)


@dataclass(frozen=True)
class Rendered:
    """Some of what one template made of one block."""

    pairs: pa.Table
    """Of one split, in the order of ECG and slots."""
    rejected: pa.Table
    n_capped: int
    fingerprint: int


def render_block(
    template: Template, connection: LockedConnection, register: EcgRegister, source: str
) -> Iterator[Rendered]:
    """Renders every row the template selects: what is rejected first, then the pairs of each split in batches.

    Raises:
        RenderError: the SQL fails or returns what a template may not return, two rows are the same, or text
            cannot be rendered; names the template and what to do.
    """
    cap = template.header.cap_per_ecg
    try:
        connection.check(template.header.sql)
        found, n_left_out = _selected(template, connection, register, source)
    except QueryError as error:
        raise RenderError(f"template {template.id}: sql: {error}") from error
    order = _order(template, found.keys, found.places)
    refused, order = order[~found.usable[order]], order[found.usable[order]]
    n_usable = len(order)
    if cap is not None:
        order = order[found.within_cap(cap)[order]]
    rejected = _rejected(template, found.rows, pa.array(refused), found.reasons)
    yield Rendered(PAIRS.empty_table(), rejected, n_left_out + n_usable - len(order), 0)
    order = order[np.argsort(found.splits[order], kind="stable")]
    shown = [name for name in found.rows.column_names if name in (*template.variables, *_LIST_TYPES)]
    for first in range(0, len(order), _BATCH_ROWS):
        chosen = order[first : first + _BATCH_ROWS]
        which = pa.array(chosen)
        identities = Identities.of(template, found.keys.take(which), found.choices[chosen])
        rows, positions = found.rows.select(shown).take(which), found.positions.take(which)
        yield from _render_batch(template, rows, positions, identities, found.splits[chosen], register, source)


@dataclass(frozen=True)
class _Found:
    """Rows that a template selects, in one chunk, and what is known of each."""

    rows: pa.Table
    positions: pa.ListArray
    """Where its ECGs stand in the register."""
    keys: pa.Array
    """What it is about."""
    choices: npt.NDArray[np.uint64]
    """A hash of that: it picks the wordings, and the rows that a cap leaves."""
    splits: npt.NDArray[np.int64]
    reasons: pa.Array
    """Why no pair is made of it; NULL where one is."""

    @classmethod
    def of(cls, template: Template, rows: pa.Table, register: EcgRegister, source: str) -> _Found:
        rows = _with_ecg_ids(template, rows)
        _check_columns(template, rows)
        _check_vocabulary(template, rows)
        positions = _positions(template, rows, register)
        slots = [_whole(rows[slot]) for slot in template.header.slots]
        keys = keys_of(template, source, _whole(rows["ecg_ids"]), slots)
        splits, crossing = _splits(register.split_number, positions)
        reasons = pa.nulls(len(keys), pa.string())
        if "rejected" in rows.column_names:
            reasons = _whole(rows["rejected"]).cast(pa.string())
        if crossing.any():
            reasons = pc.if_else(pa.array(crossing), "crosses_split", reasons)
        return cls(rows, positions, keys, choices_of(keys), splits, reasons)

    @cached_property
    def places(self) -> npt.NDArray[np.int64]:
        """Where its last ECG stands in the register; -1 where it is about none."""
        return _last_of_each(self.positions, absent=-1)

    @cached_property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Whether a pair is made of it."""
        usable: npt.NDArray[np.bool_] = self.reasons.is_null().to_numpy(zero_copy_only=False)
        return usable

    def within_cap(self, cap: int) -> npt.NDArray[np.bool_]:
        """Which usable rows are among the `cap` of their ECG that come first by their hashes."""
        return _within_cap(self.choices, self.places, self.usable, cap)


def _selected(
    template: Template, connection: LockedConnection, register: EcgRegister, source: str
) -> tuple[_Found, int]:
    """What the template selects, and how many usable rows of it were left out, as they are over the cap of their ECG.

    A template may select ten times the rows that its cap leaves, so each part of the answer is looked at on its own.
    """
    sql, cap = _needed_columns_sql(template), template.header.cap_per_ecg
    if cap is None:
        return _Found.of(template, connection.select(sql), register, source), 0
    kept: list[pa.Table] = []
    choices: list[npt.NDArray[np.uint64]] = []
    n_left_out = 0
    with contextlib.closing(connection.batches(sql, _PART_ROWS)) as parts:
        part = next(parts)
        found = _Found.of(template, part, register, source)
        for following in parts:
            kept.append(part.filter(pa.array(found.within_cap(cap) | ~found.usable)))
            choices.append(found.choices)
            n_left_out += part.num_rows - kept[-1].num_rows
            part, found = following, _Found.of(template, following, register, source)
    if not kept:
        return found, 0
    every = np.sort(np.concatenate([*choices, found.choices]))
    if (every[1:] == every[:-1]).any():  # rows with one identity: they are told of where all are there
        return _Found.of(template, connection.select(sql), register, source), 0
    return _Found.of(template, pa.concat_tables([*kept, part]), register, source), n_left_out


def _needed_columns_sql(template: Template) -> str:
    """The template's SELECT without the columns that only help it to choose rows."""
    names = ", ".join(map(quote_text, (*SPECIAL_COLUMNS, *template.header.slots, *template.variables)))
    return f"SELECT COLUMNS(lambda name: name IN ({names})) FROM (\n{template.header.sql}\n) AS template_rows"


def _with_ecg_ids(template: Template, rows: pa.Table) -> pa.Table:
    """The rows, in one chunk, with a list column ecg_ids, whatever way the template names its ECGs."""
    rows = rows.combine_chunks()
    if template.header.family == "knowledge":
        if {"ecg_id", "ecg_ids"} & set(rows.column_names):
            raise RenderError(
                f"template {template.id}: family knowledge is about no ECG; remove ecg_id from the SELECT"
            )
        empty = pa.ListArray.from_arrays(pa.array([0] * (rows.num_rows + 1), pa.int32()), pa.array([], pa.string()))
        return rows.append_column("ecg_ids", empty)
    if "ecg_ids" in rows.column_names:
        position = rows.column_names.index("ecg_ids")
        return rows.set_column(position, "ecg_ids", rows["ecg_ids"].cast(pa.list_(pa.string())))
    if "ecg_id" not in rows.column_names:
        raise RenderError(f"template {template.id}: the SELECT returns neither ecg_id nor ecg_ids")
    ids = _whole(rows["ecg_id"]).cast(pa.string())
    offsets = pa.array(np.arange(len(ids) + 1, dtype=np.int32))
    return rows.append_column("ecg_ids", pa.ListArray.from_arrays(offsets, ids))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _positions(template: Template, rows: pa.Table, register: EcgRegister) -> pa.ListArray:
    """For each row, where its ECGs stand in the register."""
    ecg_lists = _whole(rows["ecg_ids"])
    ids = ecg_lists.flatten()
    positions = pc.index_in(ids, value_set=register.ecg_id)
    if positions.null_count:
        stranger = ids.filter(positions.is_null())[0].as_py()
        raise RenderError(f"template {template.id}: {stranger} is not an ECG of this source")
    return pa.ListArray.from_arrays(_offsets(ecg_lists), positions)


def _offsets(lists: pa.ListArray) -> pa.Array:
    first = lists.offsets[0] if len(lists) else None
    return pc.subtract(lists.offsets, first) if first is not None and first.as_py() else lists.offsets


def _last_of_each(lists: pa.ListArray, absent: int) -> npt.NDArray[np.int64]:
    """The last number of each list; `absent` for an empty one."""
    bounds = np.asarray(_offsets(lists))
    numbers = lists.flatten().to_numpy()
    found = np.full(len(lists), absent, np.int64)
    filled = np.diff(bounds) > 0
    found[filled] = numbers[bounds[1:][filled] - 1]
    return found


def _check_columns(template: Template, rows: pa.Table) -> None:
    absent = [slot for slot in template.header.slots if slot not in rows.column_names]
    if absent:
        raise RenderError(f"template {template.id}: slots {absent} are not columns of its SELECT")
    unknown = [name for name in template.variables if name not in rows.column_names]
    if unknown:
        raise RenderError(
            f"template {template.id}: the body uses {unknown}, which its SELECT does not return; add it there or"
            " correct the name"
        )


def _order(template: Template, keys: pa.Array, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rows in the order of ECG and slots."""
    by_place = np.argsort(places, kind="stable")
    if (np.diff(places[by_place]) > 0).all():
        return by_place
    order = pc.sort_indices(
        pa.table({"place": places, "key": keys}), sort_keys=[("place", "ascending"), ("key", "ascending")]
    )
    ordered = keys.take(order)
    repeated = pc.equal(ordered[1:], ordered[:-1])
    if pc.any(repeated).as_py():
        twice = ordered[1:].filter(repeated)[0].as_py().split(TURN_END)[2:]
        raise RenderError(
            f"template {template.id}: two rows have the same identity {twice}; add the column that differs to slots"
        )
    return np.asarray(order, np.int64)


def _within_cap(
    choices: npt.NDArray[np.uint64], places: npt.NDArray[np.int64], usable: npt.NDArray[np.bool_], cap: int
) -> npt.NDArray[np.bool_]:
    """Which usable rows are among the `cap` of their ECG that come first by the hash of their identity."""
    kept = usable.copy()
    n_usable = np.bincount(places + 1, weights=usable)
    crowded = np.flatnonzero(usable & (n_usable[places + 1] > cap))
    order = crowded[np.lexsort((choices[crowded], places[crowded]))]
    starts = np.flatnonzero(np.diff(places[order], prepend=-2))
    rank_in_ecg = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    kept[order] = rank_in_ecg < cap
    return kept


def _check_vocabulary(template: Template, rows: pa.Table) -> None:
    if not template.vocabulary or "answers" not in rows.column_names:
        return
    given = pc.unique(pc.list_flatten(_whole(rows["answers"]))).to_pylist()
    strange = sorted(set(given) - set(template.vocabulary), key=str)
    if strange:
        raise RenderError(
            f"template {template.id}: answers {strange} are not in its vocabulary {template.header.answers};"
            f" add them there or correct the SQL"
        )


def _guidelines_behind(lists: dict[str, pa.ListArray]) -> pa.ListArray:
    """The guidelines a row names; if it names none but quotes a limit, those of its statements."""
    evidence, named = lists["evidence"], lists["guideline_ids"]
    unnamed = np.diff(named.offsets) == 0
    if not unnamed.any():
        return named
    quotes = np.concatenate([[0], np.cumsum(pc.is_valid(pc.struct_field(evidence.values, "limit")))])
    limited = np.diff(quotes[evidence.offsets]) > 0
    row = np.arange(len(named))
    return pa.concat_arrays([named, lists["codes"]]).take(pa.array(np.where(limited & unnamed, row + len(row), row)))


def _render_batch(
    template: Template,
    rows: pa.Table,
    positions: pa.ListArray,
    identities: Identities,
    splits: npt.NDArray[np.int64],
    register: EcgRegister,
    source: str,
) -> Iterator[Rendered]:
    """The pairs of rows that are in the order of their splits, each split's on their own."""
    offsets, ecgs = _offsets(positions), positions.flatten()

    def of_ecgs(values: pa.Array) -> pa.ListArray:
        return pa.ListArray.from_arrays(offsets, values.take(ecgs))

    spoken = template.compiled.render(rows.select(list(template.variables)), identities.variants)
    content_hashes = content_hashes_of(spoken, len(template.turns))

    def constant(text: str) -> pa.Array:
        return _for_every_row((text,))[: len(rows)]

    lists = {name: _list_column(template, rows, name, list_type) for name, list_type in _LIST_TYPES.items()}
    lists["guideline_ids"] = _guidelines_behind(lists)
    arrays = {
        "pair_id": texts_of(identities.pair_ids),
        "content_hash": texts_of(content_hashes),
        "ecg_ids": of_ecgs(register.ecg_id),
        "patient_ids": of_ecgs(register.patient_id),
        "strat_folds": of_ecgs(register.strat_fold),
        "split": pa.array(SPLITS).take(pa.array(splits)),
        "family": constant(template.header.family),
        "question_type": constant(template.header.question_type),
        "messages": _messages(template, _contents(spoken)),
        **lists,
        "template_id": constant(template.id),
        "template_hash": constant(template.hash),
        "variant": identities.variant,
        "language": constant(template.header.language),
        "source": constant(source),
    }
    pairs = pa.table([arrays[name] for name in PAIRS.names], schema=PAIRS)
    for start, stop in pairwise(np.flatnonzero(np.diff(splits, prepend=-1, append=-1)).tolist()):
        fingerprint = fingerprint_of(identities.pair_ids[start:stop], content_hashes[start:stop])
        yield Rendered(_part(pairs, start, stop), REJECTED.empty_table(), 0, fingerprint)


def _part(table: pa.Table, start: int, stop: int) -> pa.Table:
    """Some rows; few are copied, or they would keep all the others in memory."""
    part = table.slice(start, stop - start)
    if 2 * len(part) > len(table):
        return part
    return pa.concat_tables([part, table.slice(0, 0)]).combine_chunks()  # which copies where there are two


@lru_cache(maxsize=16)
def _for_every_row(texts: tuple[str, ...]) -> pa.Array:
    """The texts one after the other for each row of a batch."""
    return pa.array(texts).take(pa.array(np.tile(np.arange(len(texts)), _BATCH_ROWS)))


def _contents(spoken: Spoken) -> pa.Array:
    """The text of every turn."""
    ends = (spoken.ends - np.arange(len(spoken.ends))).astype(np.int32)
    offsets = np.concatenate([np.zeros(1, np.int32), ends])
    text = spoken.text.replace(TURN_END.encode(), b"")
    return pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(text))


def _splits(
    split_number: npt.NDArray[np.int8], positions: pa.ListArray
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The split of each row's last ECG as a place in `SPLITS`, and whether its ECGs are of different splits."""
    numbers = split_number[positions.flatten().to_numpy()]
    of_last = _last_of_each(
        pa.ListArray.from_arrays(_offsets(positions), pa.array(numbers)), SPLITS.index(KNOWLEDGE_SPLIT)
    )
    row = np.repeat(np.arange(len(of_last)), np.diff(np.asarray(_offsets(positions))))
    crossing = np.zeros(len(of_last), bool)
    crossing[row[numbers != of_last[row]]] = True
    return of_last, crossing


def _list_column(template: Template, rows: pa.Table, name: str, list_type: pa.DataType) -> pa.Array:
    if name not in rows.column_names:
        return _lists(np.zeros(len(rows), np.int32), pa.array([], list_type.value_type))
    column = _whole(rows[name])
    if pa.types.is_null(column.type):
        column = column.cast(list_type)
    try:
        if name == "evidence" and pa.types.is_list(column.type) and pa.types.is_struct(column.type.value_type):
            column = _evidence(column)
        column = column.cast(list_type)
    except (pa.ArrowException, KeyError) as error:
        raise RenderError(f"template {template.id}: column {name} must be {list_type}, found {column.type}") from error
    return _lists(pc.fill_null(pc.list_value_length(column), 0), column.flatten()) if column.null_count else column


def _lists(lengths: npt.ArrayLike, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), values)


def _evidence(column: pa.ListArray) -> pa.ListArray:
    values = column.values
    fields = [values.field(field.name).cast(field.type) for field in EVIDENCE]
    struct = pa.StructArray.from_arrays(fields, fields=list(EVIDENCE), mask=values.is_null())
    return pa.ListArray.from_arrays(column.offsets, struct, mask=column.is_null() if column.null_count else None)


def _messages(template: Template, contents: pa.Array) -> pa.ListArray:
    turns = len(template.turns)
    roles = _for_every_row(tuple(turn.role for turn in template.turns))[: len(contents)]
    struct = pa.StructArray.from_arrays([roles, contents], fields=list(MESSAGE))
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(contents) + 1, turns, dtype=np.int32)), struct)


def _rejected(template: Template, rows: pa.Table, refused: pa.Array, reasons: pa.Array) -> pa.Table:
    if not len(refused):
        return REJECTED.empty_table()
    chosen = rows.select(list(dict.fromkeys(("ecg_ids", *template.header.slots)))).take(refused)
    slots = [
        pc.binary_join_element_wise(name, pc.fill_null(_whole(chosen[name]).cast(pa.string()), "None"), "=")
        for name in template.header.slots
    ]
    return pa.table(
        {
            "stage": pa.repeat("render", len(refused)),
            "ecg_ids": chosen["ecg_ids"],
            "template_id": pa.repeat(template.id, len(refused)),
            "slots": pc.binary_join_element_wise(*slots, ", ") if slots else pa.repeat("", len(refused)),
            "reason": reasons.take(refused),
            "detail": pa.nulls(len(refused), pa.string()),
        },
        schema=REJECTED,
    )


__all__ = ["EcgRegister", "Rendered", "render_block"]
