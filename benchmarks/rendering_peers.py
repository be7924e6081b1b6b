"""The peers of `rendering.py`: the same rows and the same Jinja text in datasets and distilabel. Needs no ecglm.

Run by `rendering.py` with the interpreter of the peers' environment: `python rendering_peers.py CONTENDER JOB RESULT`;
JOB is the JSON file that `rendering.py` writes. distilabel reads the annotations of its steps as objects, so this
module does without postponed ones.
"""

import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import jinja2
import pyarrow.parquet as pq

TURN_END = "\x1f"


def compile_wordings(job: dict[str, Any]) -> list[list[jinja2.Template]]:
    """A plain, compiled Jinja template for each user wording with each assistant wording: one render a row."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False, cache_size=0)
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:]
    return [
        [environment.from_string(user + TURN_END + assistant) for assistant in job["assistant"]]
        for user in job["user"]
    ]


def digest_of(texts: list[str]) -> str:
    """A hash of all texts, whatever their order, to show that every contender wrote the same."""
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()


def peak_mib(who: int = resource.RUSAGE_SELF) -> float:
    """Largest resident set size so far."""
    return resource.getrusage(who).ru_maxrss / 1024


class Timer:
    """Wall and processor seconds of a `with` block."""

    def __enter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu


# --------------------------------------------------------------------------------------------------------- datasets.map


def run_datasets(job: dict[str, Any]) -> dict[str, Any]:
    """`Dataset.map(batched=True)`: into two text columns; and into chat messages, written with `to_parquet`."""
    import datasets

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


# ----------------------------------------------------------------------------------------------------------- distilabel


def run_distilabel(job: dict[str, Any]) -> dict[str, Any]:
    """A pipeline of a generator step and a rendering step; once with all rows, once with one batch for its start-up."""
    from distilabel.pipeline import Pipeline
    from distilabel.steps import GeneratorStep, Step, StepInput

    class ReadRows(GeneratorStep):
        """Hands on prepared rows in batches."""

        path: str
        n_rows: int

        def process(self, offset: int = 0) -> Any:
            rows = pq.read_table(self.path).slice(offset, self.n_rows - offset).to_pylist()
            for start in range(0, len(rows), self.batch_size):
                yield rows[start : start + self.batch_size], start + self.batch_size >= len(rows)

        @property
        def outputs(self) -> list[str]:
            return pq.read_schema(self.path).names

    class Render(Step):
        """Renders each row's turns."""

        def load(self) -> None:
            super().load()
            self._wordings = compile_wordings(job)

        @property
        def inputs(self) -> list[str]:
            return job["fields"]

        @property
        def outputs(self) -> list[str]:
            return ["user", "assistant"]

        def process(self, inputs: StepInput) -> Any:
            for row in inputs:
                template = self._wordings[row["user_wording"]][row["assistant_wording"]]
                row["user"], row["assistant"] = template.render(row).split(TURN_END)
            yield inputs

    def run(n_rows: int) -> tuple[float, float, list[str]]:
        with tempfile.TemporaryDirectory() as folder:
            with Pipeline(name=f"render-{n_rows}", cache_dir=folder) as pipeline:
                reader = ReadRows(name="read", path=job["rows"], n_rows=n_rows, batch_size=job["distilabel_batch"])
                render = Render(name="render", input_batch_size=job["distilabel_batch"])
                reader >> render
            before, started = os.times(), time.perf_counter()
            result = pipeline.run(use_cache=False)["default"]["train"]
            wall, after = time.perf_counter() - started, os.times()
            cpu = sum(after[:4]) - sum(before[:4])
            texts = [f"{u}{TURN_END}{a}" for u, a in zip(result["user"], result["assistant"], strict=True)]
        return wall, cpu, texts

    n_rows = min(job["distilabel_rows"], pq.read_metadata(job["rows"]).num_rows)
    start_wall, start_cpu, _ = run(job["distilabel_batch"])
    wall, cpu, texts = run(n_rows)
    extra = (n_rows - job["distilabel_batch"]) / n_rows
    return {
        "rows": n_rows,
        "digest": digest_of(texts),
        "peak_mib": peak_mib() + peak_mib(resource.RUSAGE_CHILDREN),
        "start_up_s": start_wall,
        # What the rows beyond the first batch took, scaled up to all rows: start-up left out.
        "render": {"wall_s": (wall - start_wall) / extra, "cpu_s": (cpu - start_cpu) / extra},
        "whole": {"wall_s": wall, "cpu_s": cpu},
    }


CONTENDERS = {"datasets": run_datasets, "distilabel": run_distilabel}


def main() -> None:
    """Runs one contender."""
    contender, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    names = (contender, "jinja2", "pyarrow", "datasets")
    result = CONTENDERS[contender](job) | {"versions": {name: metadata.version(name) for name in names}}
    Path(sys.argv[3]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
