"""From a template and the views of a block of ECGs to rows of `pairs` and `rejected`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ecglm.synth.database import LockedConnection, quote_text
from ecglm.synth.errors import QueryError, RenderError
from ecglm.synth.schema import EVIDENCE, MESSAGE, PAIRS, REJECTED
from ecglm.synth.templates import SPECIAL_COLUMNS, TURN_END, Template

KNOWLEDGE_SPLIT = "train"
"""Split of a pair about no ECG: it holds no record, and a test of knowledge must not have been trained on."""

_BATCH_ROWS = 4096
_DIGITS = [str(number) for number in range(256)]
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


@dataclass
class Rendered:
    """What one template made of one block."""

    pairs: pa.Table
    rejected: pa.Table
    n_rows: int
    n_capped: int
    fingerprint: int


def render_block(
    template: Template, connection: LockedConnection, register: EcgRegister, source: str
) -> Iterator[Rendered]:
    """Renders every row the template selects, in the order of ECG and slots, in batches.

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
    rows = rows.append_column("positions", _positions(template, rows, register))
    keys, order, n_capped = _identify(template, rows, source)
    _check_vocabulary(template, rows)
    for start in range(0, max(len(order), 1), _BATCH_ROWS):
        chosen = pa.array(order[start : start + _BATCH_ROWS])
        rendered = _render_batch(template, rows.take(chosen), keys.take(chosen).to_pylist(), register, source)
        rendered.n_capped = n_capped if start == 0 else 0
        yield rendered


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
    return rows.append_column("ecg_ids", pa.ListArray.from_arrays(pa.array(range(len(ids) + 1), pa.int32()), ids))


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


def _identify(template: Template, rows: pa.Table, source: str) -> tuple[pa.Array, np.ndarray, int]:
    """Identity of each row, the rows to keep in their final order, and how many the cap left out."""
    absent = [slot for slot in template.header.slots if slot not in rows.column_names]
    if absent:
        raise RenderError(f"template {template.id}: slots {absent} are not columns of its SELECT")
    unknown = [name for name in template.variables if name not in rows.column_names]
    if unknown:
        raise RenderError(
            f"template {template.id}: the body uses {unknown}, which its SELECT does not return; add it there or"
            " correct the name"
        )
    slots = [pc.fill_null(_whole(rows[slot]).cast(pa.string()), "NULL") for slot in template.header.slots]
    ecg_keys = pc.binary_join(_whole(rows["ecg_ids"]), "+")
    keys = pc.binary_join_element_wise(source, template.id, ecg_keys, *slots, TURN_END)
    positions = _whole(rows["positions"])
    ends = np.asarray(_offsets(positions))[1:]
    places = positions.flatten().to_numpy()[ends - 1] if ends[-1:].any() else np.full(len(keys), -1)
    kept = np.ones(len(keys), dtype=bool)
    if template.header.cap_per_ecg is not None:
        usable = np.ones(len(keys), dtype=bool)
        if "rejected" in rows.column_names:
            usable = _whole(rows["rejected"]).is_null().to_numpy(zero_copy_only=False)
        kept = ~usable | _within_cap(keys, places, usable, template.header.cap_per_ecg)
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
    order = order.to_numpy()
    order = order[kept[order]]
    return keys, order, len(keys) - len(order)


def _within_cap(keys: pa.Array, places: np.ndarray, usable: np.ndarray, cap: int) -> np.ndarray:
    """Which rows are among the `cap` of their ECG that a hash of their identity ranks first; only usable rows count."""
    ranks = np.array([xxhash.xxh3_64_intdigest(key.encode()) for key in keys.to_pylist()], dtype=np.uint64)
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


