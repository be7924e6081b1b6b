"""The consistency gate: what becomes of pairs whose assertion the measurements of the same ECG contradict.

Counted over the whole source, statement by statement. Where more than `MOST_REJECTED` of the labels that make a
statement are contradicted, the contradicted ones are worded as a disagreement between annotation and measurement;
otherwise they are rejected. The same is done, separately, for statements called absent although a criterion is met.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.schema import GATE

MOST_REJECTED = 0.05
"""Share of a statement's pairs that may be lost; beyond it they are reworded."""

_COUNTED = ("n_stated", "n_contradicted", "n_absent", "n_suggested")

DOUBTS = """
CREATE VIEW doubts AS
SELECT l.ecg_id, bool_or(g.reword_stated IS NOT true) AS rejects,
       'the measurements disagree on ' || and_join(list(l.name ORDER BY l.label_index)) || ': '
       || array_to_string(list(l.contradiction ORDER BY l.label_index), '; ') AS disagreement,
       flatten(list(l.contradiction_evidence ORDER BY l.label_index)) AS evidence,
       list(l.code ORDER BY l.label_index) AS codes
FROM labels l LEFT JOIN gate g ON g.code = l.code
WHERE l.contradiction IS NOT NULL
GROUP BY l.ecg_id
"""
"""The view `doubts` over the views `labels` and `gate`: one row per ECG with a contradicted label."""


def gate_counts(labels: pa.Table, negatives: pa.Table) -> dict[str, list[int]]:
    """Of each statement: how often it is stated, contradicted, called absent, and suggested where it is absent.

    Args:
        labels, negatives: the views of some ECGs.
    """
    counts: dict[str, list[int]] = {}
    known = labels.filter(pc.not_equal(labels["certainty"], "unknown"))
    for place, table in (
        (0, known),
        (1, known.filter(pc.is_valid(known["contradiction"]))),
        (2, negatives),
        (3, negatives.filter(pc.is_valid(negatives["suggestion"]))),
    ):
        for row in pc.value_counts(table["code"].combine_chunks()).to_pylist():
            counts.setdefault(row["values"], [0] * len(_COUNTED))[place] += row["counts"]
    return dict(sorted(counts.items()))


def gate_table(blocks: Iterable[Mapping[str, list[int]]]) -> pa.Table:
    """The table `gate` of a source from the counts of its parts."""
    totals: dict[str, list[int]] = {}
    for counts in blocks:
        for code, part in counts.items():
            totals[code] = [before + more for before, more in zip(totals.get(code, [0] * 4), part, strict=True)]
    rows = [
        {
            "code": code,
            **dict(zip(_COUNTED, total, strict=True)),
            "reword_stated": total[1] > MOST_REJECTED * total[0],
            "reword_absent": total[3] > MOST_REJECTED * total[2],
        }
        for code, total in sorted(totals.items())
    ]
    return pa.Table.from_pylist(rows, schema=GATE)
