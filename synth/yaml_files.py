"""Reading YAML that people write by hand: plain data only, no surprises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ecglm.synth.errors import DefinitionError

MAX_BYTES = 256 * 1024


class _PlainLoader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Safe loader without duplicate keys, in which `yes`, `no`, `on`, `off` and dates stay text."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} appears twice", problem_mark=key.start_mark)
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":timestamp", ":bool"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _first in "tf":
    _PlainLoader.add_implicit_resolver(
        "tag:yaml.org,2002:bool", __import__("re").compile(r"^(?:true|false)$"), [_first]
    )


def parse_yaml(text: str, where: str) -> Any:
    """Plain data of one YAML document.

    Raises:
        DefinitionError: the text is too long, is not YAML, repeats a key, or uses anchors; names `where` and the line.
    """
    if len(text.encode()) > MAX_BYTES:
        raise DefinitionError(f"{where}: longer than {MAX_BYTES // 1024} kB; split the file")
    try:
        event: Any
        for event in yaml.parse(text, Loader=_PlainLoader) if "&" in text or "*" in text else ():
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise yaml.MarkedYAMLError(problem="anchors and aliases are not allowed", problem_mark=event.start_mark)
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader subclass
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DefinitionError(f"{where}{line}: {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise DefinitionError(f"{where}: not valid YAML: {error}") from error


def read_yaml(path: Path) -> Any:
    """Plain data of one YAML file; errors name the file and the line (see `parse_yaml`)."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{path}: cannot be read: {error}") from error
    return parse_yaml(text, str(path))
