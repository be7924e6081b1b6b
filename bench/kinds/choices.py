"""ECG-QA: every answer is a set of options, right if it is exactly the true set."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecglm.bench.data import Data
from ecglm.bench.ecgqa import OPTIONS_FILE, EcgQa, open_ecgqa
from ecglm.bench.metrics import AnswerScores, PatientBootstrap, score_answers
from ecglm.bench.questions import Questions, Scored, with_ids
from ecglm.bench.scoring import Settings, nan_resamples
from ecglm.bench.task import ChoicesTask, LoadedTask
from ecglm.synth.errors import TaskError

GROUPS = ("question_type", "attribute_type", "template")
TRACKS = ("official", "clean")
NONE = "none"

NO_OPTIONS = f"{OPTIONS_FILE} is missing: the options are the answers found here, so nothing compares with others"

SCORINGS = {
    "free": "the text is read as a set of options, which must be exactly the true set",
    "candidates": "the options with a score above {threshold:g} ({source}) must be exactly the true set",
    "candidates_argmax": "verify and choose questions: the option with the highest score must be the true one",
}


def _task(loaded: LoadedTask) -> ChoicesTask:
    assert isinstance(loaded.task, ChoicesTask)  # noqa: S101 - chosen by its kind
    return loaded.task


# --- questions --------------------------------------------------------------------------------------------------------


def build(loaded: LoadedTask, data: Data, ask: str, limit: int | None) -> Questions:
    """One question per sample; samples that ask the same of the same ECGs share one. `ask` makes no difference."""
    task = _task(loaded)
    if data.ecgqa is None:
        raise TaskError(f"{task.id} needs ECG-QA; give its folder with --ecgqa DIR (and PTB-XL with --ptbxl DIR)")
    copy = open_ecgqa(data.ecgqa)
    samples = copy.questions(task.wording, task.split)
    wanted = [sample for sample in samples if sample["question_type"] in task.question_types]
    rows, dropped, notes = _rows(wanted, copy, data, task)
    if limit is not None:
        rows = rows[:limit]
    if not rows:
        there = ", ".join(sorted({sample["question_type"] for sample in samples})) or "none"
        raise TaskError(
            f"{task.id}: no question of this task is among the {len(samples):,} of {copy.where}, {task.wording}/"
            f"{task.split} (types there: {there}){f'; left out: {dict(dropped)}' if dropped else ''}; get the missing"
            f" files: {', '.join(copy.missing(samples, task.split)['missing_files']) or 'none is missing'}"
        )
    table = pl.DataFrame(rows, schema_overrides={"options": pl.List(pl.String), "answer": pl.List(pl.String)})
    table = table.with_columns(
        pl.lit("test").alias("role"),
        pl.lit([], pl.List(pl.String)).alias("codes"),
        pl.lit(None, pl.String).alias("unit"),
    )
    asked = with_ids(table)
    truth = table.with_columns(asked["question_id"]).select(
        "sample_id", "question_id", *GROUPS, "answer", "patient_id", "partner_id", "clean", "n_ecgs"
    )
    return Questions(
        loaded=loaded,
        ask="statement",
        asked=asked.unique("question_id", keep="first", maintain_order=True),
        truth=truth,
        about=_about(task, copy, samples, truth, dropped, notes, data),
        prior_source=lambda: _priors(copy, task, data),
        known_ecgs=frozenset(data.ecgs["ecg_id"].to_list()),
    )


def _rows(
    samples: Sequence[dict[str, Any]], copy: EcgQa, data: Data, task: ChoicesTask
) -> tuple[list[dict[str, Any]], Counter[str], Counter[str]]:
    """The questions that can be asked, why others cannot, and what is odd about some."""
    patients = dict(data.ecgs.select("ecg_id", "patient_id").iter_rows())
    folds = dict(data.ecgs.select("ecg_id", "strat_fold").iter_rows())
    source = data.source.name
    listed = copy.listed(task.split)
    dropped: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    rows = []
    for sample in samples:
        ecg_ids = [f"{source}:{native}" for native in sample["ecg_id"]]
        if not 1 <= len(ecg_ids) <= 2:
            dropped["asks about neither one nor two ECGs"] += 1
            continue
        if any(ecg_id not in patients for ecg_id in ecg_ids):
            dropped["an ECG is not in the PTB-XL folder"] += 1
            continue
        if listed is not None and not listed.issuperset(map(str, sample["ecg_id"])):
            notes[f"an ECG is not in {task.split}_ecgs.tsv"] += 1
        options, odd = options_of(sample, copy.options)
        if odd:
            notes[odd] += 1
        if not options or not set(sample["answer"]) <= set(options) or not sample["answer"]:
            dropped["the answer is not among the options of its template"] += 1
            continue
        verify = sample["question_type"].endswith("verify")
        rows.append(
            {
                "sample_id": sample["sample_id"],
                "ecg_ids": ecg_ids,
                "question": sample["question"],
                "options": list(options),
                "multiple": not verify,
                "question_type": sample["question_type"],
                "attribute_type": sample["attribute_type"],
                "template": f"{sample['template_id']:02d}",
                "answer": sorted(set(sample["answer"])),
                "patient_id": patients[ecg_ids[0]],
                "partner_id": patients[ecg_ids[-1]],
                "clean": all(folds[ecg_id] in task.clean_folds for ecg_id in ecg_ids),
                "n_ecgs": len(ecg_ids),
            }
        )
    return rows, dropped, notes


def options_of(
    sample: Mapping[str, Any], of_template: Mapping[int, tuple[str, ...]]
) -> tuple[tuple[str, ...], str | None]:
    """The possible answers of a question, and what is odd about it.

    A choose question offers the two options it names, and none; every other one all answers of its template.
    """
    options = of_template.get(sample["template_id"], ())
    if not options:
        return (), f"template {sample['template_id']} has no options"
    if not sample["question_type"].endswith("choose"):
        return options, None
    named = [option for option in options if option != NONE and option in (sample.get("attribute") or ())]
    if len(named) != 2:
        named = _named(sample["question"], [option for option in options if option != NONE])
    if len(named) != 2:
        return options, "a choose question does not name two options of its template: all of them are offered"
    return (*named, NONE), None


def _named(question: str, options: Sequence[str]) -> list[str]:
    """The options whose words stand in a question, the longest first, so that none is found inside another."""
    text = question.casefold()
    found = set()
    for option in sorted(options, key=len, reverse=True):
        pattern = rf"(?<!\w){re.escape(option.casefold())}(?!\w)"
        if re.search(pattern, text):
            found.add(option)
            text = re.sub(pattern, " | ", text)
    return [option for option in options if option in found]


def _about(
    task: ChoicesTask,
    copy: EcgQa,
    samples: list[dict[str, Any]],
    truth: pl.DataFrame,
    dropped: Mapping[str, int],
    notes: Mapping[str, int],
    data: Data,
) -> dict[str, Any]:
    types = {str(name): int(count) for name, count in truth["question_type"].value_counts(sort=True).iter_rows()}
    of_types = truth.group_by("question_type").agg(pl.col("clean").sum())
    return {
        "source": {"name": data.source.name, "version": data.source.attribution["version"]},
        "ecgqa": {
            "fingerprint": copy.fingerprint(task.wording, task.split),
            "wording": task.wording,
            "split": task.split,
        }
        | copy.missing(samples, task.split),
        "n_questions": truth.height,
        "n_asked_once": truth["question_id"].n_unique(),
        "question_types": types,
        "clean": {str(name): int(count) for name, count in of_types.iter_rows()},
        "missing_types": [name for name in task.question_types if name not in types],
        "left_out": dict(dropped),
        "odd": dict(notes) | ({} if copy.has_options else {NO_OPTIONS: truth.height}),
    }


# --- the built-in models ----------------------------------------------------------------------------------------------


def answer_key(questions: Questions) -> dict[str, tuple[str, ...]]:
    """The true sets."""
    columns = questions.truth.select("question_id", "answer").iter_rows()
    return {question_id: tuple(answer) for question_id, answer in columns}


def _priors(copy: EcgQa, task: ChoicesTask, data: Data) -> dict[str, Any]:
    """The answers of the training questions at hand, by template."""
    answers: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    samples = copy.questions(task.wording, "train") if copy.names(task.wording, "train") else []
    for sample in samples:
        answers[f"{sample['template_id']:02d}"][tuple(sorted(set(sample["answer"])))] += 1
    ecg_ids = {f"{data.source.name}:{native}" for sample in samples for native in sample["ecg_id"]}
    return {
        "from": f"{len(samples)} training questions of {len(answers)} templates",
        "answers": answers,
        "ecg_ids": sorted(ecg_ids),
    }


def priors(questions: Questions) -> dict[str, tuple[tuple[str, ...], tuple[float, ...]]]:
    """The most frequent training answer of the template that the options allow, else none or the first option."""
    known: Mapping[str, Counter[tuple[str, ...]]] = questions.priors["answers"]
    templates = dict(questions.truth.select("question_id", "template").iter_rows())
    found: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {}
    for question_id, options in questions.asked.select("question_id", "options").iter_rows():
        fitting = {
            answer: count
            for answer, count in known.get(templates[question_id], Counter()).items()
            if set(answer) <= set(options)
        }
        total = sum(fitting.values())
        if not total:
            none = NONE if NONE in options else options[0]
            found[question_id] = ((none,), tuple(float(option == none) for option in options))
            continue
        best = min(fitting, key=lambda answer: (-fitting[answer], answer))
        shares = tuple(sum(n for answer, n in fitting.items() if option in answer) / total for option in options)
        found[question_id] = (best, shares)
    return found


# --- scores -----------------------------------------------------------------------------------------------------------


def score(questions: Questions, answers: pl.DataFrame, settings: Settings) -> Scored:
    """Both tracks, each with the scorings that the answers allow."""
    task = _task(questions.loaded)
    table = questions.truth.join(answers, on="question_id", how="left", maintain_order="left")
    right = _right(table, settings.option_threshold)
    queries = table["question_type"].str.ends_with("query").to_numpy()
    by = settings.scoring or next(iter(right), "free")
    tracks: dict[str, Any] = {}
    headline: dict[str, Any] = {"metric": task.headline, "track": settings.track, "scoring": by, "value": None}
    headline["unavailable"] = f"nothing to score by {by} in the track {settings.track}"
    value, resamples = None, nan_resamples(settings)
    of_track = dict(zip(TRACKS, (np.ones(table.height, dtype=np.bool_), table["clean"].to_numpy()), strict=True))
    for track, rows in of_track.items():
        if not rows.any():
            tracks[track] = {"n_questions": 0, "unavailable": "no question of this track is at hand"}
            continue
        scorable = {name: rows & ~queries if name == "candidates_argmax" else rows for name in right}
        made = {
            name: _scores(table, columns, scorable[name], settings)
            for name, columns in right.items()
            if scorable[name].any()
        }
        tracks[track] = {"n_questions": int(rows.sum())} | {name: each.as_dict() for name, each in made.items()}
        if track == settings.track and by in made:
            chosen = made[by]
            mean = chosen.means["question_type"].strict
            headline = {
                "metric": task.headline,
                "track": track,
                "scoring": by,
                "over": f"unweighted mean of {len(chosen.by['question_type'])} question types",
            } | mean.as_dict()
            value = mean.value
            resamples = chosen.resamples.get("strict_mean_over_question_type", resamples)
    decided = right[by]["strict"] if by in right else np.zeros(table.height, dtype=np.bool_)
    decisions = pl.DataFrame({"key": table["sample_id"].cast(pl.String), "right": decided})
    texts = table.filter(pl.col("text").is_not_null())
    return Scored(
        content={
            "kind": "choices",
            "headline": headline,
            "unparsed": {
                reading: table[f"parsed_{reading}"].null_count() / table.height if texts.height else None
                for reading in ("strict", "lenient")
            },
            "failed": int((table["status"] != "answered").fill_null(True).sum()),
            "scorings": _scorings(settings),
            "tracks": tracks,
        },
        value=value,
        resamples=resamples,
        right=decisions.filter(pl.Series(of_track[settings.track])),
    )


Columns = dict[str, NDArray[np.bool_]]


def _scorings(settings: Settings) -> dict[str, str]:
    words = {"threshold": settings.option_threshold, "source": settings.option_threshold_from}
    return {name: text.format(**words) for name, text in SCORINGS.items()}


def _right(table: pl.DataFrame, threshold: float) -> dict[str, Columns]:
    """Scoring → strict and lenient rightness and what was unparsed, `(n_questions,)` each; text before scores."""
    found: dict[str, Columns] = {}
    if table["text"].is_not_null().any():
        free: Columns = {}
        for reading in ("strict", "lenient"):
            parsed = table[f"parsed_{reading}"]
            same = (parsed.list.sort() == table["answer"]).fill_null(False)
            free[reading] = same.to_numpy()
            free[f"unparsed_{reading}"] = parsed.is_null().to_numpy()
        found["free"] = free
    if table["scores"].is_not_null().any():
        chosen, best, missing = [], [], []
        columns = table.select("options", "scores", "answer").iter_rows()
        for options, scores, answer in columns:
            missing.append(scores is None)
            given = scores if scores is not None else [0.0] * len(options)
            above = sorted(option for option, value in zip(options, given, strict=True) if value > threshold)
            chosen.append(scores is not None and above == answer)
            best.append(scores is not None and [options[int(np.argmax(given))]] == answer)
        unparsed = np.array(missing, dtype=np.bool_)
        for name, values in (("candidates", chosen), ("candidates_argmax", best)):
            exact = np.array(values, dtype=np.bool_)
            found[name] = {"strict": exact, "lenient": exact, "unparsed_strict": unparsed, "unparsed_lenient": unparsed}
    return found


def _scores(table: pl.DataFrame, columns: Columns, rows: NDArray[np.bool_], settings: Settings) -> AnswerScores:
    kept = table.filter(pl.Series(rows))
    bootstrap = PatientBootstrap(
        kept["patient_id"].to_numpy(),
        partners=kept["partner_id"].to_numpy(),
        n_resamples=settings.n_resamples,
        seed=settings.seed,
    )
    return score_answers(
        **{column: values[rows] for column, values in columns.items()},
        bootstrap=bootstrap,
        groups={group: kept[group].to_list() for group in GROUPS},
        level=settings.level,
    )
