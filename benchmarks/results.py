"""The figures of the reference model and of what stands beside it: runs `bench`, and writes docs/results.

python benchmarks/results.py --ptbxl DIR --ecgqa REGENERATED --runs runs --out docs/results
    [--model FOLDER] [--question-only FOLDER] [--trees DIR] [--simclr DIR] [--unseen FOLDER]

REGENERATED is what `synth export qa --format ecgqa` wrote; --trees has a folder for each set of leads that trees were
trained for: all, limb, I,II and I. Fold 10 is asked once per run; thresholds are those of
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

from ecglm.bench.published import published

PTBXL_TASKS = tuple(
    f"ptbxl-{name}" for name in ("all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm")
)
SUPER = ("ptbxl-superdiagnostic",)
ECGQA = ("ecgqa-single",)
UNSEEN = ("ptbxl-unseen",)
LEAD_SETS = ("limb", "I,II", "I")
UNSEEN_TEXT = """\
Zero-shot: `models/configs/unseen.yaml` withholds four diagnostic, four form and four rhythm statements; no
training text has a name, synonym or code of theirs, and no ECG that has one of them is trained on. They are asked about
by what defines them. Beside it, not comparable in statements or data: MERL zero-shot (pre-trained on MIMIC-IV-ECG,
doi:10.48550/arXiv.2403.06659) sub .757, super .742, form .659, rhythm .785. A figure whose interval does not lie above
.5, as question only does not, is no transfer; the most frequent answer is .5 as well, and trees, which learn a
statement from its labels, cannot be asked.
"""
SHARES = ("0.01", "0.1", "1")
TYPES = ("single-verify", "single-choose", "single-query")
OF_VALUES = {"single-verify": ("39",), "single-choose": ("40",), "single-query": ("41", "42")}
"""ECG-QA's templates about the range of an interval."""
ECG_LM_TASKS = ("ptbxl-diagnostic", "ptbxl-rhythm", "ptbxl-form")
AVERAGES = {"macro": "f1_macro", "micro": "f1_micro", "weighted": "f1_weighted"}
ECG_LM_TEXT = """\
What ECG-LM (a language model of 7 billion parameters) and the SimCLR probe it was compared with reached, as published;
how F1 was averaged is not said, nor which statements and thresholds it was taken over. "Above" would have to hold for
every average below: it does not for diagnostic statements and form, and for rhythm only over statements with at least
ten positives.
"""
LEADS_TEXT = """\
Macro-AUC of superclasses, records with at least one. The reference model is one and the same for all; trees were
trained for each set of leads. Question only and majority are .5 whatever the leads.
"""
TOP = """\
# Results

Fold 10 of PTB-XL; thresholds from fold 9; intervals of 95 % by bootstrap over patients. Label rule
`presence`. Made by `benchmarks/results.py`; the files beside this page have every figure with its command, the
fingerprints of model, task and questions, and the seed.

- These figures are not the first look at fold 10. Earlier states of the model were asked about it, and what came out
  low there was worked on: superclasses and ECG-QA's query questions (the encoder's loss got a term for classes,
  options a weight, the encoder a branch of measurements), rare statements that the model told worse than its encoder
  (named questions are learned as logits), unseen statements (.415 before numbers in questions were compared with what
  was measured), ECG-QA's choose questions (.781 before "none" was chosen where no other option is). How was chosen on
  fold 9, on ECG-QA's list of valid ECGs there, and, for unseen statements, on whether limits are compared rightly with
  measurements of fold 9; no label of an unseen statement was looked at there.
- `reference` answers questions: its figures are *trained by text*, not zero-shot.
- `encoder head` is the same encoder's own output; the difference is what asking costs. `waveform only` is its branch
  that reads waveforms, a ResNet-18 with a head for every statement, trained by itself.
- `question only` is the same language model trained and asked with the ECG blanked throughout: what the questions
  alone give away. `ECG blanked` is the reference model when the ECG is taken from it, which it never was in training;
  it may answer worse than the most frequent answer does (`majority`).
- `SimCLR` is the same backbone trained without labels (3,000 steps of 128 ECGs), and a logistic regression on
  its embedding with 1, 10 or 100 % of the labelled training ECGs.
- `trees on measurements` tell statements, classes and what the questions of ECG-QA are about, a classifier for each;
  those for fewer leads were trained on measurements of these leads. They are ahead of the reference model on
  diagnostic statements and on ECG-QA's choose and query questions, and behind it on form, rhythm and fewer leads.
- The model takes the measurements of `synth measure` in, and the questions of ECG-QA about ranges of intervals, made
  again, are answered from the same measurements: what it reaches there says that it reads them, not that they are right
  (docs/ecgqa.md compares them with ECG-QA's own). So every figure stands without these templates as well.
- ECG-QA's questions were made again by `synth build --families ecgqa` and `synth export`; `official` are all its
  test ECGs, `clean` those of fold 10. The reference model saw no ECG of a test patient of either.
"""


