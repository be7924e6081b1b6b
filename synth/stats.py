"""`synth stats`: what a corpus holds, as data, as tables and as a picture."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecglm.synth.corpus import Corpus
from ecglm.synth.plot.canvas import canvas_style, new_figure, save_figure
from ecglm.synth.schema import SPLITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console

TOP_CODES = 30
LENGTHS = ("question_characters", "question_words", "answer_characters", "answer_words")

_BATCH_ROWS = 16_384
_COLUMNS = ("ecg_ids", "split", "family", "question_type", "messages", "answers", "codes", "template_id")

_SHOWN_TEMPLATES = 45
_FAINT, _INK = "#d9d9d9", "#222222"
_SPLIT_COLOURS = {"train": "#3b6ea5", "validation": "#e0a030", "test": "#b5443c"}


def corpus_stats(corpus: Corpus) -> dict[str, Any]:
    """Counts and text lengths of a corpus, ready for JSON.

    Lengths are of single messages; `question` is what the user says, `answer` what the assistant says. Codes are
    counted once per pair. Medians and 95th percentiles are exact (nearest rank).
    """
    templates = corpus.table("templates").to_table().drop_columns(["text"]).to_pylist()
    closed = {row["template_id"] for row in templates if row["vocabulary"]}
    tally = _Tally(closed)
    for batch in _batches(corpus):
        tally.add(batch)
    ecgs = corpus.table("ecgs").to_table(columns=["split", "patient_id"])
    manifest = corpus.manifest
    return {
        "pairs": tally.pairs,
        "ecgs": ecgs.num_rows,
        "patients": pc.count_distinct(ecgs["patient_id"]).as_py(),
        "splits": _split_table(ecgs, tally),
        "families": _ordered(tally.families),
        "families_by_split": {
            family: {split: tally.family_splits[family, split] for split in SPLITS} for family in sorted(tally.families)
        },
        "question_types": _ordered(tally.question_types),
        "templates": _ordered(tally.templates),
        "codes": dict(list(_ordered(tally.codes).items())[:TOP_CODES]),
        "n_codes": len(tally.codes),
        "lengths": {family: tally.lengths(family) for family in sorted(tally.families)},
        "answers": {template: _ordered(tally.answers[template]) for template in sorted(tally.answers)},
        "rejected": dict(_ordered(Counter(manifest["rejected_reasons"]))),
        "rejected_by_template": _rejected_by_template(corpus),
        "rejected_by_statement": _rejected_by_statement(corpus),
        "gate": {row.pop("code"): row for row in corpus.table("gate").to_table().to_pylist()},
        "capped": {row["template_id"]: row["n_capped"] for row in templates if row["n_capped"]},
        "skipped": {row["template_id"]: row["status_detail"] for row in templates if row["status"] == "skipped"},
        "not_selected": [row["template_id"] for row in templates if row["status"] == "not_selected"],
        "content_fingerprint": manifest["content_fingerprint"],
    }


def _batches(corpus: Corpus) -> Iterator[pa.RecordBatch]:
    for name in sorted(corpus.manifest["files"]):
        if name.startswith("pairs/"):
            with pq.ParquetFile(corpus.root / name) as file:
                yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=list(_COLUMNS))


class _Tally:
    """Counts that batches are added to; memory does not grow with the number of pairs."""

    def __init__(self, closed: set[str]) -> None:
        self.pairs = 0
        self.families: Counter[str] = Counter()
        self.question_types: Counter[str] = Counter()
        self.templates: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.splits: Counter[str] = Counter()
        self.family_splits: Counter[tuple[str, str]] = Counter()
        self.answers: dict[str, Counter[str]] = {}
        self._closed = closed
        self._histograms: dict[tuple[str, str], np.ndarray[Any, np.dtype[np.int64]]] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        self.pairs += batch.num_rows
        # one file holds one template and one split, so that most batches are of a single kind
        for key, part in _groups(batch, ("family", "split", "template_id", "question_type")):
            family, split, template_id, question_type = key
            self.families[family] += part.num_rows
            self.splits[split] += part.num_rows
            self.templates[template_id] += part.num_rows
            self.question_types[question_type] += part.num_rows
            self.family_splits[family, split] += part.num_rows
            _count(self.codes, _distinct_per_row(part.column("codes")))
            if template_id in self._closed:
                _count(self.answers.setdefault(template_id, Counter()), part.column("answers").flatten())
            self._add_lengths(family, part.column("messages").flatten())

    def _add_lengths(self, family: str, messages: pa.StructArray) -> None:
        roles, contents = pc.struct_field(messages, "role"), pc.struct_field(messages, "content")
        for role, name in (("user", "question"), ("assistant", "answer")):
            texts = contents.filter(pc.equal(roles, role))
            self._measure(family, f"{name}_characters", pc.utf8_length(texts))
            words = pc.add(pc.count_substring_regex(texts, r"\s+"), 1)
            self._measure(family, f"{name}_words", words)

    def _measure(self, family: str, length: str, values: pa.Array) -> None:
        counted = np.bincount(values.to_numpy(zero_copy_only=False)).astype(np.int64)
        before = self._histograms.get((family, length), np.zeros(0, np.int64))
        size = max(len(before), len(counted))
        self._histograms[family, length] = np.pad(before, (0, size - len(before))) + np.pad(
            counted, (0, size - len(counted))
        )

    def lengths(self, family: str) -> dict[str, dict[str, int]]:
        return {length: _quantiles(self._histograms[family, length]) for length in LENGTHS}


def _groups(batch: pa.RecordBatch, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], pa.RecordBatch]]:
    kinds = [pc.unique(batch.column(name)).to_pylist() for name in names]
    if all(len(kind) == 1 for kind in kinds):
        yield tuple(kind[0] for kind in kinds), batch
        return
    keys = list(zip(*(batch.column(name).to_pylist() for name in names), strict=True))
    for key in dict.fromkeys(keys):
        yield key, batch.filter(pa.array([other == key for other in keys]))


def _distinct_per_row(lists: pa.ListArray) -> pa.Array:
    rows, values = pc.list_parent_indices(lists), lists.flatten()
    return pa.table({"row": rows, "value": values}).group_by(["row", "value"]).aggregate([])["value"].combine_chunks()


def _count(counter: Counter[str], values: pa.Array) -> None:
    for entry in pc.value_counts(values).to_pylist():
        counter[entry["values"]] += entry["counts"]


def _quantiles(histogram: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, int]:
    reached = np.cumsum(histogram)
    total = int(reached[-1]) if len(reached) else 0
    if not total:
        return {"median": 0, "p95": 0, "max": 0}
    return {name: int(np.searchsorted(reached, max(1, np.ceil(share * total)))) for name, share in _SHARES.items()}


_SHARES = {"median": 0.5, "p95": 0.95, "max": 1.0}


def _split_table(ecgs: pa.Table, tally: _Tally) -> dict[str, dict[str, int]]:
    table = {}
    for split in SPLITS:
        part = ecgs.filter(pc.equal(ecgs["split"], split))
        patients = pc.count_distinct(part["patient_id"]).as_py()
        table[split] = {"pairs": tally.splits[split], "ecgs": part.num_rows, "patients": patients}
    return table


def _rejected_by_template(corpus: Corpus) -> dict[str, dict[str, int]]:
    rejected = corpus.table("rejected").to_table(columns=["template_id", "reason"])
    counted = rejected.group_by(["template_id", "reason"]).aggregate([([], "count_all")]).to_pylist()
    by_template: dict[str, Counter[str]] = {}
    for row in counted:
        if row["template_id"] is not None:
            by_template.setdefault(row["template_id"], Counter())[row["reason"]] = row["count_all"]
    return {template: _ordered(by_template[template]) for template in sorted(by_template)}


def _rejected_by_statement(corpus: Corpus) -> dict[str, dict[str, int]]:
    """By reason and by the statement that the row was about, where its template has the slot `code`."""
    rejected = corpus.table("rejected").to_table(columns=["slots", "reason"])
    slots = pc.extract_regex(pc.fill_null(rejected["slots"], ""), r"(?:^|, )code=(?P<code>[^,]+)")
    codes = pc.struct_field(slots.combine_chunks(), "code")
    by_reason: dict[str, Counter[str]] = {}
    for row in (
        pa.table({"reason": rejected["reason"], "code": codes})
        .filter(pc.is_valid(codes))
        .group_by(["reason", "code"])
        .aggregate([([], "count_all")])
        .to_pylist()
    ):
        by_reason.setdefault(row["reason"], Counter())[row["code"]] = row["count_all"]
    return {reason: _ordered(by_reason[reason]) for reason in sorted(by_reason)}


def _ordered(counter: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


# -------------------------------------------------------------------------------------------------------------- tables


def print_stats(stats: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the statistics as tables."""
    from rich.console import Console

    console = console or Console(highlight=False)
    console.print(
        f"{stats['pairs']:,} pairs about {stats['ecgs']:,} ECGs of {stats['patients']:,} patients,"
        f" content fingerprint {stats['content_fingerprint']}",
        markup=False,
        soft_wrap=True,
    )
    _print_table(
        console,
        ("split", "pairs", "ECGs", "patients"),
        [(split, row["pairs"], row["ecgs"], row["patients"]) for split, row in stats["splits"].items()],
    )
    _print_table(
        console,
        ("family", *SPLITS, "all", "question: median, p95, max characters", "answer", "answer words"),
        [
            (
                family,
                *(stats["families_by_split"][family][split] for split in SPLITS),
                count,
                _three(stats["lengths"][family]["question_characters"]),
                _three(stats["lengths"][family]["answer_characters"]),
                _three(stats["lengths"][family]["answer_words"]),
            )
            for family, count in stats["families"].items()
        ],
    )
    _print_table(console, ("question type", "pairs"), list(stats["question_types"].items()))
    _print_table(
        console,
        ("template", "pairs", "rejected", "beyond the cap", "answers"),
        [
            (
                template,
                count,
                sum(stats["rejected_by_template"].get(template, {}).values()),
                stats["capped"].get(template, 0),
                _shares(stats["answers"].get(template, {})),
            )
            for template, count in stats["templates"].items()
        ],
    )
    codes = list(stats["codes"].items())
    _print_table(console, ("code", "pairs"), codes)
    if stats["n_codes"] > len(codes):
        console.print(f"… and {stats['n_codes'] - len(codes)} more codes", markup=False)
    _print_table(console, ("rejected because", "rows"), list(stats["rejected"].items()))
    _print_table(
        console,
        ("consistency gate", "stated", "contradicted", "then", "absent", "suggested", "then"),
        [
            (
                code,
                row["n_stated"],
                row["n_contradicted"],
                _gated(row["n_contradicted"], row["reword_stated"]),
                row["n_absent"],
                row["n_suggested"],
                _gated(row["n_suggested"], row["reword_absent"]),
            )
            for code, row in stats["gate"].items()
            if row["n_contradicted"] or row["n_suggested"]
        ],
    )
    _print_table(
        console,
        ("rejected because", "of the statements"),
        [
            (reason, ", ".join(f"{code} {count:,}" for code, count in codes.items()))
            for reason, codes in stats["rejected_by_statement"].items()
        ],
    )
    for template, detail in stats["skipped"].items():
        console.print(f"skipped {template} ({detail})", markup=False)
    if stats["not_selected"]:
        console.print(f"not selected: {', '.join(stats['not_selected'])}", markup=False)


