"""What a statement explains is no sign of anything else: verdicts that are left out beside it.

A criterion is decided by measurements alone. Where a rhythm, a block or a pacemaker is stated that accounts for the
value, the criterion says nothing; the pitfalls of the guidelines named here say why, with their sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.criteria import Criterion
from ecglm.synth.findings import MET, Bools, Decided, rules_of
from ecglm.synth.guidelines import GuidelineSet

_WITHOUT_PR = ("AFIB", "AFLT", "SVTAC", "PSVT", "3AVB")
"""Rhythms in which no P wave leads to each QRS complex: what was measured before the complexes is none."""
_BLOCKS = ("CLBBB", "CRBBB", "ILBBB", "IRBBB", "WPW")
"""Statements that say why a QRS complex is wide; the width alone suggests none of them beside another."""
_WIDE_QRS = (*_BLOCKS, "PACE")
_BY_WIDTH = ("IVCD", "LVH")
"""Statements with criteria of the width, which a block or a pacemaker meets as well."""
_SECONDARY_ST = ("CLBBB", "ILBBB", "WPW", "PACE")
"""Statements with ST and T that follow from the QRS complex, and so are no sign of a ventricular aneurysm."""
_TERMINAL_R = ("CRBBB", "IRBBB", "WPW")
"""Statements with a late R wave in V1 and S wave in V6 of their own, which are no sign of a large right ventricle."""
_OF_LARGE_RIGHT_VENTRICLE = {"R_Amp_V1", "S_Amp_V5", "S_Amp_V6"}


def unexplained(
    measured_ecgs: pa.Table, decided: Decided, labels: pa.Table, guidelines: GuidelineSet
) -> tuple[pa.Table, Bools]:
    """The ECGs and the verdicts that could be assessed, without what the statements of an ECG account for.

    Args:
        measured_ecgs: one row per ECG; P and PR become NULL where no P wave leads to QRS.
        decided: what the criteria say of these ECGs.
        labels: the `labels` table of these ECGs.
        guidelines: whose criteria were decided.

    Returns:
        the ECGs, and (n_ecgs, n_rules) which verdicts stay.
    """

    def stated(*codes: str) -> Bools:
        return _stated(measured_ecgs["ecg_id"], labels, codes)

    without_pr = stated(*_WITHOUT_PR)
    paced = stated("PACE") | np.asarray(pc.fill_null(measured_ecgs["pacemaker"], False), bool)
    met = decided.evaluated.verdicts == MET
    stays = decided.assessed
    for meant, verdicts, where in (
        (_rests_on(_of_p), True, without_pr),
        (_rests_on(_of_ectopy), True, paced),
        (_of_conduction, True, paced),
        (_borrows_width, met, stated(*_WIDE_QRS)),
        (_borrows_st, met, stated(*_SECONDARY_ST)),
        (_borrows_r, met, stated(*_TERMINAL_R)),
    ):
        stays &= ~(np.outer(where, _of_rules(guidelines, meant)) & verdicts)
    return _without_p_waves(measured_ecgs, pa.array(without_pr)), stays


def width_explained(measured_ecgs: pa.Table, labels: pa.Table, guidelines: GuidelineSet) -> Bools:
    """(n_ecgs, n_rules): which verdicts are of a block by its width alone, in an ECG whose width a statement accounts
    for."""
    return np.outer(_stated(measured_ecgs["ecg_id"], labels, _WIDE_QRS), _of_rules(guidelines, _is_width_alone))


def _stated(ecg_id: pa.ChunkedArray, labels: pa.Table, codes: Sequence[str]) -> Bools:
    """(n_ecgs,): of which ECGs one of the statements is made."""
    those = labels.filter(pc.is_in(labels["code"], pa.array(codes)))["ecg_id"]
    return np.asarray(pc.is_in(ecg_id, value_set=those), bool)


def _of_rules(guidelines: GuidelineSet, meant: Callable[[str, Criterion], bool]) -> Bools:
    """(n_rules,): which criteria are such."""
    return np.array([meant(code, rule) for code, rule in rules_of(guidelines)], bool)


def _rests_on(of: Callable[[str], bool]) -> Callable[[str, Criterion], bool]:
    return lambda code, rule: any(map(of, rule.measurements))


def _of_p(measurement: str) -> bool:
    return measurement.startswith(("P_", "P-_", "PR_")) and measurement not in ("P_Found_Global", "P_Evidence_Global")


def _of_ectopy(measurement: str) -> bool:
    """Paced beats beside spontaneous ones differ in shape too, so what is counted as ectopic need not be early."""
    return measurement == "Ectopic_Count_Global"


def _of_conduction(code: str, rule: Criterion) -> bool:
    """From P to a paced QRS complex passes the delay set in the device; the normal range is told all the same."""
    return code != "NORM" and "PR_Int_Global" in rule.measurements


def _borrows_width(code: str, rule: Criterion) -> bool:
    return code in _BY_WIDTH and "QRS_Dur_Global" in rule.measurements


def _borrows_st(code: str, rule: Criterion) -> bool:
    return code == "ANEUR"


def _borrows_r(code: str, rule: Criterion) -> bool:
    return code == "RVH" and bool(_OF_LARGE_RIGHT_VENTRICLE & set(rule.measurements))


def _is_width_alone(code: str, rule: Criterion) -> bool:
    return code in _BLOCKS and set(rule.measurements) == {"QRS_Dur_Global"}


def _without_p_waves(measured_ecgs: pa.Table, unrelated: pa.Array) -> pa.Table:
    """The same ECGs, the measurements of a P wave and of the PR interval NULL in those where no P wave leads to QRS."""
    for place, column in enumerate(measured_ecgs.schema):
        if _of_p(column.name):
            blanked = pc.if_else(unrelated, pa.scalar(None, column.type), measured_ecgs[column.name])
            measured_ecgs = measured_ecgs.set_column(place, column, blanked)
    return measured_ecgs