def wanted(arguments: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, str], tuple[str, ...]]]:
    """Every run: its name, the model, its options, the tasks."""
    folder = {"folder": str(arguments.model)} if arguments.model else {}
    everything = PTBXL_TASKS + (ECGQA if arguments.ecgqa else ())
    yield "reference", "reference", folder, everything
    yield "reference, ECG blanked", "reference", {**folder, "blank": "true"}, everything
    if arguments.question_only:
        yield "question only", "reference", {"folder": str(arguments.question_only)}, everything
    yield "encoder head", "reference", {**folder, "head": "true"}, PTBXL_TASKS
    yield "encoder head, waveform only", "reference", {**folder, "head": "waveform"}, PTBXL_TASKS
    yield "majority", "majority", {}, everything
    for leads in LEAD_SETS:
        yield f"reference, leads {leads}", "reference", {**folder, "leads": leads}, SUPER
    if arguments.trees:
        yield "trees on measurements", "ecglm-trees", {"folder": str(arguments.trees / "all")}, everything
        for leads in LEAD_SETS:
            yield (
                f"trees on measurements, leads {leads}",
                "ecglm-trees",
                {"folder": str(arguments.trees / leads)},
                SUPER,
            )
    if arguments.unseen:
        for blank in ("false", "true"):
            options = {"folder": str(arguments.unseen), "blank": blank}
            yield f"unseen{', question only' if blank == 'true' else ''}", "reference", options, UNSEEN
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


def of_choices(task: dict[str, Any]) -> dict[str, Any]:
    """What is told of ECG-QA: by track, scoring and question type, read strictly; template by template as well."""
    told: dict[str, Any] = {"excluded": task["about"]["left_out"], "source": task["about"]["ecgqa"]}
    for track, scorings in task["tracks"].items():
        for scoring in task["scorings"].keys() & scorings.keys():  # a classifier says nothing that could be read
            by = scorings[scoring]["by"]
            told[f"{track}, {scoring}"] = {
                kind: {key: {"n": found["n_questions"], **found["strict"]} for key, found in by[kind].items()}
                for kind in ("question_type", "template")
            }
    return told


def shown(found: dict[str, float] | None, interval: bool = True) -> str:
    """A figure with its interval."""
    if found is None:
        return "–"
    return f"{found['value']:.3f}" + (f" ({found['low']:.3f}–{found['high']:.3f})" if interval else "")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def statement_rows(results: list[dict[str, Any]], view: str, name: str) -> list[list[str]]:
    """A row per run: one figure of every task about statements."""
    rows = []
    for result in results:
        tasks = result["tasks"]
        found = [tasks.get(task, {}).get("figures", {}).get(view) for task in PTBXL_TASKS]
        if all(found):  # not a set of leads, which is asked about one task
            rows.append([result["run"], *("–" if each is None else shown(each[name]) for each in found)])
    return rows


def page(results: list[dict[str, Any]]) -> str:
    """The tables of docs/results, from the files beside it; a `note` in a file goes with its figures."""
    names = ["run", *(task.removeprefix("ptbxl-") for task in PTBXL_TASKS)]
    notes = dict.fromkeys(result["note"] for result in results if "note" in result)
    parts = [TOP + "".join(f"- {note}\n" for note in notes)]
    for title, view, figure_name in (
        ("Macro-AUC, records with at least one label of the task", "labelled, all", "macro_auc"),
        ("Macro-AUC, the whole fold", "whole, all", "macro_auc"),
        ("Macro-F1, the whole fold, thresholds from fold 9", "whole, all", "f1_macro"),
        (
            "Macro-F1 over statements with at least ten positives, the whole fold",
            "whole, at least 10 positives",
            "f1_macro",
        ),
        ("Micro-F1 over the same", "whole, at least 10 positives", "f1_micro"),
        ("Weighted F1 over the same", "whole, at least 10 positives", "f1_weighted"),
    ):
        rows = statement_rows(results, view, figure_name)
        if figure_name != "macro_auc":
            rows.append(["best constant answer", *constants(results, view, figure_name)])
        parts.append(f"## {title}\n\n" + table(names, rows))
    parts.append(f"## Fewer leads\n\n{LEADS_TEXT}\n{leads_table(results)}")
    parts.append("## ECG-QA, questions about one ECG, exact match, candidates\n\n" + ecgqa_table(results))
    parts.append("## ECG-LM as published\n\n" + ECG_LM_TEXT + "\n" + ecg_lm_table(results) + "\n" + ecg_lm_on_ecgqa())
    unseen = [result for result in results if "ptbxl-unseen" in result["tasks"]]
    if unseen:
        rows = [[r["run"], shown(r["tasks"]["ptbxl-unseen"]["figures"]["whole, all"]["macro_auc"])] for r in unseen]
        parts.append("## Unseen statements\n\n" + UNSEEN_TEXT + "\n" + table(["run", "macro-AUC, 12 statements"], rows))
    commands = "\n".join(f"{result['command']}" for result in results)
    parts.append(f"## Commands\n\n```text\n{commands}\n```\n")
    return "\n".join(parts)


