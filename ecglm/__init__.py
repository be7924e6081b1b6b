"""ecglm: guidelines and measurements into true sentences about ECGs that a model can learn from.

The public names are loaded when they are used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecglm.models.ecglm import ECGLM
    from ecglm.synth.build import BuildConfig, BuildResult, build
    from ecglm.synth.corpus import Corpus
    from ecglm.synth.errors import ECGLMError
    from ecglm.synth.signal_store import SignalStore

_HOMES = {
    "ECGLM": "ecglm.models.ecglm",
    "BuildConfig": "ecglm.synth.build",
    "BuildResult": "ecglm.synth.build",
    "Corpus": "ecglm.synth.corpus",
    "ECGLMError": "ecglm.synth.errors",
    "SignalStore": "ecglm.synth.signal_store",
    "build": "ecglm.synth.build",
}

__all__ = ["ECGLM", "BuildConfig", "BuildResult", "Corpus", "ECGLMError", "SignalStore", "build"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ecglm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
