"""Metrics equal scikit-learn's and scipy's, with ties, weights and single classes, and know what they cannot say."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom, chi2
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    precision_recall_curve,
    recall_score,
    roc_auc_score,
)

from ecglm.bench.metrics import (
    MetricError,
    PatientBootstrap,
    best_thresholds,
    compare,
    constant_f1,
    f1_scores,
    holm,
    indistinguishable_groups,
    mcnemar,
    score_answers,
    score_multilabel,
)
from ecglm.bench.metrics.bootstrap import estimate
from ecglm.bench.metrics.calibration import calibration_error
from ecglm.bench.metrics.decisions import bootstrap_f1
from ecglm.bench.metrics.fmax import fmax, threshold_grid
from ecglm.bench.metrics.ranking import auc_by_class, bootstrap_auc

EXACT = 1e-9
Example = tuple[np.ndarray, np.ndarray, np.ndarray]


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Labels, scores with ties, and patients; classes without positives or negatives are common."""
    n_records, n_classes = draw(st.integers(1, 25)), draw(st.integers(1, 4))
    targets = draw(arrays(np.bool_, (n_records, n_classes)))
    steps = draw(st.integers(1, 12))
    scores = draw(arrays(np.int64, (n_records, n_classes), elements=st.integers(0, steps))) / steps
    patients = draw(arrays(np.int64, n_records, elements=st.integers(0, 9)))
    return targets, scores, patients


def _same(found: float | None, expected: float) -> bool:
    if found is None or math.isnan(found):
        return math.isnan(expected)
    return abs(found - expected) <= EXACT


def _records(bootstrap: PatientBootstrap, number: int) -> np.ndarray:
    """The records of a resample, each as often as its patient was drawn."""
    return np.repeat(np.arange(len(bootstrap.index)), bootstrap.draws(number).astype(int)[bootstrap.index])


def _auc(labels: np.ndarray, scores: np.ndarray) -> float:
    return float(roc_auc_score(labels, scores)) if labels.any() and not labels.all() else math.nan


# ---------------------------------------------------------------------------------------------------- against libraries


@settings(deadline=None)
@given(example=examples(), seed=st.integers(0, 99))
def test_the_auc_of_a_resample_is_that_of_scikit_learn_on_its_records(example: Example, seed: int) -> None:
    targets, scores, patients = example
    bootstrap = PatientBootstrap(patients, n_resamples=4, seed=seed)
    areas = bootstrap_auc(targets, scores, bootstrap, workers=1)
    for number in range(4):
        records = _records(bootstrap, number)
        for column in range(targets.shape[1]):
            expected = _auc(targets[records, column], scores[records, column])
            assert _same(areas[number, column], expected)
            weights = bootstrap.draws(number).astype(float)[bootstrap.index]
            assert _same(auc_by_class(targets, scores, weights)[column], expected)


@settings(deadline=None)
@given(example=examples(), seed=st.integers(0, 99))
def test_the_f1_of_a_resample_is_that_of_scikit_learn_on_its_records(example: Example, seed: int) -> None:
    targets, scores, patients = example
    decisions = scores >= 0.5
    bootstrap = PatientBootstrap(patients, n_resamples=4, seed=seed)
    averages, by_class = bootstrap_f1(targets, decisions, bootstrap)
    for number in range(4):
        records = _records(bootstrap, number)
        drawn, decided = targets[records], decisions[records]
        for average, expected in _sklearn_f1(drawn, decided).items():
            assert _same(averages[average][number], expected), average
        for column in range(targets.shape[1]):
            known = drawn[:, column].any()
            expected = f1_score(drawn[:, column], decided[:, column], zero_division=0) if known else math.nan
            assert _same(by_class[number, column], expected)


