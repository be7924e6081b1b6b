"""The rows of `rendering.py` in `datasets.Dataset.map(batched=True)`: `python rendering_datasets.py JOB RESULT`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from rendering_shared import TURN_END, Timer, compile_wordings, digest_of, peak_mib, run_peer


def run_datasets(job: dict[str, Any]) -> dict[str, Any]:
    """`Dataset.map(batched=True)`: into two text columns; and into chat messages, written with `to_parquet`."""
    datasets.disable_progress_bars()
    wordings, fields = compile_wordings(job), job["fields"]

    def render(batch: dict[str, list[Any]]) -> list[list[str]]:
        chosen = zip(batch["user_wording"], batch["assistant_wording"], strict=True)
        columns = zip(*(batch[name] for name in fields), strict=True)
        return [
            wordings[user][assistant].render(dict(zip(fields, values, strict=True))).split(TURN_END)
            for (user, assistant), values in zip(chosen, columns, strict=True)
        ]

    def as_text(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        texts = render(batch)
        return {"user": [text[0] for text in texts], "assistant": [text[1] for text in texts]}

    def as_messages(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        messages = [
            [{"role": "user", "content": text[0]}, {"role": "assistant", "content": text[1]}] for text in render(batch)
        ]
        return {"messages": messages, "answers": [[answer] for answer in batch["answer"]]}

    rows = pq.read_table(job["rows"]).to_pydict()
    dataset = datasets.Dataset.from_dict(rows)
    left_out = ["user_wording", "assistant_wording"]
    dataset.select(range(min(2000, len(dataset)))).map(as_text, batched=True)
    with tempfile.TemporaryDirectory() as folder, Timer() as whole:
        rendered = dataset.map(as_messages, batched=True, remove_columns=left_out, load_from_cache_file=False)
        rendered.to_parquet(str(Path(folder) / "pairs.parquet"))
    peak = peak_mib()
    with Timer() as alone:
        rendered = dataset.map(as_text, batched=True, load_from_cache_file=False)
    texts = [
        f"{user}{TURN_END}{assistant}" for user, assistant in zip(rendered["user"], rendered["assistant"], strict=True)
    ]
    digest = digest_of(texts)
    return {
        "rows": len(dataset),
        "digest": digest,
        "peak_mib": peak,
        "render": {"wall_s": alone.wall, "cpu_s": alone.cpu},
        "whole": {"wall_s": whole.wall, "cpu_s": whole.cpu},
    }


if __name__ == "__main__":
    run_peer("datasets", run_datasets)
