"""Tasks in this process or in processes of their own."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ecglm.synth.errors import CorpusError

RunTasks = Callable[[Callable[..., Any], list[tuple[Any, ...]], Callable[[int], None]], list[Any]]
"""Called with a function, the arguments of each task, and what to call with the number of tasks done."""


@contextlib.contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Holds Ctrl-C back, and for good from processes started meanwhile: none is interrupted while it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _nothing() -> None:
    """A task that only starts a worker."""


def _start_worker(close: Callable[[], None]) -> None:
    atexit.register(close)
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


@contextlib.contextmanager
def workers(count: int, close: Callable[[], None]) -> Iterator[RunTasks]:
    """Runs tasks here (one worker) or in processes of their own; results in the order of the tasks.

    Args:
        count: number of workers.
        close: closes what tasks keep open from one to the next; called in each process at its end.
    """
    if count == 1:

        def run_here(
            function: Callable[..., Any], tasks: list[tuple[Any, ...]], done: Callable[[int], None]
        ) -> list[Any]:
            results = []
            for task in tasks:
                results.append(function(*task))
                done(len(results))
            return results

        close()
        try:
            yield run_here
        finally:
            close()
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(close,))
    with _ctrl_c_later():
        for _ in range(count):  # they import what they need while the first tasks are still being made
            pool.submit(_nothing)

    def run(function: Callable[..., Any], tasks: list[tuple[Any, ...]], done: Callable[[int], None]) -> list[Any]:
        with _ctrl_c_later():
            futures: list[Future[Any]] = [pool.submit(function, *task) for task in tasks]
        waiting = set(futures)
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
            done(len(futures) - len(waiting))
        return [future.result() for future in futures]

    try:
        yield run
    except BrokenProcessPool as error:
        raise CorpusError(
            "a worker process was killed (out of memory?); build again with fewer --workers: what is finished is kept"
        ) from error
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
