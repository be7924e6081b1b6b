"""`synth export --format ecgqa`: questions in the layout of ECG-QA, balanced as that dataset is."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.compute as pc
import xxhash

from ecglm.synth.corpus import Corpus, ParquetFile, write_json
from ecglm.synth.ecgqa import attributes
from ecglm.synth.errors import CorpusError
from ecglm.synth.schema import LEADS
from ecglm.synth.sources.ecgqa import ATTRIBUTION, SPLITS
from ecglm.synth.templates import EcgQaQuestion, Template, load_templates, parse_template
from ecglm.synth.why import kept_vocabularies

QUESTIONS = 80_000
"""Most questions of one split unless told otherwise; ECG-QA has 267,539, 64,663 and 82,146."""
SHARD = 10_000
MANIFEST = "export.json"
FORMAT = "ecglm questions in ECG-QA's layout"

# Answers to one question in ECG-QA's training split, seen in its files; half as many in the other splits.
_YES, _NO, _NO_PER_YES, _OF_A_SET, _NONE = 100, 200, 5, 50, 100
_SPLIT_OF = {"train": "train", "validation": "valid", "test": "test"}
_ANY = {28: "any kind of noises", 29: "any kind of noises", 35: "any kind of extra systoles"}


@dataclass(frozen=True)
class _Asked:
    """A question taken apart: its words in the dataset, a paraphrase, and what it asks about."""

    question: str
    paraphrases: tuple[str, ...]
    attribute: list[str] | None


class _Wordings:
    """The ways one template asks, and what stands in their gaps."""

    def __init__(self, template: Template) -> None:
        assert template.header.ecgqa is not None  # noqa: S101 - checked where the templates are read
        self.about: EcgQaQuestion = template.header.ecgqa
        self.options = template.vocabulary
        self.wordings = template.turns[0].alternatives
        self._patterns = [_pattern(wording) for wording in self.wordings]

    def take_apart(self, question: str, wording: int) -> _Asked:
        found = self._patterns[wording].fullmatch(question)
        if found is None:
            raise CorpusError(f"{question!r} is not wording {wording} of ECG-QA's template {self.about.template}")
        gaps = found.groupdict()
        said = [_fill(text, gaps) for text in self.wordings]
        named = [value for name, value in gaps.items() if name != "lead"]
        if self.about.template in _ANY:
            named = [_ANY[self.about.template]]
        is_single = self.about.question_type.startswith("single")
        others = said[1:] if wording == 0 else [said[wording]]
        return _Asked(said[0], tuple(others or said), named if is_single and named else None)


def export_ecgqa(corpus: Corpus, out: Path, questions: int = QUESTIONS) -> dict[str, Any]:
    """Writes the pairs of family ecgqa in ECG-QA's layout and as Parquet; the folder appears whole or not at all.

    Args:
        corpus: built with the family ecgqa.
        out: the folder; one that an earlier export made is replaced.
        questions: most of one split.

    Returns:
        Questions by split, and how many pairs are of ECGs that no list, or no one list, names.

    Raises:
        CorpusError: the corpus has no such pairs, or the folder cannot be written.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file())):
        raise CorpusError(f"{out}: there already, and no export of this kind; choose another --out")
    templates = _templates(corpus)
    pairs = _pairs(corpus, templates)
    listed, lists = _lists(corpus)
    pairs = pairs.with_columns(
        pl.col("ecg_ids").list.eval(pl.element().replace_strict(listed, default="none")).alias("splits")
    )
    one = (pl.col("splits").list.n_unique() == 1) & (pl.col("splits").list.first() != "none")
    unlisted = pairs.height - pairs.filter(one).height
    pairs = pairs.filter(one).with_columns(pl.col("splits").list.first().alias("ecgqa_split"))
    temporary = out.with_name(out.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        base = temporary / "ecgqa" / corpus.manifest["config"]["source"]
        base.mkdir(parents=True)
        counts = {}
        for split in SPLITS:
            drawn = _drawn(pairs.filter(pl.col("ecgqa_split") == split), split, questions)
            _write_split(drawn, split, base, temporary)
            counts[split] = drawn.height
        _write_lists(lists, base)
        _write_options(templates, base)
        others = [each for each in corpus.manifest["attribution"] if each != ATTRIBUTION]
        content = {
            "format": FORMAT,
            "corpus": corpus.manifest["content_fingerprint"],
            "questions": counts,
            "not_in_one_list": unlisted,
            "most_per_split": questions,
            "attribution": [*others, dict(ATTRIBUTION)],
        }
        write_json(temporary / MANIFEST, content)
        if out.exists():
            shutil.rmtree(out)
        temporary.replace(out)
    except OSError as error:
        raise CorpusError(f"{out}: cannot be written: {error.strerror or error}; choose another --out") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return {"out": str(out), "questions": counts, "not_in_one_list": unlisted}


_GAP = re.compile(r"\{\{ (\w+) \}\}")


@cache
def _gap_words() -> str:
    """What may stand in a gap, the longest first so that no name is read as the beginning of another."""
    known = attributes()
    words = {statement.name for statement in known.statements.values()} | set(known.superclasses.values())
    words |= set(known.features) | set(known.noises.values()) | set(LEADS)
    for template in load_templates():
        if template.header.ecgqa is not None:
            words |= set(template.vocabulary)
    return "|".join(map(re.escape, sorted(words, key=lambda word: (-len(word), word))))


def _pattern(wording: str) -> re.Pattern[str]:
    parts = _GAP.split(wording)
    gaps = [f"(?P<{part}>{_gap_words()})" if place % 2 else re.escape(part) for place, part in enumerate(parts)]
    return re.compile("".join(gaps))


def _fill(wording: str, gaps: Mapping[str, str]) -> str:
    return _GAP.sub(lambda gap: gaps[gap[1]], wording)


def _templates(corpus: Corpus) -> dict[str, _Wordings]:
    """The templates of the family as the corpus keeps them."""
    found = {}
    for row in corpus.table("templates").to_table(filter=pc.field("family") == "ecgqa").to_pylist():
        where = f"templates/{row['family']}/{row['template_id']}.jinja"
        template, violations = parse_template(row["text"], where, kept_vocabularies(row, where))
        if template is None:
            raise CorpusError(f"{where} can no longer be read: {violations[0].message}; build the corpus again")
        found[row["template_id"]] = _Wordings(template)
    return found


def _pairs(corpus: Corpus, templates: Mapping[str, _Wordings]) -> pl.DataFrame:
    """Every pair of the family, its question taken apart."""
    columns = ["pair_id", "template_id", "variant", "ecg_ids", "answers", "messages"]
    table = corpus.table("pairs").to_table(columns=columns, filter=pc.field("family") == "ecgqa")
    if not table.num_rows:
        raise CorpusError(
            f"{corpus.root}: no pairs of family ecgqa; build with `synth build --families ecgqa --ecgqa DIR`"
        )
    pairs = pl.from_arrow(table)
    assert isinstance(pairs, pl.DataFrame)  # noqa: S101 - a table never becomes a Series
    pairs = pairs.with_columns(
        pl.col("variant").str.split(".").list.first().cast(pl.Int64).alias("wording"),
        pl.col("messages").list.first().struct.field("content").alias("asked_as"),
    ).drop("messages", "variant")
    asked = ["template_id", "wording", "asked_as"]
    return pairs.join(_taken_apart(templates, pairs.select(asked).unique()), on=asked)


def _taken_apart(templates: Mapping[str, _Wordings], questions: pl.DataFrame) -> pl.DataFrame:
    rows = []
    for template_id, wording, question in questions.sort("template_id", "wording", "asked_as").iter_rows():
        of = templates[template_id]
        asked = of.take_apart(question, wording)
        rows.append(
            {
                "template_id": template_id,
                "wording": wording,
                "asked_as": question,
                "number": of.about.template,
                "question_type": of.about.question_type,
                "attribute_type": of.about.attribute_type,
                "question": asked.question,
                "paraphrases": list(asked.paraphrases),
                "attribute": asked.attribute,
            }
        )
    return pl.DataFrame(rows, schema_overrides={"attribute": pl.List(pl.String)})


def _lists(corpus: Corpus) -> tuple[dict[str, str], dict[str, list[str]]]:
    """ECG → its split in ECG-QA, and the ECGs of each; as the corpus splits them where no lists were given."""
    if "ecgqa_ecgs" in corpus.optional_tables:
        table = corpus.table("ecgqa_ecgs").to_table(columns=["ecg_id", "ecgqa_split"])
        splits = table["ecgqa_split"].to_pylist()
    else:
        table = corpus.table("ecgs").to_table(columns=["ecg_id", "split"])
        splits = [_SPLIT_OF[split] for split in table["split"].to_pylist()]
    listed = {ecg_id: split for ecg_id, split in zip(table["ecg_id"].to_pylist(), splits, strict=True) if split}
    return listed, {split: [ecg_id for ecg_id, of in listed.items() if of == split] for split in SPLITS}


def _drawn(pairs: pl.DataFrame, split: str, most: int) -> pl.DataFrame:
    """The questions of a split: of each question so many with each answer, those first that a hash ranks first."""
    part = 1.0 if split == "train" else 0.5
    answer = pl.col("answers").list.sort().list.join("|")
    cell = ["number", "question"]
    yes = (answer == "yes").sum().over(cell)
    of_answer = (
        pl.when(answer == "no")
        .then(pl.min_horizontal(pl.lit(_NO * part), _NO_PER_YES * yes))
        .when(answer.is_in(["yes", "not sure"]))
        .then(pl.lit(_YES * part))
        .when((answer == "none") & pl.col("question_type").str.ends_with("query"))
        .then(pl.lit(_NONE * part))
        .otherwise(pl.lit(_OF_A_SET * part))
    )
    ranked = pairs.with_columns(
        (pl.col("pair_id").rank("ordinal").over([*cell, answer]) / of_answer).alias("share"),
    )
    drawn = ranked.filter(pl.col("share") <= 1).sort("share", "pair_id").head(most)
    return drawn.sort("number", "question", "pair_id").with_row_index("sample_id")


def _write_split(drawn: pl.DataFrame, split: str, base: Path, root: Path) -> None:
    asked = drawn.select("number", "attribute").unique().sort("number", pl.col("attribute").list.join("|"))
    places = {(n, tuple(a or ())): place for place, (n, a) in enumerate(asked.iter_rows())}
    rows = []
    for row in drawn.iter_rows(named=True):
        draw = xxhash.xxh3_64_intdigest(row["pair_id"].encode())
        rows.append(
            {
                "template_id": row["number"],
                "question_id": places[row["number"], tuple(row["attribute"] or ())],
                "sample_id": row["sample_id"],
                "question_type": row["question_type"],
                "attribute_type": row["attribute_type"],
                "question": row["question"],
                "answer": row["answers"],
                "ecg_id": [_native(ecg_id) for ecg_id in row["ecg_ids"]],
                "attribute": row["attribute"],
                "paraphrased": row["paraphrases"][draw % len(row["paraphrases"])],
                "pair_id": row["pair_id"],
            }
        )
    hidden = ("paraphrased", "pair_id")
    for wording, column in (("template", "question"), ("paraphrased", "paraphrased")):
        folder = base / wording / split
        folder.mkdir(parents=True)
        told = [{n: v for n, v in row.items() if n not in hidden} | {"question": row[column]} for row in rows]
        for first in range(0, max(len(told), 1), SHARD):
            text = json.dumps(told[first : first + SHARD], ensure_ascii=False)
            (folder / f"{first}.json").write_text(text + "\n", encoding="utf-8")
    table = pl.DataFrame(rows, schema=_schema(rows))
    with ParquetFile(root / f"{split}.parquet", table.to_arrow().schema) as file:
        file.write(table.to_arrow())


def _schema(rows: list[dict[str, Any]]) -> dict[str, Any]:
    text, number = pl.String(), pl.Int64()
    ids = number if all(isinstance(ecg_id, int) for row in rows for ecg_id in row["ecg_id"]) else text
    return {
        **dict.fromkeys(("template_id", "question_id", "sample_id"), number),
        **dict.fromkeys(("question_type", "attribute_type", "question"), text),
        "answer": pl.List(text),
        "ecg_id": pl.List(ids),
        "attribute": pl.List(text),
        **dict.fromkeys(("paraphrased", "pair_id"), text),
    }


def _write_lists(lists: Mapping[str, list[str]], base: Path) -> None:
    for split, ecg_ids in lists.items():
        lines = "".join(f"{place}\t{_native(ecg_id)}\n" for place, ecg_id in enumerate(ecg_ids))
        (base / f"{split}_ecgs.tsv").write_text(lines, encoding="utf-8")


def _write_options(templates: Mapping[str, _Wordings], base: Path) -> None:
    """answers_for_each_template.csv and answers.csv."""
    options = {
        of.about.template: sorted(of.options) if of.about.question_type.endswith("verify") else list(of.options)
        for of in templates.values()
    }
    with (base / "answers_for_each_template.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("template_id", "classes"))
        writer.writerows((number, repr(classes)) for number, classes in sorted(options.items()))
    first = ["no", "not sure", "yes"]
    every = first + sorted({answer for classes in options.values() for answer in classes} - set(first))
    with (base / "answers.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("index", "class"))
        writer.writerows(enumerate(every))


def _native(ecg_id: str) -> int | str:
    native = ecg_id.partition(":")[2]
    return int(native) if native.isdecimal() else native
