"""Metrics with their uncertainty: what is computed, from what, and what cannot be.

    bootstrap = PatientBootstrap(patient_ids, n_resamples=1000, seed=0)
    limits = best_thresholds(validation_targets, validation_scores)
    scores = score_multilabel(targets, classes=names, bootstrap=bootstrap, scores=scores, thresholds=limits)
    scores.metrics["macro_auc"]          # Estimate(value, low, high, …)
    scores.as_dict()                     # for JSON

`score_answers` does the same for answers to questions. `compare`, `mcnemar`, `holm` and `indistinguishable_groups`
take two or more scored runs of the same records and seed. scikit-learn and scipy are imported when first needed.
"""

from __future__ import annotations

from ecglm.bench.metrics.accuracy import AnswerScores, Rates, score_answers
from ecglm.bench.metrics.bootstrap import LEVEL, N_RESAMPLES, Estimate, PatientBootstrap
from ecglm.bench.metrics.comparison import Comparison, McNemar, compare, holm, indistinguishable_groups, mcnemar
from ecglm.bench.metrics.decisions import best_thresholds, constant_f1, f1_scores
from ecglm.bench.metrics.inputs import MetricError
from ecglm.bench.metrics.multilabel import ClassScores, MultilabelScores, score_multilabel

__all__ = [
    "LEVEL",
    "N_RESAMPLES",
    "AnswerScores",
    "ClassScores",
    "Comparison",
    "Estimate",
    "McNemar",
    "MetricError",
    "MultilabelScores",
    "PatientBootstrap",
    "Rates",
    "best_thresholds",
    "compare",
    "constant_f1",
    "f1_scores",
    "holm",
    "indistinguishable_groups",
    "mcnemar",
    "score_answers",
    "score_multilabel",
]
