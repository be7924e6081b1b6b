"""A run of everything on simulated ECGs: does this installation score as it should? Under a minute, no download."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ecglm.bench.questions import Questions
from ecglm.bench.runs import RunConfig, run
from ecglm.bench.scoring import Settings

N_ECGS = 240
TASKS = ("ptbxl-superdiagnostic", "ecgqa", "measurements")
MODELS = ("oracle", "adversary", "random", "majority")
SETTINGS = Settings(n_resamples=200)
DEVIATIONS = 3.0
"""How many standard deviations `random` may be away from what is expected of it."""


def smoke(progress: Callable[[str, int, int], None] | None = None, folder: Path | None = None) -> dict[str, Any]:
    """Runs every built-in model on three tasks of simulated ECGs and checks what is known beforehand.

    `passed` is whether all checks hold; `checks` says what was expected and found.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="ecglm-smoke-") as name:
            return smoke(progress, Path(name))
    from ecglm.synth.sources.simulator import simulate

    tell = progress or (lambda stage, done, of: None)
    simulate(folder / "ecgs", N_ECGS, 1)
    write_ecgqa(folder / "ecgqa", folder / "ecgs")
    scores = {}
    for number, model in enumerate(MODELS):
        tell("models", number, len(MODELS))
        config = RunConfig(
            model,
            TASKS,
            folder / model,
            ptbxl=folder / "ecgs",
            ecgqa=folder / "ecgqa",
            settings=SETTINGS,
            options={"seed": "1"} if model == "random" else {},
        )
        scores[model] = run(config).scores["tasks"]
    tell("models", len(MODELS), len(MODELS))
    checks = _checks(scores, folder)
    return {"passed": all(check["passed"] for check in checks), "checks": checks}


