"""What the command lines share: running an app with fixed exit codes, a progress bar, one line of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import typer

INTERRUPTED = 130


def run_app(app: typer.Typer, name: str, arguments: list[str]) -> int:
    """Runs one command: exit code 0 fine, 1 handled failure, 2 wrong usage, 130 interrupted."""
    from ecglm.synth.errors import ECGLMError

    try:
        code = app(arguments, prog_name=name, standalone_mode=False)
        if code == INTERRUPTED:  # newer versions of typer catch Ctrl-C themselves
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except ECGLMError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 1
    except typer.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print(f"{name}: interrupted; nothing was left half-written, run the command again to go on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        show = getattr(error, "show", None)  # a usage error, of whichever click typer carries
        if show is None:
            raise
        show()
        return int(getattr(error, "exit_code", 2))


def print_version() -> None:
    """The version of ecglm, for `--version`."""
    from importlib import metadata

    print(f"ecglm {metadata.version('ecglm')}")


def print_json(content: Any) -> None:
    """One line of JSON on stdout."""
    print(json.dumps(content, ensure_ascii=False, default=str))


class progress_bar:  # noqa: N801 - used as a function
    """A progress bar on stderr while a terminal is there; nothing otherwise."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        if not sys.stderr.isatty():
            return lambda stage, done, of: None
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, of: int) -> None:
            if stage not in tasks:
                tasks[stage] = self._bar.add_task(stage, total=of)
            self._bar.update(tasks[stage], completed=done, total=of)

        return show

    def __exit__(self, *_: object) -> None:
        bar = getattr(self, "_bar", None)
        if bar is not None:
            bar.stop()
