"""The dataset card: a README.md whose front matter lets `datasets.load_dataset(FOLDER)` read a corpus offline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ecglm.synth.corpus import CARD, TABLES, read_parquet, table_path
from ecglm.synth.schema import OPTIONAL_TABLES, SPLITS

_LICENCE_IDS = {
    "cc by 4.0": "cc-by-4.0",
    "cc-by-4.0": "cc-by-4.0",
    "cc0-1.0": "cc0-1.0",
    "cc0 1.0": "cc0-1.0",
    "mit": "mit",
    "apache-2.0": "apache-2.0",
}
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_SIMULATED_LIMIT = """\
- The ECGs are computed, of no patient: good for trying things out and for tests against a known truth, not for training
  a model that is meant to read real ECGs.
"""
_SOURCE_TITLES = {"ptbxl": "PTB-XL", "simulated": "simulated ECGs", "wfdb": "WFDB records"}


def write_card(root: Path, manifest: Mapping[str, Any]) -> None:
    """Writes README.md into a corpus folder; the same manifest and tables give the same bytes."""
    (root / CARD).write_text(card_text(root, manifest), encoding="utf-8")


def card_text(root: Path, manifest: Mapping[str, Any]) -> str:
    """The card of a corpus folder whose tables are written."""
    columns = ["template_id", "family", "question_type", "status", "status_detail", "n_rows", "n_pairs", "n_rejected"]
    templates = read_parquet(table_path(root, "templates"), [*columns, "n_capped"]).to_pylist()
    splits = _pairs_by_split(manifest)
    front = yaml.safe_dump(_front_matter(manifest, splits), sort_keys=False, allow_unicode=True, width=120)
    sections = (
        _opening(manifest, splits),
        _counts(manifest, templates, splits),
        _reading(manifest),
        _split_rule(manifest),
        _provenance(manifest),
        _templates(templates),
        _rejected(manifest),
        _sources(manifest),
        _limits(manifest),
        _citing(manifest),
    )
    return f"---\n{front}---\n\n" + "\n\n".join(section.strip() for section in sections) + "\n"


def _front_matter(manifest: Mapping[str, Any], splits: Mapping[str, int]) -> dict[str, Any]:
    n_pairs = sum(splits.values())
    licences = sorted({source["licence"] for source in manifest["attribution"]})
    known = {_LICENCE_IDS.get(licence.lower(), "other") for licence in licences}
    licence = known.pop() if len(known) == 1 else "other"
    configs = [
        {
            "config_name": "default",
            "default": True,
            "data_files": [
                {"split": split, "path": f"pairs/split={split}/*.parquet"} for split in SPLITS if splits[split]
            ],
        }
    ]
    configs += [
        {"config_name": table, "data_files": [{"split": table, "path": table_path(Path(), table).name}]}
        for table in (*TABLES, *OPTIONAL_TABLES)
        if table != "pairs" and manifest["counts"].get(table)
    ]
    return {
        "pretty_name": f"ECG instruction pairs from {_source_title(manifest)}",
        "language": ["en"],
        "license": licence,
        **({"license_name": ", ".join(licences)} if licence == "other" else {}),
        "task_categories": ["question-answering", "text-generation"],
        "size_categories": [next((name for limit, name in _SIZES if n_pairs < limit), "n>10M")],
        "tags": ["ecg", "electrocardiogram", "cardiology", "medical", "instruction-tuning", "ecglm"],
        "configs": configs if n_pairs else configs[1:],
    }


def _source_title(manifest: Mapping[str, Any]) -> str:
    source: str = manifest["config"]["source"]
    return _SOURCE_TITLES.get(source, source)


def _pairs_by_split(manifest: Mapping[str, Any]) -> dict[str, int]:
    splits = dict.fromkeys(SPLITS, 0)
    for name, entry in manifest["files"].items():
        if name.startswith("pairs/"):
            splits[name.split("/")[1].removeprefix("split=")] += entry["rows"]
    return splits


def _opening(manifest: Mapping[str, Any], splits: Mapping[str, int]) -> str:
    counts = manifest["counts"]
    kind = "ECGs" if manifest["config"]["source"] == "wfdb" else "12-lead ECGs"
    return f"""
