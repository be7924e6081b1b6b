"""The process that workers are forked from: it imports what they need once, and they share its memory.

Each process that starts workers has one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext

_IMPORTED = ("ecglm.synth.build.reading", "ecglm.synth.build.rendering", "ecglm.synth.cli", "pyarrow.dataset")
"""DuckDB imports the last when it reads a table."""


def worker_context() -> ForkServerContext:
    """For workers of a build; they begin with the environment of the time when the process they come from began."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    return context


def start_early() -> None:
    """Starts the process now, so that it is ready when this one has imported what it needs itself."""
    with ctrl_c_later():
        worker_context()
        forkserver.ensure_running()


@contextlib.contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Holds Ctrl-C back, and for good from processes started meanwhile: none is interrupted while it starts."""
    resource_tracker.ensure_running()  # starting it lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
