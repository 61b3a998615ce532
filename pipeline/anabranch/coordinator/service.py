"""The coordinator as a process part: owns partitions of `queries`, answers on `results`.

What decides is `query` (pure); what moves records between it and the broker is put together in
`wiring`. Here they start, run as stages and end.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from typing import Final

from msgspec import structs

from anabranch.config.settings import Config
from anabranch.contract.events import MemberHealth
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.coordinator.wiring import CoordinatorParts
from anabranch.errors import BrokerError, TopicError
from anabranch.kafka.default import default_transport
from anabranch.kafka.topics import require_topics
from anabranch.kafka.transport import LOG_APPEND_TIME, Record, Transport
from anabranch.kafka.turns import in_turns, one_by_one
from anabranch.runtime.clock import Clock, SystemClock
from anabranch.runtime.heartbeat import instance_name, package_version
from anabranch.runtime.supervisor import Service, Stage, Supervisor, patience_s, signalled, until

__all__ = ["Coordinator"]

log = logging.getLogger(__name__)

_FETCH_MS: Final = 500
_ROOM_S: Final = 0.01


class Coordinator(Service):
    """Answers queries; an async context manager to embed in any application.

        async with Coordinator(config) as coordinator:
            await coordinator.ready()
            ...

    A stage that dies raises `StageFailed` in the body. Leaving the body drains: stops reading,
    answers what is open (bounded), commits, leaves the group.

    Args:
        transport: defaults to Kafka at `config.kafka.bootstrap`.
    """

    def __init__(
        self,
        config: Config,
        *,
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> None:
        transport = transport or default_transport(config.kafka)
        self.instance = config.instance or instance_name("coordinator")
        self._config = config
        self._supervisor = Supervisor(
            f"coordinator {self.instance}",
            patience_s(config.kafka.request_timeout_ms),
            config.kafka.bootstrap,
        )
        self.parts = CoordinatorParts(
            config,
            self.instance,
            transport,
            clock or SystemClock(),
            self._describe,
            self._supervisor.fail,
        )
        self.query = self.parts.query
        self._draining = False

    # ── lifecycle ──────────────────────────────────────────────────────────────────────────

    async def ready(self) -> None:
        """Wait until partitions are being read and every configured layer has been announced.

        Raises:
            StageFailed: a background stage died meanwhile.
        """
        await self._supervisor.unless_failed(self._ready())

    async def _ready(self) -> None:
        await self.parts.rebalance.resumed.wait()
        await until(lambda: self.query.registry.ready(self._config.layers))
        self._started()

    async def _start(self) -> None:
        parts = self.parts
        await asyncio.gather(
            parts.producer.start(),
            parts.replies.start(),
            parts.signals_reader.start(),
            parts.follower.start(),
            parts.reader.start(),
            parts.earlier_partials.start(),
            parts.telemetry.start(),
        )
        await require_topics(parts.producer, self.query.topics.all_but_tasks)
        await parts.signals.start()
        self._supervisor.start("signals", parts.signals.run)
        self._supervisor.start("groups", parts.groups.run)
        self._supervisor.start("health", parts.heartbeat.run)
        await parts.heartbeat.measured.wait()  # deadlines are on the broker's clock
        await parts.consumer.start()
        for name, stage in (
            ("fencing", parts.fencing.run),
            ("resume", parts.rebalance.run),
            ("queries", self._read_queries),
            ("partials", self._read_partials),
            ("deadlines", self._watch_deadlines),
            ("commit", parts.committer.run),
            ("telemetry", partial(parts.telemetry.run, parts.signals.caught_up, parts.may_resume)),
            ("backfill", parts.backfill.run),
            ("stats", parts.stats.run),
            ("refresh", parts.refresher.run),
            ("topics", parts.topic_watch.run),
            ("ends", parts.end_watch.run),
        ):
            self._supervisor.start(name, stage)

    async def _drain(self) -> None:
        """Stop reading queries, answer what is open, commit."""
        self._draining, self._state = True, "draining"
        timeout_s = self._config.coordinator.drain_timeout_ms / 1000
        try:
            async with asyncio.timeout(timeout_s):
                await until(lambda: not self.query.owned.open_count)
        except TimeoutError:
            log.warning("left open queries to whoever takes over: drain took over %g s", timeout_s)
        await self.parts.in_flight.drain(timeout_s)
        try:
            await self.parts.committer.commit_now()
        except BrokerError as error:
            log.warning("could not commit at the end: %s", error)

    async def _close(self) -> None:
        parts = self.parts
        await self._supervisor.stop()
        self._state = "stopped"
        await parts.heartbeat.farewell()
        clients = (
            parts.consumer, parts.follower, parts.reader, parts.signals_reader, parts.replies,
            parts.producer, parts.telemetry, parts.earlier_partials, parts.delivery,
        )  # fmt: skip
        await self._supervisor.closed(*(client.stop() for client in clients))

    # ── stages ─────────────────────────────────────────────────────────────────────────────

    async def _read_queries(self, stage: Stage) -> None:
        parts, query = self.parts, self.query
        while True:
            stage.beat()
            if not await self._room(stage):
                await asyncio.sleep(_ROOM_S)
                continue
            batches = await parts.consumer.fetch(_FETCH_MS)
            partitions = query.owned.copy()
            async for tp, record in in_turns(batches, parts.publisher.flush):
                now_ms = query.now_ms()
                age_ms = _age_ms(record, now_ms)
                if self._draining or not query.admission.has_room(age_ms):
                    if not await self._room(stage, age_ms):
                        partitions.clear()  # what was not read is read by whoever is next
                    now_ms = query.now_ms()
                self._on_query(partitions, tp.partition, record, now_ms)
            await parts.publisher.flush()

    def _on_query(
        self, partitions: dict[int, QueryPartition], number: int, record: Record, now_ms: float
    ) -> None:
        partition = partitions.get(number)
        if partition is None or not self._is_read(partition):
            # Read again from here, by whoever has it then: a later one must not be first.
            partitions.pop(number, None)
            return
        try:
            if partition.progress.doubts(record):
                self.parts.rebalance.doubt(number)
            else:
                partition.on_query(record, now_ms)
        except TopicError as error:
            self.parts.rebalance.drop(number, error)

    async def _read_partials(self, stage: Stage) -> None:
        parts, owned = self.parts, self.query.owned
        while True:
            stage.beat()
            batches = await parts.follower.fetch(_FETCH_MS)
            partitions = owned.copy()
            async for tp, record in in_turns(batches, parts.publisher.flush):
                partition = partitions.get(tp.partition)
                if partition is not None and self._is_ours(partition):
                    partition.on_partial(record, self.query.now_ms())
            await parts.publisher.flush()

    async def _watch_deadlines(self, stage: Stage) -> None:
        deadlines, earlier = self.query.deadlines, self.parts.earlier
        flush = self.parts.publisher.flush
        while True:
            stage.beat()
            now_ms = self.query.now_ms()
            async for number, offset in one_by_one(deadlines.pop_due(now_ms), flush):
                if (partition := self.query.owned.get(number)) is not None:
                    partition.on_deadline(offset, self.query.now_ms())
            await flush()
            earlier.clear()
            next_ms = deadlines.next_ms
            wait_ms = 1_000.0 if next_ms is None else min(next_ms - now_ms, 1_000.0)
            await signalled(earlier, max(wait_ms, 1.0) / 1000)

    # ── details ────────────────────────────────────────────────────────────────────────────

    async def _room(self, stage: Stage, age_ms: float = 0.0) -> bool:
        """Wait until a query that is so old may be started; False once none is to be read."""
        query = self.query
        while not query.admission.has_room(age_ms) and not self._draining:
            stage.beat()
            query.counters.open_full += 1
            await self.parts.publisher.flush()
            await asyncio.sleep(_ROOM_S)
            age_ms = 0.0  # long enough, but for what is full
        return not self._draining

    def _is_read(self, partition: QueryPartition) -> bool:
        """Whether its queries are taken as they come."""
        return not (partition.held or partition.progress.in_doubt) and self._is_ours(partition)

    def _is_ours(self, partition: QueryPartition) -> bool:
        return self.query.owned.find(partition.claim) is not None

    def _describe(self) -> MemberHealth:
        query = self.query
        return MemberHealth(
            instance=self.instance,
            role="coordinator",
            state=self._state,
            version=package_version(),
            host=socket.gethostname(),
            partitions=sorted(query.owned),
            sent_ms=query.now_ms(),
            stats={"open": float(query.owned.open_count)}
            | {name: float(n) for name, n in structs.asdict(query.counters).items()},
            epochs=self.parts.rebalance.epochs if self._state == "stopped" else {},
        )


def _age_ms(record: Record, now_ms: float) -> float:
    """How long it has waited in the log, as far as a broker says so."""
    return now_ms - record.timestamp if record.timestamp_type == LOG_APPEND_TIME else 0.0
