"""Does memory grow with the number of ECGs? Builds from ever more simulated ECGs and compares the peaks.

python benchmarks/scale.py --ecgs 2000 5000 10000
python benchmarks/scale.py --ecgs 10000 30000 100000 --folder DIR    # ten million pairs; DIR keeps the simulated ECGs
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import ECGLM_VERSIONS, machine, print_json, run_command, show, show_environment, versions

SYNTH = (sys.executable, "-m", "ecglm.synth.cli")


def simulated_folder(folder: Path, n_ecgs: int) -> tuple[Path, dict[str, Any] | None]:
    """A folder with at least so many simulated ECGs, and what making it took if it was not there."""
    root = folder / f"simulated-{n_ecgs}"
    if (root / "SIMULATED.json").is_file():
        return root, None
    shutil.rmtree(root, ignore_errors=True)
    made = run_command([*SYNTH, "simulate", "--n", str(n_ecgs), "--out", root])
    return root, {"ecgs": n_ecgs, "wall_s": made.wall_s, "ecgs_per_s": n_ecgs / made.wall_s, "peak_mib": made.peak_mib}


def build(root: Path, n_ecgs: int, workers: int, out: Path) -> dict[str, Any]:
    """One build from the first ECGs of the folder."""
    measured = run_command(
        [*SYNTH, "build", "--json", "--ptbxl", root, "--limit", str(n_ecgs), "--out", out, "--workers", str(workers)]
    )
    result = json.loads(measured.stdout)
    stages = json.loads((out / "build.log.json").read_text(encoding="utf-8"))["stages"]
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shutil.rmtree(out)
    return {
        "ecgs": n_ecgs,
        "workers": workers,
        "pairs": result["pairs"],
        "wall_s": measured.wall_s,
        "pairs_per_s": result["pairs"] / measured.wall_s,
        "corpus_mib": size / 2**20,
        "peak_mib": measured.peak_mib,
        "anonymous_mib": measured.peak_anonymous_mib,
        "stages": stages,
    }


def growth_of(builds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Memory of each build against the smallest one with as many workers."""
    smallest: dict[int, dict[str, Any]] = {}
    rows = []
    for result in builds:
        base = smallest.setdefault(result["workers"], result)
        rows.append(
            {
                "ecgs": result["ecgs"],
                "workers": result["workers"],
                "times_the_ecgs": result["ecgs"] / base["ecgs"],
                "times_the_peak": result["peak_mib"] / base["peak_mib"],
                "times_the_anonymous_peak": result["anonymous_mib"] / base["anonymous_mib"],
            }
        )
    return rows


def main() -> None:
    """Builds from the smallest number of ECGs to the largest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ecgs", type=int, nargs="+", default=[1000, 2000], help="numbers of ECGs (default 1000 2000)")
    parser.add_argument("--workers", type=int, nargs="+", default=[2], help="processes (default 2)")
    parser.add_argument("--folder", type=Path, help="keeps the simulated ECGs here for the next time")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    content: dict[str, Any] = {"benchmark": "scale", "machine": machine()}
    content["versions"] = {"ecglm": versions(*ECGLM_VERSIONS)}
    with tempfile.TemporaryDirectory(dir=options.folder and options.folder.parent) as name:
        folder = options.folder or Path(name)
        root, content["simulation"] = simulated_folder(folder, max(options.ecgs))
        content["builds"] = [
            build(root, n_ecgs, workers, Path(name) / "corpus")
            for workers in options.workers
            for n_ecgs in sorted(options.ecgs)
        ]
    content["growth"] = growth_of(content["builds"])
    if options.json:
        print_json(content)
        return
    show_environment(content)
    if content["simulation"]:
        show("simulation", [content["simulation"]])
    show("builds", [{k: v for k, v in result.items() if k != "stages"} for result in content["builds"]])
    show("against the smallest", content["growth"])
    show("seconds by stage", [{"ecgs": r["ecgs"], "workers": r["workers"], **r["stages"]} for r in content["builds"]])


if __name__ == "__main__":
    main()
