"""Every command the README shows can be run as it stands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
NOT_RUN = ("pip ", "python -m venv", "source ", "git ", "cd ", "pytest", "ruff", "mypy", ".ci/")
"""Lines that install, test or lint: .ci/run does that."""
N_PTBXL = "40"


def blocks(text: str) -> list[str]:
    """The blocks marked as bash, in order."""
    return re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[str]:
    """The commands of a block, without comments; a line that ends with a backslash goes on, `&&` begins another."""
    lines = block.replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines if not line.lstrip().startswith("#") for part in line.split(" && ")]
    return [part for part in parts if part]


def needs_ptbxl(command: str) -> bool:
    return "--ptbxl" in command


def runnable() -> list[str]:
    if not README.is_file():
        return []
    return [
        command
        for block in blocks(README.read_text())
        for command in commands(block)
        if not command.startswith(NOT_RUN)
    ]


def run_all(chosen: list[str], folder: Path) -> None:
    """Runs commands one after another in a folder, with `synth` and `python` those of this environment."""
    environment = {**os.environ, "PATH": f"{shims(folder)}{os.pathsep}{os.environ['PATH']}"}
    for command in chosen:
        answer = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert answer.returncode == 0, f"{command}\n{answer.stdout[-2000:]}\n{answer.stderr[-2000:]}"


def shims(folder: Path) -> Path:
    """A folder with `synth` and `python` of this environment, to stand first on the path."""
    place = folder / ".commands"
    place.mkdir()
    call = "from ecglm.synth.cli import main; import sys; sys.argv[0] = 'synth'; main()"
    for name, start in {"synth": f'"{sys.executable}" -c "{call}"', "python": f'"{sys.executable}"'}.items():
        path = place / name
        path.write_text(f'#!/bin/sh\nexec {start} "$@"\n')
        path.chmod(0o755)
    return place


def test_blocks_and_commands_are_told_apart() -> None:
    text = "```bash\npip install . && ls\nsynth build \\\n  --limit 5   \n# no command\n```\n```python\nimport x\n```\n"
    assert [commands(block) for block in blocks(text)] == [["pip install .", "ls", "synth build    --limit 5"]]


def test_what_needs_no_ptbxl_runs_as_it_stands(tmp_path: Path) -> None:
    chosen = [command for command in runnable() if not needs_ptbxl(command)]
    assert any("synth build" in command for command in chosen), "the README shows how to build without a download"
    run_all(chosen, tmp_path)


@pytest.mark.slow
def test_what_needs_ptbxl_runs_on_a_part_of_it(ptbxl_part: Path, tmp_path: Path) -> None:
    chosen = [command for command in runnable() if needs_ptbxl(command)]
    assert chosen, "the README shows how to build from PTB-XL"
    few = [re.sub(r"--ptbxl[ =]\S+", f"--ptbxl {ptbxl_part} --limit {N_PTBXL}", command) for command in chosen]
    run_all([re.sub(r"--limit (?!40\b)\S+", "", command) for command in few], tmp_path)
    shutil.rmtree(tmp_path / ".commands")
