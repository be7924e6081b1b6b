"""Criteria: published rules as SQL over one row of measurements, with every limit a number, a unit and a source."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

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

    def value_sql(self) -> str:
        """Expression giving the value compared; NULL where it is not known or the limit is not for this patient."""
        return f"CASE WHEN ({self.when}) THEN ({self.of})::DOUBLE END" if self.when else f"({self.of})::DOUBLE"

    @property
    def shown_as(self) -> str:
        """What is compared, in words."""
        return measurements()[self.measured].words if self.measured else self.words or self.of

    @property
    def text(self) -> str:
        """The limit as evidence shows it, e.g. `> 200 ms`."""
        sign = {"<=": "≤", ">=": "≥"}.get(self.is_, self.is_)
        unit = "" if self.unit == "beats" else self.unit  # what is counted is said in the words
        gap = "" if unit in ("°", "/min", "") else " "
        return f"{sign} {self.value:g}{gap}{unit}"


class Population(Strict):
    """For whom a criterion was published; ages in completed years: 39 lasts until the 40th birthday."""

    min_age_years: float | None = None
    max_age_years: float | None = None
    sex: Literal["male", "female"] | None = None

    def sql(self) -> str:
        """Condition over `ecgs` that is true for this population, NULL where age or sex is unknown."""
        parts = []
        if self.min_age_years is not None:
            parts.append(f"age_years >= {self.min_age_years:g}")
        if self.max_age_years is not None:
            parts.append(f"age_years < {self.max_age_years + 1:g}")
        if self.sex is not None:
            parts.append(f"sex = '{self.sex}'")
        return " AND ".join(parts) or "true"


class Criterion(Strict):
    """One published rule that a row of measurements meets or does not meet."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    role: Literal["defining", "supporting"]
    suggests: bool = True
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

    def holds_sql(self) -> str:
        """Expression that is true where a row of ecgs and measurements meets the rule, false where it does not, and
        NULL where it cannot be assessed."""
        rule = _PARAMETER.sub(lambda match: f"{self.limits[match[1]].value:g}", self.sql)
        if self.missing == "not_met":
            rule = f"coalesce(({rule}), false)"
        return f"CASE WHEN {self.population.sql()} THEN ({rule}) END"

    def expressions(self) -> list[str]:
        """Every expression over a row of ecgs and measurements that deciding the rule evaluates."""
        return [f"({self.holds_sql()})::BOOLEAN", *(limit.value_sql() for limit in self.limits.values())]

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
    "beats": ("%.0f", "%.2f"),
    "": ("%.3g", "%.6g"),
}


def format_quantity(value: float, unit: str, limits: Sequence[float] = ()) -> str:
    """A value like the SQL macro `quantity` prints it, with more digits where rounding would show one of the limits."""
    plain, fine = _FORMATS.get(unit, (f"%.0f {unit}", f"%.2f {unit}"))
    text = plain % (math.copysign(math.floor(abs(value) + 0.5), value) + 0.0 if unit == "°" else value)
    return fine % value if value not in limits and text in _printed(plain, tuple(limits)) else text


@lru_cache(maxsize=4096)
def _printed(plain: str, limits: tuple[float, ...]) -> frozenset[str]:
    return frozenset(plain % limit for limit in limits)


def empty_measured_ecgs() -> pa.Table:
    """No rows, with every column a criterion may name: those of `ecgs` and all measurements."""
    fields = [*ECGS, *(pa.field(name, pa.float64()) for name in measurements())]
    return pa.schema(fields).empty_table()
