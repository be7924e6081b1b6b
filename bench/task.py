"""Tasks: what is asked, of which ECGs, and how it is scored. One YAML file each, checked all at once."""

from __future__ import annotations

import difflib
import string
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import xxhash
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError, field_validator, model_validator

from ecglm.synth.criteria import Strict, Words
from ecglm.synth.errors import DefinitionError, TaskError
from ecglm.synth.guidelines import Violation
from ecglm.synth.schema import ECGQA_QUESTION_TYPES
from ecglm.synth.yaml_files import parse_yaml

Id = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=60)]
Fold = Annotated[int, Field(ge=1, le=10)]

METRICS = {
    "statements": (
        "macro_auc",
        "f1_macro",
        "f1_micro",
        "f1_weighted",
        "f1_samples",
        "fmax",
        "brier",
        "ece",
    ),
    "choices": ("exact_match",),
    "numbers": ("within_tolerance", "median_absolute_error", "mean_absolute_error"),
}
"""Kind of task → the metrics it can name."""

HEADLINES = {
    "statements": ("macro_auc", "f1_macro", "f1_micro", "f1_weighted", "f1_samples"),
    "choices": ("exact_match",),
    "numbers": ("within_tolerance",),
}
"""Metrics that a task can be ranked by: more is better, and nothing was fitted to the test part."""

LABEL_RULES = {
    "presence": "a statement counts if it is listed, whatever its likelihood, 0 included (as Strodthoff et al. 2021)",
    "likelihood-50": "a diagnostic statement counts from a likelihood of 50 on; one of form or rhythm if it is stated",
}


class _Task(Strict):
    """What every task says."""

    id: Id
    version: Annotated[int, Field(ge=1)]
    title: Words
    description: Words
    metrics: tuple[str, ...] = Field(min_length=1)
    headline: str
    cite: Words

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        known = METRICS[get_args(cls.model_fields["kind"].annotation)[0]]
        told = []
        for name in metrics:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                told.append(f"unknown metric {name!r}" + (f", did you mean {near[0]}?" if near else ""))
        if told:
            raise ValueError(f"{'; '.join(told)}; known: {', '.join(known)}")
        return metrics

    @model_validator(mode="after")
    def _headline_is_a_metric(self) -> _Task:
        if self.headline not in self.metrics:
            raise ValueError(f"headline: {self.headline!r} is not among the metrics {', '.join(self.metrics)}")
        able = HEADLINES[self.kind]  # type: ignore[attr-defined]
        if self.headline not in able:
            raise ValueError(f"headline: {self.headline} cannot rank models; choose one of {', '.join(able)}")
        return self


def _fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def _only(text: str, wanted: set[str]) -> str:
    try:
        found = _fields(text)
    except ValueError as error:
        raise ValueError(f"not a template: {error}") from error
    if found != wanted:
        expected = " and ".join(f"{{{name}}}" for name in sorted(wanted)) or "no braces"
        raise ValueError(f"found {sorted(found)}, expected {expected} in the text")
    return text


class ClassName(Strict):
    """What a class is called where no guideline does."""

    name: Words
    phrase: Words
    """As it reads after "Does this ECG show"."""


class Classes(Strict):
    """Which statements are asked for: those of some kinds, each on its own or by superclass or subclass, or a list."""

    kinds: tuple[Literal["diagnostic", "form", "rhythm"], ...] = ("diagnostic", "form", "rhythm")
    group: Literal["code", "subclass", "superclass"] = "code"
    codes: tuple[Words, ...] | None = None


class StatementsTask(_Task):
    """Which statements hold for an ECG; each has a yes or no, and a score."""

    kind: Literal["statements"]
    classes: Classes
    names: dict[str, ClassName] = Field(default_factory=dict)
    question: Words = "Does this ECG show {phrase}?"
    list_question: Words = "Which of these does this ECG show? Answer none if it shows none of them."
    label_rules: tuple[Literal["presence", "likelihood-50"], ...] = ("presence", "likelihood-50")
    min_positives: Annotated[int, Field(ge=1)] = 10
    test_folds: tuple[Fold, ...] = (10,)
    threshold_folds: tuple[Fold, ...] = (9,)

    @field_validator("question")
    @classmethod
    def _names_the_phrase(cls, text: str) -> str:
        return _only(text, {"phrase"})

    @model_validator(mode="after")
    def _folds_apart(self) -> StatementsTask:
        both = set(self.test_folds) & set(self.threshold_folds)
        if both:
            raise ValueError(f"threshold_folds: {sorted(both)} are also test folds; thresholds must come from others")
        if len(set(self.label_rules)) != len(self.label_rules) or not self.label_rules:
            raise ValueError("label_rules: name each rule once, and at least one")
        return self


class ChoicesTask(_Task):
    """Questions of ECG-QA: the answer is a set of options."""

    kind: Literal["choices"]
    question_types: tuple[Literal[ECGQA_QUESTION_TYPES], ...] = ECGQA_QUESTION_TYPES  # type: ignore[valid-type]
    wording: Literal["paraphrased", "template"] = "paraphrased"
    split: Literal["test", "valid"] = "test"
    clean_folds: tuple[Fold, ...] = (10,)


