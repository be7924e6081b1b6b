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


@app.command("train")
def train_command(
    config: Annotated[Path, typer.Argument(help="YAML file, such as one of models/configs.")],
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
    del language_model, dry_run
    from ecglm.models.train import train

    with progress_bar() as progress:
        folder = train(
            told, out or Path("runs") / told.name, resume, progress, lambda text: print(text, file=sys.stderr)
        )
    if as_json:
        print_json({"model": str(folder)})
    else:
        print(folder)
