"""The rows of `rendering.py` in a distilabel pipeline: `python rendering_distilabel.py JOB RESULT`.

distilabel reads the annotations of steps as objects, so there are no postponed ones here.
"""

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from distilabel.pipeline import Pipeline
from distilabel.steps import GeneratorStep, Step, StepInput
from rendering_shared import TURN_END, compile_wordings, digest_of, peak_mib, run_peer


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

    job: str

    def load(self) -> None:
        super().load()
        self._wordings = compile_wordings(json.loads(Path(self.job).read_text(encoding="utf-8")))

    @property
    def inputs(self) -> list[str]:
        return ["user_wording", "assistant_wording"]

    @property
    def outputs(self) -> list[str]:
        return ["user", "assistant"]

    def process(self, inputs: StepInput) -> Any:
        for row in inputs:
            template = self._wordings[row["user_wording"]][row["assistant_wording"]]
            row["user"], row["assistant"] = template.render(row).split(TURN_END)
        yield inputs


def run_pipeline(job: dict[str, Any], n_rows: int) -> tuple[float, list[str]]:
    """Wall seconds of one run, and its texts."""
    batch = job["batch"]
    with tempfile.TemporaryDirectory() as folder:
        with Pipeline(name=f"render-{n_rows}", cache_dir=folder) as pipeline:
            reader = ReadRows(name="read", path=job["rows"], n_rows=n_rows, batch_size=batch)
            reader >> Render(name="render", job=job["path"], input_batch_size=batch)
        started = time.perf_counter()
        result = pipeline.run(use_cache=False)["default"]["train"]
        wall = time.perf_counter() - started
        turns = zip(result["user"], result["assistant"], strict=True)
        texts = [f"{user}{TURN_END}{assistant}" for user, assistant in turns]
    return wall, texts


def run_distilabel(job: dict[str, Any]) -> dict[str, Any]:
    """A generator step and a rendering step; once with one batch for the start-up, once with all rows."""
    n_rows = min(job["n_rows"], pq.read_metadata(job["rows"]).num_rows)
    start_wall, _ = run_pipeline(job, job["batch"])
    wall, texts = run_pipeline(job, n_rows)
    beyond = (n_rows - job["batch"]) / n_rows
    return {
        "rows": n_rows,
        "digest": digest_of(texts),
        "peak_mib": peak_mib() + peak_mib(resource.RUSAGE_CHILDREN),
        "start_up_s": start_wall,
        # What the rows beyond the first batch took, scaled up to all rows: start-up left out.
        "render": {"wall_s": (wall - start_wall) / beyond},
        "whole": {"wall_s": wall},
    }


if __name__ == "__main__":
    run_peer("distilabel", run_distilabel)
