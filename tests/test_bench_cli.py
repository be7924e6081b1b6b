"""The `bench` command line as scripts rely on it: help, exit codes, one JSON object on stdout, errors with a remedy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main

from ecglm.bench.cli import app, run
from ecglm.bench.published import published
from ecglm.bench.task import METRICS, builtin_tasks, parse_task

COMMANDS = ("list", "show", "run", "score", "compare", "leaderboard", "validate")
HEAVY = ("torch", "transformers", "sklearn", "scipy", "matplotlib", "wfdb", "pandas", "polars", "numpy", "duckdb")


@pytest.fixture(scope="module")
def runs(simulated_bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `a` (majority) and `b` (random) of one task."""
    base = tmp_path_factory.mktemp("cli")
    for name, model in (("a", "majority"), ("b", "random")):
        arguments = ["run", "--model", model, "--task", "ptbxl-superdiagnostic", "--out", str(base / name)]
        assert run([*arguments, "--ptbxl", str(simulated_bench / "ecgs"), "--resamples", "50"]) == 0
    return base


def one_object(text: str) -> dict:
    """The JSON object that is the whole of a text, on one line."""
    assert text.endswith("}\n")
    assert text.count("\n") == 1
    content = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert isinstance(content, dict)
    return content


def test_help_names_every_command_and_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(commands) == set(COMMANDS)
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    for name, command in commands.items():
        assert f"\n  {name} " in text
        assert len(command.help) > 20
        assert [p.name for p in command.params if p.param_type_name == "option" and not p.help] == []
        assert run([name, "--help"]) == 0


def test_every_command_and_task_is_in_the_documentation() -> None:
    folder = Path(__file__).parents[1]
    if not (folder / "docs").is_dir():
        pytest.skip("the documentation is not part of an installed copy")
    text = "".join(path.read_text() for path in (folder / "README.md", folder / "docs" / "bench.md"))
    assert [name for name in COMMANDS if f"bench {name}" not in text] == []
    assert [path.stem for path in builtin_tasks().glob("*.yaml") if path.stem not in text] == []
    assert [name for names in METRICS.values() for name in names if f"`{name}`" not in text] == []


def test_help_list_and_validate_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom ecglm.bench.cli import run\nassert run(['--help']) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


