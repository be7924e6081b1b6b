"""Published figures, with what must be said beside each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ecglm.bench.task import METRICS
from ecglm.synth.criteria import Strict, Words
from ecglm.synth.errors import TaskError
from ecglm.synth.yaml_files import read_yaml

FILE = Path(__file__).parent / "published.yaml"


class Figure(Strict):
    """What one system reached, by task."""

    system: Words
    cite: Words
    metric: Words
    caveat: Words
    view: dict[str, str] = Field(default_factory=dict)
    values: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1)


def published() -> dict[str, Figure]:
    """All figures.

    Raises:
        TaskError: an entry that is not valid; names it.
    """
    figures = {}
    for name, entry in read_yaml(FILE).items():
        try:
            figures[name] = Figure.model_validate(entry)
        except ValidationError as error:
            raise TaskError(f"{FILE.name}: {name}: {error.errors()[0]['msg']}") from error
        if not any(figures[name].metric in metrics for metrics in METRICS.values()):
            raise TaskError(f"{FILE.name}: {name}: unknown metric {figures[name].metric!r}")
    return figures


def figures_for(task: str) -> list[dict[str, Any]]:
    """The figures of one task, best first."""
    found = [
        {
            "system": f.system,
            "metric": f.metric,
            "value": f.values[task],
            "caveat": f.caveat,
            "cite": f.cite,
            "view": f.view,
        }
        for f in published().values()
        if task in f.values
    ]
    return sorted(found, key=lambda each: (each["metric"], -each["value"]))
