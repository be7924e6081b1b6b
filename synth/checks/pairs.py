"""Reading the pairs of a corpus part by part, in little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecglm.synth.corpus import Corpus
from ecglm.synth.schema import PAIRS

Progress = Callable[[str, int, int], None]
"""Called with the stage, pairs done and pairs in all."""

PART_ROWS = 65_536
_BATCH_ROWS = 16_384

TEXTS = pa.schema(
    {
        "pair_id": pa.string(),
        "template_id": pa.string(),
        "role": pa.string(),
        "content": pa.string(),
        "times": pa.int64(),
    }
)


def pair_batches(
    corpus: Corpus, columns: Sequence[str], stage: str = "", progress: Progress | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of the pairs in file order. A dataset would read ahead, and with it fill the memory."""
    done, total = 0, sum(corpus.split_rows.values())
    for name in sorted(corpus.manifest["files"]):
        if name.startswith("pairs/"):
            with pq.ParquetFile(corpus.root / name) as file:
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns)):
                    yield batch
                    done += batch.num_rows
                    if progress is not None:
                        progress(stage, done, total)


def pair_parts(corpus: Corpus, progress: Progress | None = None) -> Iterator[pa.Table]:
    """All pairs in file order, some `PART_ROWS` at a time."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in pair_batches(corpus, PAIRS.names, "checking pairs", progress):
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= PART_ROWS:
            yield pa.Table.from_batches(waiting, schema=PAIRS)
            waiting, rows = [], 0
    if rows:
        yield pa.Table.from_batches(waiting, schema=PAIRS)


def texts_of(pairs: pa.Table) -> pa.Table:
    """Every message text of the pairs once, with a pair that says it and how often it is said.

    Most messages are said many times, so that reading texts is several times quicker than reading messages.
    """
    messages = pairs["messages"].combine_chunks()
    pair, said = pc.list_parent_indices(messages), messages.flatten()
    encoded = pc.struct_field(said, "content").dictionary_encode(null_encoding="encode")
    _, first, times = np.unique(encoded.indices.to_numpy(), return_index=True, return_counts=True)
    place = pc.take(pair, pa.array(first))
    return pa.table(
        {
            "pair_id": pairs["pair_id"].take(place),
            "template_id": pairs["template_id"].take(place),
            "role": pc.struct_field(said, "role").take(pa.array(first)),
            "content": pc.struct_field(said, "content").take(pa.array(first)),
            "times": pa.array(times, pa.int64()),
        },
        schema=TEXTS,
    )
