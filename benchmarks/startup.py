"""How long a command takes before it does anything: `synth --help`, `synth --version`, and imports.

python benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measuring import ECGLM_VERSIONS, machine, median, print_json, show, show_environment, versions


def seconds_of(command: list[str]) -> float:
    """Wall time of one run."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Runs every command in turn and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="runs of each command (default 10)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    synth = str(Path(sys.executable).with_name("synth"))
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import ecglm": [sys.executable, "-c", "import ecglm"],
        "import ecglm.synth.cli": [sys.executable, "-c", "import ecglm.synth.cli"],
        "synth --help": [synth, "--help"],
        "synth build --help": [synth, "build", "--help"],
        "synth --version": [synth, "--version"],
    }
    content: dict[str, Any] = {"benchmark": "startup", "machine": machine()}
    content["versions"] = {"ecglm": versions(*ECGLM_VERSIONS, "typer", "rich")}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        seconds_of(command)
    for _ in range(options.repeats):
        for name, command in commands.items():
            seconds[name].append(seconds_of(command))
    bare = median(seconds["python -c pass"])
    content["commands"] = [
        {
            "command": name,
            "median_s": median(values),
            "fastest_s": min(values),
            "times_bare_python": median(values) / bare,
        }
        for name, values in seconds.items()
    ]
    if options.json:
        print_json(content)
        return
    show_environment(content)
    show(f"median of {options.repeats} runs", content["commands"])


if __name__ == "__main__":
    main()
