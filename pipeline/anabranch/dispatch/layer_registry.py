"""Who can be asked: layers' descriptors, as `health` tells of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from contextlib import suppress

from anabranch.contract.bounds import remember
from anabranch.contract.codec import decode_health
from anabranch.contract.events import LayerDescriptor, MemberHealth
from anabranch.dispatch.group_health import MEMBER_SILENCE_MS, GroupHealth
from anabranch.dispatch.released_epochs import ReleasedEpochs
from anabranch.errors import DecodeError
from anabranch.kafka.transport import LOG_APPEND_TIME, Record

__all__ = ["LayerRegistry"]

MAX_LAYERS = 1_024
"""Announcements that are kept; of more, new ones are refused but of workers that are heard."""
MAX_GROUPS = 256
MAX_KEY_BYTES = 1_024
PATIENCE_MS = 1_000
"""How long a layer that nobody has announced is waited for, from when it was first asked for."""
_MOST_AWAITED = 1_000
"""Names are the askers' choice: beyond so many the oldest are forgotten, and waited for again."""


class LayerRegistry:
    """A fold over the compacted `health` topic: the last record of each key counts.

    Args:
        steady_ms: a clock that nobody sets, for silences; by default the times that are given.
    """

    def __init__(self, steady_ms: Callable[[], float] | None = None) -> None:
        self.members = GroupHealth(steady_ms)
        self.released = ReleasedEpochs()
        self._announced: dict[str, LayerDescriptor] = {}
        """By key, the latest last."""
        self._layers: dict[str, LayerDescriptor] = {}
        """By name: of several groups' the latest."""
        self._refused: dict[str, LayerDescriptor] = {}
        """The latest for which there was no room, should a worker of their group be heard."""
        self._task_partitions: dict[str, int] = {}
        self._left: set[str] = set()
        self._awaited_ms: dict[str, float] = {}
        """Since when layers are asked for that nobody has announced; anew with every worker."""
        self.revision = 0
        """Rises whenever what is announced of a layer changes."""

    def learn(self, record: Record, now_ms: float) -> None:
        """Take one record of `health`.

        Raises:
            DecodeError: the record is not one of ours.
        """
        if len(record.key or b"") > MAX_KEY_BYTES:
            raise DecodeError(f"the key has more than {MAX_KEY_BYTES:,} bytes")
        key = (record.key or b"").decode(errors="replace")
        if not record.value:
            self.members.forget(key)
            self._withdraw(key)
            return
        health = decode_health(record.value)
        if isinstance(health, LayerDescriptor):
            self._announce(key, health)
            return
        if isinstance(health, MemberHealth) and health.role == "coordinator":
            for partition, epoch in health.epochs.items():
                self.released.add(partition, epoch)
        if isinstance(health, MemberHealth) and not _is_old(record, now_ms):
            self._hear(key, health, now_ms)

    def topics_exist(self, group: str, partitions: int) -> None:
        """Told how many partitions a group's task topics have; 0 while they do not exist."""
        self._task_partitions[group] = partitions

    @property
    def groups(self) -> set[str]:
        """Groups that some layer was announced for."""
        return {layer.group for layer in self._announced.values()}

    def layers_of(self, group: str) -> list[str]:
        """Names of the layers that a group announced."""
        return sorted({x.layer for x in self._announced.values() if x.group == group})

    @property
    def names(self) -> Set[str]:
        """Layers that are announced, whether they can be asked or not."""
        return self._layers.keys()

    def descriptor(self, layer: str) -> LayerDescriptor | None:
        """What is known of a layer that can be asked, else None."""
        found = self._layers.get(layer)
        if found is None or not self._task_partitions.get(found.group):
            return None
        return found

    def may_come(self, layer: str, now_ms: float) -> bool:
        """Whether a layer that cannot be asked is worth waiting for.

        It is while a worker starts, and for a moment after it was first asked for.
        """
        steady_ms = self.members.steady_ms(now_ms)
        since_ms = self._awaited_ms.setdefault(layer, steady_ms)
        if len(self._awaited_ms) > _MOST_AWAITED:
            del self._awaited_ms[next(iter(self._awaited_ms))]
        return steady_ms - since_ms < PATIENCE_MS or self.members.is_starting(now_ms)

    def has_left(self, group: str) -> bool:
        """Whether a group's last worker said that it goes, and none has come since."""
        return group in self._left

    def weight(self, layer: str) -> float:
        """A layer's say in the fusion."""
        found = self._layers.get(layer)
        return found.weight if found else 1.0

    @property
    def longest_ttl_ms(self) -> int:
        """The longest time that an announced layer's results may be served; 0 without one."""
        return max((layer.ttl_ms for layer in self._layers.values()), default=0)

    def partitions(self, group: str) -> int:
        """Partitions of a group's task topics."""
        return self._task_partitions.get(group, 0)

    def ready(self, layers: Iterable[str]) -> bool:
        """Whether all of these layers can be asked: they are announced, and their topics exist."""
        return all(self.descriptor(layer) for layer in layers)

    def _hear(self, key: str, member: MemberHealth, now_ms: float) -> None:
        is_new = not self.members.knows(key)
        if not self.members.hear(key, member, now_ms) or member.role != "worker":
            return
        if is_new:
            self._awaited_ms.clear()
            self._reconsider(member.group)
        if member.state != "draining":
            self._left.discard(member.group)
        elif member.group in self.groups and not self.members.workers(member.group, now_ms):
            self._left.add(member.group)

    def _announce(self, key: str, layer: LayerDescriptor) -> None:
        """Take an announcement.

        Raises:
            DecodeError: there are too many.
        """
        if self._announced.get(key) == layer == self._layers.get(layer.layer):
            return
        self._withdraw(key)
        if not self._has_room(layer.group) and not self._make_room(layer.group):
            remember(self._refused, key, layer, MAX_LAYERS)
            raise DecodeError(
                f"{MAX_LAYERS:,} layers, or {MAX_GROUPS} groups, are announced; no more are "
                f"listened to but of workers that are heard"
            )
        self.revision += self._layers.get(layer.layer) != layer
        self._announced[key] = self._layers[layer.layer] = layer

    def _has_room(self, group: str) -> bool:
        groups = self.groups
        is_room = group in groups or len(groups) < MAX_GROUPS
        return is_room and len(self._announced) < MAX_LAYERS

    def _make_room(self, group: str) -> bool:
        """Who is there wins over who is not: the group announced longest ago of those is forgotten.

        It is remembered as if it had been refused, if there is room for that.
        """
        if not self.members.is_staffed(group):
            return False
        groups = (layer.group for layer in self._announced.values())
        forgotten = next((name for name in groups if not self.members.is_staffed(name)), None)
        if forgotten is None:
            return False
        for key, layer in list(self._announced.items()):
            if layer.group == forgotten:
                self._withdraw(key)
                if len(self._refused) < MAX_LAYERS:
                    self._refused[key] = layer
        return True

    def _reconsider(self, group: str) -> None:
        """A worker of a group is heard: what was refused of it may have room now."""
        for key, layer in [it for it in self._refused.items() if it[1].group == group]:
            with suppress(DecodeError):  # there are too many that are there
                self._announce(key, layer)

    def _withdraw(self, key: str) -> None:
        """Forget what was announced under a key; what another group said of the layer counts."""
        self._refused.pop(key, None)
        gone = self._announced.pop(key, None)
        if gone is None or self._layers[gone.layer] is not gone:
            return
        others = (layer for layer in self._announced.values() if layer.layer == gone.layer)
        self._layers.pop(gone.layer)
        self._layers |= {layer.layer: layer for layer in others}
        if gone.group not in self.groups:
            self._task_partitions.pop(gone.group, None)
            self._left.discard(gone.group)
        self.revision += 1


def _is_old(record: Record, now_ms: float) -> bool:
    """Whether a member may be dead since: compaction keeps the last words of all who ever were."""
    trusted = record.timestamp_type == LOG_APPEND_TIME
    return trusted and now_ms - record.timestamp >= MEMBER_SILENCE_MS
