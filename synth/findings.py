"""Every criterion decided for every ECG of a block, with the values that were compared and the words for them.

One SELECT gives, per ECG, whether each rule holds and each value that was compared; the rows of `findings` are then
made of those columns at once. Texts repeat, so each distinct one is made once and the rest is a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ecglm.synth.criteria import Criterion, Limit, format_quantity
from ecglm.synth.database import LockedConnection
from ecglm.synth.guidelines import GuidelineSet
from ecglm.synth.measure.dictionary import measurements
from ecglm.synth.schema import EVIDENCE

VERDICTS = ("not_assessable", "met", "not_met")
NOT_ASSESSABLE, MET, NOT_MET = range(3)

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Evaluated:
    """Verdicts and compared values of a block of ECGs, as matrices with one row per ECG."""

    ecg_id: pa.Array
    ecg_index: pa.ChunkedArray
    verdicts: npt.NDArray[np.int8]
    """(n_ecgs, n_rules): places in `VERDICTS`; rules in the order of `rules_of`."""
    values: Doubles
    """(n_ecgs, n_limits): what was compared, NaN where it is not known or the limit is not for this patient; limits in
    the order of the rules."""
    doubted: tuple[str, ...]
    """Statements with a condition under which they are never called absent."""
    doubts: Bools
    """(n_ecgs, n_doubted): whether it is true."""


@dataclass(frozen=True)
class Decided:
    """What the guidelines say of the ECGs of a block; rows in the order of the ECGs, then of code and criterion."""

    rules: Sequence[tuple[str, Criterion]]
    evaluated: Evaluated
    unsure: pa.Table
    """ecg_index, code: statements whose absence the record's own columns put in doubt."""

    @property
    def findings(self) -> pa.Table:
        """ecg_id, code, criterion, verdict, evidence: a row per ECG and criterion, columns of the table `findings`."""
        return self._rows(np.ones(self.evaluated.verdicts.shape, bool))

    @property
    def assessed(self) -> Bools:
        """(n_ecgs, n_rules): which could be assessed."""
        return np.asarray(self.evaluated.verdicts != NOT_ASSESSABLE, bool)

    def in_words(self, chosen: Bools) -> pa.Table:
        """Rows of `findings` for the chosen of (n_ecgs, n_rules), with ecg_index, rule (its place in `rules_of`),
        evidence_text, and draw, a hash of the row's identity to choose by."""
        ecg, rule = np.nonzero(chosen)
        words = evidence_texts(self.rules, self.evaluated.verdicts, self.evaluated.values, chosen)
        return (
            self._rows(chosen)
            .append_column("ecg_index", self.evaluated.ecg_index.take(pa.array(ecg)))
            .append_column("rule", pa.array(rule.astype(np.int32)))
            .append_column("evidence_text", words)
            .append_column("draw", pa.array(_draws(self.evaluated.ecg_id, self.rules)[chosen]))
        )

    def _rows(self, chosen: Bools) -> pa.Table:
        return _rows(self.evaluated.ecg_id, self.rules, self.evaluated.verdicts, self.evaluated.values, chosen)


def rules_of(guidelines: GuidelineSet) -> tuple[tuple[str, Criterion], ...]:
    """(code, criterion) of every criterion in the order of findings."""
    return tuple(
        (code, rule)
        for code, guideline in sorted(guidelines.by_code.items())
        for rule in sorted(guideline.rules, key=lambda rule: rule.id)
    )


def evaluate(connection: LockedConnection, guidelines: GuidelineSet) -> Evaluated:
    """Evaluates every criterion and the value beside each of its limits; arguments as for `decide`."""
    rules = rules_of(guidelines)
    holds, of_rule = _distinct([rule.holds_sql() for _, rule in rules])
    compared, of_limit = _distinct([limit.value_sql() for _, rule in rules for limit in rule.limits.values()])
    doubted = {c: g.absence_unsure_when for c, g in sorted(guidelines.by_code.items()) if g.absence_unsure_when}
    doubts = [f"coalesce(({condition}), false)" for condition in doubted.values()]
    lists = {
        "holds": f"[{', '.join(holds)}]::BOOLEAN[]",
        "compared": f"[{', '.join(compared)}]::DOUBLE[]",
        "doubts": f"[{', '.join(doubts)}]::BOOLEAN[]",
    }
    columns = ", ".join(f"{items} AS {name}" for name, items in lists.items())
    sql = f"SELECT ecg_id, ecg_index, {columns} FROM measured_ecgs ORDER BY ecg_index"
    answer = connection.select(sql, again=True).combine_chunks()
    verdicts = pc.if_else(_items(answer["holds"]), pa.scalar(MET, pa.int8()), pa.scalar(NOT_MET, pa.int8()))
    verdicts = pc.fill_null(verdicts, pa.scalar(NOT_ASSESSABLE, pa.int8())).to_numpy()
    values = _items(answer["compared"]).to_numpy(zero_copy_only=False)
    doubtful = _items(answer["doubts"]).to_numpy(zero_copy_only=False)
    n_ecgs = answer.num_rows
    return Evaluated(
        ecg_id=answer["ecg_id"].combine_chunks(),
        ecg_index=answer["ecg_index"],
        verdicts=verdicts.reshape(n_ecgs, len(holds))[:, of_rule],
        values=values.reshape(n_ecgs, len(compared))[:, of_limit],
        doubted=tuple(doubted),
        doubts=doubtful.reshape(n_ecgs, len(doubts)),
    )


