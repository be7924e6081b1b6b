"""Whole builds as a user runs them: pairs per second, time, memory, and what a rebuild saves.

python benchmarks/build.py --ptbxl DIR                       # all of PTB-XL, one and two workers, three rounds
python benchmarks/build.py --ptbxl DIR --limit 2000 --rounds 1
python benchmarks/build.py --ptbxl DIR --ptbxl-plus MEASURED --workers 2    # measured before, by `synth measure`
python benchmarks/build.py --ptbxl DIR --workers 2 --cache                  # what is made before rendering is kept

Each round builds into a new folder and then again into the same one:
  cold            nothing there
  unchanged       the same inputs
  one template    one template's version is raised
  all templates   every template's version is raised; the waveforms are measured already
  another folder  only with --cache: the same inputs into a second folder

With --cache the variable ECGLM_CACHE names a folder that is empty when a round begins; else it is not set.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from measuring import ECGLM_VERSIONS, machine, median, print_json, run_command, show, show_environment, versions

CASES = ("cold", "unchanged", "one template", "all templates")
ANOTHER = "another folder"


def cases_of(options: argparse.Namespace) -> tuple[str, ...]:
    """What every round does, in order."""
    return (*CASES, ANOTHER) if options.cache else CASES


def copy_templates(source: Path, target: Path, raise_version_of: set[str] | None) -> Path:
    """A copy of a template folder in which some templates (None: all) have the next version."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for path in target.glob("*/*.jinja"):
        if raise_version_of is None or path.stem in raise_version_of:
            text = path.read_text(encoding="utf-8")
            text = re.sub(r"^version: (\d+)", lambda found: f"version: {int(found[1]) + 1}", text, count=1, flags=re.M)
            path.write_text(text, encoding="utf-8")
    return target


def synth_build(options: argparse.Namespace, workers: int, templates: Path, out: Path, cache: Path) -> dict[str, Any]:
    """One `synth build` in a process of its own."""
    command: list[str | Path] = [sys.executable, "-m", "ecglm.synth.cli", "build", "--json"]
    command += ["--ptbxl", options.ptbxl, "--out", out, "--workers", str(workers), "--templates", templates]
    command += ["--ptbxl-plus", options.ptbxl_plus] if options.ptbxl_plus else []
    if options.limit is not None:
        command += ["--limit", str(options.limit)]
    measured = run_command(command, env={"ECGLM_CACHE": str(cache) if options.cache else ""})
    result = json.loads(measured.stdout)
    log = json.loads((out / "build.log.json").read_text(encoding="utf-8"))
    return {
        "wall_s": measured.wall_s,
        "cpu_s": measured.cpu_s,
        "peak_mib": measured.peak_mib,
        "peak_anonymous_mib": measured.peak_anonymous_mib,
        "stages": log["stages"],
        **{name: result[name] for name in ("ecgs", "pairs", "rendered", "reused", "content_fingerprint")},
    }


def run_round(options: argparse.Namespace, workers: int, templates: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Every case once."""
    out, another, cache = folder / "corpus", folder / "another", folder / "cache"
    results = {
        case: synth_build(options, workers, templates[case], another if case == ANOTHER else out, cache)
        for case in cases_of(options)
    }
    for made in (out, another, cache):
        shutil.rmtree(made, ignore_errors=True)
    for case in {"unchanged", ANOTHER} & results.keys():
        if results["cold"]["content_fingerprint"] != results[case]["content_fingerprint"]:
            raise SystemExit(f"{case}: another fingerprint")
    return results


def summary_of(rounds: dict[int, list[dict[str, Any]]], cases: Sequence[str]) -> list[dict[str, Any]]:
    """Medians over the rounds."""
    rows = []
    for workers, results in rounds.items():
        for case in cases:
            runs = [result[case] for result in results]
            wall = median([run["wall_s"] for run in runs])
            rows.append(
                {
                    "workers": workers,
                    "case": case,
                    "pairs": runs[0]["pairs"],
                    "rendered": runs[0]["rendered"],
                    "wall_s": wall,
                    "cpu_s": median([run["cpu_s"] for run in runs]),
                    "pairs_per_s": runs[0]["pairs"] / wall if runs[0]["rendered"] > 1 else None,
                    "peak_mib": median([run["peak_mib"] for run in runs]),
                    "anonymous_mib": median([run["peak_anonymous_mib"] for run in runs]),
                }
            )
    return rows


def stages_of(rounds: dict[int, list[dict[str, Any]]], cases: Sequence[str]) -> list[dict[str, Any]]:
    """Median seconds of every stage of the builds that made something, and the rendering stage's pairs per second."""
    rows = []
    for workers, results in rounds.items():
        for case in (case for case in cases if case != "unchanged"):
            runs = [result[case] for result in results]
            stages = {name: median([run["stages"][name] for run in runs]) for name in runs[0]["stages"]}
            rate = runs[0]["pairs"] / stages["render"] if runs[0]["rendered"] > 1 else None
            rows.append({"workers": workers, "case": case, **stages, "pairs_per_s_of_render": rate})
    return rows


def main() -> None:
    """Runs the rounds and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ptbxl", type=Path, required=True, metavar="DIR", help="PTB-XL, or made by `synth simulate`")
    parser.add_argument("--ptbxl-plus", type=Path, metavar="DIR", help="measurements made by `synth measure`")
    parser.add_argument("--limit", type=int, help="only the first so many ECGs")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes (default 1 2)")
    parser.add_argument("--cache", action="store_true", help="with ECGLM_CACHE, in a folder that is empty at first")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are reported (default 3)")
    parser.add_argument("--scratch", type=Path, help="where corpora are built (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    content: dict[str, Any] = {"benchmark": "build", "machine": machine()}
    content["versions"] = {"ecglm": versions(*ECGLM_VERSIONS)}
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = Path(name)
        built_in = Path(str(resources.files("ecglm.templates")))
        first = sorted(path.stem for path in built_in.glob("verify/*.jinja"))[0]
        plain = copy_templates(built_in, folder / "plain", set())
        templates = {
            "cold": plain,
            "unchanged": plain,
            ANOTHER: plain,
            "one template": copy_templates(built_in, folder / "one", {first}),
            "all templates": copy_templates(built_in, folder / "all", None),
        }
        rounds: dict[int, list[dict[str, Any]]] = {workers: [] for workers in options.workers}
        for _ in range(options.rounds):
            for workers in options.workers:
                rounds[workers].append(run_round(options, workers, templates, folder))
    if len({result[0]["cold"]["content_fingerprint"] for result in rounds.values()}) > 1:
        raise SystemExit("other numbers of workers made other corpora")
    content |= {
        "builds": summary_of(rounds, cases_of(options)),
        "stages": stages_of(rounds, cases_of(options)),
        "rounds": rounds,
    }
    if options.json:
        print_json(content)
        return
    show_environment(content)
    show(
        f"{rounds[options.workers[0]][0]['cold']['ecgs']:,} ECGs, median of {options.rounds} rounds", content["builds"]
    )
    show("seconds by stage", content["stages"])


if __name__ == "__main__":
    main()