def test_bench_and_models_do_not_import_each_other() -> None:
    folder = Path(__file__).parents[1] / "bench"
    if not folder.is_dir():
        pytest.skip("needs the checkout these tests are part of")
    assert [path for path in folder.rglob("*.py") if "import ecglm.models" in path.read_text()] == []
    assert [path for path in folder.rglob("*.py") if "from ecglm.models" in path.read_text()] == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["rnu"], "rnu"),
        (["run"], "--model"),
        (["run", "--model", "random"], "--task"),
        (["run", "--model", "random", "--task", "ptbxl-form"], "--out"),
        (["run", "--model", "random", "--task", "ptbxl-form", "--out", "x", "--limit", "0"], "--limit"),
        (["run", "--model", "random", "--task", "ptbxl-form", "--out", "x", "--ask", "nicely"], "statement, list"),
        (["run", "--model", "random", "--task", "ptbxl-form", "--out", "x", "--option", "seed"], "name=value"),
        (["score"], "either a run or --arrays"),
        (["score", "--arrays", "x"], "--task"),
        (["compare", "x"], "SECOND"),
        (["leaderboard"], "RUNS"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_what_is_wrong(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert named in captured.err


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["run", "--model", "orcale", "--task", "ptbxl-form", "--out", "{}/r", "--ptbxl", "{}"], "did you mean oracle"),
        (["run", "--model", "oracle", "--task", "ptbxl-from", "--out", "{}/r"], "did you mean ptbxl-form"),
        (["run", "--model", "oracle", "--task", "ptbxl-form", "--out", "{}/r"], "give its folder with --ptbxl"),
        (["run", "--model", "oracle", "--task", "ecgqa", "--out", "{}/r"], "give its folder with --ecgqa"),
        (["run", "--model", "oracle", "--task", "ptbxl-form", "--out", "{}/r", "--ptbxl", "{}"], "scp_statements.csv"),
        (["score", "{}"], "bench run --out"),
        (["score", "--arrays", "{}", "--task", "ptbxl-form"], "preds.npy and targs.npy"),
        (["compare", "{}", "{}"], "bench run --out"),
        (["show", "ptbxl-al"], "did you mean ptbxl-all"),
        (["list", "--tasks", "{}/nowhere"], "not a folder"),
    ],
)
def test_a_handled_failure_ends_with_1_and_tells_the_remedy_on_stderr(
    arguments: list[str], remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([part.replace("{}", str(tmp_path)) for part in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("bench: error: ")
    assert remedy in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["list"], {"tasks", "models"}),
        (["show", "ptbxl-all"], {"id", "version", "fingerprint", "metrics", "published"}),
        (["show", "ptbxl-form", "--ptbxl", "{ecgs}"], {"about", "examples"}),
        (["validate"], {"tasks", "figures", "violations", "problems"}),
        (["score", "{runs}/b", "--resamples", "20"], {"model", "settings", "tasks"}),
        (["compare", "{runs}/a", "{runs}/b", "--resamples", "20"], {"first", "second", "tasks"}),
        (["leaderboard", "{runs}/a", "{runs}/b", "--resamples", "20"], {"tasks", "settings"}),
        (
            [
                "run",
                "--model",
                "random",
                "--task",
                "ptbxl-rhythm",
                "--ptbxl",
                "{ecgs}",
                "--out",
                "{tmp}/r",
                "--limit",
                "2",
            ],
            {"out", "asked", "reused", "seconds", "tasks"},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_json_is_one_object_and_nothing_else(
    arguments: list[str],
    keys: set[str],
    runs: Path,
    simulated_bench: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    places = {"{runs}": runs, "{ecgs}": simulated_bench / "ecgs", "{tmp}": tmp_path}
    given = []
    for part in arguments:
        for name, place in places.items():
            part = part.replace(name, str(place))
        given.append(part)
    assert run([*given, "--json"]) == 0
    captured = capsys.readouterr()
    assert keys <= one_object(captured.out).keys()
    assert captured.err == ""


def test_arrays_give_the_figures_of_the_task_at_the_top_of_the_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(1)
    targets = draw.random((300, 71)) < 0.2
    np.save(tmp_path / "targs.npy", targets)
    np.save(tmp_path / "preds.npy", np.clip(targets * 0.3 + draw.random((300, 71)) * 0.7, 0, 1))
    assert run(["score", "--arrays", str(tmp_path), "--task", "ptbxl-all", "--json"]) == 0
    content = one_object(capsys.readouterr().out)
    assert 0.5 < content["macro_auc"] < 1
    assert 0.2 < content["fmax"] < 1
    assert run(["score", "--arrays", str(tmp_path), "--task", "ptbxl-all"]) == 0
    text = capsys.readouterr().out
    assert "test-set maximum" in text
    assert "Strodthoff et al. 2021" in text


def test_tables_show_what_a_score_needs_beside_it(
    runs: Path, simulated_bench: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["score", str(runs / "b"), "--resamples", "20", "--classes"]) == 0
    text = capsys.readouterr().out
    for words in (
        "unparsed",
        "const.",
        "test-set maximum",
        "one per class, the best F1 on fold 9",
        "published, not measured",
    ):
        assert words in text
    about = json.loads((runs / "b" / "scores.json").read_text())["tasks"]["ptbxl-superdiagnostic"]["about"]
    counts = ", ".join(f"{row['class']} {row['positives']['test']['presence']}" for row in about["classes"])
    assert [row["class"] for row in about["classes"]] == ["CD", "HYP", "MI", "NORM", "STTC"]
    assert f"5 classes in order, with test positives by presence: {counts}" in text
    rare = [row["class"] for row in about["classes"] if row["positives"]["test"]["presence"] < 10]
    assert rare
    assert f"'at least 10 positives' by presence, {len(rare)} classes: {', '.join(rare)}" in text
    assert "trained on 0.0 % of the" in text
    assert "sensitivity" in text
    data = ["--ptbxl", str(simulated_bench / "ecgs"), "--ecgqa", str(simulated_bench / "ecgqa")]
    tasks = ["--task", "ecgqa", "--task", "measurements"]
    assert run(["run", "--model", "random", *tasks, *data, "--out", str(tmp_path / "q"), "--resamples", "20"]) == 0
    text = capsys.readouterr().out
    for words in (
        "unweighted mean of types",
        "official",
        "clean",
        "candidates_argmax",
        "of the official 82,146",
        "track clean: trained on 0.0 % of the",
        "within, strict",
    ):
        assert words in text
    assert run(["compare", str(runs / "a"), str(runs / "b"), "--resamples", "20"]) == 0
    assert "McNemar" in capsys.readouterr().out
    assert run(["leaderboard", str(runs / "a"), str(runs / "b"), "--resamples", "20"]) == 0
    assert "cannot be told apart" in capsys.readouterr().out


def test_validate_names_every_problem_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (builtin_tasks() / "ptbxl-form.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("id: ptbxl-form", "id: mine").replace("fmax", "fmux"))
    (tmp_path / "broken.yaml").write_text("id: [")
    assert run(["validate", "--tasks", str(tmp_path), "--json"]) == 1
    content = one_object(capsys.readouterr().out)
    messages = [problem["message"] for problem in content["problems"]]
    assert len(messages) == 2
    assert any("unknown metric 'fmux', did you mean fmax?" in message for message in messages)


def test_published_figures_are_of_known_tasks_and_say_what_limits_them() -> None:
    for figure in published().values():
        assert len(figure.caveat) > 20
        assert {f"{task}.yaml" for task in figure.values} <= {path.name for path in builtin_tasks().iterdir()}


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ecglm.bench.task.read_tasks", interrupted)
    assert run(["validate"]) == 130
    assert "interrupted" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- documentation


def blocks(language: str) -> list[str]:
    path = Path(__file__).parents[1] / "docs" / "bench.md"
    if not path.is_file():
        pytest.skip("the documentation is not part of an installed copy")
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", [0, 1])
def test_the_models_in_the_documentation_work_and_are_short(
    number: int, tmp_path: Path, simulated_bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = blocks("python")[number]
    assert len(block.splitlines()) <= 24
    module, target = re.match(r'"""(\w+)\.py: bench run --model python:([\w:]+)', block).groups()  # type: ignore[union-attr]
    (tmp_path / f"{module}.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "--model", f"python:{target}", "--task", "ptbxl-superdiagnostic", "--out", "run"]
    assert run([*arguments, "--ptbxl", str(simulated_bench / "ecgs"), "--limit", "4", "--resamples", "0"]) == 0
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())["tasks"]["ptbxl-superdiagnostic"]
    assert scores["failed"] == 0
    assert scores["unparsed"]["strict"] in (0.0, None)


def test_the_task_in_the_documentation_is_valid() -> None:
    (block,) = blocks("yaml")
    assert parse_task(block, "the example").task.headline == "f1_macro"
