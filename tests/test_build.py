"""A build is whole or absent, the same bytes every time, resumable, and redoes only what changed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pyarrow.compute as pc
import pytest

from ecglm.synth.build import BuildConfig, blocks, build, plan, read_config, rendering
from ecglm.synth.build.progress import Progress
from ecglm.synth.build.workers import apart
from ecglm.synth.corpus import BUILD_LOG, Corpus
from ecglm.synth.errors import CorpusError, DefinitionError, SourceError
from ecglm.synth.schema import DEFAULT_FAMILIES, SPLIT_OF_FOLD
from ecglm.synth.templates import parse_template

SYNTH = [sys.executable, "-c", "from ecglm.synth.cli import main; main()"]
FEW = ("verify", "measurement", "knowledge")
"""Families enough to show what a test is about, few enough to be quick."""


def config(out: Path, **changes: object) -> BuildConfig:
    defaults = {"simulated": 60, "seed": 3, "workers": 1, "families": FEW, "out": out}
    return BuildConfig.model_validate({**defaults, **changes})


def bytes_of(root: Path) -> dict[str, str]:
    """Hash of every file of a corpus but its log of times."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != BUILD_LOG
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "corpus"
    build(config(out))
    return out


def test_one_and_two_workers_write_the_same_bytes(reference: Path, tmp_path: Path) -> None:
    build(config(tmp_path / "corpus", workers=2))
    assert bytes_of(tmp_path / "corpus") == bytes_of(reference)


def test_a_corpus_does_not_depend_on_how_its_ecgs_are_cut_into_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    families = ("comparison", "axis")
    whole = build(config(tmp_path / "whole", families=families))
    monkeypatch.setattr(blocks, "BLOCK_ECGS", 7)
    monkeypatch.setattr(rendering, "_AT_ONCE", 1)
    monkeypatch.setattr(rendering, "_GROUP_BLOCKS", 2)
    monkeypatch.setattr(rendering, "_VIEWS_OPEN", 1)
    monkeypatch.setattr(blocks, "_COMPARED_AT_ONCE", 2)
    cut = build(config(tmp_path / "cut", families=families))
    assert cut.content_fingerprint == whole.content_fingerprint
    compared = Corpus.open(cut.out).table("pairs").to_table(filter=pc.field("family") == "comparison")
    assert compared.num_rows > 20


def test_views_are_found_in_sql_whatever_its_case(tmp_path: Path) -> None:
    templates = copied_templates(tmp_path / "templates")
    plain = build(config(tmp_path / "plain", templates=templates, families=("axis",)))
    for path in (templates / "axis").glob("*.jinja"):
        path.write_text(re.sub(r"\b(FROM|JOIN) (facts|doubts|labels)\b", lambda m: m[0].upper(), path.read_text()))
    shouted = build(config(tmp_path / "shouted", templates=templates, families=("axis",)))
    assert shouted.pairs == plain.pairs > 0


NAMING = """---
id: axis-naming
version: 1
family: axis
question_type: free
description: Names columns in every way SQL knows.
needs: []
slots: []
answers: free
sql: |
  {sql}
---
## user
- What was measured?
## assistant
- {{{{ shown | number(2) }}}} mV.
"""


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("SELECT 1 AS shown FROM findings_of(['LNGQT'])", {"LNGQT"}),
        ("SELECT 1 AS shown FROM FINDINGS_OF (\n  ['LNGQT', 'SR'] )", {"LNGQT", "SR"}),
        (
            "SELECT 1 AS shown FROM findings_of(['SR']) AS a JOIN findings_of(['LVOLT']) AS b USING (ecg_id)",
            {"SR", "LVOLT"},
        ),
        ("SELECT 1 AS shown FROM findings_of(['SR']) AS a JOIN findings AS b USING (ecg_id)", None),
        ("SELECT 1 AS shown FROM findings_of(['SR']) AS a JOIN \"findings\" AS b USING (ecg_id)", None),
        ("SELECT 1 AS shown FROM findings_of(['S' || 'R'])", None),
        ("SELECT 1 AS shown FROM findings_of((SELECT list(code) FROM gate))", None),
        ("SELECT 1 AS shown FROM findings_of(codes := ['SR'])", None),
        ("SELECT 1 AS shown FROM (SELECT ['SR'] AS c), findings_of(c)", None),
        ("SELECT 1 AS shown FROM findings_of(['SR']) JOIN findings_of(['O''Hara']) USING (ecg_id)", None),
    ],
)
def test_a_template_is_shown_findings_of_some_statements_only_where_it_can_read_no_others(
    sql: str, statements: set[str] | None
) -> None:
    text = NAMING.format(sql=sql).replace("{{{{", "{{").replace("}}}}", "}}")
    template, violations = parse_template(text, "axis-naming.jinja", {})
    assert template is not None, violations
    assert rendering._statements_named(template) == statements


