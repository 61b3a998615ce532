"""Warming and prefetch in a coordinator: LOW tasks for questions that nobody waits for."""

from __future__ import annotations

from records import FakeRecord

from anabranch.config.settings import Config, CoordinatorConfig, TypeConfig
from anabranch.contract.codec import decode, encode
from anabranch.contract.events import Item, LayerDescriptor, Partial, PartialResult, Query, Task
from anabranch.coordinator.progress.restored import Restored
from anabranch.coordinator.progress.window import Bounds, Progress
from anabranch.coordinator.wiring import QueryParts


class Bench:
    """A coordinator with one partition and one layer, and what it sends."""

    def __init__(self, config: CoordinatorConfig) -> None:
        self.now_ms = 1_000_000.0
        self.parts = QueryParts(
            Config(types={"t": TypeConfig(layers=["a"])}, coordinator=config), lambda: self.now_ms
        )
        announced = encode(LayerDescriptor("a", "default", ttl_ms=100_000))
        self.parts.registry.learn(FakeRecord(announced, key=b"layer/default/a"), self.now_ms)
        self.parts.registry.topics_exist("default", 4)
        self.partition = self.parts.new_partition(0, Restored(Progress(0), Bounds(), 0))
        self.parts.owned[0] = self.partition
        self.offset = self.partials = 0

    def ask(self, n: int, **params: object) -> None:
        """A question, its answer by a worker if one is asked, and the acknowledgement."""
        query = Query(id=f"q{self.offset}", type="t", params={"n": n, **params})
        record = FakeRecord(encode(query), offset=self.offset, timestamp=int(self.now_ms))
        self.offset += 1
        self.partition.on_query(record, self.now_ms)
        for _, task in self.tasks():
            if task.query:
                self.work(task)
        for answer in self.parts.outbox.take().answers:
            self.partition.on_acked(answer.offset, answer.offset)

    def tasks(self) -> list[tuple[str, Task]]:
        out = self.parts.outbox.tasks
        self.latest = [(t.topic, decode(t.value, Task)) for t in out]
        self.parts.outbox.tasks = []
        self.sent = [*getattr(self, "sent", []), *self.latest]
        return self.latest

    def work(self, task: Task) -> None:
        result = PartialResult("a", items=[Item("urn:x", 1.0)], complete=True, took_ms=50.0)
        partial = Partial(
            task.query, task.offset, task.type, task.scope, task.limit, task.key,
            task.generation, "w", [result],
        )  # fmt: skip
        record = FakeRecord(
            encode(partial), offset=self.partials, timestamp=int(self.now_ms), topic="partials"
        )
        self.partials += 1
        self.partition.on_partial(record, self.now_ms)

    def ahead(self) -> list[tuple[str, Task]]:
        return [(topic, task) for topic, task in self.sent if not task.query]


def test_nothing_is_guessed_unless_configured() -> None:
    bench = Bench(CoordinatorConfig())
    for _ in range(20):
        bench.ask(1)
        bench.ask(2)
    assert not bench.ahead()
    assert bench.parts.speculation.stats() == {"warming": {"on": 0.0}, "prefetch": {"on": 0.0}}


def test_what_tends_to_follow_is_fetched_low_and_then_served_from_the_cache() -> None:
    bench = Bench(CoordinatorConfig(prefetch=True))
    for n in range(200):  # work that was asked for, so that there is a budget
        bench.ask(1_000 + n)
    for _ in range(4):
        bench.ask(1)
        bench.ask(2)
        bench.now_ms += 200_000  # both have expired
    bench.sent = []
    bench.ask(1)
    ((topic, task),) = bench.ahead()
    assert topic.endswith(".low")
    assert (task.params, task.offset) == ({"n": 2}, -1)
    bench.work(task)
    bench.sent = []
    bench.ask(2)
    assert not [t for _, t in bench.sent if t.params == {"n": 2}], "it was in the cache"
    assert bench.parts.speculation.stats()["prefetch"]["came_true"] >= 1


def test_what_a_guess_brought_replaces_what_is_about_to_expire() -> None:
    bench = Bench(CoordinatorConfig(warm=True))
    for n in range(200):
        bench.ask(1_000 + n)
    bench.ask(1)
    bench.ask(1)
    bench.now_ms += 80_000
    assert [a.key[3] for a in bench.parts.cache.ageing(bench.now_ms)] == [1]
    bench.parts.speculation.refresh(bench.now_ms)
    bench.tasks()
    ((topic, task),) = bench.ahead()
    assert topic.endswith(".low")
    bench.work(task)
    assert not list(bench.parts.cache.ageing(bench.now_ms))
    bench.now_ms += 50_000  # beyond the first result's life
    bench.sent = []
    bench.ask(1)
    assert not bench.sent


def test_large_questions_are_neither_learned_from_nor_refreshed() -> None:
    bench = Bench(CoordinatorConfig(warm=True, prefetch=True))
    for n in range(200):
        bench.ask(1_000 + n)
    for _ in range(6):
        bench.ask(1, text="x" * 2_000)
        bench.ask(2, text="x" * 2_000)
    bench.now_ms += 80_000
    assert len(list(bench.parts.cache.ageing(bench.now_ms))) == 2
    bench.parts.speculation.refresh(bench.now_ms)
    bench.tasks()
    assert not bench.ahead()
