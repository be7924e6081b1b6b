"""Sensitivity, specificity and predictive value of every criterion, with intervals over patients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecglm.bench.metrics.bootstrap import PatientBootstrap, estimate
from ecglm.synth.audit.judged import Judged, Rulebook
from ecglm.synth.audit.standing import CERTAINTIES, Labels, Standing
from ecglm.synth.findings import MET, NOT_ASSESSABLE, NOT_MET, Bools, Doubles
from ecglm.synth.schema import AUDIT_CRITERIA

FOLDS = ("all", "1-8", "9-10")
RATES = ("sensitivity", "specificity", "specificity_clear", "ppv", "not_assessable_rate")

_COUNTS = (
    "true_positive",
    "false_negative",
    "false_positive",
    "true_negative",
    "false_positive_clear",
    "true_negative_clear",
    "n_positive",
    "n_negative",
)
_TP, _FN, _FP, _TN, _FPC, _TNC, _P, _N = range(len(_COUNTS))
_AT_A_TIME = 32


def patient_bootstrap(ecgs: pa.Table, n_resamples: int, seed: int) -> PatientBootstrap:
    """Resamples of the patients of a source; an ECG of an unknown patient is a patient of its own."""
    patients = pc.coalesce(ecgs["patient_id"], ecgs["ecg_id"]).to_pylist()
    return PatientBootstrap(np.array(patients), n_resamples=n_resamples, seed=seed)


def criteria_table(
    judged: Judged, labels: Labels, ecgs: pa.Table, rulebook: Rulebook, bootstrap: PatientBootstrap
) -> pa.Table:
    """Rows of schema.AUDIT_CRITERIA for one provider: each statement, then its criteria; all ECGs, then by folds."""
    train = pc.equal(ecgs["split"], "train").to_numpy()
    units = list(_units(rulebook))
    rows: list[dict[str, Any]] = []
    for start in range(0, len(units), _AT_A_TIME):
        chosen = units[start : start + _AT_A_TIME]
        counted = np.stack(
            [_indicators(_verdict(judged, *unit), labels.standing[:, unit[0]]) for unit in chosen], axis=1
        )  # (n_ecgs, n_units, n_counts)
        parts = {"1-8": train, "9-10": ~train}
        flat = counted.reshape(len(train), -1)
        values = np.concatenate([flat & members[:, None] for members in parts.values()], axis=1).astype(np.float64)
        counts = dict(zip(parts, np.split(values.sum(axis=0), 2), strict=True))
        resamples = dict(zip(parts, np.split(bootstrap.sums(values), 2, axis=1), strict=True))
        counts["all"], resamples["all"] = (each["1-8"] + each["9-10"] for each in (counts, resamples))
        for number, unit in enumerate(chosen):
            at = slice(number * len(_COUNTS), (number + 1) * len(_COUNTS))
            for folds in FOLDS:
                members = parts.get(folds, np.ones(len(train), bool))
                rows.append(
                    {
                        "provider": judged.provider,
                        "folds": folds,
                        **_described(unit, rulebook),
                        **_counted(_verdict(judged, *unit)[members], unit[0], labels, members),
                        **{name: int(count) for name, count in zip(_COUNTS, counts[folds][at], strict=True)},
                        **_rated(counts[folds][at], resamples[folds][:, at]),
                    }
                )
    return pa.Table.from_pylist(rows, schema=AUDIT_CRITERIA)


def _units(rulebook: Rulebook) -> Iterator[tuple[int, int | None]]:
    """(number of the statement, number of the criterion or None for the statement as a whole)."""
    for number, place in enumerate(rulebook.places):
        yield number, None
        yield from ((number, rule) for rule in range(place.start, place.stop))


def _verdict(judged: Judged, statement: int, rule: int | None) -> npt.NDArray[np.int8]:
    column: npt.NDArray[np.int8] = judged.statements[:, statement] if rule is None else judged.verdicts[:, rule]
    return column


def _indicators(verdict: npt.NDArray[np.int8], standing: npt.NDArray[np.int8]) -> Bools:
    """(n_ecgs, n_counts): which ECGs each count counts."""
    positive, clear = standing == Standing.POSITIVE, standing == Standing.CLEAR_NEGATIVE
    negative = clear | (standing == Standing.NEGATIVE)
    met, not_met = verdict == MET, verdict == NOT_MET
    columns = (positive & met, positive & not_met, negative & met, negative & not_met, clear & met, clear & not_met)
    return np.stack([*columns, positive, negative], axis=1)


def _rated(counts: Doubles, resamples: Doubles) -> dict[str, float | None]:
    """Each rate with its interval; all of them None where nothing can be divided by."""
    rated: dict[str, float | None] = {}
    for name, value, drawn in zip(RATES, _rates(counts[None]), _rates(resamples), strict=True):
        found = estimate(float(value[0]), drawn)
        rated |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return rated


def _rates(counts: Doubles) -> tuple[Doubles, ...]:
    """`RATES` of (n, n_counts) counts, each (n,); NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore", divide="ignore"):
        total = counts[:, _P] + counts[:, _N]
        return (
            counts[:, _TP] / (counts[:, _TP] + counts[:, _FN]),
            counts[:, _TN] / (counts[:, _TN] + counts[:, _FP]),
            counts[:, _TNC] / (counts[:, _TNC] + counts[:, _FPC]),
            counts[:, _TP] / (counts[:, _TP] + counts[:, _FP]),
            (total - counts[:, _TP : _TN + 1].sum(axis=1)) / total,
        )


def _counted(
    verdict: npt.NDArray[np.int8], statement: int, labels: Labels, members: Bools
) -> dict[str, int | bool | list[dict[str, Any]]]:
    standing, certainty = labels.standing[members, statement], labels.certainty[members, statement]
    by_certainty = [
        {
            "certainty": name,
            **{
                word: int(((certainty == place) & (verdict == which)).sum())
                for word, which in (("met", MET), ("not_met", NOT_MET), ("not_assessable", NOT_ASSESSABLE))
            },
        }
        for place, name in enumerate(CERTAINTIES)
        if (certainty == place).any()
    ]
    counts = {
        f"n_{each.name.lower()}": int((standing == each).sum())
        for each in (Standing.NOT_EXCLUDED, Standing.UNKNOWN, Standing.NO_LABEL)
    }
    return {
        "labelled": bool((labels.standing[:, statement] == Standing.POSITIVE).any()),
        "n_ecgs": len(standing),
        "n_negative_clear": int((standing == Standing.CLEAR_NEGATIVE).sum()),
        **counts,
        "n_met": int((verdict == MET).sum()),
        "n_not_met": int((verdict == NOT_MET).sum()),
        "by_certainty": by_certainty,
    }


def _described(unit: tuple[int, int | None], rulebook: Rulebook) -> dict[str, str | None]:
    statement, number = unit
    code = rulebook.codes[statement]
    guidelines = rulebook.guidelines
    described: dict[str, str | None] = {
        "code": code,
        "name": guidelines.by_code[code].name,
        "category": guidelines.categories[code],
    }
    if number is None:
        return described
    rule = rulebook.rules[number][1]
    source = guidelines.sources[rule.cite.source]
    return {
        **described,
        "criterion": rule.id,
        "role": rule.role,
        "criterion_text": rule.text,
        "citation": guidelines.citation(rule.cite),
        "doi": source.doi or source.url,
    }