def leads_table(results: list[dict[str, Any]]) -> str:
    """Macro-AUC of superclasses by which leads were there."""
    told = {result["run"]: result["tasks"][SUPER[0]]["figures"] for result in results if SUPER[0] in result["tasks"]}
    rows = []
    for name in ("reference", "trees on measurements"):
        found = [told.get(run) for run in (name, *(f"{name}, leads {leads}" for leads in LEAD_SETS))]
        rows.append([name, *("–" if each is None else shown(each["labelled, all"]["macro_auc"]) for each in found)])
    return table(["run", "all leads", *LEAD_SETS], rows)


def constants(results: list[dict[str, Any]], view: str, name: str) -> list[str]:
    """What the best constant answer reaches in every task."""
    found = {}
    for result in results:
        for task, told in result["tasks"].items():
            if view in told["figures"]:
                found[task] = told["figures"][view]["constant"][name]
    return [f"{found[task]:.3f}" if task in found else "–" for task in PTBXL_TASKS]


def ecg_lm_table(results: list[dict[str, Any]]) -> str:
    """F1 as published for ECG-LM, and every average of the reference model."""
    known = published()
    rows = []
    for name in ("ecg-lm-2025", "ecg-lm-2025-simclr"):
        values = known[name].values
        rows.append([known[name].system, "not said", *(f"{values[task]:.3f}" for task in ECG_LM_TASKS)])
    for result in results:
        if result["run"] == "reference":
            for view in ("whole, all", "whole, at least 10 positives"):
                for average, name in AVERAGES.items():
                    found = [result["tasks"][task]["figures"][view][name] for task in ECG_LM_TASKS]
                    rows.append([f"reference, {view.removeprefix('whole, ')}", average, *map(shown, found)])
    names = [task.removeprefix("ptbxl-") for task in ECG_LM_TASKS]
    return table(["F1", "average", *names], rows)


def ecg_lm_on_ecgqa() -> str:
    """Its accuracy on ECG-QA, and what must be said beside it."""
    figure = published()["ecg-lm-2025-qa"]
    return (
        f"ECG-QA, single questions: {figure.values['ecgqa-single']:.3f} ({figure.caveat}; {figure.cite}). The questions"
        " above are not the same: they were made again.\n"
    )


def ecgqa_table(results: list[dict[str, Any]]) -> str:
    """Rows run and track; a column per question type."""
    rows = []
    for result in results:
        for key in ECGQA:
            figures = result["tasks"].get(key, {}).get("figures", {})
            for track in ("official", "clean"):
                by = figures.get(f"{track}, candidates", {}).get("question_type", {})
                if by:
                    told = [f"{shown(by[kind])}, n={by[kind]['n']:,}" if kind in by else "–" for kind in TYPES]
                    rows.append([result["run"], track, *told])
                    others = without_values(figures[f"{track}, candidates"])
                    rows.append([f"{result['run']}, not about intervals", track, *(others[kind] for kind in TYPES)])
    return table(["run", "track", *TYPES], rows)


def without_values(found: dict[str, Any]) -> dict[str, str]:
    """Accuracy by type of question without the templates of `OF_VALUES`."""
    told = {}
    for kind, templates in OF_VALUES.items():
        whole = found["question_type"].get(kind)
        if whole is None:
            told[kind] = "–"
            continue
        parts = [found["template"][template] for template in templates if template in found["template"]]
        n = whole["n"] - sum(part["n"] for part in parts)
        right = whole["n"] * whole["value"] - sum(part["n"] * part["value"] for part in parts)
        told[kind] = f"{right / n:.3f}, n={n:,}"
    return told


def main() -> None:
    """Runs everything and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("ptbxl", "runs", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("ecgqa", "model", "question-only", "trees", "simclr", "unseen"):
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
                    "figures": of_statements(task) if task["kind"] == "statements" else of_choices(task),
                }
                for key, task in told["tasks"].items()
            },
        }
        file = arguments.out / f"{Path(told['out']).name}.json"
        file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(file)
    every = dict.fromkeys(("ecgqa", "question_only", "trees", "simclr", "unseen"), Path())
    names = [name for name, *_ in wanted(argparse.Namespace(**vars(arguments) | every))]
    results = [json.loads(file.read_text(encoding="utf-8")) for file in arguments.out.glob("*.json")]
    results.sort(key=lambda result: names.index(result["run"]))
    (arguments.out / "README.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
