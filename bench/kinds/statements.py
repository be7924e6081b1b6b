"""Statements of PTB-XL: one yes or no, and one score, for every (ECG, statement)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecglm.bench.data import Data
from ecglm.bench.metrics import MultilabelScores, PatientBootstrap, best_thresholds, score_multilabel
from ecglm.bench.protocol import YES_NO
from ecglm.bench.questions import Questions, Scored, with_ids
from ecglm.bench.scoring import Settings, nan_resamples
from ecglm.bench.task import LABEL_RULES, LoadedTask, StatementsTask
from ecglm.synth.errors import TaskError

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

COUNTING = ("stated", "certain", "probable", "possible")
"""Certainties that count as yes under the rule likelihood-50, where statements of form and rhythm are asked."""

SCORES_MISSING = "AUC not available, nor calibration: {missing:,} of {n:,} answers have no score"


# --- questions --------------------------------------------------------------------------------------------------------


def _task(loaded: LoadedTask) -> StatementsTask:
    assert isinstance(loaded.task, StatementsTask)  # noqa: S101 - chosen by its kind
    return loaded.task


def build(loaded: LoadedTask, data: Data, ask: str, limit: int | None) -> Questions:
    """One question for each (ECG, class), or one per ECG that lists the classes."""
    task = _task(loaded)
    members = _members(loaded, task, data)
    classes = sorted(members)
    names = {code: _names(code, task, data, members) for code in classes}
    labels = _class_labels(task, data, members)
    ecgs, n_all = _ecgs_of(loaded, task, data, limit)
    truth = _truth(ecgs, labels, task)
    asked = _asked(task, ecgs, classes, names, ask)
    train = data.ecgs.filter(~pl.col("strat_fold").is_in([*task.test_folds, *task.threshold_folds]))
    return Questions(
        loaded=loaded,
        ask=ask,
        asked=with_ids(asked),
        truth=truth,
        about=_about(task, data, classes, names, members, truth, n_all),
        prior_source=lambda: _priors(train, labels, classes),
        known_ecgs=frozenset(data.ecgs["ecg_id"].to_list()),
    )


def _members(loaded: LoadedTask, task: StatementsTask, data: Data) -> dict[str, list[str]]:
    """Class → the statements that make it hold."""
    statements = data.source.statements
    if task.classes.codes is not None:
        known = set(statements["code"])
        unknown = [code for code in task.classes.codes if code not in known]
        if unknown:
            raise TaskError(
                f"{loaded.where}: classes.codes: {', '.join(unknown)}: not a statement of {data.source.name}"
            )
        return {code: [code] for code in task.classes.codes}
    wanted = pl.col("kinds").list.set_intersection(list(task.classes.kinds)).list.len() > 0
    chosen = statements.filter(wanted).with_columns(
        pl.col("code" if task.classes.group == "code" else task.classes.group).alias("class")
    )
    table = chosen.filter(pl.col("class").is_not_null()).group_by("class", maintain_order=True).agg("code")
    members = {str(name): list(codes) for name, codes in table.select("class", "code").iter_rows()}
    if not members:
        raise TaskError(f"{loaded.where}: classes: {data.source.name} has no such statement")
    return members


def _names(code: str, task: StatementsTask, data: Data, members: Mapping[str, list[str]]) -> tuple[str, str]:
    """Name and phrase of a class: the task's own, else those of the guideline of its only statement."""
    if code in task.names:
        return task.names[code].name, task.names[code].phrase
    only = members[code][0] if len(members[code]) == 1 else None
    guideline = data.guidelines.by_code.get(only) if only is not None else None
    if guideline is not None:
        return guideline.name, guideline.phrase
    if only is not None:
        row = data.source.statements.filter(pl.col("code") == only)
        return row["description"][0], row["description"][0]
    raise TaskError(f"class {code} of {task.id} has several statements and no name; add it under `names`")


def _class_labels(task: StatementsTask, data: Data, members: Mapping[str, list[str]]) -> pl.DataFrame:
    """Columns ecg_id, class, counts: each class an ECG has, and whether it counts under likelihood-50."""
    codes = pl.DataFrame(
        {"class": list(members), "code": list(members.values())},
        schema={"class": pl.String, "code": pl.List(pl.String)},
    ).explode("code")
    only_diagnostic = task.classes.kinds == ("diagnostic",)
    surely = pl.col("likelihood") >= 50
    counts = surely if only_diagnostic else surely | pl.col("certainty").is_in(COUNTING)
    return (
        data.labels.join(codes, on="code")
        .with_columns(counts.fill_null(False).alias("counts"))
        .group_by("ecg_id", "class")
        .agg(pl.col("counts").any())
    )


