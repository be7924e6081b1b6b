"""From a template and the views of a block of ECGs to rows of `pairs` and `rejected`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ecglm.synth.database import LockedConnection, quote_text
from ecglm.synth.errors import QueryError, RenderError
from ecglm.synth.schema import EVIDENCE, MESSAGE, PAIRS, REJECTED, SPLITS
from ecglm.synth.templates import SPECIAL_COLUMNS, TURN_END, Spoken, Template

KNOWLEDGE_SPLIT = "train"
"""Split of a pair about no ECG: it holds no record, and a test of knowledge must not have been trained on."""

_BATCH_ROWS = 4096
_LIST_TYPES = {
    "answers": pa.list_(pa.string()),
    "options": pa.list_(pa.string()),
    "codes": pa.list_(pa.string()),
    "evidence": pa.list_(EVIDENCE),
    "guideline_ids": pa.list_(pa.string()),
}


Bytes = npt.NDArray[np.uint8]


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
    try:
        connection.check(template.header.sql)
        rows = connection.select(_needed_columns_sql(template))
    except QueryError as error:
        raise RenderError(f"template {template.id}: sql: {error}") from error
    rows = _with_ecg_ids(template, rows)
    _check_columns(template, rows)
    _check_vocabulary(template, rows)
    positions = _positions(template, rows, register)
    keys = _keys(template, rows, source)
    splits, crossing = _splits(register.split, positions)
    reasons = pa.nulls(len(keys), pa.string())
    if "rejected" in rows.column_names:
        reasons = _whole(rows["rejected"]).cast(pa.string())
    reasons = pc.if_else(crossing, "crosses_split", reasons)
    usable = reasons.is_null().to_numpy(zero_copy_only=False)
    places = _last_of_each(positions, absent=-1)
    order = _order(template, keys, places)
    refused, order = order[~usable[order]], order[usable[order]]
    n_usable = len(order)
    if template.header.cap_per_ecg is not None:
        order = order[_within_cap(keys, places, usable, template.header.cap_per_ecg)[order]]
    rejected = _rejected(template, rows, pa.array(refused), reasons)
    yield Rendered(PAIRS.empty_table(), rejected, n_usable - len(order), 0)
    order = order[np.argsort(splits[order], kind="stable")]
    for start, stop in pairwise(np.flatnonzero(np.diff(splits[order], prepend=-1, append=-1)).tolist()):
        for first in range(start, stop, _BATCH_ROWS):
            chosen = pa.array(order[first : min(first + _BATCH_ROWS, stop)])
            identities = keys.take(chosen).cast(pa.binary()).to_pylist()
            split = SPLITS[splits[order[first]]]
            yield _render_batch(
                template, rows.take(chosen), positions.take(chosen), identities, split, register, source
            )


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
        raise RenderError(f"template {template.id}: {ids.filter(positions.is_null())[0]} is not an ECG of this source")
    return pa.ListArray.from_arrays(_offsets(ecg_lists), positions)


def _offsets(lists: pa.ListArray) -> pa.Array:
    return pc.subtract(lists.offsets, lists.offsets[0]) if len(lists) else lists.offsets


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


def _keys(template: Template, rows: pa.Table, source: str) -> pa.Array:
    """What each row is about: source, template, ECGs and slots."""
    slots = [pc.fill_null(_whole(rows[slot]).cast(pa.string()), "NULL") for slot in template.header.slots]
    ecg_keys = pc.binary_join(_whole(rows["ecg_ids"]), "+")
    return pc.binary_join_element_wise(source, template.id, ecg_keys, *slots, TURN_END)


def _order(template: Template, keys: pa.Array, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rows in the order of ECG and slots."""
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


def _within_cap(keys: pa.Array, places: np.ndarray, usable: np.ndarray, cap: int) -> np.ndarray:
    """Which rows are among the `cap` of their ECG that a hash of their identity ranks first; only usable rows count."""
    ranks = np.array([xxhash.xxh3_64_intdigest(key) for key in keys.cast(pa.binary()).to_pylist()], np.uint64)
    order = np.lexsort((ranks, ~usable, places))
    first = np.r_[True, places[order][1:] != places[order][:-1]] if len(order) else np.zeros(0, bool)
    starts = np.flatnonzero(first)
    rank_in_ecg = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    kept = np.zeros(len(order), dtype=bool)
    kept[order] = rank_in_ecg < cap
    within: np.ndarray = kept & usable
    return within


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


