"""What a coordinator's components count, published beside the work for whoever looks.

`admin.diagnostics` reads it from `health`, on any machine.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from msgspec import to_builtins
from msgspec.structs import replace

from anabranch.contract.codec import MAX_VALUE_BYTES, encode
from anabranch.contract.events import ComponentStats
from anabranch.coordinator.query.brain import Brain
from anabranch.errors import BrokerError
from anabranch.kafka.transport import Producer
from anabranch.runtime.containment import contained, ignore
from anabranch.runtime.supervisor import Stage

__all__ = ["StatsReport", "component_stats"]

log = logging.getLogger(__name__)

_REPORT_S: Final = 5.0
_LOOK_S: Final = 0.1
_MAX_TYPES: Final = 50
"""Query types in a report, those asked most: it must fit into a record."""

Stats = dict[str, Any]


def component_stats(brain: Brain) -> dict[str, Stats]:
    """What the components of one coordinator count, as JSON can say it."""
    telemetry = brain.selector.telemetry
    types = telemetry.get_query_type_insights()
    asked_most = sorted(types, key=lambda name: -types[name]["queries"])[:_MAX_TYPES]
    return {
        "dependency_graph": dict(brain.graph.stats()),
        "cross_layer_cache": {**brain.cache.stats(), **brain.guessing.stats()},
        "strategy_selection": {"mode": brain.selector.mode, **brain.selector.stats()},
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
    """Publishes a coordinator's statistics: every five seconds, and once it obeyed an order."""

    def __init__(self, brain: Brain, instance: str, producer: Producer) -> None:
        self._brain = brain
        self._instance = instance
        self._producer = producer
        self._obeyed = 0

    async def run(self, stage: Stage) -> None:
        """Stage: what cannot be sent is said again with the next report."""
        now_s = asyncio.get_running_loop().time
        next_s = now_s()
        while True:
            stage.beat()
            if now_s() >= next_s or self._brain.control_position > self._obeyed:
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
        brain = self._brain
        self._obeyed = brain.control_position
        stats = ComponentStats(
            instance=self._instance,
            sent_ms=brain.now_ms(),
            control_position=brain.control_position,
            orders=brain.cache.latest_orders,
            components=component_stats(brain),
        )
        await self._send(_fitting(stats))

    async def withdraw(self) -> None:
        """Leave nothing behind: instances have new names with every start.

        Raises:
            BrokerError: as `publish`.
        """
        await self._send(None)

    async def _send(self, value: bytes | None) -> None:
        key = f"stats/{self._instance}".encode()
        await self._producer.send_and_wait(self._brain.topics.health, value, key=key, partition=0)


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
