"""The repository keeps its own house rules."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import anabranch

ROOT = Path(__file__).parents[3]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

# Written so that this file does not contain what it looks for.
MACHINE_PATH = re.compile(
    r"(?<![\w.~$}<-])/(?:work|root|home/\w+|Users/\w+)" + r"/[\w.]|/tmp" + r"/[a-z0-9_]{3,}"
)
REGISTRY = re.compile(
    "|".join(
        re.escape(host + ".")
        for host in (
            "files.pythonhosted",
            "pypi",
            "registry" + ".npmjs",
            "proxy" + ".golang",
            "repo1" + ".maven",
        )
    )
)


def tracked() -> list[Path]:
    """Files that git keeps, as far as they are there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert listed.returncode == 0, listed.stderr
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def sources() -> list[Path]:
    return [
        path for root in ("pipeline", "plugins") for path in sorted((ROOT / root).rglob("*.py"))
    ]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("forbidden", [MACHINE_PATH, REGISTRY], ids=["paths", "registries"])
def test_no_file_names_a_machines_path_or_a_registrys_host(forbidden: re.Pattern[str]) -> None:
    found = []
    for path in tracked():
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{name_of(path)}: {match.group()}" for match in forbidden.finditer(text)]
    assert found == []


@pytest.mark.parametrize(
    "line",
    ["see /" + "work/main/x", "'/" + "root/.cache'", "/" + "home/me/x", "/" + "tmp/kafka/libs"],
)
def test_a_machines_path_is_recognised(line: str) -> None:
    assert MACHINE_PATH.search(line)


@pytest.mark.parametrize("line", ["src/home/x.py", "https://example.org/home/x", "/var/lib/kafka"])
def test_other_paths_are_not(line: str) -> None:
    assert not MACHINE_PATH.search(line)


def test_one_package_imports_aiokafka() -> None:
    importing = {
        name_of(path)
        for path in sources()
        for module in imported(ast.parse(path.read_text(encoding="utf-8")))
        if module.split(".")[0] == "aiokafka"
    }
    assert importing
    assert all(name.startswith("pipeline/anabranch/kafka/client/") for name in importing)


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_files_are_small() -> None:
    lengths = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name_of(path)}:{node.name}", (node.end_lineno or 0) - node.lineno + 1


def test_functions_are_small() -> None:
    lengths = [found for path in sources() for found in functions(path)]
    assert [found for found in lengths if found[1] >= MAX_FUNCTION_LINES] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name_of(path)
        for path in sources()
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_coordinators_never_import_what_runs_plugins() -> None:
    """Rule 8 of the design: what a coordinator must know of a layer is its descriptor."""
    importing = {
        name_of(path): module
        for folder in ("coordinator", "dispatch", "aggregate", "select", "cache", "learn")
        for path in (ROOT / "pipeline/anabranch" / folder).glob("*.py")
        for module in imported(ast.parse(path.read_text(encoding="utf-8")))
        if module.startswith(
            ("anabranch.layers.loading", "anabranch.worker", "anabranch.layers.middleware")
        )
    }
    assert importing == {}


def test_everything_exported_stands_in_the_documents() -> None:
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in documents)
    assert [n for n in anabranch.__all__ if not re.search(rf"\b{n}\b", text)] == []


def test_everything_exported_has_a_docstring() -> None:
    exported = {name: getattr(anabranch, name) for name in anabranch.__all__}
    assert [name for name, found in exported.items() if callable(found) and not found.__doc__] == []


def test_nothing_that_runs_what_it_reads_is_used() -> None:
    """No pickle, no eval, no shell: what comes from a topic is data."""
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(a.name for a in node.names)]
                found += [(name_of(path), n) for n in names if n in {"pickle", "marshal", "shelve"}]
            elif isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else ""
                shell = any(k.arg == "shell" for k in node.keywords)
                if shell or called in {"eval", "exec", "compile"}:
                    found.append((name_of(path), called or "shell"))
    assert found == []
