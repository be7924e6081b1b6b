"""The integrity of a corpus's files: what the manifest says of them, worked out again."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecglm.synth.checks.pairs import Progress, pair_batches
from ecglm.synth.checks.results import CheckResult, Problems
from ecglm.synth.corpus import BUILD_LOG, CARD, MANIFEST, Corpus, file_sha256
from ecglm.synth.identities import content_hash, pair_fingerprint

FILE_CHECKS = {
    "file-sha256": "A file whose bytes are not those the manifest lists.",
    "file-rows": "A file or table with other row counts than the manifest lists.",
    "file-unlisted": "A file in the corpus folder that the manifest does not list.",
    "content-hash": "A pair whose content_hash is not that of its messages.",
    "content-fingerprint": "Pairs other than those the manifest's fingerprint was made from.",
}
"""Checks of the files themselves, done without SQL."""

_UNLISTED = (MANIFEST, BUILD_LOG, CARD)


def verify_files(corpus: Corpus, progress: Progress | None = None) -> list[CheckResult]:
    """Recomputes what the manifest says of a corpus's files: SHA-256, row counts, content hashes and fingerprint."""
    content, hashes = _content_problems(corpus, progress)
    problems = (_changed_files(corpus), _row_problems(corpus), _unlisted_files(corpus), hashes, content)
    return [
        CheckResult(name, description, "error", found.n, found.examples)
        for (name, description), found in zip(FILE_CHECKS.items(), problems, strict=True)
    ]


def _changed_files(corpus: Corpus) -> Problems:
    problems = Problems()
    for name, entry in corpus.manifest["files"].items():
        actual = file_sha256(corpus.root / name)
        if actual != entry["sha256"]:
            problems.add(file=name, expected=entry["sha256"], found=actual)
    return problems


def _row_problems(corpus: Corpus) -> Problems:
    problems = Problems()
    pairs = 0
    for name, entry in corpus.manifest["files"].items():
        if "rows" not in entry:
            continue
        try:
            actual = pq.read_metadata(corpus.root / name).num_rows
        except (OSError, pa.ArrowException) as error:
            problems.add(file=name, expected=entry["rows"], found=str(error))
            continue
        pairs += actual if name.startswith("pairs/") else 0
        if actual != entry["rows"]:
            problems.add(file=name, expected=entry["rows"], found=actual)
    if pairs != corpus.manifest["counts"]["pairs"]:
        problems.add(file="pairs", expected=corpus.manifest["counts"]["pairs"], found=pairs)
    return problems


def _unlisted_files(corpus: Corpus) -> Problems:
    listed = set(corpus.manifest["files"]) | set(_UNLISTED)
    present = (path.relative_to(corpus.root).as_posix() for path in sorted(corpus.root.rglob("*")) if path.is_file())
    return Problems({"file": name} for name in present if name not in listed)


def _content_problems(corpus: Corpus, progress: Progress | None) -> tuple[Problems, Problems]:
    content, hashes = Problems(), Problems()
    fingerprint = 0
    columns = ["pair_id", "content_hash", "messages"]
    try:
        for batch in pair_batches(corpus, columns, "verifying files", progress):
            pair_ids, stated = batch.column("pair_id").to_pylist(), batch.column("content_hash").to_pylist()
            messages = batch.column("messages")
            texts = pc.struct_field(messages.flatten(), "content").to_pylist()
            offsets = pc.subtract(messages.offsets, messages.offsets[0]).to_pylist()
            for pair_id, given, start, stop in zip(pair_ids, stated, offsets, offsets[1:], strict=False):
                actual = content_hash([text or "" for text in texts[start:stop]])
                if actual != given:
                    hashes.add(pair_id=pair_id, expected=actual, found=given)
                fingerprint += pair_fingerprint(pair_id or "", actual)
    except (OSError, pa.ArrowException) as error:
        content.add(expected=corpus.manifest["content_fingerprint"], found=f"pairs that cannot be read: {error}")
        return content, hashes
    actual = f"{fingerprint % (1 << 128):032x}"
    if actual != corpus.manifest["content_fingerprint"]:
        content.add(expected=corpus.manifest["content_fingerprint"], found=actual)
    return content, hashes
