"""What is installed: one package, everything in it that it needs, working from any folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not (REPOSITORY / "guidelines").is_dir(), reason="needs the checkout these tests are part of"
)


def pyproject() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("ecglm-*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, to be found before the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_the_wheel_holds_every_file_the_program_reads(names: set[str]) -> None:
    expected = {
        f"ecglm/{folder}/{path.relative_to(REPOSITORY / folder).as_posix()}"
        for folder, patterns in {
            "guidelines": ("**/*.yaml",),
            "templates": ("**/*.jinja", "**/*.yaml"),
            "synth": ("**/*.py", "**/*.yaml", "**/*.sql", "**/*.jinja"),
            "bench": ("**/*.py", "**/*.yaml"),
        }.items()
        for pattern in patterns
        for path in (REPOSITORY / folder).glob(pattern)
    }
    assert len(expected) > 200
    assert expected - names == set()
    assert "ecglm/py.typed" in names
    for licence in ("LICENSE", "NOTICE"):
        assert any(name.endswith(f".dist-info/licenses/{licence}") for name in names)


@pytest.mark.slow
def test_the_wheel_installs_one_package_and_no_rubbish(names: set[str]) -> None:
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"ecglm"}
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name or name.endswith(".parquet")]


@pytest.mark.slow
def test_an_installed_copy_works_from_any_folder(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment.pop("PYTHONHOME", None)

    def python(code: str) -> str:
        answer = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    for module in ("ecglm", "ecglm.synth.cli", "ecglm.bench.cli", "ecglm.guidelines", "ecglm.templates"):
        assert Path(python(f"import {module}\nprint({module}.__file__)").strip()).is_relative_to(installed), module

    def synth(*arguments: str) -> str:
        return python(f"from ecglm.synth.cli import run\nraise SystemExit(run({list(arguments)!r}))")

    report = json.loads(synth("validate", "--json"))
    assert report["problems"] == []
    assert report["guidelines"] == len(list((REPOSITORY / "guidelines").glob("*/*.yaml")))
    assert report["templates"] == len(list((REPOSITORY / "templates").glob("*/*.jinja")))
    result = json.loads(synth("build", "--simulated", "5", "--families", "axis", "--workers", "1", "--json"))
    assert result["pairs"] > 0
    assert (tmp_path / "corpus" / "manifest.json").is_file(), "./corpus is where a build goes unless told otherwise"


def test_the_version_is_written_in_one_place() -> None:
    version = pyproject()["project"]["version"]
    assert metadata.version("ecglm") == version
    folders = ("ecglm", "synth", "bench", "guidelines", "templates")
    modules = [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]
    assert [path for path in modules if re.search(rf"['\"]{re.escape(version)}['\"]", path.read_text())] == []


def test_every_folder_with_modules_is_packaged() -> None:
    packages = set(pyproject()["tool"]["setuptools"]["packages"])
    for folder in ("synth", "bench", "guidelines", "templates"):
        for path in (REPOSITORY / folder).rglob("__init__.py"):
            name = ".".join(("ecglm", *path.parent.relative_to(REPOSITORY).parts))
            assert name in packages, f"{name} is not among the packages of pyproject.toml"


def test_the_core_needs_no_framework() -> None:
    project = pyproject()["project"]
    core = {re.split(r"[<>=\[;]", need)[0] for need in project["dependencies"]}
    assert core == {
        *("duckdb", "jinja2", "numpy", "polars", "pyarrow", "pydantic", "pyyaml", "rich", "scipy", "typer"),
        *("wfdb", "xxhash"),
    }
    assert "torch>=2.6,<=2.13.0" in project["optional-dependencies"]["models"]
    assert {"models", "plot", "bench", "translate", "dev"} <= set(project["optional-dependencies"])
