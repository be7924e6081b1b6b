"""Runs side by side: two compared in pairs of answers, or many in a table with groups that cannot be told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecglm.bench.metrics import compare, holm, indistinguishable_groups, mcnemar
from ecglm.bench.questions import Scored
from ecglm.bench.run_folder import read_run
from ecglm.bench.runs import scored_tasks
from ecglm.bench.scoring import Settings
from ecglm.synth.build.progress import Progress
from ecglm.synth.errors import RunError


def compare_runs(first: Path, second: Path, settings: Settings, progress: Progress | None = None) -> dict[str, Any]:
    """Every task that both runs have: difference with interval, p of the paired bootstrap, Holm over tasks, McNemar.

    Raises:
        RunError: no task in common, or not the same questions, or a headline that one of them does not have.
    """
    about = [read_run(first), read_run(second)]
    common = [task for task in about[0]["tasks"] if task in about[1]["tasks"]]
    if not common:
        raise RunError(
            f"{first} and {second} have no task in common: {', '.join(about[0]['tasks'])} and"
            f" {', '.join(about[1]['tasks'])}; run both on the same task"
        )
    for task in common:
        _same_questions(task, [first, second], about)
    scored = _scored([first, second], settings, progress)
    tasks = {task: _compare(task, scored[0][task], scored[1][task], first, second, settings) for task in common}
    adjusted = holm([1.0 if each["p_value"] is None else each["p_value"] for each in tasks.values()])
    for each, p_value in zip(tasks.values(), adjusted, strict=True):
        each["p_holm"] = p_value
        each["different"] = bool(p_value < 1 - settings.level)
    return {
        "first": {"run": str(first), "model": about[0]["model"]["name"]},
        "second": {"run": str(second), "model": about[1]["model"]["name"]},
        "settings": {"n_resamples": settings.n_resamples, "seed": settings.seed, "level": settings.level},
        "tasks": tasks,
    }


def _scored(folders: Sequence[Path], settings: Settings, progress: Progress | None) -> list[dict[str, Scored]]:
    """The scores of every task of each run, which takes nearly all of the time."""
    tell = progress or (lambda stage, done, of: None)
    scored = []
    for number, folder in enumerate(folders):
        tell("scoring runs", number, len(folders))
        scored.append(scored_tasks(folder, settings))
    tell("scoring runs", len(folders), len(folders))
    return scored


def _same_questions(task: str, folders: Sequence[Path], abouts: Sequence[dict[str, Any]]) -> None:
    told = [about["tasks"][task] for about in abouts]
    for folder, other in zip(folders[1:], told[1:], strict=True):
        if other["version"] != told[0]["version"]:
            raise RunError(
                f"{folders[0]} ran version {told[0]['version']} of {task}, {folder} version {other['version']}, whose"
                " scores do not compare; run both on the same version"
            )
        if other["questions_fingerprint"] != told[0]["questions_fingerprint"]:
            counts = f"{told[0]['questions']:,} and {other['questions']:,} questions"
            raise RunError(
                f"{folders[0]} and {folder} did not answer the same questions of {task} with the same truth ({counts});"
                " run both on the same version of the data, with the same --limit"
            )


def _same_scoring(task: str, scored: Mapping[Path, Scored]) -> None:
    """Scorings of ECG-QA are never set against each other."""
    by = {folder: each.content["headline"].get("scoring") for folder, each in scored.items()}
    if len(set(by.values())) > 1:
        told = ", ".join(f"{folder} by {scoring}" for folder, scoring in by.items())
        raise RunError(f"{task}: {told}: these scorings do not compare; choose one for all with --scoring")


def _compare(
    task: str, first: Scored, second: Scored, first_run: Path, second_run: Path, settings: Settings
) -> dict[str, Any]:
    for scored, folder in ((first, first_run), (second, second_run)):
        if scored.value is None:
            raise RunError(
                f"{folder}: {task} has no {scored.content['headline']['metric']}: "
                f"{scored.content['headline'].get('unavailable', 'undefined')}; compare runs that have it"
            )
    _same_scoring(task, {first_run: first, second_run: second})
    assert first.value is not None and second.value is not None  # noqa: S101, PT018 - just checked
    made = compare(first.value, second.value, first.resamples, second.resamples, settings.level)
    both = first.right.join(second.right, on="key", suffix="_second").unique("key", keep="first", maintain_order=True)
    test = mcnemar(both["right"].to_numpy(), both["right_second"].to_numpy()) if both.height else None
    headline = first.content["headline"]
    about = {key: headline[key] for key in ("metric", "track", "scoring") if key in headline}
    return (
        about
        | made.as_dict()
        | {
            "mcnemar": None if test is None else test.as_dict() | {"n_decisions": both.height},
            "from": [
                scored.content["headline"].get("from") or scored.content["headline"].get("scoring")
                for scored in (first, second)
            ],
        }
    )


def leaderboard(folders: Sequence[Path], settings: Settings, progress: Progress | None = None) -> dict[str, Any]:
    """For every task, the runs that have it, best first, and groups that cannot be told apart.

    Raises:
        RunError: a folder is no run, or runs of a task answered different questions.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError("the same run is named twice; name each once")
    abouts = {folder: read_run(folder) for folder in folders}
    names = _names(abouts)
    scored = dict(zip(folders, _scored(folders, settings, progress), strict=True))
    tasks = list(dict.fromkeys(task for about in abouts.values() for task in about["tasks"]))
    return {
        "settings": {"n_resamples": settings.n_resamples, "seed": settings.seed, "level": settings.level},
        "tasks": {task: _board(task, folders, abouts, names, scored, settings) for task in tasks},
    }


def _names(abouts: dict[Path, dict[str, Any]]) -> dict[Path, str]:
    """The models' names; with the folder where two runs are of models of one name."""
    counts = Counter(about["model"]["name"] for about in abouts.values())
    return {
        folder: about["model"]["name"]
        if counts[about["model"]["name"]] == 1
        else f"{about['model']['name']} ({folder})"
        for folder, about in abouts.items()
    }


def _board(
    task: str,
    folders: Sequence[Path],
    abouts: dict[Path, dict[str, Any]],
    names: dict[Path, str],
    scored: dict[Path, dict[str, Scored]],
    settings: Settings,
) -> dict[str, Any]:
    entered = [folder for folder in folders if task in scored[folder]]
    _same_questions(task, entered, [abouts[folder] for folder in entered])
    _same_scoring(task, {folder: scored[folder][task] for folder in entered})
    values = {names[folder]: scored[folder][task].value for folder in entered}
    known = {name: value for name, value in values.items() if value is not None}
    resamples = {names[folder]: scored[folder][task].resamples for folder in entered}
    groups = indistinguishable_groups(known, resamples, settings.level) if known else ()
    rows = []
    for folder in entered:
        content, name = scored[folder][task].content, names[folder]
        rows.append(
            {
                "model": name,
                "run": str(folder),
                **{key: content["headline"].get(key) for key in ("value", "low", "high", "unavailable")},
                "groups": [
                    chr(ord("a") + place) if place < 26 else str(place)
                    for place, group in enumerate(groups)
                    if name in group
                ],
                "unparsed": content["unparsed"],
                "failed": content["failed"],
                "leakage": abouts[folder]["tasks"][task]["leakage"],
            }
        )
    rows.sort(key=lambda row: (row["value"] is None, -(row["value"] or 0), row["model"]))
    headline = scored[entered[0]][task].content["headline"]
    about = {key: headline[key] for key in ("metric", "track", "scoring") if key in headline}
    return about | {"runs": rows, "groups": [list(group) for group in groups]}