def _print_table(console: Console, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(header):
        is_number = all(isinstance(row[number], int) for row in rows)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in row))
    console.print(table)
    console.print()


def _gated(count: int, reworded: bool) -> str:
    return ("reworded" if reworded else "rejected") if count else ""


def _three(length: Mapping[str, int]) -> str:
    return f"{length['median']}, {length['p95']}, {length['max']}"


def _shares(answers: Mapping[str, int], most: int = 4) -> str:
    total = sum(answers.values())
    shown = [f"{answer} {_percent(count / total)}" for answer, count in list(answers.items())[:most]]
    return ", ".join(shown) + (", …" if len(answers) > most else "")


def _percent(share: float) -> str:
    if share < 0.01:
        return "<1%"
    return ">99%" if 0.99 < share < 1 else f"{share:.0%}"


# ------------------------------------------------------------------------------------------------------------- picture


def plot_stats(stats: Mapping[str, Any], path: Path) -> None:
    """Draws the statistics on one page, as PNG or SVG.

    Raises:
        ECGLMError: matplotlib is not installed, or the file cannot be written; says what to do.
    """
    with canvas_style():
        figure = new_figure(297, 211)
        figure.set_layout_engine("constrained")
        grid = figure.add_gridspec(2, 3, width_ratios=(1.1, 1, 1))
        figure.suptitle(
            f"{stats['pairs']:,} pairs about {stats['ecgs']:,} ECGs of {stats['patients']:,} patients",
            fontsize=14,
            color=_INK,
        )
        _draw_families(figure.add_subplot(grid[0, 0]), stats)
        _draw_codes(figure.add_subplot(grid[0, 1]), stats)
        _draw_templates(figure.add_subplot(grid[:, 2]), stats)
        _draw_lengths(figure.add_subplot(grid[1, 0]), stats)
        _draw_rejected(figure.add_subplot(grid[1, 1]), stats)
        save_figure(figure, path, dpi=150)