def _checks(scores: dict[str, dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    checks = []
    for task in TASKS:
        found = {model: scores[model][task]["headline"]["value"] for model in MODELS}
        checks.append(_check(f"{task}, oracle", found["oracle"], 1.0, 1.0))
        checks.append(_check(f"{task}, adversary", found["adversary"], 0.0, 0.0))
        expected, deviation = chance(Questions.load(folder / "random" / "tasks" / task))
        least, most = expected - DEVIATIONS * deviation, expected + DEVIATIONS * deviation
        checks.append(_check(f"{task}, random", found["random"], least, most))
        failed = sum(scores[model][task]["failed"] for model in MODELS)
        checks.append(_check(f"{task}, questions that failed", float(failed), 0.0, 0.0))
    majority = scores["majority"]["ptbxl-superdiagnostic"]["headline"]["value"]
    checks.append(_check("ptbxl-superdiagnostic, majority", majority, 0.5, 0.5))
    return checks


def chance(questions: Questions) -> tuple[float, float]:
    """What `random` reaches by its headline: expectation and standard deviation, both exact, from the questions alone.

    The area of random scores has the variance of the rank-sum statistic, (P + N + 1) / 12PN for P positives and N
    negatives (Mann and Whitney 1947, doi:10.1214/aoms/1177730491).
    """
    truth, kind = questions.truth, questions.loaded.task.kind
    if kind == "statements":
        test = truth.filter(pl.col("role") == "test")
        positives = test["presence"].explode().drop_nulls().value_counts()["count"].to_numpy().astype(float)
        positives = positives[positives < test.height]
        negatives = test.height - positives
        variances = (test.height + 1) / (12 * positives * negatives)
        return 0.5, float(np.sqrt(variances.sum())) / len(positives)
    asked = questions.asked.select("question_id", "options", "multiple")
    if kind == "choices":
        table = truth.join(asked, on="question_id", maintain_order="left")
        columns = table.select("options", "multiple", "answer").iter_rows()
        hits = np.array([_hit(*row) for row in columns])
        groups = table["question_type"].to_numpy()
    else:
        hits = np.array([_near(*row) for row in truth.select("value", "tolerance", "unit").iter_rows()])
        groups = truth["reading"].to_numpy()
    parts = [hits[groups == name] for name in np.unique(groups)]
    variance = sum(float((part * (1 - part)).sum()) / len(part) ** 2 for part in parts)
    return float(np.mean([part.mean() for part in parts])), variance**0.5 / len(parts)


def _hit(options: list[str], multiple: bool, answer: list[str]) -> float:
    """How likely `random` gives exactly these options: each is in or out; no option at all is told as none."""
    if not multiple:
        return 1 / len(options)
    return float((1 + (answer == ["none"])) / 2 ** len(options))


def _near(value: float, tolerance: float, unit: str) -> float:
    """How likely a whole number from -200 to 1,200 is within the tolerance; the ends are half as likely."""
    numbers = np.arange(-200, 1201)
    off = np.abs(numbers - value)
    off = np.minimum(off % 360, 360 - off % 360) if unit == "°" else off
    likely = np.where((numbers == -200) | (numbers == 1200), 0.5, 1.0) / 1400
    return float(likely[off <= tolerance + 1e-9].sum())


def _check(name: str, found: float | None, least: float, most: float) -> dict[str, Any]:
    passed = found is not None and least <= found <= most
    return {"check": name, "found": found, "expected": [least, most], "passed": passed}


def write_ecgqa(out: Path, ecgs: Path) -> None:
    """Questions of all seven types about the ECGs of a folder, in the layout of ECG-QA: folds 1-8 train, 10 test."""
    from ecglm.synth.sources.ptbxl import open_ptbxl

    source = open_ptbxl(ecgs)
    table = source.ecgs.select("ecg_id", "strat_fold", "previous_ecg_id").collect()
    labels = source.labels.collect().group_by("ecg_id").agg("code")
    codes = {ecg_id: set(found) for ecg_id, found in labels.iter_rows()}
    splits = {"train": range(1, 9), "valid": (9,), "test": (10,)}
    base = out / "ecgqa" / "ptbxl"
    rhythms = {
        "SR": "sinus rhythm",
        "AFIB": "atrial fibrillation",
        "SBRAD": "sinus bradycardia",
        "STACH": "sinus tachycardia",
    }
    names = sorted(rhythms.values())
    options = {
        1: ["no", "yes"],
        2: ["none", *names],
        3: ["none", *names],
        4: ["no", "yes"],
        5: ["none", *names],
        6: ["no", "yes"],
        7: ["none", *names],
    }
    for split, folds in splits.items():
        rows = table.filter(pl.col("strat_fold").is_in(list(folds)))
        samples: list[dict[str, Any]] = []
        ids = rows["ecg_id"].to_list()
        pairs = [(first, second) for second, first in rows.select("ecg_id", "previous_ecg_id").iter_rows() if first]
        for place, ecg_id in enumerate(ids):
            has = {name for code, name in rhythms.items() if code in codes.get(ecg_id, set())}
            one, two = names[place % len(names)], names[(place + 1) % len(names)]
            samples.append(
                _sample(
                    1, "single-verify", f"Does this ECG show {one}?", ["yes" if one in has else "no"], [ecg_id], [one]
                )
            )
            told = [name for name in (one, two) if name in has] or ["none"]
            samples.append(
                _sample(2, "single-choose", f"Which does this ECG show, {one} or {two}?", told, [ecg_id], [one, two])
            )
            samples.append(
                _sample(3, "single-query", "Which rhythm does this ECG show?", sorted(has) or ["none"], [ecg_id], None)
            )
        irrelevant = list(zip(ids[::2], ids[1::2], strict=False))
        for kind, number, chosen in (("consecutive", 4, pairs), ("irrelevant", 6, irrelevant)):
            for place, (first, second) in enumerate(chosen):
                before, after = (
                    {rhythms[code] for code in codes.get(e, set()) if code in rhythms} for e in (first, second)
                )
                one = names[place % len(names)]
                answer = "yes" if one in after - before else "no"
                samples.append(
                    _sample(
                        number,
                        f"comparison_{kind}-verify",
                        f"Is {one} new in the second ECG?",
                        [answer],
                        [first, second],
                        [one],
                    )
                )
                samples.append(
                    _sample(
                        number + 1,
                        f"comparison_{kind}-query",
                        "Which rhythm is new in the second ECG?",
                        sorted(after - before) or ["none"],
                        [first, second],
                        None,
                    )
                )
        for sample_id, sample in enumerate(samples):
            sample["sample_id"] = sample_id
        for wording in ("template", "paraphrased"):
            path = base / wording / split / "0.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(samples), encoding="utf-8")
        (base / f"{split}_ecgs.tsv").write_text(
            "".join(f"{n}\t{_native(e)}\n" for n, e in enumerate(ids)), encoding="utf-8"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["template_id", "classes"])
    writer.writerows([number, str(each)] for number, each in options.items())
    (base / "answers_for_each_template.csv").write_text(text.getvalue(), encoding="utf-8")


def _native(ecg_id: str) -> int:
    return int(ecg_id.rpartition(":")[2])


def _sample(
    template: int, kind: str, question: str, answer: list[str], ecg_ids: list[str], attribute: list[str] | None
) -> dict[str, Any]:
    return {
        "template_id": template,
        "question_id": template,
        "sample_id": 0,
        "question_type": kind,
        "attribute_type": "scp_code",
        "question": question,
        "answer": answer,
        "ecg_id": [_native(ecg_id) for ecg_id in ecg_ids],
        "attribute": attribute,
    }
