"""What all partitions of a coordinator share: cache, selection, aggregation, the directory."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from anabranch.aggregate.result_aggregator import ResultAggregator
from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.config.settings import UNCONFIGURED, Config, TypeConfig
from anabranch.coordinator.background.speculation import Speculation
from anabranch.coordinator.background.worker_crashes import CrashTracker
from anabranch.coordinator.query.admission import Admission
from anabranch.coordinator.query.flights import SharedFetches
from anabranch.coordinator.query.outbox import DeadLetterOut, Outbox
from anabranch.coordinator.query.suspects import Court
from anabranch.dispatch.intake import Intake
from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.dispatch.routing import Outstanding
from anabranch.kafka.dead_letters import stack_digest
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import Record
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.name_filter import NameFilter
from anabranch.learn.profiler import LayerProfiler
from anabranch.observe.spans import Tracer
from anabranch.runtime.clock import moved
from anabranch.runtime.containment import describe
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector

__all__ = ["Brain", "Counters", "Deadlines"]


log = logging.getLogger(__name__)


class Counters(Struct):
    """What happened, as plain integers."""

    queries: int = 0
    answered: int = 0
    rejected: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    late_partials: int = 0
    replies_lost: int = 0
    answers_refused: int = 0
    tasks_refused: int = 0
    letters_lost: int = 0
    takeovers: int = 0
    window_full: int = 0
    telemetry_lost: int = 0
    open_full: int = 0


class Deadlines:
    """Open queries by deadline; those answered earlier are skipped when their time comes."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int]] = []
        self.on_earlier: Callable[[], None] = _nobody_waits
        """Called when a deadline comes before all others."""

    def add(self, deadline_ms: float, partition: int, offset: int) -> None:
        """Watch a query."""
        earlier = not self._heap or deadline_ms < self._heap[0][0]
        heapq.heappush(self._heap, (deadline_ms, partition, offset))
        if earlier:
            self.on_earlier()

    def pop_due(self, now_ms: float) -> list[tuple[int, int]]:
        """(partition, offset) of all whose deadline has come."""
        due = []
        while self._heap and self._heap[0][0] <= now_ms:
            _, partition, offset = heapq.heappop(self._heap)
            due.append((partition, offset))
        return due

    def shift(self, moved_ms: float, now_ms: float) -> None:
        """The clock was set: the same time is left to whoever was watched before."""
        self._heap = [
            (moved(at, moved_ms, now_ms), number, offset) for at, number, offset in self._heap
        ]
        heapq.heapify(self._heap)
        self.on_earlier()

    @property
    def next_ms(self) -> float | None:
        """The earliest deadline, of a query that may have been answered meanwhile."""
        return self._heap[0][0] if self._heap else None


def _nobody_waits() -> None: ...


def _settings(config: Config) -> dict[str, Any]:
    """Present values of what may be recommended otherwise."""
    ttls = {
        f"layers.{name}.ttl_ms": layer.ttl_ms
        for name, layer in config.layers.items()
        if layer.ttl_ms is not None
    }
    return {"worker.slots": config.worker.slots, **ttls}


class Brain:
    """Shared state of one coordinator; `now_ms` is the broker's clock.

    Args:
        steady_ms: a clock that nobody sets; by default the broker's.
    """

    def __init__(
        self,
        config: Config,
        now_ms: Callable[[], float],
        instance: str = "coordinator",
        steady_ms: Callable[[], float] | None = None,
    ) -> None:
        self.config = config
        self.now_ms = now_ms
        self.topics = Topics(config.namespace)
        self.intake = Intake(config.coordinator, config.types)
        self.cache = CrossLayerCache(
            config.coordinator.cache_max_entries, max_bytes=config.coordinator.cache_max_bytes
        )
        self.profiler = profiler = LayerProfiler()
        self.directory = LayerRegistry(steady_ms)
        self.graph = DependencyGraph(profiler, own_types=config.types)
        self.selector = AdaptiveStrategySelector(
            profiler,
            self.graph,
            self.cache,
            mode=config.select.mode,
            cache_threshold=config.select.cache_threshold,
            parallel_threshold=config.select.parallel_threshold,
            parallel_max_layers=config.select.parallel_max_layers,
            distributed_threshold=config.select.distributed_threshold,
            instance=instance,
            settings=_settings(config),
            names=NameFilter(config.types, lambda: self.directory.names),
            now_ms=now_ms,
        )
        self.aggregator = ResultAggregator()
        self.outstanding = Outstanding()
        self.deadlines = Deadlines()
        self.outbox = Outbox()
        self.tracer = Tracer()
        self.counters = Counters()
        self.load = Admission(config.coordinator, self.outstanding, self._slots)
        self.court = Court(config.coordinator.max_open_bytes)
        self.mortality = CrashTracker(apart_ms=config.kafka.session_timeout_ms / 2)
        self.sharing = SharedFetches()
        self.guessing = Speculation(self)
        self.control_position = 0
        """The next offset of `control`: what lookups are stamped with."""

    def follow_control(self, position: int) -> None:
        """`control` was read up to there.

        Lower than before, it lost its tail or was made anew: which orders would have concerned
        what is held cannot be known any more.
        """
        if position < self.control_position:
            self.cache.forget_all()
        self.control_position = position

    def bury(self, record: Record, error: Exception) -> None:
        """A record of no query's that cannot be read or handled."""
        self.counters.dead_letters += 1
        self.outbox.dead_letters.append(DeadLetterOut(record, describe(error), stack_digest(error)))

    def _slots(self) -> int:
        return self.config.worker.slots * self.directory.members.count_workers(self.now_ms())

    def clock_was_set(self, moved_ms: float) -> None:
        """The broker's clock was set: what is stamped later than it is now is not kept."""
        log.warning("the broker's clock was set by %+.0f s", moved_ms / 1000)
        now_ms = self.now_ms()
        for partition in self.sharing.partitions.values():
            partition.shift(moved_ms)
        self.sharing.flights.shift(moved_ms, now_ms)
        self.deadlines.shift(moved_ms, now_ms)
        self.mortality.shift(moved_ms)
        if moved_ms < 0:
            self.cache.forget_after(now_ms)

    def kind(self, type_: str) -> TypeConfig:
        """What is configured for a query type, or what goes for all others."""
        return self.config.types.get(type_, UNCONFIGURED)
