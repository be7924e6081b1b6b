"""What the source's labels say of every statement and ECG: there, not there, or not to be counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.audit.judged import Judged
from ecglm.synth.guidelines import GuidelineSet

CERTAINTIES = ("stated", "certain", "probable", "possible", "not_excluded", "unknown")
_POSITIVE_CERTAINTIES = CERTAINTIES[:4]


class Standing(IntEnum):
    """How an ECG counts for a statement."""

    NO_LABEL = 0
    """The source never says whether: left out."""
    NEGATIVE = 1
    """Not labelled, but something that covers it is, or the record puts its absence in doubt."""
    CLEAR_NEGATIVE = 2
    """Not labelled, and nothing speaks for it."""
    POSITIVE = 3
    """Labelled: stated, or a likelihood of at least 50."""
    NOT_EXCLUDED = 4
    """A likelihood of 1 to 49: left out."""
    UNKNOWN = 5
    """A diagnosis whose likelihood is not given: left out."""


AXIS_LABELS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "AXIS_NORMAL": (("MID",), ("ALAD", "ARAD")),
    "AXIS_LEFT": (("ALAD",), ("MID", "RAD", "ARAD", "AXR")),
    "AXIS_RIGHT": (("ARAD",), ("MID", "LAD", "ALAD", "AXL")),
}
"""Statement about the axis → values of `heart_axis` that make it positive, and negative. `LAD` and `RAD` are the
leftward and rightward axis of the German Lagetyp, which may be normal or not: with the rest they are not counted."""


@dataclass(frozen=True)
class Labels:
    """The labels as matrices; rows are ECGs in the order of the source."""

    codes: tuple[str, ...]
    standing: npt.NDArray[np.int8]
    """(n_ecgs, n_codes) of `Standing`."""
    certainty: npt.NDArray[np.int8]
    """(n_ecgs, n_codes): place in `CERTAINTIES`, -1 where the statement is not labelled."""
    likelihood: npt.NDArray[np.float64]
    """(n_ecgs, n_codes): percent, NaN where there is none."""


def read_standing(ecgs: pa.Table, labels: pa.Table, guidelines: GuidelineSet, judged: Judged) -> Labels:
    """How every ECG counts for every statement that has criteria."""
    codes = tuple(dict.fromkeys(code for code, guideline in sorted(guidelines.by_code.items()) if guideline.rules))
    everything = sorted({*guidelines.by_code, *labels["code"].to_pylist()})
    certainty, likelihood = _given(ecgs, labels, everything)
    standing = np.full((ecgs.num_rows, len(codes)), Standing.NO_LABEL, np.int8)
    there = certainty >= 0
    place = {code: number for number, code in enumerate(everything)}
    covering = _covering(guidelines)
    for number, code in enumerate(codes):
        own = certainty[:, place[code]]
        if (own >= 0).any():
            covered = there[:, [place[other] for other in sorted(covering[code])]].any(axis=1)
            if code in judged.doubted:
                covered |= judged.doubts[:, judged.doubted.index(code)]
            standing[:, number] = np.where(covered, Standing.NEGATIVE, Standing.CLEAR_NEGATIVE)
            standing[np.isin(own, [CERTAINTIES.index(each) for each in _POSITIVE_CERTAINTIES]), number] = (
                Standing.POSITIVE
            )
            standing[own == CERTAINTIES.index("not_excluded"), number] = Standing.NOT_EXCLUDED
            standing[own == CERTAINTIES.index("unknown"), number] = Standing.UNKNOWN
        elif code in AXIS_LABELS:
            positive, negative = (pc.is_in(ecgs["heart_axis"], pa.array(values)) for values in AXIS_LABELS[code])
            standing[positive.to_numpy(), number] = Standing.POSITIVE
            standing[negative.to_numpy(), number] = Standing.CLEAR_NEGATIVE
            certainty[positive.to_numpy(), place[code]] = CERTAINTIES.index("stated")
    own_places = [place[code] for code in codes]
    return Labels(codes, standing, certainty[:, own_places], likelihood[:, own_places])


def _given(ecgs: pa.Table, labels: pa.Table, codes: list[str]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    certainty = np.full((ecgs.num_rows, len(codes)), -1, np.int8)
    likelihood = np.full(certainty.shape, np.nan)
    row = pc.index_in(labels["ecg_id"], value_set=ecgs["ecg_id"].combine_chunks())
    known = pc.is_valid(row)
    labels, row = labels.filter(known), row.filter(known).to_numpy()
    column = pc.index_in(labels["code"], value_set=pa.array(codes)).to_numpy()
    certainty[row, column] = pc.index_in(labels["certainty"], value_set=pa.array(CERTAINTIES)).to_numpy()
    likelihood[row, column] = labels["likelihood"].cast(pa.float64()).to_numpy()
    return certainty, likelihood


def _covering(guidelines: GuidelineSet) -> dict[str, set[str]]:
    """Statement → those whose presence makes it unsafe to call it absent, whichever file says so."""
    covering: dict[str, set[str]] = {code: set() for code in guidelines.by_code}
    for code, guideline in guidelines.by_code.items():
        for other in guideline.overlaps:
            covering[code].add(other)
            covering[other].add(code)
    return covering
