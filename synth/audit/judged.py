"""Every criterion and every statement decided for every ECG by one provider's measurements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.build.blocks import block_ranges
from ecglm.synth.criteria import Criterion, Limit
from ecglm.synth.facts import Derivation, merge_measurements
from ecglm.synth.findings import MET, NOT_ASSESSABLE, NOT_MET, Bools, Doubles, rules_of
from ecglm.synth.guidelines import GuidelineSet

NORMAL = "NORM"
"""The statement that is not true if any of its criteria is measured and not met: see docs/guidelines.md."""

Verdicts = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Rulebook:
    """All criteria of a guideline set, and where those of each statement are."""

    guidelines: GuidelineSet
    rules: tuple[tuple[str, Criterion], ...]
    limits: tuple[Limit, ...]
    rule_of_limit: npt.NDArray[np.int64]
    codes: tuple[str, ...]
    """Statements with criteria, sorted."""
    places: tuple[slice, ...]
    """The criteria of each of `codes`."""

    @classmethod
    def of(cls, guidelines: GuidelineSet) -> Rulebook:
        rules = rules_of(guidelines)
        codes = tuple(dict.fromkeys(code for code, _ in rules))
        numbers = {code: [number for number, (other, _) in enumerate(rules) if other == code] for code in codes}
        return cls(
            guidelines=guidelines,
            rules=rules,
            limits=tuple(limit for _, rule in rules for limit in rule.limits.values()),
            rule_of_limit=np.array([number for number, (_, rule) in enumerate(rules) for _ in rule.limits], np.int64),
            codes=codes,
            places=tuple(slice(numbers[code][0], numbers[code][-1] + 1) for code in codes),
        )

    @property
    def defining(self) -> Bools:
        """(n_rules,) whether the statement cannot be true if the criterion is not met."""
        return np.array([rule.role == "defining" for _, rule in self.rules], bool)

    @property
    def suggesting(self) -> Bools:
        """(n_rules,) whether meeting the criterion suggests the statement where it is not labelled."""
        return np.array([rule.suggests for _, rule in self.rules], bool)


@dataclass(frozen=True)
class Judged:
    """What one provider's measurements say of all ECGs; rows are ECGs in the order of the source."""

    provider: str
    verdicts: Verdicts
    """(n_ecgs, n_rules)."""
    values: Doubles
    """(n_ecgs, n_limits): what was compared, NaN where it is not known."""
    statements: Verdicts
    """(n_ecgs, n_codes): the criteria of a statement taken together."""
    contradicted: Bools
    """(n_ecgs, n_codes): whether a defining criterion is not met."""
    doubted: tuple[str, ...]
    doubts: Bools
    """(n_ecgs, n_doubted): whether the record puts the absence of the statement in doubt."""


def judge(provider: str, measured: pa.Table, ecgs: pa.Table, rulebook: Rulebook) -> Judged:
    """Decides everything; an ECG that the provider has no row for is not assessable.

    Args:
        provider: its name.
        measured: ecg_id and measurements under the provider's names.
        ecgs: the table `ecgs`.
        rulebook: what is decided.
    """
    parts = []
    with Derivation(rulebook.guidelines) as derivation:
        for _, start, stop in block_ranges(ecgs.num_rows):
            block = ecgs.slice(start, stop - start)
            ids = block["ecg_id"].combine_chunks()
            rows = measured.filter(pc.is_in(measured["ecg_id"], value_set=ids))
            merged = merge_measurements(block, [(provider, rows)], pa.array(range(start, stop), pa.int64()))
            found = derivation.decide(merged).evaluated
            there = pc.is_in(ids, value_set=rows["ecg_id"].combine_chunks()).to_numpy(zero_copy_only=False)
            verdicts = np.where(there[:, None], found.verdicts, NOT_ASSESSABLE).astype(np.int8)
            parts.append((verdicts, np.where(there[:, None], found.values, np.nan), found.doubts))
    verdicts, values, doubts = (np.concatenate(each) for each in zip(*parts, strict=True))
    statements, contradicted = _together(verdicts, rulebook)
    return Judged(provider, verdicts, values, statements, contradicted, found.doubted, doubts)


def _together(verdicts: Verdicts, rulebook: Rulebook) -> tuple[Verdicts, Bools]:
    """The verdict on each statement, and whether it is contradicted.

    A statement is met if all its defining criteria are, and one at least of the supporting ones, if it has any; it is
    not met if a defining one is not, or none of the supporting ones that could be assessed is.
    """
    shape = (len(verdicts), len(rulebook.codes))
    statements, contradicted = np.full(shape, NOT_ASSESSABLE, np.int8), np.zeros(shape, bool)
    for number, (code, place) in enumerate(zip(rulebook.codes, rulebook.places, strict=True)):
        defining = binding(code, rulebook.defining[place])
        must, may = verdicts[:, place][:, defining], verdicts[:, place][:, ~defining]
        contradicted[:, number] = (must == NOT_MET).any(axis=1)
        holds = (must == MET).all(axis=1)
        if code == NORMAL:
            holds = ~contradicted[:, number] & (must == MET).any(axis=1)
        supported = (may == MET).any(axis=1) | (may.shape[1] == 0)
        unsupported = ~supported & (may == NOT_MET).any(axis=1)
        statements[holds & supported, number] = MET
        statements[contradicted[:, number] | unsupported, number] = NOT_MET
    return statements, contradicted


def binding(code: str, defining: Bools) -> Bools:
    """(n_rules,) which criteria of a statement contradict it if they are not met: the defining ones, all for NORM."""
    return np.ones_like(defining) if code == NORMAL else defining
