"""Every command and example that the README and the documents show works as it stands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as pads
import pytest

from ecglm.synth.database import LockedConnection
from ecglm.synth.guidelines import Guideline, load_guidelines
from ecglm.synth.measure.dictionary import measurements
from ecglm.synth.schema import ECGS, FINDINGS, GUIDELINES, LABELS, OPTIONAL_TABLES, PAIRS, REJECTED, TEMPLATES
from ecglm.synth.templates import parse_template
from ecglm.synth.validate import empty_views, sql_problems
from ecglm.synth.yaml_files import parse_yaml

README = Path(__file__).parents[1] / "README.md"
DOCUMENTS = sorted((README.parent / "docs").glob("*.md"))
NOT_RUN = ("pip ", "python -m venv", "source ", "git ", "cd ", "pytest", "ruff", "mypy", ".ci/")
"""Lines that install, test or lint: .ci/run does that."""
N_PTBXL = "40"


def blocks(text: str, language: str = "bash") -> list[str]:
    """The blocks marked with a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[str]:
    """The commands of a block, without comments; a line that ends with a backslash goes on, `&&` begins another."""
    lines = block.replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines if not line.lstrip().startswith("#") for part in line.split(" && ")]
    return [part for part in parts if part]


def shown_pairs(text: str) -> list[tuple[str, str]]:
    """The pairs of question and answer in the first block of text, wherever their lines are broken."""
    turns = re.split(r"^(?:user|assistant) +", blocks(text, "text")[0], flags=re.MULTILINE)
    said = [" ".join(turn.split()) for turn in turns if turn]
    return list(zip(said[::2], said[1::2], strict=True))


def needs_ptbxl(command: str) -> bool:
    return re.search(r"--ptbxl[ =]", command) is not None


def runnable(document: Path = README) -> list[str]:
    if not document.is_file():
        return []
    return [
        command
        for block in blocks(document.read_text())
        for command in commands(block)
        if not command.startswith(NOT_RUN)
    ]


def run_all(chosen: list[str], folder: Path) -> None:
    """Runs commands one after another in a folder, with `synth`, `bench` and `python` those of this environment."""
    environment = {**os.environ, "PATH": f"{shims(folder)}{os.pathsep}{os.environ['PATH']}"}
    for command in chosen:
        answer = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert answer.returncode == 0, f"{command}\n{answer.stdout[-2000:]}\n{answer.stderr[-2000:]}"


def shims(folder: Path) -> Path:
    """A folder with `synth`, `bench`, `ecglm` and `python` of this environment, to stand first on the path."""
    place = folder / ".commands"
    if place.is_dir():
        return place
    place.mkdir()
    starts = {"python": f'"{sys.executable}"'}
    for name, package in {"synth": "synth", "bench": "bench", "ecglm": "models"}.items():
        call = f"from ecglm.{package}.cli import main; import sys; sys.argv[0] = '{name}'; main()"
        starts[name] = f'"{sys.executable}" -c "{call}"'
    for name, start in starts.items():
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
    built = pads.dataset(tmp_path / "corpus" / "pairs").to_table(columns=["messages"])["messages"].to_pylist()
    pairs = {tuple(" ".join(turn["content"].split()) for turn in messages) for messages in built}
    shown = shown_pairs(README.read_text())
    assert len(shown) == 3
    assert [pair for pair in shown if pair not in pairs] == [], "not in the corpus that the README builds"


@pytest.mark.slow
def test_what_needs_ptbxl_runs_on_a_part_of_it(ptbxl_part: Path, tmp_path: Path) -> None:
    chosen = [command for command in runnable() if needs_ptbxl(command)]
    assert chosen, "the README shows how to build from PTB-XL"
    few = [re.sub(r"--ptbxl[ =]\S+", f"--ptbxl {ptbxl_part} --limit {N_PTBXL}", command) for command in chosen]
    run_all([re.sub(r"--limit (?!40\b)\S+", "", command) for command in few], tmp_path)


@pytest.mark.slow
def test_what_the_documents_show_runs_as_it_stands(tmp_path: Path) -> None:
    assert DOCUMENTS
    run_all(["synth build --simulated 40 --workers 1 --out corpus"], tmp_path)
    for document in DOCUMENTS:
        folder = tmp_path / document.stem
        shutil.copytree(tmp_path / "corpus", folder / "corpus")
        run_all([command for command in runnable(document) if command not in runnable()], folder)
        for block in blocks(document.read_text(), "python"):
            (folder / "block.py").write_text(block)
            run_all(["HF_DATASETS_CACHE=$PWD/cache python block.py"], folder)


def test_the_example_of_a_guideline_is_valid() -> None:
    (example,) = blocks((README.parent / "docs" / "guidelines.md").read_text(), "yaml")
    guideline = Guideline.model_validate(parse_yaml(example, "the example"))
    assert guideline.rules[0].measurements == {"PR_Int_Global"}


def test_the_example_of_a_template_is_valid() -> None:
    (example,) = blocks((README.parent / "docs" / "templates.md").read_text(), "jinja")
    template, violations = parse_template(example, "the example", {})
    assert violations == []
    assert template is not None
    with LockedConnection(empty_views(load_guidelines())) as connection:
        assert sql_problems(template, connection) == []


def test_the_documents_name_every_column_of_every_view() -> None:
    text = "".join(document.read_text() for document in DOCUMENTS)
    documented = set(re.findall(r"`(\w+)`", text))
    for name, view in empty_views(load_guidelines()).items():
        columns = {column for column in view.column_names if not column.startswith("previous_")} - set(measurements())
        assert columns - documented == set() or name == "decided", f"{name}: {columns - documented}"
    for schema in (ECGS, LABELS, FINDINGS, PAIRS, REJECTED, TEMPLATES, GUIDELINES, *OPTIONAL_TABLES.values()):
        assert set(schema.names) <= documented, set(schema.names) - documented


def test_every_link_between_documents_leads_somewhere() -> None:
    for document in (README, *DOCUMENTS):
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
