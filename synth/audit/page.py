"""The page of an audit: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from ecglm.synth.audit.charts import distributions, forest
from ecglm.synth.audit.disagreements import KINDS
from ecglm.synth.audit.judged import NORMAL, Judged, Rulebook
from ecglm.synth.audit.standing import CERTAINTIES, Labels, Standing
from ecglm.synth.errors import ECGLMError
from ecglm.synth.guidelines import CATEGORIES
from ecglm.synth.sources import Source

FEW = 20
"""Labelled ECGs below which a row is printed in grey."""
SPECIFIC = 0.95
"""Specificity from which a statement may stand among the examples of `suggested`."""
_MOST_VALUES = 6
_EXAMPLES_PER_KIND = 4
_LISTED, _LISTED_OF_STATEMENT = 12, 3
_PICTURE_DPI = 96
_COLOURS = 48
_RANKED = 8
_FEWEST_RANKED = 50

_CATEGORY_NAMES = {
    "qt": "QT interval",
    "st-t": "ST and T",
    "normal": "Normal ranges",
    "signal": "Signal and electrodes",
}

Row = Mapping[str, Any]


def write_page(
    path: Path,
    manifest: Mapping[str, Any],
    source: Source,
    ecgs: pa.Table,
    rulebook: Rulebook,
    criteria: Sequence[pa.Table],
    disagreements: Sequence[pa.Table],
    judgement: tuple[Judged, Labels],
) -> int:
    """Writes the page; the first provider is shown in full, the others are compared with it.

    Returns:
        How many ECGs are drawn on it.
    """
    rows = criteria[0].to_pylist()
    whole = [row for row in rows if row["folds"] == "all"]
    statements = [row for row in whole if row["criterion"] is None and row["labelled"]]
    examples = [
        example for kind in ("contradicted", "suggested") for example in _examples(disagreements[0], kind, statements)
    ]
    pictures = _pictures(source, ecgs, examples)
    environment = ImmutableSandboxedEnvironment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "interval": _interval, "thousands": lambda number: f"{number:,}"}
    text = resources.files("ecglm.synth.audit").joinpath("page.html.jinja").read_text(encoding="utf-8")
    html = environment.from_string(text).render(
        manifest=manifest,
        source=manifest["attribution"][0],
        simulated=manifest["source"] == "simulated",
        provider=manifest["providers"][0],
        kinds=KINDS,
        few=FEW,
        specific=SPECIFIC,
        categories=list(_categories(whole, rulebook, judgement)),
        closest=_ranked(statements, best=True),
        farthest=_ranked(statements, best=False),
        broken=_broken_definitions(whole),
        certainties=_by_certainty(statements),
        by_folds=_by_folds(rows),
        by_provider=_by_provider(criteria),
        counts=_counts(disagreements[0]),
        lists={kind: _strongest(disagreements[0], kind, statements) for kind in ("contradicted", "suggested")},
        examples=[{**example, "picture": picture} for example, picture in zip(examples, pictures, strict=True)],
        drawn=any(picture is not None for picture in pictures),
        undecided=_undecided(rulebook),
    )
    path.write_text(html, encoding="utf-8")
    return sum(picture is not None for picture in pictures)


# -------------------------------------------------------------------------------------------------------------- tables


def _categories(rows: Sequence[Row], rulebook: Rulebook, judgement: tuple[Judged, Labels]) -> Iterator[dict[str, Any]]:
    for category in CATEGORIES:
        of_category = [_drawn(row) for row in rows if row["category"] == category]
        if not of_category:
            continue
        statements = []
        for head in (row for row in of_category if row["criterion"] is None):
            parts = [row for row in of_category if row["code"] == head["code"] and row["criterion"] is not None]
            values = list(_values(head["code"], rulebook, judgement))
            statements.append({"head": head, "criteria": parts, "first": values[:1], "rest": values[1:]})
        yield {"name": _CATEGORY_NAMES.get(category, category.capitalize()), "id": category, "statements": statements}


def _drawn(row: Row) -> dict[str, Any]:
    return {**row, "forest": Markup(forest(_rate(row, "sensitivity"), _rate(row, "specificity")))}  # noqa: S704 - ours


def _rate(row: Row, name: str) -> tuple[float | None, float | None, float | None]:
    return row[name], row[f"{name}_low"], row[f"{name}_high"]


def _values(code: str, rulebook: Rulebook, judgement: tuple[Judged, Labels]) -> Iterator[Markup]:
    """Distributions of what the criteria of a statement compare, each value once with all its limits."""
    judged, labels = judgement
    statement = rulebook.codes.index(code)
    place = rulebook.places[statement]
    standing = labels.standing[:, statement]
    limits: dict[tuple[str, str], list[int]] = {}
    for number, limit in enumerate(rulebook.limits):
        if place.start <= rulebook.rule_of_limit[number] < place.stop:
            limits.setdefault((limit.of, limit.unit), []).append(number)
    drawn = 0
    for (_, unit), numbers in limits.items():
        of_value = [rulebook.limits[number] for number in numbers]
        known = judged.values[:, numbers]
        value = known[:, 0] if len(numbers) == 1 else np.where(np.isnan(known), -np.inf, known).max(axis=1)
        value = np.where(np.isfinite(value), value, np.nan)
        there = ~np.isnan(value)
        texts = dict.fromkeys((limit.value, limit.text) for limit in of_value)
        picture = distributions(
            value[there & (standing == Standing.POSITIVE)],
            value[there & np.isin(standing, (Standing.NEGATIVE, Standing.CLEAR_NEGATIVE))],
            list(texts),
            f"{code}: {of_value[0].shown_as}",
            unit,
        )
        if picture and drawn < _MOST_VALUES:
            drawn += 1
            yield Markup(picture)  # noqa: S704 - made here, its words escaped


def _ranked(statements: Sequence[Row], best: bool) -> list[dict[str, Any]]:
    """Statements by sensitivity plus specificity, of those with enough labels."""
    known = [
        row
        for row in statements
        if row["n_positive"] >= _FEWEST_RANKED and None not in (row["sensitivity"], row["specificity"])
    ]
    order = sorted(known, key=lambda row: (row["sensitivity"] + row["specificity"], row["code"]), reverse=best)
    return [_drawn(row) for row in order[:_RANKED]]


def _broken_definitions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Defining criteria by how often a labelled ECG does not meet them."""
    defining = [row for row in rows if row["role"] == "defining" and row["n_positive"] >= FEW and row["false_negative"]]
    return [_drawn(row) for row in sorted(defining, key=lambda row: (row["sensitivity"], row["code"]))[:_RANKED]]


