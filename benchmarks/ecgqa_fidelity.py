"""Answers the official questions of ECG-QA at hand as the family ecgqa does, and compares, template by template.

    python benchmarks/ecgqa_fidelity.py --official ECGQA_DIR --ptbxl DIR --ptbxl-plus measured

Nothing of ECG-QA's answers enters ours: noise is read from PTB-XL's notes, intervals are measured. A question that the
family would not ask (a note that names no lead, an interval not measured or without limits for a child) counts as not
answered, not as agreement.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ecglm.bench.ecgqa import open_ecgqa
from ecglm.synth.build import BuildConfig
from ecglm.synth.build.blocks import block_ranges
from ecglm.synth.build.extras import chosen_providers, read_extras
from ecglm.synth.build.inputs import ecgs_table, open_source
from ecglm.synth.ecgqa import attributes, derive_ecgqa
from ecglm.synth.facts import merge_measurements, views_of
from ecglm.synth.guidelines import load_guidelines
from ecglm.synth.schema import LABELS

NOISE = re.compile(r"Does this ECG show (?P<noise>.+?)(?: in lead (?P<lead>\S+))?\?")
QTC_OF_THE_ORIGINAL = (330.0, 430.0 / 0.6**0.5)
"""ms: its limits of QT, corrected by Bazett at the ends of its normal range of the RR interval."""

FEWEST = 4
"""Intervals that must have been judged on both ECGs, as the templates have it: P waves may be absent."""

Answer = set[str] | None


@dataclass
class Tally:
    """Official rows of one template, or of one interval in it."""

    n: int = 0
    answered: int = 0
    agree: int = 0

    def add(self, theirs: set[str], ours: Answer) -> None:
        self.n += 1
        if ours is None:
            return
        self.answered += 1
        self.agree += theirs == ours

    def as_dict(self) -> dict[str, Any]:
        share = self.agree / self.answered if self.answered else None
        return {"n": self.n, "answered": self.answered, "agree": self.agree, "agreement": share}


def ecg_rows(ptbxl: Path, ptbxl_plus: list[Path], wanted: set[str]) -> dict[str, dict[str, Any]]:
    """ECG → its row of the view `ecgqa`, made as a build makes it."""
    config = BuildConfig(ptbxl=ptbxl, ptbxl_plus=tuple(ptbxl_plus))
    source = open_source(config, ptbxl)
    extras = read_extras(config.ptbxl_plus, source)
    frames = {name: frame.collect().to_arrow() for name, frame in {**source.providers, **extras.providers}.items()}
    if extras.measured is not None:
        frames["measured"] = extras.measured.values()
    order = [name for name in chosen_providers(None, [*source.providers], [*extras.providers]) if name in frames]
    guidelines = load_guidelines()
    every = ecgs_table(source)
    every = every.filter(pc.is_in(every["ecg_id"], pa.array(sorted(wanted))))
    labels = source.labels.collect().to_arrow().select(LABELS.names).cast(LABELS)
    rows = {}
    for _, start, stop in block_ranges(every.num_rows):
        ecgs = every.slice(start, stop - start)
        ids = ecgs["ecg_id"].combine_chunks()
        tables = [(name, _of(frames[name], ids)) for name in order]
        merged = merge_measurements(ecgs, tables, pa.array(range(start, stop), pa.int64()))
        views = views_of(merged, _of(labels, ids), guidelines)
        for row in derive_ecgqa(views, guidelines, None).to_pylist():
            rows[row["ecg_id"]] = row
    return rows


def _of(table: pa.Table, ids: pa.Array) -> pa.Table:
    named = table.set_column(table.column_names.index("ecg_id"), "ecg_id", table["ecg_id"].cast(pa.string()))
    return named.filter(pc.is_in(named["ecg_id"], ids))


def noise_answer(question: str, row: Mapping[str, Any]) -> Answer:
    """Templates 26 to 28: yes or no; None where a note names no lead and a lead is asked about."""
    found = NOISE.fullmatch(question)
    if found is None:
        raise SystemExit(f"not a question about noise: {question}")
    columns = {name: column for column, name in attributes().noises.items()}
    leads = row["noisy_leads"] if found["noise"] == "any kind of noises" else row[columns[found["noise"]]]
    if found["lead"] is None:
        return {"yes" if leads else "no"}
    if found["lead"] in leads:
        return {"yes"}
    return None if "lead_unknown" in leads else {"no"}


def features_answer(template: int, first: Mapping[str, Any], second: Mapping[str, Any]) -> Answer:
    """Templates 68 to 70: intervals that became normal, became abnormal, stayed abnormal."""
    before = first["normal_features" if template == 69 else "abnormal_features"]
    after = second["normal_features" if template == 68 else "abnormal_features"]
    return (set(before) & set(after)) or {"none"}


def with_original_qtc(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same ECG, its QTc judged by the limits ECG-QA's own code has."""
    lowest, highest = QTC_OF_THE_ORIGINAL
    normal = [name for name in row["normal_features"] if name != "qt corrected"]
    abnormal = [name for name in row["abnormal_features"] if name != "qt corrected"]
    for each in row["features"]:
        if each["feature"] == "qt corrected":
            (normal if lowest <= each["value"] <= highest else abnormal).append("qt corrected")
    return {**row, "normal_features": normal, "abnormal_features": abnormal}


