"""Who can be asked: layers' descriptors and live members, as `health` tells of them."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from typing import Final, NamedTuple

from msgspec import structs

from anabranch.contract.bounds import clamped_ms, remember
from anabranch.contract.events import LayerDescriptor, MemberHealth, decode_health
from anabranch.contract.plan import GroupLoad
from anabranch.errors import DecodeError
from anabranch.kafka.transport import LOG_APPEND_TIME, Record
from anabranch.runtime.heartbeat import HEALTH_INTERVAL_S

__all__ = ["LayerRegistry"]

MEMBER_SILENCE_MS = 3_000
"""A member that said nothing for so long is taken for dead."""
MAX_LAYERS = 1_024
"""Announcements that are kept; of more, new ones are refused but of workers that are heard."""
MAX_GROUPS = 256
MAX_MEMBERS = 10_000
"""Instances heard of lately; of more, new ones are not listened to."""
MAX_PARTITIONS_HELD = 1_000_000
"""Of all members; what further ones read is not known, so that nothing is laid to their deaths."""
MAX_KEY_BYTES = 1_024
MAX_PARTITIONS = 16_384
PATIENCE_MS = 1_000
"""How long a layer that nobody has announced is waited for, from when it was first asked for."""
_MOST_AWAITED = 1_000
"""Names are the askers' choice: beyond so many the oldest are forgotten, and waited for again."""
_SILENT: Final = 3
"""Own records that were read back since it was heard: a member that let more pass is dead."""


class _Heard(NamedTuple):
    """The last word of a member: when, after how many of our own, and what."""

    at_ms: float
    beats: int
    member: MemberHealth
    steady_ms: float
    """When, on a clock that nobody sets."""


