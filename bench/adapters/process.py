"""Asking a model that runs in a process of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ecglm.bench.adapters import About, AnswerFailure, Given
from ecglm.bench.adapters.worker import plain_items
from ecglm.bench.protocol import Item
from ecglm.bench.questions import Questions
from ecglm.synth.errors import ModelError

LOAD_SECONDS = 1800.0
"""How long a model may take to load its weights."""
MAX_LOG_BYTES = 16 * 2**20
"""Of what a model prints, no more than this is kept."""
_CHUNK = 1 << 20


class Process:
    """A model in a child process; one that hangs is ended and started again for the next batch."""

    def __init__(self, target: str, options: dict[str, str], *, log: Path, timeout_s: float) -> None:
        self.target, self.options, self.log, self.timeout_s = target, options, log, timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._outgoing: IO[str] | None = None
        self._incoming = -1
        self._buffer = bytearray()
        self.about = self._start()

    def prepare(self, questions: Sequence[Questions]) -> None:
        """Nothing: the model sees items only."""

    def _start(self) -> About:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        to_child, outgoing = os.pipe()
        incoming, from_child = os.pipe()
        command = [sys.executable, "-m", "ecglm.bench.adapters.worker", str(to_child), str(from_child)]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(to_child, from_child),
                start_new_session=True,
            )
        os.close(to_child)
        os.close(from_child)
        self._incoming, self._outgoing, self._buffer = incoming, os.fdopen(outgoing, "w", encoding="utf-8"), bytearray()
        # as for `python -m`, modules beside the working folder are found
        self._send({"target": self.target, "options": self.options, "path": [str(Path.cwd()), *filter(None, sys.path)]})
        try:
            told = self._receive(LOAD_SECONDS)
        except AnswerFailure as failure:
            self.close()
            raise ModelError(f"model {self.target}: {failure.detail}; its output is in {self.log}") from None
        if "failed" in told:
            self.close()
            raise ModelError(f"model {self.target} cannot be loaded: {told['failed']}")
        about = told["about"]
        if about["trained_on"] is not None:
            about["trained_on"] = frozenset(about["trained_on"])
        return About(**about)

    def ask(self, batch: Sequence[Item]) -> Iterator[list[Given]]:
        """Answers as the model gives them."""
        if self._child is None:
            self._start()
        self._send(plain_items(list(batch)))
        while True:
            told = self._receive(self.timeout_s)  # counted from the last answers: a slow model is not a hung one
            if told.get("answers"):
                yield [Given(**each) for each in told["answers"]]
            self._trim_log()
            if "error" in told:
                raise AnswerFailure("error", told["error"])
            if told.get("done"):
                return

    def _send(self, content: dict[str, Any]) -> None:
        assert self._outgoing is not None  # noqa: S101 - set when started
        try:
            self._outgoing.write(json.dumps(content) + "\n")
            self._outgoing.flush()
        except BrokenPipeError:
            self._died()

    def _receive(self, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        scanned = 0
        while (end := self._buffer.find(b"\n", scanned)) < 0:
            scanned = len(self._buffer)
            ready, _, _ = select.select([self._incoming], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.close()
                raise AnswerFailure("timeout", f"no answer within {seconds:.0f} s (--timeout), so it was ended")
            part = os.read(self._incoming, _CHUNK)
            if not part:
                self._died()
            self._buffer += part
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        told: dict[str, Any] = json.loads(line)
        return told

    def _died(self) -> None:
        code = None
        if self._child is not None:
            with suppress(subprocess.TimeoutExpired):
                code = self._child.wait(5)
        self.close()
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        raise AnswerFailure("error", f"the model's process ended by itself ({how}); its output is in {self.log}")

    def _trim_log(self) -> None:
        with suppress(OSError):
            if self.log.stat().st_size > MAX_LOG_BYTES:
                os.truncate(self.log, 0)  # the child appends, so it goes on writing at the new end
                with self.log.open("ab") as log:
                    log.write(
                        f"[more than {MAX_LOG_BYTES >> 20} MiB were printed; what stood here was dropped]\n".encode()
                    )

    def close(self) -> None:
        """Ends the child and everything it started."""
        child, self._child = self._child, None
        if self._outgoing is not None:
            with suppress(OSError):
                self._outgoing.close()
            self._outgoing = None
        if child is not None:
            try:
                child.wait(0.2)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if self._incoming >= 0:
            os.close(self._incoming)
            self._incoming = -1
