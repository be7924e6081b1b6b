"""What the criteria compared, in words: each distinct text is made once, and the rest is a dictionary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ecglm.synth.criteria import Criterion, Limit, format_quantity
from ecglm.synth.findings import MET, NOT_MET, Bools, Decided, Doubles, Integers
from ecglm.synth.measure.dictionary import measurements


def in_words(decided: Decided, chosen: Bools) -> pa.Table:
    """Rows of `decided.findings` for the chosen of (n_ecgs, n_rules), with ecg_index, evidence_text, and draw, a hash
    of the row's identity to choose by."""
    found = decided.evaluated
    return (
        decided.rows(chosen)
        .append_column("ecg_index", found.ecg_index.take(pa.array(np.nonzero(chosen)[0])))
        .append_column("evidence_text", evidence_texts(decided.rules, found.verdicts, found.values, chosen))
        .append_column("draw", pa.array(_draws(found.ecg_id, decided.rules)[chosen]))
    )


def _draws(ecg_id: pa.Array, rules: Sequence[tuple[str, Criterion]]) -> npt.NDArray[np.uint64]:
    """(n_ecgs, n_rules) hash of each ECG and criterion: both hashed, added, and mixed as in splitmix64.

    Steele, Lea & Flood 2014, doi:10.1145/2714064.2660195.
    """
    ecgs = np.array([xxhash.xxh3_64_intdigest(one.encode()) for one in ecg_id.to_pylist()], np.uint64)
    criteria = np.array([xxhash.xxh3_64_intdigest(f"{code} {rule.id}".encode()) for code, rule in rules], np.uint64)
    mixed = ecgs[:, None] + criteria[None, :]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.uint64)


def evidence_texts(
    rules: Sequence[tuple[str, Criterion]], verdicts: npt.NDArray[np.int8], values: Doubles, chosen: Bools
) -> pa.DictionaryArray:
    """Evidence in words for the chosen of (n_ecgs, n_rules), e.g. `PR interval 212 ms (limit > 200 ms)`.

    Of a criterion that is met only what meets it is said: of "a Q wave in V2 or V3" not the lead without one. Of one
    that is not met only what falls short: of "wide and to the left" not the width where it is wide.
    """
    texts = _Texts()
    # they are read column by column
    verdicts, values, chosen = np.asfortranarray(verdicts), np.asfortranarray(values), np.asfortranarray(chosen)
    places = np.full(chosen.shape, -1, np.int32, order="F")
    first = 0
    for number, (_, rule) in enumerate(rules):
        parts: list[tuple[_Words, Integers]] = []
        of_rule = list(rule.limits.values())
        of_values = values[:, first : first + len(of_rule)].T
        holds = np.array([satisfied(column, limit) for column, limit in zip(of_values, of_rule, strict=True)])
        short = ~holds & ~np.isnan(of_values)
        met, not_met = verdicts[:, number] == MET, verdicts[:, number] == NOT_MET
        selective = met & holds.any(axis=0) | not_met & short.any(axis=0) if of_rule else met
        for key, together in _said_together(of_rule).items():
            column = values[:, first + together[0]]
            decisive = np.where(met, holds[together].all(axis=0), short[together].any(axis=0))
            known = chosen[:, number] & ~np.isnan(column) & (decisive | ~selective)
            if known.any():
                words = texts.about(column, [of_rule[place] for place in together], key)
                parts.append((words, np.where(known, words.codes, np.int32(-1))))
        if parts:
            (words, codes), *others = parts
            if others:
                words = texts.add(*_joined([(each.texts, which) for each, which in parts]))
                codes = words.codes
            places[:, number] = np.where(codes >= 0, codes + words.start, -1)
        first += len(of_rule)
    flat = places[chosen]
    return pa.DictionaryArray.from_arrays(pa.array(np.maximum(flat, 0), pa.int32(), mask=flat < 0), texts.every())


@dataclass(frozen=True)
class _Words:
    """Distinct texts."""

    texts: pa.StringArray
    codes: Integers
    """(n_ecgs,): which of them is said of each ECG; -1 where nothing is."""
    start: int
    """Where the first stands among the texts of all criteria."""


