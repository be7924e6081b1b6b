"""What a build makes before it renders, kept for the next build that needs the same.

    blocks/00000/…          the working tables of the first ECGs
    blocks/knowledge/…      the views without rows per ECG
    blocks/source/…         what is known of the source beside them
    blocks/prepared.json    that all of it is there, with hashes; written last

In the work folder it serves a build that was killed. Where the environment variable ECGLM_CACHE names a folder,
`blocks` is a link to CACHE/prepared/<stamp>, which stays when the corpus is finished.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ecglm.synth.build.arrow_files import file_digest
from ecglm.synth.build.blocks import Across, block_folder, block_is_whole
from ecglm.synth.build.source_files import SourceFiles, source_folder
from ecglm.synth.corpus import write_json
from ecglm.synth.signal_store import cache_folder

KEPT_IN_CACHE = 2
"""Those used last; one of PTB-XL takes 1.5 GB."""

_MARK = "prepared.json"


@dataclass(frozen=True)
class Prepared:
    """What there is before rendering, beside the blocks themselves."""

    source: SourceFiles
    across: Mapping[str, Across]
    """The views of `ACROSS_BLOCKS`."""
    knowledge: Mapping[str, str]
    """Hashes of `KNOWLEDGE_VIEWS`."""


@contextlib.contextmanager
def blocks_held(work: Path, stamp: str | None, *, anew: bool) -> Iterator[None]:
    """Lets `blocks` of a work folder be a folder in the cache that no other build changes meanwhile.

    Args:
        work: the work folder.
        stamp: a hash of everything that decides what is in blocks; None where they are not to be kept in the cache.
            This build does without the cache too if it cannot be written, or another build is writing the same there.
        anew: whether to take nothing that is there.
    """
    blocks = work / "blocks"
    if blocks.is_symlink():  # of a build that was killed
        blocks.unlink()
    with contextlib.ExitStack() as stack:
        kept: Path | None = None
        if stamp is not None and not blocks.exists():
            with contextlib.suppress(OSError):
                kept = _held(stack, cache_folder() / "prepared" / stamp, anew)
        if kept is not None:
            blocks.symlink_to(kept, target_is_directory=True)
        try:
            yield
        finally:
            if kept is not None and blocks.is_symlink() and not any(kept.glob("*/block.json")):
                blocks.unlink()
                shutil.rmtree(kept, ignore_errors=True)


def is_prepared(work: Path) -> bool:
    """Whether an earlier build left all that is needed."""
    return (work / "blocks" / _MARK).is_file()


def found_prepared(work: Path) -> Prepared | None:
    """What an earlier build left; None where a file is missing or changed, which is then made again."""
    blocks = work / "blocks"
    note = json.loads((blocks / _MARK).read_text(encoding="utf-8"))
    across = {name: Across(tuple(each["digests"]), each["n_rows"]) for name, each in note["across"].items()}
    damaged = [
        number
        for number, digests in enumerate(zip(*(each.digests for each in across.values()), strict=True))
        if not block_is_whole(work, number, dict(zip(across, digests, strict=True)))
    ]
    knowledge = {f"{name}.arrow": digest for name, digest in note["knowledge"].items()}
    if damaged or _digests_in(blocks / "source") != note["source"] or _digests_in(blocks / "knowledge") != knowledge:
        (blocks / _MARK).unlink()
        for number in damaged:
            (block_folder(work, number) / "block.json").unlink(missing_ok=True)
        if blocks.is_symlink():  # others may be reading there; the next build that has it for itself mends it
            blocks.unlink()
        return None
    shutil.copytree(blocks / "source", source_folder(work), dirs_exist_ok=True)
    return Prepared(SourceFiles.load(work), across, note["knowledge"])


def keep_prepared(work: Path, prepared: Prepared) -> None:
    """Notes that all is there."""
    prepared.source.save(work)
    source = work / "blocks" / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(source_folder(work), source)
    across = {name: asdict(each) for name, each in prepared.across.items()}
    note = {"across": across, "knowledge": prepared.knowledge, "source": _digests_in(source)}
    write_json(work / "blocks" / _MARK, note)


def _digests_in(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def _held(stack: contextlib.ExitStack, folder: Path, anew: bool) -> Path | None:
    """The folder, made if need be and locked until the stack is left; None where another build has it."""
    others = sorted(folder.parent.glob("*/lock"), key=lambda lock: lock.stat().st_mtime_ns, reverse=True)
    for lock in [lock for lock in others if lock.parent != folder][KEPT_IN_CACHE - 1 :]:
        with lock.open() as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    file = stack.enter_context(path.open("w"))
    is_read = (folder / _MARK).is_file() and not anew
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if is_read else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    if os.fstat(file.fileno()).st_ino != path.stat().st_ino:  # removed before it was locked
        return None
    os.utime(path)
    if anew:
        for entry in folder.iterdir():
            if entry != path:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return folder
