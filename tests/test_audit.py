"""`synth audit` counts as a confusion matrix does, says what disagrees and how far, and writes the same bytes again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import confusion_matrix

from ecglm.synth.audit import AuditConfig, audit
from ecglm.synth.audit.disagreements import CONTRADICTED, UNSUPPORTED, disagreeing, disagreement_table
from ecglm.synth.audit.judged import MET, NOT_ASSESSABLE, NOT_MET, Judged, Rulebook, judge
from ecglm.synth.audit.rates import criteria_table, patient_bootstrap
from ecglm.synth.audit.standing import Labels, read_standing
from ecglm.synth.cli import run
from ecglm.synth.errors import CorpusError
from ecglm.synth.guidelines import load_guidelines
from ecglm.synth.schema import AUDIT_CRITERIA, AUDIT_DISAGREEMENTS, ECGS, LABELS

FILES = ("audit.json", "criteria.parquet", "disagreements.parquet", "index.html")
GUIDELINE = """\
code: {code}
name: {code} of the test
phrase: {code}
kinds: [diagnostic]
definition: A definition.
meaning: A meaning.
pitfalls: None.
overlaps: {overlaps}
{rest}
cites: [{{source: book, section: one}}]
verified: textbook knowledge
"""
LONG_PR = """\
criteria:
  - id: pr-long
    role: defining
    text: PR interval longer than 200 ms
    sql: PR_Int_Global > $upper
    limits: {upper: {of: PR_Int_Global, is: ">", value: 200, unit: ms}}
    cite: {source: book, section: one}
  - id: rate-slow
    role: supporting
    text: rate below 60/min
    sql: HR__Global < $upper
    limits: {upper: {of: HR__Global, is: "<", value: 60, unit: /min}}
    population: {sex: male}
    cite: {source: book, section: two}
