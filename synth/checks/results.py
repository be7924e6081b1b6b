"""What checks found, and how it is printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

N_EXAMPLES = 5


@dataclass(frozen=True)
class CheckResult:
    """What one check found: how many bad rows, and a few of them."""

    name: str
    description: str
    severity: Literal["error", "warning"]
    n_bad: int
    examples: list[dict[str, Any]]


class Problems:
    """A count and the first few."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.n, self.examples = 0, list[dict[str, Any]]()
        for row in rows:
            self.add(**row)

    def add(self, **row: Any) -> None:
        self.n += 1
        if len(self.examples) < N_EXAMPLES:
            self.examples.append(row)


def print_results(results: Sequence[CheckResult], console: Console | None = None) -> None:
    """Prints one line per check, and the examples of those that found something."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = console or Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("check", no_wrap=True)
    table.add_column("bad rows", justify="right")
    table.add_column("what it looks for", overflow="fold")
    for result in results:
        mark = (
            "[green]ok[/]"
            if not result.n_bad
            else f"[{'red' if result.severity == 'error' else 'yellow'}]{result.severity}[/]"
        )
        table.add_row(mark, result.name, f"{result.n_bad:,}", escape(result.description))
    console.print(table)
    for result in results:
        for example in result.examples:
            shown = ", ".join(f"{name}={_short(value)}" for name, value in example.items())
            console.print(f"{result.name}: {shown}", markup=False, soft_wrap=True)
    errors = sum(result.n_bad > 0 and result.severity == "error" for result in results)
    warnings = sum(result.n_bad > 0 and result.severity == "warning" for result in results)
    console.print(f"{len(results)} checks, {errors} failed, {warnings} with warnings", markup=False)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else text[:299] + "…"