def _distinct(expressions: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Each expression once, and for every one given which of them it is."""
    places = {expression: place for place, expression in enumerate(dict.fromkeys(expressions))}
    return list(places), np.array([places[expression] for expression in expressions], np.int64)


def _items(lists: pa.ChunkedArray) -> pa.Array:
    """The items of all lists."""
    return lists.combine_chunks().flatten()


def decide(connection: LockedConnection, guidelines: GuidelineSet) -> Decided:
    """Decides every criterion.

    Args:
        connection: with a table `measured_ecgs` of ecgs, `ecg_index` and every known measurement.
        guidelines: whose criteria are decided.
    """
    found = evaluate(connection, guidelines)
    ecg, code = np.nonzero(found.doubts)
    unsure = pa.table(
        {"ecg_index": found.ecg_index.take(pa.array(ecg)), "code": _repeated(found.doubted, code.astype(np.int32))}
    )
    return Decided(rules_of(guidelines), found, unsure)


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


def _repeated(texts: Sequence[str], places: Integers) -> pa.DictionaryArray:
    """The text at each place, each kept once."""
    return pa.DictionaryArray.from_arrays(pa.array(places, narrow(len(texts))), pa.array(texts, pa.string()))


def narrow(n: int) -> pa.DataType:
    """The kind of number that tells places among `n` texts in little memory."""
    return pa.int16() if n < 1 << 15 else pa.int32()


def _rows(
    ecg_id: pa.Array,
    rules: Sequence[tuple[str, Criterion]],
    verdicts: npt.NDArray[np.generic],
    values: npt.NDArray[np.generic],
    chosen: Bools,
) -> pa.Table:
    """Rows of findings for the chosen of (n_ecgs, n_rules)."""
    ecg, rule = np.nonzero(chosen)
    return pa.table(
        {
            "ecg_id": pa.DictionaryArray.from_arrays(pa.array(ecg, narrow(len(ecg_id))), ecg_id),
            "code": _repeated([code for code, _ in rules], rule.astype(np.int32)),
            "criterion": _repeated([rule.id for _, rule in rules], rule.astype(np.int32)),
            "verdict": _repeated(VERDICTS, verdicts[chosen].astype(np.int32)),
            "evidence": evidence_lists(rules, values, chosen),
        }
    )


def evidence_lists(
    rules: Sequence[tuple[str, Criterion]], values: npt.NDArray[np.generic], chosen: Bools
) -> pa.ListArray:
    """The values compared and their limits, as lists, for the chosen of (n_ecgs, n_rules).

    Texts are dictionaries, which SQL reads two to four times as fast as texts.
    """
    limits = [limit for _, rule in rules for limit in rule.limits.values()]
    rule_of_limit = np.array([number for number, (_, rule) in enumerate(rules) for _ in rule.limits], np.int64)
    there = ~np.isnan(values.astype(np.float64, copy=False)) & chosen[:, rule_of_limit]
    ecg, which = np.nonzero(there)
    counts = np.bincount(ecg * len(rules) + rule_of_limit[which], minlength=chosen.size)[chosen.ravel()]
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)])

    def of_limits(texts: list[str]) -> pa.DictionaryArray:
        return _repeated(texts, which.astype(np.int32))

    fields = {
        "name": of_limits([limit.measured or limit.words or "" for limit in limits]),
        "value": pa.array(values[there], pa.float64()),
        "unit": of_limits([limit.unit for limit in limits]),
        "limit": of_limits([limit.text for limit in limits]),
    }
    struct = pa.StructArray.from_arrays([fields[name] for name in EVIDENCE.names], names=EVIDENCE.names)
    return pa.ListArray.from_arrays(pa.array(offsets), struct)


# --------------------------------------------------------------------------------------------------------------- words


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
                words = texts.add(*_joined([(words.texts, codes) for words, codes in parts]))
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
