"""What the components of all coordinators count, read from any machine; and orders to forget.

Coordinators say it in `health` (`coordinator.background.stats_report`); orders go through
`control`. Neither needs the other's code.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from msgspec import Struct
from msgspec.structs import asdict

from anabranch.admin.cluster_view import ClusterView
from anabranch.config.settings import Config
from anabranch.contract.bounds import MAX_INT
from anabranch.contract.codec import MAX_VALUE_BYTES, encode
from anabranch.contract.events import ControlRecord, MemberHealth
from anabranch.contract.keys import order_key
from anabranch.errors import RecordRefused
from anabranch.kafka.default import default_transport
from anabranch.kafka.topics import Topics, require_topics
from anabranch.kafka.transport import TopicPartition, Transport
from anabranch.kafka.turns import in_turns
from anabranch.runtime.heartbeat import instance_name

__all__ = [
    "DiagnosticFunctions",
    "Diagnostics",
    "Invalidation",
]

log = logging.getLogger(__name__)

_FETCH_MS: Final = 100
_LISTEN_MS: Final = 3_000
_SUMMED: Final = (
    "total_queries_saved", "entries", "slots", "size_bytes", "probes", "partial_hits",
    "memo_hits", "saved_ms", "refreshes", "cache_size_mb",
)  # fmt: skip

Stats = dict[str, Any]


class Invalidation(Struct, frozen=True):
    """What came of an order to forget.

    Attributes:
        offset: of the order in `control`.
        slots: cached results that it concerned, over all coordinators that answered.
        by_instance: the same by coordinator.
        silent: coordinators that had not passed the order in time.
    """

    offset: int
    slots: int
    by_instance: dict[str, int]
    silent: list[str]


class DiagnosticFunctions(ABC):
    """The functions of the original, over whoever can take a view and give an order.

    Statistics are of coordinators that are alive, by instance.
    """

    @abstractmethod
    async def cluster_view(self) -> ClusterView:
        """Read `health` and listen until everybody who was there lately has been heard.

        At most three seconds.

        Raises:
            BrokerError: the broker cannot be reached, or there is no such topic.
        """

    @abstractmethod
    async def invalidate(
        self,
        *,
        layer: str | None = None,
        scope: str | None = None,
        key: str | None = None,
        tags: Sequence[str] = (),
        timeout_ms: int = 5_000,
    ) -> Invalidation:
        """Have every coordinator forget what matches all that is given (any of `tags`).

        Nothing given is everything; `key` is a question's digest.

        Raises:
            BrokerError: the order was not acknowledged.
        """

    async def get_dependency_graph_stats(self) -> dict[str, Stats]:
        """Size of what was learned of layers that go together."""
        return _component(await self.cluster_view(), "dependency_graph")

    async def get_cross_layer_cache_stats(self) -> dict[str, Stats]:
        """Hits, sizes, evictions; under `total` what adds up over all instances."""
        return _with_total(_component(await self.cluster_view(), "cross_layer_cache"))

    async def get_strategy_selection_stats(self) -> dict[str, Stats]:
        """How far the estimates can be trusted."""
        return _component(await self.cluster_view(), "strategy_selection")

    async def get_execution_telemetry_report(self) -> dict[str, Stats]:
        """The analytics: accuracy, effectiveness, types, trend, recommendations."""
        return _component(await self.cluster_view(), "execution_telemetry")

    async def get_worker_pool_health(self) -> dict[str, list[Stats]]:
        """Live workers by group."""
        return _workers(await self.cluster_view())

    async def get_phase_7bc_diagnostics(self) -> dict[str, Any]:
        """All of it, of one moment, with the coordinators and whoever has fallen silent."""
        view = await self.cluster_view()
        return {
            "dependency_graph": _component(view, "dependency_graph"),
            "cross_layer_cache": _with_total(_component(view, "cross_layer_cache")),
            "strategy_selection": _component(view, "strategy_selection"),
            "execution_telemetry": _component(view, "execution_telemetry"),
            "worker_pool": _workers(view),
            "coordinators": [asdict(member) for member in view.live("coordinator")],
            "silent": view.silent("coordinator") + view.silent("worker"),
        }

    async def invalidate_cross_layer_cache_layer(self, layer: str) -> int:
        """Have every coordinator forget a layer; how many cached results that were."""
        done = await self.invalidate(layer=layer)
        if done.silent:
            log.warning("%s did not say that %s was forgotten", ", ".join(done.silent), layer)
        return done.slots


class Diagnostics(DiagnosticFunctions):
    """Reads `health` and writes `control`, from any machine that reaches the broker.

    async with Diagnostics(config) as diagnostics:
        print(await diagnostics.get_phase_7bc_diagnostics())
    """

    def __init__(self, config: Config | None = None, *, transport: Transport | None = None) -> None:
        config = config or Config()
        transport = transport or default_transport(config.kafka)
        topics = Topics(config.namespace)
        self._health = TopicPartition(topics.health, 0)
        self._control = topics.control
        name = instance_name("diagnostics")
        self._reader = transport.reader(name)
        self._producer = transport.producer(name)
        self._view = ClusterView()
        self._one_listens = asyncio.Lock()

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(self._reader.start(), self._producer.start())
            await self._follow()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def cluster_view(self) -> ClusterView:
        """See `DiagnosticFunctions`."""
        await self._listen(lambda view: view.heard_all, _LISTEN_MS)
        return self._view

    async def invalidate(
        self,
        *,
        layer: str | None = None,
        scope: str | None = None,
        key: str | None = None,
        tags: Sequence[str] = (),
        timeout_ms: int = 5_000,
    ) -> Invalidation:
        """See `DiagnosticFunctions`."""
        order = ControlRecord("invalidate", layer, scope, key, list(tags))
        if len(value := encode(order)) > MAX_VALUE_BYTES:
            raise RecordRefused(
                f"an order of {len(value):,} bytes, over {MAX_VALUE_BYTES:,}: give fewer tags"
            )
        acked = await self._producer.send_and_wait(
            self._control, value, key=order_key(order), partition=0
        )
        await self._listen(lambda view: not _behind(view, acked.offset), timeout_ms)
        counts = {
            name: stats.orders.get(acked.offset, 0)
            for name, stats in self._view.stats.items()
            if stats.control_position > acked.offset
        }
        return Invalidation(
            acked.offset, sum(counts.values()), counts, _behind(self._view, acked.offset)
        )

    async def _follow(self) -> None:
        await require_topics(self._reader, [self._health.topic, self._control])
        self._reader.assign(await self._reader.beginnings([self._health]))

    async def _listen(self, enough: Callable[[ClusterView], bool], timeout_ms: int) -> None:
        """Read to the end, and from there on for `timeout_ms` or until there is enough."""
        async with self._one_listens:
            end = await self._end()
            self._view.begin()
            while self._reader.position(self._health) < end:
                if not await self._read(end):  # the log may have lost what was to come
                    end = min(end, await self._end())
            loop = asyncio.get_running_loop()
            until = loop.time() + timeout_ms / 1000
            while not enough(self._view) and loop.time() < until:
                await self._read(end)

    async def _end(self) -> int:
        return (await self._reader.ends([self._health]))[self._health]

    async def _read(self, end: int) -> bool:
        """Whether anything came."""
        batches = await self._reader.fetch(_FETCH_MS)
        async for _, record in in_turns(batches):
            self._view.learn(record, alive=record.offset >= end)
        return bool(batches)

    async def _close(self) -> None:
        await asyncio.gather(self._reader.stop(), self._producer.stop(), return_exceptions=True)


def _behind(view: ClusterView, offset: int) -> list[str]:
    """Coordinators that were there lately and have not said that they passed an order."""
    there = [member.instance for member in view.live("coordinator")]
    passed = {n for n, stats in view.stats.items() if stats.control_position > offset}
    return sorted({*there, *view.silent("coordinator")} - passed)


def _component(view: ClusterView, name: str) -> dict[str, Stats]:
    found = {m.instance: view.stats.get(m.instance) for m in view.live("coordinator")}
    return {instance: stats.components.get(name, {}) for instance, stats in found.items() if stats}


def _with_total(caches: Mapping[str, Stats]) -> dict[str, Stats]:
    """Questions are spread over coordinators by key, so their caches add up."""
    total: Stats = {name: sum(_number(c.get(name)) for c in caches.values()) for name in _SUMMED}
    probes = total["probes"]
    total["hit_rate"] = total["total_queries_saved"] / probes if probes else 0.0
    return {**caches, "total": total}


def _number(value: Any) -> float:
    """A count as somebody says it; 0 for what is none."""
    return value if isinstance(value, int | float) and abs(value) <= MAX_INT else 0


def _workers(view: ClusterView) -> dict[str, list[Stats]]:
    groups: dict[str, list[MemberHealth]] = {}
    for member in view.live("worker"):
        groups.setdefault(member.group, []).append(member)
    return {name: [asdict(member) for member in groups[name]] for name in sorted(groups)}
