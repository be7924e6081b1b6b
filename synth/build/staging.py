"""The work folder beside a corpus: locked, kept for resuming, and swapped in when all is written."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from ecglm.synth.build.config import BuildConfig
from ecglm.synth.corpus import MANIFEST, write_json
from ecglm.synth.errors import CorpusError

_WORTH_KEEPING = ("simulated", "blocks", "ready")
"""What a later build can go on from; a work folder without any of it is removed."""


@contextlib.contextmanager
def locked(work: Path, out: Path) -> Iterator[None]:
    if out.exists() and not out.is_dir():
        raise CorpusError(f"{out}: is a file; choose another --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise CorpusError(f"{out}: holds files that are not a corpus; choose an empty or new folder for --out")
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CorpusError(f"{out}: another build is writing here; wait for it or choose another --out") from error
        try:
            yield
        finally:
            if not any((work / name).exists() for name in _WORTH_KEEPING):
                shutil.rmtree(work, ignore_errors=True)


def prepare_work(work: Path, stamp: str | None, config: BuildConfig) -> None:
    """Keeps what an earlier, killed run of the same build finished, and clears everything else."""
    mark = work / "inputs.json"
    kept = mark.is_file() and json.loads(mark.read_text(encoding="utf-8")).get("stamp") == stamp
    if config.resume == "always" and not kept:
        raise CorpusError(f"{config.out}: nothing to resume for these inputs; build with --resume if-possible")
    if config.resume == "never" or not kept:
        for path in work.iterdir():
            if path.name in ("lock", "simulated"):
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_json(mark, {"stamp": stamp})


def swap(work: Path, out: Path) -> None:
    """Puts the finished stage in the place of `out`; each step can be redone by `finish_swap`."""
    (work / "ready").touch()
    finish_swap(work, out)


def finish_swap(work: Path, out: Path) -> None:
    if not (work / "ready").exists():
        return
    stage, old = work / "stage", work / "old"
    if stage.exists():
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        stage.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    (work / "ready").unlink()
