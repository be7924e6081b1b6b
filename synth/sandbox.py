"""The sandbox templates run in: what they may do is listed; everything else is refused when a template is read.

A sandbox alone does not protect against a loop or a filter that fills the memory, so the syntax tree is checked too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment


def sentence(text: str) -> str:
    """The text with its first letter in upper case, the rest as it was."""
    return text[:1].upper() + text[1:]


def number(value: float, digits: int = 0) -> str:
    """A number with a fixed count of digits after the point; never `-0`."""
    text = f"{value:.{min(max(int(digits), 0), 6)}f}"
    return text.removeprefix("-") if float(text) == 0 else text


FILTERS = {
    "abs": abs,
    "capitalize": str.capitalize,
    "first": lambda items: items[0],
    "join": lambda items, separator="": str(separator).join(map(str, items)),
    "last": lambda items: items[-1],
    "length": len,
    "lower": str.lower,
    "number": number,
    "round": lambda value, digits=0: round(value, digits),
    "sentence": sentence,
    "title": str.title,
    "trim": str.strip,
    "upper": str.upper,
}


TESTS = {"none": lambda value: value is None}


_ALLOWED_NODES = (
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.List,
    nodes.Tuple,
    nodes.If,
    nodes.For,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Neg,
    nodes.Filter,
    nodes.Test,
    nodes.Getattr,
)


_LOOP_FIELDS = ("first", "last", "index", "length")


class _Generator(CodeGenerator):
    """Python code in which fields and tests are not calls of our functions, which take longer than all around them."""

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:  # noqa: N802
        if not isinstance(node.node, nodes.Name) or (node.node.name == "loop" and node.attr not in _LOOP_FIELDS):
            self.fail(f"attribute .{node.attr} is not allowed", node.lineno)
        self.visit(node.node, frame)
        # Of a loop's item nothing but the keys can be reached, whatever it is.
        self.write(f".{node.attr}" if node.node.name == "loop" else f"[{node.attr!r}]")

    def visit_Test(self, node: nodes.Test, frame: Frame) -> None:  # noqa: N802
        if node.name not in TESTS:
            self.fail(f"test {node.name!r} is not allowed", node.lineno)
        self.write("(")
        self.visit(node.node, frame)
        self.write(" is None)")


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset()
    code_generator_class = _Generator


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise jinja2.UndefinedError("a NULL would be printed; filter it in the SQL or test `is none`")
    return value


_ENVIRONMENTS: dict[str, jinja2.Environment] = {}


def environment(*, refuse_null: bool = False) -> jinja2.Environment:
    key = "strict" if refuse_null else "plain"
    if key not in _ENVIRONMENTS:
        environment = _Sandbox(
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            cache_size=0,
            optimized=False,  # trees are used again, and there is nothing to fold in templates
            finalize=_refuse_null if refuse_null else None,
        )
        environment.globals.clear()
        environment.filters.clear()
        environment.filters.update(FILTERS)
        environment.tests.clear()
        environment.tests.update(TESTS)
        _ENVIRONMENTS[key] = environment
    return _ENVIRONMENTS[key]


@lru_cache(maxsize=64)
def parse(wording: str) -> nodes.Template:
    """The syntax tree of one wording."""
    return environment().parse(wording)


def free_names(node: nodes.Node, bound: frozenset[str] = frozenset()) -> set[str]:
    """The names in a tree that are no variable of a loop around them."""
    if isinstance(node, nodes.Name):
        return {node.name} - bound
    if isinstance(node, nodes.For):
        within = bound | {"loop", *loop_variables(node)}
        return free_names(node.iter, bound).union(
            *(free_names(child, within) for child in node.body), *(free_names(child, bound) for child in node.else_)
        )
    return set().union(*(free_names(child, bound) for child in node.iter_child_nodes()))


def loop_variables(loop: nodes.For) -> set[str]:
    target = loop.target
    return {target.name} if isinstance(target, nodes.Name) else {name.name for name in target.find_all(nodes.Name)}


def wording_problems(alternative: str) -> list[str]:
    """What one wording may not say, or not so; see also `compile_problem`."""
    if not alternative:
        return ["is empty"]
    try:
        return list(_unsafe(parse(alternative)))
    except jinja2.TemplateSyntaxError as error:
        return [f"syntax error: {error.message}"]
    except RecursionError:
        return ["is nested too deeply"]


def nesting(node: nodes.Node) -> int:
    """How deep Python code of a tree may be nested at most; each `elif` is nested in the one before."""
    within = max(map(nesting, node.iter_child_nodes()), default=0)
    return 1 + within + (len(node.elif_) if isinstance(node, nodes.If) else 0)


def compile_problem(tree: nodes.Template) -> str | None:
    """Why a tree cannot be compiled, in which nothing else is wrong."""
    try:
        environment(refuse_null=True).from_string(tree)  # which nests once deeper
    except (jinja2.TemplateError, SyntaxError, RecursionError) as error:
        return f"cannot be compiled: {error}"
    return None


def _unsafe(node: nodes.Node, loop_names: frozenset[str] = frozenset(), depth: int = 0) -> Iterator[str]:
    for child in node.iter_child_nodes():
        line = f"line {child.lineno}: "
        if not isinstance(child, _ALLOWED_NODES):
            yield f"{line}{type(child).__name__} is not allowed; do this in the SQL"
            continue
        if isinstance(child, nodes.Filter) and (child.name not in FILTERS or child.dyn_args or child.dyn_kwargs):
            yield f"{line}filter {child.name!r} is not allowed; allowed are {', '.join(FILTERS)}"
        elif isinstance(child, nodes.Test) and child.name not in TESTS:
            yield f"{line}test {child.name!r} is not allowed; allowed is `is none`"
        elif isinstance(child, nodes.Name) and (child.name.startswith("_") or child.name == "self"):
            yield f"{line}name {child.name!r} is not allowed: names do not start with an underscore, nor are they self"
        elif isinstance(child, nodes.Getattr):
            yield from (line + problem for problem in _unsafe_attribute(child, loop_names))
        elif isinstance(child, nodes.For):
            yield from (line + problem for problem in _unsafe_loop(child, depth))
            yield from _unsafe(child, loop_names | loop_variables(child) | {"loop"}, depth + 1)
            continue
        yield from _unsafe(child, loop_names, depth)


def _unsafe_attribute(node: nodes.Getattr, loop_names: frozenset[str]) -> Iterator[str]:
    if not isinstance(node.node, nodes.Name) or node.node.name not in loop_names:
        yield f"attribute .{node.attr} is allowed only on the variable of a loop"
    elif node.node.name == "loop":
        if node.attr not in _LOOP_FIELDS:
            yield f"loop.{node.attr} is not allowed; allowed are {', '.join(_LOOP_FIELDS)}"
    elif node.attr.startswith("_") or hasattr(dict, node.attr):
        yield f"attribute .{node.attr} is not allowed"


def _unsafe_loop(node: nodes.For, depth: int) -> Iterator[str]:
    if depth >= 2:
        yield "loops may be nested two deep at most"
    if not isinstance(node.iter, nodes.Name | nodes.Getattr):
        yield "a loop runs over a row field, nothing else"
    if node.recursive or node.test is not None:
        yield "recursive and filtered loops are not allowed; do this in the SQL"
    if any(name in ("loop",) for name in (n.name for n in node.target.find_all(nodes.Name))):
        yield "a loop variable cannot be called loop"
