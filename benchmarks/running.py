"""What `bench run` costs beside the model: asking, writing down, reading and scoring every answer.

    python benchmarks/running.py --ptbxl DIR                # 2,198 ECGs × 71 statements, and fold 9 for thresholds
    python benchmarks/running.py --ptbxl DIR --task ptbxl-rhythm --json

The model answers each question with the same text and scores without looking at anything, once built into the bench's
own process (`majority`) and once in a process of its own, as models of others run. The peak is that of all processes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import machine, print_json, run_command, show, show_environment, versions

LIBRARIES = ("ecglm", "numpy", "polars", "scikit-learn")
CONSTANT = """
from ecglm.bench import Answer


class Constant:
    batch_size = 2000
    reads_signals = False

    def answer(self, batch):
        for item in batch:
            yield Answer(item.id, text="no", scores=(0.25, 0.75))
"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ptbxl", type=Path, required=True)
    parser.add_argument("--task", default="ptbxl-all")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = [_run(arguments, model) for model in ("majority", "python:constant:Constant")]
    content = {"machine": machine(), "versions": {"installed": versions(*LIBRARIES)}, "runs": rows}
    if arguments.json:
        print_json(content)
        return
    show_environment(content)
    show(f"{arguments.task}, {arguments.resamples:,} resamples", rows)


def _run(arguments: argparse.Namespace, model: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "constant.py").write_text(CONSTANT)
        code = f"import os, sys; os.chdir({name!r}); from ecglm.bench.cli import main; main()"
        command: list[str | Path] = [sys.executable, "-c", code, "run", "--model", model, "--task", arguments.task]
        command += ["--ptbxl", arguments.ptbxl.absolute(), "--out", "run", "--json"]
        command += ["--resamples", str(arguments.resamples)]
        measured = run_command(command)
    told = json.loads(measured.stdout.splitlines()[-1])
    return {
        "model": model,
        "questions": told["asked"],
        "wall_s": measured.wall_s,
        "cpu_s": measured.cpu_s,
        "of_it_asking_s": told["model_seconds"],
        "peak_mib": measured.peak_mib,
    }


if __name__ == "__main__":
    main()