class _Texts:
    """The texts of all criteria; many compare the same value with the same limit, and say it in the same words."""

    def __init__(self) -> None:
        self._parts: list[pa.StringArray] = []
        self._n = 0
        self._about: dict[tuple[str, ...], _Words] = {}

    def add(self, texts: pa.StringArray, codes: Integers) -> _Words:
        """Adds distinct texts."""
        start = self._n
        self._parts.append(texts)
        self._n += len(texts)
        return _Words(texts, codes, start)

    def about(self, values: Doubles, limits: Sequence[Limit], value: tuple[str, ...]) -> _Words:
        """What is said of a value beside its limits; added the first time."""
        key = (*value, *(limit.text for limit in limits))
        if key not in self._about:
            self._about[key] = self.add(*_words_of(values, limits))
        return self._about[key]

    def every(self) -> pa.StringArray:
        """All texts."""
        return pa.concat_arrays(self._parts) if self._parts else pa.array([], pa.string())


def satisfied(values: Doubles, limit: Limit) -> Bools:
    """Which values are on the side of the limit that the criterion asks for; false where the value is not known."""
    compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[limit.is_]
    return np.asarray(compare(values, limit.value), bool)


def _said_together(limits: Sequence[Limit]) -> dict[tuple[str, str, str], list[int]]:
    """Places of limits on the same value, under the same condition."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, limit in enumerate(limits):
        groups.setdefault((limit.value_sql(), limit.shown_as, limit.unit), []).append(place)
    return groups


def _words_of(values: Doubles, limits: Sequence[Limit]) -> tuple[pa.StringArray, Integers]:
    """Distinct texts about one value with its limits, and for each ECG which of them; -1 where it is not known."""
    limit = limits[0]
    known = ~np.isnan(values)
    codes = np.full(len(values), -1, np.int32)
    none_found = measurements()[limit.measured].none_found if limit.measured else None
    if none_found is not None:
        codes[known] = values[known] > 0
        return pa.array([none_found, limit.shown_as]), codes
    said = " and ".join(limit.text for limit in limits)
    ending = f" (limit{'s' if len(limits) > 1 else ''} {said})"
    numbers, codes[known] = np.unique(_as_printed(values[known], limit.unit, limits), return_inverse=True)
    exact = tuple(each.value for each in limits)
    shown, unit = limit.shown_as, limit.unit
    return pa.array([f"{shown} {format_quantity(value, unit, exact)}{ending}" for value in numbers.tolist()]), codes


def _as_printed(values: Doubles, unit: str, limits: Sequence[Limit]) -> Doubles:
    """The values rounded as they are printed, but for those that rounding could bring to a limit or to a tie."""
    digits = {"mV": 2, "": None}.get(unit, 0)
    if digits is None:
        return values
    scaled = values * 10.0**digits
    rounded = np.rint(scaled)
    alone = np.abs(np.abs(scaled - np.trunc(scaled)) - 0.5) < 1e-6
    for limit in limits:
        alone |= np.abs(scaled - limit.value * 10.0**digits) <= 1
    return np.asarray(np.where(alone, values, rounded / 10.0**digits + 0.0))


def _joined(parts: Sequence[tuple[pa.StringArray, Integers]]) -> tuple[pa.StringArray, Integers]:
    """Texts of several values joined as in a sentence (`a`, `a and b`, `a, b and c`), and for each ECG which of them;
    -1 where nothing is known."""
    codes = np.stack([codes for _, codes in parts])
    said = codes >= 0
    last = len(parts) - 1 - said[::-1].argmax(axis=0)

    def texts(ecgs: npt.NDArray[np.intp], where: Callable[[int], Bools]) -> list[pa.StringArray]:
        """Of each value, NULL where it is not to stand."""
        return [
            words.take(pa.array(codes[part, ecgs], mask=~(said[part] & where(part))[ecgs]))
            for part, (words, _) in enumerate(parts)
        ]

    one, several = np.flatnonzero(said.sum(axis=0) == 1), np.flatnonzero(said.sum(axis=0) > 1)
    listed = pc.binary_join_element_wise(*texts(several, lambda part: last != part), ", ", null_handling="skip")
    ending = pc.coalesce(*texts(np.concatenate([several, one]), lambda part: last == part))
    joined = pc.binary_join_element_wise(listed, ending[: len(several)], " and ")
    places = np.full(codes.shape[1], -1, np.int32)
    places[several], places[one] = np.arange(len(several)), len(several) + np.arange(len(one))
    return pa.concat_arrays([joined, ending[len(several) :]]), places