def _guidelines_behind(lists: dict[str, pa.Array]) -> pa.Array:
    """The guidelines a row names; if it names none but quotes a limit, those of its statements."""
    evidence, named = lists["evidence"], lists["guideline_ids"]
    quotes = np.asarray(pc.is_valid(pc.struct_field(evidence.flatten(), "limit")).cast(pa.int64()))
    sums = np.concatenate([[0], np.cumsum(quotes)])
    bounds = np.asarray(_offsets(evidence)) - np.asarray(_offsets(evidence))[0]
    limited = pa.array(np.diff(sums[bounds]) > 0)
    unnamed = pc.equal(pc.fill_null(pc.list_value_length(named), 0), 0)
    return pc.if_else(pc.and_(limited, unnamed), lists["codes"], named)


def _render_batch(
    template: Template,
    rows: pa.Table,
    positions: pa.ListArray,
    keys: list[bytes],
    split: str,
    register: EcgRegister,
    source: str,
) -> Rendered:
    offsets, ecgs = _offsets(positions), positions.flatten()

    def of_ecgs(values: pa.Array) -> pa.ListArray:
        return pa.ListArray.from_arrays(offsets, values.take(ecgs))

    identities = _identities(template, keys)
    spoken = template.compiled.render(rows.select(list(template.variables)), identities.variants)
    content_hashes = _content_hashes(spoken, len(template.turns))

    def constant(text: str) -> pa.Array:
        return pa.repeat(pa.scalar(text, pa.string()), len(keys))

    lists = {name: _list_column(template, rows, name, list_type) for name, list_type in _LIST_TYPES.items()}
    lists["guideline_ids"] = _guidelines_behind(lists)
    arrays = {
        "pair_id": _texts_of(identities.pair_ids),
        "content_hash": _texts_of(content_hashes),
        "ecg_ids": _whole(rows["ecg_ids"]),
        "patient_ids": of_ecgs(register.patient_id),
        "strat_folds": of_ecgs(register.strat_fold),
        "split": constant(split),
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
    fingerprint = _fingerprint(identities.pair_ids, content_hashes)
    return Rendered(pairs, REJECTED.empty_table(), 0, fingerprint)


@dataclass(frozen=True)
class _Identities:
    """Of each row: the wording of every turn, that as text, and the pair's id as (n_rows, 32) hexadecimal digits."""

    variants: list[npt.NDArray[np.int64]]
    variant: pa.Array
    pair_ids: Bytes


def _identities(template: Template, keys: list[bytes]) -> _Identities:
    choices = np.array([xxhash.xxh3_64_intdigest(key) for key in keys], np.uint64)
    variants = template.variants(choices)
    sizes = [len(turn.alternatives) for turn in template.turns]
    numbered = pa.array(np.ravel_multi_index(variants, sizes)).dictionary_encode()
    combinations = np.stack(np.unravel_index(numbered.dictionary.to_numpy(), sizes), axis=1)
    texts = [".".join(map(str, combination)) for combination in combinations.tolist()]
    endings = [f"{TURN_END}{text}".encode() for text in texts]
    which = numbered.indices
    digests = [xxhash.xxh3_128_digest(key + endings[place]) for key, place in zip(keys, which.to_pylist(), strict=True)]
    variant = pa.DictionaryArray.from_arrays(which, pa.array(texts, pa.string()))
    return _Identities(variants, variant.dictionary_decode(), _hexadecimal(digests))


def _content_hashes(spoken: Spoken, turns: int) -> Bytes:
    """(n_rows, 32) hexadecimal digits of `content_hash` of each row."""
    bounds = [0, *(spoken.ends[turns - 1 :: turns] + 1).tolist()]
    return _hexadecimal([xxhash.xxh3_128_digest(spoken.text[start:stop]) for start, stop in pairwise(bounds)])


def _contents(spoken: Spoken) -> pa.Array:
    """The text of every turn."""
    letters = np.frombuffer(spoken.text, np.uint8)
    ends = (spoken.ends - np.arange(len(spoken.ends))).astype(np.int32)
    return _string_array(np.concatenate([np.zeros(1, np.int32), ends]), letters[letters != ord(TURN_END)])


def _hexadecimal(digests: list[bytes]) -> Bytes:
    """(n, 32) digits in ASCII of 128-bit digests."""
    return np.frombuffer(b"".join(digests).hex().encode(), np.uint8).reshape(-1, 32)


def _texts_of(digits: Bytes) -> pa.Array:
    return _string_array(np.arange(len(digits) + 1, dtype=np.int32) * 32, digits)


def _string_array(offsets: npt.NDArray[np.int32], letters: Bytes) -> pa.Array:
    data = pa.py_buffer(np.ascontiguousarray(letters))
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), data)