def _ecgs_of(
    loaded: LoadedTask, task: StatementsTask, data: Data, limit: int | None
) -> tuple[pl.DataFrame, dict[str, int]]:
    role = (
        pl.when(pl.col("strat_fold").is_in(task.test_folds))
        .then(pl.lit("test"))
        .when(pl.col("strat_fold").is_in(task.threshold_folds))
        .then(pl.lit("threshold"))
    )
    ecgs = data.ecgs.with_columns(role.alias("role")).filter(pl.col("role").is_not_null())
    counts = {str(name): int(count) for name, count in ecgs["role"].value_counts().iter_rows()}
    if not counts.get("test"):
        raise TaskError(
            f"{loaded.where}: no ECG of {data.source.root} is in test fold {', '.join(map(str, task.test_folds))};"
            " unpack more of the dataset"
        )
    if limit is not None:
        ecgs = ecgs.group_by("role", maintain_order=True).head(limit)
    return ecgs.sort("role", maintain_order=True), counts


def _truth(ecgs: pl.DataFrame, labels: pl.DataFrame, task: StatementsTask) -> pl.DataFrame:
    """One row per ECG with the classes it has under each label rule."""
    table = ecgs.select("ecg_id", "patient_id", "strat_fold", "role")
    for rule in task.label_rules:
        kept = labels if rule == "presence" else labels.filter("counts")
        lists = kept.sort("class").group_by("ecg_id").agg(pl.col("class").alias(rule))
        table = table.join(lists, on="ecg_id", how="left", maintain_order="left")
    return table.with_columns(pl.col(rule).fill_null([]) for rule in task.label_rules)


def _asked(
    task: StatementsTask, ecgs: pl.DataFrame, classes: list[str], names: Mapping[str, tuple[str, str]], ask: str
) -> pl.DataFrame:
    ids = ecgs.select("role", pl.concat_list("ecg_id").alias("ecg_ids"))
    unit = pl.lit(None, pl.String).alias("unit")
    if ask == "list":
        options = [names[code][0] for code in classes]
        if len(set(options)) < len(options):
            raise TaskError(f"{task.id}: two classes have the same name, so they cannot be listed; ask by statement")
        return ids.with_columns(
            pl.lit(pl.Series([classes])).first().alias("codes"),
            pl.lit(task.list_question).alias("question"),
            pl.lit(pl.Series([options])).first().alias("options"),
            pl.lit(True).alias("multiple"),
            unit,
        )
    texts = pl.DataFrame(
        {
            "codes": [[code] for code in classes],
            "question": [task.question.replace("{phrase}", names[code][1]) for code in classes],
        }
    )
    return ids.join(texts, how="cross", maintain_order="left_right").with_columns(
        pl.lit(pl.Series([list(YES_NO)])).first().alias("options"), pl.lit(False).alias("multiple"), unit
    )


def _about(
    task: StatementsTask,
    data: Data,
    classes: list[str],
    names: Mapping[str, tuple[str, str]],
    members: Mapping[str, list[str]],
    truth: pl.DataFrame,
    n_all: Mapping[str, int],
) -> dict[str, Any]:
    matrices = {
        (role, rule): target_matrix(truth.filter(pl.col("role") == role), classes, rule).sum(0)
        for role in ("test", "threshold")
        for rule in task.label_rules
    }
    table = [
        {
            "class": code,
            "name": names[code][0],
            "statements": members[code],
            "positives": {
                role: {rule: int(matrices[role, rule][place]) for rule in task.label_rules}
                for role in ("test", "threshold")
            },
        }
        for place, code in enumerate(classes)
    ]
    test = truth.filter(pl.col("role") == "test")
    return {
        "source": {"name": data.source.name, "version": data.source.attribution["version"]},
        "n_ecgs": {"test": test.height, "threshold": truth.height - test.height, "available": dict(n_all)},
        "n_patients": test["patient_id"].n_unique(),
        "folds": {"test": list(task.test_folds), "threshold": list(task.threshold_folds)},
        "classes": table,
        "rules": {rule: LABEL_RULES[rule] for rule in task.label_rules},
        "without_label": {rule: int((test[rule].list.len() == 0).sum()) for rule in task.label_rules},
        "excluded_by_source": int(data.source.rejected.collect().height),
    }


