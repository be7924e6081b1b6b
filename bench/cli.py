"""The `bench` command line. Heavy modules are imported inside the commands, so that `--help` is instant."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecglm.synth.terminal import print_json, print_version, progress_bar, run_app

if TYPE_CHECKING:
    from ecglm.bench.scoring import Settings

app = typer.Typer(
    name="bench",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Scores for models that answer questions about ECGs, with their uncertainty.",
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
TaskFolders = Annotated[
    list[Path] | None, typer.Option("--tasks", help="Folder with task files of your own; repeatable.")
]
PtbxlFolder = Annotated[Path | None, typer.Option("--ptbxl", help="PTB-XL folder, or one made by `synth simulate`.")]
EcgqaFolder = Annotated[Path | None, typer.Option("--ecgqa", help="ECG-QA folder or zip archive, whole or in part.")]
Measurements = Annotated[
    Path | None,
    typer.Option(help="Table of measurements with ecg_id: a corpus's measurements.parquet, PTB-XL+ features."),
]
Resamples = Annotated[int, typer.Option(min=0, help="Bootstrap resamples of the patients.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")]
Track = Annotated[str, typer.Option(help="Track of ECG-QA that the headline is of: official | clean.")]
Scoring = Annotated[
    str | None,
    typer.Option(help="Scoring of ECG-QA that the headline is by: free | candidates. [default: free if there is text]"),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder made by `bench run`.")]


def main() -> None:
    """Runs the command line: exit code 0 fine, 1 handled failure, 2 wrong usage, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command and gives its exit code."""
    return run_app(app, "bench", arguments)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> None:
    if version:
        print_version()
        raise typer.Exit


@app.command("list")
def list_command(tasks: TaskFolders = None, as_json: Json = False) -> None:
    """List the tasks, and the models that can be named without a path."""
    from ecglm.bench.adapters import entry_points
    from ecglm.bench.adapters.builtin import NAMES
    from ecglm.bench.tables import table
    from ecglm.bench.task import describe, read_tasks

    found, violations = read_tasks(tasks or ())
    _refuse(violations)
    models = [*NAMES, *entry_points()]
    if as_json:
        print_json({"tasks": [describe(loaded) for loaded in found.values()], "models": models})
        return
    rows = [
        [name, str(each.task.version), each.task.kind, each.task.headline, each.task.title]
        for name, each in found.items()
    ]
    print(table(["task", "version", "kind", "headline", "title"], rows, ""))
    print(f"\nmodels: {', '.join(models)}, python:module:name, predictions:FILE")


@app.command("show")
def show_command(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Task id; `bench list` shows them.")],
    ptbxl: PtbxlFolder = None,
    ecgqa: EcgqaFolder = None,
    measurements: Measurements = None,
    tasks: TaskFolders = None,
    as_json: Json = False,
) -> None:
    """Show a task: what it asks and how it is scored; with its data, the classes, counts and what is missing too."""
    from ecglm.bench.tables import published_lines
    from ecglm.bench.task import METRICS, describe, find_tasks

    (loaded,) = find_tasks([task], tasks or ())
    questions = None
    if ptbxl is not None:
        from ecglm.bench.data import Data
        from ecglm.bench.kinds import build_questions

        questions = build_questions(loaded, Data(ptbxl, ecgqa, measurements))
    if as_json:
        from ecglm.bench.published import figures_for

        content = describe(loaded) | {"published": figures_for(task)}
        if questions is not None:
            content |= {
                "about": questions.about,
                "examples": questions.asked["question"].unique(maintain_order=True).to_list()[:3],
            }
        print_json(content)
        return
    print(f"# {loaded.where}, fingerprint {loaded.fingerprint}")
    print(loaded.text.strip())
    print(f"# metrics of this kind: {', '.join(METRICS[loaded.task.kind])}")
    if questions is not None:
        import yaml

        print(yaml.safe_dump(questions.about, allow_unicode=True, sort_keys=False, width=110).strip())
    print("\n".join(published_lines(task)))


@app.command("run")
def run_command(
    model: Annotated[
        str | None,
        typer.Option(
            help="majority | random | oracle | adversary | predictions:FILE | python:module:name | a name of the"
            " entry-point group ecglm.models."
        ),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task id; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder, new, or one to go on with.")] = None,
    ptbxl: PtbxlFolder = None,
    ecgqa: EcgqaFolder = None,
    measurements: Measurements = None,
    with_measurements: Annotated[
        bool, typer.Option("--with-measurements", help="Give the model measurements in words with every ECG.")
    ] = False,
    sampling_hz: Annotated[int | None, typer.Option(help="100 or 500. [default: what is there, 100 first]")] = None,
    option: Annotated[list[str] | None, typer.Option(help="name=value for the model; repeatable.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many test ECGs (ECG-QA: questions).")
    ] = None,
    ask: Annotated[
        str | None, typer.Option(help="statement (one yes-or-no question each) | list. [default: as the model likes]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Most items at a time. [default: as the model likes]")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds after which a batch counts as hung.")] = 600.0,
    max_failures: Annotated[
        int, typer.Option(min=0, help="Questions that may fail, counted as wrong, before the run stops.")
    ] = 0,
    trained_on: Annotated[
        str | None,
        typer.Option(help="What the model was trained on: folds:1-8 | none | a file with one ECG id a line."),
    ] = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    tasks: TaskFolders = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Check this installation on simulated ECGs; needs nothing else.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask a model the questions of some tasks and score its answers; killed, the same command goes on."""
    if smoke:
        _smoke(as_json)
        return
    for name, value in (("--model", model), ("--task", task), ("--out", out)):
        if not value:
            raise typer.BadParameter("is needed (or --smoke)", param_hint=name)
    if ask not in (None, "statement", "list"):
        raise typer.BadParameter(f"{ask!r} is not one of statement, list", param_hint="--ask")
    from ecglm.bench.runs import RunConfig
    from ecglm.bench.runs import run as run_tasks
    from ecglm.bench.scoring import Settings
    from ecglm.bench.tables import scores_text

    assert model is not None and out is not None  # noqa: S101, PT018 - checked above
    config = RunConfig(
        model=model,
        tasks=tuple(dict.fromkeys(task or ())),
        out=out,
        task_folders=tuple(tasks or ()),
        ptbxl=ptbxl,
        ecgqa=ecgqa,
        measurements=measurements,
        with_measurements=with_measurements,
        sampling_hz=sampling_hz,
        options=_options(option or ()),
        limit=limit,
        ask=ask,
        batch_size=batch_size,
        timeout_s=timeout,
        max_failures=max_failures,
        trained_on=trained_on,
        settings=Settings(n_resamples=resamples, seed=seed),
    )
    with progress_bar() as progress:
        result = run_tasks(config, progress)
    if as_json:
        print_json(
            {"out": str(out), "asked": result.asked, "reused": result.reused, "seconds": round(result.seconds, 3)}
            | {"model_seconds": round(result.model_seconds, 3)}
            | result.scores
        )
        return
    print(scores_text(result.scores))
    print(f"\n{out}: {result.asked:,} questions asked, {result.reused:,} answered before, {result.seconds:.1f} s")