def _sklearn_f1(targets: np.ndarray, decisions: np.ndarray) -> dict[str, float]:
    """scikit-learn's averages; macro and weighted over the classes that have a positive record."""
    if not targets.any():
        unknown = dict.fromkeys(("macro", "micro", "weighted"), math.nan)
    else:
        known = targets.any(0)
        unknown = {
            "macro": f1_score(targets[:, known], decisions[:, known], average="macro", zero_division=0)
            if known.sum() > 1
            else f1_score(targets[:, known].ravel(), decisions[:, known].ravel(), zero_division=0),
            "micro": f1_score(targets.ravel(), decisions.ravel(), zero_division=0),
            "weighted": f1_score(targets[:, known], decisions[:, known], average="weighted", zero_division=0)
            if known.sum() > 1
            else f1_score(targets[:, known].ravel(), decisions[:, known].ravel(), zero_division=0),
        }
    if len(targets) > 1:  # records in the place of classes
        by_record = f1_score(targets.T, decisions.T, average=None, zero_division=1)
    else:
        by_record = [f1_score(targets[0], decisions[0], zero_division=1)]
    return unknown | {"samples": float(np.mean(by_record))}


@settings(deadline=None)
@given(example=examples())
def test_f1_of_all_records_is_that_of_scikit_learn(example: Example) -> None:
    targets, scores, _ = example
    for average, expected in _sklearn_f1(targets, scores >= 0.5).items():
        assert _same(f1_scores(targets, scores >= 0.5)[average], expected), average


def test_samples_f1_is_scikit_learns_own_where_every_record_has_a_label() -> None:
    generator = np.random.default_rng(1)
    targets, decisions = generator.random((200, 5)) < 0.4, generator.random((200, 5)) < 0.5
    targets[:, 0] |= ~targets.any(1)
    assert f1_scores(targets, decisions)["samples"] == pytest.approx(
        f1_score(targets, decisions, average="samples", zero_division=0), abs=EXACT
    )


@settings(deadline=None)
@given(example=examples())
def test_a_threshold_has_the_best_f1_that_any_threshold_has(example: Example) -> None:
    targets, scores, _ = example
    thresholds = best_thresholds(targets, scores)
    for column in range(targets.shape[1]):
        labels, column_scores = targets[:, column], scores[:, column]
        if not labels.any():
            assert thresholds[column] == math.inf
            continue
        assert thresholds[column] in column_scores
        precision, recall, _ = precision_recall_curve(labels, column_scores)
        both = precision + recall
        curve = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
        reached = f1_score(labels, column_scores >= thresholds[column])
        assert reached == pytest.approx(curve.max(), abs=EXACT)
        higher = [limit for limit in set(column_scores) if limit > thresholds[column]]
        assert all(f1_score(labels, column_scores >= limit) < reached - 1e-12 for limit in higher)


@settings(deadline=None)
@given(example=examples())
def test_no_constant_answer_beats_the_best_constant(example: Example) -> None:
    targets, _, _ = example
    best = constant_f1(targets)
    n_classes = targets.shape[1]
    for size in range(n_classes + 1):
        for chosen in combinations(range(n_classes), size):
            constant = np.zeros_like(targets)
            constant[:, list(chosen)] = True
            for average, value in f1_scores(targets, constant).items():
                if average != "samples" and not math.isnan(value):
                    assert value <= best[average] + EXACT


def test_always_sinus_rhythm_is_the_constant_of_a_task_where_most_have_it() -> None:
    targets = np.zeros((100, 3), dtype=bool)
    targets[:80, 0] = targets[80:95, 1] = targets[95:, 2] = True
    assert constant_f1(targets)["micro"] == pytest.approx(0.8, abs=EXACT)
    assert constant_f1(targets)["samples"] == pytest.approx(0.8, abs=EXACT)


