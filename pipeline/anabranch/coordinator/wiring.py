"""How a coordinator is put together, bottom up: what is used stands above what uses it.

Nothing is attached later. Where two need each other the lower one is handed a getter.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Any

from anabranch.aggregate.result_aggregator import ResultAggregator
from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.config.settings import Config
from anabranch.contract.events import MemberHealth
from anabranch.coordinator.background.group_watch import GroupWatch
from anabranch.coordinator.background.refresher import Refresher
from anabranch.coordinator.background.signals import Signals
from anabranch.coordinator.background.stats_report import StatsReport, component_stats
from anabranch.coordinator.background.telemetry_sync import TelemetrySync
from anabranch.coordinator.background.worker_crashes import WorkerCrashes
from anabranch.coordinator.delivery.at_least_once import AtLeastOnce
from anabranch.coordinator.delivery.contract import Delivery
from anabranch.coordinator.delivery.dead_letters import DeadLetters
from anabranch.coordinator.delivery.exactly_once import ExactlyOnce
from anabranch.coordinator.delivery.fencing import Fencing
from anabranch.coordinator.delivery.publisher import Publisher
from anabranch.coordinator.delivery.reply_topics import ReplyTopics
from anabranch.coordinator.partitions.backfill import Backfill
from anabranch.coordinator.partitions.committer import Committer
from anabranch.coordinator.partitions.end_watch import EndWatch
from anabranch.coordinator.partitions.rebalance import Rebalance
from anabranch.coordinator.partitions.recovery import Recovery
from anabranch.coordinator.partitions.takeover import Takeover
from anabranch.coordinator.partitions.topic_watch import TopicWatch
from anabranch.coordinator.progress.dedupe_window import DedupeWindow
from anabranch.coordinator.progress.restored import Restored
from anabranch.coordinator.progress.suspects import SuspectQueue, Suspects
from anabranch.coordinator.progress.tracker import ProgressTracker
from anabranch.coordinator.query.admission import Admission
from anabranch.coordinator.query.answer_writer import AnswerWriter
from anabranch.coordinator.query.answering import Composer
from anabranch.coordinator.query.cache_fill import CacheFill
from anabranch.coordinator.query.cache_lookup import CacheLookup
from anabranch.coordinator.query.cached_answer import CachedAnswers
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.counters import Counters
from anabranch.coordinator.query.crash_tracker import CrashTracker
from anabranch.coordinator.query.deadlines import Deadlines
from anabranch.coordinator.query.dispatcher import Dispatcher
from anabranch.coordinator.query.flights import SharedFetches
from anabranch.coordinator.query.invalidations import Invalidations
from anabranch.coordinator.query.open_queries import OpenQueries
from anabranch.coordinator.query.outbox import Outbox
from anabranch.coordinator.query.owned import OwnedPartitions
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.coordinator.query.planning import Planner
from anabranch.coordinator.query.rejections import Rejections
from anabranch.coordinator.query.speculation import Speculation
from anabranch.coordinator.query.speculative_tasks import SpeculativeTasks
from anabranch.dispatch.intake import Intake
from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.dispatch.routing import Outstanding
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import TransactionalProducer, Transport
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.name_filter import NameFilter
from anabranch.learn.profiler import LayerProfiler
from anabranch.observe.spans import Tracer
from anabranch.runtime.clock import Clock
from anabranch.runtime.heartbeat import Heartbeat
from anabranch.runtime.in_flight import InFlight
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector

__all__ = ["CoordinatorParts", "QueryParts"]

log = logging.getLogger(__name__)


def _nobody_waits() -> None: ...


class QueryParts:
    """What decides, without I/O: all that becomes of a query between its record and its answer.

    Args:
        now_ms: the broker's clock.
        instance: names this start of this process, in telemetry.
        steady_ms: a clock that nobody sets; by default the broker's.
        on_earlier: called when a deadline comes before all others.
    """

    def __init__(
        self,
        config: Config,
        now_ms: Callable[[], float],
        instance: str = "coordinator",
        steady_ms: Callable[[], float] | None = None,
        on_earlier: Callable[[], None] = _nobody_waits,
    ) -> None:
        self.config = config
        self.now_ms = now_ms
        self.topics = Topics(config.namespace)
        self.counters = Counters()
        self.outbox = Outbox(self.counters)
        self.deadlines = Deadlines(on_earlier)
        self.owned = OwnedPartitions(now_ms)
        self._know(instance, steady_ms)
        self._bound()
        self._answer()
        self._shifted = (
            self.owned, self.fetches, self.deadlines, self.crashes, self.invalidations
        )  # fmt: skip

    def _know(self, instance: str, steady_ms: Callable[[], float] | None) -> None:
        """What is cached, announced and learned; what to do is decided by it."""
        config = self.config
        self.cache = CrossLayerCache(
            config.coordinator.cache_max_entries, max_bytes=config.coordinator.cache_max_bytes
        )
        self.invalidations = Invalidations(self.cache)
        self.registry = LayerRegistry(steady_ms)
        self.profiler = LayerProfiler()
        self.graph = DependencyGraph(self.profiler, own_types=config.types)
        self.selector = AdaptiveStrategySelector(
            self.profiler,
            self.graph,
            self.cache,
            mode=config.select.mode,
            cache_threshold=config.select.cache_threshold,
            parallel_threshold=config.select.parallel_threshold,
            parallel_max_layers=config.select.parallel_max_layers,
            distributed_threshold=config.select.distributed_threshold,
            instance=instance,
            settings=_settings(config),
            names=NameFilter(config.types, lambda: self.registry.names),
            now_ms=self.now_ms,
        )

    def _bound(self) -> None:
        """What is under way, and how much of it there may be."""
        config = self.config.coordinator
        self.outstanding = Outstanding()
        self.fetches = SharedFetches(self.owned.queries)
        self.admission = Admission(config, self.outstanding, self._slots)
        self.suspects = SuspectQueue(config.max_open_bytes)
        self.crashes = CrashTracker(apart_ms=self.config.kafka.session_timeout_ms / 2)

    def _answer(self) -> None:
        """The path of a query."""
        config, cache, registry = self.config, self.cache, self.registry
        self.intake = Intake(config.coordinator, config.types)
        self.tracer = Tracer()
        ahead = SpeculativeTasks(
            self.owned, registry, self.invalidations, self.outstanding, self.outbox, self.topics
        )
        self.speculation = Speculation(
            config.coordinator, self.intake, cache, registry, self.profiler, ahead
        )
        self.cache_fill = CacheFill(cache, registry, self.invalidations, self.speculation)
        self.lookup = CacheLookup(cache, self.invalidations, self.speculation, config)
        self.planner = Planner(self.intake, registry, self.graph, self.selector, config)
        self.dispatcher = Dispatcher(
            registry, self.outstanding, self.fetches, self.outbox, self.topics
        )
        aggregator = ResultAggregator()
        self.cached = CachedAnswers(cache, registry, aggregator, self.selector.telemetry)
        composer = Composer(aggregator, registry, config)
        self.writer = AnswerWriter(composer, self.cached, self.selector)

    def new_partition(self, number: int, restored: Restored) -> QueryPartition:
        """A partition that is ours from now on, under a claim of its own."""
        config, progress = self.config.coordinator, restored.progress
        claim = Claim(number, progress.epoch)
        ids = DedupeWindow(config, restored.ids(self.now_ms()))
        rejections = Rejections(claim, ids, self.outbox, self.counters)
        most = config.max_open_queries
        suspects = Suspects(progress, restored.end, self.suspects, most)
        queries = OpenQueries(
            claim, self.lookup, self.cached, self.planner, self.dispatcher, self.fetches,
            self.crashes, self.writer, rejections, self.deadlines, self.outbox,
        )  # fmt: skip
        return QueryPartition(
            claim, ProgressTracker(restored, suspects, most), ids, queries, rejections, self.intake,
            self.tracer, self.admission, self.cache_fill, self.fetches, self.outbox, self.counters,
        )  # fmt: skip

    def stats(self) -> dict[str, dict[str, Any]]:
        """What the components count."""
        return component_stats(self.cache, self.speculation, self.graph, self.selector)

    def clock_was_set(self, moved_ms: float) -> None:
        """The broker's clock was set by so much."""
        log.warning("the broker's clock was set by %+.0f s", moved_ms / 1000)
        now_ms = self.now_ms()
        for part in self._shifted:
            part.shift(moved_ms, now_ms)

    def _slots(self) -> int:
        return self.config.worker.slots * self.registry.members.count_workers(self.now_ms())


