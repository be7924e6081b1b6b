"""Guideline statements: loading, checking, and turning their criteria into SQL that decides them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import xxhash
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ecglm.synth.database import LockedConnection, quote_identifier, quote_text
from ecglm.synth.errors import DefinitionError, QueryError
from ecglm.synth.measure.dictionary import measurements
from ecglm.synth.schema import ECGS, GUIDELINES, LEADS
from ecglm.synth.yaml_files import parse_yaml

CATEGORIES = (
    "rhythm",
    "conduction",
    "hypertrophy",
    "voltage",
    "qt",
    "infarction",
    "ischaemia",
    "st-t",
    "general",
)
_PARAMETER = re.compile(r"\$([a-z][a-z0-9_]*)")
_NAKED_NUMBER = re.compile(r"(?<![\w.$'\"])\d+(?:\.\d+)?(?![\w.'\"])")
_FREE_NUMBERS = {"0", "1", "2", "0.0", "1.0", "2.0"}

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Citation(_Strict):
    """Where a statement stands: a key of sources.yaml and the section, table or page."""

    source: Words
    section: Words


class Limit(_Strict):
    """One number a criterion compares with: of what, how, and the unit."""

    of: Words
    is_: Literal["<", "<=", ">", ">="] = Field(alias="is")
    value: float
    unit: str
    words: Words | None = None
    when: Words | None = None

    @property
    def measured(self) -> str | None:
        """The measurement compared, if it is a single one."""
        name = self.of.strip('"')
        return name if self.words is None and name in measurements() else None

    @property
    def applies_sql(self) -> str:
        """Condition under which the value is known and the limit is for this patient."""
        return f"({self.of}) IS NOT NULL{f' AND ({self.when})' if self.when else ''}"

    @property
    def shown_as(self) -> str:
        """What is compared, in words."""
        return measurements()[self.measured].words if self.measured else self.words or self.of

    @property
    def text(self) -> str:
        """The limit as evidence shows it, e.g. `> 200 ms`."""
        sign = {"<=": "≤", ">=": "≥"}.get(self.is_, self.is_)
        gap = "" if self.unit in ("°", "/min", "") else " "
        return f"{sign} {self.value:g}{gap}{self.unit}"


class Population(_Strict):
    """For whom a criterion was published."""

    min_age_years: float | None = None
    max_age_years: float | None = None
    sex: Literal["male", "female"] | None = None

    def sql(self) -> str:
        """Condition over `ecgs` that is true for this population, NULL where age or sex is unknown."""
        parts = []
        if self.min_age_years is not None:
            parts.append(f"age_years >= {self.min_age_years:g}")
        if self.max_age_years is not None:
            parts.append(f"age_years <= {self.max_age_years:g}")
        if self.sex is not None:
            parts.append(f"sex = '{self.sex}'")
        return " AND ".join(parts) or "true"


class Criterion(_Strict):
    """One published rule that a row of measurements meets or does not meet."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    role: Literal["defining", "supporting"]
    text: Words
    sql: Words
    limits: dict[str, Limit] = {}
    population: Population = Population()
    leads: tuple[Literal[LEADS], ...] = ()  # type: ignore[valid-type]
    missing: Literal["not_assessable", "not_met"] = "not_assessable"
    cite: Citation

    @model_validator(mode="after")
    def _limits_and_sql_agree(self) -> Criterion:
        used = set(_PARAMETER.findall(self.sql))
        if used != set(self.limits):
            raise ValueError(
                f"sql uses ${sorted(used)} but limits declare {sorted(self.limits)}; they must be the same"
            )
        bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", self.sql)
        naked = [number for number in _NAKED_NUMBER.findall(bare) if number not in _FREE_NUMBERS]
        if naked:
            raise ValueError(f"sql contains the number {naked[0]}; give it a name and a unit under limits")
        for name, limit in self.limits.items():
            if limit.words is None and limit.measured is None:
                raise ValueError(f"limit {name}: `of` is not a single measurement, so it needs `words`")
        return self

    def verdict_sql(self) -> str:
        """Expression giving met | not_met | not_assessable for a row of ecgs and measurements."""
        rule = _PARAMETER.sub(lambda match: f"{self.limits[match[1]].value:g}", self.sql)
        missing = quote_text(self.missing)
        return (
            f"CASE WHEN ({self.population.sql()}) IS NOT true THEN 'not_assessable'"
            f" WHEN ({rule}) THEN 'met' WHEN NOT ({rule}) THEN 'not_met' ELSE {missing} END"
        )

    def evidence_sql(self) -> str:
        """Expression giving the list of values that were compared, with their limits."""
        items = [
            (
                limit.applies_sql,
                f"{{'name': {quote_text(limit.measured or limit.words or '')}, 'value': ({limit.of})::DOUBLE,"
                f" 'unit': {quote_text(limit.unit)}, 'limit': {quote_text(limit.text)}}}",
            )
            for limit in self.limits.values()
        ]
        return _list_of_those_that_hold(items)

    def evidence_words_sql(self) -> str:
        """Expression giving the same values as a list of words, e.g. `PR interval 212 ms (limit > 200 ms)`."""
        same_value: dict[tuple[str, str, str], list[Limit]] = {}
        for limit in self.limits.values():
            same_value.setdefault((limit.applies_sql, limit.shown_as, limit.unit), []).append(limit)
        items = []
        for (condition, words, unit), limits in same_value.items():
            none_found = measurements()[limits[0].measured].none_found if limits[0].measured else None
            if none_found is not None:
                choice = f"CASE WHEN {limits[0].of} > 0 THEN {quote_text(words)} ELSE {quote_text(none_found)} END"
                items.append((condition, choice))
                continue
            word = "limit" if len(limits) == 1 else "limits"
            ending = f" ({word} {' and '.join(limit.text for limit in limits)})"
            value = f"quantity(({limits[0].of})::DOUBLE, {quote_text(unit)})"
            items.append((condition, f"{quote_text(words + ' ')} || {value} || {quote_text(ending)}"))
        return _list_of_those_that_hold(items)

    @cached_property
    def measurements(self) -> frozenset[str]:
        """Measurements its SQL names."""
        text = " ".join((self.sql, *(f"{limit.of} {limit.when or ''}" for limit in self.limits.values())))
        words = set(re.findall(r"\"[^\"]+\"|\w+", text))
        return frozenset(word.strip('"') for word in words) & measurements().keys()


