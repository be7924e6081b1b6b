"""The command line as scripts rely on it: help, exit codes, one JSON object on stdout, errors that name a remedy."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer.main

from ecglm.synth.cli import app, run

COMMANDS = (
    "build",
    "measure",
    "signals",
    "simulate",
    "validate",
    "preview",
    "query",
    "test",
    "stats",
    "audit",
    "why",
    "plot",
    "export",
)
HEAVY = ("torch", "transformers", "sklearn", "scipy", "matplotlib", "wfdb", "pandas")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "corpus"
    assert run(["build", "--simulated", "20", "--families", "axis", "--out", str(out), "--workers", "1"]) == 0
    return out


def one_object(text: str) -> dict:
    """The JSON object that is the whole of a text, on one line."""
    assert text.endswith("}\n")
    assert text.count("\n") == 1
    content = json.loads(text)
    assert isinstance(content, dict)
    return content


# ---------------------------------------------------------------------------------------------------------------- help


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(commands) == set(COMMANDS)
    for name in COMMANDS:
        assert f"\n  {name} " in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_says_what_it_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert len(command.help) > 20
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{name} {parameter.name}"
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert command.help.split()[0] in text
    for parameter in command.params:
        assert all(option in text for option in parameter.opts if option.startswith("--")), parameter.name


def test_every_command_is_in_the_documentation() -> None:
    folder = Path(__file__).parents[1]
    if not (folder / "docs").is_dir():
        pytest.skip("the documentation is not part of an installed copy")
    text = "".join(path.read_text() for path in (folder / "README.md", *sorted((folder / "docs").glob("*.md"))))
    assert [name for name in COMMANDS if f"synth {name}" not in text] == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ecglm 0.")


# ---------------------------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["biuld"], "biuld"),
        (["build", "--limt", "5"], "--limt"),
        (["build", "--limit", "many"], "--limit"),
        (["simulate"], "--out"),
        (["simulate", "--out", "x", "--n", "0"], "--n"),
        (["build", "--families", "poetry"], "'verify', 'choose'"),
        (["build", "--families", ""], "name at least one of verify"),
        (["build", "--sampling-hz", "250"], "100 or 500"),
        (["build", "--resume", "maybe"], "'if-possible'"),
        (["query", "corpus"], "Missing argument"),
        (["query", "corpus", "SELECT 1", "--format", "xml"], "table, json, csv, parquet"),
        (["query", "corpus", "SELECT 1", "--format", "parquet"], "--out"),
        (["plot", "record"], "--out"),
        (["plot", "record", "--out", "x.jpg"], ".png or .svg"),
        (["plot", "record", "--out", "x.png", "--gain", "7"], "2.5, 5, 10, 20, 40"),
        (["plot", "record", "--out", "x.png", "--dpi", "9"], "--dpi"),
        (["plot", "record", "--out", "x.png", "--start", "-1"], "--start"),
        (["export", "corpus"], "--out"),
        (["export", "corpus", "--out", "x", "--format", "xml"], "chat, sharegpt, alpaca"),
        (["export", "corpus", "--out", "x", "--split", "dev"], "train, validation, test"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_what_is_wrong(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert named in captured.err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    captured = capsys.readouterr()
    assert "Commands:" in captured.out + captured.err


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["build", "--ptbxl", "{}/nowhere"], "give the folder that holds"),
        (["build", "--config", "{}/nowhere.yaml"], "cannot be read"),
        (["build", "--templates", "{}"], "expected <family>/<id>.jinja"),
        (["build", "--guidelines", "{}"], "sources.yaml is missing"),
        (["preview", "verify-statment"], "verify-statement"),
        (["stats", "{}"], "synth build --out"),
        (["plot", "{}/nowhere", "--out", "{}/x.png"], "nowhere.hea: no such file; get the record again"),
        (["export", "{}", "--out", "{}/x"], "synth build --out"),
    ],
)
def test_a_handled_failure_ends_with_1_and_tells_the_remedy_on_stderr(
    arguments: list[str], remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part.replace("{}", str(tmp_path)) for part in arguments]
    if given[0] == "build":
        given += ["--out", str(tmp_path / "corpus")]
    assert run(given) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("synth: error: ")
    assert remedy in captured.err
    assert "Traceback" not in captured.err
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


def test_problems_found_by_validate_end_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sources.yaml").write_text("smith-2020: {authors: Smith A}\n")
    assert run(["validate", "--guidelines", str(tmp_path), "--json"]) == 1
    content = one_object(capsys.readouterr().out)
    assert content["violations"] == len(content["problems"]) > 0
    assert {"where", "message", "level"} <= content["problems"][0].keys()


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ecglm.synth.validate.validate", interrupted)
    assert run(["validate"]) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "interrupted" in captured.err


# ---------------------------------------------------------------------------------------------------------------- json


def a_pair(corpus: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert run(["query", str(corpus), "SELECT pair_id FROM pairs ORDER BY 1 LIMIT 1", "--format", "csv"]) == 0
    return capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (
            ["build", "--simulated", "20", "--families", "axis", "--out", "{corpus}"],
            {"pairs", "rejected", "skipped", "seconds", "content_fingerprint"},
        ),
        (["build", "--dry-run", "--out", "{tmp}/new"], {"source", "ecgs", "templates", "up_to_date"}),
        (["simulate", "--n", "2", "--out", "{tmp}/simulated"], {"out", "ecgs", "seed"}),
        (["validate"], {"guidelines", "templates", "violations", "problems"}),
        (["test", "{corpus}"], {"passed", "failed", "checks"}),
        (["stats", "{corpus}"], {"pairs", "families", "splits", "codes", "lengths", "rejected"}),
        (["why", "{corpus}", "{pair}"], {"pair", "records", "measurements", "criteria", "template", "identical"}),
        (["export", "{corpus}", "--out", "{tmp}/pairs.jsonl"], {"out", "format", "pairs"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_json_is_one_object_and_nothing_else(
    arguments: list[str], keys: set[str], corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = a_pair(corpus, capsys) if "{pair}" in arguments else ""
    given = [
        part.replace("{corpus}", str(corpus)).replace("{tmp}", str(tmp_path)).replace("{pair}", pair)
        for part in arguments
    ]
    code = run([*given, "--json"])
    captured = capsys.readouterr()
    assert code in (0, 1)
    assert keys <= one_object(captured.out).keys()
    assert captured.err == ""


def test_preview_shows_pairs_of_one_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["preview", "axis-class", "-n", "2", "--limit", "5", "--json"]) == 0
    content = one_object(capsys.readouterr().out)
    assert len(content["pairs"]) == 2
    assert {pair["template_id"] for pair in content["pairs"]} == {"axis-class"}


def test_an_unchanged_build_renders_nothing(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["build", "--simulated", "20", "--families", "axis", "--out", str(corpus), "--workers", "1", "--json"]
    assert run(arguments) == 0
    assert one_object(capsys.readouterr().out)["rendered"] == 0


# ------------------------------------------------------------------------------------------------------- query, export

SQL = "SELECT ecg_id, age_years, leads FROM ecgs ORDER BY ecg_id LIMIT 3"


def test_query_formats_hold_the_same_rows(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {}
    for name in ("table", "json", "csv"):
        assert run(["query", str(corpus), SQL, "--format", name]) == 0
        texts[name] = capsys.readouterr().out
    rows = json.loads(texts["json"])
    assert len(rows) == 3
    assert rows[0]["leads"][:3] == ["I", "II", "III"]
    read = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert [row["ecg_id"] for row in read] == [row["ecg_id"] for row in rows]
    assert json.loads(read[0]["leads"]) == rows[0]["leads"]
    assert all(row["ecg_id"] in texts["table"] for row in rows)
    for name in ("parquet", "csv", "json"):
        out = tmp_path / f"answer.{name}"
        assert run(["query", str(corpus), SQL, "--format", name, "--out", str(out)]) == 0
        assert capsys.readouterr().out == ""
    assert pq.read_table(tmp_path / "answer.parquet").to_pylist() == rows
    assert (tmp_path / "answer.csv").read_text() == texts["csv"]
    assert (tmp_path / "answer.json").read_text() == texts["json"]


def test_every_table_can_be_queried(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for table in ("ecgs", "labels", "measurements", "findings", "pairs", "rejected", "templates", "guidelines"):
        assert run(["query", str(corpus), f"SELECT count(*) AS n FROM {table}", "--format", "json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["n"] >= 0


@pytest.mark.parametrize(
    ("shape", "field"), [("chat", "messages"), ("sharegpt", "conversations"), ("alpaca", "output")]
)
def test_export_writes_one_json_object_a_line(corpus: Path, tmp_path: Path, shape: str, field: str) -> None:
    out = tmp_path / "pairs.jsonl"
    assert run(["export", str(corpus), "--format", shape, "--out", str(out), "--split", "train"]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines
    assert {line["split"] for line in lines} == {"train"}
    assert all(line[field] for line in lines)


def test_why_ends_with_0_only_if_the_pair_comes_out_the_same(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = a_pair(corpus, capsys)
    assert run(["why", str(corpus), pair]) == 0
    assert "identical, byte for byte" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------------- imports


def python(code: str) -> str:
    """What a fresh Python prints; it must end without an error."""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def without(names: Iterable[str]) -> str:
    """Code after which these modules cannot be found, as if they were not installed."""
    return (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {list(names)!r}:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )


def test_help_loads_nothing_heavy() -> None:
    code = "import sys\nfrom ecglm.synth.cli import run\nrun(['--help'])\nprint('loaded', *sys.modules)"
    loaded = {name.split(".")[0] for name in python(code).splitlines()[-1].split()}
    assert "ecglm" in loaded
    assert loaded.isdisjoint({*HEAVY, "numpy", "polars", "duckdb", "pyarrow"})


def test_no_module_imports_anything_heavy_at_its_top() -> None:
    code = (
        "import importlib, pkgutil, ecglm.synth, ecglm.guidelines, ecglm.templates\n"
        "for module in pkgutil.walk_packages(ecglm.synth.__path__, 'ecglm.synth.'):\n"
        "    importlib.import_module(module.name)"
    )
    python(without(HEAVY) + code)


def test_a_build_needs_no_pandas_matplotlib_or_torch(tmp_path: Path) -> None:
    options = ["--simulated", "5", "--families", "axis", "--workers", "1", "--out", str(tmp_path / "corpus")]
    absent = [name for name in HEAVY if name not in ("scipy", "wfdb")]
    python(without(absent) + f"from ecglm.synth.cli import run\nassert run({['build', *options]!r}) == 0")
