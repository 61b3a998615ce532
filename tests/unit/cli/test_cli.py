"""The command line: exit codes, one-line errors, and what each command prints."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from anabranch import cli
from anabranch.layers.loading import Installed

CALL = [sys.executable, "-c", "from anabranch.cli import main; main()"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and nothing of ours in the environment."""
    monkeypatch.chdir(tmp_path)
    for variable in ("ANABRANCH_CONFIG", "ANABRANCH_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def configured(folder: Path) -> Path:
    path = folder / "anabranch.toml"
    path.write_text(
        '[kafka]\nbootstrap = "there:9092"\n[layers.a]\nplugin = "p"\ngroup = "io"\n'
        'dsn = "${SOME_DSN}"\napi_key = "abc"\nurl = "http://me:pw@host/x"\n'
    )
    return path


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert f" {name} " in shown


def test_help_imports_no_command(folder: Path) -> None:
    code = (
        "import sys; from anabranch import cli; cli.run(['--help']);"
        "sys.exit(any(m.startswith(('anabranch.cli.', 'anabranch.kafka', 'aiokafka'))"
        " for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_the_common_options(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([name, "--help"]) == 0
    shown = capsys.readouterr().out
    for option in ("--config", "--bootstrap", "--namespace", "--debug"):
        assert option in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nope"], 2, "nope"),
        (["config", "--nope"], 2, "--nope"),
        (["config", "--config", "gone.toml"], 2, "gone.toml: there is no such file"),
        (["config", "--namespace", "a b"], 2, "command line: namespace: write letters"),
        (["broker", "--nodes", "3"], 2, "add --kafka"),
        (["broker", "--port", "70000"], 2, "port 70000 of 127.0.0.1 cannot be had"),
        (["broker", "--kafka", "--nodes", "2"], 2, "--nodes"),
    ],
)
def test_a_wrong_call_is_one_line_and_code_2(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == code
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert message in told
    assert told.count("\n") == 1


def test_a_defect_is_one_line_and_debug_shows_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr(cli, "app", broken)
    assert cli.run(["config"]) == 1
    assert capsys.readouterr().err.startswith("error: ZeroDivisionError: oh no (a defect")
    assert cli.run(["config", "--debug"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err.partition("Traceback")[2]
    monkeypatch.setenv("ANABRANCH_DEBUG", "1")
    assert cli.run(["config"]) == 1
    assert "Traceback" in capsys.readouterr().err


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_config_shows_where_each_value_came_from(
    configured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_DSN", "x")
    monkeypatch.setenv("ANABRANCH_WORKER__SLOTS", "3")
    assert cli.run(["config", "--json", "--namespace", "n."]) == 0
    shown = rows(capsys)
    assert shown["kafka.bootstrap"] == {"value": "there:9092", "from": "anabranch.toml"}
    assert shown["worker.slots"] == {"value": 3, "from": "ANABRANCH_WORKER__SLOTS"}
    assert shown["namespace"] == {"value": "n.", "from": "command line"}
    assert shown["worker.queue"] == {"value": 1000, "from": "default"}
    assert shown["layers.a.group"] == {"value": "io", "from": "anabranch.toml"}


def test_config_never_shows_secrets(
    configured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_DSN", "do-not-show")
    monkeypatch.setenv("ANABRANCH_KAFKA__CLIENT__SASL_PLAIN_PASSWORD", "do-not-show${HOME}")
    for arguments in (["config", "--json"], ["config"]):
        assert cli.run(arguments) == 0
        shown = capsys.readouterr().out
        assert "do-not-show" not in shown
        assert "abc" not in shown
        assert "pw@" not in shown
        assert "${SOME_DSN}" in shown
        assert "http://me:***@host/x" in shown


def test_the_configuration_file_may_be_named_by_a_variable(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "other.toml").write_text('namespace = "o."\n')
    monkeypatch.setenv("ANABRANCH_CONFIG", "other.toml")
    assert cli.run(["config", "--json"]) == 0
    assert rows(capsys)["namespace"] == {"value": "o.", "from": "other.toml"}


def test_topics_prints_commands_without_a_broker(
    configured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_DSN", "x")
    assert cli.run(["topics", "--print"]) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert {command[0] for command in commands} == {"kafka-topics.sh"}
    assert any("anabranch.tasks.io.critical" in command for command in commands)
    assert all("there:9092" in command for command in commands)


class Orders:
    """Finds orders.

    What follows is not listed.
    """

    class Config(Struct):
        dsn: str
        rows: int = 10
        names: list[str] = []


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Installed("orders", f"{__name__}:Orders", "shop", "1.2")
    bad = Installed("bad", "not_there:Layer", "shop", "1.2")
    monkeypatch.setattr("anabranch.cli.plugins.installed", lambda: [good, bad])


def test_plugins_are_listed_with_their_settings(
    plugins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["plugins"]) == 0
    shown = capsys.readouterr().out
    assert "orders  Finds orders.  shop 1.2" in shown
    assert "not listed" not in shown
    assert "dsn: str required" in shown
    assert "rows: int = 10" in shown
    assert "names: list[str] = []" in shown


def test_a_plugin_that_cannot_be_imported_does_not_hide_the_others(
    plugins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["plugins", "--json"]) == 0
    good, bad = json.loads(capsys.readouterr().out)
    assert [setting["name"] for setting in good["settings"]] == ["dsn", "rows", "names"]
    assert good["error"] is None
    assert "not_there" in bad["error"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_broker_prints_its_address_and_ends_well_when_told(how: signal.Signals) -> None:
    running = subprocess.Popen(
        [*CALL, "broker"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    host, port = running.stdout.readline().strip().rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=60) as connection,
        suppress(ConnectionResetError),
    ):
        running.send_signal(how)
        _, told = running.communicate()
        assert connection.recv(1) == b"", "the broker lives on"
    assert running.returncode == 0
    assert "Traceback" not in told


def test_output_that_nobody_reads_is_no_traceback(configured: Path) -> None:
    command = f"{shlex.join([*CALL, 'topics', '--print', '--config', '/dev/null'])} | true"
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False, env=buffered
    )
    assert "BrokenPipe" not in done.stderr


def test_a_process_that_is_ready_looks_for_garbage_rarely_and_not_among_its_modules() -> None:
    code = (
        "import gc; from anabranch.cli.common import collect_rarely; collect_rarely(); "
        "print(gc.get_threshold()[0], gc.get_freeze_count() > 10_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "10000 True\n", done.stderr