def _priors(train: pl.DataFrame, labels: pl.DataFrame, classes: list[str]) -> dict[str, Any]:
    found = labels.join(train, on="ecg_id", how="semi")["class"].value_counts()
    counts = {str(name): int(count) for name, count in found.iter_rows()}
    return {
        "from": f"{train.height} ECGs outside the test and threshold folds",
        "share": {code: counts.get(code, 0) / max(train.height, 1) for code in classes},
        "ecg_ids": train["ecg_id"].to_list(),
    }


# --- the built-in models ----------------------------------------------------------------------------------------------


def answer_key(questions: Questions) -> dict[str, tuple[str, ...]]:
    """The right answers under the first label rule."""
    task = _task(questions.loaded)
    present = {
        ecg_id: frozenset(codes) for ecg_id, codes in questions.truth.select("ecg_id", task.label_rules[0]).iter_rows()
    }
    key = {}
    columns = ("question_id", "ecg_ids", "codes", "options")
    for question_id, ecg_ids, codes, options in questions.asked.select(columns).iter_rows():
        held = present[ecg_ids[0]]
        if questions.ask == "list":
            key[question_id] = tuple(o for o, code in zip(options, codes, strict=True) if code in held)
        else:
            key[question_id] = ("yes",) if codes[0] in held else ("no",)
    return key


def priors(questions: Questions) -> dict[str, tuple[tuple[str, ...], tuple[float, ...]]]:
    """The share of training ECGs with each class."""
    share = questions.priors["share"]
    found = {}
    for question_id, codes, options in questions.asked.select("question_id", "codes", "options").iter_rows():
        if questions.ask == "list":
            scores = tuple(share[code] for code in codes)
            answer = tuple(option for option, score in zip(options, scores, strict=True) if score >= 0.5)
        else:
            scores = (share[codes[0]], 1 - share[codes[0]])
            answer = ("yes",) if scores[0] >= 0.5 else ("no",)
        found[question_id] = (answer, scores)
    return found


# --- scores -----------------------------------------------------------------------------------------------------------


def target_matrix(ecgs: pl.DataFrame, classes: list[str], rule: str) -> Bools:
    """(n_ecgs, n_classes)."""
    place = {code: number for number, code in enumerate(classes)}
    targets = np.zeros((ecgs.height, len(classes)), dtype=np.bool_)
    for row, codes in enumerate(ecgs[rule].to_list()):
        targets[row, [place[code] for code in codes]] = True
    return targets


class _Answered:
    """The answers of one role as matrices, `(n_ecgs, n_classes)`, rows as in `truth`."""

    def __init__(self, questions: Questions, answers: pl.DataFrame, role: str, classes: list[str]) -> None:
        self.ecgs = questions.truth.filter(pl.col("role") == role)
        shape = (self.ecgs.height, len(classes))
        mine = answers.filter(pl.col("role") == role)
        self.answered = mine.height > 0 and mine["status"].null_count() < mine.height
        self.has_text = bool(mine["text"].is_not_null().any())
        failed = (mine["status"] != "answered").fill_null(True).to_numpy()
        if questions.ask == "list":
            self._from_lists(mine, classes, shape, failed)
        else:
            self.failed: Bools = failed.reshape(shape)
            self.scores: Floats = mine["score"].cast(pl.Float64).fill_null(np.nan).to_numpy().reshape(shape)
            self.yes, self.unparsed = {}, {}
            for reading in ("strict", "lenient"):
                parsed = mine[f"parsed_{reading}"]
                first = parsed.list.first()
                self.yes[reading] = (first == "yes").fill_null(False).to_numpy().reshape(shape)
                self.unparsed[reading] = first.is_null().to_numpy().reshape(shape)

    def _from_lists(self, mine: pl.DataFrame, classes: list[str], shape: tuple[int, int], failed: Bools) -> None:
        self.failed = np.broadcast_to(failed[:, None], shape).copy()
        self.scores = np.full(shape, np.nan)
        for row, scores in enumerate(mine["scores"].to_list()):
            if scores is not None:
                self.scores[row] = scores
        options: list[str] = mine["options"][0].to_list() if mine.height else list(classes)
        place = {option: number for number, option in enumerate(options)}
        self.yes, self.unparsed = {}, {}
        for reading in ("strict", "lenient"):
            yes, unparsed = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
            for row, parsed in enumerate(mine[f"parsed_{reading}"].to_list()):
                unparsed[row] = parsed is None
                yes[row, [place[option] for option in parsed or ()]] = True
            self.yes[reading], self.unparsed[reading] = yes, unparsed

    @property
    def has_scores(self) -> bool:
        """Whether any answer carries a score."""
        return bool(np.isfinite(self.scores).any())

    @property
    def missing_scores(self) -> int:
        """How many (ECG, class) have none."""
        return int(np.isnan(self.scores).sum())


