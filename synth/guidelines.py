"""Guideline statements: loading, checking, and turning their criteria into SQL that decides them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import xxhash
from pydantic import Field, StringConstraints, ValidationError, model_validator

from ecglm.synth.criteria import Citation, Criterion, Strict, Words, empty_measured_ecgs
from ecglm.synth.database import LockedConnection
from ecglm.synth.errors import DefinitionError, QueryError
from ecglm.synth.schema import GUIDELINES, LEADS
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
    "normal",
    "signal",
    "anatomy",
)
Kind = Literal[
    "diagnostic",
    "form",
    "rhythm",
    "axis",
    "infarction_stage",
    "extra_beats",
    "pacemaker",
    "normal_range",
    "signal_quality",
    "electrode_position",
    "anatomy",
]
LANGUAGES = ("en", "de", "sv")


class Confusion(Strict):
    """A statement this one is taken for, and what tells them apart."""

    code: Words
    how: Words


class NoCriteria(Strict):
    """Why no row of measurements can decide a statement."""

    reason: Words
    cite: Citation


class Synonyms(Strict):
    """Other names, by language."""

    en: tuple[Words, ...] = ()
    de: tuple[Words, ...] = ()
    sv: tuple[Words, ...] = ()


class Wall(Strict):
    """What looks at a wall of the heart and what feeds it."""

    leads: tuple[Literal[LEADS], ...] = ()  # type: ignore[valid-type]
    further_leads: tuple[Words, ...] = ()
    opposite_leads: tuple[Literal[LEADS], ...] = ()  # type: ignore[valid-type]
    arteries: tuple[Words, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_seen(self) -> Wall:
        if not self.leads and not self.further_leads:
            raise ValueError("a wall needs leads or further_leads that look at it")
        return self


class Guideline(Strict):
    """One statement: what it is, what decides it, what it is confused with, and who says so."""

    code: Words
    name: Words
    phrase: Words
    kinds: tuple[Kind, ...] = Field(min_length=1)
    synonyms: Synonyms = Synonyms()
    definition: Words
    plain: Words | None = None
    meaning: Words
    pitfalls: Words
    next_steps: Words | None = None
    confused_with: tuple[Confusion, ...] = ()
    overlaps: tuple[Words, ...] = ()
    absence_unsure_when: Words | None = None
    wall: Wall | None = None
    walls: tuple[Words, ...] = ()
    criteria: tuple[Criterion, ...] | Literal["none"]
    criteria_exhaustive: bool = False
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
        if ("anatomy" in self.kinds) != (self.wall is not None):
            raise ValueError("a file of kind anatomy has a `wall: {leads, arteries}`, and no other file has one")
        return self

    @property
    def rules(self) -> tuple[Criterion, ...]:
        """The executable criteria; empty for `criteria: none`."""
        return () if isinstance(self.criteria, str) else self.criteria

    def names(self, language: str) -> tuple[str, ...]:
        """Name and synonyms in a language, and those with umlauts also as PTB-XL's reports spell them."""
        own = (self.name,) if language == "en" else ()
        given: tuple[str, ...] = (*own, *getattr(self.synonyms, language))
        return tuple(dict.fromkeys((*given, *(spelt for name in given if (spelt := damaged(name)) != name.lower()))))


_DAMAGE = str.maketrans("äöüå", "ÄÖÜÅ")


def damaged(name: str) -> str:
    """As a report reads whose letters were made small one byte at a time: `vÄnster`, `mÖglich`."""
    return name.lower().translate(_DAMAGE)


class Source(Strict):
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
        """`Kusumoto et al. 2018`, `Sokolow and Lyon 1949`."""
        names = [name.strip() for name in self.authors.removesuffix("et al.").split(",") if name.strip()]
        surnames = [name.rsplit(" ", 1)[0] for name in names]
        if "et al" in self.authors or len(surnames) > 2:
            return f"{surnames[0]} et al. {self.year}"
        return f"{' and '.join(surnames)} {self.year}"


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
        return f"{source.authors.rstrip('.')}. {source.title}. {source.journal} ({source.year}). {link}. {cite.section}"


