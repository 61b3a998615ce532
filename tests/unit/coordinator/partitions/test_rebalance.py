"""A log that lost its tail and grew again beyond what was read brings no offset a second time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest

from anabranch.config.settings import Config, TopicsConfig
from anabranch.contract.codec import encode, read_id
from anabranch.contract.events import HEADER_OFFSET, Query
from anabranch.coordinator import Coordinator
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.kafka.transport import LOG_APPEND_TIME, TopicPartition
from anabranch.runtime.supervisor import until
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.memory.log import Log
from anabranch.testing.virtual_time import VirtualClock, run

Mode = Literal["at_least_once", "exactly_once"]
MODES = pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
TOPICS = Topics("anabranch.")


class Owned:
    """A coordinator that has read ten queries of each partition, and answered them."""

    def __init__(self, broker: MemoryBroker, config: Config) -> None:
        self.broker = broker
        self.config = config
        self.coordinator = self.another("c1")
        self.logs = [broker.log(TopicPartition(TOPICS.queries, n)) for n in range(2)]

    def another(self, name: str) -> Coordinator:
        transport = self.broker.transport(process=name)
        return Coordinator(self.config, transport=transport, clock=VirtualClock())

    def ask(self, log: Log, upto: int, prefix: str = "q") -> None:
        for n in range(log.end, upto):
            query = Query(f"{prefix}{n}", "t", layers=["a"], strategy="cache")
            log.append(None, encode(query), (), self.broker.stamp(), LOG_APPEND_TIME)

    def lose_and_grow(self, log: Log) -> None:
        """In one step: whoever reads sees nothing in between."""
        log.truncate(7)
        self.ask(log, 11, "new")

    async def answered(self, *logs: Log) -> None:
        """Each query that is there has one answer."""
        async with asyncio.timeout(60):
            await until(lambda: all(self._wanted(log) <= self._given(log).keys() for log in logs))
        await asyncio.sleep(2)
        assert all(max(self._given(log).values()) == 1 for log in logs)

    def _wanted(self, log: Log) -> set[tuple[int, bytes]]:
        return {(r.offset, str(read_id(r.value)).encode()) for r in log.read(0, log.end)}

    def _given(self, log: Log) -> Counter[tuple[int, bytes]]:
        return Counter(
            (int(dict(record.headers)[HEADER_OFFSET]), record.key or b"")
            for record in self.broker.records(TOPICS.results)
            if record.partition == log.partition.partition
        )


@asynccontextmanager
async def owned(mode: Mode) -> AsyncIterator[Owned]:
    config = Config(mode=mode, topics=TopicsConfig(queries=2, tasks=1))
    broker = MemoryBroker()
    await ensure_topics(broker.transport(), config, ["default"])
    made = Owned(broker, config)
    async with made.coordinator:
        for log in made.logs:
            made.ask(log, 10)
        await made.answered(*made.logs)
        yield made


@MODES
def test_what_another_leader_has_instead_is_answered(mode: Mode) -> None:
    async def body() -> None:
        async with owned(mode) as made:
            made.lose_and_grow(made.logs[0])
            await made.answered(*made.logs)

    run(body())


@MODES
@pytest.mark.parametrize("told", [True, False], ids=["leaders", "no leaders"])
def test_what_came_instead_during_a_rebalance_is_answered(
    mode: Mode, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not told:  # not every broker says who leads
        monkeypatch.setattr(Log, "leader_epoch", -1)

    async def body() -> None:
        async with owned(mode) as made:
            rebalance = made.coordinator.parts.committer.lock
            async with made.another("c2") as other:
                await until(lambda: rebalance.held)
                for log in made.logs:
                    made.lose_and_grow(log)
                await until(lambda: bool(other.query.owned))
                await made.answered(*made.logs)

    run(body())


@MODES
def test_another_leader_that_has_all_is_read_on_from(mode: Mode) -> None:
    async def body() -> None:
        async with owned(mode) as made:
            before = dict(made.coordinator.query.owned)
            made.logs[0].lead(0)
            made.ask(made.logs[0], 12)
            await made.answered(*made.logs)
            assert made.coordinator.query.owned == before, "nothing was taken over anew"

    run(body())
