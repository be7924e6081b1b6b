"""Criteria: published rules as SQL over one row of measurements, with every limit a number, a unit and a source."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from ecglm.synth.database import quantity_sql, quote_text
from ecglm.synth.measure.dictionary import measurements
from ecglm.synth.schema import ECGS, LEADS

_PARAMETER = re.compile(r"\$([a-z][a-z0-9_]*)")


_NAKED_NUMBER = re.compile(r"(?<![\w.$'\"])\d+(?:\.\d+)?(?![\w.'\"])")


_FREE_NUMBERS = {"0", "1", "2", "0.0", "1.0", "2.0"}


Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Strict(BaseModel):
    """A frozen model that knows all its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Citation(Strict):
    """Where a statement stands: a key of sources.yaml and the section, table or page."""

    source: Words
    section: Words


class Limit(Strict):
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


class Population(Strict):
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


class Criterion(Strict):
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
            value = _quantity_beside_sql(limits[0].of, unit, [limit.value for limit in limits])
            items.append((condition, f"{quote_text(words + ' ')} || {value} || {quote_text(ending)}"))
        return _list_of_those_that_hold(items)

    @cached_property
    def measurements(self) -> frozenset[str]:
        """Measurements its SQL names."""
        text = " ".join((self.sql, *(f"{limit.of} {limit.when or ''}" for limit in self.limits.values())))
        words = set(re.findall(r"\"[^\"]+\"|\w+", text))
        return frozenset(word.strip('"') for word in words) & measurements().keys()


_FORMATS = {
    "mV": ("%.2f mV", "%.4f mV"),
    "°": ("%.0f°", "%.2f°"),
    "/min": ("%.0f/min", "%.2f/min"),
    "": ("%.3g", "%.6g"),
}


def _quantity_beside_sql(of: str, unit: str, limits: list[float]) -> str:
    """SQL that prints a value like the macro `quantity`, with more digits where rounding would show a limit itself."""
    plain, fine = _FORMATS.get(unit, (f"%.0f {unit}", f"%.2f {unit}"))
    value = f"({of})::DOUBLE"
    shown = quantity_sql(value, unit)
    rounded = ", ".join(quote_text(plain % limit) for limit in limits)
    exact = ", ".join(f"{limit:g}" for limit in limits)
    return (
        f"CASE WHEN {shown} IN ({rounded}) AND {value} NOT IN ({exact})"
        f" THEN printf({quote_text(fine)}, {value}) ELSE {shown} END"
    )


def _list_of_those_that_hold(items: list[tuple[str, str]]) -> str:
    """SQL of a list with the second of each pair for which the first, a condition, is true."""
    if len(items) == 1:
        return f"CASE WHEN {items[0][0]} THEN [{items[0][1]}] ELSE [] END"
    choices = ", ".join(f"CASE WHEN {condition} THEN {item} END" for condition, item in items)
    return f"list_filter([{choices}], lambda e: e IS NOT NULL)" if items else "[]"


def empty_measured_ecgs() -> pa.Table:
    """No rows, with every column a criterion may name: those of `ecgs` and all measurements."""
    fields = [*ECGS, *(pa.field(name, pa.float64()) for name in measurements())]
    return pa.schema(fields).empty_table()


def finding_sql(code: str, rule: Criterion) -> str:
    return (
        f"SELECT ecg_id, {quote_text(code)} AS code, {quote_text(rule.id)} AS criterion,"
        f" {rule.verdict_sql()} AS verdict, {rule.evidence_sql()} AS evidence,"
        f" {rule.evidence_words_sql()} AS evidence_words FROM measured_ecgs"
    )
