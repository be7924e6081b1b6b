"""The work folder beside what is made: locked, kept for resuming, and swapped in when all is written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ecglm.synth.corpus import MANIFEST, write_json
from ecglm.synth.errors import CorpusError
from ecglm.synth.signal_store import CACHE_VARIABLE

_WORTH_KEEPING = ("simulated", "blocks", "ready")
"""What a later build can go on from; a work folder without any of it is removed."""


@dataclass(frozen=True)
class Kind:
    """What is made."""

    name: str
    """With its article, for messages."""
    manifest: str
    """The file that tells such a folder from any other."""
    verb: str
    """What to do again: "another build is writing here"."""


CORPUS = Kind("a corpus", MANIFEST, "build")


def work_folder(out: Path, kind: Kind = CORPUS) -> Path:
    """Where `out` is made, beside it."""
    return out.parent / f".{out.name}.{kind.verb.removesuffix('e')}ing"


@contextlib.contextmanager
def locked(work: Path, out: Path, kind: Kind = CORPUS) -> Iterator[None]:
    """Holds the work folder; what it holds is removed at the end unless it is worth keeping.

    Raises:
        CorpusError: `out` holds something else, or another process is writing it; or a failure to write, told with
            what to do.
    """
    if out.exists() and not out.is_dir():
        raise CorpusError(f"{out}: is a file; choose another --out")
    if out.is_dir() and any(out.iterdir()) and not (out / kind.manifest).is_file():
        raise CorpusError(f"{out}: holds files that are not {kind.name}; choose an empty or new folder for --out")
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CorpusError(
                f"{out}: another {kind.verb} is writing here; wait for it or choose another --out"
            ) from error
        try:
            yield
        finally:
            if not holds_work(work):
                shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def told_plainly(work: Path, out: Path, kind: Kind = CORPUS) -> Iterator[None]:
    """Turns a full disk or a folder that cannot be written into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            cache = os.environ.get(CACHE_VARIABLE)
            places = f"{work} or {Path(cache).absolute()}" if cache else work
            raise CorpusError(
                f"{places}: no space left on the device; {out.name} is as it was. Free space and {kind.verb} again:"
                " what is finished is kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EPERM):
            raise CorpusError(
                f"{error.filename or out}: cannot be written ({error.strerror}); choose another --out"
            ) from error
        raise


def holds_work(work: Path) -> bool:
    """Whether a work folder holds what a later build can go on from."""
    return any((work / name).exists() for name in _WORTH_KEEPING)


def prepare_work(work: Path, stamp: str | None, out: Path, resume: str) -> None:
    """Keeps what an earlier, killed run of the same work finished, and clears everything else."""
    mark = work / "inputs.json"
    kept = mark.is_file() and json.loads(mark.read_text(encoding="utf-8")).get("stamp") == stamp
    if resume == "always" and not kept:
        raise CorpusError(f"{out}: nothing to resume for these inputs; use --resume if-possible")
    if resume == "never" or not kept:
        for path in work.iterdir():
            if path.name in ("lock", "simulated"):
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
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
