"""`synth validate`: every problem of guidelines, templates and vocabularies, found at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa

from ecglm.synth.database import LockedConnection
from ecglm.synth.ecgqa import derive_compared, derive_ecgqa
from ecglm.synth.errors import QueryError
from ecglm.synth.facts import ECG_VIEWS, KNOWLEDGE_VIEWS, OVER_VIEWS, derive_comparisons, no_ecgs, views_of
from ecglm.synth.guideline_tables import relation_tables
from ecglm.synth.guidelines import GuidelineSet, Violation, read_guidelines
from ecglm.synth.schema import GATE, LABELS
from ecglm.synth.templates import Template, read_templates

_UNSTABLE = re.compile(
    r"\b(random|uuid|gen_random_uuid|now|today|current_date|current_timestamp|hash|tablesample)\b", re.I
)
_BRACKETS = re.compile(r"\bround\s*\(|[(\[{]|[)\]}]|,", re.I)
_LISTS_OF_TEXT = ("ecg_ids", "answers", "options", "codes", "guideline_ids")


@dataclass(frozen=True)
class Report:
    """Counts and problems."""

    guidelines: int
    criteria: int
    executable: int
    templates: int
    paraphrases: int
    violations: tuple[Violation, ...]

    @property
    def errors(self) -> tuple[Violation, ...]:
        """Violations that stop a build."""
        return tuple(violation for violation in self.violations if violation.level == "error")


def validate(guidelines_folder: Path | None = None, templates_folder: Path | None = None) -> Report:
    """Reads and checks everything a build would use, without an ECG."""
    guidelines, violations = read_guidelines(guidelines_folder)
    templates, problems = read_templates(templates_folder)
    violations = [*violations, *problems]
    if guidelines is not None:
        with LockedConnection(empty_views(guidelines), setup=[*OVER_VIEWS.values()]) as connection:
            for template in templates:
                where = f"templates/{template.header.family}/{template.id}.jinja"
                violations += [Violation(where, problem) for problem in sql_problems(template, connection)]
    known = list(guidelines.by_code.values()) if guidelines else []
    return Report(
        guidelines=len(known),
        criteria=sum(len(guideline.rules) for guideline in known),
        executable=sum(bool(guideline.rules) for guideline in known),
        templates=len(templates.by_id),
        paraphrases=sum(len(turn.alternatives) for t in templates for turn in t.turns if turn.role == "user"),
        violations=tuple(violations),
    )


def empty_views(guidelines: GuidelineSet) -> dict[str, pa.Table]:
    """Every view a template may name, without ECGs."""
    views = views_of(no_ecgs(), LABELS.empty_table(), guidelines)
    ecgqa = derive_ecgqa(views, guidelines, None)
    pairs = {"comparisons": derive_comparisons(views["facts"]), "ecgqa_compared": derive_compared(ecgqa)}
    return {**views, "ecgqa": ecgqa, **pairs, **relation_tables(guidelines), "gate": GATE.empty_table()}


@cache
def _names_of_needs(columns: tuple[str, ...], views: tuple[str, ...]) -> frozenset[str]:
    return frozenset((*columns, *views))


def _rounds_to_digits(sql: str) -> bool:
    """Whether a call of round has a second argument."""
    within: list[str] = []
    for bracket in _BRACKETS.findall(sql):
        if bracket == ",":
            if within and within[-1].lower().startswith("round"):
                return True
        elif bracket in ")]}":
            within[-1:] = []
        else:
            within.append(bracket)
    return False


def sql_problems(template: Template, connection: LockedConnection) -> list[str]:
    """What is wrong between a template's SQL, its front matter and its body."""
    header = template.header
    unstable = _UNSTABLE.search(header.sql)
    if unstable:
        return [f"sql: {unstable[0]} may differ from run to run; use stable_hash"]
    if _rounds_to_digits(header.sql):
        return [
            "sql: round(x, n) may differ from one version of DuckDB to the next where x lies in the middle;"
            " use floor(x * 100 + 0.5) / 100"
        ]
    try:
        columns = connection.columns(header.sql)
    except QueryError as error:
        return [f"sql: {error}"]
    problems = [
        f"the body uses {name!r}, which the SELECT does not return; it returns {', '.join(columns)}"
        for name in template.variables
        if name not in columns
    ]
    problems += [f"slots: {slot!r} is not a column of the SELECT" for slot in header.slots if slot not in columns]
    facts = tuple(connection.columns("SELECT * FROM facts"))
    views = (*ECG_VIEWS, *KNOWLEDGE_VIEWS)
    problems += [
        f"needs: {need!r} is neither a view nor a column of facts"
        for need in header.needs
        if need not in _names_of_needs(facts, views)
    ]
    if header.family == "knowledge":
        problems += [
            f"family knowledge is about no ECG; remove {name}" for name in ("ecg_id", "ecg_ids") if name in columns
        ]
    elif not {"ecg_id", "ecg_ids"} & set(columns):
        problems.append("the SELECT returns neither ecg_id nor ecg_ids")
    if (header.family == "ecgqa") != (header.ecgqa is not None):
        problems.append("ecgqa: templates of family ecgqa, and no others, say which question of ECG-QA they ask")
    if header.answers != "free" and "answers" not in columns:
        problems.append(f"answers: {header.answers}, but the SELECT has no column answers")
    if header.answers == "options" and "options" not in columns:
        problems.append("answers: options, but the SELECT has no column options")
    problems += [
        f"column {name} must be a list of text, found {columns[name]}"
        for name in _LISTS_OF_TEXT
        if name in columns and not columns[name].endswith("[]")
    ]
    if "evidence" in columns and not re.fullmatch(r'(STRUCT\(.*\)|"?NULL"?)\[\]', columns["evidence"]):
        problems.append(f"column evidence must be a list of {{name, value, unit, limit}}, found {columns['evidence']}")
    return problems
