"""What the criteria of each statement say together: one row per ECG and statement of which one could be assessed.

Made of the matrices of verdicts; texts and evidence are those of the rows of `findings`, taken from there.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.findings import MET, NOT_MET, Bools, Decided, narrow
from ecglm.synth.guidelines import GuidelineSet

_NOT_MET, _MET, _CONTRADICTED = range(3)
_SUPPORT = pa.array(["not_met", "met", "contradicted"])

Rows = npt.NDArray[np.int64]


def codes_of(decided: Decided) -> list[str]:
    """Statements with criteria, in the order of the criteria."""
    return [code for code, _ in groupby(code for code, _ in decided.rules)]


def statement_of(decided: Decided) -> Rows:
    """(n_rules,): the place in `codes_of` of each criterion's statement."""
    places = {code: place for place, code in enumerate(codes_of(decided))}
    return np.array([places[code] for code, _ in decided.rules], np.int64)


def verdicts_view(
    decided: Decided, stays: Bools, suggests: Bools, labelled: Bools, findings: pa.Table, guidelines: GuidelineSet
) -> pa.Table:
    """The view `verdicts`, in the order of ECGs and codes.

    Args:
        decided: what the criteria say.
        stays: (n_ecgs, n_rules) which verdicts are in `findings`.
        suggests: (n_ecgs, n_rules) whether a criterion that is met would suggest its statement.
        labelled: (n_ecgs, n_codes) which statements are made, codes as in `codes_of`.
        findings: the view of these verdicts.
        guidelines: those of `decided`.
    """
    codes = codes_of(decided)
    verdicts = decided.evaluated.verdicts
    row = np.where(stays, np.cumsum(stays).reshape(stays.shape) - 1, -1)  # of each verdict in `findings`
    said = np.zeros(stays.size, bool)
    said[np.flatnonzero(stays)] = findings["evidence_text"].is_valid().to_numpy()
    said = said.reshape(stays.shape)
    sign = stays & (verdicts == MET) & suggests
    refutation = stays & (verdicts == NOT_MET) & np.array([rule.role == "defining" for _, rule in decided.rules])

    shape = len(verdicts), len(codes)
    there, signed, refuted, contradicted = (np.zeros(shape, bool) for _ in range(4))
    met_row, refuted_row = (np.full(shape, -1) for _ in range(2))
    starts = np.unique(statement_of(decided), return_index=True)[1]
    for place, (code, start) in enumerate(zip(codes, starts.tolist(), strict=True)):
        n_rules = len(guidelines.by_code[code].rules)
        of = slice(start, start + n_rules)
        # the order in which criteria are told: defining ones first
        told = start + np.array(sorted(range(n_rules), key=lambda n: decided.rules[start + n][1].role))
        there[:, place] = stays[:, of].any(axis=1)
        signed[:, place] = sign[:, of].any(axis=1)
        refuted[:, place] = refutation[:, of].any(axis=1)
        contradicted[:, place] = refuted[:, place]
        if guidelines.by_code[code].criteria_exhaustive:
            contradicted[:, place] |= (stays[:, of] & (verdicts[:, of] == NOT_MET)).all(axis=1)
        met_row[:, place] = _first(sign & said, row, told)
        refuted_row[:, place] = _first(refutation & said, row, told)

    support = np.where(contradicted, _CONTRADICTED, np.where(signed, _MET, _NOT_MET))[there]
    met, against = (pa.array(rows[there], mask=rows[there] < 0) for rows in (met_row, refuted_row))
    some_row = pa.array(np.maximum.reduceat(row, starts, axis=1)[there])
    return pa.table(
        {
            **{name: findings[name].take(some_row) for name in ("ecg_id", "ecg_index", "code", "name", "phrase")},
            "labelled": pa.array(labelled[there]),
            "support": pa.DictionaryArray.from_arrays(pa.array(support, narrow(len(_SUPPORT))), _SUPPORT),
            "suggested": pa.array(signed[there]),
            "refuted": pa.array(refuted[there]),
            **_quoted("met", findings, met),
            **_quoted("refuted", findings, against),
        }
    )


def _quoted(prefix: str, findings: pa.Table, rows: pa.Array) -> dict[str, pa.ChunkedArray]:
    """What rows of `findings` tell; NULL where there is no row."""
    texts = findings["evidence_text"].take(rows)
    return {
        f"{prefix}_text": texts.cast(pa.string()),  # few of all texts: a dictionary would hold them all
        f"{prefix}_evidence": findings["evidence"].take(rows),
        f"{prefix}_citation": findings["citation"].take(rows),
    }


def _first(chosen: Bools, row: Rows, told: Rows) -> Rows:
    """(n_ecgs,): the row of the first of some criteria that is chosen; -1 where none is."""
    which = chosen[:, told]
    rows = np.take_along_axis(row[:, told], which.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.where(which.any(axis=1), rows, -1)


_TOLD = {
    "criterion": "criterion",
    "role": "role",
    "verdict": "verdict",
    "suggests": "suggests",
    "text": "evidence_text",
    "criterion_text": "criterion_text",
    "citation": "citation",
    "evidence": "evidence",
}
"""Fields of an item of `criteria`, and the columns of `findings` they are."""


def criteria_of(statements: pa.Table, findings: pa.Table) -> pa.ListArray:
    """What could be assessed of each statement's criteria, in the order in which they are told; empty where nothing.

    Args:
        statements: ecg_index and code, one row per statement.
        findings: the view of these ECGs, in the order of ECGs and codes.
    """
    codes = pc.unique(findings["code"].cast(pa.string())).sort()

    def keys(table: pa.Table) -> Rows:
        place = pc.fill_null(pc.index_in(table["code"].cast(pa.string()), value_set=codes), len(codes)).to_numpy()
        return np.asarray(table["ecg_index"].to_numpy() * (len(codes) + 1) + place, np.int64)

    of_findings, of_statements = keys(findings), keys(statements)
    starts, stops = (np.searchsorted(of_findings, of_statements, side) for side in ("left", "right"))
    offsets = np.concatenate([[0], np.cumsum(stops - starts)])
    statement = np.repeat(np.arange(len(starts)), stops - starts)
    rows = np.arange(offsets[-1]) - offsets[statement] + starts[statement]
    rows = rows[np.lexsort((findings["place"].to_numpy()[rows], statement))]
    told = findings.select(list(_TOLD.values())).take(pa.array(rows)).combine_chunks()
    # few of all texts: a dictionary would hold them all
    fields = [told[name].cast(pa.string()) if name == "evidence_text" else told[name] for name in _TOLD.values()]
    items = pa.StructArray.from_arrays([field.combine_chunks() for field in fields], names=list(_TOLD))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)
