"""The form of a check file, and what the closed answers of templates claim."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ecglm.synth.corpus import TABLES
from ecglm.synth.errors import DefinitionError
from ecglm.synth.schema import OPTIONAL_TABLES
from ecglm.synth.yaml_files import read_yaml

MEANINGS = (
    "labelled",
    "not_labelled",
    "not_all_labelled",
    "previous_labelled",
    "previous_not_labelled",
    "names_labelled",
    "others_not_labelled",
    "met",
    "met_or_disputed",
    "not_met",
    "not_met_or_disputed",
    "some_met",
    "some_not_met",
)

_HEADER_LINE = re.compile(r"-- (description|severity|scope|needs): (.+)")
_SEVERITIES = ("error", "warning")
_SCOPES = ("pair", "corpus")
_DERIVED = ("pair_keys", "texts", "messages", "pair_ecgs", "pair_evidence", "meanings", "decided", "measured", "noted")
_KNOWN_NEEDS = frozenset((*TABLES, *OPTIONAL_TABLES, *_DERIVED))


@dataclass(frozen=True)
class Check:
    """One data test: a SELECT of the rows that are wrong.

    Scope `pair`: every pair is judged by itself, so the SELECT runs on one part of the pairs after another.
    Scope `corpus`: the SELECT sees all pairs at once. A row that stands for several says so in a column `times`.
    """

    name: str
    description: str
    severity: Literal["error", "warning"]
    scope: Literal["pair", "corpus"]
    needs: tuple[str, ...]
    sql: str


def load_checks(extra: Path | None = None) -> list[Check]:
    """The checks that come with ecglm and those of a folder, in order of their names.

    Raises:
        DefinitionError: a file lacks a header line, or says something else than expected there; names the file.
    """
    folders = [Path(__file__).parent, *([extra] if extra is not None else [])]
    if extra is not None and not any(extra.glob("*.sql")):
        raise DefinitionError(f"{extra}: no *.sql file here; give a folder that holds checks")
    checks: dict[str, Check] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.sql")):
            if path.stem in checks:
                raise DefinitionError(
                    f"{path}: a check called {path.stem} comes with ecglm; give the file another name"
                )
            checks[path.stem] = _read_check(path)
    return list(checks.values())


def _read_check(path: Path) -> Check:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{path}: cannot be read: {error}") from error
    header: dict[str, str] = {}
    for line in text.splitlines():
        match = _HEADER_LINE.fullmatch(line.rstrip())
        if match is None:
            break
        header[match[1]] = match[2]
    for name in ("description", "severity"):
        if name not in header:
            raise DefinitionError(f"{path}: the file must begin with `-- {name}: …`, before any other line")
    severity, scope = header["severity"], header.get("scope", "corpus")
    if severity not in _SEVERITIES:
        raise DefinitionError(f"{path}: severity is {severity!r}; expected {' or '.join(_SEVERITIES)}")
    if scope not in _SCOPES:
        raise DefinitionError(f"{path}: scope is {scope!r}; expected {' or '.join(_SCOPES)}")
    needs = tuple(name.strip() for name in header.get("needs", "").split(",") if name.strip())
    if scope == "corpus" and "texts" in needs:
        raise DefinitionError(f"{path}: texts are there for `-- scope: pair` only; use messages")
    unknown = sorted(set(needs) - _KNOWN_NEEDS)
    if unknown:
        raise DefinitionError(f"{path}: needs {', '.join(unknown)}; known are {', '.join(sorted(_KNOWN_NEEDS))}")
    sql = text.strip().removesuffix(";")
    return Check(path.stem, header["description"], severity, scope, needs, sql)  # type: ignore[arg-type]


def answer_meanings() -> dict[str, dict[str, list[str]]]:
    """What the answers of the built-in templates claim: template → answer → some of `MEANINGS`."""
    path = Path(__file__).parent / "meanings.yaml"
    meanings: dict[str, dict[str, list[str]]] = read_yaml(path)
    for template_id, answers in meanings.items():
        for claimed in answers.values():
            strange = sorted(set(claimed) - set(MEANINGS))
            if strange:
                raise DefinitionError(f"{path}: {template_id}: {strange[0]!r} is not one of {', '.join(MEANINGS)}")
    return meanings
