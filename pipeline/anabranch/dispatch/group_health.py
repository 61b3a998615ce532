"""Who lives: members of worker groups and how busy these are, as `health` tells of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from msgspec import structs

from anabranch.contract.bounds import clamped_ms
from anabranch.contract.events import HEALTH_INTERVAL_MS, MemberHealth
from anabranch.contract.plan import GroupLoad

__all__ = ["GroupHealth"]

MEMBER_SILENCE_MS = 3_000
"""A member that said nothing for so long is taken for dead."""
MAX_MEMBERS = 10_000
"""Instances heard of lately; of more, new ones are not listened to."""
MAX_PARTITIONS_HELD = 1_000_000
"""Of all members; what further ones read is not known, so that nothing is laid to their deaths."""
_SILENT: Final = 3
"""Own records that were read back since it was heard: a member that let more pass is dead."""


class _Heard(NamedTuple):
    """The last word of a member: when, after how many of our own, and what."""

    at_ms: float
    beats: int
    member: MemberHealth
    steady_ms: float
    """When, on a clock that nobody sets."""


class _Load(NamedTuple):
    """How busy a group is, for as long as none of its members is heard or falls silent."""

    load: GroupLoad
    since_ms: float
    until_ms: float


class GroupHealth:
    """The last word of each member, and who of them fell silent.

    Args:
        steady_ms: a clock that nobody sets, for silences; by default the times that are given.
    """

    def __init__(self, steady_ms: Callable[[], float] | None = None) -> None:
        self._steady_ms = steady_ms
        self._members: dict[str, _Heard] = {}
        self._workers: dict[str, dict[str, _Heard]] = {}
        """Those of them that are workers, by group."""
        self._loads: dict[str, _Load] = {}
        self._held = 0
        """Partitions of all members."""
        self._beats = 0
        self._dead: OrderedDict[str, None] = OrderedDict()
        self._returned: list[MemberHealth] = []
        self._replaced: list[_Heard] = []
        """Workers that did not fall silent, as another process has their names already."""

    def hear(self, key: str, member: MemberHealth, now_ms: float) -> bool:
        """Take the word of a member. False if there are too many to listen to a new one."""
        before = self._members.get(key)
        if before is None and len(self._members) >= MAX_MEMBERS:
            return False
        self.forget(key)
        member = self._kept(member)
        self._held += len(member.partitions)
        heard = self._members[key] = _Heard(now_ms, self._beats, member, self.steady_ms(now_ms))
        if member.role == "worker":
            self._workers.setdefault(member.group, {})[key] = heard
            self._loads.pop(member.group, None)
            self._hear_worker(key, member, before)
        return True

    def knows(self, key: str) -> bool:
        """Whether a member was heard, and is not taken for dead."""
        return key in self._members

    def forget(self, key: str) -> _Heard | None:
        """A member is gone, or is heard anew."""
        heard = self._members.pop(key, None)
        if heard is not None:
            self._held -= len(heard.member.partitions)
            self._forget_worker(key, heard.member.group)
        return heard

    def is_staffed(self, group: str) -> bool:
        """Whether some worker of a group was heard, and is not taken for dead."""
        return group in self._workers

    def workers(self, group: str, now_ms: float) -> list[MemberHealth]:
        """Workers of a group that were heard of lately."""
        return [heard.member for heard in self._live(group, self.steady_ms(now_ms))]

    def count_workers(self, now_ms: float) -> int:
        """Workers of all groups that were heard of lately."""
        return sum([self.load(group, now_ms).workers for group in self._workers])

    def is_starting(self, now_ms: float) -> bool:
        """Whether some worker said lately that it starts."""
        at_ms = self.steady_ms(now_ms)
        return any(
            heard.member.state == "starting"
            for group in self._workers
            for heard in self._live(group, at_ms)
        )

    def loads(self, groups: Iterable[str], now_ms: float) -> Mapping[str, GroupLoad]:
        """How busy each group is."""
        return {group: self.load(group, now_ms) for group in dict.fromkeys(groups)}

    def load(self, group: str, now_ms: float) -> GroupLoad:
        """How busy a group is; computed when one of it is heard, or falls silent."""
        at_ms = self.steady_ms(now_ms)
        kept = self._loads.get(group)
        if kept is None or not kept.since_ms <= at_ms < kept.until_ms:
            kept = self._compute(group, at_ms)
            if group in self._workers:
                self._loads[group] = kept
        return kept.load

    def beat(self) -> None:
        """A record of our own was read back: one each second, and none while we are cut off.

        Silence of others is counted in these, not in time: whoever hears nobody, itself neither,
        whether it was cut off or stood still, has learned nothing of them.
        """
        self._beats += 1

    def deaths(self) -> list[tuple[MemberHealth, float]]:
        """Workers that died without draining, each once; and until when they may have read.

        They fell silent, or another process starts under their name.

        All who are silent are forgotten with it.
        """
        silent = [
            key for key, heard in self._members.items() if self._beats > heard.beats + _SILENT
        ]
        gone = {key: heard for key in silent if (heard := self.forget(key))}
        dead = {
            key: heard
            for key, heard in gone.items()
            if heard.member.role == "worker" and heard.member.state != "draining"
        }
        self._dead.update(dict.fromkeys(dead))
        while len(self._dead) > MAX_MEMBERS:
            self._dead.popitem(last=False)
        replaced, self._replaced = self._replaced, []
        died = (*replaced, *dead.values())
        return [(heard.member, heard.at_ms + HEALTH_INTERVAL_MS) for heard in died]

    def returned(self) -> list[MemberHealth]:
        """Workers that were taken for dead and have been heard again since, each once.

        One that starts is another process, under the name of one that died.
        """
        returned, self._returned = self._returned, []
        return returned

    def steady_ms(self, now_ms: float) -> float:
        """The same moment on a clock that nobody sets."""
        return now_ms if self._steady_ms is None else self._steady_ms()

    def _hear_worker(self, key: str, member: MemberHealth, before: _Heard | None) -> None:
        if before and before.member.state == "ready" and member.state == "starting":
            self._replaced.append(before)
        if key in self._dead:
            del self._dead[key]
            if member.state != "starting":
                self._returned.append(member)

    def _forget_worker(self, key: str, group: str) -> None:
        workers = self._workers.get(group)
        if workers is not None and key in workers:
            del workers[key]
            self._loads.pop(group, None)
            if not workers:
                del self._workers[group]

    def _kept(self, member: MemberHealth) -> MemberHealth:
        """What is remembered of a member's record; of more partitions than are, none of its."""
        is_room = self._held + len(member.partitions) <= MAX_PARTITIONS_HELD
        return structs.replace(
            member,
            partitions=member.partitions if is_room else [],
            stats={"queue_ms": member.stats.get("queue_ms", 0.0)},
            epochs={},
        )

    def _live(self, group: str, at_ms: float) -> Iterator[_Heard]:
        return (
            heard
            for heard in self._workers.get(group, {}).values()
            if at_ms - heard.steady_ms < MEMBER_SILENCE_MS
            and heard.member.state in ("ready", "starting")
        )

    def _compute(self, group: str, at_ms: float) -> _Load:
        live = list(self._live(group, at_ms))
        if not live:
            return _Load(GroupLoad(workers=0), at_ms, float("inf"))
        waits = [clamped_ms(heard.member.stats.get("queue_ms", 0.0)) for heard in live]
        load = GroupLoad(workers=len(live), queue_ms=sum(waits) / len(waits))
        return _Load(load, at_ms, min(heard.steady_ms for heard in live) + MEMBER_SILENCE_MS)
