"""Coordinators and workers as processes on Apache Kafka, asked in plain JSON."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from fleet import SETTINGS, Fleet, answers, check_content, send

from anabranch.config.settings import Config, KafkaConfig, load
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import ensure_topics

pytestmark = pytest.mark.kafka


@asynccontextmanager
async def fleet_of(path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(path)
    for name, command in {
        "c1": ("coordinator",),
        "c2": ("coordinator",),
        "w1": ("worker",),
        "w2": ("worker",),
        "w3": ("worker", "--group", "cpu"),
        "w4": ("worker", "--group", "cpu"),
    }.items():
        await fleet.start(name, *command)
    try:
        await fleet.ready()
        yield fleet
    finally:
        await fleet.kill_all()


@pytest.fixture
async def setting(
    kafka: str, tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[Config, Path]:
    path = tmp_path / "anabranch.toml"
    namespace = f"p{uuid4().hex[:8]}."
    mode = getattr(request, "param", "at_least_once")
    path.write_text(SETTINGS.format(namespace=namespace, bootstrap=kafka, mode=mode))
    config = load(path, environ={})
    await ensure_topics(KafkaTransport(KafkaConfig(bootstrap=kafka)), config, config.groups)
    return config, path


async def test_ten_thousand_plain_json_queries_are_each_answered_exactly_once(
    setting: tuple[Config, Path],
) -> None:
    config, path = setting
    async with fleet_of(path) as fleet:
        reading = asyncio.ensure_future(answers(config, 10_000, within_s=240))
        await send(config, 10_000, per_s=800, timeout_ms=60_000)
        found = await reading
        codes = await fleet.stop()
    assert len(found) == 10_000
    assert {len(given) for given in found.values()} == {1}
    for (answer,) in found.values():
        assert answer["status"] == "complete"
        check_content(answer)
    assert set(codes.values()) == {0}


async def test_kill_9_of_a_coordinator_and_a_worker_leaves_no_query_silent(
    setting: tuple[Config, Path],
) -> None:
    config, path = setting
    async with fleet_of(path) as fleet:
        reading = asyncio.ensure_future(answers(config, 1_000, within_s=120))
        sending = asyncio.ensure_future(send(config, 1_000, per_s=100, timeout_ms=8_000))
        await asyncio.sleep(4)
        fleet.kill("c1")
        fleet.kill("w1")
        await sending
        found = await reading
        codes = await fleet.stop()
    assert len(found) == 1_000, "silence"
    statuses = Counter(given[0]["status"] for given in found.values())
    assert statuses["complete"] > 500, statuses
    for given in found.values():
        for answer in given:
            check_content(answer)
    assert {name: code for name, code in codes.items() if code} == {"c1": -9, "w1": -9}


@pytest.mark.parametrize("setting", ["exactly_once"], indirect=True)
async def test_exactly_once_holds_under_kill_9_and_sigstop_of_coordinators(
    setting: tuple[Config, Path],
) -> None:
    config, path = setting
    async with fleet_of(path) as fleet:
        reading = asyncio.ensure_future(answers(config, 2_000, within_s=180))
        sending = asyncio.ensure_future(send(config, 2_000, per_s=100, timeout_ms=30_000))
        await asyncio.sleep(4)
        fleet.kill("c1")
        await fleet.start("c3", "coordinator")
        await asyncio.sleep(8)
        fleet.signal("c2", signal.SIGSTOP)  # for longer than its session
        await asyncio.sleep(8)
        fleet.signal("c2", signal.SIGCONT)
        await fleet.start("c4", "coordinator")
        await sending
        found = await reading
        codes = await fleet.stop()
    assert len(found) == 2_000, "silence"
    assert {len(given) for given in found.values()} == {1}, "answered twice"
    for (answer,) in found.values():
        check_content(answer)
    assert codes["c2"] not in (0, None), "a zombie came back under its old name"
    assert {code for name, code in codes.items() if name not in {"c1", "c2"}} == {0}