def _smoke(as_json: bool) -> None:
    from ecglm.bench.smoke import smoke as smoke_run

    with progress_bar() as progress:
        result = smoke_run(progress)
    if as_json:
        print_json(result)
    else:
        for check in result["checks"]:
            least, most = check["expected"]
            expected = f"{least:g}" if least == most else f"{least:.3f} to {most:.3f}"
            print(
                f"{'ok    ' if check['passed'] else 'FAILED'} {check['check']}: {check['found']} (expected {expected})"
            )
    if not result["passed"]:
        raise typer.Exit(1)


@app.command("score")
def score_command(
    run_folder: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Folder made by `bench run`.")] = None,
    arrays: Annotated[
        Path | None,
        typer.Option(help="Instead of a run: a folder with preds.npy, targs.npy and, if there, classes.npy."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="The task of the arrays.")] = None,
    ptbxl: PtbxlFolder = None,
    by_class: Annotated[bool, typer.Option("--classes", help="Print the per-class table too.")] = False,
    min_positives: Annotated[
        int | None, typer.Option(min=1, help="Fewer test positives make a class rare. [default: the task's]")
    ] = None,
    option_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Score above which an option of ECG-QA is chosen. [default: 0.5]")
    ] = None,
    option_threshold_from: Annotated[
        str | None,
        typer.Option(help="Where that threshold comes from, such as 'valid split'; printed beside the scores."),
    ] = None,
    track: Track = "official",
    scoring: Scoring = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    tasks: TaskFolders = None,
    as_json: Json = False,
) -> None:
    """Score the answers of a run again, without asking; or score arrays of scores and labels."""
    settings = dataclasses.replace(_settings(resamples, seed, track, scoring), min_positives=min_positives)
    if (option_threshold is None) != (option_threshold_from is None):
        raise typer.BadParameter(
            "goes with --option-threshold-from, and so the other way", param_hint="--option-threshold"
        )
    if option_threshold is not None and option_threshold_from is not None:
        settings = dataclasses.replace(
            settings, option_threshold=option_threshold, option_threshold_from=option_threshold_from
        )
    if (run_folder is None) == (arrays is None):
        raise typer.BadParameter("give either a run or --arrays FOLDER", param_hint="RUN")
    if arrays is not None:
        if task is None:
            raise typer.BadParameter("says which task the arrays are of, and is needed", param_hint="--task")
        from ecglm.bench.arrays import score_arrays
        from ecglm.bench.data import Data
        from ecglm.bench.tables import arrays_text
        from ecglm.bench.task import find_tasks

        (loaded,) = find_tasks([task], tasks or ())
        content = score_arrays(arrays, loaded, Data(ptbxl), settings)
        print_json(content) if as_json else print(arrays_text(content))
        return
    from ecglm.bench.runs import score_run
    from ecglm.bench.tables import class_table, scores_text

    assert run_folder is not None  # noqa: S101 - checked above
    with progress_bar() as progress:
        scores = score_run(run_folder, settings, progress)
    if as_json:
        print_json(scores)
        return
    print(scores_text(scores))
    for name, content in scores["tasks"].items():
        if by_class and content["kind"] == "statements":
            print(f"\n{name}, by class")
            print(class_table(content))