def _bars(axes: Axes, labels: Sequence[str], values: Sequence[int], title: str, colour: str = "#3b6ea5") -> None:
    places = np.arange(len(labels))
    axes.barh(places, values, color=colour, height=0.72)
    _dress(axes, labels, title)
    for place, value in enumerate(values):
        axes.text(value, place, f" {value:,}", va="center", ha="left", fontsize=7, color=_INK)
    axes.set_xlim(0, max([*values, 1]) * 1.22)


def _dress(axes: Axes, labels: Sequence[str], title: str) -> None:
    size = 8.0 if len(labels) <= 16 else 6.5
    axes.set_yticks(np.arange(len(labels)), labels, fontsize=7 if any("\n" in label for label in labels) else size)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10, loc="left", color=_INK)
    axes.tick_params(axis="x", labelsize=7)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_major_locator(_few_ticks())
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4, integer=True)


def _draw_families(axes: Axes, stats: Mapping[str, Any]) -> None:
    families = list(stats["families"])
    left = np.zeros(len(families))
    for split in SPLITS:
        values = np.array([stats["families_by_split"][family][split] for family in families], dtype=float)
        axes.barh(np.arange(len(families)), values, left=left, color=_SPLIT_COLOURS[split], height=0.72, label=split)
        left += values
    _dress(axes, [family.replace("_", " ") for family in families], "Pairs by family and split")
    for place, family in enumerate(families):
        count = stats["families"][family]
        axes.text(count, place, f" {count:,}", va="center", ha="left", fontsize=7, color=_INK)
    axes.set_xlim(0, max([*left, 1]) * 1.22)
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _draw_codes(axes: Axes, stats: Mapping[str, Any]) -> None:
    codes = list(stats["codes"].items())[:16]
    _bars(axes, [code for code, _ in codes], [count for _, count in codes], "Pairs by statement (most frequent)")