def test_findings_of_some_statements_are_those_rows(reference: Path, tmp_path: Path) -> None:
    """Whichever rows a template is shown, the macro gives the same."""
    templates = copied_templates(tmp_path / "templates")
    sql = (
        "SELECT ecg_id, criterion, evidence, evidence_text, coalesce(value, 0) AS shown FROM {} WHERE criterion <> 'x'"
    )
    for number, rows in enumerate(
        ("findings_of(['LNGQT', 'LVOLT'])", "findings_of(list_concat(['LNGQT'], ['LVOLT']))")
    ):
        text = NAMING.format(sql=sql.format(rows)).replace("slots: []", "slots: [criterion, evidence_text]")
        (templates / "axis" / f"axis-naming{number}.jinja").write_text(
            text.replace("axis-naming", f"axis-naming{number}")
        )
    built = build(config(tmp_path / "corpus", templates=templates, families=("axis",)))
    pairs = Corpus.open(built.out).table("pairs")
    few, all_of_them = (
        [(pair["ecg_ids"], pair["messages"], pair["evidence"]) for pair in pairs.to_table(filter=chosen).to_pylist()]
        for chosen in (pc.field("template_id") == f"axis-naming{number}" for number in range(2))
    )
    assert len(few) > 3 * built.ecgs
    assert few == all_of_them


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT ecg_id, coalesce("P-_Amp_V1", 0) AS shown, label_evidence AS evidence FROM facts',
        'SELECT ecg_id, coalesce("p-_amp_v1", 0) AS shown, LABEL_EVIDENCE AS evidence FROM FACTS',
        "SELECT f.*, coalesce(COLUMNS('^P-_Amp_V1$'), 0) AS shown, label_evidence AS evidence FROM facts AS f",
        'SELECT *, coalesce("P-_Amp_V1", 0) AS shown, label_evidence AS evidence FROM facts',
    ],
)
def test_a_template_finds_every_column_that_it_names(tmp_path: Path, sql: str) -> None:
    templates = copied_templates(tmp_path / "templates")
    (templates / "axis" / "axis-naming.jinja").write_text(NAMING.format(sql=sql))
    built = build(config(tmp_path / "corpus", templates=templates, families=("axis",)))
    pairs = Corpus.open(built.out).table("pairs").to_table(filter=pc.field("template_id") == "axis-naming").to_pylist()
    assert len(pairs) == built.ecgs
    assert all(pair["messages"][1]["content"].endswith(" mV.") for pair in pairs)
    assert all(pair["evidence"] for pair in pairs)
    assert all(bool(pair["codes"]) == ("*" in sql) for pair in pairs), "facts.codes is a column of pairs too"


def test_the_manifest_knows_every_file_and_its_hash(reference: Path) -> None:
    manifest = Corpus.open(reference).manifest
    found = bytes_of(reference)
    del found["manifest.json"]
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == found


def test_a_manifest_holds_no_clock_and_no_path(reference: Path) -> None:
    text = (reference / "manifest.json").read_text()
    assert str(reference.parent) not in text
    assert time.strftime("%Y-%m-%d") not in text


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.9, 1.6, 2.4, 3.2, 4.0, 5.0])
def test_a_build_killed_at_any_moment_resumes_to_the_same_bytes(reference: Path, tmp_path: Path, delay: float) -> None:
    out = tmp_path / "corpus"
    command = [*SYNTH, "build", "--simulated", "60", "--seed", "3", "--families", ",".join(FEW), "--out", str(out)]
    process = subprocess.Popen([*command, "--workers", "2"], start_new_session=True)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if out.exists():
        Corpus.open(out)
    build(config(out))
    assert bytes_of(out) == bytes_of(reference)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_nothing_changed_nothing_rendered(reference: Path) -> None:
    before = bytes_of(reference)
    result = build(config(reference))
    assert result.rendered == 0
    assert bytes_of(reference) == before