class LayerRegistry:
    """A fold over the compacted `health` topic: the last record of each key counts.

    Args:
        steady_ms: a clock that nobody sets, for silences; by default the times that are given.
    """

    def __init__(self, steady_ms: Callable[[], float] | None = None) -> None:
        self._steady_ms = steady_ms
        self._announced: dict[str, LayerDescriptor] = {}
        """By key, the latest last."""
        self._layers: dict[str, LayerDescriptor] = {}
        """By name: of several groups' the latest."""
        self._members: dict[str, _Heard] = {}
        self._held = 0
        """Partitions of all of them."""
        self._staff: Counter[str] = Counter()
        """Workers among them, by group."""
        self._beats = 0
        self._dead: OrderedDict[str, None] = OrderedDict()
        self._returned: list[MemberHealth] = []
        self._replaced: list[_Heard] = []
        """Workers that did not fall silent, as another process has their names already."""
        self._refused: dict[str, LayerDescriptor] = {}
        """The latest for which there was no room, should a worker of their group be heard."""
        self._let_go: dict[int, int] = {}
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
            self._forget_member(key)
            self._withdraw(key)
            return
        health = decode_health(record.value)
        if isinstance(health, LayerDescriptor):
            self._announce(key, health)
            return
        if isinstance(health, MemberHealth) and health.role == "coordinator":
            for partition, epoch in health.epochs.items():
                self.let_go(partition, epoch)
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
        steady_ms = self._steady(now_ms)
        since_ms = self._awaited_ms.setdefault(layer, steady_ms)
        if len(self._awaited_ms) > _MOST_AWAITED:
            del self._awaited_ms[next(iter(self._awaited_ms))]
        return steady_ms - since_ms < PATIENCE_MS or any(
            member.role == "worker" and member.state == "starting"
            for member in self._speaking(now_ms)
        )

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

    def workers(self, group: str, now_ms: float) -> list[MemberHealth]:
        """Workers of a group that were heard of lately."""
        return [member for member in self._live(now_ms) if member.group == group]

    def count_workers(self, now_ms: float) -> int:
        """Workers of all groups that were heard of lately."""
        return sum(1 for _ in self._live(now_ms))

    def _live(self, now_ms: float) -> Iterator[MemberHealth]:
        return (
            member
            for member in self._speaking(now_ms)
            if member.role == "worker" and member.state in ("ready", "starting")
        )

    def _speaking(self, now_ms: float) -> Iterator[MemberHealth]:
        steady_ms = self._steady(now_ms)
        return (
            heard.member
            for heard in self._members.values()
            if steady_ms - heard.steady_ms < MEMBER_SILENCE_MS
        )

    def _steady(self, now_ms: float) -> float:
        return now_ms if self._steady_ms is None else self._steady_ms()

    def beat(self) -> None:
        """A record of our own was read back: one each second, and none while we are cut off.

        Silence of others is counted in these, not in time: whoever hears nobody, itself neither,
        whether it was cut off or stood still, has learned nothing of them.
        """
        self._beats += 1

    def let_go(self, partition: int, epoch: int) -> None:
        """Whoever had a partition of `queries` under this epoch lived longer than that."""
        if partition in self._let_go or len(self._let_go) < MAX_PARTITIONS:
            self._let_go[partition] = max(epoch, self._let_go.get(partition, 0))

    def was_let_go(self, partition: int, epoch: int) -> bool:
        """Whether no query killed who had it under this epoch."""
        return self._let_go.get(partition) == epoch

    def deaths(self) -> list[tuple[MemberHealth, float]]:
        """Workers that died without draining, each once; and until when they may have read.

        They fell silent, or another process starts under their name.

        All who are silent are forgotten with it.
        """
        silent = [
            key for key, heard in self._members.items() if self._beats > heard.beats + _SILENT
        ]
        gone = {key: heard for key in silent if (heard := self._forget_member(key))}
        dead = {
            key: heard
            for key, heard in gone.items()
            if heard.member.role == "worker" and heard.member.state != "draining"
        }
        self._dead.update(dict.fromkeys(dead))
        while len(self._dead) > MAX_MEMBERS:
            self._dead.popitem(last=False)
        replaced, self._replaced = self._replaced, []
        return [
            (heard.member, heard.at_ms + HEALTH_INTERVAL_S * 1000)
            for heard in (*replaced, *dead.values())
        ]

    def returned(self) -> list[MemberHealth]:
        """Workers that were taken for dead and have been heard again since, each once.

        One that starts is another process, under the name of one that died.
        """
        returned, self._returned = self._returned, []
        return returned

    def loads(self, groups: Iterable[str], now_ms: float) -> Mapping[str, GroupLoad]:
        """How busy each group is."""
        return {group: self._load(group, now_ms) for group in groups}

    def _load(self, group: str, now_ms: float) -> GroupLoad:
        workers = self.workers(group, now_ms)
        if not workers:
            return GroupLoad(workers=0)
        waits = [clamped_ms(worker.stats.get("queue_ms", 0.0)) for worker in workers]
        return GroupLoad(workers=len(workers), queue_ms=sum(waits) / len(waits))

    def _hear(self, key: str, member: MemberHealth, now_ms: float) -> None:
        before = self._members.get(key)
        is_new = before is None
        if is_new and len(self._members) >= MAX_MEMBERS:
            return
        self._forget_member(key)
        member = self._kept(member)
        self._held += len(member.partitions)
        self._staff[member.group] += member.role == "worker"
        self._members[key] = _Heard(now_ms, self._beats, member, self._steady(now_ms))
        if member.role != "worker":
            return
        if before and before.member.state == "ready" and member.state == "starting":
            self._replaced.append(before)
        if is_new:
            self._awaited_ms.clear()
            self._reconsider(member.group)
        if key in self._dead:
            del self._dead[key]
            if member.state != "starting":
                self._returned.append(member)
        if member.state != "draining":
            self._left.discard(member.group)
        elif member.group in self.groups and not self.workers(member.group, now_ms):
            self._left.add(member.group)

    def _kept(self, member: MemberHealth) -> MemberHealth:
        """What is remembered of a member's record; of more partitions than are, none of its."""
        is_room = self._held + len(member.partitions) <= MAX_PARTITIONS_HELD
        return structs.replace(
            member,
            partitions=member.partitions if is_room else [],
            stats={"queue_ms": member.stats.get("queue_ms", 0.0)},
            epochs={},
        )

    def _forget_member(self, key: str) -> _Heard | None:
        heard = self._members.pop(key, None)
        if heard is not None:
            self._held -= len(heard.member.partitions)
            self._staff[heard.member.group] -= heard.member.role == "worker"
            if not self._staff[heard.member.group]:
                del self._staff[heard.member.group]
        return heard

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
        if not self._staff[group]:
            return False
        nobodys = (x.group for x in self._announced.values() if not self._staff[x.group])
        forgotten = next(nobodys, None)
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
