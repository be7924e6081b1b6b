"""`synth why`: what stands behind one pair, from the record to the template line, and whether it can be made again."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecglm.synth.corpus import Corpus
from ecglm.synth.criteria import Criterion
from ecglm.synth.database import LockedConnection
from ecglm.synth.ecgqa import derive_compared, derive_ecgqa
from ecglm.synth.errors import CorpusError, ECGLMError
from ecglm.synth.facts import OVER_VIEWS, derive_comparisons, merge_measurements, views_of
from ecglm.synth.guideline_tables import relation_tables
from ecglm.synth.guidelines import GuidelineSet, guidelines_from_texts
from ecglm.synth.measure.dictionary import Measurement, columns_of, measurements
from ecglm.synth.render import EcgRegister, render_block
from ecglm.synth.templates import Template, Vocabulary, parse_template
from ecglm.synth.yaml_files import parse_yaml

if TYPE_CHECKING:
    from rich.console import Console

GUIDELINE_SOURCES = "guideline_sources.yaml"
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|\"[^\"]+\"")
_RECORD_COLUMNS = (
    "ecg_id",
    "patient_id",
    "age_years",
    "age_capped",
    "sex",
    "strat_fold",
    "split",
    "report",
    "report_language",
    "heart_axis",
    "validated_by_human",
    "previous_ecg_id",
    "days_since_previous",
    "signal_path",
    "sampling_hz",
)


@dataclass(frozen=True)
class Explanation:
    """Everything behind one pair."""

    pair: dict[str, Any]
    records: list[dict[str, Any]]
    """The ECGs as the source has them, each with its `labels`."""
    measurements: list[dict[str, Any]]
    """Values the pair or its criteria rest on: ecg_id, name, words, value, unit, provider."""
    criteria: list[dict[str, Any]]
    """Criteria of the statements the pair is about: text, verdict, values with limits, full reference."""
    guidelines: list[dict[str, Any]]
    """Those statements: name, definition, full references, how they were verified."""
    template: dict[str, Any]
    """File, version, and the line and wording chosen for each turn."""
    identical: bool
    """Whether rendering the pair again from the corpus's own tables gives the same row, byte for byte."""
    difference: str | None
    """What is different, if it is."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)


def explain(corpus: Corpus, pair_id: str) -> Explanation:
    """Finds a pair and everything it was made from, and makes it again.

    Raises:
        CorpusError: the corpus has no such pair.
    """
    pair = find_pair(corpus, pair_id)
    behind = _Behind(corpus, pair)
    codes = [
        code for code in dict.fromkeys((*pair["guideline_ids"], *pair["codes"])) if code in behind.guidelines.by_code
    ]
    rules = {(code, rule.id): rule for code in codes for rule in behind.guidelines.by_code[code].rules}
    template, wording = _template(corpus, pair)
    difference = _difference(behind, template, pair)
    if difference is not None:
        difference += _versions_apart(corpus)
    return Explanation(
        pair=pair,
        records=_records(behind, pair),
        measurements=_measurements(behind, pair, rules.values()),
        criteria=_criteria(behind, pair, rules),
        guidelines=_guidelines(behind.guidelines, codes),
        template=wording,
        identical=difference is None,
        difference=difference,
    )


def find_pair(corpus: Corpus, pair_id: str) -> dict[str, Any]:
    """The row of `pairs` with this id.

    Raises:
        CorpusError: there is none; says how to list some.
    """
    wanted = pa.scalar(pair_id, pa.string())
    for name in sorted(corpus.manifest["files"]):
        if not name.startswith("pairs/"):
            continue
        with pq.ParquetFile(corpus.root / name) as file:
            for group in range(file.num_row_groups):
                place = pc.index(file.read_row_group(group, columns=["pair_id"])["pair_id"], wanted).as_py()
                if place >= 0:
                    row: dict[str, Any] = file.read_row_group(group).slice(place, 1).to_pylist()[0]
                    return row
    raise CorpusError(
        f"{corpus.root}: no pair {pair_id!r}; list some with"
        f' `synth query {corpus.root} "SELECT pair_id, template_id FROM pairs LIMIT 5"`'
    )


class _Behind:
    """The rows of the corpus's tables that one pair was made from."""

    def __init__(self, corpus: Corpus, pair: Mapping[str, Any]) -> None:
        self.corpus = corpus
        self.is_listed = "ecgqa_ecgs" in corpus.optional_tables
        ids = corpus.table("ecgs").to_table(columns=["ecg_id", "previous_ecg_id"])
        index = {ecg_id: number for number, ecg_id in enumerate(ids["ecg_id"].to_pylist())}
        before = dict(zip(ids["ecg_id"].to_pylist(), ids["previous_ecg_id"].to_pylist(), strict=True))
        wanted = [ecg_id for ecg_id in pair["ecg_ids"] if ecg_id in index] or list(index)[:1]
        linked = {*wanted, *(before[ecg_id] for ecg_id in wanted)} & set(index)
        self.ecgs = self._rows("ecgs", linked)
        self.ecg_index = pa.array([index[ecg_id] for ecg_id in self.ecgs["ecg_id"].to_pylist()], pa.int64())
        self.labels = self._rows("labels", linked)
        self.findings = self._rows("findings", linked)
        self.providers = self._providers(linked)
        rows = corpus.table("guidelines").to_table(columns=["category", "text"]).to_pylist()
        texts = tuple((row["category"], row["text"]) for row in rows)
        self.guidelines = _parsed(texts, (corpus.root / GUIDELINE_SOURCES).read_text(encoding="utf-8"))

    def _rows(self, table: str, ecg_ids: Iterable[str], columns: Sequence[str] | None = None) -> pa.Table:
        chosen = pc.field("ecg_id").isin(sorted(ecg_ids))
        return self.corpus.table(table).to_table(filter=chosen, columns=columns)

    def _providers(self, ecg_ids: Iterable[str]) -> list[tuple[str, pa.Table]]:
        """Measurements by provider, in the order in which the providers appear in the table."""
        table = self.corpus.table("measurements")
        order = pc.unique(table.to_table(columns=["provider"])["provider"]).to_pylist()
        known = {name for each in measurements().values() for name in (each.name, *each.same_as)}
        columns = ["ecg_id", "provider", *(name for name in table.schema.names if name in known)]
        rows = self._rows("measurements", ecg_ids, columns)
        return [
            (provider, rows.filter(pc.equal(rows["provider"], provider)).drop_columns(["provider"]))
            for provider in order
        ]

    def views(self) -> dict[str, pa.Table]:
        """What templates see of these ECGs, made as a build makes it."""
        merged = merge_measurements(self.ecgs, self.providers, self.ecg_index)
        views = views_of(merged, self.labels, self.guidelines)
        listed = self._rows("ecgqa_ecgs", self.ecgs["ecg_id"].to_pylist()) if self.is_listed else None
        ecgqa = derive_ecgqa(views, self.guidelines, listed)
        pairs = {"comparisons": derive_comparisons(views["facts"]), "ecgqa_compared": derive_compared(ecgqa)}
        gate = self.corpus.table("gate").to_table()
        return {**views, "ecgqa": ecgqa, **pairs, **relation_tables(self.guidelines), "gate": gate}


