"""Bad input through the command line: exit 1, words that name file, field and remedy, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from ecglm.synth.cli import run
from ecglm.synth.corpus import Corpus
from ecglm.synth.schema import LEADS
from ecglm.synth.sources.simulator import simulate

N_ECGS = 16

GUIDELINE_SOURCES = 'smith-2020: {authors: "Smith A, Jones B", title: T, journal: J, year: 2020, doi: 10.1000/abc}\n'
GUIDELINE = """
code: SR
name: sinus rhythm
phrase: sinus rhythm
kinds: [rhythm]
definition: It beats from the sinus node.
meaning: It matters.
pitfalls: Beware.
criteria:
  - id: rate
    role: supporting
    text: ventricular rate above 60/min
    sql: HR__Global > $lower
    limits:
      lower: {of: HR__Global, is: ">", value: 60, unit: /min}
    cite: {source: smith-2020, section: page 1}
cites: [{source: smith-2020, section: page 1}]
verified: document
"""
TEMPLATE = """---
id: rate
version: 1
family: measurement
question_type: single-query
description: The rate.
needs: [facts]
answers: free
sql: |
  SELECT ecg_id, rate_text FROM facts WHERE rate_text IS NOT NULL
---
## user
- What is the ventricular rate?
## assistant
- It is {{ rate_text }}.
"""


class Workshop:
    """A PTB-XL folder, guidelines and templates, all small and sound until a test spoils one of them."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str] | None = None) -> None:
        self.capsys = capsys
        self.ptbxl, self.out = root / "ptbxl", root / "made" / "corpus"
        self.guidelines, self.templates = root / "guidelines", root / "templates"
        self.out.parent.mkdir()
        (self.guidelines / "rhythm").mkdir(parents=True)
        (self.guidelines / "sources.yaml").write_text(GUIDELINE_SOURCES)
        self.guideline = self.guidelines / "rhythm" / "SR.yaml"
        self.guideline.write_text(GUIDELINE)
        (self.templates / "measurement").mkdir(parents=True)
        self.template = self.templates / "measurement" / "rate.jinja"
        self.template.write_text(TEMPLATE)

    def build(self, *options: str) -> tuple[int, str]:
        """Exit code and what was said on stderr."""
        folders = {"--ptbxl": self.ptbxl, "--guidelines": self.guidelines, "--templates": self.templates}
        given = [str(part) for pair in folders.items() for part in pair]
        return self.synth("build", *given, "--out", str(self.out), "--workers", "1", *options)

    def synth(self, *arguments: str) -> tuple[int, str]:
        code = run([str(argument) for argument in arguments])
        return code, self.capsys.readouterr().err if self.capsys else ""

    def is_refused(self, *named: str, remedy: str) -> None:
        """The build ends with 1, names all of these and a remedy on stderr, and leaves nothing at --out."""
        code, error = self.build()
        assert code == 1
        assert error.startswith("synth: error: ")
        for words in (*named, remedy):
            assert words in error, error
        assert "Traceback" not in error
        assert not self.out.exists()

    def rejected(self) -> dict[str, list[tuple[str, str]]]:
        """ECG → (reason, detail) of what the corpus rejected before rendering."""
        rows = Corpus.open(self.out).table("rejected").to_table().to_pylist()
        found: dict[str, list[tuple[str, str]]] = {}
        for row in rows:
            found.setdefault(row["ecg_ids"][0], []).append((row["reason"], row["detail"]))
        return found

    def database(self, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        path = self.ptbxl / "ptbxl_database.csv"
        change(pl.read_csv(path, infer_schema=False)).write_csv(path)

    def set_cell(self, ecg_id: int, column: str, value: str) -> None:
        chosen = pl.col("ecg_id") == str(ecg_id)
        self.database(lambda t: t.with_columns(pl.when(chosen).then(pl.lit(value)).otherwise(column).alias(column)))

    def header(self, ecg_id: int) -> Path:
        return self.ptbxl / f"records100/00000/{ecg_id:05d}_lr.hea"

    def edit_header(self, ecg_id: int, before: str, after: str) -> None:
        path = self.header(ecg_id)
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    def set_samples(self, ecg_id: int, lead: str, samples: dict[int, int] | int) -> None:
        """Overwrites samples of one lead (all of them with an int), and mends checksum and first value."""
        data = self.header(ecg_id).with_suffix(".dat")
        values = list(struct.unpack("<12000h", data.read_bytes()))
        place = LEADS.index(lead)
        chosen = dict.fromkeys(range(1000), samples) if isinstance(samples, int) else samples
        for sample, value in chosen.items():
            values[12 * sample + place] = value
        data.write_bytes(struct.pack("<12000h", *values))
        lines = self.header(ecg_id).read_text().splitlines()
        fields = lines[1 + place].split()
        fields[5], fields[6] = str(values[place]), str(sum(values[place::12]) % 65536)
        lines[1 + place] = " ".join(fields)
        self.header(ecg_id).write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated ECGs that pass for PTB-XL: without the mark of the simulator and its measurements."""
    root = tmp_path_factory.mktemp("pristine") / "ptbxl"
    simulate(root, N_ECGS, 1)
    (root / "SIMULATED.json").unlink()
    shutil.rmtree(root / "features")
    return root


@pytest.fixture
def workshop(tmp_path: Path, pristine: Path, capsys: pytest.CaptureFixture[str]) -> Workshop:
    shutil.copytree(pristine, tmp_path / "ptbxl")
    return Workshop(tmp_path, capsys)


def test_the_workshop_is_sound(workshop: Workshop) -> None:
    assert workshop.build() == (0, "")
    assert Corpus.open(workshop.out).manifest["counts"]["ecgs"] == N_ECGS
    assert [path.name for path in workshop.out.parent.iterdir()] == ["corpus"]


# ------------------------------------------------------------------------------------------------------------ metadata


def test_no_folder(workshop: Workshop) -> None:
    shutil.rmtree(workshop.ptbxl)
    workshop.is_refused(str(workshop.ptbxl), remedy="give the folder that holds ptbxl_database.csv")


@pytest.mark.parametrize("name", ["ptbxl_database.csv", "scp_statements.csv"])
def test_a_metadata_file_is_missing(workshop: Workshop, name: str) -> None:
    (workshop.ptbxl / name).unlink()
    workshop.is_refused(str(workshop.ptbxl / name), "no such file", remedy="download PTB-XL again")


@pytest.mark.parametrize("name", ["ptbxl_database.csv", "scp_statements.csv"])
def test_a_metadata_file_is_empty(workshop: Workshop, name: str) -> None:
    (workshop.ptbxl / name).write_text("")
    workshop.is_refused(str(workshop.ptbxl / name), "empty", remedy="download it again")


def test_the_database_is_cut_short(workshop: Workshop) -> None:
    path = workshop.ptbxl / "ptbxl_database.csv"
    path.write_bytes(path.read_bytes()[:-40])
    workshop.is_refused(str(path), "truncated", remedy="download it again")


def test_a_column_is_missing(workshop: Workshop) -> None:
    workshop.database(lambda table: table.drop("strat_fold"))
    workshop.is_refused("ptbxl_database.csv", "strat_fold", remedy="use the official file unchanged")


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("scp_codes", "{'NORM': 100.0, 'SR'", "statements as"),
        ("scp_codes", "__import__('os').system('true')", "statements as"),
        ("scp_codes", "{'NROM': 100.0}", "a code that scp_statements.csv lists"),
        ("scp_codes", "{'NORM': 180.0}", "a likelihood from 0 to 100"),
        ("scp_codes", "{'SR': 0.0, 'SR': 0.0}", "each code once"),
        ("strat_fold", "11", "a whole number from 1 to 10"),
        ("age", "-4", "0 to 120 years"),
        ("sex", "2", "0 (male), 1 (female)"),
        ("recording_date", "yesterday", "YYYY-MM-DD"),
        ("heart_axis", "NORTH", "MID"),
        ("filename_lr", "../../../etc/passwd", "files outside the folder are never opened"),
    ],
)
def test_a_cell_is_not_what_it_should_be(workshop: Workshop, column: str, value: str, expected: str) -> None:
    workshop.set_cell(5, column, value)
    workshop.is_refused("ptbxl_database.csv", f"column {column}", "ecg_id 5", expected, remedy="correct")


def test_an_ecg_appears_twice(workshop: Workshop) -> None:
    workshop.database(lambda table: pl.concat([table, table[4:5]]))
    workshop.is_refused("ptbxl_database.csv", "column ecg_id", "'5'", "each ECG once", remedy="keep one of the rows")


def test_a_patient_is_in_two_folds(workshop: Workshop) -> None:
    workshop.set_cell(1, "patient_id", "777.0")
    workshop.set_cell(2, "patient_id", "777.0")
    workshop.set_cell(1, "strat_fold", "1")
    workshop.set_cell(2, "strat_fold", "10")
    workshop.is_refused("column strat_fold", "patient 777", "folds 1 and 10", remedy="give them the same fold")


def test_all_bad_cells_are_told_at_once(workshop: Workshop) -> None:
    workshop.set_cell(3, "sex", "9")
    workshop.set_cell(5, "age", "old")
    workshop.set_cell(7, "scp_codes", "{'NROM': 100.0}")
    workshop.is_refused("column sex", "ecg_id 3", "column age", "ecg_id 5", "'NROM'", "ecg_id 7", remedy="correct")


# ----------------------------------------------------------------------------------------------------------- waveforms


SPOILED_HEADERS = {
    # ECG: what its header says, what it says now, the reason given, what the detail names
    1: (" AVR\n", " V9\n", "lead_names_differ", "V9"),
    2: (" 12 100 1000\n", " 12 100 900\n", "truncated", "expected 21600"),
    3: (" 12 100 1000\n", " 12 500 1000\n", "sampling_rate_differs", "500"),
    4: (" 1000.0(0)/mV", " 0(0)/mV", "gain_missing", "gain"),
    5: (" 12 100 1000\n", " 11 100 1000\n", "header_invalid", "number of signals"),
    6: ("00006_lr.dat", "../../../secret.dat", "header_outside_folder", "name a file beside it"),
    7: ("00007_lr.dat", "{secret}", "header_outside_folder", "name a file beside it"),
    8: ("00008_lr.dat", "..\\secret.dat", "header_outside_folder", "name a file beside it"),
    9: (" I\n", " II\n", "lead_names_differ", "II, II, III"),
}


@pytest.fixture(scope="module")
def put_aside(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A finished build of a folder in which most records are spoiled, each in its own way."""
    root = tmp_path_factory.mktemp("spoiled")
    shutil.copytree(pristine, root / "ptbxl")
    workshop = Workshop(root)
    os.mkfifo(root / "secret.dat")  # whoever opens it waits for ever
    for number, (before, after, _, _) in SPOILED_HEADERS.items():
        workshop.edit_header(number, before, after.replace("{secret}", str(root / "secret.dat")))
    data = workshop.header(10).with_suffix(".dat")
    content = bytearray(data.read_bytes())
    content[5000] ^= 0x01
    data.write_bytes(bytes(content))
    workshop.header(11).with_suffix(".dat").unlink()
    workshop.header(12).unlink()
    workshop.set_samples(13, "V3", dict.fromkeys(range(300, 420), -32768))
    workshop.set_samples(14, "V2", 0)
    workshop.set_samples(15, "V1", -32768)
    assert workshop.build()[0] == 0
    return workshop


@pytest.mark.parametrize("number", SPOILED_HEADERS)
def test_a_header_that_differs_puts_its_ecg_aside(put_aside: Workshop, number: int) -> None:
    *_, reason, named = SPOILED_HEADERS[number]
    ((found, detail),) = put_aside.rejected()[f"ptbxl:{number}"]
    assert found == reason
    assert named in detail
    assert f"{number:05d}_lr" in detail
    assert ";" in detail, "a remedy follows"


@pytest.mark.parametrize(
    ("number", "reason"), [(10, "damaged_checksum"), (11, "missing_waveform"), (12, "missing_waveform")]
)
def test_a_damaged_or_missing_waveform_puts_its_ecg_aside(put_aside: Workshop, number: int, reason: str) -> None:
    ((found, detail),) = put_aside.rejected()[f"ptbxl:{number}"]
    assert found == reason
    assert f"{number:05d}_lr" in detail
    assert ";" in detail, "a remedy follows"


def test_the_other_ecgs_are_built(put_aside: Workshop) -> None:
    ecgs = Corpus.open(put_aside.out).table("ecgs").to_table()["ecg_id"].to_pylist()
    assert ecgs == [f"ptbxl:{number}" for number in range(13, N_ECGS + 1)]


def test_missing_samples_and_a_flat_lead_are_noted_and_leave_values_out(put_aside: Workshop) -> None:
    rejected = put_aside.rejected()
    assert [(reason, detail[:2]) for reason, detail in rejected["ptbxl:13"]] == [("nan_samples", "V3")]
    assert [(reason, detail[:2]) for reason, detail in rejected["ptbxl:14"]] == [("flat_lead", "V2")]
    assert ("nan_samples", "V1") in [(reason, detail[:2]) for reason, detail in rejected["ptbxl:15"]]
    table = Corpus.open(put_aside.out).table("measurements").to_table().to_pylist()
    measured = {row["ecg_id"]: row for row in table}
    assert measured["ptbxl:14"]["R_Amp_V2"] is None
    assert measured["ptbxl:14"]["R_Amp_V3"] is not None
    assert measured["ptbxl:15"]["QRS_AmpPP_V1"] is None
    assert measured["ptbxl:15"]["HR__Global"] is not None


def test_no_usable_waveform_at_all(workshop: Workshop) -> None:
    for number in range(1, N_ECGS + 1):
        workshop.edit_header(number, " AVR\n", " V9\n")
    workshop.is_refused(str(workshop.ptbxl), "no ECG has a usable waveform", "00001_lr.hea", remedy="correct")


def test_no_waveform_folder_at_all(workshop: Workshop) -> None:
    shutil.rmtree(workshop.ptbxl / "records100")
    workshop.is_refused(str(workshop.ptbxl), "filename_lr", remedy="unpack the records100 or records500 folder")


# ----------------------------------------------------------------------------------------------------------- templates


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{{ rate_text", "syntax error"),
        ("{% if rate_text %}x", "syntax error"),
        ("{{ rate_txt }}", "rate_txt"),
        (
            "{% for a in rate_text %}{% for b in range(1000000000) %}{{ b }}{% endfor %}{% endfor %}",
            "loop",
        ),
        ("{{ 'x' * 1000000000 }}", "Mul is not allowed"),
        ("{{ '%1000000000d' % 1 }}", "Mod is not allowed"),
        ("{{ rate_text|center(1000000000) }}", "filter 'center' is not allowed"),
        ("{{ rate_text.__class__.__mro__ }}", "attribute"),
        ("{{ self._TemplateReference__context }}", "not allowed"),
        ("{% include '/etc/passwd' %}", "Include is not allowed"),
    ],
)
def test_a_template_that_is_wrong_or_could_do_harm(workshop: Workshop, text: str, named: str) -> None:
    workshop.template.write_text(TEMPLATE.replace("It is {{ rate_text }}.", text))
    code, error = workshop.build()
    assert code == 1
    assert "rate" in error
    assert named in error
    assert "Traceback" not in error
    assert not workshop.out.exists()
    code = run(["validate", "--guidelines", str(workshop.guidelines), "--templates", str(workshop.templates)])
    told = workshop.capsys.readouterr().out
    assert code == 1
    assert "templates/measurement/rate.jinja" in told
    assert named in told


def test_a_gigabyte_of_output_is_stopped(workshop: Workshop) -> None:
    sql = "SELECT ecg_id, list_transform(range(3000), lambda n: repeat('x', 100)) AS rate_text FROM facts"
    looped = "{% for a in rate_text %}{% for b in rate_text %}{{ a }}{{ b }}{% endfor %}{% endfor %}"
    text = TEMPLATE.replace("SELECT ecg_id, rate_text FROM facts WHERE rate_text IS NOT NULL", sql)
    workshop.template.write_text(text.replace("It is {{ rate_text }}.", looped))
    workshop.is_refused("template rate", "64 kB", remedy="a loop or a field is too long")


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("DROP TABLE facts", "exactly one SELECT"),
        ("COPY facts TO '{outside}'", "exactly one SELECT"),
        ("SELECT 1 AS ecg_id; DELETE FROM facts", "exactly one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "files, network and settings cannot be reached"),
        ("SELECT content AS ecg_id FROM read_text('/etc/passwd')", "files, network and settings cannot be reached"),
        ("SELECT ecg_id, no_such_column AS rate_text FROM facts", "no_such_column"),
        ("SELEKT ecg_id FROM facts", "cannot be parsed"),
    ],
)
def test_sql_of_a_template_that_writes_reads_files_or_is_wrong(
    workshop: Workshop, tmp_path: Path, sql: str, named: str
) -> None:
    outside = tmp_path / "outside.csv"
    sql = sql.replace("{outside}", str(outside))
    workshop.template.write_text(
        TEMPLATE.replace("SELECT ecg_id, rate_text FROM facts WHERE rate_text IS NOT NULL", sql)
    )
    workshop.is_refused("template rate", "sql", named, remedy="")
    assert not outside.exists()


