"""`anabranch replay`: reads batches, judges settings, and writes what is surely better."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lessons import context, record

from anabranch import cli
from anabranch.cli.replay import read_topic, with_keys
from anabranch.contract.plan import Arm
from anabranch.contract.telemetry import TelemetryBatch
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.virtual_time import run

FAST, SLOW = 60.0, 200.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and nothing of ours in the environment."""
    monkeypatch.chdir(tmp_path)
    for variable in ("ANABRANCH_CONFIG", "ANABRANCH_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def log(folder: Path) -> Path:
    """PARALLEL was slow, SEQUENTIAL fast, and a third of the queries explored it."""
    path, lines = folder / "telemetry.jsonl", []
    for number in range(600):
        arm: Arm = "sequential" if number % 3 == 0 else "parallel"
        total = (FAST if arm == "sequential" else SLOW) + number % 7
        one = record(
            {"a": 90.0, "b": 90.0},
            arm=arm,
            query=f"q{number}",
            at_ms=number * 1_000,
            total_ms=total,
            formula_ms=100.0,
            context=context(query=f"q{number}"),
            probability=1 / 3 if arm == "sequential" else 2 / 3,
            explored=arm == "sequential",
        )
        lines.append(msgspec.json.encode(TelemetryBatch("i", number + 1, sampled=(one,))))
    path.write_bytes(b"\n".join(lines))
    return path


def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_it_judges_the_configured_settings(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["replay", str(log), "--json"]) == 0
    found = shown(capsys)["these settings"]
    assert found["records"] == 600
    assert found["mean_ms"]["low"] < SLOW + 3 < found["mean_ms"]["high"]


def test_it_judges_thresholds_given_on_the_line(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["replay", str(log), "--json", "--parallel-max-layers", "1"]) == 0
    found = shown(capsys)["these settings"]
    assert found["mean_ms"]["low"] < FAST + 3 < found["mean_ms"]["high"]


def test_people_get_a_table_and_a_refusal_in_words(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        cli.run(["replay", str(log), "--distributed-threshold", "1", "--parallel-max-layers", "1"])
        == 0
    )
    told = capsys.readouterr()
    assert "95th percentile" in told.out
    assert "evidence" in told.err


def test_tune_proposes_what_is_better(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["replay", str(log), "--tune", "--json"]) == 0
    found = shown(capsys)
    assert found["gain_ms"]["low"] > 0
    assert found["proposed"] is not None


def test_write_sets_it_in_the_file_and_leaves_the_rest(log: Path, folder: Path) -> None:
    path = folder / "anabranch.toml"
    path.write_text(
        "# mine\nnamespace = 'n.'\n\n[select] # how\nparallel_max_layers = 4 # few\n\n"
        "[worker]\nslots = 7\n"
    )
    assert cli.run(["replay", str(log), "--tune", "--write"]) == 0
    text = path.read_text()
    assert "# mine" in text
    assert "[select] # how" in text
    found = tomllib.loads(text)
    assert found["worker"] == {"slots": 7}
    assert found["select"] != {"parallel_max_layers": 4}
    assert cli.run(["config"]) == 0


def test_a_log_that_proposes_nothing_is_code_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty.jsonl").write_text("")
    assert cli.run(["replay", "empty.jsonl", "--tune"]) == 1
    assert "evidence" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a file, or --topic"),
        (["x.jsonl", "--topic"], "not both"),
        (["gone.jsonl"], "gone.jsonl: cannot be read"),
        (["bad.jsonl"], "bad.jsonl:2:"),
        (["bad.jsonl", "--write"], "add --tune"),
        (["bad.jsonl", "--tune", "--write"], "--config"),
        (["bad.jsonl", "--parallel-threshold", "0"], "parallel_threshold"),
    ],
)
def test_a_wrong_call_is_one_line_and_code_2(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.jsonl").write_text('{"instance": "i", "sequence": 1}\n{"oh": "no"}\n')
    assert cli.run(["replay", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[select]",
        '[select]\nmode = "rules"',
        "[worker]\nslots = 3\n",
        "[select]\nmode = 'rules' # why\n[worker]\nmode = 'mine'\n",
        "[worker]\nmode = 'mine'\n[select]\n# nothing\n",
    ],
)
def test_keys_are_set_wherever_the_table_is(text: str) -> None:
    before = tomllib.loads(text)
    after = tomllib.loads(with_keys(text, "select", {"mode": "learned", "parallel_threshold": 2.5}))
    assert after.pop("select") == {"mode": "learned", "parallel_threshold": 2.5}
    before.pop("select", None)
    assert after == before


def test_the_topic_is_read_to_its_end_past_what_cannot_be_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> None:
        transport = MemoryBroker().transport()
        producer = transport.producer("p")
        await producer.start()
        sent = [TelemetryBatch(f"i{number % 3}", number + 1) for number in range(9)]
        for batch in sent:
            await producer.send_and_wait("t", msgspec.json.encode(batch))
        await producer.send_and_wait("t", b"no batch")
        found = await read_topic(transport, "t")
        assert sorted(found, key=lambda batch: batch.sequence) == sent

    run(scenario())
    assert "1 records could not be read" in capsys.readouterr().err