class CoordinatorParts:
    """All of it: what decides, and what moves records between it and the broker.

    Args:
        describe: this instance's state, as it is published.
        fail: ends the instance, with the error and what failed.
    """

    def __init__(
        self,
        config: Config,
        instance: str,
        transport: Transport,
        clock: Clock,
        describe: Callable[[], MemberHealth],
        fail: Callable[[BaseException, str], None],
    ) -> None:
        self._config = config
        self._instance = instance
        self._transport = transport
        self._clock = clock
        self._group = f"{config.namespace}coordinators"
        self.earlier = asyncio.Event()
        """Set when a deadline comes before all others."""
        self.may_resume = asyncio.Event()
        """Set when queries may be read: it is known who can be asked."""
        self.in_flight = InFlight(fail)
        self._connect(describe)
        # Batches count once by instance and number: a name that is new with every start.
        self.query = QueryParts(
            config,
            self.heartbeat.broker_clock.now_ms,
            f"{instance}/{secrets.token_hex(4)}",
            lambda: clock.monotonic() * 1000,
            self.earlier.set,
        )
        self._deliver()
        self._own()
        self._beside_the_work()

    def _connect(self, describe: Callable[[], MemberHealth]) -> None:
        """Clients of the broker, and its clock."""
        name, transport, config = self._instance, self._transport, self._config
        self.producer = transport.producer(name)
        self.replies = transport.producer(f"{name}-replies")
        self.signals_reader = transport.reader(f"{name}-signals")
        self.follower = transport.reader(f"{name}-partials")
        self.reader = transport.reader(f"{name}-recovery")
        self.earlier_partials = transport.reader(f"{name}-backfill")
        self.heartbeat = Heartbeat(
            config.kafka,
            f"{config.namespace}health",
            self.producer,
            self._clock,
            describe,
            on_beat=lambda: self.query.registry.members.beat(),
            on_set=lambda moved_ms: self.query.clock_was_set(moved_ms),
        )

    def _deliver(self) -> None:
        """How what is decided gets out, by the configuration's mode."""
        query, topics = self.query, self.query.topics
        self.fencing = Fencing(
            self._clock,
            self._config.kafka.session_timeout_ms / 2_000,
            lambda: self.rebalance.confirm(),
        )
        dead_letters = DeadLetters(
            self._instance, topics.dlq, self.producer, self.fencing, self.in_flight, query.counters
        )
        reply_topics = ReplyTopics(self.replies.lookup, self._clock.monotonic)
        self.delivery: Delivery
        shared = (dead_letters, self.fencing, self.in_flight, reply_topics, query.counters)
        if self._config.mode == "exactly_once":
            self.delivery = ExactlyOnce(
                topics,
                query.owned,
                self._group,
                self._transactional,
                lambda number, error: self.rebalance.drop(number, error),
                *shared,
            )
        else:
            self.delivery = AtLeastOnce(
                topics, query.owned, self.producer, self.replies, lambda: self.consumer, *shared
            )
        self.publisher = Publisher(
            query.outbox, query.owned, self.producer, self.delivery, dead_letters, self.fencing,
            self.in_flight, query.counters,
        )  # fmt: skip

    def _own(self) -> None:
        """Whose partition it is."""
        config, query, topics = self._config, self.query, self.query.topics
        self.committer = Committer(
            config.coordinator,
            topics.queries,
            query.owned,
            self.delivery,
            self.publisher,
            lambda: self.consumer,
            query.counters,
        )
        takeover = Takeover(
            topics.queries,
            lambda: self.consumer,
            self.delivery,
            self.committer,
            self.reader,
            Recovery(self.reader, topics, config.coordinator, query.cache_fill, query.now_ms),
            query.registry.released,
            query.counters,
            query.now_ms,
        )
        self.backfill = Backfill(
            self.earlier_partials, config, query.registry, query.cache_fill, query.now_ms
        )
        self.rebalance = Rebalance(
            topics,
            query.owned,
            query.new_partition,
            lambda: self.consumer,
            self.follower,
            self.committer,
            takeover,
            self.backfill,
            query.registry.released,
            self.publisher,
            self.delivery,
            self.in_flight,
            self.may_resume,
            drain_timeout_s=config.kafka.rebalance_timeout_ms / 2_000,
        )
        self.consumer = self._transport.consumer(
            self._instance, self._group, [topics.queries], self.rebalance
        )

    def _beside_the_work(self) -> None:
        """What goes on whether anybody asks or not."""
        name, query, topics = self._instance, self.query, self.query.topics
        self.end_watch = EndWatch(self.reader, topics.queries, query.owned, query.now_ms)
        joined = (topics.queries, topics.partials, topics.results)
        self.topic_watch = TopicWatch(joined, self.producer)
        self.groups = GroupWatch(query.registry, topics, self.producer, self.go_on)
        crashes = WorkerCrashes(query.registry.members, query.crashes, query.owned)
        self.signals = Signals(
            self.signals_reader, topics, self.heartbeat, query.registry, query.invalidations,
            self.groups, crashes, query.outbox, self.publisher.flush, self.go_on, query.now_ms,
        )  # fmt: skip
        self.telemetry = TelemetrySync(
            query.selector.telemetry,
            topics.telemetry,
            self._transport.producer(f"{name}-telemetry"),
            self._transport.reader(f"{name}-telemetry"),
            query.outbox,
            query.counters,
        )
        self.stats = StatsReport(
            name, topics.health, self.producer, query.cache, query.invalidations, query.stats,
            query.now_ms,
        )  # fmt: skip
        self.refresher = Refresher(query.speculation, self.publisher, query.now_ms)

    async def go_on(self) -> None:
        """Queries that wait for layers may have them now."""
        self.query.owned.announced()
        await self.publisher.flush()

    def _transactional(self, number: int) -> TransactionalProducer:
        queries = self.query.topics.queries
        return self._transport.transactional(
            f"{self._instance}-queries-{number}", f"{queries}-{number}"
        )


def _settings(config: Config) -> dict[str, Any]:
    """Present values of what may be recommended otherwise."""
    ttls = {
        f"layers.{name}.ttl_ms": layer.ttl_ms
        for name, layer in config.layers.items()
        if layer.ttl_ms is not None
    }
    return {"worker.slots": config.worker.slots, **ttls}
