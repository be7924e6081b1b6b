"""Every criterion decided for every ECG of a block, with the values that were compared.

One SELECT gives, per ECG, whether each rule holds and each value that was compared; the rows of `findings` are then
made of those columns at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.criteria import Criterion
from ecglm.synth.database import LockedConnection
from ecglm.synth.guidelines import GuidelineSet
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
        return self.rows(np.ones(self.evaluated.verdicts.shape, bool))

    @property
    def assessed(self) -> Bools:
        """(n_ecgs, n_rules): which could be assessed."""
        return np.asarray(self.evaluated.verdicts != NOT_ASSESSABLE, bool)

    def rows(self, chosen: Bools) -> pa.Table:
        """Those of `findings` for the chosen of (n_ecgs, n_rules)."""
        ecg_id, found = self.evaluated.ecg_id, self.evaluated
        ecg, rule = np.nonzero(chosen)
        return pa.table(
            {
                "ecg_id": pa.DictionaryArray.from_arrays(pa.array(ecg, narrow(len(ecg_id))), ecg_id),
                "code": _repeated([code for code, _ in self.rules], rule.astype(np.int32)),
                "criterion": _repeated([rule.id for _, rule in self.rules], rule.astype(np.int32)),
                "verdict": _repeated(VERDICTS, found.verdicts[chosen].astype(np.int32)),
                "evidence": evidence_lists(self.rules, found.values, chosen),
            }
        )


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


def _repeated(texts: Sequence[str], places: Integers) -> pa.DictionaryArray:
    """The text at each place, each kept once."""
    return pa.DictionaryArray.from_arrays(pa.array(places, narrow(len(texts))), pa.array(texts, pa.string()))


def narrow(n: int) -> pa.DataType:
    """The kind of number that tells places among `n` texts in little memory."""
    return pa.int16() if n < 1 << 15 else pa.int32()


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
