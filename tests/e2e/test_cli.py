"""The commands as a person runs them: real processes, on the embedded broker."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pygit2
import pytest

from anabranch.dev.embedded import EmbeddedBroker

CALL = [sys.executable, "-c", "from anabranch.cli import main; main()"]
TIMEOUT_S = 120

LAYERS = """
import asyncio
from pathlib import Path

from anabranch import Item, LayerError, layer

@layer("fruit")
async def fruit(request):
    return [Item("fruit:1", 2.0, {"title": "apple", "params": request.params})]

@layer("nuts")
async def nuts(request):
    return [Item("nuts:1", 1.0, {"title": "walnut"})]

@layer("broken")
async def broken(request):
    raise LayerError("this layer is broken")

@layer("endless")
async def endless(request):
    Path("asked").write_text("a pipe: this waits for its reader")
    await asyncio.sleep(3600)
"""

CONFIG = """
[types.food]
layers = ["fruit", "nuts"]

[layers.fruit]
plugin = "my_layers:fruit"
group = "sweet"

[layers.nuts]
plugin = "my_layers:nuts"

[layers.broken]
plugin = "my_layers:broken"

[layers.endless]
plugin = "my_layers:endless"

[worker]
drain_timeout_ms = 60000
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the commands are called: with a configuration, and layers of its own."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "my_layers.py").write_text(LAYERS)
    (work / "anabranch.toml").write_text(CONFIG)
    return work


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home of its own, and nothing of ours in the environment."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("ANABRANCH_", "OTEL_", "XDG_"))
    }
    return kept | {"HOME": str(tmp_path)}