def _list_of_those_that_hold(items: list[tuple[str, str]]) -> str:
    """SQL of a list with the second of each pair for which the first, a condition, is true."""
    if len(items) == 1:
        return f"CASE WHEN {items[0][0]} THEN [{items[0][1]}] ELSE [] END"
    choices = ", ".join(f"CASE WHEN {condition} THEN {item} END" for condition, item in items)
    return f"list_filter([{choices}], lambda e: e IS NOT NULL)" if items else "[]"


class Confusion(_Strict):
    """A statement this one is taken for, and what tells them apart."""

    code: Words
    how: Words


class NoCriteria(_Strict):
    """Why no row of measurements can decide a statement."""

    reason: Words
    cite: Citation


class Synonyms(_Strict):
    """Other names, by language."""

    en: tuple[Words, ...] = ()
    de: tuple[Words, ...] = ()
    sv: tuple[Words, ...] = ()


class Guideline(_Strict):
    """One statement: what it is, what decides it, what it is confused with, and who says so."""

    code: Words
    name: Words
    phrase: Words
    kinds: tuple[Literal["diagnostic", "form", "rhythm", "axis", "infarction_stage"], ...]
    synonyms: Synonyms = Synonyms()
    definition: Words
    meaning: Words
    pitfalls: Words
    next_steps: Words | None = None
    confused_with: tuple[Confusion, ...] = ()
    overlaps: tuple[Words, ...] = ()
    absence_unsure_when: Words | None = None
    criteria: tuple[Criterion, ...] | Literal["none"]
    no_criteria: NoCriteria | None = None
    cites: tuple[Citation, ...] = Field(min_length=1)
    verified: Annotated[str, StringConstraints(pattern=r"^(document|secondary \(.+\)|textbook knowledge)$")]

    @model_validator(mode="after")
    def _criteria_or_reason(self) -> Guideline:
        if (self.criteria == "none") != (self.no_criteria is not None):
            raise ValueError("give either a list of criteria, or `criteria: none` with `no_criteria: {reason, cite}`")
        ids = [criterion.id for criterion in self.rules]
        if len(set(ids)) != len(ids):
            raise ValueError(f"criterion ids must differ, found {ids}")
        return self

    @property
    def rules(self) -> tuple[Criterion, ...]:
        """The executable criteria; empty for `criteria: none`."""
        return () if isinstance(self.criteria, str) else self.criteria