"""
NO_RULE = "criteria: none\nno_criteria: {reason: none is known, cite: {source: book, section: one}}"

# patient, fold, sex, PR, rate, label of AVB1, label of OTHER
ECG_ROWS: list[tuple[str, int, str, float | None, float | None, str | None, str | None]] = [
    ("a", 1, "male", 240.0, 50.0, "certain", None),  # both met
    ("a", 1, "male", 220.0, 70.0, "probable", None),  # the supporting one is not
    ("b", 2, "male", 180.0, 50.0, "possible", None),  # the defining one is not
    ("c", 2, "female", 260.0, 50.0, "certain", None),  # supporting outside its population
    ("d", 9, "male", None, 50.0, "stated", None),  # not assessable
    ("e", 3, "male", 230.0, 55.0, None, None),  # met, not labelled
    ("f", 3, "male", 225.0, 40.0, None, "certain"),  # met, but something covers it
    ("g", 10, "male", 150.0, 65.0, None, None),
    ("h", 10, "male", 160.0, 80.0, None, "certain"),
    ("i", 4, "male", 250.0, 45.0, "not_excluded", None),  # left out
    ("j", 4, "male", 140.0, 90.0, "unknown", None),  # left out
]


@pytest.fixture(scope="module")
def rulebook(tmp_path_factory: pytest.TempPathFactory) -> Rulebook:
    root = tmp_path_factory.mktemp("guidelines")
    (root / "conduction").mkdir()
    source = "book: {authors: Author A, title: Title, journal: Journal, year: 2000, doi: 10.1000/1}\n"
    (root / "sources.yaml").write_text(source)
    for code, overlaps, rest in (("AVB1", "[OTHER]", LONG_PR), ("OTHER", "[]", NO_RULE)):
        text = GUIDELINE.format(code=code, overlaps=overlaps, rest=rest)
        (root / "conduction" / f"{code}.yaml").write_text(text)
    return Rulebook.of(load_guidelines(root))


@pytest.fixture(scope="module")
def ecgs() -> pa.Table:
    rows = [
        {
            "ecg_id": f"test:{number}",
            "patient_id": f"test:{patient}",
            "sex": sex,
            "strat_fold": fold,
            "split": {9: "validation", 10: "test"}.get(fold, "train"),
            "baseline_drift": ["V1"] if number == 5 else None,
        }
        for number, (patient, fold, sex, *_) in enumerate(ECG_ROWS)
    ]
    return pa.Table.from_pylist(rows, schema=ECGS)


@pytest.fixture(scope="module")
def labels() -> pa.Table:
    likelihood = {"certain": 100.0, "probable": 80.0, "possible": 50.0, "not_excluded": 15.0, "unknown": 0.0}
    rows = [
        {"ecg_id": f"test:{number}", "code": code, "certainty": certainty, "likelihood": likelihood.get(certainty)}
        for number, row in enumerate(ECG_ROWS)
        for code, certainty in (("AVB1", row[5]), ("OTHER", row[6]))
        if certainty is not None
    ]
    return pa.Table.from_pylist(rows, schema=LABELS)


@pytest.fixture(scope="module")
def judged(ecgs: pa.Table, rulebook: Rulebook) -> Judged:
    measured = {"ecg_id": ecgs["ecg_id"], **{n: pa.array([r[p] for r in ECG_ROWS], pa.float64()) for n, p in MEASURED}}
    return judge("measured", pa.table(measured), ecgs, rulebook)


MEASURED = (("PR_Int_Global", 3), ("HR__Global", 4))


@pytest.fixture(scope="module")
def standing(ecgs: pa.Table, labels: pa.Table, rulebook: Rulebook, judged: Judged) -> Labels:
    return read_standing(ecgs, labels, rulebook.guidelines, judged)


def test_a_statement_needs_its_defining_criteria_and_one_that_supports(judged: Judged) -> None:
    wanted = [MET, NOT_MET, NOT_MET, NOT_ASSESSABLE, NOT_ASSESSABLE, MET, MET, NOT_MET, NOT_MET, MET, NOT_MET]
    assert judged.statements[:, 0].tolist() == wanted
    assert np.flatnonzero(judged.contradicted[:, 0]).tolist() == [2, 7, 8, 10]


def test_the_counts_are_those_of_a_confusion_matrix(
    judged: Judged, standing: Labels, ecgs: pa.Table, rulebook: Rulebook
) -> None:
    bootstrap = patient_bootstrap(ecgs, 200, 0)
    rows = criteria_table(judged, standing, ecgs, rulebook, bootstrap).to_pylist()
    by_key = {(row["criterion"], row["folds"]): row for row in rows}
    row = by_key["pr-long", "all"]
    counted = [number for number, row in enumerate(ECG_ROWS) if row[5] not in ("not_excluded", "unknown") and row[3]]
    truth = [ECG_ROWS[number][5] is not None for number in counted]
    verdict = [(ECG_ROWS[number][3] or 0) > 200 for number in counted]
    (tn, fp), (fn, tp) = confusion_matrix(truth, verdict).tolist()
    found = [row[name] for name in ("true_negative", "false_positive", "false_negative", "true_positive")]
    assert found == [tn, fp, fn, tp] == [2, 2, 1, 3]
    assert (row["sensitivity"], row["specificity"], row["ppv"]) == (tp / (tp + fn), tn / (tn + fp), tp / (tp + fp))
    assert row["specificity_clear"] == 1 / 2  # g against e: f and h are covered by OTHER
    assert row["not_assessable_rate"] == 1 / 9
    assert [row[f"n_{each}"] for each in ("positive", "negative", "not_excluded", "unknown")] == [5, 4, 1, 1]
    assert 0 <= row["sensitivity_low"] < row["sensitivity"] < row["sensitivity_high"] <= 1
    of_certain = next(entry for entry in row["by_certainty"] if entry["certainty"] == "certain")
    assert of_certain == {"certainty": "certain", "met": 2, "not_met": 0, "not_assessable": 0}
    for name in ("true_positive", "false_positive", "n_positive", "n_ecgs"):
        assert row[name] == by_key["pr-long", "1-8"][name] + by_key["pr-long", "9-10"][name]
    assert by_key["pr-long", "9-10"]["sensitivity"] is None  # nothing to divide by, and not zero
    assert by_key[None, "all"]["true_positive"] == 1
    assert by_key["rate-slow", "all"]["not_assessable_rate"] == 1 / 9


def test_intervals_are_quantiles_over_resampled_patients(
    judged: Judged, standing: Labels, ecgs: pa.Table, rulebook: Rulebook
) -> None:
    bootstrap = patient_bootstrap(ecgs, 200, 0)
    rows = criteria_table(judged, standing, ecgs, rulebook, bootstrap).to_pylist()
    row = next(row for row in rows if (row["criterion"], row["folds"]) == ("pr-long", "all"))
    shares = []
    for number in range(200):
        times = bootstrap.draws(number)[bootstrap.index]
        met = sum(times[[0, 1, 3]])
        assessed = met + times[2]
        if assessed:
            shares.append(met / assessed)
    low, high = np.quantile(shares, [0.025, 0.975])
    assert (row["sensitivity_low"], row["sensitivity_high"]) == pytest.approx((low, high))


def test_disagreements_say_what_was_measured_and_how_far_off(
    judged: Judged, standing: Labels, ecgs: pa.Table, labels: pa.Table, rulebook: Rulebook
) -> None:
    rows = disagreement_table(judged, standing, ecgs, labels, rulebook).to_pylist()
    assert {row["ecg_id"]: row["kind"] for row in rows} == {
        "test:1": "unsupported",
        "test:2": "contradicted",
        "test:5": "suggested",
    }
    assert [row["strength"] for row in rows] == sorted((row["strength"] for row in rows), reverse=True)
    contradicted = next(row for row in rows if row["kind"] == "contradicted")
    pr = next(each for each in contradicted["criteria"] if each["criterion"] == "pr-long")
    assert pr["evidence"] == [{"name": "PR_Int_Global", "value": 180.0, "unit": "ms", "limit": "> 200 ms"}]
    assert pr["evidence_text"] == "PR interval 180 ms (limit > 200 ms)"
    assert (pr["verdict"], pr["citation"]) == ("not_met", "Author 2000, one")
    known = [row[3] for row in ECG_ROWS if row[3] is not None]
    low, high = np.quantile(known, [0.025, 0.975])
    assert contradicted["strength"] == pytest.approx(20 / ((high - low) / 4))
    assert (contradicted["certainty"], contradicted["likelihood"], contradicted["labels"]) == ("possible", 50, ["AVB1"])
    quiet = [(code, rule.model_copy(update={"suggests": False})) for code, rule in rulebook.rules]
    kinds = disagreeing(judged, standing, dataclasses.replace(rulebook, rules=tuple(quiet)))
    assert sorted(kinds[kinds >= 0].tolist()) == [CONTRADICTED, UNSUPPORTED], "what suggests nothing is not listed"
    suggested = next(row for row in rows if row["kind"] == "suggested")
    assert suggested["strength"] == min(each["strength"] for each in suggested["criteria"])
    assert suggested["noted"] == ["baseline_drift"]


# ----------------------------------------------------------------------------------------------- the command as a whole


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audit") / "simulated"
    audit(AuditConfig(simulated=120, seed=4, workers=1, out=out))
    return out


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / f"{name}.parquet").to_pylist()
    return rows


def test_where_the_truth_is_known_no_definition_is_broken(simulated: Path) -> None:
    """The simulator makes a statement exactly where its rule holds."""
    rows = [row for row in rows_of(simulated, "criteria") if row["provider"] == "simulated" and row["folds"] == "all"]
    defining = [row for row in rows if row["role"] == "defining" and row["n_positive"] - row["false_negative"] > 0]
    assert {"1AVB", "CLBBB", "SBRAD", "STACH", "AXIS_LEFT"} <= {row["code"] for row in defining}
    assert {row["code"]: row["sensitivity"] for row in defining if row["sensitivity"] != 1} == {}
    kinds = [row["kind"] for row in rows_of(simulated, "disagreements") if row["provider"] == "simulated"]
    assert "contradicted" not in kinds


def test_an_audit_is_whole(simulated: Path) -> None:
    assert sorted(path.name for path in simulated.iterdir()) == sorted(FILES)
    assert pq.read_schema(simulated / "criteria.parquet") == AUDIT_CRITERIA
    assert pq.read_schema(simulated / "disagreements.parquet") == AUDIT_DISAGREEMENTS
    manifest = json.loads((simulated / "audit.json").read_text())
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((simulated / name).read_bytes()).hexdigest() == entry["sha256"]
    rows = rows_of(simulated, "criteria")
    assert {row["provider"] for row in rows} == {"simulated", "measured"} == set(manifest["providers"])
    rules = load_guidelines().by_code.values()
    assert manifest["counts"]["criteria"] == sum(len(guideline.rules) for guideline in rules)
    assert len(rows) == 2 * 3 * (manifest["counts"]["criteria"] + manifest["counts"]["statements"])
    for row in rows:
        counted = sum(row[f"n_{each}"] for each in ("positive", "negative", "not_excluded", "unknown", "no_label"))
        assert counted == row["n_ecgs"]


def test_every_column_is_documented() -> None:
    folder = Path(__file__).parents[1] / "docs"
    if not folder.is_dir():
        pytest.skip("the documentation is not part of an installed copy")
    documented = set(re.findall(r"`(\w+)`", (folder / "audit.md").read_text()))
    columns = {*AUDIT_CRITERIA.names, *AUDIT_DISAGREEMENTS.names}
    assert {column.removesuffix("_low").removesuffix("_high") for column in columns} <= documented


def test_the_page_needs_nothing_else(simulated: Path) -> None:
    page = (simulated / "index.html").read_text()
    assert "Labels are not the truth" in page
    assert "<script" not in page
    assert "src=" not in page.replace('src="data:', "")
    assert "url(" not in page
    assert "@import" not in page
    assert "None" not in page.replace("None of", "")
    for row in rows_of(simulated, "criteria"):
        assert row["criterion_text"] is None or row["citation"] in page.replace("&#39;", "'").replace("&amp;", "&")
    assert page.count('class="forest"') > 30
    assert page.count('class="values"') > 5


def test_the_same_inputs_give_the_same_bytes(simulated: Path, tmp_path: Path) -> None:
    audit(AuditConfig(simulated=120, seed=4, workers=2, out=tmp_path / "again"))
    for name in FILES:
        assert (simulated / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_the_command_says_what_it_found_and_keeps_what_is_not_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "audit"
    assert run(["audit", "--simulated", "20", "--out", str(out), "--workers", "1", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["ecgs"] == 20
    assert set(content["disagreements"]) == {"simulated", "measured"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(CorpusError, match="not an audit"):
        audit(AuditConfig(simulated=20, workers=1, out=tmp_path / "mine"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit", "mine"]
