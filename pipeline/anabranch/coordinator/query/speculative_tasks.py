"""Tasks that no query waits for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from anabranch.cache.keys import Question, question_params
from anabranch.contract.codec import MAX_VALUE_BYTES, encode
from anabranch.contract.events import HEADER_OFFSET, LayerDescriptor, Task, TaskLayer
from anabranch.coordinator.query.invalidations import Invalidations
from anabranch.coordinator.query.outbox import Outbox, TaskOut
from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.dispatch.routing import Outstanding
from anabranch.kafka.topics import Topics

__all__ = ["SpeculativeTasks"]

_TIMEOUT_MS: Final = 10_000
_NO_OFFSET: Final = -1
"""No query has it: whatever comes of such a task answers nobody."""


class SpeculativeTasks:
    """One task per group, LOW, on behalf of any partition that is ours.

    Args:
        owned: numbers of the partitions that are ours; followed as they change.
    """

    def __init__(
        self,
        owned: Iterable[int],
        registry: LayerRegistry,
        invalidations: Invalidations,
        outstanding: Outstanding,
        outbox: Outbox,
        topics: Topics,
    ) -> None:
        self._owned = owned
        self._registry = registry
        self._invalidations = invalidations
        self._outstanding = outstanding
        self._outbox = outbox
        self._topics = topics

    def send(
        self, key: Question, digest: str, layers: Sequence[str], limit: int, now_ms: float
    ) -> bool:
        """Ask for these layers; False if no partition is ours, which the results would go to."""
        partition = next(iter(self._owned), None)
        if partition is None:
            return False
        groups: dict[str, list[LayerDescriptor]] = {}
        for layer in layers:
            found = self._registry.descriptor(layer)
            if found is not None and found.shards == 1:
                groups.setdefault(found.group, []).append(found)
        for group, members in groups.items():
            task = Task(
                query="",
                partition=partition,
                offset=_NO_OFFSET,
                type=key[0],
                params=question_params(key),
                scope=key[1],
                limit=limit,
                deadline_ms=int(now_ms) + _TIMEOUT_MS,
                layers=[TaskLayer(layer=layer.layer) for layer in members],
                key=digest,
                generation=self._invalidations.position,
            )
            self._send(group, encode(task))
        return True

    def _send(self, group: str, value: bytes) -> None:
        if len(value) > MAX_VALUE_BYTES:
            return
        partition = self._outstanding.choose(group, self._registry.partitions(group))
        headers = [(HEADER_OFFSET, b"%d" % _NO_OFFSET)]
        topic = self._topics.tasks(group, "low")
        self._outbox.tasks.append(TaskOut(topic, partition, value, headers))