@app.command("compare")
def compare_command(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="Folder made by `bench run`.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another, on the same questions.")],
    track: Track = "official",
    scoring: Scoring = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Say whether two runs differ: paired bootstrap over patients, Holm across tasks, McNemar beside it."""
    from ecglm.bench.comparison import compare_runs
    from ecglm.bench.tables import comparison_text

    settings = _settings(resamples, seed, track, scoring)
    with progress_bar() as progress:
        content = compare_runs(first, second, settings, progress)
    print_json(content) if as_json else print(comparison_text(content))


@app.command("leaderboard")
def leaderboard_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS", help="Folders made by `bench run`.")],
    track: Track = "official",
    scoring: Scoring = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Rank runs, with groups of models that cannot be told apart, and published figures beside them."""
    from ecglm.bench.comparison import leaderboard
    from ecglm.bench.tables import leaderboard_text

    settings = _settings(resamples, seed, track, scoring)
    with progress_bar() as progress:
        content = leaderboard(runs, settings, progress)
    print_json(content) if as_json else print(leaderboard_text(content))


@app.command("validate")
def validate_command(tasks: TaskFolders = None, as_json: Json = False) -> None:
    """Check every task file and the published figures; every problem at once."""
    from ecglm.bench.published import published
    from ecglm.bench.task import read_tasks
    from ecglm.synth.errors import TaskError
    from ecglm.synth.guidelines import Violation

    found, violations = read_tasks(tasks or ())
    figures = 0
    try:
        for name, figure in published().items():
            figures += len(figure.values)
            violations += [
                Violation(f"published.yaml: {name}", f"no task is called {task!r}")
                for task in figure.values
                if task not in found
            ]
    except TaskError as error:
        violations.append(Violation("published.yaml", str(error)))
    if as_json:
        problems = [dataclasses.asdict(violation) for violation in violations]
        print_json({"tasks": len(found), "figures": figures, "violations": len(problems), "problems": problems})
    else:
        for violation in violations:
            print(f"{violation.level}: {violation.where}: {violation.message}")
        print(f"{len(found)} tasks, {figures} published figures, {len(violations)} problems")
    if violations:
        raise typer.Exit(1)


def _settings(resamples: int, seed: int, track: str, scoring: str | None) -> Settings:
    from ecglm.bench.scoring import Settings

    for name, value, known in (
        ("--track", track, ("official", "clean")),
        ("--scoring", scoring, ("free", "candidates")),
    ):
        if value is not None and value not in known:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(known)}", param_hint=name)
    return Settings(n_resamples=resamples, seed=seed, track=track, scoring=scoring)


def _refuse(violations: list[Any]) -> None:
    from ecglm.synth.errors import TaskError

    if violations:
        raise TaskError("\n".join(f"{each.where}: {each.message}" for each in violations))


def _options(words: Any) -> dict[str, str]:
    options = {}
    for each in words:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{each!r} is not of the form name=value", param_hint="--option")
        options[name] = value
    return options


if __name__ == "__main__":
    main()