@settings(deadline=None)
@given(example=examples())
def test_the_table_of_classes_is_that_of_scikit_learn(example: Example) -> None:
    targets, scores, patients = example
    names = [f"class {number}" for number in range(targets.shape[1])]
    limits = np.full(len(names), 0.5)
    bootstrap = PatientBootstrap(patients, n_resamples=3)
    result = score_multilabel(targets, classes=names, bootstrap=bootstrap, scores=scores, thresholds=limits, workers=1)
    for column, row in enumerate(result.per_class):
        labels, column_scores = targets[:, column], scores[:, column]
        assert (row.n_positive, row.prevalence) == (labels.sum(), labels.mean())
        assert _same(row.auc.value, _auc(labels, column_scores))
        known = labels.any()
        assert _same(row.average_precision, average_precision_score(labels, column_scores) if known else math.nan)
        assert _same(row.sensitivity, recall_score(labels, column_scores >= 0.5) if known else math.nan)
        negative = not labels.all()
        assert _same(row.specificity, recall_score(~labels, column_scores < 0.5) if negative else math.nan)
        assert _same(row.brier, brier_score_loss(labels, column_scores, pos_label=True))
    assert result.undefined_classes == tuple(
        name for name, column in zip(names, targets.T, strict=True) if column.all() or not column.any()
    )


@settings(deadline=None)
@given(example=examples(), n_bins=st.integers(1, 20))
def test_the_calibration_error_is_the_weighted_gap_of_the_bins(example: Example, n_bins: int) -> None:
    targets, scores, _ = example
    labels, values = targets.ravel(), scores.ravel()
    bins = np.minimum((values * n_bins).astype(int), n_bins - 1)
    gaps = [
        (bins == place).mean() * abs(labels[bins == place].mean() - values[bins == place].mean())
        for place in np.unique(bins)
    ]
    assert calibration_error(targets, scores, n_bins) == pytest.approx(sum(gaps), abs=EXACT)


@settings(deadline=None)
@given(example=examples())
def test_fmax_is_the_best_sample_centric_f1_on_the_grid(example: Example) -> None:
    targets, scores, patients = example
    bootstrap = PatientBootstrap(patients, n_resamples=3)
    found = fmax(targets, scores, bootstrap)
    assert _same(found.value, _fmax(targets, scores))
    for number in range(3):
        records = _records(bootstrap, number)
        assert _same(found.resamples[number], _fmax(targets[records], scores[records]))


def _fmax(targets: np.ndarray, scores: np.ndarray) -> float:
    labelled = targets.any(1)
    if not labelled.any():
        return math.nan
    best = 0.0
    for limit in threshold_grid(np.array([0.0, 1.0])):
        given_ = scores >= limit
        some = given_.any(1)
        if not some.any():
            continue
        precision = ((targets & given_).sum(1)[some] / given_.sum(1)[some]).mean()
        recall = ((targets & given_).sum(1)[labelled] / targets.sum(1)[labelled]).mean()
        if precision + recall > 0:
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


def test_scores_beyond_single_precision_keep_their_order() -> None:
    targets = np.array([[True], [False], [True], [False]])
    scores = np.array([[0.1 + 1e-15], [0.1], [0.3], [0.3 - 1e-15]])
    bootstrap = PatientBootstrap(np.arange(4), n_resamples=50)
    areas = bootstrap_auc(targets, scores, bootstrap)
    for number in range(50):
        records = _records(bootstrap, number)
        assert _same(areas[number, 0], _auc(targets[records, 0], scores[records, 0]))


# ------------------------------------------------------------------------------------------------------- the bootstrap


def test_resamples_draw_patients_with_all_their_records() -> None:
    bootstrap = PatientBootstrap(["b", "a", "b", "c"], n_resamples=20, seed=3)
    for number in range(20):
        draws = bootstrap.draws(number)
        assert draws.sum() == 3
        weights = draws[bootstrap.index]
        assert weights[0] == weights[2]


def test_the_same_seed_gives_the_same_resamples_in_any_order_of_records() -> None:
    patients = np.array([5, 3, 9, 3, 7])
    one, other = PatientBootstrap(patients, seed=4), PatientBootstrap(patients[::-1], seed=4)
    assert np.array_equal(one.draws(11), other.draws(11))
    assert not np.array_equal(one.draws(11), PatientBootstrap(patients, seed=5).draws(11))
    assert not all(np.array_equal(one.draws(0), one.draws(number)) for number in range(1, 20))


