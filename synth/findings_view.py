"""The view `findings`: every verdict that could be assessed, with the words of its criterion and of the label it bears
on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.evidence_texts import in_words
from ecglm.synth.findings import Bools, Decided, narrow
from ecglm.synth.verdicts import statement_of

FINDINGS_OF = "CREATE MACRO findings_of(codes) AS TABLE SELECT * FROM findings WHERE list_contains(codes, code)"
"""Over the view `findings`: those of some statements."""


def findings_view(
    decided: Decided,
    stays: Bools,
    suggests: Bools,
    label: npt.NDArray[np.int64],
    labels: pa.Table,
    annotations: pa.ChunkedArray,
    criteria: pa.Table,
    row_of_rule: npt.NDArray[np.int64],
) -> pa.Table:
    """The view, in the order of ECGs, codes and criteria.

    Args:
        decided: what the criteria say.
        stays: (n_ecgs, n_rules) which verdicts are told.
        suggests: (n_ecgs, n_rules) whether a criterion that is met would suggest its statement.
        label: (n_ecgs, n_codes) the row of `labels` that makes a statement, -1 where none does.
        labels: the statements made.
        annotations: of each ECG, who stands behind its statements.
        criteria: the view `guideline_criteria`.
        row_of_rule: (n_rules,) the row of `criteria` of each criterion.
    """
    rows = in_words(decided, stays)
    ecg, rule = np.nonzero(stays)
    of_criterion = pa.array(row_of_rule[rule], narrow(len(criteria)))
    of_ecg = pa.array(ecg, narrow(len(stays)))
    of_label = label[:, statement_of(decided)][stays]
    stated = of_label >= 0
    return pa.table(
        {
            "ecg_id": _kept_once(of_ecg, decided.evaluated.ecg_id),
            "ecg_index": rows["ecg_index"],
            "code": rows["code"],
            "criterion": rows["criterion"],
            "place": criteria["place"].take(of_criterion),
            "role": _kept_once(of_criterion, criteria["role"]),
            "verdict": rows["verdict"],
            "evidence": rows["evidence"],
            "evidence_text": rows["evidence_text"],
            "has_value": rows["evidence_text"].is_valid(),
            **_only_value(rows["evidence"].combine_chunks()),
            **{
                name: _kept_once(of_criterion, criteria[name])
                for name in ("criterion_text", "name", "phrase", "citation", "doi")
            },
            "suggests": pa.array(suggests[stays]),
            "labelled": pa.array(stated),
            "certainty": _kept_once(pa.array(of_label, pa.int32(), mask=~stated), labels["certainty"]),
            "annotation_text": _kept_once(of_ecg, annotations),
            "draw": rows["draw"],
        }
    )


def about(view: pa.Table, codes: frozenset[str]) -> pa.Table:
    """The rows of the view that are about some statements, with plain texts where a dictionary would be longer."""
    wanted = pa.array(sorted(codes), pa.string())
    of_chunks = [pc.is_in(code.dictionary, wanted).take(code.indices) for code in view["code"].chunks]
    rows = view.filter(pa.chunked_array(of_chunks, pa.bool_()))
    for place, column in enumerate(rows.columns):
        of_dictionaries = pa.types.is_dictionary(column.type)
        if of_dictionaries and sum(len(chunk.dictionary) for chunk in column.chunks) > len(column):
            rows = rows.set_column(place, rows.column_names[place], column.cast(column.type.value_type))
    return rows


def _only_value(evidence: pa.ListArray) -> dict[str, pa.Array]:
    """What stands in the evidence of each row that holds one value; NULL in other rows."""
    starts, n_values = np.asarray(evidence.offsets[:-1]), np.diff(evidence.offsets)
    which = pa.array(starts, mask=n_values != 1)
    columns = {"measured": "name", "value": "value", "unit": "unit", "limit_text": "limit"}
    return {column: evidence.values.field(name).take(which) for column, name in columns.items()}


def _kept_once(places: pa.Array, texts: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """The text at each place; SQL reads a dictionary two to four times as fast as texts."""
    whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    return pa.DictionaryArray.from_arrays(places, whole)
