"""A stranger who opens a room of the coordinator reads it from below, and never in a ring."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3] / "pipeline"
COORDINATOR = "anabranch.coordinator"
Graph = Mapping[str, set[str]]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.Module) -> Iterator[str]:
    """Every name that is imported anywhere: within functions and under TYPE_CHECKING, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph() -> Graph:
    """Modules of the coordinator and what they import of each other."""
    trees = {
        module_of(path): ast.parse(path.read_text(encoding="utf-8"))
        for path in (ROOT / "anabranch/coordinator").rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, tree in trees.items():
        used = {it if it in trees else it.rpartition(".")[0] for it in imported(tree)}
        found[name] = (used & trees.keys()) - {name}
    return found


def rooms(modules: Graph) -> Graph:
    """The same by room; what stands in no room is one of its own."""

    def room(name: str) -> str:
        return ".".join(name.split(".")[:3])

    found: dict[str, set[str]] = {}
    for name, used in modules.items():
        found.setdefault(room(name), set()).update(set(map(room, used)) - {room(name)})
    return found


def ring(edges: Graph) -> list[str]:
    """Who is left when all are taken away that import nobody who is left."""
    left = {name: set(used) for name, used in edges.items()}
    while free := {name for name, used in left.items() if not used & left.keys()}:
        left = {name: used for name, used in left.items() if name not in free}
    return sorted(left)


def test_no_module_of_the_coordinator_stands_in_a_ring() -> None:
    modules = graph()
    assert len(modules) > 40
    assert ring(modules) == []


def test_nor_does_a_room() -> None:
    found = rooms(graph())
    assert ring(found) == []
    room = f"{COORDINATOR}.query"
    assert found[room] == {f"{COORDINATOR}.progress"}, "what decides knows nobody who sends"


def test_a_ring_is_noticed() -> None:
    assert ring({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a.b import C"
    assert list(imported(ast.parse(source)))[1] == "a.b.C"


@pytest.mark.parametrize("name", ["wiring", "service"])
def test_nothing_is_attached_late(name: str) -> None:
    """An attribute of what was made before is set by itself alone."""
    tree = ast.parse((ROOT / f"anabranch/coordinator/{name}.py").read_text(encoding="utf-8"))
    assert list(attached(tree)) == []
    assert list(attached(ast.parse("self.a = b\nself.a.c = d"))) == ["self.a.c"]


def attached(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Attribute) and not isinstance(target.value, ast.Name):
                yield ast.unparse(target)