@pytest.mark.parametrize("kept", [0, 2**30])
def test_resamples_do_not_depend_on_how_they_are_grouped_or_kept(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecglm.bench.metrics.bootstrap._KEPT_BYTES", kept)
    bootstrap = PatientBootstrap(np.arange(30) % 11, n_resamples=23, seed=1)
    values = np.random.default_rng(0).random((30, 2))
    expected = np.stack([(values * bootstrap.draws(number)[bootstrap.index][:, None]).sum(0) for number in range(23)])
    for size in (1, 7, 23, 100):
        for which, draws in bootstrap.chunks(size):
            assert all(
                np.array_equal(draws[:, place], bootstrap.draws(which.start + place)) for place in range(draws.shape[1])
            )
    assert np.allclose(bootstrap.sums(values), expected, atol=EXACT, rtol=0)


def test_a_question_about_two_patients_counts_as_often_as_both_are_drawn() -> None:
    first, second = np.array([0, 1, 2, 0]), np.array([1, 1, 3, 0])
    bootstrap = PatientBootstrap(first, partners=second, n_resamples=40, seed=2)
    sums = bootstrap.sums(np.eye(4))
    for number in range(40):
        draws = bootstrap.draws(number)
        assert list(sums[number]) == [draws[0] * draws[1], draws[1], draws[2] * draws[3], draws[0]]


def test_the_number_of_workers_changes_nothing() -> None:
    generator = np.random.default_rng(5)
    targets, scores = generator.random((300, 6)) < 0.2, generator.random((300, 6)).round(2)
    bootstrap = PatientBootstrap(generator.integers(0, 200, 300), n_resamples=30)
    one, three = (bootstrap_auc(targets, scores, bootstrap, workers=workers) for workers in (1, 3))
    assert np.array_equal(one, three, equal_nan=True)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(20)
    covered = 0
    for trial in range(200):
        values = generator.normal(size=60)
        bootstrap = PatientBootstrap(np.arange(60), n_resamples=200, seed=trial)
        found = estimate(float(values.mean()), bootstrap.sums(values[:, None])[:, 0] / 60)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_records_of_one_patient_widen_the_interval() -> None:
    generator = np.random.default_rng(6)
    values = np.repeat(generator.normal(size=50), 10)
    patients = np.repeat(np.arange(50), 10)
    widths = []
    for groups in (patients, np.arange(500)):
        drawn = PatientBootstrap(groups, n_resamples=400).sums(np.stack([values, np.ones(500)], axis=1))
        found = estimate(0.0, drawn[:, 0] / drawn[:, 1])
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert 2 < widths[0] / widths[1] < 5  # the square root of 10, about


def test_resamples_that_define_nothing_are_counted() -> None:
    found = estimate(0.5, np.array([0.4, np.nan, 0.6]))
    assert (found.n_resamples, found.n_undefined) == (3, 1)
    few = estimate(0.5, np.array([0.4, np.nan, np.nan]))
    assert (few.value, few.low, few.high, few.n_undefined) == (0.5, None, None, 2)
    assert estimate(None, np.array([0.4])).value is None


# ------------------------------------------------------------------------------------------------- scores of one model


def _scored(**changes: Any) -> Any:
    generator = np.random.default_rng(7)
    targets = generator.random((400, 4)) < [0.5, 0.2, 0.1, 0.0]
    scores = np.clip(generator.normal(0.3 + 0.3 * targets, 0.2), 0, 1)
    given_ = {"scores": scores, "thresholds": np.full(4, 0.5)} | changes
    bootstrap = PatientBootstrap(generator.integers(0, 300, 400), n_resamples=50, seed=1)
    return targets, score_multilabel(targets, classes=["a", "b", "c", "d"], bootstrap=bootstrap, **given_)


def test_every_metric_has_an_interval_around_it_and_the_undefined_class_is_named() -> None:
    targets, result = _scored()
    assert set(result.metrics) == {
        "macro_auc", "macro_average_precision", "f1_macro", "f1_micro", "f1_weighted", "f1_samples", "fmax", "brier",
        "ece",
    }  # fmt: skip
    for name, found in result.metrics.items():
        if name != "macro_average_precision":
            assert found.low <= found.value <= found.high or name in ("ece", "fmax"), name
    assert result.undefined_classes == ("d",)
    assert result.n_without_label == (~targets.any(1)).sum()
    assert result.labels["fmax"] == "test-set maximum"
    assert set(result.constant) == {"f1_macro", "f1_micro", "f1_weighted", "f1_samples"}
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["metrics"]["macro_auc"]["n_resamples"] == 50


def test_without_scores_there_is_no_auc_and_the_reason_is_said() -> None:
    targets, _ = _scored()
    _, result = _scored(scores=None, thresholds=None, decisions=targets)
    assert "macro_auc" not in result.metrics
    assert result.unavailable["macro_auc"].startswith("AUC not available")
    assert result.metrics["f1_macro"].value == result.metrics["f1_samples"].value == 1
    assert all(row.auc.value is None for row in result.per_class)


def test_without_thresholds_there_is_no_f1_and_the_reason_is_said() -> None:
    _, result = _scored(thresholds=None)
    assert "macro_auc" in result.metrics
    assert result.unavailable["f1_macro"].startswith("F1 not available")


def test_scores_that_are_no_probabilities_have_an_auc_but_no_calibration() -> None:
    targets, inside = _scored()
    _, outside = _scored(scores=np.where(targets, 3.0, -2.0), thresholds=np.zeros(4))
    assert outside.metrics["macro_auc"].value == 1
    assert "outside [0, 1]" in outside.unavailable["brier"]
    assert "brier" in inside.metrics


def test_unparsed_counts_as_the_wrong_answer_whichever_that_is() -> None:
    targets, _ = _scored()
    _, right = _scored(scores=None, thresholds=None, decisions=targets)
    _, none = _scored(scores=None, thresholds=None, decisions=targets, unparsed=np.ones_like(targets))
    _, half = _scored(
        scores=None, thresholds=None, decisions=targets, unparsed=np.arange(400)[:, None] % 2 == np.zeros((1, 4))
    )
    assert (right.metrics["f1_micro"].value, none.metrics["f1_micro"].value) == (1, 0)
    assert 0 < half.metrics["f1_micro"].value < 1
    assert (none.unparsed_rate, half.unparsed_rate) == (1, 0.5)


def test_right_and_reversed_scores_have_the_extreme_areas() -> None:
    targets, _ = _scored()
    assert _scored(scores=targets.astype(float))[1].metrics["macro_auc"].value == 1
    assert _scored(scores=1 - targets.astype(float))[1].metrics["macro_auc"].value == 0
    assert _scored(scores=np.full(targets.shape, 0.3))[1].metrics["macro_auc"].value == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": None, "thresholds": None}, "nothing to score"),
        ({"scores": np.full((400, 4), np.nan)}, "1600 of 1600 values are NaN or infinite, the first at"),
        ({"scores": np.zeros((400, 3))}, r"found shape \(400, 3\), expected \(400, 4\)"),
        ({"thresholds": np.zeros(3)}, "expected one number for each of 4 classes"),
        ({"decisions": np.full((400, 4), 0.3)}, "values other than 0 and 1"),
        ({"decisions": np.zeros((4, 400))}, "decisions: found shape"),
        ({"unparsed": np.zeros((400, 1), dtype=bool)}, "unparsed: found shape"),
    ],
)
def test_what_cannot_be_scored_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        _scored(**changes)


