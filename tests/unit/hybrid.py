"""A coordinator's pure parts with everything around them in a test's hands: time, workers, logs.

Group `io` (layers a, b, c) has one worker and quick layers, so that a plan takes it PARALLEL;
group `cpu` (d, e and f, which has three shards) has two workers and costly layers, so that it
is DISTRIBUTED. One query over both with something cached is hybrid without being told to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any, Final, NamedTuple

import msgspec
from records import FakeRecord

from anabranch.config.settings import Config, CoordinatorConfig, SelectConfig, TypeConfig
from anabranch.contract.codec import decode, decode_partial, encode
from anabranch.contract.events import (
    Answer,
    Item,
    LayerDescriptor,
    MemberHealth,
    Partial,
    PartialResult,
    Query,
    Task,
    TaskLayer,
)
from anabranch.contract.rows import LayerSum, Rows
from anabranch.contract.telemetry import TelemetryBatch
from anabranch.coordinator.progress.restored import Restored
from anabranch.coordinator.progress.window import Bounds, Progress
from anabranch.coordinator.query.outbox import AnswerOut, DeadLetterOut
from anabranch.coordinator.wiring import QueryParts

LAYERS: Final = {
    "a": ("io", 1), "b": ("io", 1), "c": ("io", 1),
    "d": ("cpu", 1), "e": ("cpu", 1), "f": ("cpu", 3),
}  # fmt: skip
WORKERS: Final = {"io": 1, "cpu": 2}
TOOK_MS: Final = {"io": 20.0, "cpu": 400.0}
TTL_MS: Final = 60_000


class Sent(NamedTuple):
    """A slot that some worker is to fill."""

    task: Task
    slot: TaskLayer
    topic: str
    partition: int
    bundle: int
    """Slots of one task have the same."""


class Hybrid:
    """One coordinator with its partitions; answers are acknowledged at once."""

    def __init__(
        self,
        partitions: int = 1,
        select: SelectConfig | None = None,
        coordinator: CoordinatorConfig | None = None,
        types: dict[str, TypeConfig] | None = None,
    ) -> None:
        self.now_ms = 1_000_000.0
        self.sent: list[Sent] = []
        self.answers: dict[str, Answer] = {}
        self.letters: list[DeadLetterOut] = []
        self.orders: list[dict[str, Any]] = []
        self._select = select or SelectConfig()
        self._coordinator = coordinator or CoordinatorConfig()
        self._types = types or {
            "t": TypeConfig(layers=["a", "b"]),
            "learned": TypeConfig(layers=["a", "b", "d"], select="learned"),
        }
        self._queries: list[list[FakeRecord]] = [[] for _ in range(partitions)]
        self._partials: list[list[FakeRecord]] = [[] for _ in range(partitions)]
        self._results: list[list[tuple[int, Answer]]] = [[] for _ in range(partitions)]
        self._bundles = 0
        self._epoch = 0
        self.take_over()

    # ── what a coordinator is told ─────────────────────────────────────────────────────────

    def take_over(self) -> None:
        """A new process owns everything: it reads the logs back and goes on."""
        self._epoch += 1
        self.sent.clear()
        self.parts = self._parts()
        self.partitions = self.parts.owned
        for number in range(len(self._queries)):
            self.partitions[number] = self.parts.new_partition(number, self._restored(number))
        for number, partition in self.partitions.items():
            for record in self._queries[number]:
                partition.on_query(record, self.now_ms)
        self.collect()

    def ask(self, *layers: str, at: int = 0, n: int = 1, **fields: Any) -> str:
        """Ask partition `at` the question `n`; the query's id."""
        log_ = self._queries[at]
        id_ = fields.pop("id", f"q{at}.{len(log_)}")
        fields = {"timeout_ms": 1_000, "type": "t", "params": {"n": n}, **fields}
        query = Query(id=id_, layers=list(layers) or None, **fields)
        record = FakeRecord(
            encode(query), offset=len(log_), partition=at, timestamp=int(self.now_ms)
        )
        log_.append(record)
        self.partitions[at].on_query(record, self.now_ms)
        self.collect()
        return str(id_)

    def reply(self, *layers: str, to: str | None = None, **result: Any) -> None:
        """Workers fill these layers (all shards) of the first query that asked, or of `to`."""
        for layer in layers:
            waiting = [sent for sent in self.sent if sent.slot.layer == layer]
            query = to or next((sent.task.query for sent in waiting), None)
            slots = [sent for sent in waiting if sent.task.query == query]
            assert slots, f"nobody was asked for {layer}"
            for sent in slots:
                self.sent.remove(sent)
                self.deliver(sent, **result)

    def deliver(self, sent: Sent, **result: Any) -> None:
        """A partial for one slot, again and again if need be."""
        task, slot = sent.task, sent.slot
        at, status = result.pop("partition", task.partition), result.get("status", "ok")
        fields: dict[str, Any] = {
            "items": found(slot.layer, slot.shard) if status == "ok" else [],
            "error": None if status == "ok" else f"{slot.layer} broke",
            "took_ms": TOOK_MS[LAYERS.get(slot.layer, ("io", 1))[0]],
        }
        partial = Partial(
            result.pop("query", task.query), result.pop("offset", task.offset),
            task.type, task.scope, task.limit,
            result.pop("key", task.key), task.generation, "w",
            [
                PartialResult(
                    layer=slot.layer, shard=slot.shard, shards=slot.shards, attempt=slot.attempt,
                    **(fields | result),
                )
            ],
        )  # fmt: skip
        self.tell(encode(partial), at=at)

    def tell(self, value: bytes, *, at: int = 0) -> None:
        """A record of `partials`."""
        records = self._partials[at]
        records.append(
            FakeRecord(
                value, offset=len(records), partition=at, topic="anabranch.partials",
                timestamp=int(self.now_ms),
            )
        )  # fmt: skip
        self.partitions[at].on_partial(records[-1], self.now_ms)
        self.collect()

    def after(self, ms: float) -> None:
        """Time passes, and whatever is due on the way happens."""
        until_ms, deadlines = self.now_ms + ms, self.parts.deadlines
        while deadlines.next_ms is not None and deadlines.next_ms <= until_ms:
            self.now_ms = max(self.now_ms, deadlines.next_ms)
            for number, offset in deadlines.pop_due(self.now_ms):
                self.partitions[number].on_deadline(offset, self.now_ms)
            self.collect()
        self.now_ms = until_ms
        self._keep_alive(self.parts)

    def set_clock(self, by_ms: float) -> None:
        """The broker's clock is set, which is noticed at once."""
        self.now_ms += by_ms
        self.parts.clock_was_set(by_ms)
        self._keep_alive(self.parts)

    def invalidate(self, **target: Any) -> None:
        """An order on `control`."""
        self.orders.append(target)
        self._obey(self.parts, len(self.orders) - 1)

    def lose(self, number: int) -> None:
        """A partition is somebody else's from now on."""
        self.partitions.drop(number)
        self.collect()

    def learn(self, layer: str, *, asked: int, used: int, type_: str = "learned") -> None:
        """Others saw this layer answer so often, and contribute so often."""
        row = LayerSum(0, type_, "parallel", layer, asked=asked, ok=asked, used=used)
        self.parts.selector.telemetry.replay([_batch(layer, row)])

    # ── what came of it ────────────────────────────────────────────────────────────────────

    def cached(self, *layers: str, **fields: Any) -> None:
        """Have these layers answered before, for the question `n` (1)."""
        self.reply(*layers, to=self.ask(*layers, **fields))

    def asked(self) -> list[str]:
        """Layers that workers are to fill now, sorted, each once."""
        return sorted({sent.slot.layer for sent in self.sent})

    def bundles(self) -> list[list[str]]:
        """The same by task."""
        tasks: dict[int, list[str]] = {}
        for sent in self.sent:
            tasks.setdefault(sent.bundle, []).append(sent.slot.layer)
        return sorted(map(sorted, tasks.values()))

    def sources(self, id_: str) -> dict[str, str]:
        """Where each layer of an answer came from."""
        return {name: layer.source for name, layer in self.answers[id_].layers.items()}

    def statuses(self, id_: str) -> dict[str, str]:
        """How each layer of an answer ended."""
        return {name: layer.status for name, layer in self.answers[id_].layers.items()}

    def ids(self, id_: str) -> set[str]:
        """Ids of an answer's items."""
        return {item.id for item in self.answers[id_].items}

    def collect(self) -> None:
        """Take what the coordinator sends; answers are acknowledged."""
        out = self.parts.outbox.take()
        self.letters += out.dead_letters
        for task_out in out.tasks:
            task = decode(task_out.value, Task)
            self._bundles += 1
            self.sent += [
                Sent(task, slot, task_out.topic, task_out.partition, self._bundles)
                for slot in task.layers
            ]
        for letter in out.dead_letters:
            if letter.claim is not None and letter.answer is None:
                self.partitions.acked(letter.claim, letter.record.offset, None)
        for answer_out in [*out.answers, *(x.answer for x in out.dead_letters if x.answer)]:
            self._land(answer_out)

    def left(self) -> tuple[int, int, int]:
        """Queries that are open, slots outstanding, and fetches that others may wait for."""
        outstanding = sum(map(self.parts.outstanding.total, WORKERS))
        opened = self.partitions.open_count
        return opened, outstanding, len(self.parts.fetches.flights)

    def _land(self, answer_out: AnswerOut) -> None:
        answer = decode(answer_out.value, Answer)
        assert answer.id not in self.answers, "answered twice"
        self.answers[answer.id] = answer
        results = self._results[answer_out.claim.number]
        results.append((answer_out.offset, answer))
        self.partitions.acked(answer_out.claim, answer_out.offset, len(results) - 1)

    # ── within ─────────────────────────────────────────────────────────────────────────────

    def _parts(self) -> QueryParts:
        config = Config(
            select=self._select,
            coordinator=self._coordinator,
            types=self._types,
        )
        parts = QueryParts(config, lambda: self.now_ms)
        for name, (group, shards) in LAYERS.items():
            descriptor = encode(LayerDescriptor(name, group, shards, ttl_ms=TTL_MS))
            self._announce(parts, f"layer/{group}/{name}", descriptor)
            took_ln = round(1_000 * log(TOOK_MS[group] * 1_000))
            row = LayerSum(
                0, "t", "parallel", name, asked=20, ok=20, timed=20, took_ln=20 * took_ln
            )
            parts.selector.telemetry.replay([_batch(name, row)])
        for group in WORKERS:
            parts.registry.topics_exist(group, 4)
        self._keep_alive(parts)
        for offset in range(len(self.orders)):
            self._obey(parts, offset)
        return parts

    def _keep_alive(self, parts: QueryParts) -> None:
        for group, workers in WORKERS.items():
            for n in range(workers):
                member = encode(MemberHealth(f"w{n}", "worker", "ready", group=group))
                self._announce(parts, f"member/worker/{group}{n}", member)

    def _announce(self, parts: QueryParts, key: str, value: bytes) -> None:
        record = FakeRecord(value, key=key.encode(), timestamp=int(self.now_ms))
        parts.registry.learn(record, self.now_ms)

    def _obey(self, parts: QueryParts, offset: int) -> None:
        parts.cache.invalidate(generation=offset, **self.orders[offset])
        parts.invalidations.position = offset + 1

    def _restored(self, number: int) -> Restored:
        progress = Progress(0, epoch=self._epoch, bounds=Bounds())
        restored = Restored(
            progress,
            Bounds(len(self._results[number]), len(self._partials[number])),
            len(self._queries[number]),
        )
        for offset, answer in self._results[number]:
            restored.add_answer(offset, answer.id)
        for record in self._partials[number]:
            partial = decode_partial(record.value)
            self.parts.cache_fill.partial(record, partial, None, self.now_ms)
            restored.add_partial(record, partial)
        return restored


def found(layer: str, shard: int = 0, count: int = 2) -> list[Item]:
    """What a layer says, unless a test says otherwise."""
    return [Item(f"urn:{layer}:{shard}:{n}", 1.0 / (n + 1)) for n in range(count)]


def _batch(name: str, *rows: LayerSum) -> TelemetryBatch:
    key = msgspec.json.encode(rows).decode()
    return TelemetryBatch(f"peer {name} {key}", 1, Rows(layers=tuple(rows)), (), 0)


def named(items: Sequence[str]) -> list[Item]:
    """Items with these ids, best first."""
    return [Item(id_, 1.0 / (n + 1)) for n, id_ in enumerate(items)]
