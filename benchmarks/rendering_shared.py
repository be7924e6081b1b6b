"""What the contenders of `rendering.py` share. Needs no ecglm: the peers run in an environment of their own."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import jinja2

TURN_END = "\x1f"


def compile_wordings(job: dict[str, Any]) -> list[list[jinja2.Template]]:
    """A plain, compiled Jinja template for each user wording with each assistant wording: one render a row."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False, cache_size=0)
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:]
    return [
        [environment.from_string(user + TURN_END + assistant) for assistant in job["assistant"]] for user in job["user"]
    ]


def digest_of(texts: list[str]) -> str:
    """A hash of all texts, whatever their order, to show that every contender wrote the same."""
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()


def peak_mib(who: int = resource.RUSAGE_SELF) -> float:
    """Largest resident set size so far."""
    return resource.getrusage(who).ru_maxrss / 1024


class Timer:
    """Wall and processor seconds of a `with` block."""

    def __enter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu


def run_peer(name: str, contender: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Runs a peer on the job file that is the first argument; writes its result into the second."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    libraries = dict.fromkeys((name, "datasets", "jinja2", "pyarrow"))
    result = contender(job) | {"versions": {library: metadata.version(library) for library in libraries}}
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
