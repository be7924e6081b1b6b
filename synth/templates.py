"""Template files: reading them, refusing what is unsafe, and compiling them to render whole batches of rows."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import jinja2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from jinja2 import nodes
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ecglm.synth.errors import DefinitionError, RenderError
from ecglm.synth.guidelines import Violation
from ecglm.synth.sandbox import compile_problem, environment, free_names, nesting, parse, wording_problems
from ecglm.synth.schema import ECGQA_QUESTION_TYPES, FAMILIES
from ecglm.synth.yaml_files import parse_yaml

ENGINE_VERSION = "3"
"""Bumped when the same template and rows would render otherwise."""

MAX_TEXT = 64 * 1024
TURN_END = "\x1f"
_ALLOWED_CONTROLS = frozenset(map(ord, f"{TURN_END}\n\r\t"))
SPECIAL_COLUMNS = ("ecg_id", "ecg_ids", "answers", "options", "codes", "evidence", "guideline_ids", "rejected")
"""Columns of a template's SELECT that go into the pair rather than into its text."""

_QUESTION_TYPES = (
    "single-verify",
    "single-choose",
    "single-query",
    "comparison-verify",
    "comparison-choose",
    "comparison-query",
    "free",
    "dialogue",
)


_ROWS_AT_ONCE = 512
"""Few enough for their values and texts to stay in the processor's cache."""

_SAFELY_NESTED = 60
"""Code nested so deeply can be compiled: Python takes 100 levels of indentation, and 200 of brackets."""

_LONGEST_NUMBER = 330
"""Characters a number can take when printed."""

_ESCAPED = 12
"""Characters at most for one of a text that is printed within a list, with what stands around an item."""


class Vocabulary(BaseModel):
    """Every answer a closed question may have."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    description: str
    answers: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(min_length=1)


class EcgQaQuestion(BaseModel):
    """Which of ECG-QA's question templates a file asks in its own words."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    template: int = Field(ge=1, le=70)
    question_type: Literal[ECGQA_QUESTION_TYPES]  # type: ignore[valid-type]
    attribute_type: Literal[
        "scp_code", "heart_axis", "stage_of_infarction", "noise", "extra_systole", "numeric_feature"
    ]
    answers: Annotated[str, StringConstraints(pattern=r"^(our reading|verified n=[1-9][0-9]*)$")]
    """Whether official answers were at hand to compare ours with, and how many."""


