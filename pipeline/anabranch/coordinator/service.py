"""The coordinator as a process part: owns partitions of `queries`, answers on `results`.

All decisions are taken in `partition` (pure); this file moves records in and effects out.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Mapping
from functools import partial
from typing import Final

from msgspec import structs

from anabranch.config.settings import Config
from anabranch.contract.codec import decode
from anabranch.contract.events import ControlRecord, MemberHealth
from anabranch.coordinator.background.group_watch import GroupWatch
from anabranch.coordinator.background.stats_report import StatsReport
from anabranch.coordinator.background.telemetry_sync import TelemetrySync
from anabranch.coordinator.background.worker_crashes import mourn
from anabranch.coordinator.delivery.at_least_once import AtLeastOnce
from anabranch.coordinator.delivery.dead_letters import DeadLetters
from anabranch.coordinator.delivery.exactly_once import ExactlyOnce
from anabranch.coordinator.delivery.fencing import Fencing
from anabranch.coordinator.delivery.in_flight import InFlight
from anabranch.coordinator.delivery.publisher import Publisher
from anabranch.coordinator.delivery.reply_topics import ReplyTopics
from anabranch.coordinator.partitions.backfill import Backfill
from anabranch.coordinator.partitions.end_watch import EndWatch
from anabranch.coordinator.partitions.rebalance import Ownership
from anabranch.coordinator.partitions.topic_watch import TopicWatch
from anabranch.coordinator.query.brain import Brain
from anabranch.errors import BrokerError, TopicError
from anabranch.kafka.default import default_transport
from anabranch.kafka.topics import require_topics
from anabranch.kafka.transport import LOG_APPEND_TIME, Record, TopicPartition, Transport
from anabranch.kafka.turns import in_turns, one_by_one
from anabranch.runtime.clock import Clock, SystemClock
from anabranch.runtime.containment import contained, ignore
from anabranch.runtime.heartbeat import Heartbeat, instance_name, package_version
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
        name, clock = self.instance, clock or SystemClock()
        self._producer = transport.producer(name)
        self._replies = transport.producer(f"{name}-replies")
        self._membership = Heartbeat(
            config.kafka, f"{config.namespace}health", self._producer, clock, self._describe
        )
        # Batches count once by instance and number: a name that is new with every start.
        self.brain = Brain(
            config,
            self._membership.broker_clock.now_ms,
            f"{name}/{secrets.token_hex(4)}",
            lambda: clock.monotonic() * 1000,
        )
        self._membership.broker_clock.on_set = self.brain.clock_was_set
        self._membership.on_beat = self.brain.directory.members.beat
        topics = self.brain.topics
        self._fencing = Fencing(clock, config.kafka.session_timeout_ms / 2_000)
        group = f"{config.namespace}coordinators"
        self._publish(transport, group, clock)
        self._signals = transport.reader(f"{name}-signals")
        self._follower = transport.reader(f"{name}-partials")
        self._reader = transport.reader(f"{name}-recovery")
        self._beside_the_work(transport)
        self._signals_read = asyncio.Event()
        self._may_resume = asyncio.Event()
        self.ownership = Ownership(
            self.brain,
            self._publisher,
            self._delivery,
            self._in_flight,
            self._reader,
            self._follower,
            self._backfill,
            self._may_resume,
            settle_timeout_s=config.kafka.rebalance_timeout_ms / 2_000,
        )
        self._end_watch = EndWatch(self.brain, self._reader, self.ownership.partitions)
        self._consumer = transport.consumer(name, group, [topics.queries], self.ownership)
        self._attach()
        self._fencing.confirm = self.ownership.confirm
        self._draining = False

    def _beside_the_work(self, transport: Transport) -> None:
        """What goes on whether anybody asks or not."""
        self._exchange = TelemetrySync(
            self.brain,
            transport.producer(f"{self.instance}-telemetry"),
            transport.reader(f"{self.instance}-telemetry"),
        )
        self._earlier = transport.reader(f"{self.instance}-backfill")
        self._backfill = Backfill(self.brain, self._earlier)
        self._report = StatsReport(self.brain, self.instance, self._producer)
        topics = self.brain.topics
        joined = (topics.queries, topics.partials, topics.results)
        self._topic_watch = TopicWatch(joined, self._producer)
        self._groups = GroupWatch(self.brain.directory, topics, self._producer)
        self._groups.on_found = self._go_on

    def _publish(self, transport: Transport, group: str, clock: Clock) -> None:
        """How what is decided gets out, by the configuration's mode."""
        self._in_flight = InFlight(self._supervisor.fail)
        name, topics = self.instance, self.brain.topics
        burial = DeadLetters(self.brain, name, self._producer, self._fencing, self._in_flight)
        reply_topics = ReplyTopics(self._replies.lookup, clock.monotonic)
        self._delivery: AtLeastOnce | ExactlyOnce
        if self._config.mode == "exactly_once":
            self._delivery = ExactlyOnce(
                self.brain,
                group,
                lambda n: transport.transactional(f"{name}-queries-{n}", f"{topics.queries}-{n}"),
                burial,
                self._fencing,
                self._in_flight,
                reply_topics,
            )
        else:
            self._delivery = AtLeastOnce(
                self.brain,
                self._producer,
                self._replies,
                burial,
                self._fencing,
                self._in_flight,
                reply_topics,
            )
        self._publisher = Publisher(
            self.brain, self._producer, self._delivery, burial, self._fencing, self._in_flight
        )

    def _attach(self) -> None:
        """Those who are told of the consumer, or tell it, were made before it."""
        self.ownership.consumer = self._consumer
        if isinstance(self._delivery, ExactlyOnce):
            self._delivery.lost = self.ownership.drop
        else:
            self._delivery.consumer = self._consumer

    # ── lifecycle ──────────────────────────────────────────────────────────────────────────

    async def ready(self) -> None:
        """Wait until partitions are being read and every configured layer has been announced.

        Raises:
            StageFailed: a background stage died meanwhile.
        """
        await self._supervisor.unless_failed(self._ready())

    async def _ready(self) -> None:
        await self.ownership.resumed.wait()
        await until(lambda: self.brain.directory.ready(self._config.layers))
        self._started()

    async def _start(self) -> None:
        await asyncio.gather(
            self._producer.start(),
            self._replies.start(),
            self._signals.start(),
            self._follower.start(),
            self._reader.start(),
            self._earlier.start(),
            self._exchange.start(),
        )
        await require_topics(self._producer, self.brain.topics.all_but_tasks)
        await self._follow_signals()
        self._supervisor.start("signals", self._read_signals)
        self._supervisor.start("groups", self._groups.run)
        self._supervisor.start("health", self._membership.run)
        await self._membership.measured.wait()  # deadlines are on the broker's clock
        await self._consumer.start()
        for name, stage in (
            ("fencing", self._fencing.run),
            ("resume", self.ownership.resume),
            ("queries", self._read_queries),
            ("partials", self._read_partials),
            ("deadlines", self._watch_deadlines),
            ("commit", self.ownership.commit),
            ("telemetry", partial(self._exchange.run, self._signals_read, self._may_resume)),
            ("backfill", self._backfill.run),
            ("stats", self._report.run),
            ("guesses", self._guess),
            ("topics", self._topic_watch.run),
            ("ends", self._end_watch.run),
        ):
            self._supervisor.start(name, stage)

    async def _drain(self) -> None:
        """Stop reading queries, answer what is open, commit."""
        self._draining, self._state = True, "draining"
        timeout_s = self._config.coordinator.drain_timeout_ms / 1000
        try:
            async with asyncio.timeout(timeout_s):
                await until(lambda: not self._open_count())
        except TimeoutError:
            log.warning("left open queries to whoever takes over: drain took over %g s", timeout_s)
        await self._in_flight.settle(timeout_s)
        try:
            await self.ownership.commit_now()
        except BrokerError as error:
            log.warning("could not commit at the end: %s", error)

    async def _close(self) -> None:
        await self._supervisor.stop()
        self._state = "stopped"
        await self._membership.farewell()
        clients = (
            self._consumer, self._follower, self._reader, self._signals,
            self._replies, self._producer, self._exchange, self._earlier, self._delivery,
        )  # fmt: skip
        await self._supervisor.closed(*(client.stop() for client in clients))

    # ── stages ─────────────────────────────────────────────────────────────────────────────

    async def _read_queries(self, stage: Stage) -> None:
        while True:
            stage.beat()
            if not await self._room(stage):
                await asyncio.sleep(_ROOM_S)
                continue
            batches = await self._consumer.fetch(_FETCH_MS)
            partitions = self.ownership.partitions.copy()
            async for tp, record in in_turns(batches, self._publisher.flush):
                if not await self._room(stage, record):
                    partitions.clear()  # what was fetched and not read is read by whoever is next
                partition = partitions.get(tp.partition)
                if partition is None or partition.held or partition.lost:
                    # Read again from here, by whoever has it then: a later one must not be first.
                    partitions.pop(tp.partition, None)
                    continue
                try:
                    partition.on_query(record)
                except TopicError as error:
                    self.ownership.drop(tp.partition, error)
            await self._publisher.flush()

    async def _read_partials(self, stage: Stage) -> None:
        while True:
            stage.beat()
            batches = await self._follower.fetch(_FETCH_MS)
            partitions = self.ownership.partitions.copy()
            async for tp, record in in_turns(batches, self._publisher.flush):
                partition = partitions.get(tp.partition)
                if partition is not None and not partition.lost:
                    partition.on_partial(record)
            await self._publisher.flush()

    async def _watch_deadlines(self, stage: Stage) -> None:
        deadlines, earlier = self.brain.deadlines, asyncio.Event()
        deadlines.on_earlier = earlier.set
        while True:
            stage.beat()
            now_ms = self.brain.now_ms()
            due = deadlines.pop_due(now_ms)
            async for number, offset in one_by_one(due, self._publisher.flush):
                if (partition := self.ownership.partitions.get(number)) is not None:
                    partition.queries.on_deadline(offset)
            await self._publisher.flush()
            earlier.clear()
            next_ms = deadlines.next_ms
            wait_ms = 1_000.0 if next_ms is None else min(next_ms - now_ms, 1_000.0)
            await signalled(earlier, max(wait_ms, 1.0) / 1000)

    async def _read_signals(self, stage: Stage) -> None:
        """Follow `health` and `control`; queries resume when both were read to their ends."""
        topics = self.brain.topics
        health, control = TopicPartition(topics.health, 0), TopicPartition(topics.control, 0)
        ends = await self._signals.ends([health, control])
        while True:
            stage.beat()
            batches = await self._signals.fetch(_FETCH_MS)
            async for tp, record in in_turns(batches, self._publisher.flush):
                self._learn(record, is_health=tp.topic == topics.health)
            self._groups.look()
            await self._go_on()
            with contained(ignore):
                mourn(self.brain, self.ownership.partitions)
            self.brain.follow_control(self._signals.position(control))
            if not self._signals_read.is_set():
                if not batches:  # a log may have lost what was to come
                    ends = await self._signals.ends([health, control])
                if self._is_caught_up(ends):
                    self._signals_read.set()
            await self._publisher.flush()

    async def _guess(self, stage: Stage) -> None:
        await self.brain.guessing.run(stage, self._publisher)

    # ── details ────────────────────────────────────────────────────────────────────────────

    async def _go_on(self) -> None:
        """Queries that wait for layers may have them now."""
        for partition in self.ownership.partitions.values():
            partition.queries.on_health()
        await self._publisher.flush()

    async def _room(self, stage: Stage, record: Record | None = None) -> bool:
        """Wait until this query may be started; False once none is to be read any more."""
        trusted = record is not None and record.timestamp_type == LOG_APPEND_TIME
        age_ms = self.brain.now_ms() - record.timestamp if record and trusted else 0.0
        while not self.brain.load.has_room(age_ms) and not self._draining:
            stage.beat()
            self.brain.counters.open_full += 1
            await self._publisher.flush()
            await asyncio.sleep(_ROOM_S)
            age_ms = 0.0  # long enough, but for what is full
        return not self._draining

    async def _follow_signals(self) -> None:
        topics = self.brain.topics
        followed = [TopicPartition(topics.health, 0), TopicPartition(topics.control, 0)]
        self._signals.assign(await self._signals.beginnings(followed))

    def _learn(self, record: Record, *, is_health: bool) -> None:
        with contained(partial(self.brain.bury, record)):
            if is_health:
                self._membership.read_back(record)
                self.brain.directory.learn(record, self.brain.now_ms())
            else:
                self._obey(record)

    def _obey(self, record: Record) -> None:
        if not record.value:
            return  # a tombstone: the order has expired
        order = decode(record.value, ControlRecord)
        self.brain.cache.invalidate(
            generation=record.offset,
            layer=order.layer,
            scope=order.scope,
            key=order.key,
            tags=tuple(order.tags),
        )

    def _is_caught_up(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether signals were read, and of each group is known whether it can be asked."""
        read = all(self._signals.position(tp) >= end for tp, end in ends.items())
        return read and self._groups.settled

    def _open_count(self) -> int:
        return sum(p.open_count for p in self.ownership.partitions.values())

    def _describe(self) -> MemberHealth:
        return MemberHealth(
            instance=self.instance,
            role="coordinator",
            state=self._state,
            version=package_version(),
            host=socket.gethostname(),
            partitions=sorted(self.ownership.partitions),
            sent_ms=self.brain.now_ms(),
            stats={"open": float(self._open_count())}
            | {name: float(n) for name, n in structs.asdict(self.brain.counters).items()},
            epochs=self.ownership.epochs if self._state == "stopped" else {},
        )
