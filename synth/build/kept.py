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

from ecglm.synth.build.arrow_files import file_digest, is_as_written
from ecglm.synth.build.blocks import NOTE, Across, block_folder, block_is_whole
from ecglm.synth.build.source_files import SourceFiles, source_folder
from ecglm.synth.corpus import write_json
from ecglm.synth.signal_store import cache_folder

KEPT_IN_CACHE = 2
"""Those used last; one of PTB-XL takes 1.5 GB."""

_MARK = "prepared.json"
_LOCK = "lock"


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
                kept = _held(stack, (cache_folder() / "prepared" / stamp).absolute(), anew)
                if kept is not None:
                    blocks.symlink_to(kept, target_is_directory=True)
        try:
            yield
        finally:
            if kept is not None and blocks.is_symlink() and not any(kept.glob(f"*/{NOTE}")):
                blocks.unlink()
                _remove(kept)


def is_prepared(work: Path) -> bool:
    """Whether an earlier build left all that is needed."""
    return (work / "blocks" / _MARK).is_file()


def found_prepared(work: Path) -> Prepared | None:
    """What an earlier build left; None where a file is missing or changed, which is then made again."""
    blocks = work / "blocks"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # the note itself is damaged
        note = json.loads((blocks / _MARK).read_text(encoding="utf-8"))
        across = {name: Across(tuple(each["digests"]), each["n_rows"]) for name, each in note["across"].items()}
        changed = [name for name, digest in _files(note, across).items() if not is_as_written(blocks / name, digest)]
        for name in changed:
            if name.endswith(f"/{NOTE}"):  # whoever makes the blocks again goes by it
                (blocks / name).unlink(missing_ok=True)
        if not changed:
            source = source_folder(work)
            shutil.rmtree(source, ignore_errors=True)
            shutil.copytree(blocks / source.name, source)
            found = Prepared(SourceFiles.load(work), across, note["knowledge"])
            taken_over = found.source.taken_over is not None
            if all(block_is_whole(work, number, taken_over=taken_over) for number in range(len(note["blocks"]))):
                return found
    (blocks / _MARK).unlink(missing_ok=True)
    if blocks.is_symlink():  # others may be reading there; the next build that has it for itself mends it
        blocks.unlink()
    return None


def _files(note: Mapping[str, Mapping[str, str]], across: Mapping[str, Across]) -> dict[str, str]:
    """The hash of every file that no note of a block knows, by its path within `blocks`."""
    views = {
        f"{number}/{name}.arrow": digest
        for name, each in across.items()
        for number, digest in zip(note["blocks"], each.digests, strict=True)
    }
    knowledge = {f"knowledge/{name}.arrow": digest for name, digest in note["knowledge"].items()}
    notes = {f"{number}/{NOTE}": digest for number, digest in note["blocks"].items()}
    return {**views, **knowledge, **notes, **note["source"]}


def keep_prepared(work: Path, prepared: Prepared, n_blocks: int) -> None:
    """Notes that all is there."""
    blocks = work / "blocks"
    prepared.source.save(work)
    source = blocks / source_folder(work).name
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(source_folder(work), source)
    notes = [block_folder(work, number) / NOTE for number in range(n_blocks)]
    note = {
        "blocks": {path.parent.name: file_digest(path) for path in notes},
        "across": {name: asdict(each) for name, each in prepared.across.items()},
        "knowledge": dict(prepared.knowledge),
        "source": {
            path.relative_to(blocks).as_posix(): file_digest(path) for path in source.rglob("*") if path.is_file()
        },
    }
    write_json(blocks / _MARK, note)


def _held(stack: contextlib.ExitStack, folder: Path, anew: bool) -> Path | None:
    """The folder, made if need be and locked until the stack is left; None where another build has it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    file = stack.enter_context(path.open("w"))

    def is_read() -> bool:
        return (folder / _MARK).is_file() and not anew

    shared = is_read()
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    if os.fstat(file.fileno()).st_ino != path.stat().st_ino or is_read() != shared:  # it changed before it was locked
        return None
    os.utime(path)
    if anew:
        for entry in folder.iterdir():
            if entry != path:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    _remove_unused(folder)
    return folder


def _remove_unused(folder: Path) -> None:
    """Removes all but this one and those used last, and what was left of one that was being removed."""
    for left in folder.parent.parent.glob("removed-*"):
        shutil.rmtree(left, ignore_errors=True)
    others = [lock for lock in folder.parent.glob(f"*/{_LOCK}") if lock.parent != folder]
    others.sort(key=lambda lock: lock.stat().st_mtime_ns, reverse=True)
    for lock in others[KEPT_IN_CACHE - 1 :]:
        with lock.open() as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock.parent)


def _remove(folder: Path) -> None:
    """Removes a folder that is locked; none that looks for it meanwhile finds half of it."""
    aside = folder.parent.parent / f"removed-{folder.name}-{os.getpid()}"
    with contextlib.suppress(OSError):
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