def test_wrong_classes_and_patients_are_refused() -> None:
    targets = np.zeros((3, 2), dtype=bool)
    for classes, patients, message in (
        (["a"], [1, 2, 3], "found 1 names for 2 columns"),
        (["a", "a"], [1, 2, 3], "a found more than once"),
        (["a", "b"], [1, 2], "found 2 patients for 3 records"),
    ):
        with pytest.raises(MetricError, match=message):
            score_multilabel(targets, classes=classes, bootstrap=PatientBootstrap(patients), scores=np.zeros((3, 2)))


# --------------------------------------------------------------------------------------------------------- questions


def test_strict_lenient_and_unparsed_stand_side_by_side_by_group() -> None:
    strict = np.array([True, False, False, True, False, False])
    lenient = np.array([True, True, False, True, False, False])
    unread_strict = np.array([False, True, False, False, True, True])
    unread = np.array([False, False, False, False, True, False])
    result = score_answers(
        strict,
        lenient,
        unparsed_strict=unread_strict,
        unparsed_lenient=unread,
        bootstrap=PatientBootstrap([1, 1, 2, 2, 3, 3], n_resamples=60),
        groups={"question_type": ["verify"] * 4 + ["query"] * 2},
    )
    assert (result.overall.strict.value, result.overall.lenient.value) == (pytest.approx(2 / 6), pytest.approx(3 / 6))
    assert (result.overall.unparsed_strict.value, result.overall.unparsed_lenient.value) == (0.5, pytest.approx(1 / 6))
    by_type = result.by["question_type"]
    assert (by_type["verify"].n_questions, by_type["verify"].strict.value) == (4, 0.5)
    assert result.means["question_type"].strict.value == pytest.approx((0.5 + 0) / 2)
    assert result.means["question_type"].lenient.value == pytest.approx((0.75 + 0) / 2)
    assert result.resamples["strict"].shape == result.resamples["lenient_mean_over_question_type"].shape == (60,)
    assert json.dumps(result.as_dict(), allow_nan=False)