def score(questions: Questions, answers: pl.DataFrame, settings: Settings) -> Scored:
    """Every label rule, on the whole fold and on its labelled ECGs, with and without rare classes."""
    task = _task(questions.loaded)
    classes = [str(row["class"]) for row in questions.about["classes"]]
    test = _Answered(questions, answers, "test", classes)
    held_out = _Answered(questions, answers, "threshold", classes)
    least = settings.min_positives or task.min_positives
    views: list[dict[str, Any]] = []
    first: dict[str, MultilabelScores] = {}
    for rule in task.label_rules:
        targets = target_matrix(test.ecgs, classes, rule)
        thresholds, why = _thresholds(held_out, classes, rule)
        labelled: Bools = np.asarray(targets.any(1))
        frequent: Bools = np.asarray(targets.sum(0) >= least)
        for records, rows in (("whole", np.ones_like(labelled)), ("labelled", labelled)):
            for which, columns in (("all", np.ones_like(frequent)), (f"at least {least} positives", frequent)):
                about = {"rule": rule, "records": records, "classes": which, "n_classes": int(columns.sum())}
                if which != "all" and columns.all():
                    continue  # no class is rare: the same view again
                if not rows.any() or not columns.any():
                    views.append(about | {"n_records": int(rows.sum()), "unavailable": "nothing to score"})
                    continue
                made = _scores(test, targets, thresholds, rows, columns, classes, settings)
                first = first or made
                views.append(about | _told(made, task, why, main=which == "all"))
    headline, value, resamples = _headline(first, task, settings, views)
    return Scored(
        content={
            "kind": "statements",
            "headline": headline,
            "ask": questions.ask,
            "rare": {rule: _rare(questions, rule, least) for rule in task.label_rules},
            "min_positives": least,
            "thresholds": "one per class, the best F1 on fold " + ", ".join(map(str, task.threshold_folds)),
            "unparsed": {
                reading: float(test.unparsed[reading].mean()) if test.has_text else None
                for reading in ("strict", "lenient")
            },
            "failed": int(test.failed.sum()),
            "views": views,
        },
        value=value,
        resamples=resamples,
        right=_right(test, held_out, questions, task, classes),
    )


def _rare(questions: Questions, rule: str, least: int) -> list[str]:
    """The classes with fewer test positives."""
    return [row["class"] for row in questions.about["classes"] if row["positives"]["test"][rule] < least]


def _thresholds(held_out: _Answered, classes: list[str], rule: str) -> tuple[Floats | None, str]:
    if not held_out.has_scores:
        return None, "F1 not available from scores: no scores for the threshold fold"
    if held_out.missing_scores:
        return None, f"F1 not available: {held_out.missing_scores} scores of the threshold fold are missing"
    return best_thresholds(target_matrix(held_out.ecgs, classes, rule), held_out.scores), ""