def _by_certainty(statements: Sequence[Row]) -> list[dict[str, Any]]:
    """How many diagnoses of each certainty meet their criteria, all but the normal ECG together."""
    diagnoses = [row for row in statements if row["code"] != NORMAL]
    found = []
    for name in CERTAINTIES[1:]:
        entries = [entry for row in diagnoses for entry in row["by_certainty"] if entry["certainty"] == name]
        met, not_met = (sum(entry[word] for entry in entries) for word in ("met", "not_met"))
        if met + not_met:
            found.append({"certainty": name, "n": met + not_met, "met": met / (met + not_met)})
    return found


def _by_folds(rows: Sequence[Row]) -> list[dict[str, Any]]:
    heads = [row for row in rows if row["criterion"] is None and row["labelled"]]
    parts = {folds: {row["code"]: row for row in heads if row["folds"] == folds} for folds in ("1-8", "9-10")}
    return [
        {"code": code, "name": row["name"], "parts": [row, parts["9-10"][code]]} for code, row in parts["1-8"].items()
    ]


def _by_provider(criteria: Sequence[pa.Table]) -> list[dict[str, Any]]:
    """The statements by each provider; nothing if there is only one."""
    if len(criteria) < 2:
        return []
    heads = [
        {row["code"]: row for row in table.to_pylist() if row["folds"] == "all" and row["criterion"] is None}
        for table in criteria
    ]
    return [
        {"code": code, "name": row["name"], "parts": [head[code] for head in heads]}
        for code, row in heads[0].items()
        if row["labelled"]
    ]