@pytest.fixture
def start(folder: Path, environment: dict[str, str]) -> Iterator[Start]:
    """Start a command in the folder; what still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*CALL, *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def until_ready(process: subprocess.Popen[str]) -> str:
    """What it prints after `ready`."""
    assert process.stdout is not None
    word, _, rest = process.stdout.readline().strip().partition(" ")
    if word != "ready":
        process.kill()
        pytest.fail(f"not ready: {word} {rest} {process.communicate()[1]}")
    return rest


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def test_up_answers_what_ask_asks_from_the_same_folder(start: Start) -> None:
    up = start("up")
    address = until_ready(up)
    code, out, err = finished(start("ask", "food", "text=green", "count:=3", "--json"))
    assert code == 0, err
    answer = json.loads(out)
    assert answer["status"] == "complete"
    assert {item["id"] for item in answer["items"]} == {"fruit:1", "nuts:1"}
    params = next(item["data"]["params"] for item in answer["items"] if item["id"] == "fruit:1")
    assert params == {"text": "green", "count": 3}
    up.send_signal(signal.SIGTERM)
    code, _, err = finished(up)
    assert code == 0, err
    assert "Traceback" not in err
    code, _, err = finished(start("ask", "food", "text=green", "--bootstrap", address))
    assert code == 1
    assert err.startswith(f"error: no Kafka broker answers at {address}")
    assert err.count("\n") == 1


def test_ask_is_readable_and_says_what_is_missing(start: Start) -> None:
    until_ready(start("up"))
    call = ("ask", "any", "x=1", "--layers", "nuts,broken", "--strategy", "distributed")
    code, out, err = finished(start(*call, "--timeout", "5s"))
    assert code == 0, err
    assert re.match(r"partial +distributed +\d", out)
    assert "walnut" in out
    assert re.search(r"nuts +distributed +ok +1 ", out)
    assert "without broken:" in out
    assert "this layer is broken" in out


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (("ask", "nope", "x=1"), 1, "invalid_query"),
        (("ask", "food", "x"), 2, "'x' is no param; write key=text, or key:=JSON"),
        (("ask", "food", "x:=y"), 2, "x: 'y' is no JSON"),
        (("ask", "food", "--timeout", "soon"), 2, "'soon' is no duration; write 500ms"),
        (("up",), 2, "runs a pipeline from this folder already"),
        (("worker", "--group", "sour"), 2, "no layer is in group 'sour'"),
    ],
)
def test_a_wrong_call_beside_a_running_pipeline_is_one_line(
    start: Start, call: tuple[str, ...], code: int, message: str
) -> None:
    until_ready(start("up"))
    found, _, err = finished(start(*call))
    assert found == code, err
    assert message in err
    assert "Traceback" not in err


def test_up_ends_with_a_reason_when_its_broker_dies(
    start: Start, environment: dict[str, str]
) -> None:
    up = start("up")
    until_ready(up)
    children = Path(f"/proc/{up.pid}/task/{up.pid}/children")
    if not children.exists():
        pytest.skip("finds the broker's process through /proc")
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    code, _, err = finished(up)
    assert code == 1
    assert "error: " in err
    assert "Traceback" not in err


def test_up_without_layers_says_what_to_write(start: Start, folder: Path) -> None:
    (folder / "anabranch.toml").write_text("")
    code, _, err = finished(start("up"))
    assert code == 2
    assert "no layers are configured; write, for example, [layers.semantic]" in err


def test_a_second_signal_ends_a_drain_at_once(start: Start, folder: Path) -> None:
    os.mkfifo(folder / "asked")
    up = start("up")
    until_ready(up)
    ask = start("ask", "any", "--layers", "endless", "--timeout", "60s")
    assert (folder / "asked").read_text(), "the layer was not asked"
    up.send_signal(signal.SIGTERM)
    assert up.stderr is not None
    for line in up.stderr:
        if "a second signal ends it at once" in line:
            break
    assert up.poll() is None, "it did not wait for the layer that is still at work"
    up.send_signal(signal.SIGTERM)
    assert up.wait(TIMEOUT_S) == 128 + signal.SIGTERM
    ask.send_signal(signal.SIGINT)
    assert finished(ask)[0] == 130


def test_coordinator_and_workers_run_as_processes_and_drain_when_told(start: Start) -> None:
    with EmbeddedBroker() as broker:
        there = ("--bootstrap", broker.bootstrap)
        code, out, err = finished(start("topics", *there))
        assert code == 0, err
        assert "anabranch.tasks.sweet.critical" in out
        services = [
            start("worker", "--group", "sweet", *there),
            start("worker", *there),
            start("coordinator", *there),
        ]
        for service in services:
            until_ready(service)
        code, out, err = finished(start("ask", "food", "a=b", "--json", *there))
        assert code == 0, err
        assert json.loads(out)["status"] == "complete"
        for service in reversed(services):
            service.send_signal(signal.SIGINT)
            code, _, err = finished(service)
            assert code == 0, err
            assert "Traceback" not in err


@pytest.mark.parametrize("command", ["coordinator", "worker", "topics", "ask"])
def test_a_broker_that_is_not_there_is_told_in_time(
    start: Start, environment: dict[str, str], command: str
) -> None:
    environment["ANABRANCH_KAFKA__REQUEST_TIMEOUT_MS"] = "1000"
    call = [command, *(["food"] if command == "ask" else [])]
    code, _, err = finished(start(*call, "--bootstrap", "127.0.0.1:1"))
    assert code == 1
    assert err.splitlines()[-1].startswith("error: no Kafka broker answers at 127.0.0.1:1")
    assert "Traceback" not in err


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three commits, two files that change together."""
    folder = tmp_path / "repository"
    repo = pygit2.init_repository(str(folder))
    who = pygit2.Signature("Ada", "ada@example.org", 1_700_000_000, 0)
    parents: list[pygit2.Oid] = []
    for number, title in enumerate(["Start the orchard", "Prune the orchard", "Water the trees"]):
        (folder / "orchard.py").write_text(f'"""The orchard and its trees."""\nage = {number}\n')
        (folder / "watering.py").write_text(f"import orchard\n\nlitres = {number}\n")
        repo.index.add_all()
        repo.index.write()
        tree = repo.index.write_tree()
        parents = [repo.create_commit("HEAD", who, who, title, tree, parents)]
    return folder


def test_the_demo_answers_each_question_twice_the_second_time_from_the_cache(
    start: Start, repository: Path
) -> None:
    code, out, err = finished(start("demo", "--repo", str(repository)))
    assert code == 0, err
    assert "Traceback" not in err
    questions = re.findall(r"^(\d)  (\w+)  text=", out, re.MULTILINE)
    assert [int(number) for number, _ in questions] == [1, 2, 3, 4, 5]
    assert "Water the trees  Ada" in out
    assert "how does orchard work" in out or "how does watering work" in out
    assert len(re.findall(r"(?:episodic|semantic|graph) +\w+, ok +\S+ ms +cache, ok", out)) >= 9
    assert "without procedural: " in out
    assert len(re.findall(r"\d+\.\d times *$", out, re.MULTILINE)) == 5
    assert "anabranch ask" in out


def test_the_demo_says_where_there_is_no_repository(start: Start, folder: Path) -> None:
    code, _, err = finished(start("demo", "--repo", str(folder)))
    assert code == 2
    assert "there is no git repository at" in err
    assert "Traceback" not in err
