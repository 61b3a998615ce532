"""Asks a contender questions over Kafka, as fast as it answers or at a rate, and keeps the time.

Every contender is asked by the same code: records with a key, round the partitions, and whoever
answers keeps the key.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from processes import Process, cpu_s

PARTITIONS = 4
WINDOW = 1_000
"""Questions in flight, when it is asked as fast as it answers."""
DRAIN_S = 60.0
"""Longest wait for the answers that are missing at the end of a case."""


class Contender(NamedTuple):
    """A pipeline to be measured: where it reads and writes, and what it is asked."""

    name: str
    source: str
    sink: str
    question: Callable[[int], bytes]
    processes: Sequence[Process]
    proof: bytes = b""
    """Stands in every answer that is right."""
    warm_s: float = 2.0
    """Under load, before anything is counted."""


class Saturated(NamedTuple):
    """What was seen while as many questions as the window takes were in flight."""

    per_s: float
    cpu_us: dict[str, float]
    """CPU microseconds a query, by role."""


class Stuck(Exception):  # noqa: N818
    """A contender did not answer all that it was asked, or not as it should."""


class Driver:
    """Asks one contender, while the block lasts.

    Args:
        numbers: of questions, never used before.
        broker: the process id of the broker, whose CPU is counted beside.
    """

    def __init__(
        self, bootstrap: str, contender: Contender, numbers: Iterator[int], broker: int = 0
    ) -> None:
        self._contender = contender
        self._numbers = numbers
        self._broker = broker
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks="all", max_batch_size=262_144
        )
        self._consumer = AIOKafkaConsumer(
            contender.sink,
            bootstrap_servers=bootstrap,
            fetch_max_wait_ms=50,
            isolation_level="read_committed",
        )
        self._asked: dict[bytes, float] = {}
        self._waits: list[float] = []
        self._keeps_full = False
        self._asking: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self.on_records: Callable[[Sequence[Any]], None] = lambda _: None
        """Told of all records, also of those that nobody waits for."""

    @property
    def unanswered(self) -> int:
        """How many questions wait for their answer."""
        return len(self._asked)

    async def saturate(self, seconds: float) -> Saturated:
        """Keep the window full, and count once it has been for a while and answered once.

        Raises:
            Stuck: it is not answered, or wrongly.
        """
        self._keeps_full = True
        self._asking = asyncio.create_task(self._keep_full())
        await asyncio.sleep(self._contender.warm_s)
        await self._answered(WINDOW)
        begin, before, spent = time.perf_counter(), len(self._waits), self._spent_s()
        await asyncio.sleep(seconds)
        took, answered = time.perf_counter() - begin, len(self._waits) - before
        used = {role: now - spent[role] for role, now in self._spent_s().items()}
        self._keeps_full = False
        await self._asking
        await self._drained()
        if not answered:
            raise Stuck(f"no answer in {seconds:.1f} s")
        return Saturated(answered / took, {role: s / answered * 1e6 for role, s in used.items()})

    async def at_rate(self, per_s: float, seconds: float) -> list[float]:
        """Seconds of each answer, sorted, counted from when its question was due (open loop)."""
        self._waits.clear()
        await self.ask_at_rate(per_s, max(1, int(per_s * seconds)))
        await self._drained()
        return sorted(self._waits)

    async def ask_at_rate(self, per_s: float, count: int) -> None:
        """Ask so many, whether they are answered or not."""
        start = time.perf_counter()
        for n in range(count):
            due = start + n / per_s
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            await self._ask(due)

    async def _keep_full(self) -> None:
        while self._keeps_full:
            while len(self._asked) < WINDOW:
                await self._ask(time.perf_counter())
            await self.progress()

    async def _ask(self, due: float) -> None:
        """Ask one question, whose time counts from `due`."""
        number = next(self._numbers)
        key = b"%d" % number
        self._asked[key] = due
        contender = self._contender
        await self._producer.send(
            contender.source, contender.question(number), key=key, partition=number % PARTITIONS
        )

    async def progress(self) -> None:
        """Wait until something comes, but not for long.

        Raises:
            Stuck: what came was wrong.
        """
        self._moved.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await self._moved.wait()
        if self._reading.done():
            self._reading.result()

    async def _drained(self) -> None:
        await self._until(lambda: not self._asked)

    async def _answered(self, count: int) -> None:
        await self._until(lambda: len(self._waits) >= count)

    async def _until(self, condition: Callable[[], bool]) -> None:
        give_up = time.perf_counter() + DRAIN_S
        while not condition():
            if time.perf_counter() > give_up:
                raise Stuck(f"{len(self._asked)} questions were not answered in {DRAIN_S:.0f} s")
            for child in self._contender.processes:
                if not child.is_alive:
                    raise Stuck(f"what {child.role} has ended: {child.last_words}")
            await self.progress()

    async def _read(self) -> None:
        while True:
            for records in (await self._consumer.getmany(timeout_ms=500)).values():
                self._take(records)
                self.on_records(records)
            self._moved.set()

    def _take(self, records: Sequence[Any]) -> None:
        now, proof = time.perf_counter(), self._contender.proof
        for record in records:
            if (since := self._asked.pop(record.key, None)) is None:
                continue
            self._waits.append(now - since)
            if proof not in record.value:
                raise Stuck(f"a wrong answer: {record.value[:300]!r}")

    def _spent_s(self) -> dict[str, float]:
        spent = {child.role: cpu_s(child.pid) for child in self._contender.processes}
        return spent | {"broker": cpu_s(self._broker), "driver": time.process_time()}

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        await self._producer.start()
        await self._consumer.seek_to_end()
        self._reading = asyncio.ensure_future(self._read())
        self._reading.add_done_callback(lambda _: self._moved.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [task for task in (self._reading, self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._producer.stop()
        await self._consumer.stop()
