"""What a coordinator's components count, published beside the work for whoever looks.

`admin.diagnostics` reads it from `health`, on any machine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from msgspec import to_builtins
from msgspec.structs import replace

from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.contract.codec import MAX_VALUE_BYTES, encode
from anabranch.contract.events import ComponentStats
from anabranch.coordinator.query.invalidations import Invalidations
from anabranch.coordinator.query.speculation import Speculation
from anabranch.errors import BrokerError
from anabranch.kafka.transport import Producer
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.runtime.containment import contained, ignore
from anabranch.runtime.supervisor import Stage
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector

__all__ = ["StatsReport", "component_stats"]

log = logging.getLogger(__name__)

_REPORT_S: Final = 5.0
_LOOK_S: Final = 0.1
_MAX_TYPES: Final = 50
"""Query types in a report, those asked most: it must fit into a record."""

Stats = dict[str, Any]


def component_stats(
    cache: CrossLayerCache,
    speculation: Speculation,
    graph: DependencyGraph,
    selector: AdaptiveStrategySelector,
) -> dict[str, Stats]:
    """What the components of one coordinator count, as JSON can say it."""
    telemetry = selector.telemetry
    types = telemetry.get_query_type_insights()
    asked_most = sorted(types, key=lambda name: -types[name]["queries"])[:_MAX_TYPES]
    return {
        "dependency_graph": dict(graph.stats()),
        "cross_layer_cache": {**cache.stats(), **speculation.stats()},
        "strategy_selection": {"mode": selector.mode, **selector.stats()},
        "execution_telemetry": {
            "accuracy": telemetry.get_decision_accuracy(),
            "effectiveness": telemetry.get_strategy_effectiveness(),
            "types": {name: types[name] for name in asked_most},
            "trend": telemetry.get_performance_trend(),
            "recommendations": to_builtins(telemetry.get_strategy_recommendations()),
            "dropped": telemetry.dropped,
            "skipped_rows": telemetry.skipped_rows,
        },
    }


class StatsReport:
    """Publishes a coordinator's statistics: every five seconds, and once it obeyed an order.

    Args:
        components: what they count at present.
    """

    def __init__(
        self,
        instance: str,
        topic: str,
        producer: Producer,
        cache: CrossLayerCache,
        invalidations: Invalidations,
        components: Callable[[], dict[str, Stats]],
        now_ms: Callable[[], float],
    ) -> None:
        self._instance = instance
        self._topic = topic
        self._producer = producer
        self._cache = cache
        self._invalidations = invalidations
        self._components = components
        self._now_ms = now_ms
        self._obeyed = 0

    async def run(self, stage: Stage) -> None:
        """Stage: what cannot be sent is said again with the next report."""
        now_s = asyncio.get_running_loop().time
        next_s = now_s()
        while True:
            stage.beat()
            if now_s() >= next_s or self._invalidations.position > self._obeyed:
                next_s = now_s() + _REPORT_S
                with contained(ignore):
                    await self._try()
            await asyncio.sleep(_LOOK_S)

    async def _try(self) -> None:
        try:
            await self.publish()
        except BrokerError as error:
            log.warning("statistics were not sent: %s", error)

    async def publish(self) -> None:
        """Send the present state and wait for its acknowledgement.

        Raises:
            BrokerError: it was not acknowledged.
        """
        self._obeyed = self._invalidations.position
        stats = ComponentStats(
            instance=self._instance,
            sent_ms=self._now_ms(),
            control_position=self._obeyed,
            orders=self._cache.latest_orders,
            components=self._components(),
        )
        key = f"stats/{self._instance}".encode()
        await self._producer.send_and_wait(self._topic, _fitting(stats), key=key, partition=0)


def _fitting(stats: ComponentStats) -> bytes:
    """As bytes; components that do not fit say how large they are instead, the largest first."""
    value, components = encode(stats), dict(stats.components)
    sizes = {name: len(encode(component)) for name, component in components.items()}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if len(value) <= MAX_VALUE_BYTES:
            break
        components[name] = {"omitted_bytes": sizes[name]}
        value = encode(replace(stats, components=components))
    return value
