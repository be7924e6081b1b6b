"""Accuracy of answers to questions: strict, lenient and unparsed side by side, overall and by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ecglm.bench.metrics.bootstrap import LEVEL, Estimate, PatientBootstrap, estimate
from ecglm.bench.metrics.inputs import Bools, Floats, MetricError

RATES = ("strict", "lenient", "unparsed_strict", "unparsed_lenient")


@dataclass(frozen=True)
class Rates:
    """Shares of a set of questions: answered rightly by the strict and the lenient reading, unparsed by each."""

    n_questions: int
    strict: Estimate
    lenient: Estimate
    unparsed_strict: Estimate
    unparsed_lenient: Estimate

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"n_questions": self.n_questions} | {name: getattr(self, name).as_dict() for name in RATES}


@dataclass(frozen=True)
class AnswerScores:
    """What a model reached on questions.

    `by[grouping][group]` are the rates of a group; `means[grouping]` the unweighted mean over its groups.
    `resamples` has `strict`, `lenient`, and `strict_mean_over_GROUPING`, `lenient_mean_over_GROUPING`.
    """

    n_questions: int
    n_patients: int
    overall: Rates
    by: Mapping[str, Mapping[str, Rates]]
    means: Mapping[str, Rates]
    resamples: Mapping[str, Floats]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything but the resamples."""
        return {
            "n_questions": self.n_questions,
            "n_patients": self.n_patients,
            "overall": self.overall.as_dict(),
            "by": {
                name: {group: rates.as_dict() for group, rates in groups.items()} for name, groups in self.by.items()
            },
            "means": {name: rates.as_dict() for name, rates in self.means.items()},
        }


def score_answers(
    strict: ArrayLike,
    lenient: ArrayLike,
    *,
    unparsed_strict: ArrayLike,
    unparsed_lenient: ArrayLike,
    bootstrap: PatientBootstrap,
    groups: Mapping[str, Sequence[str]] | None = None,
    level: float = LEVEL,
) -> AnswerScores:
    """Accuracy of answers, `(n_questions,)` each: right by the strict reading, by the lenient one, unparsed by each.

    `groups` names one group per question for each grouping, such as `{"question_type": [...], "template": [...]}`.

    Raises:
        MetricError: arrays of different lengths, or an unparsed answer that is called right.
    """
    shares = {
        "strict": _column(strict, "strict"),
        "lenient": _column(lenient, "lenient"),
        "unparsed_strict": _column(unparsed_strict, "unparsed_strict"),
        "unparsed_lenient": _column(unparsed_lenient, "unparsed_lenient"),
    }
    n_questions = len(bootstrap.index)
    for name, column in shares.items():
        if len(column) != n_questions:
            raise MetricError(f"{name}: found {len(column)} answers for {n_questions} questions")
    for reading in ("strict", "lenient"):
        if (both := int((shares[reading] & shares[f"unparsed_{reading}"]).sum())) > 0:
            raise MetricError(f"{both} answers are both unparsed and right by the {reading} reading; unparsed is wrong")
    columns = np.stack([shares[name] for name in RATES], axis=1).astype(np.float64)
    overall, resamples = _rates(columns, np.zeros(n_questions, dtype=np.int64), 1, bootstrap)
    kept = {name: resamples[:, 0, place] for place, name in enumerate(RATES[:2])}
    by: dict[str, dict[str, Rates]] = {}
    means: dict[str, Rates] = {}
    for grouping, of_question in (groups or {}).items():
        if len(of_question) != n_questions:
            raise MetricError(f"groups[{grouping!r}]: found {len(of_question)} names for {n_questions} questions")
        names, places = np.unique(np.asarray(of_question, dtype=np.str_), return_inverse=True)
        values, drawn = _rates(columns, places.astype(np.int64), len(names), bootstrap)
        sizes = np.bincount(places)
        by[grouping] = {
            str(name): _estimates(int(sizes[place]), values[place], drawn[:, place], level)
            for place, name in enumerate(names)
        }
        known = np.isfinite(drawn)
        mean = np.divide(
            np.where(known, drawn, 0).sum(1), known.sum(1), out=np.full(drawn[:, 0].shape, np.nan), where=known.any(1)
        )
        means[grouping] = _estimates(n_questions, values.mean(0), mean, level)
        kept |= {f"{name}_mean_over_{grouping}": mean[:, place] for place, name in enumerate(RATES[:2])}
    return AnswerScores(
        n_questions=n_questions,
        n_patients=bootstrap.n_patients,
        overall=_estimates(n_questions, overall[0], resamples[:, 0], level),
        by=by,
        means=means,
        resamples=kept,
    )


def _column(values: ArrayLike, name: str) -> Bools:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype != np.bool_:
        raise MetricError(f"{name}: found {array.dtype} of shape {array.shape}; expected one boolean per question")
    return array


def _rates(columns: Floats, places: Any, n_groups: int, bootstrap: PatientBootstrap) -> tuple[Floats, Floats]:
    """Shares by group, `(n_groups, 4)`, and in the resamples, `(n_resamples, n_groups, 4)`; NaN for empty groups."""
    sizes = np.bincount(places, minlength=n_groups)
    values = np.stack([np.bincount(places, weights=column, minlength=n_groups) for column in columns.T], axis=1)
    drawn = np.full((bootstrap.n_resamples, n_groups, columns.shape[1]), np.nan)
    with_ones = np.concatenate([columns, np.ones((len(columns), 1))], axis=1)
    for group in range(n_groups):
        sums = bootstrap.restricted(places == group).sums(with_ones[places == group])
        drawn[:, group] = np.divide(
            sums[:, :-1], sums[:, -1:], out=np.full((len(sums), columns.shape[1]), np.nan), where=sums[:, -1:] > 0
        )
    return values / sizes[:, None], drawn


def _estimates(n_questions: int, values: Floats, drawn: Floats, level: float) -> Rates:
    return Rates(
        n_questions,
        *(estimate(float(value), drawn[:, place], level) for place, value in enumerate(values)),
    )