# ECG instruction pairs from {_source_title(manifest)}

{sum(splits.values()):,} question-and-answer conversations in English about {counts["ecgs"]:,} {kind}. Every
answer follows from what the source annotated or from what was measured on the waveform, and every limit it quotes is
cited. Nothing was written by a language model: the pairs come from templates whose rows are selected by SQL from
annotations, measurements and guideline criteria.

Made by ecglm {manifest["versions"].get("ecglm", "")}, corpus schema {manifest["schema_version"]},
content fingerprint `{manifest["content_fingerprint"]}`.
"""


def _counts(manifest: Mapping[str, Any], templates: Sequence[Mapping[str, Any]], splits: Mapping[str, int]) -> str:
    by_family: dict[str, dict[str, int]] = {}
    family_of = {row["template_id"]: row["family"] for row in templates}
    for entry in manifest["templates"]:
        row = by_family.setdefault(family_of[entry["template_id"]], dict.fromkeys(SPLITS, 0))
        for name, file in entry["files"].items():
            row[name.split("/")[1].removeprefix("split=")] += file["rows"]
    rows = [
        [family, *(f"{of_split[split]:,}" for split in SPLITS), f"{sum(of_split.values()):,}"]
        for family, of_split in sorted(by_family.items())
    ]
    rows.append(["**all**", *(f"{splits[split]:,}" for split in SPLITS), f"{sum(splits.values()):,}"])
    return "## What is inside\n\n" + _table(["family", *SPLITS, "all"], rows)


def _reading(manifest: Mapping[str, Any]) -> str:
    tables = [name for name in TABLES if name != "pairs" and manifest["counts"].get(name)]
    shown = ", ".join(f"`{name}` ({manifest['counts'][name]:,} rows)" for name in tables)
    where = (
        "The waveforms are in the folder `simulated/`, WFDB records in the layout of PTB-XL."
        if manifest["config"]["source"] == "simulated"
        else "The waveforms are not part of the corpus: get them from the source named below."
    )
    return f"""
## How to read it

```python
from datasets import load_dataset

pairs = load_dataset("path/to/this/folder")
ecgs = load_dataset("path/to/this/folder", "ecgs")["ecgs"]
```

Each row of a pair holds `messages` (a list of `role` and `content`, user and assistant in turn), the short `answers`,
the `options` of a choice, and the ECGs it is about in `ecg_ids`, oldest first. Pairs of the family `knowledge` are
about no ECG. `ecgs.signal_path` leads from an ECG to its waveform, relative to the folder of the source. {where}

The other tables are further configurations: {shown}.

`synth query FOLDER SQL` asks the corpus in SQL, `synth test FOLDER` runs its data tests, and
`synth why FOLDER PAIR_ID` shows what stands behind one pair.
"""


def _split_rule(manifest: Mapping[str, Any]) -> str:
    return """
## Splits

The split of an ECG is that of its stratified fold in the source: folds 1–8 train, 9 validation, 10 test. All ECGs of a
patient are in one fold, so no patient is in two splits. A pair about two ECGs exists only where both belong to the same
split. Pairs of general knowledge are in train only: what they say is not tested on held-out patients.
"""


def _provenance(manifest: Mapping[str, Any]) -> str:
    return """
## Provenance of every pair

| column | what it says |
|---|---|
| `pair_id` | hash of source, ECGs, template, the row it was made from and the wording chosen; never of the text |
| `content_hash` | hash of the messages |
| `ecg_ids`, `patient_ids`, `strat_folds` | whose recordings the pair is about |
| `codes` | statements the pair is about, as the source codes them |
| `evidence` | values the answer rests on: name, value, unit, and the limit they were compared with |
| `guideline_ids` | guidelines behind the pair; their texts and references are in `guidelines` |
| `template_id`, `template_hash`, `variant` | the template, its version, and which wording of each turn was chosen |