class Header(BaseModel):
    """The front matter of a template file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]
    version: int = Field(ge=1)
    family: Literal[FAMILIES]  # type: ignore[valid-type]
    question_type: Literal[_QUESTION_TYPES]  # type: ignore[valid-type]
    description: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    needs: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    answers: str
    cap_per_ecg: int | None = Field(default=None, ge=1)
    ecgqa: EcgQaQuestion | None = None
    language: Literal["en"] = "en"
    sql: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@dataclass(frozen=True)
class Turn:
    """One turn of the conversation with its alternative wordings and the line each starts on."""

    role: Literal["user", "assistant"]
    alternatives: tuple[str, ...]
    lines: tuple[int, ...]


@dataclass(frozen=True)
class Template:
    """One template file."""

    header: Header
    turns: tuple[Turn, ...]
    text: str
    vocabulary: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.header.id

    @cached_property
    def hash(self) -> str:
        """Changes with the file, its vocabulary or the engine, and with nothing else."""
        return xxhash.xxh3_128_hexdigest("\x1f".join((ENGINE_VERSION, self.text, *self.vocabulary)).encode())

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """Row fields the body uses, in alphabetical order."""
        used: set[str] = set()
        for turn in self.turns:
            for alternative in turn.alternatives:
                used |= free_names(parse(alternative))
        return tuple(sorted(used))

    @property
    def loop(self) -> nodes.For:
        """The tree that renders every row."""
        return _loop_over_rows(self.variables, [[parse(text) for text in turn.alternatives] for turn in self.turns])

    def variants(self, choices: npt.NDArray[np.uint64]) -> list[npt.NDArray[np.int64]]:
        """For each turn, the wording that each 64-bit choice picks."""
        return [
            ((choices >> np.uint64(5 * turn)) % np.uint64(len(each.alternatives))).astype(np.int64)
            for turn, each in enumerate(self.turns)
        ]

    @cached_property
    def compiled(self) -> CompiledTemplate:
        """The template as one loop over rows."""
        return CompiledTemplate(self)


@dataclass(frozen=True)
class Spoken:
    """Turns in UTF-8, row by row, each followed by `TURN_END`."""

    text: bytes
    ends: npt.NDArray[np.int64]
    """(n_rows * n_turns,) where each turn ends."""

    controls: frozenset[int]
    """Control characters in the text other than line ends and tabs."""

    @classmethod
    def of(cls, text: bytes) -> Spoken:
        letters = np.frombuffer(text, np.uint8)
        places = np.flatnonzero(letters < ord(" "))
        controls = letters[places]
        return cls(text, places[controls == ord(TURN_END)], frozenset(controls.tolist()) - _ALLOWED_CONTROLS)


class CompiledTemplate:
    """Renders many rows in one call: row fields become local variables of one compiled loop."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._templates: dict[tuple[bool, bool], jinja2.Template] = {}
        self._loop = template.loop
        wordings = [parse(text) for turn in template.turns for text in turn.alternatives]
        self._uses = Counter(
            name.name for tree in wordings for name in tree.find_all(nodes.Name) if name.ctx == "load"
        )  # a list that is gone through is not printed
        self._uses.subtract(
            loop.iter.name
            for tree in wordings
            for loop in tree.find_all(nodes.For)
            if isinstance(loop.iter, nodes.Name)
        )
        self._fields = Counter(
            field.node.name
            for tree in wordings
            for field in tree.find_all(nodes.Getattr)
            if isinstance(field.node, nodes.Name)
        )
        self._repeats = max(map(_repeats, wordings), default=0)
        self._length = sum(max(map(len, turn.alternatives)) for turn in template.turns)

    def render(self, rows: pa.Table, variants: Sequence[npt.NDArray[np.int64]]) -> Spoken:
        """The turns of all rows.

        Args:
            rows: with the columns of `template.variables`.
            variants: for each turn the wording chosen, (n_rows,) (see `Template.variants`).

        Raises:
            RenderError: a NULL or an undefined name would be printed, or a text is over 64 kB; names the template.
        """
        columns = [rows[name] for name in self.template.variables]
        fields = [*columns, *map(pa.array, variants)]
        try:
            compiled = self._compiled(self._is_small(columns), any(column.null_count for column in columns))
            parts = [
                self._render_some(compiled, [field[start : start + _ROWS_AT_ONCE] for field in fields])
                for start in range(0, rows.num_rows, _ROWS_AT_ONCE)
            ]
        except jinja2.TemplateError as error:
            raise RenderError(f"template {self.template.id}: {error}") from error
        except KeyError as error:
            raise RenderError(f"template {self.template.id}: the item of a loop has no field {error}") from error
        except (TypeError, ValueError, IndexError) as error:
            raise RenderError(
                f"template {self.template.id}: a filter or a field does not fit its value: {error}"
            ) from error
        spoken = Spoken.of(b"".join(parts))
        turns = len(variants)
        if spoken.controls or len(spoken.ends) != rows.num_rows * turns:
            raise RenderError(
                f"template {self.template.id}: a row field contains control characters; clean it in the SQL"
            )
        if len(spoken.text) > MAX_TEXT and np.diff(spoken.ends[turns - 1 :: turns], prepend=-1).max() > MAX_TEXT:
            raise RenderError(f"template {self.template.id}: a text is longer than {MAX_TEXT // 1024} kB; shorten it")
        return spoken

    def _compiled(self, is_small: bool, refuse_null: bool) -> jinja2.Template:
        key = (is_small, refuse_null)
        if key not in self._templates:
            tree = _at_once(self._loop) if is_small else nodes.Template([self._loop], lineno=1)
            self._templates[key] = environment(refuse_null=refuse_null).from_string(tree)
        return self._templates[key]

    def _render_some(self, compiled: jinja2.Template, fields: Sequence[pa.ChunkedArray | pa.Array]) -> bytes:
        pieces = compiled.generate(_rows=zip(*(field.to_pylist() for field in fields), strict=True))
        return "".join(_bounded(pieces, MAX_TEXT * max(len(fields[0]), 16), self.template.id)).encode()

    def _is_small(self, columns: Sequence[pa.ChunkedArray]) -> bool:
        """Whether no row can be too long: the longest value wherever one is printed, as often as loops may run."""
        sizes = {
            name: _Size.of(column.combine_chunks())
            for name, column in zip(self.template.variables, columns, strict=True)
        }
        in_loops = _Size.largest(sizes.values())
        length = self._length
        for name, uses in self._uses.items():
            size = sizes.get(name, in_loops)
            length += self._fields[name] * size.part + (uses - self._fields[name]) * size.whole
        repeats: int = max(in_loops.items, 1) ** self._repeats
        return length * repeats <= MAX_TEXT


