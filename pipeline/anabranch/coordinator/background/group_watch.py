"""Which worker groups can be asked: nothing is sent to one whose task topics do not exist.

A descriptor outlives its group: whoever was decommissioned stands on `health` until somebody
withdraws it. So a group that is not there is asked for less and less often, beside the work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.errors import BrokerUnavailable
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import Producer
from anabranch.runtime.supervisor import Stage, signalled

__all__ = ["GroupWatch"]

log = logging.getLogger(__name__)

_AT_ONCE: Final = 8
"""Groups that are looked up at the same time."""
_PATIENCE_S: Final = 5.0
_SOON_S: Final = 0.5
_SELDOM_S: Final = 60.0
_MISSES: Final = 3
"""Looks in a row that do not find what was there: one may fall into a change of leaders."""
_SAID_AFTER: Final = 5
"""Misses of a new group: a quarter of a minute, in which its topics may still be made."""
_NAMED: Final = 10
"""Layers that a log line names."""


class _Look(Struct):
    """When a group is looked up next, on the loop's clock, and how often it was not there."""

    next_s: float = 0.0
    misses: int = 0


class GroupWatch:
    """Looks up the task topics of every group that a layer was announced for.

    Args:
        on_found: called when a group can be asked that could not.
    """

    def __init__(
        self,
        registry: LayerRegistry,
        topics: Topics,
        producer: Producer,
        on_found: Callable[[], Awaitable[None]],
    ) -> None:
        self._registry = registry
        self._topics = topics
        self._producer = producer
        self._looks: dict[str, _Look] = {}
        self._new = asyncio.Event()
        self._first_s: float | None = None
        self._on_found = on_found

    @property
    def settled(self) -> bool:
        """Whether each group was looked up once; or that takes so long that nobody waits for it."""
        looked = self._registry.groups <= self._looks.keys()
        now_s = asyncio.get_running_loop().time()
        return looked or (self._first_s is not None and now_s - self._first_s >= _PATIENCE_S)

    def look(self) -> None:
        """Something may have been announced: look now if a group is new."""
        if not self._registry.groups <= self._looks.keys():
            self._new.set()

    async def run(self, stage: Stage) -> None:
        """Stage: look up what is due."""
        now_s = asyncio.get_running_loop().time
        self._first_s = now_s()
        while True:
            stage.beat()
            due = self._due(now_s())
            await asyncio.gather(*map(self._look_up, due))
            if not due:
                await signalled(self._new)
            self._new.clear()

    def _due(self, now_s: float) -> list[str]:
        groups = self._registry.groups
        self._looks = {group: look for group, look in self._looks.items() if group in groups}
        due = [group for group in groups if self._next_s(group) <= now_s]
        return sorted(due, key=self._next_s)[:_AT_ONCE]

    def _next_s(self, group: str) -> float:
        look = self._looks.get(group)
        return 0.0 if look is None else look.next_s

    async def _look_up(self, group: str) -> None:
        try:
            found = await self._count(group)
        except BrokerUnavailable:
            await asyncio.sleep(_SOON_S)  # others say so
            return
        look = self._looks.setdefault(group, _Look())
        look.misses = 0 if found else look.misses + 1
        before = self._registry.partitions(group)
        if found or look.misses >= _MISSES or not before:
            self._registry.topics_exist(group, found)
        if found and not before:
            await self._on_found()
        if look.misses == _SAID_AFTER:
            self._say(group)
        wait_s = _SELDOM_S if found else min(_SELDOM_S, _SOON_S * 2 ** min(look.misses, 10))
        look.next_s = asyncio.get_running_loop().time() + wait_s

    async def _count(self, group: str) -> int:
        """Partitions that all of a group's topics have; 0 if one of them is not there."""
        fewest = 0
        for topic in self._topics.tasks_of(group):
            count = await self._producer.lookup(topic)  # whoever may announce names groups
            if not count:
                return 0
            fewest = min(count, fewest or count)
        return fewest

    def _say(self, group: str) -> None:
        log.warning(
            "group %s has announced layers (%s) and has no topics %s*: nothing is sent to it. "
            "Create them with `anabranch topics`, or, if the group is no more, withdraw its layers "
            "(docs/guarantees.md)",
            group,
            ", ".join(self._registry.layers_of(group)[:_NAMED]),
            self._topics.tasks_of(group)[0].rpartition(".")[0] + ".",
        )
