"""Commands that speak to a pipeline: which one, and what they say of what is not there."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from anabranch import cli
from anabranch.cli import ask as asking
from anabranch.cli import dlq as letters
from anabranch.cli import invalidate as ordered
from anabranch.cli import replay as replaying
from anabranch.cli import topics as listing
from anabranch.cli.runtime import published
from anabranch.config.settings import Config
from anabranch.contract.events import Answer, Error
from anabranch.contract.rejected import QueryRejected


@pytest.fixture(autouse=True)
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`anabranch up` runs from this folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as there:
        address = f"127.0.0.1:{there.getsockname()[1]}"
        with published(address, "mine."):
            yield address


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Which broker and namespace a command goes to; it finds nothing there."""
    found: list[tuple[str, str]] = []

    async def nothing(config: Config, *rest: Any, **options: Any) -> Any:
        found.append((config.kafka.bootstrap, config.namespace))
        return {} if rest else []

    monkeypatch.setattr(listing, "_find", nothing)
    monkeypatch.setattr(replaying, "_read_topic", nothing)
    monkeypatch.setattr(letters, "_read", nothing)
    return found


@pytest.mark.parametrize("command", [["topics"], ["topics", "--check"], ["replay", "--topic"],
                                     ["dlq", "list"]])  # fmt: skip
def test_commands_find_the_pipeline_that_up_runs(
    reached: list[tuple[str, str]], running: str, command: list[str]
) -> None:
    cli.run(command)
    cli.run([*command, "--bootstrap", running])
    assert reached == [(running, "mine."), (running, "anabranch.")]


def rejecting(answer: Answer | None) -> Any:
    class Rejecting:
        def __init__(self, config: Config) -> None: ...

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *error: object) -> None: ...

        async def ask(self, *question: Any, **options: Any) -> Answer:
            raise QueryRejected("unavailable", "nobody serves it", answer)

    return Rejecting


def test_a_rejection_is_an_answer_in_json_and_an_error_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = Answer(id="q", status="failed", error=Error("unavailable", "nobody serves it"))
    monkeypatch.setattr(asking, "Client", rejecting(answer))
    assert cli.run(["ask", "t", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["error"] == {"code": "unavailable", "message": "nobody serves it"}
    assert err == ""
    assert cli.run(["ask", "t"]) == 1
    assert capsys.readouterr() == ("", "error: unavailable: nobody serves it\n")
    monkeypatch.setattr(asking, "Client", rejecting(None))
    assert cli.run(["ask", "t", "--json"]) == 1
    assert capsys.readouterr() == ("", "error: unavailable: nobody serves it\n")


@pytest.mark.parametrize(
    ("announced", "said"),
    [
        ({"semantic": 1}, "did you mean 'semantic'?"),
        ({"graph": 1}, "known are: graph"),
        ({}, "known are: none"),
    ],
)
def test_a_layer_that_nobody_knows_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    announced: Mapping[str, Any], said: str,
) -> None:  # fmt: skip
    class Diagnostics:
        def __init__(self, config: Config) -> None: ...

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *error: object) -> None: ...

        async def cluster_view(self) -> Any:
            return SimpleNamespace(layers=announced)

    monkeypatch.setattr(ordered, "Diagnostics", Diagnostics)
    assert cli.run(["invalidate", "semantik"]) == 2
    told = capsys.readouterr().err
    assert told == f"error: no layer 'semantik' is configured or announced; {said}\n"


def test_a_folder_may_be_called_anything(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reached: list[tuple[str, str]],
    running: str,
) -> None:
    (tmp_path / "\udcff").mkdir()
    monkeypatch.chdir(tmp_path / "\udcff")
    with published(running, "n."):
        cli.run(["topics"])
    assert reached == [(running, "n.")]