class Reading(Strict):
    """One measurement to read, and how far off an answer may be."""

    name: Words
    absolute: Annotated[float, Field(ge=0)] = 0.0
    relative: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _some_tolerance(self) -> Reading:
        if not self.absolute and not self.relative:
            raise ValueError(f"{self.name}: give a tolerance: absolute (in the measurement's unit), relative, or both")
        return self


class NumbersTask(_Task):
    """Measurements to be read from an ECG: a number in a unit, right if it is near enough."""

    kind: Literal["numbers"]
    providers: tuple[Words, ...] = Field(min_length=1)
    """Whose measurements are the truth: the first of these that the data has."""
    readings: tuple[Reading, ...] = Field(min_length=1)
    question: Words = "What is the {words} of this ECG? Answer in {unit}."
    test_folds: tuple[Fold, ...] = (10,)

    @field_validator("question")
    @classmethod
    def _names_what_is_asked(cls, text: str) -> str:
        return _only(text, {"words", "unit"})

    @model_validator(mode="after")
    def _known_measurements(self) -> NumbersTask:
        from ecglm.synth.measure.dictionary import measurements

        for reading in self.readings:
            if reading.name not in measurements():
                near = difflib.get_close_matches(reading.name, list(measurements()), 1)
                hint = f"did you mean {near[0]}?" if near else "known: the columns in docs/measurements.md"
                raise ValueError(f"readings: unknown measurement {reading.name!r}; {hint}")
        return self


Task = Annotated[StatementsTask | ChoicesTask | NumbersTask, Field(discriminator="kind")]
AnyTask = StatementsTask | ChoicesTask | NumbersTask
_ADAPTER: TypeAdapter[AnyTask] = TypeAdapter(Task)


@dataclass(frozen=True)
class LoadedTask:
    """A task and the text it was read from."""

    task: AnyTask
    text: str
    where: str

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what the task says: comments and order of keys do not count."""
        return xxhash.xxh3_128_hexdigest(self.task.model_dump_json().encode())


def parse_task(text: str, where: str) -> LoadedTask:
    """One task.

    Raises:
        TaskError: every problem of the file, with the place of each.
    """
    try:
        return LoadedTask(_ADAPTER.validate_python(parse_yaml(text, where)), text, where)
    except TaskError:
        raise
    except DefinitionError as error:
        raise TaskError(str(error)) from error
    except ValidationError as error:
        raise TaskError("\n".join(f"{where}: {message}" for message in _messages(error))) from error


def _messages(error: ValidationError) -> list[str]:
    messages = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"] if part not in METRICS)
        message = problem["msg"].removeprefix("Value error, ")
        messages.append(f"{place}: {message}" if place else message)
    return messages


def builtin_tasks() -> Path:
    """The folder of the tasks that come with ecglm."""
    return Path(str(resources.files("ecglm.bench"))) / "tasks"


def read_tasks(folders: Iterable[Path] = ()) -> tuple[dict[str, LoadedTask], list[Violation]]:
    """The tasks of ecglm and of further folders, and everything that is wrong with them."""
    tasks: dict[str, LoadedTask] = {}
    violations: list[Violation] = []
    for folder in (builtin_tasks(), *folders):
        if not folder.is_dir():
            violations.append(Violation(str(folder), "not a folder; give the folder that holds your task files"))
            continue
        for path in sorted(folder.glob("*.yaml")):
            where = f"tasks/{path.name}" if folder == builtin_tasks() else str(path)
            try:
                loaded = parse_task(path.read_text(encoding="utf-8"), where)
            except TaskError as error:
                violations += [
                    Violation(where, line.removeprefix(where).lstrip(", :")) for line in str(error).splitlines()
                ]
                continue
            except (OSError, UnicodeDecodeError) as error:
                violations.append(Violation(where, f"cannot be read: {error}"))
                continue
            if loaded.task.id != path.stem:
                violations.append(Violation(where, f"id is {loaded.task.id!r}; expected the file's name {path.stem!r}"))
            if loaded.task.id in tasks:
                violations.append(
                    Violation(where, f"id {loaded.task.id!r} is already that of {tasks[loaded.task.id].where}; rename")
                )
                continue
            tasks[loaded.task.id] = loaded
    return tasks, violations


def find_tasks(names: Iterable[str], folders: Iterable[Path] = ()) -> list[LoadedTask]:
    """The tasks named, in that order, each once.

    Raises:
        TaskError: an unknown name, or a task file of the folders with an error in it.
    """
    tasks, violations = read_tasks(folders)
    if violations:
        raise TaskError("\n".join(f"{v.where}: {v.message}" for v in violations))
    chosen: dict[str, LoadedTask] = {}
    for name in names:
        if name not in tasks:
            near = difflib.get_close_matches(name, tasks, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; `bench list` shows them: {', '.join(tasks)}"
            raise TaskError(f"no task is called {name!r}{hint}")
        chosen[name] = tasks[name]
    if not chosen:
        raise TaskError("no task was named; give one or more with --task, `bench list` shows them")
    return list(chosen.values())


def describe(loaded: LoadedTask) -> dict[str, Any]:
    """A task as plain data."""
    return {"fingerprint": loaded.fingerprint, "where": loaded.where, **loaded.task.model_dump(mode="json")}