@dataclass(frozen=True)
class _Size:
    """How long a column's values can be at most when printed."""

    part: int
    """Characters of a text or a number in it, on its own or as a field of a list's item."""
    whole: int
    """Characters of all of one value."""
    items: int
    """Items of a list."""

    @classmethod
    def of(cls, column: pa.Array) -> _Size:
        if pa.types.is_string(column.type):
            longest = pc.max(pc.binary_length(column)).as_py() or 0
            return cls(longest, longest, 0)
        if pa.types.is_list(column.type):
            items, of_items = pc.max(pc.list_value_length(column)).as_py() or 0, cls.of(column.flatten())
            return cls(of_items.part, items * of_items.whole * _ESCAPED, max(items, of_items.items))
        if pa.types.is_struct(column.type):
            fields = [cls.of(field) for field in column.flatten()]
            names = sum(len(field.name) for field in column.type)
            largest = cls.largest(fields)
            return cls(largest.part, names + sum(field.whole for field in fields) * _ESCAPED, largest.items)
        return cls(_LONGEST_NUMBER, _LONGEST_NUMBER, 0)

    @classmethod
    def largest(cls, sizes: Iterable[_Size]) -> _Size:
        sizes = list(sizes)
        return cls(*(max((getattr(size, name) for size in sizes), default=0) for name in ("part", "whole", "items")))


def _repeats(node: nodes.Node, depth: int = 0) -> int:
    """How many loops stand inside one another at most; a filter that joins runs over a list as well."""
    loops = isinstance(node, nodes.For) or (isinstance(node, nodes.Filter) and node.name == "join")
    depth += loops
    return max((_repeats(child, depth) for child in node.iter_child_nodes()), default=depth)


def _loop_over_rows(variables: Sequence[str], turns: Sequence[Sequence[nodes.Template]]) -> nodes.For:
    """One loop in which row fields are local variables, and `_turn0`, `_turn1`, … say which wording a row gets."""
    choices = [f"_turn{number}" for number in range(len(turns))]
    body: list[nodes.Node] = []
    for choice, wordings in zip(choices, turns, strict=True):
        *others, last = [tree.body for tree in wordings]
        branches = [
            nodes.If(nodes.Compare(nodes.Name(choice, "load"), [nodes.Operand("eq", nodes.Const(n))]), said, [], [])
            for n, said in enumerate(others)
        ]
        if branches:
            branches[0].elif_, branches[0].else_ = branches[1:], last
        body += [*(branches[:1] or last), nodes.Output([nodes.TemplateData(TURN_END)])]
    names = nodes.Tuple([nodes.Name(name, "store") for name in (*variables, *choices)], "store")
    return nodes.For(names, nodes.Name("_rows", "load"), body, [], None, False)