def test_accuracies_of_resamples_are_those_of_their_questions() -> None:
    generator = np.random.default_rng(9)
    right = generator.random(200) < 0.6
    none = np.zeros(200, dtype=bool)
    types = generator.choice(["a", "b", "c"], 200)
    bootstrap = PatientBootstrap(generator.integers(0, 60, 200), n_resamples=25)
    result = score_answers(
        right, right, unparsed_strict=none, unparsed_lenient=none, bootstrap=bootstrap, groups={"type": list(types)}
    )
    for number in range(25):
        records = _records(bootstrap, number)
        assert _same(result.resamples["strict"][number], right[records].mean())
        means = [right[records][types[records] == name].mean() for name in "abc"]
        assert _same(result.resamples["strict_mean_over_type"][number], float(np.mean(means)))


def test_an_unparsed_answer_is_never_right() -> None:
    both = np.array([True, False])
    with pytest.raises(MetricError, match="unparsed is wrong"):
        score_answers(
            both, both, unparsed_strict=both, unparsed_lenient=~both & False, bootstrap=PatientBootstrap([1, 2])
        )


# -------------------------------------------------------------------------------------------------------- comparisons


def test_a_model_does_not_differ_from_itself() -> None:
    values = np.random.default_rng(1).random(500)
    found = compare(0.5, 0.5, values, values)
    assert (found.difference.value, found.difference.low, found.difference.high, found.p_value) == (0, 0, 0, 1)


def test_a_paired_difference_is_found_where_the_intervals_overlap() -> None:
    generator = np.random.default_rng(2)
    shared = generator.normal(0.8, 0.05, 1000)
    found = compare(0.81, 0.80, shared + 0.01 + generator.normal(0, 0.001, 1000), shared)
    assert found.difference.low is not None
    assert found.difference.low > 0
    assert found.p_value == pytest.approx(2 / 1001)
    backwards = compare(0.80, 0.81, shared, shared + 0.01)
    assert backwards.p_value == pytest.approx(2 / 1001)


def test_other_resamples_are_not_compared() -> None:
    with pytest.raises(MetricError, match="one seed and number of resamples"):
        compare(0.5, 0.4, np.zeros(10), np.zeros(11))