# ---------------------------------------------------------------------------------------------------------------- YAML


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("code: SR", "code: SR\ncode: AFIB", "line 3: key 'code' appears twice"),
        ("definition: It", "definition: &it It", "anchors and aliases are not allowed"),
        (
            "pitfalls: Beware.",
            "pitfalls: Beware.\na: &a [x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]",
            "anchors and aliases are not allowed",
        ),
        ("kinds: [rhythm]", "kinds: [rhythm", "line"),
        ("meaning: It matters.", "meaning: !!python/object/apply:os.system ['true']", "python"),
        (
            "sql: HR__Global > $lower",
            "sql: (SELECT max(x) FROM read_csv('/etc/passwd') t(x)) > $lower",
            "criterion rate",
        ),
        ("sql: HR__Global > $lower", "sql: HR__Global > $lower) FROM ecgs; DROP TABLE ecgs; --", "criterion rate"),
    ],
)
def test_a_guideline_file_that_is_wrong_or_could_do_harm(
    workshop: Workshop, before: str, after: str, named: str
) -> None:
    workshop.guideline.write_text(GUIDELINE.replace(before, after))
    workshop.is_refused("guidelines/rhythm/SR.yaml", named, remedy="")


def test_a_configuration_with_an_unknown_field(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "build.yaml").write_text("limt: 5\n")
    code, error = workshop.build("--config", str(tmp_path / "build.yaml"))
    assert code == 1
    assert "build.yaml" in error
    assert "limt" in error
    assert not workshop.out.exists()