class Source(_Strict):
    """One entry of the bibliography."""

    authors: Words
    title: Words
    journal: Words
    year: int
    doi: Annotated[str, StringConstraints(pattern=r"^10\.\d{4,9}/\S+$")] | None = None
    url: Words | None = None

    @model_validator(mode="after")
    def _can_be_found(self) -> Source:
        if self.doi is None and self.url is None:
            raise ValueError("a source needs a doi or a url")
        return self

    @property
    def short(self) -> str:
        """`Kusumoto et al. 2018`."""
        first = self.authors.split(",")[0].removesuffix(" et al.").strip()
        surname = first.rsplit(" ", 1)[0] if " " in first else first
        several = "," in self.authors or "et al" in self.authors
        return f"{surname}{' et al.' if several else ''} {self.year}"


@dataclass(frozen=True)
class Violation:
    """One problem found by validation."""

    where: str
    message: str
    level: Literal["error", "warning"] = "error"


@dataclass(frozen=True)
class GuidelineSet:
    """All guideline statements of a folder with their texts, categories and bibliography."""

    by_code: Mapping[str, Guideline]
    categories: Mapping[str, str]
    texts: Mapping[str, str]
    sources: Mapping[str, Source]
    sources_text: str

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every guideline file and the bibliography."""
        digest = xxhash.xxh3_128()
        for code in sorted(self.texts):
            digest.update(f"{code}\x1f{self.categories[code]}\x1f{self.texts[code]}\x1e".encode())
        digest.update(self.sources_text.encode())
        return digest.hexdigest()

    def citation(self, cite: Citation) -> str:
        """`Kusumoto et al. 2018, section 2.1`."""
        return f"{self.sources[cite.source].short}, {cite.section}"

    def table(self) -> pa.Table:
        """The `guidelines` table of a corpus, ordered by code."""
        rows = [
            {
                "code": code,
                "category": self.categories[code],
                "name": guideline.name,
                "phrase": guideline.phrase,
                "kinds": list(guideline.kinds),
                "n_criteria": len(guideline.rules),
                "verified": guideline.verified,
                "citations": [self.reference(cite) for cite in guideline.cites],
                "guideline_hash": xxhash.xxh3_128_hexdigest(self.texts[code].encode()),
                "text": self.texts[code],
            }
            for code, guideline in sorted(self.by_code.items())
        ]
        return pa.Table.from_pylist(rows, schema=GUIDELINES)

    def reference(self, cite: Citation) -> str:
        """Full reference with DOI and section."""
        source = self.sources[cite.source]
        link = f"doi:{source.doi}" if source.doi else source.url
        return f"{source.authors}. {source.title}. {source.journal} ({source.year}). {link}. {cite.section}"


def load_guidelines(folder: Path | None = None) -> GuidelineSet:
    """All guidelines of a folder (default: those that come with ecglm).

    Raises:
        DefinitionError: one message that lists every problem found.
    """
    guidelines, violations = read_guidelines(folder)
    errors = [violation for violation in violations if violation.level == "error"]
    if errors or guidelines is None:
        raise DefinitionError("\n".join(f"{v.where}: {v.message}" for v in errors))
    return guidelines


def read_guidelines(folder: Path | None = None) -> tuple[GuidelineSet | None, list[Violation]]:
    """The guidelines that could be read, and everything that is wrong with them."""
    root = folder if folder is not None else Path(str(resources.files("ecglm.guidelines")))
    if not (root / "sources.yaml").is_file():
        return None, [
            Violation(str(root), "sources.yaml is missing: a guideline folder holds it beside its categories")
        ]
    violations: list[Violation] = []
    sources_text = (root / "sources.yaml").read_text(encoding="utf-8")
    sources = _sources(sources_text, str(root / "sources.yaml"), violations)
    files = {path: path.read_text(encoding="utf-8") for path in sorted(root.glob("*/*.yaml"))}
    return _assemble(
        {(path.parent.name, _where(path, root)): text for path, text in files.items()},
        sources,
        sources_text,
        violations,
    )


def guidelines_from_texts(texts: Iterable[tuple[str, str]], sources_text: str) -> GuidelineSet:
    """Guidelines from (category, text) rows and a bibliography, as a corpus keeps them."""
    violations: list[Violation] = []
    sources = _sources(sources_text, "sources.yaml", violations)
    files = {(category, f"{category}/{number}"): text for number, (category, text) in enumerate(texts)}
    guidelines, _ = _assemble(files, sources, sources_text, violations)
    if violations or guidelines is None:
        raise DefinitionError("\n".join(f"{v.where}: {v.message}" for v in violations))
    return guidelines


def _where(path: Path, root: Path) -> str:
    return f"guidelines/{path.relative_to(root).as_posix()}"


def _sources(text: str, where: str, violations: list[Violation]) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    try:
        entries = parse_yaml(text, where) or {}
    except DefinitionError as error:
        violations.append(Violation(where, str(error)))
        return sources
    for key, entry in entries.items():
        try:
            sources[key] = Source.model_validate(entry)
        except ValidationError as error:
            violations.extend(Violation(f"{where}: {key}", message) for message in _messages(error))
    return sources


def _assemble(
    files: Mapping[tuple[str, str], str], sources: dict[str, Source], sources_text: str, violations: list[Violation]
) -> tuple[GuidelineSet | None, list[Violation]]:
    by_code: dict[str, Guideline] = {}
    categories: dict[str, str] = {}
    texts: dict[str, str] = {}
    places: dict[str, str] = {}
    for (category, where), text in files.items():
        try:
            guideline = Guideline.model_validate(parse_yaml(text, where))
        except DefinitionError as error:
            violations.append(Violation(where, str(error).removeprefix(where).lstrip(", :")))
            continue
        except ValidationError as error:
            violations.extend(Violation(where, message) for message in _messages(error))
            continue
        if category not in CATEGORIES:
            violations.append(Violation(where, f"folder {category!r} is not one of {', '.join(CATEGORIES)}"))
        if guideline.code in by_code:
            violations.append(Violation(where, f"code {guideline.code} is already defined in {places[guideline.code]}"))
            continue
        by_code[guideline.code], categories[guideline.code] = guideline, category
        texts[guideline.code], places[guideline.code] = text, where
    guidelines = GuidelineSet(by_code, categories, texts, sources, sources_text)
    for code, guideline in by_code.items():
        violations.extend(Violation(places[code], message) for message in _cross_checks(guideline, guidelines))
    violations.extend(_sql_checks(guidelines, places))
    return guidelines, violations


def _messages(error: ValidationError) -> list[str]:
    return [
        f"{'.'.join(str(part) for part in problem['loc'] if part != 'is_') or 'file'}: {problem['msg']}"
        for problem in error.errors()
    ]


def _cross_checks(guideline: Guideline, guidelines: GuidelineSet) -> list[str]:
    problems = []
    cites = [*guideline.cites, *(rule.cite for rule in guideline.rules)]
    if guideline.no_criteria:
        cites.append(guideline.no_criteria.cite)
    problems += [
        f"cites {c.source!r}, which sources.yaml does not have" for c in cites if c.source not in guidelines.sources
    ]
    for field, codes in (
        ("confused_with", [confusion.code for confusion in guideline.confused_with]),
        ("overlaps", list(guideline.overlaps)),
    ):
        problems += [f"{field}: {code!r} has no guideline" for code in codes if code not in guidelines.by_code]
        problems += [f"{field}: names itself" for code in codes if code == guideline.code]
    return problems


def _sql_checks(guidelines: GuidelineSet, places: Mapping[str, str]) -> list[Violation]:
    violations = []
    table = "CREATE TABLE measured_ecgs AS SELECT * FROM merged"  # planning many queries over Arrow is slow
    with LockedConnection({"merged": empty_measured_ecgs()}, setup=[table]) as connection:
        for code, guideline in guidelines.by_code.items():
            texts = {f"criterion {rule.id}": _finding_sql(code, rule) for rule in guideline.rules}
            if guideline.absence_unsure_when:
                texts["absence_unsure_when"] = f"SELECT ({guideline.absence_unsure_when})::BOOLEAN FROM measured_ecgs"
            for place, sql in texts.items():
                try:
                    connection.columns(sql)
                except QueryError as error:
                    violations.append(Violation(places[code], f"{place}: {error}"))
    return violations


def empty_measured_ecgs() -> pa.Table:
    """No rows, with every column a criterion may name: those of `ecgs` and all measurements."""
    fields = [*ECGS, *(pa.field(name, pa.float64()) for name in measurements())]
    return pa.schema(fields).empty_table()


def _finding_sql(code: str, rule: Criterion) -> str:
    return (
        f"SELECT ecg_id, {quote_text(code)} AS code, {quote_text(rule.id)} AS criterion,"
        f" {rule.verdict_sql()} AS verdict, {rule.evidence_sql()} AS evidence,"
        f" {rule.evidence_words_sql()} AS evidence_words FROM measured_ecgs"
    )


def findings_sql(guidelines: GuidelineSet, measured: Collection[str]) -> str:
    """One SELECT over `measured_ecgs` (ecgs and measurements) that decides every criterion for every ECG.

    Args:
        guidelines: whose criteria are decided.
        measured: measurements with a value in at least one ECG; criteria on others alone are not assessable anywhere.
    """
    parts = [
        _finding_sql(code, rule)
        if not rule.measurements or rule.measurements & set(measured)
        else (
            f"SELECT ecg_id, {quote_text(code)} AS code, {quote_text(rule.id)} AS criterion,"
            f" {quote_text(rule.missing)} AS verdict, [] AS evidence, [] AS evidence_words FROM measured_ecgs"
        )
        for code, guideline in sorted(guidelines.by_code.items())
        for rule in guideline.rules
    ]
    if not parts:
        parts = [
            "SELECT ecg_id, '' AS code, '' AS criterion, '' AS verdict,"
            ' []::STRUCT(name VARCHAR, value DOUBLE, unit VARCHAR, "limit" VARCHAR)[] AS evidence,'
            " []::VARCHAR[] AS evidence_words FROM measured_ecgs WHERE false"
        ]
    return " UNION ALL ".join(parts)


def relation_tables(guidelines: GuidelineSet) -> dict[str, pa.Table]:
    """Guideline knowledge as tables for SQL: guidelines, guideline_criteria, confusions, overlapping."""
    texts: list[dict[str, Any]] = []
    criteria: list[dict[str, Any]] = []
    confusions: list[dict[str, Any]] = []
    overlaps: set[tuple[str, str]] = set()
    for code, guideline in sorted(guidelines.by_code.items()):
        known = [c for c in guideline.confused_with if c.code in guidelines.by_code]
        texts.append(
            {
                "code": code,
                "category": guidelines.categories[code],
                "name": guideline.name,
                "phrase": guideline.phrase,
                "kinds": list(guideline.kinds),
                "definition": guideline.definition,
                "meaning": guideline.meaning,
                "pitfalls": guideline.pitfalls,
                "next_steps": guideline.next_steps,
                "synonyms_text": ", ".join(guideline.synonyms.en) or None,
                "differential_text": "; ".join(f"{guidelines.by_code[c.code].name} ({c.how})" for c in known) or None,
                "criteria_text": "; ".join(rule.text for rule in guideline.rules) or None,
                "citation_text": "; ".join(guidelines.citation(cite) for cite in guideline.cites),
                "no_criteria_reason": guideline.no_criteria.reason if guideline.no_criteria else None,
                "absence_unsure": guideline.absence_unsure_when is not None,
            }
        )
        for rule in guideline.rules:
            source = guidelines.sources[rule.cite.source]
            criteria.append(
                {
                    "code": code,
                    "name": guideline.name,
                    "phrase": guideline.phrase,
                    "criterion": rule.id,
                    "role": rule.role,
                    "criterion_text": rule.text,
                    "citation": guidelines.citation(rule.cite),
                    "doi": source.doi or source.url,
                }
            )
        for confusion in known:
            other = guidelines.by_code[confusion.code]
            confusions.append(
                {
                    "code": code,
                    "name": guideline.name,
                    "phrase": guideline.phrase,
                    "other_code": confusion.code,
                    "other_name": other.name,
                    "other_phrase": other.phrase,
                    "how": confusion.how,
                }
            )
        overlaps |= {pair for other in guideline.overlaps for pair in ((code, other), (other, code))}
    texts_schema = pa.schema(
        [
            *(pa.field(name, pa.string()) for name in ("code", "category", "name", "phrase")),
            pa.field("kinds", pa.list_(pa.string())),
            *(
                pa.field(name, pa.string())
                for name in (
                    "definition",
                    "meaning",
                    "pitfalls",
                    "next_steps",
                    "synonyms_text",
                    "differential_text",
                    "criteria_text",
                    "citation_text",
                    "no_criteria_reason",
                )
            ),
            pa.field("absence_unsure", pa.bool_()),
        ]
    )
    return {
        "guidelines": pa.Table.from_pylist(texts, schema=texts_schema),
        "guideline_criteria": _text_table(
            criteria, ("code", "name", "phrase", "criterion", "role", "criterion_text", "citation", "doi")
        ),
        "confusions": _text_table(
            confusions, ("code", "name", "phrase", "other_code", "other_name", "other_phrase", "how")
        ),
        "overlapping": _text_table(
            [{"code": code, "other_code": other} for code, other in sorted(overlaps)], ("code", "other_code")
        ),
    }


def _text_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([(column, pa.string()) for column in columns]))


def unsure_absence_sql(guidelines: GuidelineSet) -> str:
    """One SELECT over `measured_ecgs` listing (ecg_id, code) whose absence the record's own columns put in doubt."""
    parts = [
        f"SELECT ecg_id, {quote_text(code)} AS code FROM measured_ecgs WHERE ({guideline.absence_unsure_when})"
        for code, guideline in sorted(guidelines.by_code.items())
        if guideline.absence_unsure_when
    ]
    return " UNION ALL ".join(parts) or "SELECT ecg_id, '' AS code FROM measured_ecgs WHERE false"


__all__ = [
    "Criterion",
    "Guideline",
    "GuidelineSet",
    "Violation",
    "empty_measured_ecgs",
    "findings_sql",
    "guidelines_from_texts",
    "load_guidelines",
    "quote_identifier",
    "read_guidelines",
    "relation_tables",
    "unsure_absence_sql",
]