@lru_cache(maxsize=2)
def _parsed(texts: tuple[tuple[str, str], ...], sources: str) -> GuidelineSet:
    return guidelines_from_texts(texts, sources)


# --------------------------------------------------------------------------------------------------- the things behind


def _records(behind: _Behind, pair: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = {row["ecg_id"]: row for row in behind.ecgs.to_pylist()}
    labels = behind.labels.to_pylist()
    return [
        {name: rows[ecg_id][name] for name in _RECORD_COLUMNS}
        | {"labels": [_label(label, behind.guidelines) for label in labels if label["ecg_id"] == ecg_id]}
        for ecg_id in pair["ecg_ids"]
        if ecg_id in rows
    ]


def _label(label: Mapping[str, Any], guidelines: GuidelineSet) -> dict[str, Any]:
    guideline = guidelines.by_code.get(label["code"])
    return {
        "code": label["code"],
        "name": guideline.name if guideline else None,
        "likelihood": label["likelihood"],
        "certainty": label["certainty"],
        "kinds": label["kinds"],
    }


def _measurements(behind: _Behind, pair: Mapping[str, Any], rules: Iterable[Criterion]) -> list[dict[str, Any]]:
    known = measurements()
    named = [item["name"] for item in pair["evidence"]]
    for rule in rules:
        named += [name.strip('"') for name in _IDENTIFIER.findall(rule.sql)]
        named += [name.strip('"') for limit in rule.limits.values() for name in _IDENTIFIER.findall(limit.of)]
    found = []
    for ecg_id in pair["ecg_ids"]:
        for name in dict.fromkeys(name for name in named if name in known):
            value, provider = _first_value(behind.providers, ecg_id, known[name])
            if provider is not None:
                found.append(
                    {
                        "ecg_id": ecg_id,
                        "name": name,
                        "words": known[name].words,
                        "value": value,
                        "unit": known[name].unit,
                        "provider": provider,
                    }
                )
    return found


def _first_value(
    providers: Iterable[tuple[str, pa.Table]], ecg_id: str, measurement: Measurement
) -> tuple[float | None, str | None]:
    """The value that is used, and whose it is: of the first provider that has one."""
    for provider, table in providers:
        for row in table.filter(pc.equal(table["ecg_id"], ecg_id)).to_pylist():
            for name in columns_of(provider, measurement, row):
                if row[name] is not None:
                    return float(row[name]), provider
    return None, None


def _criteria(
    behind: _Behind, pair: Mapping[str, Any], rules: Mapping[tuple[str, str], Criterion]
) -> list[dict[str, Any]]:
    decided = {(row["ecg_id"], row["code"], row["criterion"]): row for row in behind.findings.to_pylist()}
    found = []
    for ecg_id in pair["ecg_ids"] or [None]:
        for (code, criterion), rule in rules.items():
            finding = decided.get((ecg_id, code, criterion))
            found.append(
                {
                    "ecg_id": ecg_id,
                    "code": code,
                    "criterion": criterion,
                    "role": rule.role,
                    "text": rule.text,
                    "verdict": finding["verdict"] if finding else None,
                    "evidence": finding["evidence"] if finding else [],
                    "limits": [f"{limit.words or limit.of} {limit.text}" for limit in rule.limits.values()],
                    "reference": behind.guidelines.reference(rule.cite),
                }
            )
    return found


def _guidelines(guidelines: GuidelineSet, codes: Iterable[str]) -> list[dict[str, Any]]:
    return [
        {
            "code": code,
            "name": guidelines.by_code[code].name,
            "definition": guidelines.by_code[code].definition,
            "verified": guidelines.by_code[code].verified,
            "references": [guidelines.reference(cite) for cite in guidelines.by_code[code].cites],
        }
        for code in codes
    ]


# ------------------------------------------------------------------------------------------------------------ template


def _template(corpus: Corpus, pair: Mapping[str, Any]) -> tuple[Template | str, dict[str, Any]]:
    """The template as the corpus keeps it (or why it cannot be read), and the lines chosen from it."""
    rows = corpus.table("templates").to_table(filter=pc.field("template_id") == pair["template_id"]).to_pylist()
    wording: dict[str, Any] = {"template_id": pair["template_id"], "template_hash": pair["template_hash"], "turns": []}
    if not rows:
        return f"the corpus does not keep the template {pair['template_id']}", wording
    row = rows[0]
    where = f"templates/{row['family']}/{row['template_id']}.jinja"
    wording |= {"file": where, "version": row["version"]}
    template, violations = parse_template(row["text"], where, kept_vocabularies(row, where))
    if template is None:
        return f"{where} can no longer be read: {violations[0].message}", wording
    for turn, choice in zip(template.turns, map(int, pair["variant"].split(".")), strict=True):
        wording["turns"].append(
            {
                "role": turn.role,
                "line": turn.lines[choice],
                "wording": turn.alternatives[choice],
                "choice": choice + 1,
                "of": len(turn.alternatives),
            }
        )
    if template.hash != pair["template_hash"]:
        return "the pair was made by another version of the template or of the renderer", wording
    return template, wording


def kept_vocabularies(row: Mapping[str, Any], where: str) -> dict[str, Vocabulary]:
    """The vocabulary of a row of the table `templates`, by its name."""
    header = re.match(r"---\n(.*?\n)---\n", row["text"], flags=re.DOTALL)
    if not row["vocabulary"] or header is None:
        return {}
    name = parse_yaml(header[1], where)["answers"]
    return {name: Vocabulary(name=name, description="as the corpus keeps it", answers=tuple(row["vocabulary"]))}


def _difference(behind: _Behind, template: Template | str, pair: Mapping[str, Any]) -> str | None:
    """None if the pair comes out the same when it is made again."""
    if isinstance(template, str):
        return template
    try:
        with LockedConnection(behind.views(), setup=[*OVER_VIEWS.values()]) as connection:
            register = EcgRegister.of(behind.ecgs)
            for rendered in render_block(template, connection, register, pair["source"]):
                same = rendered.pairs.filter(pc.equal(rendered.pairs["pair_id"], pair["pair_id"]))
                if same.num_rows:
                    return _fields_apart(pair, same.to_pylist()[0])
    except ECGLMError as error:
        return f"the pair cannot be made again: {error}"
    return "the template does not select this row again from the tables of the corpus"


def _versions_apart(corpus: Corpus) -> str:
    """Libraries that are another version now than when the corpus was made: a likely cause of a difference."""
    apart = []
    for name, version in corpus.manifest["versions"].items():
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            here = "not installed"
        if here != version:
            apart.append(f"{name} {version} (here {here})")
    return f"\nthe corpus was made with {', '.join(apart)}" if apart else ""


def _fields_apart(kept: Mapping[str, Any], made: Mapping[str, Any]) -> str | None:
    lines: list[str] = []
    for name, value in kept.items():
        if value == made[name]:
            continue
        if name == "messages":
            before, after = (
                [f"{message['role']}: {message['content']}" for message in messages] for messages in (value, made[name])
            )
            lines += difflib.unified_diff(before, after, "in the corpus", "made again", lineterm="", n=0)
        else:
            lines.append(f"{name}: {value!r} in the corpus, {made[name]!r} made again")
    return "\n".join(lines) or None


# -------------------------------------------------------------------------------------------------------------- to read


def print_explanation(explanation: Explanation, console: Console | None = None) -> None:
    """Prints an explanation, from the words back to the record."""
    from rich.console import Console

    console = console or Console(highlight=False)

    def line(text: str = "", style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    pair = explanation.pair
    line(f"pair {pair['pair_id']}  {pair['family']}, {pair['question_type']}, {pair['split']}", "bold")
    for message in pair["messages"]:
        line(f"  {message['role']}: {message['content']}")
    line(f"  answers: {', '.join(pair['answers']) or 'free text'}")
    for record in explanation.records:
        _print_record(line, record)
    if explanation.measurements:
        line("measurements", "bold")
        for row in explanation.measurements:
            unit = f" {row['unit']}" if row["unit"] else ""
            line(f"  {row['ecg_id']}  {row['name']} ({row['words']}) = {row['value']:g}{unit}, by {row['provider']}")
    if explanation.criteria:
        line("criteria", "bold")
        for row in explanation.criteria:
            line(f"  {row['code']} {row['criterion']} ({row['role']}): {row['text']}")
            values = "; ".join(
                f"{item['name']} {_number(item['value'])} {item['unit']} (limit {item['limit']})"
                for item in row["evidence"]
            )
            if row["verdict"]:
                line(f"    {row['ecg_id']}: {row['verdict']}{': ' + values if values else ''}")
            line(f"    limits: {'; '.join(row['limits']) or 'none'}")
            line(f"    {row['reference']}")
    if explanation.guidelines:
        line("guidelines", "bold")
        for row in explanation.guidelines:
            line(f"  {row['code']}, {row['name']}: {row['definition']} [{row['verified']}]")
            for reference in row["references"]:
                line(f"    {reference}")
    _print_template(line, explanation.template)
    if explanation.identical:
        line("made again from the corpus: identical, byte for byte", "green")
    else:
        line("made again from the corpus: DIFFERENT", "red")
        line(explanation.difference or "")


def _number(value: float | None) -> str:
    return "not given" if value is None else f"{value:g}"


def _print_record(line: Any, record: Mapping[str, Any]) -> None:
    age = (
        "over 89" if record["age_capped"] else "unknown" if record["age_years"] is None else f"{record['age_years']:g}"
    )
    line(f"record {record['ecg_id']}", "bold")
    line(
        f"  patient {record['patient_id']}, age {age}, {record['sex'] or 'sex unknown'}, fold {record['strat_fold']}"
        f" ({record['split']}); signal {record['signal_path']} at {record['sampling_hz']} Hz"
    )
    if record["previous_ecg_id"]:
        line(f"  {record['days_since_previous']:.0f} days after {record['previous_ecg_id']}")
    for label in record["labels"]:
        line(
            f"  {label['code']}  {label['name'] or ''}: {label['certainty']}"
            f" (likelihood {_number(label['likelihood'])}, {', '.join(label['kinds'])})"
        )
    if record["report"]:
        line(f"  report ({record['report_language'] or 'language unknown'}): {record['report']}")


def _print_template(line: Any, template: Mapping[str, Any]) -> None:
    line(f"template {template.get('file', template['template_id'])}, hash {template['template_hash']}", "bold")
    for turn in template["turns"]:
        line(f"  line {turn['line']}, {turn['role']}, wording {turn['choice']} of {turn['of']}:")
        for text in turn["wording"].splitlines():
            line(f"    {text}")
