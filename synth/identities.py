"""Who a pair is and what it says, as hashes: ids, the choice of wordings, and fingerprints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ecglm.synth.templates import TURN_END, Spoken, Template

Digits = npt.NDArray[np.uint8]
"""(n, 32) hexadecimal digits in ASCII."""


def keys_of(template: Template, source: str, ecg_ids: pa.ListArray, slots: Sequence[pa.Array]) -> pa.Array:
    """What each row is about: source, template, ECGs and the values of its slots."""
    told = [pc.fill_null(slot.cast(pa.string()), "NULL") for slot in slots]
    return pc.binary_join_element_wise(source, template.id, pc.binary_join(ecg_ids, "+"), *told, TURN_END)


def choices_of(keys: pa.Array) -> npt.NDArray[np.uint64]:
    """A hash of each row's identity: it picks the wordings, and the rows that a cap leaves."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, keys.cast(pa.binary()).to_pylist()), np.uint64, len(keys))


@dataclass(frozen=True)
class Identities:
    """Of each row: the wording of every turn, that as text, and the pair's id."""

    variants: list[npt.NDArray[np.int64]]
    variant: pa.Array
    pair_ids: Digits

    @classmethod
    def of(cls, template: Template, keys: pa.Array, choices: npt.NDArray[np.uint64]) -> Identities:
        """Of rows with these keys and the hashes of these."""
        variants = template.variants(choices)
        sizes = [len(turn.alternatives) for turn in template.turns]
        numbered = pa.array(np.ravel_multi_index(variants, sizes)).dictionary_encode()
        combinations = np.stack(np.unravel_index(numbered.dictionary.to_numpy(), sizes), axis=1)
        texts = [".".join(map(str, combination)) for combination in combinations.tolist()]
        variant = pa.DictionaryArray.from_arrays(numbered.indices, pa.array(texts, pa.string())).dictionary_decode()
        digests = _digests(pc.binary_join_element_wise(keys, variant, TURN_END).cast(pa.binary()).to_pylist())
        return cls(variants, variant, digests)


def content_hashes_of(spoken: Spoken, turns: int) -> Digits:
    """`content_hash` of each row."""
    bounds = np.concatenate([[0], spoken.ends[turns - 1 :: turns] + 1]).astype(np.int32)
    texts = pa.BinaryArray.from_buffers(
        pa.binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(spoken.text)]
    )
    return _digests(texts.to_pylist())


def _digests(parts: list[bytes]) -> Digits:
    """The xxh3-128 of each."""
    return np.frombuffer(b"".join(map(xxhash.xxh3_128_digest, parts)).hex().encode(), np.uint8).reshape(-1, 32)


def texts_of(digits: Digits) -> pa.StringArray:
    """Each row of digits as a text."""
    offsets = np.arange(len(digits) + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(len(digits), pa.py_buffer(offsets), pa.py_buffer(digits))


def fingerprint_of(pair_ids: Digits, content_hashes: Digits) -> int:
    """The sum of `pair_fingerprint` over the rows."""
    both = np.concatenate([pair_ids, content_hashes], axis=1).view("S64").ravel().tolist()
    digests = b"".join(map(xxhash.xxh3_128_digest, both))
    parts = np.frombuffer(digests, ">u4").reshape(-1, 4).sum(axis=0, dtype=np.uint64)
    return sum(int(part) << (32 * (3 - place)) for place, part in enumerate(parts))


def content_hash(turns: list[str]) -> str:
    """Hash of what is said: xxh3-128 of the turns' texts, each followed by U+001F."""
    return xxhash.xxh3_128_hexdigest("".join(turn + TURN_END for turn in turns).encode())


def pair_fingerprint(pair_id: str, content: str) -> int:
    """One pair's share of a corpus fingerprint; the shares of all pairs are added, so their order is of no account."""
    return xxhash.xxh3_128_intdigest((pair_id + content).encode())
