"""Every limit of every criterion, tried from both sides on rows made for it: the verdict turns at the number declared.
The rows follow from the files, so a new criterion needs no new test."""

from __future__ import annotations

import operator
import re
import zlib
from dataclasses import dataclass
from itertools import pairwise

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ecglm.synth.criteria import Criterion
from ecglm.synth.findings import rules_of
from ecglm.synth.guidelines import load_guidelines
from ecglm.synth.measure.dictionary import measurements

Doubles = npt.NDArray[np.float64]
Columns = dict[str, Doubles]

DRAWS, PAIRS, HALVINGS = 20_000, 16, 32
USUAL = {"mV": 0.5, "mV·ms": 10.0, "ms": 60.0, "°": 60.0, "/min": 80.0, "beats": 6.0, "grade": 3.0, "": 1.0}
SIGNED = {"mV", "mV·ms", "°", ""}
HOLDS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Trial:
    """Pairs of rows, one that meets a rule and one that does not; they differ only in what a limit of it compares."""

    rule: int
    limit: str
    sex: list[str]
    met: Columns
    unmet: Columns


class Made:
    """Asks SQL of made rows."""

    def __init__(self) -> None:
        self.connection = duckdb.connect(config={"threads": 1})

    def ask(self, what: str, columns: Columns, sex: list[str], age: Doubles, **more: object) -> npt.NDArray[np.generic]:
        places = pa.array(np.arange(len(sex)))
        rows = pa.table({**columns, "sex": pa.array(sex), "age_years": pa.array(age), "place": places, **more})
        self.connection.register("rows", rows)
        answer = self.connection.execute(f"SELECT ({what}) AS answer FROM rows ORDER BY place").fetchnumpy()
        return np.ma.filled(answer["answer"], np.nan)


def age_of(rule: Criterion) -> float:
    population = rule.population
    return population.min_age_years if population.min_age_years is not None else population.max_age_years or 60.0


def drawn(rule: Criterion, random: np.random.Generator) -> Columns:
    """Values around the limits of the rule and around what is usual. In some rows a kind of wave has one sign in all
    leads, or is small or 0 in many, so that rules which ask the same of many leads are met by some."""
    columns: Columns = {}
    kinds: dict[str, tuple[npt.NDArray[np.generic], ...]] = {}
    for name in sorted(rule.measurements):
        unit = measurements()[name].unit
        scales = np.array(
            [USUAL[unit], *(abs(one.value) for one in rule.limits.values() if one.unit == unit and one.value)]
        )
        sign, zeros, scale = kinds.setdefault(
            name.rsplit("_", 1)[0],
            (
                random.choice([-1, 0, 1], DRAWS),
                random.choice([0.0, 0.1, 0.6], DRAWS),
                random.choice(scales, DRAWS) * random.choice([1.0, 1.0, 0.1], DRAWS),
            ),
        )
        values = scale * random.uniform(0.2, 2.5, DRAWS)
        if unit in SIGNED:
            either, outlier = random.choice([-1, 1], DRAWS), random.choice([-1, 1], DRAWS, p=[0.1, 0.9])
            values *= np.where(sign == 0, either, sign * outlier)
        columns[name] = np.where(random.random(DRAWS) < zeros, 0.0, values)
    return columns


def compared(of: str, columns: Columns) -> list[str]:
    return [name for name in columns if re.search(rf"(?<![\w-]){re.escape(name)}(?!\w)", of)]


