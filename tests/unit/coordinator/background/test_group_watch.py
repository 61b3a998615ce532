"""Groups that are announced and not there: asked for seldom, beside the work, and said once."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

import pytest
from hybrid import Hybrid
from records import FakeRecord

from anabranch.config.settings import Config, TopicsConfig
from anabranch.contract.codec import encode
from anabranch.contract.events import ControlRecord, LayerDescriptor, MemberHealth
from anabranch.coordinator import Coordinator
from anabranch.coordinator.background.group_watch import GroupWatch
from anabranch.dispatch.layer_registry import MAX_GROUPS, MAX_LAYERS, LayerRegistry
from anabranch.errors import BrokerUnavailable, DecodeError
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.runtime.supervisor import Stage, until
from anabranch.testing import MemoryBroker, VirtualClock, run

DEAD = tuple(f"dead{n}" for n in range(100))


class Lookups:
    """A producer that only looks up topics; those of groups in `there` have partitions."""

    def __init__(self, *there: str, takes_s: float = 0.04) -> None:
        self.there = {topic for group in there for topic in Topics("").tasks_of(group)}
        self.asked: Counter[str] = Counter()
        self.away = False
        self.most_at_once = self._now = 0
        self._takes_s = takes_s

    async def lookup(self, topic: str) -> int:
        if self.away:
            raise BrokerUnavailable("nobody answers")
        self.asked[topic.split(".")[1]] += 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(self._takes_s)
        self._now -= 1
        return 6 if topic in self.there else 0


def announced(*groups: str) -> LayerRegistry:
    directory = LayerRegistry()
    for group in groups:
        descriptor = encode(LayerDescriptor(f"l-{group}", group))
        directory.learn(FakeRecord(descriptor, key=f"layer/{group}/l-{group}".encode()), 0.0)
    return directory


async def nobody_waits() -> None: ...


async def watched(directory: LayerRegistry, lookups: Lookups, for_s: float) -> GroupWatch:
    watch = GroupWatch(directory, Topics(""), lookups, nobody_waits)  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    task = loop.create_task(watch.run(Stage("groups", loop)))
    await asyncio.sleep(for_s)
    task.cancel()
    return watch


class TestGroupWatch:
    def test_a_group_that_is_there_is_known_in_a_moment_among_a_hundred_that_are_not(self) -> None:
        directory, lookups = announced(*DEAD, "io"), Lookups("io")
        watch = run(watched(directory, lookups, 1.0))
        assert directory.partitions("io") == 6
        assert not directory.partitions("dead1")
        assert watch._looks.keys() == directory.groups
        assert lookups.most_at_once <= 8

    def test_one_that_is_not_is_asked_for_once_a_minute_and_said_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        directory, lookups = announced("dead", "io"), Lookups("io")
        run(watched(directory, lookups, 3_600.0))
        assert 55 <= lookups.asked["dead"] <= 70
        assert lookups.asked["io"] <= 4 * 61
        (said,) = caplog.messages
        assert "group dead has announced layers (l-dead)" in said
        assert "tasks.dead.*" in said

    def test_one_whose_topics_are_made_later_is_found(self) -> None:
        async def main() -> int:
            directory, lookups = announced("late"), Lookups()
            watch = GroupWatch(directory, Topics(""), lookups, nobody_waits)  # type: ignore[arg-type]
            loop = asyncio.get_running_loop()
            task = loop.create_task(watch.run(Stage("groups", loop)))
            await asyncio.sleep(10.0)
            lookups.there |= set(Topics("").tasks_of("late"))
            await asyncio.sleep(60.0)
            task.cancel()
            return directory.partitions("late")

        assert run(main()) == 6

    def test_one_that_misses_a_look_is_still_asked_and_one_that_is_gone_is_not(self) -> None:
        async def main() -> list[int]:
            directory, lookups = announced("io"), Lookups("io")
            watch = GroupWatch(directory, Topics(""), lookups, nobody_waits)  # type: ignore[arg-type]
            counts = []
            for there in (True, False, False, True, False, False, False):
                lookups.there = set(Topics("").tasks_of("io")) if there else set()
                await watch._look_up("io")
                counts.append(directory.partitions("io"))
            return counts

        assert run(main()) == [6, 6, 6, 6, 6, 6, 0]

    def test_a_broker_that_is_away_says_nothing_of_a_group(self) -> None:
        async def main() -> tuple[bool, int]:
            directory, lookups = announced("io"), Lookups("io")
            lookups.away = True
            watch = GroupWatch(directory, Topics(""), lookups, nobody_waits)  # type: ignore[arg-type]
            loop = asyncio.get_running_loop()
            task = loop.create_task(watch.run(Stage("groups", loop)))
            await asyncio.sleep(2.0)
            known = watch.settled
            lookups.away = False
            await asyncio.sleep(2.0)
            task.cancel()
            return known, directory.partitions("io")

        assert run(main()) == (False, 6)


def test_orders_are_obeyed_at_once_whatever_dead_groups_are_announced() -> None:
    """A hundred of them, each looked up in turn before the next order was read, took 16 s."""

    async def main() -> float:
        broker = MemoryBroker()
        config = Config(topics=TopicsConfig(queries=2, tasks=2))
        await ensure_topics(broker.transport("topics"), config, ())
        producer = broker.transport("t").producer("t")
        topics = Topics(config.namespace)
        for group in DEAD:
            await producer.send_and_wait(
                topics.health,
                encode(LayerDescriptor("old", group)),
                key=f"layer/{group}/old".encode(),
                partition=0,
            )
        transport = broker.transport("c")
        async with Coordinator(config, transport=transport, clock=VirtualClock()) as coordinator:
            lookups = Lookups(takes_s=1.0)
            coordinator.parts.groups._producer = lookups  # type: ignore[assignment]
            await coordinator.ready()
            loop = asyncio.get_running_loop()
            begun = loop.time()
            order = encode(ControlRecord("invalidate", layer="x"))
            acked = await producer.send_and_wait(topics.control, order, key=b"x", partition=0)
            await until(lambda: coordinator.query.invalidations.position > acked.offset)
            return loop.time() - begun

    assert run(main()) < 1.0


def test_a_group_that_is_withdrawn_meanwhile_costs_a_query_its_own_layers() -> None:
    world = Hybrid()
    id_ = world.ask("a", "d", strategy="sequential")
    (first, *_) = world.asked()
    for name in ("d", "e", "f"):
        world.parts.registry.learn(FakeRecord(None, key=f"layer/cpu/{name}".encode()), 0.0)
    world.reply(first)
    world.after(1_000)
    assert world.answers[id_].status == "partial"
    assert not world.letters
    assert world.left() == (0, 0, 0)


@pytest.mark.parametrize("heard_first", [True, False])
@pytest.mark.parametrize("group", ["{0}", "invented"])
def test_layers_of_workers_that_are_heard_win_over_invented_ones(
    heard_first: bool, group: str
) -> None:
    """Also where a start reads the announcement before it hears the worker."""
    directory = LayerRegistry()

    def tell(key: str, event: LayerDescriptor | MemberHealth) -> None:
        with suppress(DecodeError):
            directory.learn(FakeRecord(encode(event), key=key.encode()), 0.0)

    for n in range(2_000):
        tell(f"layer/x/{n}", LayerDescriptor(f"l{n}", group.format(n)))
    events = [
        ("layer/io/a", LayerDescriptor("a", "io")),
        ("layer/io/b", LayerDescriptor("b", "io")),
        ("member/worker/w", MemberHealth("w", "worker", "ready", "io")),
    ]
    for key, event in reversed(events) if heard_first else events:
        tell(key, event)
    for n in range(2_000, 4_000):
        tell(f"layer/x/{n}", LayerDescriptor(f"l{n}", group.format(n)))
    assert {"a", "b"} <= directory.names
    assert len(directory.names) <= MAX_LAYERS
    assert len(directory.groups) <= MAX_GROUPS
    assert len(directory._refused) <= MAX_LAYERS


class TestDirectory:
    def key(self, group: str, name: str = "graph") -> bytes:
        return f"layer/{group}/{name}".encode()

    def tell(self, directory: LayerRegistry, group: str, value: bytes | None, **other: str) -> None:
        directory.learn(FakeRecord(value, key=self.key(group, **other)), 0.0)

    def test_a_layer_that_is_withdrawn_is_known_no_more(self) -> None:
        directory = LayerRegistry()
        self.tell(directory, "io", encode(LayerDescriptor("graph", "io")))
        directory.topics_exist("io", 4)
        assert directory.descriptor("graph")
        self.tell(directory, "io", None)
        assert directory.descriptor("graph") is None
        assert not directory.groups
        assert not directory.partitions("io")

    def test_a_group_withdraws_its_own_announcement_and_nobody_elses(self) -> None:
        directory = LayerRegistry()
        old, new = LayerDescriptor("graph", "old"), LayerDescriptor("graph", "new")
        for layer in (old, new):
            self.tell(directory, layer.group, encode(layer))
            directory.topics_exist(layer.group, 4)
        self.tell(directory, "old", None)
        assert directory.descriptor("graph") == new
        self.tell(directory, "old", encode(old))
        assert directory.descriptor("graph") == old
        self.tell(directory, "old", None)
        assert directory.descriptor("graph") == new
        self.tell(directory, "other", None)
        assert directory.descriptor("graph") == new

    def test_what_a_key_said_before_is_withdrawn_by_what_it_says_now(self) -> None:
        directory = LayerRegistry()
        directory.learn(FakeRecord(encode(LayerDescriptor("a", "io")), key=b"k"), 0.0)
        directory.learn(FakeRecord(encode(LayerDescriptor("b", "io")), key=b"k"), 0.0)
        assert directory.names == {"b"}
