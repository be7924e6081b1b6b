"""The `ecglm` command line. Heavy modules are imported inside the commands, so that `--help` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ecglm.synth.terminal import print_json, print_version, progress_bar, run_app

app = typer.Typer(
    name="ecglm",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A model that answers questions about ECGs: ask it, train your own.",
)

Record = Annotated[Path, typer.Argument(metavar="RECORD", help="A WFDB record, with or without .hea.")]
Model = Annotated[str, typer.Option(help="Folder of a model, or the name of one that comes with ecglm.")]
Start = Annotated[float, typer.Option(min=0, help="Second of the record at which the part asked about begins.")]
Seconds = Annotated[float | None, typer.Option(min=0.1, help="Length of that part. [default: to the end]")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def main() -> None:
    """Runs the command line: exit code 0 fine, 1 handled failure, 2 wrong usage, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command and gives its exit code."""
    return run_app(app, "ecglm", arguments)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> None:
    if version:
        print_version()
        raise typer.Exit


@app.command("ask")
def ask_command(
    record: Record,
    question: Annotated[str, typer.Argument(help="In English.")],
    options: Annotated[
        str | None, typer.Option(help="Answers to choose from, separated by commas. [default: yes or no, or free text]")
    ] = None,
    model: Model = "reference",
    start: Start = 0.0,
    seconds: Seconds = None,
    age: Annotated[
        float | None, typer.Option(min=0, max=120, help="Years, for limits that depend on it. [default: the header's]")
    ] = None,
    sex: Annotated[str | None, typer.Option(help="male or female, likewise.")] = None,
    as_json: Json = False,
) -> None:
    """Ask a question about an ECG: answer, probability, and what was measured on it."""
    if sex not in (None, "male", "female"):
        raise typer.BadParameter(f"{sex!r} is neither male nor female", param_hint="--sex")
    chosen = None if options is None else tuple(part.strip() for part in options.split(","))
    if chosen is not None and ("" in chosen or len(set(chosen)) < len(chosen)):
        raise typer.BadParameter(f"{options!r} holds an empty option, or one twice", param_hint="--options")
    from ecglm.models.asking import ask, print_answer
    from ecglm.models.ecglm import ECGLM
    from ecglm.models.recording import read_recording

    recording = read_recording(record, start, seconds).about(age, sex)
    told = ask(ECGLM.load(model), recording, question, chosen)
    print_json(told) if as_json else print_answer(told)


@app.command("classify")
def classify_command(
    record: Record, model: Model = "reference", start: Start = 0.0, seconds: Seconds = None, as_json: Json = False
) -> None:
    """The probability of every statement the model knows, by asking about each."""
    from ecglm.models.asking import classify, print_classes
    from ecglm.models.ecglm import ECGLM
    from ecglm.models.recording import read_recording

    told = classify(ECGLM.load(model), read_recording(record, start, seconds))
    print_json(told) if as_json else print_classes(told)


@app.command("chat")
def chat_command(record: Record, model: Model = "reference", start: Start = 0.0, seconds: Seconds = None) -> None:
    """Talk about an ECG: a question a line on stdin; an empty file, "quit" or Ctrl-D ends it."""
    from ecglm.models.asking import NOT_CLINICAL, chat, typed_lines
    from ecglm.models.ecglm import ECGLM
    from ecglm.models.recording import read_recording

    recording = read_recording(record, start, seconds)
    answers = chat(ECGLM.load(model), recording, typed_lines())
    print(f"{recording.name}: {recording.seconds:g} s, {len(recording.leads)} leads. {NOT_CLINICAL}", file=sys.stderr)
    for answer in answers:
        print(answer, flush=True)


@app.command("info")
def info_command(
    model: Annotated[str, typer.Argument(help="Folder of a model, or the name of one that comes with ecglm.")] = (
        "reference"
    ),
    as_json: Json = False,
) -> None:
    """What a model is: its card, size, what it was trained on, its fingerprint."""
    from ecglm.models.info import model_info, print_info

    told = model_info(model)
    print_json(told) if as_json else print_info(told)


@app.command("train")
def train_command(
    config: Annotated[
        Path,
        typer.Argument(
            help="YAML file, or a configuration that comes with ecglm: smoke, reference, question-only, unseen,"
            " biomedgpt-lora."
        ),
    ],
    corpus: Annotated[Path | None, typer.Option(help="Corpus made by `synth build`.")] = None,
    ptbxl: Annotated[Path | None, typer.Option(help="Folder of the waveforms: PTB-XL or WFDB records.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. [default: runs/ and the name]")] = None,
    language_model: Annotated[
        Path | None, typer.Option(help="Folder of a causal language model in Hugging Face's layout.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show size, memory and time; train nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model on a corpus."""
    from ecglm.models.config import read_train_config

    told = read_train_config(config, corpus=corpus, ptbxl=ptbxl)
    if language_model is not None:
        told = told.with_folder(language_model)
    if dry_run:
        from ecglm.models.dry_run import dry_run as plan
        from ecglm.models.dry_run import print_plan

        planned = plan(told)
        print_json(planned) if as_json else print_plan(planned)
        return
    from ecglm.models.train import train

    with progress_bar() as progress:
        folder = train(
            told, out or Path("runs") / told.name, resume, progress, lambda text: print(text, file=sys.stderr)
        )
    if as_json:
        print_json({"model": str(folder)})
    else:
        print(folder)


@app.command("baseline")
def baseline_command(
    kind: Annotated[str, typer.Argument(help="trees | simclr")],
    corpus: Annotated[Path, typer.Option(help="Corpus made by `synth build`.")],
    ptbxl: Annotated[Path, typer.Option(help="Folder of the waveforms: PTB-XL or WFDB records.")],
    out: Annotated[Path, typer.Option(help="Folder for the baseline.")],
    steps: Annotated[int, typer.Option(min=1, help="Of SimCLR.")] = 3000,
    leads: Annotated[
        str, typer.Option(help="Of trees: the leads they know, such as I,II or limb; all if left out.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Train what a model is compared with: trees on measurements, or SimCLR with a linear probe.

    What questions alone give away: `ecglm train question-only`.
    """
    kinds = ("trees", "simclr")
    if kind not in kinds:
        raise typer.BadParameter(f"{kind!r} is not one of {', '.join(kinds)}", param_hint="KIND")
    from ecglm.models.baselines.training import train_baseline
    from ecglm.models.preprocessing import leads_named

    with progress_bar() as progress:
        told = train_baseline(
            kind, corpus, ptbxl, out, progress, lambda text: print(text, file=sys.stderr), steps, leads_named(leads)
        )
    if as_json:
        print_json({"baseline": str(out), "kind": kind, "fingerprint": told["fingerprint"]})
    else:
        print(f"{out}: bench run --model ecglm-{kind} --option folder={out} --task ptbxl-all --ptbxl {ptbxl} --out DIR")
