"""The figures of the reference model and of what stands beside it: runs `bench`, and writes docs/results.

python benchmarks/results.py --ptbxl DIR --ecgqa REGENERATED --runs runs --out docs/results
    [--model FOLDER] [--trees DIR] [--simclr DIR]

REGENERATED is what `synth export qa --format ecgqa` wrote. Fold 10 is asked once per run; thresholds are those of
fold 9. A run that is there already is scored again, not asked again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import machine

PTBXL_TASKS = tuple(
    f"ptbxl-{name}" for name in ("all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm")
)
SUPER = ("ptbxl-superdiagnostic",)
ECGQA = ("ecgqa-single",)
LEAD_SETS = ("limb", "I,II", "I")
SHARES = ("0.01", "0.1", "1")


def wanted(arguments: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, str], tuple[str, ...]]]:
    """Every run: its name, the model, its options, the tasks."""
    folder = {"folder": str(arguments.model)} if arguments.model else {}
    everything = PTBXL_TASKS + (ECGQA if arguments.ecgqa else ())
    yield "reference", "reference", folder, everything
    yield "reference, question only", "reference", {**folder, "blank": "true"}, everything
    yield "encoder head", "reference", {**folder, "head": "true"}, PTBXL_TASKS
    yield "majority", "majority", {}, everything
    for leads in LEAD_SETS:
        yield f"reference, leads {leads}", "reference", {**folder, "leads": leads}, SUPER
    if arguments.trees:
        yield "trees on measurements", "ecglm-trees", {"folder": str(arguments.trees)}, PTBXL_TASKS
    if arguments.simclr:
        for share in SHARES:
            options = {"folder": str(arguments.simclr), "share": share}
            yield f"SimCLR, {float(share):.0%} of labels", "ecglm-simclr", options, PTBXL_TASKS


def run(arguments: argparse.Namespace, name: str, model: str, options: dict[str, str], tasks: tuple[str, ...]) -> Any:
    """Runs `bench run`, or goes on with it; gives its scores and the command."""
    out = arguments.runs / name.replace(", ", "-").replace(" ", "-").replace(",", "+").replace("%", "")
    command = ["bench", "run", "--model", model, "--ptbxl", str(arguments.ptbxl), "--out", str(out), "--json"]
    for option, value in options.items():
        command += ["--option", f"{option}={value}"]
    for task in tasks:
        command += ["--task", task]
    if set(tasks) & set(ECGQA):
        command += ["--ecgqa", str(arguments.ecgqa)]
    print(shlex.join(command), file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout), shlex.join(command)


def figure(metrics: dict[str, Any], name: str) -> dict[str, float] | None:
    """Value with its interval, if there is one."""
    found = metrics.get(name)
    return None if found is None or found["value"] is None else {key: found[key] for key in ("value", "low", "high")}


def of_statements(task: dict[str, Any]) -> dict[str, Any]:
    """What is told of a task about statements: label rule `presence`."""
    told: dict[str, Any] = {}
    for view in task["views"]:
        if view["rule"] == "presence":
            metrics = (view.get("scores") or view["strict"])["metrics"]
            told[f"{view['records']}, {view['classes']}"] = {
                "n_classes": view["n_classes"],
                "n_records": view["n_records"],
                "constant": view["constant"],
                **{name: figure(metrics, name) for name in ("macro_auc", "f1_macro", "f1_micro", "f1_weighted")},
            }
    return told


def main() -> None:
    """Runs everything and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("ptbxl", "runs", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("ecgqa", "model", "trees", "simclr"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--only", action="append", help="names of runs; all if left out")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, model, options, tasks in wanted(arguments):
        if arguments.only and name not in arguments.only:
            continue
        told, command = run(arguments, name, model, options, tasks)
        result = {
            "run": name,
            "command": command,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine(),
            "model": told["model"],
            "settings": told["settings"],
            "seconds": told["seconds"],
            "tasks": {
                key: {
                    "title": task["title"],
                    "fingerprint": task["fingerprint"],
                    "questions_fingerprint": task["questions_fingerprint"],
                    "leakage": task["leakage"],
                    "figures": of_statements(task) if task["kind"] == "statements" else task,
                }
                for key, task in told["tasks"].items()
            },
        }
        file = arguments.out / f"{Path(told['out']).name}.json"
        file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(file)


if __name__ == "__main__":
    main()