def test_p_values_of_equal_models_are_about_uniform() -> None:
    generator = np.random.default_rng(3)
    p_values = []
    for trial in range(150):
        right = generator.random((2, 120)) < 0.7
        bootstrap = PatientBootstrap(np.arange(120), n_resamples=199, seed=trial)
        drawn = bootstrap.sums(right.T.astype(float)) / 120
        p_values.append(compare(*right.mean(1), *drawn.T).p_value)
    assert np.mean(np.array(p_values, dtype=float) <= 0.05) < 0.12
    assert 0.35 < np.mean(np.array(p_values, dtype=float) <= 0.5) < 0.65


@given(only_first=st.integers(0, 30), only_second=st.integers(0, 30))
def test_mcnemar_is_the_exact_binomial_where_few_differ(only_first: int, only_second: int) -> None:
    first = np.array([True] * only_first + [False] * only_second + [True, False])
    second = np.array([False] * only_first + [True] * only_second + [True, False])
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second, found.exact) == (only_first, only_second, True)
    total = only_first + only_second
    expected = min(1.0, 2 * binom.cdf(min(only_first, only_second), total, 0.5)) if total else 1.0
    assert found.p_value == pytest.approx(expected, abs=EXACT)


def test_mcnemar_is_chi_squared_with_correction_where_many_differ() -> None:
    first = np.array([True] * 600 + [False] * 500)
    found = mcnemar(first, ~first)
    assert not found.exact
    assert found.p_value == pytest.approx(chi2.sf((100 - 1) ** 2 / 1100, 1), abs=EXACT)
    with pytest.raises(MetricError, match="one boolean per question"):
        mcnemar(first, first[:-1])


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_what_the_closed_test_rejects(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    number = len(p_values)
    for place in range(number):
        others = [other for other in range(number) if other != place]
        closed = max(
            min(1.0, min(p_values[member] for member in (place, *chosen)) * (len(chosen) + 1))
            for size in range(number)
            for chosen in combinations(others, size)
        )
        assert adjusted[place] == pytest.approx(closed, abs=EXACT)


def test_holm_of_a_known_example_and_of_what_is_no_p_value() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    with pytest.raises(MetricError, match="numbers between 0 and 1"):
        holm([0.5, 1.5])


def test_groups_hold_only_models_that_cannot_be_told_apart() -> None:
    generator = np.random.default_rng(4)
    noise = generator.normal(0, 0.01, (4, 1000))
    values = {"best": 0.90, "close": 0.895, "middle": 0.87, "last": 0.50}
    resamples = {name: value + noise[place] for place, (name, value) in enumerate(values.items())}
    groups = indistinguishable_groups(values, resamples)
    assert groups[0][:2] == ("best", "close")
    assert groups[-1] == ("last",)
    assert {name for group in groups for name in group} == set(values)
    for group in groups:
        assert all(values[first] >= values[second] for first, second in pairwise(group))
    assert indistinguishable_groups({"only": 0.5}, {"only": np.full(10, 0.5)}) == (("only",),)


@settings(max_examples=30, deadline=None)
@given(centres=st.lists(st.floats(0, 0.1), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_two_models_share_a_group_exactly_if_no_test_tells_them_apart(centres: list[float], seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = {f"model {number}": centre for number, centre in enumerate(centres)}
    resamples = {name: value + generator.normal(0, 0.02, 300) for name, value in values.items()}
    groups = indistinguishable_groups(values, resamples)
    pairs = list(combinations(values, 2))
    tests = [compare(values[a], values[b], resamples[a], resamples[b]).p_value for a, b in pairs]
    for (first, second), adjusted in zip(pairs, holm([float(p or 0) for p in tests]), strict=True):
        assert any(first in group and second in group for group in groups) == (adjusted > 0.05)


@pytest.mark.slow
def test_the_benchmark_of_scoring_runs_and_agrees_with_scikit_learn() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "scoring.py"
    sizes = ("--records", "400", "--patients", "300", "--classes", "3", "--resamples", "20", "--workers", "1")
    run = subprocess.run([sys.executable, script, *sizes, "--json"], capture_output=True, text=True, check=True)
    content = json.loads(run.stdout)
    assert content["largest_difference"] <= EXACT
    assert content["scoring"][0]["seconds"] > 0
    assert content["reading"]["answers"] == 400