def _scores(
    test: _Answered,
    targets: Bools,
    thresholds: Floats | None,
    rows: Bools,
    columns: Bools,
    classes: list[str],
    settings: Settings,
) -> dict[str, MultilabelScores]:
    """Scores by what they are made from: `scores`, `strict` (text), `lenient` (text)."""
    patients = test.ecgs["patient_id"].to_numpy()[rows]
    bootstrap = PatientBootstrap(patients, n_resamples=settings.n_resamples, seed=settings.seed)
    names = [code for code, kept in zip(classes, columns, strict=True) if kept]

    def cut(matrix: Any) -> Any:
        return matrix[rows][:, columns]

    made = {}
    if test.has_scores and not test.missing_scores:
        made["scores"] = score_multilabel(
            cut(targets),
            classes=names,
            bootstrap=bootstrap,
            scores=cut(test.scores),
            thresholds=None if thresholds is None else thresholds[columns],
            level=settings.level,
        )
    for reading in ("strict", "lenient") if test.has_text or not test.has_scores else ():
        made[reading] = score_multilabel(
            cut(targets),
            classes=names,
            bootstrap=bootstrap,
            decisions=cut(test.yes[reading]),
            unparsed=cut(test.unparsed[reading]),
            level=settings.level,
        )
    if test.has_scores and test.missing_scores and "strict" not in made:
        decisions = np.zeros_like(targets) if thresholds is None else np.nan_to_num(test.scores, nan=-1.0) >= thresholds
        made["scores"] = score_multilabel(
            cut(targets),
            classes=names,
            bootstrap=bootstrap,
            decisions=cut(decisions),
            unparsed=cut(np.isnan(test.scores)) if thresholds is not None else cut(np.ones_like(targets)),
            level=settings.level,
        )
    if test.has_scores and test.missing_scores:
        why = SCORES_MISSING.format(missing=test.missing_scores, n=test.scores.size)
        made = {name: _for_want_of(each, why) for name, each in made.items()}
    return made


def _for_want_of(scores: MultilabelScores, why: str) -> MultilabelScores:
    """Scores that say why some of the answers' own scores were not enough; F1 keeps its own reason."""
    told = {metric: text if metric.startswith("f1") else why for metric, text in scores.unavailable.items()}
    return dataclasses.replace(scores, unavailable=told)


def _told(made: Mapping[str, MultilabelScores], task: StatementsTask, why: str, *, main: bool) -> dict[str, Any]:
    any_scores = next(iter(made.values()))
    told: dict[str, Any] = {
        "n_records": any_scores.n_records,
        "n_patients": any_scores.n_patients,
        "constant": dict(any_scores.constant),
    }
    for name, scores in made.items():
        content = scores.as_dict()
        kept = {metric: value for metric, value in content["metrics"].items() if metric in task.metrics}
        unavailable = {metric: text for metric, text in content["unavailable"].items() if metric in task.metrics}
        if name == "scores" and why:
            unavailable = {metric: why if metric.startswith("f1") else text for metric, text in unavailable.items()}
        told[name] = {
            "metrics": kept,
            "unavailable": unavailable,
            "labels": content["labels"],
            "unparsed_rate": content["unparsed_rate"],
            "undefined_classes": content["undefined_classes"],
            "fmax_threshold": content["fmax_threshold"],
        } | ({"per_class": content["per_class"]} if main else {})
    return told


def _headline(
    first: Mapping[str, MultilabelScores], task: StatementsTask, settings: Settings, views: list[dict[str, Any]]
) -> tuple[dict[str, Any], float | None, Floats]:
    """The task's headline metric in the first view; from scores if there are any, else from strictly read text."""
    about = {key: views[0][key] for key in ("rule", "records", "classes")} | {"metric": task.headline}
    for name, scores in first.items():
        if task.headline in scores.metrics:
            estimate = scores.metrics[task.headline]
            resamples = scores.resamples.get(task.headline, nan_resamples(settings))
            return about | {"from": name} | estimate.as_dict(), estimate.value, resamples
    reasons = [scores.unavailable.get(task.headline) for scores in first.values()]
    why = next((reason for reason in reasons if reason), "nothing to score")
    return about | {"from": None, "value": None, "unavailable": why}, None, nan_resamples(settings)


def _right(
    test: _Answered, held_out: _Answered, questions: Questions, task: StatementsTask, classes: list[str]
) -> pl.DataFrame:
    """Every (ECG, class) decided rightly: by the text where there is one, else by the thresholds."""
    targets = target_matrix(test.ecgs, classes, task.label_rules[0])
    if test.has_text:
        right = (test.yes["strict"] == targets) & ~test.unparsed["strict"]
    else:
        thresholds, _ = _thresholds(held_out, classes, task.label_rules[0])
        if thresholds is None:
            return pl.DataFrame(schema={"key": pl.String, "right": pl.Boolean})
        right = ((test.scores >= thresholds) == targets) & np.isfinite(test.scores)
    ids = np.repeat(test.ecgs["ecg_id"].to_numpy(), len(classes))
    keys = [f"{ecg_id} {code}" for ecg_id, code in zip(ids, classes * test.ecgs.height, strict=True)]
    return pl.DataFrame({"key": keys, "right": right.reshape(-1)})
