"""Regular expressions are linear in what they read, since foreigners write it.

All of them: those that modules compile are found here, and there may be no others.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from itertools import product
from re import _constants, _parser  # type: ignore[attr-defined]
from types import ModuleType
from typing import Any

import pytest
from growth import grows_too_fast

import anabranch
import anabranch_git
import anabranch_synthetic

PACKAGES = (anabranch, anabranch_git, anabranch_synthetic)
OF_AN_OPERATOR = {"anabranch.cli.replay": 4}
"""Calls of `re` that read nothing but the operator's own configuration file."""
MANY = 6
"""Characters that attacks on one pattern are made of."""


def modules() -> Iterator[ModuleType]:
    for package in PACKAGES:
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def compiled() -> dict[str, re.Pattern[Any]]:
    found: dict[re.Pattern[Any], str] = {}
    for module in modules():
        for key, value in vars(module).items():
            for each in value.values() if isinstance(value, dict) else [value]:
                if isinstance(each, re.Pattern):
                    found.setdefault(each, f"{module.__name__}.{key}-{len(found)}")
    return {name: pattern for pattern, name in found.items()}


PATTERNS = compiled()


def calls(tree: ast.AST, module: str) -> Iterator[ast.Call]:
    """Calls of a module's functions."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name))) if name == module:
                yield node


@pytest.mark.parametrize("module", list(modules()), ids=lambda module: str(module.__name__))
def test_patterns_are_compiled_where_this_test_finds_them(module: ModuleType) -> None:
    tree = ast.parse(inspect.getsource(module))
    used = list(calls(tree, "re"))
    at_top = [
        call
        for line in tree.body
        if isinstance(line, ast.Assign | ast.AnnAssign)
        for call in calls(line, "re")
    ]
    hidden = [call for call in used if call not in at_top]
    assert len(hidden) == OF_AN_OPERATOR.get(module.__name__, 0), [c.lineno for c in hidden]
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("re", "difflib")
        for alias in node.names
    }
    assert not names, "import the module: so its uses are seen"
    near = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Import) and any(alias.name == "difflib" for alias in node.names)
    ]
    assert not near or module.__name__ == "anabranch.config.messages", (
        "use explain.nearest: it is bounded"
    )


def alphabet(pattern: re.Pattern[Any]) -> list[str]:
    """Characters, and runs of them, that a pattern treats differently."""
    found: dict[str, None] = {}
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin1")

    def walk(tree: Any) -> None:
        run = ""
        for op, value in [*tree, (None, ())]:
            if op is _constants.LITERAL:
                run += chr(value)
                continue
            if run:
                found.update(dict.fromkeys((run, run[0])))
                run = ""
            if op is _constants.IN:
                found.update({chr(m): None for kind, m in value if kind is _constants.LITERAL})
                found.update({chr(m[0]): None for kind, m in value if kind is _constants.RANGE})
            elif isinstance(value, tuple | list):
                inner(value)

    def inner(value: Any) -> None:
        for each in value:
            if isinstance(each, _parser.SubPattern):
                walk(each)
            elif isinstance(each, list | tuple):
                inner(each)

    walk(_parser.parse(text, pattern.flags & ~re.UNICODE))
    return [*dict.fromkeys((*"a A\n0", *list(found)[:MANY]))]


def attacks(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str]]:
    """How a text begins, and what is repeated in it; it ends in what no pattern wants."""
    signs = alphabet(pattern)
    pairs = [*map("".join, product(signs, signs))]
    yield from product(["", *signs, *pairs], signs)
    yield from product(["", *signs], pairs)


def uses(pattern: re.Pattern[Any], text: Any) -> None:
    pattern.search(text)
    for _ in pattern.finditer(text):
        pass
    pattern.fullmatch(text)


@pytest.mark.parametrize("name", PATTERNS)
def test_four_times_the_text_costs_four_times_as_much(name: str) -> None:
    pattern = PATTERNS[name]
    is_text = isinstance(pattern.pattern, str)

    def work(begin: str, unit: str) -> Callable[[int], Callable[[], None]]:
        def sized(size: int) -> Callable[[], None]:
            text: Any = f"{begin}{unit * size}\x01"
            return lambda: uses(pattern, text if is_text else text.encode())

        return sized

    for begin, unit in attacks(pattern):
        assert not grows_too_fast(work(begin, unit)), (pattern.pattern, begin, unit)


@pytest.mark.parametrize(
    "pattern",
    [
        r"[^\W_]*[a-z0-9][A-Z][^\W_]*",
        r"^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$",
        r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])",
        r":[\w:+-]+:`([^`]*)`",
        r"(\d+) ([^,]+),",
    ],
)
def test_a_quadratic_pattern_is_noticed(pattern: str) -> None:
    """Those that were here once."""
    PATTERNS["once"] = re.compile(pattern)
    try:
        with pytest.raises(AssertionError):
            test_four_times_the_text_costs_four_times_as_much("once")
    finally:
        del PATTERNS["once"]
