"""Foreign text at the edge to a terminal: shown, not obeyed, whatever the terminal is."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from anabranch.cli.common import note, print_json, tell
from anabranch.cli.render import show_answer
from anabranch.contract.events import Answer, AnswerItem, AnswerLayer, Error, Missing
from anabranch.contract.rejected import QueryRejected
from anabranch.observe.terminal import LogFormatter, Screen, json_for, visible

EVIL = "\x1b[31mred\x1b]0;title\x07 \x9b2J \r\x08\x7f \u202egnp.exe\u2066 \u2028 "
EVIL += "[bold]b[/bold] [/] :smile:"
SHOWN = "\\x1b[31mred"
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
OUR_STYLES = re.compile("\x1b\\[[0-9;]*m")
"""What a screen writes of its own on a terminal."""

texts = st.text(st.characters(codec=None) | st.sampled_from(EVIL), max_size=40)


def on(screen: Callable[..., Screen], show: Callable[[Screen], object], **options: Any) -> str:
    file = io.StringIO()
    show(screen(file=file, width=100, **options))
    return file.getvalue()


def table(text: str) -> Table:
    found = Table(text, "b", box=None)
    found.add_row(text, Text(text))
    return found


@given(texts, st.booleans())
def test_nothing_foreign_commands_a_terminal(text: str, terminal: bool) -> None:
    for shown in (text, Text(text), table(text), Padding(text, 1)):
        printed = on(Screen, lambda screen, s=shown: screen.print(s), force_terminal=terminal)  # type: ignore[misc]
        assert not COMMANDS.search(OUR_STYLES.sub("", printed) if terminal else printed)


def test_a_foreign_style_is_not_taken_for_ours() -> None:
    printed = on(Screen, lambda screen: screen.print(EVIL), force_terminal=True)
    assert SHOWN in printed
    assert "\x1b[31m" not in printed
    assert "[bold]b[/bold] [/] :smile:" in printed


@given(texts)
def test_what_can_be_read_is_left_as_it_is(text: str) -> None:
    clean = COMMANDS.sub("", text).encode(errors="ignore").decode()
    assert visible(clean) == clean


@given(texts, st.sampled_from(["utf-8", "ascii", "latin-1", None]))
def test_json_says_the_same_in_any_encoding(text: str, encoding: str | None) -> None:
    text = text.encode(errors="replace").decode()
    document = json_for(encoding, msgspec.json.encode([text]).decode())
    assert json.loads(document) == [text]
    assert not COMMANDS.search(document)
    assert encoding == "utf-8" or document.isascii()


def answer() -> Answer:
    return Answer(
        id=EVIL, status="partial", strategy="parallel", reason=EVIL,
        items=[
            AnswerItem((EVIL,), EVIL, 0.5, {"title": EVIL, "author": EVIL}),
            AnswerItem((EVIL,), EVIL, 0.4, EVIL),
        ],
        layers={EVIL: AnswerLayer(source="none", status="error", error=EVIL)},
        missing=[Missing(EVIL, EVIL)], error=Error("internal", EVIL),
    )  # fmt: skip


def test_all_of_an_answer_is_shown_and_none_of_it_obeyed() -> None:
    printed = on(Screen, lambda screen: show_answer(screen, answer()))
    assert not COMMANDS.search(printed)
    assert printed.count("[bold]") >= 6


def test_remarks_errors_and_documents_are_fit_for_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    note(EVIL)
    tell(QueryRejected("internal", EVIL))
    tell(ValueError(EVIL), trace=True)
    print_json({"a": EVIL})
    out, error = capsys.readouterr()
    assert not COMMANDS.search(out + error)
    assert json.loads(out) == {"a": EVIL}
    assert "[bold]b[/bold]" in error


def test_no_log_record_looks_like_two() -> None:
    try:
        raise ValueError(f"{EVIL}\n2026 ERROR forged")
    except ValueError as error:
        record = logging.LogRecord("a", 40, "f", 1, "%s\n2026 ERROR forged", (EVIL,), None)
        record.exc_info = (ValueError, error, error.__traceback__)
    first, *others = LogFormatter("2026 %(levelname)s %(message)s").format(record).split("\n")
    assert SHOWN in first
    assert all(line.startswith("    ") for line in others)
    assert not COMMANDS.search("".join([first, *others]))


def test_all_output_goes_through_the_screen() -> None:
    """Nobody makes a console of their own, or prints."""
    own = {"Console", "print", "rprint"}
    roots = [Path(path) for name in ("anabranch", "anabranch_git", "anabranch_synthetic")
             for path in __import__(name).__path__]  # fmt: skip
    for path in (file for root in roots for file in root.rglob("*.py")):
        called = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & own, path


# ── as a process ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "anabranch.toml"
    value = EVIL.encode("unicode-escape").decode().replace("\\x", "\\u00")
    path.write_text(f'[layers.a]\nplugin = "x:Y"\nwhere = "é無 {value}"\nwide = "{"x" * 70_000}"\n')
    return path


def command(*arguments: str | bytes, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "anabranch", *arguments],
        env={**os.environ, **variables}, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"COLUMNS": "1"},
    ],
)
def test_output_survives_any_locale(settings: Path, variables: dict[str, str]) -> None:
    shown = command("config", "--config", str(settings), **variables)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert b"[31mred" in shown.stdout
    assert not re.search(rb"[\x00-\x08\x0b-\x1f]", shown.stdout)
    document = command("config", "--json", "--config", str(settings), **variables)
    assert document.returncode == 0
    assert json.loads(document.stdout)["layers.a.where"]["value"] == f"é無 {EVIL}"


@pytest.mark.parametrize("width", ["1", "20", "0", "x", "100000"])
def test_a_terminal_of_any_width_is_written_to(settings: Path, width: str) -> None:
    settings.write_text(settings.read_text().replace("x" * 70_000, "narrow"))
    ours, theirs = pty.openpty()
    with open(theirs, "wb") as terminal:
        running = subprocess.Popen(
            [sys.executable, "-m", "anabranch", "config", "--config", str(settings)],
            env={**os.environ, "COLUMNS": width, "TERM": "xterm"}, stdout=terminal, stderr=terminal,
        )  # fmt: skip
    printed = b""
    try:
        while chunk := os.read(ours, 65_536):
            printed += chunk
    except OSError:  # how a terminal says that nobody writes any more
        pass
    os.close(ours)
    assert running.wait(60) == 0
    assert b"Traceback" not in printed
    assert not COMMANDS.search(OUR_STYLES.sub("", printed.decode().replace("\r\n", "\n")))


@pytest.mark.parametrize("arguments", [["config"], ["config", "--json"], ["--help"]])
def test_a_reader_that_goes_away_gets_no_traceback(settings: Path, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "anabranch", *arguments],
            env={**os.environ, "ANABRANCH_CONFIG": str(settings)},
            stdout=gone, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "t", b"text=\xff"], ["ask", b"\xff"], ["ask", "t", "--layers", b"\xff\x1b[31m"],
        ["invalidate", b"\xff"], ["dlq", "show", b"\xff"], ["config", "--config", b"/\xff\x1b[31m"],
        [b"\xff\x1b[31m"], ["up", "--bootstrap", b"\xff:1"],
    ],
)  # fmt: skip
def test_arguments_may_be_any_bytes(arguments: list[str | bytes]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")
    assert done.stderr.count(b"\n") == 1
    assert b"defect" not in done.stderr
    assert not re.search(rb"[\x00-\x08\x0b-\x1f]", done.stderr)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["ask", "t"], 1)], ids=repr)
def test_a_stream_may_be_closed(arguments: list[str], code: int, closed: str) -> None:
    """Not even a socket may come by its number: what is told would be written to a broker."""
    call = shlex.join([sys.executable, "-m", "anabranch", *arguments])
    nobody = {**os.environ, "ANABRANCH_KAFKA__BOOTSTRAP": "127.0.0.1:1"}
    done = subprocess.run(
        ["sh", "-c", f"{call} {closed}"], capture_output=True, timeout=60, check=False, env=nobody
    )
    assert done.returncode == code
    assert b"defect" not in done.stderr


def test_a_full_disk_is_no_defect() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "anabranch", "plugins", "--json"],
            stdout=full, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: ")
    assert b"defect" not in done.stderr


@pytest.mark.parametrize("value", ["\udcff", "a\udcff\x1b[31m"])
def test_variables_may_be_any_bytes(value: str, tmp_path: Path) -> None:
    path = tmp_path / "anabranch.toml"
    path.write_text('[layers.a]\nplugin = "${MINE}"\n')
    for name in ("ANABRANCH_KAFKA__BOOTSTRAP", "ANABRANCH_NAMESPACE", "MINE"):
        done = command(
            "config", "--json", "--config", str(path), **({"MINE": "x:Y"} | {name: value})
        )
        assert done.returncode == 2
        assert done.stderr == f"error: {name}: its value is no UTF-8\n".encode()