def _judged(row: Mapping[str, Any]) -> set[str]:
    """Intervals that were measured and have limits for this patient; there are none for children."""
    return {*row["normal_features"], *row["abnormal_features"]}


def samples(official: Path) -> Iterator[dict[str, Any]]:
    copy = open_ecgqa(official)
    for split in ("train", "valid", "test"):
        if copy.names("template", split):
            yield from copy.questions("template", split)


def compare(official: Path, ptbxl: Path, ptbxl_plus: list[Path]) -> dict[str, Any]:
    asked = list(samples(official))
    wanted = {f"ptbxl:{native}" for sample in asked for native in sample["ecg_id"]}
    rows = ecg_rows(ptbxl, ptbxl_plus, wanted)
    templates: dict[int, Tally] = defaultdict(Tally)
    intervals: dict[str, Tally] = defaultdict(Tally)
    theirs_alone: Counter[str] = Counter()
    ours_alone: Counter[str] = Counter()
    disagreements: Counter[str] = Counter()
    unknown: Counter[int] = Counter()
    called: dict[tuple[str, str], set[str]] = defaultdict(set)
    for sample in asked:
        template, theirs = sample["template_id"], set(sample["answer"])
        ecgs = [rows.get(f"ptbxl:{native}") for native in sample["ecg_id"]]
        if any(row is None for row in ecgs):
            templates[template].add(theirs, None)
            continue
        first, second = ecgs[0], ecgs[-1]
        assert first is not None
        assert second is not None
        if template in (26, 27, 28):
            ours = noise_answer(sample["question"], first)
            templates[template].add(theirs, ours)
            if ours != theirs:
                disagreements[f"{template}: theirs {min(theirs)}, ours {min(ours or {'not answered'})}"] += 1
        elif template in (68, 69, 70):
            ours = features_answer(template, first, second)
            for name in theirs - {"none"}:
                called[name, "normal" if template == 69 else "abnormal"].add(first["ecg_id"])
                called[name, "normal" if template == 68 else "abnormal"].add(second["ecg_id"])
            whole = min(len(_judged(first)), len(_judged(second))) >= FEWEST
            templates[template].add(theirs, ours if whole else None)
            original = features_answer(template, with_original_qtc(first), with_original_qtc(second))
            judged = _judged(first) & _judged(second)
            for name in attributes().features:
                if name not in judged:
                    intervals[name].add(theirs, None)
                    continue
                said, found = name in theirs, name in (ours or set())
                intervals[name].add({str(said)}, {str(found)})
                theirs_alone[name] += said and not found
                ours_alone[name] += found and not said
            if "qt corrected" in judged:
                intervals["qt corrected, limits of the original"].add(
                    {str("qt corrected" in theirs)}, {str("qt corrected" in (original or set()))}
                )
        else:
            unknown[template] += 1
    return {
        "templates": {str(number): tally.as_dict() for number, tally in sorted(templates.items())},
        "intervals_in_68_to_70": {
            name: tally.as_dict() | {"theirs_only": theirs_alone[name], "ours_only": ours_alone[name]}
            for name, tally in intervals.items()
        },
        "our_values_of_ecgs_called": [
            {"interval": name, "called": word, **_quartiles(name, [rows[ecg_id] for ecg_id in sorted(ecg_ids)])}
            for (name, word), ecg_ids in sorted(called.items())
        ],
        "disagreements_in_26_to_28": dict(disagreements.most_common()),
        "templates_without_comparison": dict(unknown),
    }


def _quartiles(interval: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """ms: what we measure in these ECGs."""
    values = [each["value"] for row in rows for each in row["features"] if each["feature"] == interval]
    return {"ecgs": len(values), "quartiles_ms": [round(value) for value in quantiles(values, n=4)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--official", type=Path, required=True, help="copy of ECG-QA: folder or zip archive")
    parser.add_argument("--ptbxl", type=Path, required=True)
    parser.add_argument("--ptbxl-plus", type=Path, action="append", default=[], required=True)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = compare(options.official, options.ptbxl, options.ptbxl_plus)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print("template      rows  answered  agreement")
    for name, told in found["templates"].items():
        print(f"{name:>8}  {told['n']:>8,}  {told['answered']:>8,}  {told['agreement'] or 0:>9.2%}")
    print("\ninterval in 68-70                     rows  answered  agreement  only theirs  only ours")
    for name, told in found["intervals_in_68_to_70"].items():
        print(
            f"{name:<36}{told['n']:>6,}  {told['answered']:>8,}  {told['agreement'] or 0:>9.2%}"
            f"  {told['theirs_only']:>11,}  {told['ours_only']:>9,}"
        )
    print("\ninterval      official answers call it   ECGs  our quartiles, ms")
    for told in found["our_values_of_ecgs_called"]:
        print(f"{told['interval']:<14}{told['called']:<24}{told['ecgs']:>7,}  {told['quartiles_ms']}")
    print()
    for name, count in found["disagreements_in_26_to_28"].items():
        print(f"{count:>6}  {name}")


if __name__ == "__main__":
    main()
