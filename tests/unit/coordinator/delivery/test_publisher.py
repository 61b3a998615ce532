"""What a turn wants sent leaves as one batch for each partition, and costs one future."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from anabranch.coordinator.delivery.at_least_once import AtLeastOnce
from anabranch.coordinator.delivery.fencing import Fencing
from anabranch.coordinator.delivery.publisher import Publisher
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.counters import Counters
from anabranch.coordinator.query.outbox import AnswerOut, Outbox, TaskOut
from anabranch.errors import RecordRefused, TopicError
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import Outcome, ProducerRecord
from anabranch.runtime.in_flight import InFlight
from anabranch.testing.virtual_time import VirtualClock, run

TOPICS = Topics("")
ONE, TWO = Claim(1, 0), Claim(2, 0)


class FakeProducer:
    """Acknowledges at once; refuses `bad`, and has no partition 9."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, int, list[bytes | None]]] = []

    async def send_batch(
        self, topic: str, partition: int, records: Sequence[ProducerRecord]
    ) -> asyncio.Future[Sequence[Outcome]]:
        if partition == 9:
            raise TopicError("there is no partition 9")
        self.batches.append((topic, partition, [record.value for record in records]))
        sent: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        outcomes = [
            RecordRefused("bad") if record.value == b"bad" else n
            for n, record in enumerate(records)
        ]
        sent.set_result(range(len(records)) if outcomes == [*range(len(records))] else outcomes)
        return sent


class FakeOwned:
    """Every claim is held, and nothing is deferred."""

    def __init__(self) -> None:
        self.acks: list[tuple[Claim, int, int | None]] = []
        self.refusals: list[int] = []

    def find(self, claim: Claim) -> object:
        return self

    def defers(self, out: AnswerOut) -> bool:
        return False

    def acked(self, claim: Claim, offset: int, results_offset: int | None) -> None:
        self.acks.append((claim, offset, results_offset))

    def refused(self, claim: Claim | None, offset: int, layers: Any, why: str) -> None:
        self.refusals.append(offset)


class Scene:
    def __init__(self) -> None:
        self.producer: Any = FakeProducer()
        self.owned: Any = FakeOwned()
        self.asked = 0
        self.failures: list[BaseException] = []
        counters = Counters()
        self.outbox = Outbox(counters)
        in_flight = InFlight(lambda error, what: self.failures.append(error))
        nothing: Any = None
        delivery = AtLeastOnce(
            TOPICS, self.owned, self.producer, nothing, nothing, nothing, self, in_flight,  # type: ignore[arg-type]
            nothing, counters,
        )  # fmt: skip
        self.publisher = Publisher(
            self.outbox, self.owned, self.producer, delivery, nothing, self, in_flight, counters  # type: ignore[arg-type]
        )  # fmt: skip

    async def ensure_member(self) -> None:
        self.asked += 1

    def task(self, partition: int, value: bytes, offset: int) -> None:
        self.outbox.tasks.append(TaskOut("tasks", partition, value, (), ONE, offset))

    async def flush(self) -> None:
        await self.publisher.flush()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not self.failures


def test_tasks_of_a_turn_leave_as_one_batch_for_each_partition() -> None:
    async def body() -> None:
        scene = Scene()
        for n in range(6):
            scene.task(n % 2, b"%d" % n, n)
        await scene.flush()
        assert scene.producer.batches == [
            ("tasks", 0, [b"0", b"2", b"4"]),
            ("tasks", 1, [b"1", b"3", b"5"]),
        ]
        assert scene.asked == 2, "once for each batch"
        assert scene.owned.refusals == []

    run(body())


def test_of_a_batch_of_tasks_the_refused_alone_have_failed() -> None:
    async def body() -> None:
        scene = Scene()
        for offset, (partition, value) in enumerate([(0, b"a"), (0, b"bad"), (9, b"b"), (0, b"c")]):
            scene.task(partition, value, offset)
        await scene.flush()
        assert sorted(scene.owned.refusals) == [1, 2]

    run(body())


def test_answers_of_a_turn_leave_as_one_batch_for_each_partition() -> None:
    async def body() -> None:
        scene = Scene()
        for n in range(5):
            claim = TWO if n == 3 else ONE
            scene.outbox.answers.append(AnswerOut(claim, 10 + n, b"id", b"%d" % n, ()))
        await scene.flush()
        assert scene.producer.batches == [
            (TOPICS.results, 1, [b"0", b"1", b"2", b"4"]),
            (TOPICS.results, 2, [b"3"]),
        ]
        assert scene.owned.acks == [
            *((ONE, offset, n) for n, offset in enumerate([10, 11, 12, 14])),
            (TWO, 13, 0),
        ]

    run(body())


def test_a_process_that_stood_still_asks_before_it_sends() -> None:
    async def body() -> None:
        clock, proofs = VirtualClock(), 0

        async def confirm() -> bool:
            nonlocal proofs
            proofs += 1
            assert not scene.producer.batches
            return True

        scene = Scene()
        fencing = Fencing(clock, 1.0, confirm)
        scene.publisher._fencing = fencing
        await fencing.ensure_member()
        await asyncio.sleep(2.0)
        scene.task(0, b"task", 0)
        await scene.flush()
        assert proofs == 1
        assert scene.producer.batches == [("tasks", 0, [b"task"])]

    run(body())
