"""Tasks in this process or in processes of their own."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import pyarrow as pa

from ecglm.synth.build.progress import Progress
from ecglm.synth.errors import CorpusError
from ecglm.synth.processes import ctrl_c_later, worker_context

Result = TypeVar("Result")

_POLLED_EVERY_S = 0.05

RunTasks = Callable[[Callable[..., Any], list[tuple[Any, ...]], Callable[[int], None]], list[Any]]
"""Called with a function, the arguments of each task, and what to call with the number of tasks done."""


def _nothing() -> None:
    """A task that only starts a worker."""


def nothing_open() -> None:
    """For tasks that keep nothing open from one to the next."""


def _start_process(environment: dict[str, str], start: Callable[[Any], None], argument: Any) -> None:
    os.environ.clear()  # the process it is forked from has that of an earlier time
    os.environ.update(environment)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a program may have started that process itself
    start(argument)


def _start_worker(close: Callable[[], None]) -> None:
    pa.set_memory_pool(pa.system_memory_pool())  # gives large blocks back at once; Arrow's own keeps a hundred MB
    atexit.register(close)
    _leave_with_parent()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def leave() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


_TOLD: list[Connection] = []
"""In a process of `apart`: where its progress goes."""


def _start_apart(told: Connection) -> None:
    _leave_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # it may have processes and unfinished files of its own
    _TOLD.append(told)


def _run_apart(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(lambda *step: _TOLD[0].send(step), *arguments)


@contextlib.contextmanager
def apart(
    count: int, tell: Progress, function: Callable[..., Result], *arguments: Any
) -> Iterator[Callable[[], Result]]:
    """Runs a function meanwhile in a process of its own, which ends when it was waited for and leaves no memory behind;
    here, when it is waited for, where there is one worker.

    Args:
        count: number of workers.
        tell: takes the progress of the function.
        function: called with what takes its progress, and the arguments.

    Yields:
        what waits for its result.
    """
    if count == 1:
        yield lambda: function(tell, *arguments)
        return
    told, progress = multiprocessing.Pipe(duplex=False)
    with _pool(1, _start_apart, progress) as pool:
        with ctrl_c_later():
            future: Future[Result] = pool.submit(_run_apart, function, arguments)
        progress.close()

        def result() -> Result:
            with contextlib.suppress(EOFError):  # a process that was killed tells nothing more
                while not future.done() or told.poll():
                    if told.poll(_POLLED_EVERY_S):
                        tell(*told.recv())
            pool.shutdown()
            return future.result()

        try:
            yield result
        finally:
            told.close()  # what goes on all the same fails when it tells its progress


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
    with _pool(count, _start_worker, close) as pool:
        with ctrl_c_later():
            for _ in range(count):  # they import what they need while the first tasks are still being made
                pool.submit(_nothing)

        def run(function: Callable[..., Any], tasks: list[tuple[Any, ...]], done: Callable[[int], None]) -> list[Any]:
            with ctrl_c_later():
                futures: list[Future[Any]] = [pool.submit(function, *task) for task in tasks]
            waiting = set(futures)
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                done(len(futures) - len(waiting))
            return [future.result() for future in futures]

        yield run


@contextlib.contextmanager
def _pool(count: int, start: Callable[[Any], None], argument: Any) -> Iterator[ProcessPoolExecutor]:
    """Processes of their own, each started with a function; they end with the context, at once where it fails."""
    initial = (dict(os.environ), start, argument)
    pool = ProcessPoolExecutor(count, worker_context(), _start_process, initial)
    try:
        yield pool
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