def load_guidelines(folder: Path | None = None, *, check_sql: bool = True) -> GuidelineSet:
    """All guidelines of a folder (default: those that come with ecglm); `check_sql` plans every criterion.

    Raises:
        DefinitionError: one message that lists every problem found.
    """
    guidelines, violations = read_guidelines(folder, check_sql=check_sql)
    errors = [violation for violation in violations if violation.level == "error"]
    if errors or guidelines is None:
        raise DefinitionError("\n".join(f"{v.where}: {v.message}" for v in errors))
    return guidelines


def read_guidelines(
    folder: Path | None = None, *, check_sql: bool = True
) -> tuple[GuidelineSet | None, list[Violation]]:
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
        check_sql=check_sql,
    )


def guidelines_from_texts(texts: Iterable[tuple[str, str]], sources_text: str) -> GuidelineSet:
    """Guidelines from (category, text) rows and a bibliography, as a corpus keeps them."""
    violations: list[Violation] = []
    sources = _sources(sources_text, "sources.yaml", violations)
    files = {(category, f"{category}/{number}"): text for number, (category, text) in enumerate(texts)}
    guidelines, _ = _assemble(files, sources, sources_text, violations, check_sql=False)
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
    files: Mapping[tuple[str, str], str],
    sources: dict[str, Source],
    sources_text: str,
    violations: list[Violation],
    *,
    check_sql: bool,
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
    violations.extend(Violation(places[code], message) for code, message in _shared_names(guidelines))
    if check_sql:
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
        ("walls", list(guideline.walls)),
    ):
        problems += [f"{field}: {code!r} has no guideline" for code in codes if code not in guidelines.by_code]
        problems += [f"{field}: names itself" for code in codes if code == guideline.code]
    problems += [
        f"walls: {code!r} is not of kind anatomy"
        for code in guideline.walls
        if code in guidelines.by_code and guidelines.by_code[code].wall is None
    ]
    return problems


def _shared_names(guidelines: GuidelineSet) -> list[tuple[str, str]]:
    """(code, message) for every name two statements share without saying that they overlap."""
    overlapping = {frozenset((code, other)) for code, g in guidelines.by_code.items() for other in g.overlaps}
    problems = []
    for language in LANGUAGES:
        owners: dict[str, list[str]] = {}
        for code, guideline in guidelines.by_code.items():
            for name in dict.fromkeys(name.casefold() for name in guideline.names(language)):
                owners.setdefault(name, []).append(code)
        problems += [
            (code, f"synonyms: {name!r} ({language}) also names {other}; reword it, or name {other} under overlaps")
            for name, codes in owners.items()
            for other, code in combinations(codes, 2)
            if frozenset((code, other)) not in overlapping
        ]
    return problems


def _sql_checks(guidelines: GuidelineSet, places: Mapping[str, str]) -> list[Violation]:
    """What cannot be planned; all together first, which takes a quarter of the time of one after the other."""
    expressions: list[tuple[str, str, list[str]]] = []
    for code, guideline in guidelines.by_code.items():
        expressions += [(places[code], f"criterion {rule.id}", rule.expressions()) for rule in guideline.rules]
        if guideline.absence_unsure_when:
            doubt = f"({guideline.absence_unsure_when})::BOOLEAN"
            expressions.append((places[code], "absence_unsure_when", [doubt]))
    with LockedConnection({}) as connection:
        with connection.lent({"no_ecgs": empty_measured_ecgs()}):
            connection.create("measured_ecgs", "FROM no_ecgs")

        def problem(sql: Iterable[str]) -> str | None:
            try:
                connection.columns(f"SELECT {', '.join(dict.fromkeys(sql))} FROM measured_ecgs")
            except QueryError as error:
                return str(error)
            return None

        if problem(["1", *(sql for _, _, parts in expressions for sql in parts)]) is None:
            return []
        alone = [(where, place, problem(parts)) for where, place, parts in expressions]
    return [Violation(where, f"{place}: {message}") for where, place, message in alone if message]
