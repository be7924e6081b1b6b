"""Reading ECG-QA (Oh et al. 2023), PTB-XL version: a folder or zip archive in the official layout, whole or in part."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ecglm.synth.errors import TaskError
from ecglm.synth.sources.ecgqa import open_copy

SIZES = {"train": 267_539, "valid": 64_663, "test": 82_146}
"""Questions of each split of version 1.0.2; the n-th has sample id n."""
SHARD = 10_000
OPTIONS_FILE = "answers_for_each_template.csv"
_QUESTIONS = re.compile(r"^(?P<base>.*?)(?P<wording>template|paraphrased)/(?P<split>train|valid|test)/[^/]+\.json$")
_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "sample_id": int,
    "template_id": int,
    "question_type": str,
    "attribute_type": str,
    "question": str,
    "answer": list,
    "ecg_id": list,
}


@dataclass(frozen=True)
class EcgQa:
    """The files of one copy of ECG-QA."""

    where: str
    base: str
    """What stands before `template/` and `paraphrased/` in the names of the files."""
    files: Mapping[str, Callable[[], bytes]]
    generated: Mapping[str, int] | None = None
    """Questions of each split of a copy that ecglm generated again; None for the official questions."""

    def names(self, wording: str, split: str) -> list[str]:
        """The question files of a split, in the order of their first sample."""
        found = []
        for name in self.files:
            match = _QUESTIONS.match(name)
            if match and (match["base"], match["wording"], match["split"]) == (self.base, wording, split):
                found.append(name)
        return sorted(found, key=lambda name: (len(name), name))

    def questions(self, wording: str, split: str) -> list[dict[str, Any]]:
        """The questions of a split, ordered by sample id.

        Raises:
            TaskError: there are none, a file is damaged, or a sample stands twice.
        """
        names = self.names(wording, split)
        if not names:
            others = sorted({f"{m['wording']}/{m['split']}" for n in self.files if (m := _QUESTIONS.match(n))})
            raise TaskError(f"{self.where}: no questions in {wording}/{split}; found {', '.join(others)}")
        samples: dict[int, dict[str, Any]] = {}
        for name in names:
            for sample in self._read_json(name):
                if sample["sample_id"] in samples:
                    raise TaskError(f"{self.where}: {name}: sample {sample['sample_id']} stands in two places")
                samples[sample["sample_id"]] = sample
        return [samples[key] for key in sorted(samples)]

    def _read_json(self, name: str) -> list[dict[str, Any]]:
        try:
            content = json.loads(self.files[name]())
        except ValueError as error:
            raise TaskError(f"{self.where}: {name}: not valid JSON ({error}); download it again") from error
        if not isinstance(content, list):
            raise TaskError(f"{self.where}: {name}: found a {type(content).__name__}, expected a list of questions")
        for place, sample in enumerate(content):
            for key, kind in _FIELDS.items():
                if not isinstance(sample, dict) or not isinstance(sample.get(key), kind):
                    found = type(sample.get(key)).__name__ if isinstance(sample, dict) else type(sample).__name__
                    raise TaskError(f"{self.where}: {name}, question {place}: {key} is {found}; use the official file")
        return content

    @cached_property
    def options(self) -> dict[int, tuple[str, ...]]:
        """Template → its possible answers."""
        name = self.base + OPTIONS_FILE
        if not self.has_options:
            return self._found_options()
        try:
            rows = list(csv.DictReader(io.StringIO(self.files[name]().decode("utf-8"))))
            found = {int(row["template_id"]): tuple(ast.literal_eval(row["classes"])) for row in rows}
        except (ValueError, KeyError, SyntaxError, TypeError, RecursionError) as error:
            raise TaskError(f"{self.where}: {name}: cannot be read ({error!r}); download it again") from error
        if not all(isinstance(option, str) for options in found.values() for option in options):
            raise TaskError(f"{self.where}: {name}: options must be texts; download it again")
        return found

    @property
    def has_options(self) -> bool:
        """Whether the file that lists the possible answers of each template is there."""
        return self.base + OPTIONS_FILE in self.files

    def _found_options(self) -> dict[int, tuple[str, ...]]:
        """Template → every answer that occurs in the questions at hand; to verify questions, yes and no in any case."""
        found: dict[int, set[str]] = {}
        for wording in ("template", "paraphrased"):
            for split in SIZES:
                for sample in self.questions(wording, split) if self.names(wording, split) else ():
                    answers = found.setdefault(sample["template_id"], set())
                    answers |= set(sample["answer"])
                    answers |= {"no", "yes"} if sample["question_type"].endswith("verify") else set()
        return {template: tuple(sorted(answers)) for template, answers in found.items()}

    def missing(self, samples: list[dict[str, Any]], split: str) -> dict[str, Any]:
        """How much of a split is here, and which of its files (of 10,000 questions) are not, or not whole."""
        size = (self.generated or SIZES)[split]
        ids = [sample["sample_id"] for sample in samples]
        found = [0] * -(-size // SHARD)
        beyond = 0
        for sample_id in ids:
            if 0 <= sample_id < size:
                found[sample_id // SHARD] += 1
            else:
                beyond += 1
        partly = {
            f"{place * SHARD}.json": f"{count:,} of {min(SHARD, size - place * SHARD):,} questions"
            for place, count in enumerate(found)
            if 0 < count < min(SHARD, size - place * SHARD)
        }
        return {
            "questions": len(ids),
            "of_questions": size,
            "generated_again": self.generated is not None,
            "missing_files": [f"{place * SHARD}.json" for place, count in enumerate(found) if not count],
            "incomplete_files": partly,
            "ids_beyond": beyond,
        }

    def listed(self, split: str) -> frozenset[str] | None:
        """The ECGs that the list of a split names; None where the list is missing."""
        name = f"{self.base}{split}_ecgs.tsv"
        if name not in self.files:
            return None
        lines = self.files[name]().decode("utf-8", errors="replace").splitlines()
        return frozenset(line.rpartition("\t")[2].strip() for line in lines)

    def fingerprint(self, wording: str, split: str) -> str:
        """Hash of the question files of a split and of the options."""
        digest = hashlib.sha256()
        for name in [*self.names(wording, split), *[self.base + OPTIONS_FILE] * self.has_options]:
            digest.update(hashlib.sha256(self.files[name]()).digest())
        return digest.hexdigest()


def open_ecgqa(root: Path) -> EcgQa:
    """The copy of ECG-QA in a folder, at whichever depth, in a zip archive, or in a folder that holds such an archive.

    Raises:
        TaskError: nothing of the kind is there, or more than one copy.
    """
    where, files = open_copy(root, lambda name: bool(_bases((name,))))
    bases = _bases(files)
    if not bases:
        raise TaskError(
            f"{root}: no ECG-QA is here: expected files such as ecgqa/ptbxl/paraphrased/test/0.json; give its folder"
        )
    if len(bases) > 1:
        raise TaskError(
            f"{root}: more than one copy of ECG-QA: {', '.join(map(repr, sorted(bases)))}; give one of them"
        )
    base = bases.pop()
    return EcgQa(where, base, files, _generated(root, base, files))


def _generated(root: Path, base: str, files: Mapping[str, Callable[[], bytes]]) -> dict[str, int] | None:
    """How many questions `synth export --format ecgqa` says it made, in the copy or above the folder that was given."""
    from ecglm.synth.export_ecgqa import FORMAT, MANIFEST

    found = [name for name in files if name.endswith(MANIFEST) and base.startswith(name.removesuffix(MANIFEST))]
    above = [folder / MANIFEST for folder in root.absolute().parents[:4]] if root.is_dir() else []
    for read in [files[name] for name in found] + [path.read_bytes for path in above if path.is_file()]:
        try:
            content = json.loads(read())
            if content["format"] == FORMAT:
                return {split: int(content["questions"][split]) for split in SIZES}
        except (ValueError, KeyError, TypeError, OSError):
            continue
    return None


def _bases(files: Iterable[str]) -> set[str]:
    """Where question files of the PTB-XL version are; those of the MIMIC-IV-ECG version are another dataset."""
    matches = [match for name in files if (match := _QUESTIONS.match(name))]
    return {match["base"] for match in matches if "mimic" not in match["base"].lower()}
