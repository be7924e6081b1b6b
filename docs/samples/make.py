"""Draws twenty pairs of each family from a corpus by a fixed hash and writes them as pages to read.

synth build --ptbxl DIR --out corpus
python docs/samples/make.py corpus
"""

from __future__ import annotations

import sys
from pathlib import Path

import xxhash

from ecglm.synth.corpus import Corpus
from ecglm.synth.schema import DEFAULT_FAMILIES

PER_FAMILY = 20
COLUMNS = ["pair_id", "family", "template_id", "ecg_ids", "split", "messages", "answers", "codes"]


def drawn(corpus: Corpus, family: str) -> list[dict[str, object]]:
    """The pairs of a family whose hashed id is smallest; the same for every build of the same pairs."""
    import pyarrow.dataset as ds

    rows = corpus.table("pairs").to_table(columns=COLUMNS, filter=ds.field("family") == family)
    ids = rows["pair_id"].to_pylist()
    order = sorted(range(len(ids)), key=lambda row: xxhash.xxh3_64_intdigest(f"samples {ids[row]}".encode()))
    return rows.take(order[:PER_FAMILY]).to_pylist()


def page(corpus: Corpus, family: str, pairs: list[dict[str, object]]) -> str:
    """One page of Markdown."""
    lines = [
        f"# {family}",
        "",
        f"{len(pairs)} pairs drawn by a fixed hash from a corpus with content fingerprint"
        f" `{corpus.manifest['content_fingerprint']}` ({corpus.manifest['counts']['ecgs']:,} ECGs,"
        f" {corpus.manifest['config']['source']}); see [make.py](make.py).",
    ]
    for number, pair in enumerate(pairs, start=1):
        lines += ["", f"## {number}. {pair['template_id']}", ""]
        lines += [f"`{pair['pair_id']}` · {', '.join(pair['ecg_ids']) or 'no ECG'} · {pair['split']}", ""]
        for message in pair["messages"]:
            quoted = message["content"].replace("\n", "  \n> ")
            lines += [f"**{message['role']}**", "", f"> {quoted}", ""]
        if pair["answers"]:
            lines.append(f"answers: {'; '.join(pair['answers'])}")
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    corpus = Corpus.open(Path(sys.argv[1]))
    for family in DEFAULT_FAMILIES:
        pairs = drawn(corpus, family)
        (Path(__file__).parent / f"{family}.md").write_text(page(corpus, family, pairs), encoding="utf-8")
        print(f"{family}: {len(pairs)} pairs")


if __name__ == "__main__":
    main()