def _render_batch(template: Template, rows: pa.Table, keys: list[str], register: EcgRegister, source: str) -> Rendered:
    ecg_lists = _whole(rows["ecg_ids"])
    positions = _whole(rows["positions"]).flatten()
    offsets = _offsets(ecg_lists)

    def of_ecgs(values: pa.Array) -> pa.ListArray:
        return pa.ListArray.from_arrays(offsets, values.take(positions))

    splits, crossing = _splits(register.split.take(positions), offsets)
    reasons = _whole(rows["rejected"]) if "rejected" in rows.column_names else pa.nulls(len(keys), pa.string())
    reasons = pc.if_else(crossing, "crosses_split", reasons.cast(pa.string()))
    kept = np.flatnonzero(reasons.is_null().to_numpy(zero_copy_only=False))
    refused = np.flatnonzero(reasons.is_valid().to_numpy(zero_copy_only=False))
    rejected = _rejected(template, rows, refused, reasons)
    whole = pa.table(
        {
            "ecg_ids": ecg_lists,
            "patient_ids": of_ecgs(register.patient_id),
            "strat_folds": of_ecgs(register.strat_fold),
            "split": splits,
        }
    )
    for name, list_type in _LIST_TYPES.items():
        whole = whole.append_column(name, _list_column(template, rows, name, list_type))
    if len(kept) < len(keys):
        rows, whole = rows.take(pa.array(kept)), whole.take(pa.array(kept))
        keys = [keys[row] for row in kept]

    variants = template.variants([xxhash.xxh3_64_intdigest(key.encode()) for key in keys])
    texts = template.compiled.render(rows.select(list(template.variables)), variants) if keys else []
    variant_ids = [".".join(map(_DIGITS.__getitem__, variant)) for variant in zip(*variants, strict=True)]
    pair_ids = [
        xxhash.xxh3_128_hexdigest(f"{key}{TURN_END}{variant}".encode())
        for key, variant in zip(keys, variant_ids, strict=True)
    ]
    content_hashes = [xxhash.xxh3_128_hexdigest(text.encode()) for text in texts]
    fingerprint = sum(map(pair_fingerprint, pair_ids, content_hashes))

    def constant(text: str) -> pa.Array:
        return pa.repeat(pa.scalar(text, pa.string()), len(keys))

    arrays = {
        "pair_id": pa.array(pair_ids, pa.string()),
        "content_hash": pa.array(content_hashes, pa.string()),
        "family": constant(template.header.family),
        "question_type": constant(template.header.question_type),
        "messages": _messages(template, texts),
        "template_id": constant(template.id),
        "template_hash": constant(template.hash),
        "variant": pa.array(variant_ids, pa.string()),
        "language": constant(template.header.language),
        "source": constant(source),
    }
    pairs = pa.table([arrays[name] if name in arrays else whole[name] for name in PAIRS.names], schema=PAIRS)
    return Rendered(pairs, rejected, len(reasons), 0, fingerprint)


def content_hash(turns: list[str]) -> str:
    """Hash of what is said: xxh3-128 of the turns' texts, each followed by U+001F."""
    return xxhash.xxh3_128_hexdigest("".join(turn + TURN_END for turn in turns).encode())


def pair_fingerprint(pair_id: str, content: str) -> int:
    """One pair's share of a corpus fingerprint; the shares of all pairs are added, so their order is of no account."""
    return xxhash.xxh3_128_intdigest((pair_id + content).encode())


def _splits(splits: pa.Array, offsets: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The split of each row's (last) ECG, and whether its ECGs are of different splits."""
    bounds = np.asarray(offsets)
    if not len(splits):
        return pa.repeat(pa.scalar(KNOWLEDGE_SPLIT), len(bounds) - 1), pa.repeat(pa.scalar(False), len(bounds) - 1)
    codes = splits.dictionary_encode()
    numbers = codes.indices.to_numpy()
    crossing = np.minimum.reduceat(numbers, bounds[:-1]) != np.maximum.reduceat(numbers, bounds[:-1])
    return splits.take(pa.array(bounds[1:] - 1)), pa.array(crossing)


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


def _messages(template: Template, texts: list[str]) -> pa.ListArray:
    turns = len(template.turns)
    contents = "".join(texts).split(TURN_END)
    contents.pop()
    roles = pa.array([turn.role for turn in template.turns] * len(texts), pa.string())
    struct = pa.StructArray.from_arrays([roles, pa.array(contents, pa.string())], fields=list(MESSAGE))
    return pa.ListArray.from_arrays(pa.array(range(0, turns * len(texts) + 1, turns), pa.int32()), struct)


def _rejected(template: Template, rows: pa.Table, refused: np.ndarray, reasons: pa.Array) -> pa.Table:
    if not len(refused):
        return REJECTED.empty_table()
    chosen = rows.take(pa.array(refused))
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
            "reason": reasons.take(pa.array(refused)),
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