def _undecided(rulebook: Rulebook) -> list[dict[str, str]]:
    guidelines = rulebook.guidelines
    return [
        {
            "code": code,
            "name": guideline.name,
            "reason": guideline.no_criteria.reason,
            "citation": guidelines.citation(guideline.no_criteria.cite),
        }
        for code, guideline in sorted(guidelines.by_code.items())
        if guideline.no_criteria is not None
    ]


# ------------------------------------------------------------------------------------------------------- disagreements


def _counts(table: pa.Table) -> list[dict[str, Any]]:
    """Statement → number of disagreements of each kind."""
    counted = table.group_by(["code", "name", "kind"]).aggregate([([], "count_all")]).to_pylist()
    codes: dict[str, dict[str, Any]] = {}
    for row in counted:
        codes.setdefault(row["code"], {"code": row["code"], "name": row["name"], **dict.fromkeys(KINDS, 0)})
        codes[row["code"]][row["kind"]] = row["count_all"]
    return [codes[code] for code in sorted(codes)]


def _worth_showing(table: pa.Table, kind: str, statements: Sequence[Row]) -> pa.Table:
    """Rows of a kind with a strength and nothing noted against the recording; of suggestions only those that are rare
    where nothing speaks for the statement."""
    specific = [
        row["code"] for row in statements if row["n_positive"] >= FEW and (row["specificity_clear"] or 0) >= SPECIFIC
    ]
    wanted = pc.and_(pc.equal(table["kind"], kind), pc.is_valid(table["strength"]))
    wanted = pc.and_(wanted, pc.equal(pc.list_value_length(table["noted"]), 0))
    if kind == "suggested":
        wanted = pc.and_(wanted, pc.is_in(table["code"], value_set=pa.array(specific, pa.string())))
    return table.filter(wanted)


def _strongest(table: pa.Table, kind: str, statements: Sequence[Row]) -> list[Row]:
    """The strongest, few of a statement."""
    chosen: list[Row] = []
    listed: Counter[str] = Counter()
    for row in _worth_showing(table, kind, statements).to_pylist():
        if listed[row["code"]] < _LISTED_OF_STATEMENT:
            chosen.append(_telling(row))
            listed[row["code"]] += 1
        if len(chosen) == _LISTED:
            break
    return chosen


def _examples(table: pa.Table, kind: str, statements: Sequence[Row]) -> list[Row]:
    """The strongest disagreement of each statement, the strongest of these; no ECG twice."""
    chosen: dict[str, Row] = {}
    seen: set[str] = set()
    for row in _worth_showing(table, kind, statements).to_pylist():
        if row["code"] not in chosen and row["ecg_id"] not in seen:
            chosen[row["code"]] = _telling(row)
            seen.add(row["ecg_id"])
        if len(chosen) == _EXAMPLES_PER_KIND:
            break
    return list(chosen.values())


def _telling(row: Row) -> dict[str, Any]:
    """The row with the criteria that made it, the strongest first."""
    verdict = "met" if row["kind"] == "suggested" else "not_met"
    made = [each for each in row["criteria"] if each["verdict"] == verdict]
    return {**row, "made_by": sorted(made, key=lambda each: -(each["strength"] or 0.0))[:2]}


def _pictures(source: Source, ecgs: pa.Table, examples: Sequence[Row]) -> list[str | None]:
    """Each ECG as a data URI; None where it cannot be drawn, as where matplotlib is not installed."""
    from ecglm.synth.plot import plot_record

    pictures: list[str | None] = []
    with tempfile.TemporaryDirectory() as folder:
        for example in examples:
            out = Path(folder) / "ecg.png"
            try:
                plot_record(source.root / example["signal_path"], out, dpi=_PICTURE_DPI)
            except ECGLMError:
                pictures.append(None)
                continue
            pictures.append("data:image/png;base64," + base64.b64encode(_few_colours(out)).decode("ascii"))
    return pictures


def _few_colours(path: Path) -> bytes:
    """A PNG with a palette, a quarter of the size."""
    from PIL import Image  # comes with matplotlib

    data = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    return data.getvalue()


# --------------------------------------------------------------------------------------------------------------- words


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.1f}"


def _interval(row: Row, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if low is None else f"{100 * low:.1f}–{100 * high:.1f}"