`manifest.json` lists the SHA-256 of every file, the fingerprints of all inputs and the versions of the libraries.
"""


def _templates(templates: Sequence[Mapping[str, Any]]) -> str:
    built = [
        [
            f"`{row['template_id']}`",
            row["family"],
            row["question_type"],
            f"{row['n_pairs']:,}",
            f"{row['n_rejected']:,}",
            f"{row['n_capped']:,}",
        ]
        for row in templates
        if row["status"] == "built"
    ]
    skipped = [
        [f"`{row['template_id']}`", row["status_detail"] or ""] for row in templates if row["status"] == "skipped"
    ]
    left_out = [f"`{row['template_id']}`" for row in templates if row["status"] == "not_selected"]
    text = "## Templates\n\n" + _table(
        ["template", "family", "question type", "pairs", "rejected rows", "rows beyond the cap per ECG"], built
    )
    if skipped:
        text += "\n\nSkipped, because the source lacks what they need:\n\n" + _table(["template", "reason"], skipped)
    if left_out:
        text += f"\n\nNot selected for this build: {', '.join(left_out)}."
    return text


def _rejected(manifest: Mapping[str, Any]) -> str:
    reasons: Mapping[str, int] = manifest["rejected_reasons"]
    if not reasons:
        return "## What was rejected\n\nNothing."
    rows = [
        [reason.replace("_", " "), f"{count:,}"]
        for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    ]
    return (
        "## What was rejected\n\nRows that would have made a doubtful pair, and records that could not be used. Each is"
        " kept in the table `rejected`, with its ECGs, its template and the reason:\n\n"
        + _table(["reason", "rows"], rows)
    )


def _sources(manifest: Mapping[str, Any]) -> str:
    lines = []
    for source in manifest["attribution"]:
        name = " ".join(part for part in (source["name"], source["version"]) if part)
        link = f" <https://doi.org/{source['doi']}>" if source["doi"] else ""
        citation = f" {source['citation'].rstrip('.')}." if source["citation"] else ""
        lines.append(f"- **{name}**, licence {source['licence']}.{citation}{link}")
    return (
        "## Sources and licences\n\n"
        + "\n".join(lines)
        + "\n\nThe pairs are derived from these sources and are under the same licence: name the source when you share"
        " them. Changes made: statements, measurements and reports were worded as questions and answers. Guideline"
        " texts are in ecglm's own words under Apache-2.0; the publications they rest on are in"
        " `guideline_sources.yaml`."
    )


def _limits(manifest: Mapping[str, Any]) -> str:
    simulated = manifest["config"]["source"] == "simulated"
    return f"""
## Intended use and limits

For training and testing models that read ECGs, and for research on such models. **Not for clinical use**: neither the
corpus nor a model trained on it may guide the care of a patient.

- Statements are true *as annotated*. Annotations carry the errors and the habits of their annotators; some were never
  validated by a second person. Where a measurement contradicts a statement by its definition, no pair asserts the
  statement; some pairs are about the disagreement itself.
- That a statement is absent means that it was not annotated and that nothing annotated implies it, not that it was
  excluded by an examination. Absence is asserted sparingly.
- Measured values come from an algorithm on a short recording, not from a cardiologist's calipers.
- Criteria are published rules in short form. They hold for the populations their sources studied, and most were
  derived in adults.
- Ages over 89 are not given; recording dates are not printed.
- The wording is limited to the templates: variety of language is far below that of real questions.
{_SIMULATED_LIMIT if simulated else ""}"""


def _citing(manifest: Mapping[str, Any]) -> str:
    cited = [source["citation"].rstrip(".") for source in manifest["attribution"] if source["citation"]]
    own = (
        f"ecglm {manifest['versions'].get('ecglm', '')}, corpus `{manifest['content_fingerprint']}` "
        f"({_source_title(manifest)})"
    )
    return "## How to cite\n\n" + "\n".join(f"- {entry}." for entry in [*cited, own])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
