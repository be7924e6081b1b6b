"""Time and memory of scoring a multi-label task with a bootstrap over patients.

    python benchmarks/scoring.py                       # 100,000 records × 71 classes, 1,000 resamples
    python benchmarks/scoring.py --records 2000 --classes 5 --resamples 50 --json

Labels and scores are drawn with a seed: prevalences from 0.1 % to 50 %, scores rounded to three decimals so that they
tie as the outputs of real models do, one or more records per patient. Each measurement runs in a process of its own.
Beside the bootstrap of ecglm, a few resamples of the same metrics are scored with scikit-learn, one call per class and
resample, and extrapolated to all of them; the two are compared value by value.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, print_json, run_command, show, show_environment, versions

LIBRARIES = ("ecglm", "numpy", "scipy", "scikit-learn")
TOLERANCE = 1e-9


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--patients", type=int, default=85_000)
    parser.add_argument("--classes", type=int, default=71)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--sklearn-resamples", type=int, default=3, help="scored with scikit-learn, to extrapolate")
    parser.add_argument("--workers", type=int, help="threads (default: the cores this process may use)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", choices=("ecglm", "sklearn", "reading"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is not None:
        print(json.dumps({"ecglm": _ecglm, "sklearn": _sklearn, "reading": _reading}[arguments.part](arguments)))
        return
    content = {"machine": machine(), "versions": {"installed": versions(*LIBRARIES)}, "arguments": vars(arguments)}
    own, reference, reading = (_part(part, arguments) for part in ("ecglm", "sklearn", "reading"))
    n_compared = min(arguments.sklearn_resamples, arguments.resamples)
    difference = max(
        float(np.nanmax(np.abs(np.array(own["first"][name]) - np.array(reference["values"][name]))))
        for name in reference["values"]
    )
    if difference > TOLERANCE:
        sys.exit(f"ecglm and scikit-learn differ by {difference:g} in {n_compared} resamples; at most {TOLERANCE:g}")
    extrapolated = reference["per_resample_s"] * arguments.resamples
    rows = [
        {
            "what": "ecglm, all metrics and intervals",
            "seconds": own["score_s"],
            "peak_mib": own["peak_mib"],
            "ratio": 1.0,
        },
        {"what": "of it AUC of all resamples", "seconds": own["auc_s"], "peak_mib": None, "ratio": None},
        {
            "what": f"scikit-learn, AUC and F1, extrapolated from {n_compared} resamples",
            "seconds": extrapolated,
            "peak_mib": reference["peak_mib"],
            "ratio": extrapolated / own["score_s"],
        },
    ]
    content |= {"scoring": rows, "largest_difference": difference, "reading": reading}
    if arguments.json:
        print_json(content)
        return
    show_environment(content)
    show(
        f"{arguments.records:,} records × {arguments.classes} classes, {arguments.resamples:,} patient resamples"
        f" (largest difference to scikit-learn {difference:.1g})",
        rows,
    )
    show("reading answers, each text different", [reading])


def _part(part: str, arguments: argparse.Namespace) -> dict[str, Any]:
    command: list[str | Path] = [sys.executable, Path(__file__), "--part", part]
    for name in ("records", "patients", "classes", "resamples", "sklearn_resamples", "workers"):
        if (value := getattr(arguments, name)) is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    result: dict[str, Any] = json.loads(run_command(command).stdout.splitlines()[-1])
    return result


def _data(arguments: argparse.Namespace) -> tuple[Any, Any, Any]:
    generator = np.random.default_rng(20210907)
    prevalence = np.geomspace(0.001, 0.5, arguments.classes)
    targets = generator.random((arguments.records, arguments.classes)) < prevalence
    noise = generator.normal(size=targets.shape)
    noise += 1.5 * targets
    scores = np.round(1 / (1 + np.exp(-noise)), 3)
    return targets, scores, generator.integers(0, arguments.patients, arguments.records)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _ecglm(arguments: argparse.Namespace) -> dict[str, Any]:
    from ecglm.bench.metrics import PatientBootstrap, best_thresholds, score_multilabel
    from ecglm.bench.metrics.ranking import bootstrap_auc

    targets, scores, patients = _data(arguments)
    names = [f"statement {number}" for number in range(arguments.classes)]
    started = time.perf_counter()
    bootstrap = PatientBootstrap(patients, n_resamples=arguments.resamples, seed=0)
    result = score_multilabel(
        targets,
        classes=names,
        bootstrap=bootstrap,
        scores=scores,
        thresholds=best_thresholds(targets, scores),
        workers=arguments.workers,
    )
    seconds, peak = time.perf_counter() - started, _peak_mib()
    started = time.perf_counter()
    bootstrap_auc(targets, scores, bootstrap, workers=arguments.workers)
    auc = time.perf_counter() - started
    first = slice(0, arguments.sklearn_resamples)
    values = {name: result.resamples[name][first].tolist() for name in ("macro_auc", "f1_macro", "f1_micro")}
    return {"score_s": seconds, "auc_s": auc, "peak_mib": peak, "first": values}


def _sklearn(arguments: argparse.Namespace) -> dict[str, Any]:
    from sklearn.metrics import f1_score, roc_auc_score

    from ecglm.bench.metrics import PatientBootstrap, best_thresholds

    targets, scores, patients = _data(arguments)
    bootstrap = PatientBootstrap(patients, n_resamples=arguments.resamples, seed=0)
    decisions = scores >= best_thresholds(targets, scores)
    values: dict[str, list[float]] = {"macro_auc": [], "f1_macro": [], "f1_micro": []}
    number = min(arguments.sklearn_resamples, arguments.resamples)
    started = time.perf_counter()
    for resample in range(number):
        records = np.repeat(np.arange(len(targets)), bootstrap.draws(resample).astype(int)[bootstrap.index])
        drawn, score, decided = targets[records], scores[records], decisions[records]
        both = drawn.any(0) & ~drawn.all(0)
        areas = [roc_auc_score(drawn[:, column], score[:, column]) for column in np.flatnonzero(both)]
        values["macro_auc"].append(float(np.mean(areas)))
        positive = drawn.any(0)
        values["f1_macro"].append(float(f1_score(drawn[:, positive], decided[:, positive], average="macro")))
        values["f1_micro"].append(float(f1_score(drawn, decided, average="micro")))
    seconds = time.perf_counter() - started
    return {"per_resample_s": seconds / number, "peak_mib": _peak_mib(), "values": values}


def _reading(arguments: argparse.Namespace) -> dict[str, Any]:
    from ecglm.bench.parsing import parse_answer

    options = ("no", "not sure", "yes")
    texts = [
        pattern.format(number)
        for number in range(arguments.records // 4)
        for pattern in (
            "Yes, in record {} there is atrial fibrillation.",
            "No evidence of atrial fibrillation in record {}.",
            "The rate is {} and I am not sure.",
            "Reasoning: lead II of record {} shows P waves before every QRS complex.\nAnswer: no",
        )
    ]
    parse_answer("warm up", options, multiple=False)
    started = time.perf_counter()
    for text in texts:
        parse_answer(text, options, multiple=False)
    seconds = time.perf_counter() - started
    return {"answers": len(texts), "seconds": seconds, "answers_per_s": len(texts) / seconds}


if __name__ == "__main__":
    main()
