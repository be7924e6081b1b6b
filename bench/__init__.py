"""ecglm.bench: scores for models that answer questions about ECGs, with their uncertainty.

The public names are loaded when they are used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecglm.bench.protocol import Answer, Item, Model, Recording
    from ecglm.bench.runs import RunConfig, RunResult, run

_HOMES = {
    "Answer": "ecglm.bench.protocol",
    "Item": "ecglm.bench.protocol",
    "Model": "ecglm.bench.protocol",
    "Recording": "ecglm.bench.protocol",
    "RunConfig": "ecglm.bench.runs",
    "RunResult": "ecglm.bench.runs",
    "run": "ecglm.bench.runs",
}

__all__ = ["Answer", "Item", "Model", "Recording", "RunConfig", "RunResult", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ecglm.bench' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