def copied_templates(folder: Path) -> Path:
    import ecglm.templates

    shutil.copytree(Path(ecglm.templates.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    return folder


def test_one_template_changed_only_its_files_are_written(tmp_path: Path) -> None:
    templates = copied_templates(tmp_path / "templates")
    out = tmp_path / "corpus"
    build(config(out, templates=templates))
    before = {path: path.stat().st_ino for path in (out / "pairs").rglob("*.parquet")}
    chosen = templates / "verify" / "verify-statement.jinja"
    chosen.write_text(chosen.read_text().replace("version: 1", "version: 2", 1))
    result = build(config(out, templates=templates))
    assert result.rendered == 1
    changed = {p.name for p in (out / "pairs").rglob("*.parquet") if before.get(p) != p.stat().st_ino}
    assert changed == {"verify-statement-000.parquet"}


def test_a_pair_keeps_its_id_when_its_wording_is_edited(tmp_path: Path) -> None:
    templates = copied_templates(tmp_path / "templates")
    first, second = tmp_path / "first", tmp_path / "second"
    build(config(first, templates=templates, families=("knowledge",)))
    for path in (templates / "knowledge").glob("*.jinja"):
        path.write_text(path.read_text().replace("?\n", " please?\n"))
    build(config(second, templates=templates, families=("knowledge",)))
    ids = [
        Corpus.open(out).table("pairs").to_table(columns=["pair_id", "content_hash"]).sort_by("pair_id")
        for out in (first, second)
    ]
    assert ids[0]["pair_id"].to_pylist() == ids[1]["pair_id"].to_pylist()
    assert ids[0]["content_hash"].to_pylist() != ids[1]["content_hash"].to_pylist()


def test_splits_follow_the_folds_and_no_patient_is_in_two(reference: Path) -> None:
    ecgs = Corpus.open(reference).table("ecgs").to_table().to_pylist()
    assert {SPLIT_OF_FOLD[row["strat_fold"]] for row in ecgs} == {"train", "validation", "test"}
    splits: dict[str, set[str]] = {}
    for row in ecgs:
        assert row["split"] == SPLIT_OF_FOLD[row["strat_fold"]]
        splits.setdefault(row["patient_id"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_a_template_without_its_tables_is_skipped_and_said_so(tmp_path: Path) -> None:
    result = build(config(tmp_path / "corpus", simulated=1, families=("comparison", "knowledge")))
    assert result.skipped
    assert set(result.skipped.values()) == {"needs comparisons"}
    rows = Corpus.open(result.out).table("templates").to_table().to_pylist()
    assert {row["template_id"] for row in rows if row["status"] == "skipped"} == set(result.skipped)


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    planned = plan(config(tmp_path / "corpus"))
    assert planned.ecgs == 60
    assert planned.templates
    assert list(tmp_path.iterdir()) == []


def test_resume_always_says_when_there_is_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nothing to resume"):
        build(config(tmp_path / "corpus", resume="always"))


def test_a_folder_that_is_no_corpus_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(CorpusError, match="not a corpus"):
        build(config(tmp_path / "thesis"))
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"


def test_two_builds_into_one_folder_at_once(tmp_path: Path) -> None:
    import fcntl

    work = tmp_path / ".corpus.building"
    work.mkdir()
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CorpusError, match="another build"):
            build(config(tmp_path / "corpus"))


def test_ctrl_c_ends_with_130_and_the_next_build_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    command = [*SYNTH, "build", "--simulated", "400", "--families", ",".join(DEFAULT_FAMILIES), "--out", str(out)]
    process = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE, text=True, start_new_session=True)
    time.sleep(2.5)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "interrupted" in error
    assert "Traceback" not in error
    assert not out.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tiny disk needs root")
def test_a_full_disk_is_said_plainly_and_leaves_the_old_corpus(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a tiny disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        out = disk / "corpus"
        build(config(out, simulated=5, families=("knowledge",)))
        before = bytes_of(out)
        for workers in (1, 2):
            with pytest.raises(CorpusError, match="no space left"):
                build(config(out, simulated=400, workers=workers))
            assert bytes_of(out) == before
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limt: 5\n", "limt"),
        ("limit: many\n", "limit"),
        ("limit: 0\n", "limit"),
        ("families: [verify, poetry]\n", "families"),
        ("families: []\n", "families"),
        ("- a list\n", "expected"),
        ("limit: 5\nlimit: 6\n", "twice"),
        ("sampling_hz: 250\n", "sampling_hz"),
        ("resume: maybe\n", "resume"),
    ],
)
def test_each_mistake_in_build_yaml_names_the_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "build.yaml"
    path.write_text(text)
    with pytest.raises(DefinitionError, match=message) as error:
        read_config(path)
    assert "build.yaml" in str(error.value)


def test_options_go_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "build.yaml"
    path.write_text("limit: 5\nseed: 9\n")
    merged = read_config(path, limit=7)
    assert (merged.limit, merged.seed) == (7, 9)


def test_json_is_one_object_with_the_promised_keys(tmp_path: Path) -> None:
    command = [*SYNTH, "build", "--simulated", "20", "--families", "verify", "--out", str(tmp_path / "c"), "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    content = json.loads(answer.stdout)
    assert {"pairs", "rejected", "skipped", "seconds", "content_fingerprint"} <= content.keys()
    assert content["pairs"] > 0


def _counted(tell: Progress, upto: int) -> int:
    for number in range(1, upto + 1):
        tell("counting", number, upto)
    if upto > 3:
        raise SourceError(f"{upto} are too many; give 3")
    return os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_runs_apart_tells_its_progress_and_its_error(workers: int) -> None:
    told: list[tuple[str, int, int]] = []
    with apart(workers, lambda *step: told.append(step), _counted, 3) as result:
        there = result()
    assert told == [("counting", number, 3) for number in (1, 2, 3)]
    assert (there == os.getpid()) == (workers == 1), "one worker is this process"
    if workers > 1:
        with pytest.raises(ProcessLookupError):
            os.kill(there, 0)
    with pytest.raises(SourceError, match="4 are too many"), apart(workers, lambda *step: None, _counted, 4) as result:
        result()


def _busy(tell: Progress, mark: Path) -> None:
    try:
        tell("busy", 0, 1)
        time.sleep(60)
    finally:
        mark.write_text("cleared")


def test_what_runs_apart_clears_up_when_the_build_fails_meanwhile(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    def stop(*step: object) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), apart(2, stop, _busy, mark) as result:
        result()
    assert mark.read_text() == "cleared"
    assert time.monotonic() - started < 30


def _killed(tell: Progress) -> None:
    tell("killed", 0, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_is_killed_apart_is_told_like_any_worker() -> None:
    with pytest.raises(CorpusError, match="was killed"), apart(2, lambda *step: None, _killed) as result:
        result()


def _variable(tell: Progress) -> str | None:
    return os.environ.get("ECGLM_CACHE")


def test_what_runs_apart_has_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("/first", "/second"):
        monkeypatch.setenv("ECGLM_CACHE", value)
        with apart(2, lambda *step: None, _variable) as result:
            assert result() == value


def test_ctrl_c_does_not_reach_what_workers_are_forked_from() -> None:
    script = """
import os
from pathlib import Path
from ecglm.synth.processes import start_early

start_early()
server = max(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))  # started last
print(next(line for line in Path(f"/proc/{server}/status").read_text().splitlines() if "SigBlk" in line))
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(told.removeprefix("SigBlk:"), 16) & 1 << signal.SIGINT - 1


def test_what_runs_apart_need_not_be_waited_for() -> None:
    with apart(2, lambda *step: None, _counted_for_long):
        pass


def _counted_for_long(tell: Progress) -> None:
    for number in range(100_000):  # more than a pipe holds
        tell("counting", number, 100_000)


def test_a_mistake_in_a_template_costs_nothing_that_is_finished(tmp_path: Path) -> None:
    config = BuildConfig(simulated=30, out=tmp_path / "corpus", workers=1)

    def stopped(stage: str, done: int, of: int) -> None:
        if stage == "rendering templates" and done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(config, stopped)
    finished = tmp_path / ".corpus.building" / "blocks" / "00000" / "block.json"
    assert finished.is_file()
    templates = tmp_path / "templates"
    shutil.copytree(Path(str(resources.files("ecglm.templates"))), templates)
    broken = sorted(templates.glob("verify/*.jinja"))[0]
    broken.write_text(broken.read_text(encoding="utf-8") + "{{ oops", encoding="utf-8")
    with pytest.raises(DefinitionError):
        build(config.model_copy(update={"templates": templates}))
    assert finished.is_file()