def _draw_templates(axes: Axes, stats: Mapping[str, Any]) -> None:
    templates = list(stats["templates"].items())[:_SHOWN_TEMPLATES]
    of = (
        f" ({_SHOWN_TEMPLATES} largest of {len(stats['templates'])})"
        if len(stats["templates"]) > len(templates)
        else ""
    )
    _bars(axes, [name for name, _ in templates], [count for _, count in templates], f"Pairs by template{of}", "#5b8c5a")
    axes.margins(y=0.005)


def _draw_lengths(axes: Axes, stats: Mapping[str, Any]) -> None:
    families = list(stats["families"])
    places = np.arange(len(families))
    for shift, name, colour in ((-0.18, "question", "#8a8a8a"), (0.18, "answer", "#3b6ea5")):
        lengths = [stats["lengths"][family][f"{name}_characters"] for family in families]
        medians = np.array([length["median"] for length in lengths])
        highs = np.array([length["p95"] for length in lengths])
        axes.hlines(places + shift, medians, highs, color=colour, linewidth=2.5)
        axes.plot(medians, places + shift, "o", color=colour, markersize=5, label=f"{name}: median to 95 %")
    _dress(axes, [family.replace("_", " ") for family in families], "Characters per message")
    axes.set_xlim(left=0)
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.08), ncols=2)


def _draw_rejected(axes: Axes, stats: Mapping[str, Any]) -> None:
    reasons = list(stats["rejected"].items())[:14]
    labels = [textwrap.fill(reason.replace("_", " "), 24) for reason, _ in reasons]
    _bars(axes, labels, [count for _, count in reasons], "Rows rejected, by reason", "#b5443c")