# ------------------------------------------------------------------------------------------------------------- corpora


@pytest.fixture(scope="module")
def finished(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    workshop = Workshop(root)
    workshop.ptbxl = pristine
    assert workshop.build()[0] == 0
    return workshop.out


@pytest.fixture
def corpus(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "copied")
    return tmp_path / "copied"


COMMANDS = [["query", "{}", "SELECT 1"], ["test", "{}"], ["stats", "{}"], ["why", "{}", "abc"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_folder_that_is_no_corpus(workshop: Workshop, tmp_path: Path, command: list[str]) -> None:
    for folder in (tmp_path / "nowhere", workshop.ptbxl):
        code, error = workshop.synth(*(part.replace("{}", str(folder)) for part in command))
        assert code == 1
        assert str(folder) in error
        assert "manifest.json" in error
        assert "synth build --out" in error


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_corpus_with_a_file_cut_short(workshop: Workshop, corpus: Path, command: list[str]) -> None:
    path = corpus / "labels.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    code, error = workshop.synth(*(part.replace("{}", str(corpus)) for part in command))
    assert code == 1
    assert "labels.parquet" in error
    assert "build the corpus again" in error


def test_a_corpus_with_a_changed_byte_fails_its_tests(workshop: Workshop, corpus: Path) -> None:
    (path,) = (corpus / "pairs").rglob("*train*/*.parquet")
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(bytes(content))
    code = run(["test", str(corpus), "--json"])
    captured = workshop.capsys.readouterr()
    assert code == 1, "a changed file is found"
    if captured.out:
        failed = {row["name"]: row for row in json.loads(captured.out)["checks"] if row["n_bad"]}
        assert "file-sha256" in failed
    else:
        assert path.name in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema_version": "0", "files": {}}', '{"schema_version": "1", "files": []}']
)
def test_a_corpus_with_a_damaged_manifest(workshop: Workshop, corpus: Path, text: str) -> None:
    (corpus / "manifest.json").write_text(text)
    code, error = workshop.synth("stats", str(corpus))
    assert code == 1
    assert "manifest.json" in error
    assert "build the corpus again" in error


def test_a_build_over_a_damaged_corpus_makes_a_sound_one(workshop: Workshop) -> None:
    assert workshop.build() == (0, "")
    before = Corpus.open(workshop.out).manifest
    path = workshop.out / "labels.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    assert workshop.build() == (0, "")
    assert Corpus.open(workshop.out).manifest == before


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("DROP TABLE pairs", "exactly one SELECT"),
        ("COPY pairs TO '{outside}'", "exactly one SELECT"),
        ("SELECT 1; SELECT 2", "exactly one SELECT"),
        ("", "exactly one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "cannot be reached from SQL"),
        ("SELECT * FROM '/etc/passwd'", "passwd"),
        ("ATTACH '{outside}'", "exactly one SELECT"),
        ("SELECT no_such_column FROM pairs", "no_such_column"),
        ("SELEKT 1", "cannot be parsed"),
    ],
)
def test_a_query_that_writes_reads_files_or_is_wrong(
    workshop: Workshop, finished: Path, tmp_path: Path, sql: str, named: str
) -> None:
    outside = tmp_path / "outside.parquet"
    code, error = workshop.synth("query", str(finished), sql.replace("{outside}", str(outside)))
    assert code == 1
    assert named in error
    assert not outside.exists()


def test_a_query_that_never_ends(workshop: Workshop, finished: Path) -> None:
    sql = "SELECT count(*) FROM range(100000000000) a, range(1000) b"
    code, error = workshop.synth("query", str(finished), sql, "--timeout", "1")
    assert code == 1
    assert "longer than 1 s" in error
    assert "make it smaller" in error


def test_a_template_whose_query_never_ends_is_stopped(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    from ecglm.synth import database

    monkeypatch.setattr(database.LockedConnection.__init__, "__kwdefaults__", KEYWORDS | {"timeout_s": 1.0})
    sql = (
        "SELECT ecg_id, 'x' AS rate_text FROM facts WHERE (SELECT count(*) FROM range(100000000000) a, range(9) b) > 0"
    )
    workshop.template.write_text(
        TEMPLATE.replace("SELECT ecg_id, rate_text FROM facts WHERE rate_text IS NOT NULL", sql)
    )
    workshop.is_refused("template rate", "longer than 1 s", remedy="make it smaller")


KEYWORDS = {"setup": (), "memory_limit": "1GB", "threads": 1}


def test_a_pair_that_is_not_there(workshop: Workshop, finished: Path) -> None:
    code, error = workshop.synth("why", str(finished), "no-such-pair")
    assert code == 1
    assert "no-such-pair" in error
    assert "synth query" in error, "says how to list some"


@pytest.mark.parametrize("out", ["{}/ptbxl", "{}/ptbxl/ptbxl_database.csv", "/dev/null/corpus"])
def test_an_output_folder_that_is_taken_or_cannot_be_written(workshop: Workshop, tmp_path: Path, out: str) -> None:
    before = sorted(path.name for path in workshop.ptbxl.iterdir())
    workshop.out = Path(out.replace("{}", str(tmp_path)))
    code, error = workshop.build()
    assert code == 1
    assert "--out" in error
    assert sorted(path.name for path in workshop.ptbxl.iterdir()) == before