def trials(made: Made, number: int, name: str, rule: Criterion) -> list[Trial]:
    random = np.random.default_rng(zlib.crc32(name.encode()))  # by its name: what stands before it changes nothing
    sexes = [rule.population.sex] if rule.population.sex else ["male", "female"]
    sex = random.choice(sexes, DRAWS)
    columns, age = drawn(rule, random), np.full(DRAWS, age_of(rule))
    holds = f"coalesce({rule.holds_sql()}, false)"
    met = np.flatnonzero(made.ask(holds, columns, sex.tolist(), age))
    found = []
    for each, limit in rule.limits.items():
        if limit.when == "FALSE" or not len(met):  # a constant of the rule
            continue
        base = random.choice(met, DRAWS)
        before = {key: values[base] for key, values in columns.items()}
        after = dict(before)
        for key in compared(limit.of, columns):  # only what this limit compares is drawn anew, all of it or a part
            after[key] = np.where(random.random(DRAWS) < 0.6, columns[key][random.permutation(DRAWS)], before[key])
        whose = sex[base].tolist()
        unmet = ~np.asarray(made.ask(holds, after, whose, age), bool)
        broken = ~HOLDS[limit.is_](np.asarray(made.ask(limit.value_sql(), after, whose, age), float), limit.value)
        lost = np.flatnonzero(unmet & broken)[:PAIRS]
        sides = ({key: values[lost] for key, values in side.items()} for side in (before, after))
        found.append(Trial(number, each, sex[base[lost]].tolist(), *sides))
    return found


def between(trial: Trial, share: Doubles) -> Columns:
    return {key: trial.met[key] + share * (trial.unmet[key] - trial.met[key]) for key in trial.met}


def turning(made: Made, rules: list[Criterion], tried: list[Trial]) -> list[tuple[Doubles, Doubles]]:
    """Of each pair, the shares of the way from the met to the unmet row between which the verdict turns."""
    edges = np.cumsum([0, *(len(trial.sex) for trial in tried)])
    parts = [slice(*pair) for pair in pairwise(edges)]
    names = sorted({name for trial in tried for name in trial.met})
    number = np.repeat([trial.rule for trial in tried], np.diff(edges))
    age = np.array([age_of(rule) for rule in rules])[number]
    sex = [one for trial in tried for one in trial.sex]
    cases = " ".join(f"WHEN {place} THEN ({rule.holds_sql()})" for place, rule in enumerate(rules))
    yes, no = np.zeros(edges[-1]), np.ones(edges[-1])
    for _ in range(HALVINGS):
        half = (yes + no) / 2
        columns = {name: np.full(edges[-1], np.nan) for name in names}
        for trial, part in zip(tried, parts, strict=True):
            for name, values in between(trial, half[part]).items():
                columns[name][part] = values
        holds = made.ask(f"coalesce(CASE rule {cases} END, false)", columns, sex, age, rule=pa.array(number))
        yes, no = np.where(holds, half, yes), np.where(holds, no, half)
    return [(yes[part], no[part]) for part in parts]


def test_every_criterion_turns_at_every_limit_it_declares() -> None:
    made, named = Made(), rules_of(load_guidelines())
    rules = [rule for _, rule in named]
    tried = [
        trial for number, (code, rule) in enumerate(named) for trial in trials(made, number, f"{code} {rule.id}", rule)
    ]
    reached = {trial.rule for trial in tried}
    wrong = [f"{code} {rule.id}: no row meets it" for n, (code, rule) in enumerate(named) if n not in reached]
    for trial, (yes, no) in zip(tried, turning(made, rules, tried), strict=True):
        code, rule = named[trial.rule]
        limit = rule.limits[trial.limit]
        if not trial.sex:
            wrong.append(f"{code} {rule.id} {trial.limit}: nothing that is compared makes a difference")
            continue
        ages = np.full(len(yes), age_of(rule))
        before, after = (
            np.asarray(made.ask(limit.value_sql(), between(trial, share), trial.sex, ages), float)
            for share in (yes, no)
        )
        near = 1e-6 * max(1.0, abs(limit.value))
        there = (np.abs(before - limit.value) <= near) & (np.abs(after - limit.value) <= near)
        if not (there & HOLDS[limit.is_](before, limit.value) & ~HOLDS[limit.is_](after, limit.value)).any():
            wrong.append(f"{code} {rule.id} {trial.limit}: does not turn at {limit.text}")
    assert len(rules) > 200
    assert not wrong, "\n".join(wrong)


def test_measurements_are_found_by_their_whole_names() -> None:
    columns = dict.fromkeys(("P-_Amp_V1", "P_Amp_V1", "Amp_V1"), np.zeros(1))
    assert compared('abs("P-_Amp_V1")', columns) == ["P-_Amp_V1"]
    assert compared("P_Amp_V1 + 1", columns) == ["P_Amp_V1"]