def _at_once(loop: nodes.For) -> nodes.Template:
    """A loop in a set block, in which Jinja appends to one list instead of yielding piece by piece: half the time."""
    text = nodes.AssignBlock(nodes.Name("_text", "store"), None, [loop])
    return nodes.Template([text, nodes.Output([nodes.Name("_text", "load")])], lineno=1)


def _bounded(chunks: Iterable[str], limit: int, template_id: str) -> Iterator[str]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise RenderError(
                f"template {template_id}: the text grows beyond {MAX_TEXT // 1024} kB per row; a loop or a field is too"
                " long; shorten it in the SQL"
            )
        yield chunk


def parse_template(
    text: str, where: str, vocabularies: Mapping[str, Vocabulary]
) -> tuple[Template | None, list[Violation]]:
    """A template from the text of its file, and everything that is wrong with it (without looking at its SQL)."""
    if len(text) > MAX_TEXT:
        return None, [Violation(where, f"longer than {MAX_TEXT // 1024} kB; split the template")]
    match = re.fullmatch(r"---\n(.*?\n)---\n(.*)", text, flags=re.DOTALL)
    if match is None:
        return None, [Violation(where, "expected YAML front matter between two lines `---`, then the turns")]
    try:
        header = Header.model_validate(parse_yaml(match[1], where))
    except DefinitionError as error:
        return None, [Violation(where, str(error).removeprefix(where).lstrip(", :"))]
    except ValidationError as error:
        return None, [
            Violation(where, f"{'.'.join(map(str, problem['loc'])) or 'front matter'}: {problem['msg']}")
            for problem in error.errors()
        ]
    violations = []
    vocabulary: tuple[str, ...] = ()
    if header.answers in vocabularies:
        vocabulary = vocabularies[header.answers].answers
    elif header.answers not in ("options", "free"):
        known = ", ".join(["options", "free", *sorted(vocabularies)])
        violations.append(Violation(where, f"answers: no vocabulary {header.answers!r}; known are {known}"))
    first_line = match[1].count("\n") + 3
    turns, problems = _parse_turns(match[2], first_line)
    template = Template(header, turns, text, vocabulary)
    violations += [Violation(where, problem) for problem in problems or _uncompilable(template)]
    return (template if not violations else None), violations


