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

_SUPPORTS = ("not_met", "met", "contradicted")

Rows = npt.NDArray[np.int64]


def codes_of(decided: Decided) -> list[str]:
    """Statements with criteria, in the order of the criteria."""
    return [code for code, _ in groupby(code for code, _ in decided.rules)]


def statement_of(decided: Decided) -> Rows:
    """(n_rules,): the place in `codes_of` of each criterion's statement."""
    places = {code: place for place, code in enumerate(codes_of(decided))}
    return np.array([places[code] for code, _ in decided.rules], np.int64)


def verdicts_view(
    decided: Decided,
    stays: Bools,
    suggests: Bools,
    labelled: Bools,
    findings: pa.Table,
    telling: Rows,
    guidelines: GuidelineSet,
) -> pa.Table:
    """The view `verdicts`, in the order of ECGs and codes.

    Args:
        decided: what the criteria say.
        stays: (n_ecgs, n_rules) which verdicts are in `findings`.
        suggests: (n_ecgs, n_rules) whether a criterion that is met would suggest its statement.
        labelled: (n_ecgs, n_codes) which statements are made, codes as in `codes_of`.
        findings: the view of these verdicts.
        telling: (n_rules,) the order in which criteria are told, within each statement defining ones first.
        guidelines: those of `decided`.
    """
    rules, verdicts = decided.rules, decided.evaluated.verdicts
    starts = np.unique(statement_of(decided), return_index=True)[1]
    told = np.argsort(telling)
    row = np.where(stays, np.cumsum(stays).reshape(stays.shape) - 1, -1)  # of each verdict in `findings`
    said = np.zeros(stays.shape, bool)
    said[stays] = findings["evidence_text"].is_valid().to_numpy()

    def some(which: Bools) -> Bools:
        """(n_ecgs, n_codes): whether a criterion of the statement is such."""
        return np.asarray(np.logical_or.reduceat(which, starts, axis=1), bool)

    def first(which: Bools) -> pa.Array:
        """The row of the first criterion that is such, of each statement that is there; NULL where none is."""
        rank = np.minimum.reduceat(np.where(which[:, told], np.arange(len(told)), len(told)), starts, axis=1)
        rows = np.take_along_axis(row, told[np.minimum(rank, len(told) - 1)], axis=1)
        return pa.array(rows[there], mask=(rank == len(told))[there])

    sign = stays & (verdicts == MET) & suggests
    refutation = stays & (verdicts == NOT_MET) & np.array([rule.role == "defining" for _, rule in rules], bool)
    there, signed, refuted = some(stays), some(sign), some(refutation)
    exhaustive = np.array([guidelines.by_code[code].criteria_exhaustive for code in codes_of(decided)], bool)
    contradicted = refuted | exhaustive & ~some(~stays | (verdicts != NOT_MET))
    # the strongest of what holds
    support = np.select([contradicted, signed], [_SUPPORTS.index("contradicted"), _SUPPORTS.index("met")])[there]
    some_row = pa.array(np.maximum.reduceat(row, starts, axis=1)[there])
    return pa.table(
        {
            **{name: findings[name].take(some_row) for name in ("ecg_id", "ecg_index", "code", "name", "phrase")},
            "labelled": pa.array(labelled[there]),
            "support": pa.DictionaryArray.from_arrays(pa.array(support, narrow(len(_SUPPORTS))), pa.array(_SUPPORTS)),
            "suggested": pa.array(signed[there]),
            "refuted": pa.array(refuted[there]),
            **_quoted("met", findings, first(sign & said)),
            **_quoted("refuted", findings, first(refutation & said)),
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
    codes = findings["code"].combine_chunks().dictionary.unique().sort()

    def keys(table: pa.Table) -> Rows:
        code = table["code"].combine_chunks()
        code = code if pa.types.is_dictionary(code.type) else code.dictionary_encode()
        place = pc.fill_null(pc.index_in(code.dictionary, value_set=codes), len(codes)).to_numpy()
        return np.asarray(table["ecg_index"].to_numpy() * (len(codes) + 1) + place[code.indices.to_numpy()], np.int64)

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
