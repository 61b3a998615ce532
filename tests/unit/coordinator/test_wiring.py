"""A coordinator is put together once; that rooms import one way is import-linter's business."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3] / "pipeline"


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
