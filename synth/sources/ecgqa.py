"""The files of a copy of ECG-QA (Oh et al. 2023), and which ECGs are in which of its splits."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.errors import TaskError
from ecglm.synth.schema import ECGQA_ECGS, REJECTED

SPLITS = ("train", "valid", "test")
"""Names of ECG-QA's splits; `<split>_ecgs.tsv` lists the ECGs of one."""

EXCLUDED = "ecgqa_test_patient"
"""Reason why an ECG of folds 1 to 8 is left out: ECG-QA tests on this patient."""

ATTRIBUTION = {
    "name": "ECG-QA",
    "version": "1.0.2",
    "licence": "CC BY 4.0",
    "citation": "Oh J, Lee G, Bae S, Kwon J, Choi E (2023). ECG-QA: A Comprehensive Question Answering Dataset Combined"
    " With Electrocardiogram. Advances in Neural Information Processing Systems 36.",
    "doi": "10.48550/arXiv.2306.15681",
}

_MAX_BYTES = 512 * 2**20
_MAX_DEPTH = 7

Files = Mapping[str, Callable[[], bytes]]
"""Name of a file inside the copy → what reads it."""


@dataclass(frozen=True)
class EcgLists:
    """Which ECGs are in which split of ECG-QA."""

    where: str
    split_of: Mapping[str, str]
    """Native id of an ECG → one of `SPLITS`."""
    fingerprint: Mapping[str, str]
    """Name of a list → SHA-256 of its bytes."""

    def table(self, ecgs: pa.Table, *, exclude_test: bool) -> pa.Table:
        """`ECGQA_ECGS` for the rows of a table `ecgs` that ECG-QA lists, or that are left out for its sake."""
        ids = ecgs["ecg_id"].to_pylist()
        split = pa.array([self.split_of.get(ecg_id.partition(":")[2]) for ecg_id in ids], pa.string())
        tested = ecgs["patient_id"].filter(pc.equal(split, "test")).drop_null().combine_chunks()
        of_test_patient = pc.or_(pc.equal(split, "test").fill_null(False), pc.is_in(ecgs["patient_id"], tested))
        excluded = pc.and_(of_test_patient, pc.equal(ecgs["split"], "train"))
        if not exclude_test:
            excluded = pa.repeat(pa.scalar(False), len(ids))
        columns = [ecgs["ecg_id"], split, of_test_patient, excluded]
        table = pa.table(columns, schema=ECGQA_ECGS)
        return table.filter(pc.or_(pc.is_valid(split), of_test_patient))


def read_lists(root: Path) -> EcgLists:
    """The lists of ECGs of a copy of ECG-QA.

    Raises:
        TaskError: a list is missing, stands twice, is damaged, or an ECG is in two of them.
    """
    where, files = open_copy(root, lambda name: name.endswith("test_ecgs.tsv"))
    split_of: dict[str, str] = {}
    fingerprint = {}
    for split in SPLITS:
        wanted = f"{split}_ecgs.tsv"
        names = [name for name in files if name.rpartition("/")[2] == wanted and "mimic" not in name.lower()]
        if len(names) != 1:
            raise TaskError(f"{where}: found {len(names)} files {wanted}, expected one; give one copy's folder")
        content = files[names[0]]()
        fingerprint[wanted] = hashlib.sha256(content).hexdigest()
        for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
            cells = line.split("\t")
            if len(cells) != 2 or not cells[1].strip():
                raise TaskError(
                    f"{where}: {names[0]}, line {number}: found {line!r}, expected a number, a tab and an ECG id;"
                    " download it again"
                )
            native = cells[1].strip()
            if split_of.setdefault(native, split) != split:
                raise TaskError(f"{where}: ECG {native} is in {split_of[native]} and in {split}; download it again")
    return EcgLists(where, split_of, fingerprint)


def rejections(ecgs: pa.Table) -> pa.Table:
    """Rows of `REJECTED` for ECGs left out because ECG-QA tests on their patients."""
    n = ecgs.num_rows
    ids = pa.ListArray.from_arrays(pa.array(range(n + 1), pa.int32()), ecgs["ecg_id"].combine_chunks())
    detail = "ECG-QA has a test question about this patient, so no ECG of the patient is used for training"
    nothing = pa.nulls(n, pa.string())
    told = [pa.repeat(text, n) for text in ("source", EXCLUDED, detail)]
    return pa.table([told[0], ids, nothing, nothing, told[1], told[2]], schema=REJECTED)


def open_copy(root: Path, is_there: Callable[[str], bool]) -> tuple[str, Files]:
    """Where a copy is and its files: a folder, a zip archive, or the one archive in a folder without such files.

    Args:
        root: folder or archive.
        is_there: whether a file of this name shows that the copy is here.

    Raises:
        TaskError: no such folder or file, or an archive that cannot be read.
    """
    if not root.exists():
        raise TaskError(f"{root}: no such folder or file; give the folder of ECG-QA (it holds ecgqa/ptbxl)")
    files = _zip_files(root) if root.is_file() else _folder_files(root)
    if not any(map(is_there, files)) and root.is_dir():
        archives = [(path, _zip_files(path)) for path in sorted(root.glob("*.zip"))]
        archives = [(path, found) for path, found in archives if any(map(is_there, found))]
        if len(archives) == 1:
            return str(archives[0][0]), archives[0][1]
    return str(root), files


def _folder_files(root: Path) -> dict[str, Callable[[], bytes]]:
    files: dict[str, Callable[[], bytes]] = {}
    for folder, below, names in os.walk(root):
        here = Path(folder).relative_to(root)
        if len(here.parts) >= _MAX_DEPTH:
            below.clear()
        for name in names:
            if name.endswith((".json", ".csv", ".tsv")):
                files[(here / name).as_posix()] = (Path(folder) / name).read_bytes
    return files


def _zip_files(path: Path) -> dict[str, Callable[[], bytes]]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise TaskError(f"{path}: not a zip archive that can be read ({error}); download it again") from error

    def reader(info: zipfile.ZipInfo) -> Callable[[], bytes]:
        def read() -> bytes:
            if info.file_size > _MAX_BYTES:
                raise TaskError(f"{path}: {info.filename}: {info.file_size} bytes, expected at most {_MAX_BYTES}")
            try:
                return archive.read(info)
            except (zipfile.BadZipFile, OSError, RuntimeError) as error:
                raise TaskError(f"{path}: {info.filename}: damaged ({error}); download it again") from error

        return read

    return {info.filename: reader(info) for info in archive.infolist() if not info.is_dir()}