def _fingerprint(pair_ids: Bytes, content_hashes: Bytes) -> int:
    """The sum of `pair_fingerprint` over the rows."""
    both = np.concatenate([pair_ids, content_hashes], axis=1).tobytes()
    digests = b"".join([xxhash.xxh3_128_digest(both[start : start + 64]) for start in range(0, len(both), 64)])
    parts = np.frombuffer(digests, ">u4").reshape(-1, 4).sum(axis=0, dtype=np.uint64)
    return sum(int(part) << (32 * (3 - place)) for place, part in enumerate(parts))


def content_hash(turns: list[str]) -> str:
    """Hash of what is said: xxh3-128 of the turns' texts, each followed by U+001F."""
    return xxhash.xxh3_128_hexdigest("".join(turn + TURN_END for turn in turns).encode())


def pair_fingerprint(pair_id: str, content: str) -> int:
    """One pair's share of a corpus fingerprint; the shares of all pairs are added, so their order is of no account."""
    return xxhash.xxh3_128_intdigest((pair_id + content).encode())


def _splits(split_of: pa.Array, positions: pa.ListArray) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """The split of each row's last ECG as a place in `SPLITS`, and whether its ECGs are of different splits."""
    number = np.asarray(pc.index_in(split_of, value_set=pa.array(SPLITS)), np.int64)
    numbers = pa.array(number[positions.flatten().to_numpy()])
    of_last = _last_of_each(pa.ListArray.from_arrays(_offsets(positions), numbers), SPLITS.index(KNOWLEDGE_SPLIT))
    row = np.repeat(np.arange(len(of_last)), np.diff(np.asarray(_offsets(positions))))
    crossing = np.zeros(len(of_last), bool)
    crossing[row[numbers.to_numpy() != of_last[row]]] = True
    return of_last, pa.array(crossing)


def _list_column(template: Template, rows: pa.Table, name: str, list_type: pa.DataType) -> pa.Array:
    if name not in rows.column_names:
        offsets = pa.array(np.zeros(rows.num_rows + 1, dtype=np.int32))
        return pa.ListArray.from_arrays(offsets, pa.array([], list_type.value_type))
    column = _whole(rows[name])
    if pa.types.is_null(column.type):
        column = column.cast(list_type)
    try:
        if name == "evidence" and pa.types.is_list(column.type) and pa.types.is_struct(column.type.value_type):
            column = _evidence(column)
        column = column.cast(list_type)
    except (pa.ArrowException, KeyError) as error:
        raise RenderError(f"template {template.id}: column {name} must be {list_type}, found {column.type}") from error
    return pc.fill_null(column, pa.scalar([], list_type)) if column.null_count else column


def _evidence(column: pa.ListArray) -> pa.ListArray:
    values = column.values
    fields = [values.field(field.name).cast(field.type) for field in EVIDENCE]
    struct = pa.StructArray.from_arrays(fields, fields=list(EVIDENCE), mask=values.is_null())
    return pa.ListArray.from_arrays(column.offsets, struct, mask=column.is_null() if column.null_count else None)


def _messages(template: Template, contents: pa.Array) -> pa.ListArray:
    turns = len(template.turns)
    roles = pa.array([turn.role for turn in template.turns] * (len(contents) // turns), pa.string())
    struct = pa.StructArray.from_arrays([roles, contents], fields=list(MESSAGE))
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(contents) + 1, turns, dtype=np.int32)), struct)


def _rejected(template: Template, rows: pa.Table, refused: pa.Array, reasons: pa.Array) -> pa.Table:
    if not len(refused):
        return REJECTED.empty_table()
    chosen = rows.select(list(dict.fromkeys(("ecg_ids", *template.header.slots)))).take(refused)
    slots = [chosen[slot].cast(pa.string()).to_pylist() for slot in template.header.slots]
    described = [
        ", ".join(f"{name}={value}" for name, value in zip(template.header.slots, values, strict=True))
        for values in (zip(*slots, strict=True) if slots else [()] * len(refused))
    ]
    return pa.table(
        {
            "stage": pa.repeat("render", len(refused)),
            "ecg_ids": chosen["ecg_ids"],
            "template_id": pa.repeat(template.id, len(refused)),
            "slots": pa.array(described, pa.string()),
            "reason": reasons.take(refused),
            "detail": pa.nulls(len(refused), pa.string()),
        },
        schema=REJECTED,
    )


__all__ = [
    "EcgRegister",
    "Rendered",
    "content_hash",
    "pair_fingerprint",
    "render_block",
]