def _parse_turns(body: str, first_line: int) -> tuple[tuple[Turn, ...], list[str]]:
    turns: list[tuple[Literal["user", "assistant"], list[list[str]], list[int]]] = []
    problems = []
    for number_, line in enumerate(body.split("\n"), start=first_line):
        heading = re.fullmatch(r"## (user|assistant)\s*", line)
        if heading:
            turns.append((heading[1], [], []))  # type: ignore[arg-type]
        elif not turns:
            if line.strip():
                problems.append(f"line {number_}: text before the first `## user`")
        elif line.startswith("- "):
            turns[-1][1].append([line[2:]])
            turns[-1][2].append(number_)
        elif line.startswith("  ") and turns[-1][1]:
            turns[-1][1][-1].append(line[2:])
        elif not line.strip():
            if turns[-1][1]:
                turns[-1][1][-1].append("")
        else:
            problems.append(f"line {number_}: expected `- ` before a wording, or two spaces to continue one")
    if not turns:
        problems.append("no `## user` turn")
    expected = ["user", "assistant"] * ((len(turns) + 1) // 2)
    if [role for role, _, _ in turns] != expected or len(turns) % 2:
        problems.append("turns must alternate user, assistant, …, and end with assistant")
    parsed = []
    for role, wordings, lines in turns:
        if not wordings:
            problems.append(f"a `## {role}` turn without a wording")
        alternatives = tuple("\n".join(wording).strip() for wording in wordings)
        if len(set(alternatives)) != len(alternatives):
            problems.append(f"a `## {role}` turn says the same twice")
        parsed.append(Turn(role, alternatives, tuple(lines)))
        for alternative, line_ in zip(alternatives, lines, strict=True):
            problems += [f"wording at line {line_}: {problem}" for problem in wording_problems(alternative)]
    return tuple(parsed), problems


def _uncompilable(template: Template) -> list[str]:
    """Why a template cannot be compiled as it is rendered, wording by wording only where it cannot.

    What is not nested deeply always can, and is not tried: that takes twice as long as all the rest of reading it.
    """
    wordings = [turn.alternatives for turn in template.turns]
    with contextlib.suppress(RecursionError):
        deepest = max(nesting(parse(text)) for texts in wordings for text in texts)
        if deepest + max(map(len, wordings)) <= _SAFELY_NESTED:
            return []

    def problem(part: Template) -> str | None:
        try:
            return compile_problem(_at_once(part.loop))
        except RecursionError:
            return "is nested too deeply"

    if (together := problem(template)) is None:
        return []
    alone = [
        # nested as deeply as among other wordings
        (line, problem(replace(template, turns=(Turn(turn.role, (text, text), (line, line)),))))
        for turn in template.turns
        for line, text in zip(turn.lines, turn.alternatives, strict=True)
    ]
    return [f"wording at line {line}: {said}" for line, said in alone if said] or [together]


@dataclass(frozen=True)
class TemplateSet:
    """All templates of a folder, in order of their ids."""

    by_id: Mapping[str, Template]

    def __iter__(self) -> Iterator[Template]:
        return iter(self.by_id.values())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every template."""
        return xxhash.xxh3_128_hexdigest("".join(f"{t.id}{t.hash}" for t in self).encode())


def load_templates(folder: Path | None = None) -> TemplateSet:
    """All templates of a folder (default: those that come with ecglm).

    Raises:
        DefinitionError: one message that lists every problem found.
    """
    templates, violations = read_templates(folder)
    errors = [violation for violation in violations if violation.level == "error"]
    if errors:
        raise DefinitionError("\n".join(f"{v.where}: {v.message}" for v in errors))
    return templates


def read_templates(folder: Path | None = None) -> tuple[TemplateSet, list[Violation]]:
    """The templates that could be read, and everything that is wrong with them (without looking at their SQL)."""
    root = folder if folder is not None else Path(str(resources.files("ecglm.templates")))
    violations: list[Violation] = []
    vocabularies: dict[str, Vocabulary] = {}
    for path in sorted((root / "vocabularies").glob("*.yaml")):
        where = f"templates/{path.relative_to(root).as_posix()}"
        try:
            vocabulary = Vocabulary.model_validate(parse_yaml(path.read_text(encoding="utf-8"), where))
        except DefinitionError as error:
            violations.append(Violation(where, str(error)))
            continue
        except ValidationError as error:
            violations += [Violation(where, f"{problem['loc']}: {problem['msg']}") for problem in error.errors()]
            continue
        if vocabulary.name != path.stem:
            violations.append(Violation(where, f"name is {vocabulary.name!r}, but the file is called {path.stem}"))
        vocabularies[vocabulary.name] = vocabulary
    by_id: dict[str, Template] = {}
    paths = sorted(root.glob("*/*.jinja"), key=lambda path: path.stem)
    if not paths:
        violations.append(Violation(str(root), "no template found: expected <family>/<id>.jinja"))
    for path in paths:
        where = f"templates/{path.relative_to(root).as_posix()}"
        template, problems = parse_template(path.read_text(encoding="utf-8"), where, vocabularies)
        violations += problems
        if template is None:
            continue
        if template.id != path.stem:
            violations.append(Violation(where, f"id is {template.id!r}, but the file is called {path.stem}.jinja"))
        if template.header.family != path.parent.name:
            violations.append(
                Violation(where, f"family is {template.header.family!r}, but the folder is {path.parent.name}")
            )
        if template.id in by_id:
            violations.append(Violation(where, f"id {template.id} is used twice"))
        by_id[template.id] = template
    return TemplateSet(by_id), violations
