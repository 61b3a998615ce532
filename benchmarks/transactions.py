"""One transactional producer per partition, or one for all of a process: what each costs.

    python benchmarks/transactions.py [--seconds 10]

Records arrive at a steady rate, round the partitions; each producer sends what has come for its
own, with their offsets, in transactions at the pace of `exactly_once`. Both ways speak the client
library's TxnOffsetCommit v0: how a zombie is fenced differs (by its id, or by the group's
generation), what a transaction costs does not. Latency is from arrival to the end of the commit.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from itertools import count, product
from statistics import median, quantiles

import uvloop
from msgspec import Struct
from processes import cpu_s
from rich.console import Console
from rich.table import Table

from anabranch.config.settings import KafkaConfig
from anabranch.coordinator.delivery.transaction_interval import TransactionInterval
from anabranch.dev.local_kafka import LocalKafka
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.transport import Committed, TopicPartition, TopicState, TransactionalProducer

RESULTS, QUERIES, GROUP = "results", "queries", "coordinators"
VALUE = b"x" * 600
PARTITIONS, RATES = (4, 16), (100, 1_000)


class Measured(Struct):
    """A run: records, milliseconds of each, transactions, and CPU seconds of either side."""

    latencies_ms: list[float] = []
    transactions: int = 0
    client_s: float = 0.0
    broker_s: float = 0.0


class Seat:
    """A producer, and what has come for its partitions: (partition, offset, arrival)."""

    def __init__(self, producer: TransactionalProducer, peers: int) -> None:
        self.producer = producer
        self.peers = peers
        self.waiting: list[tuple[int, int, float]] = []
        self.filled = asyncio.Event()

    async def deliver(self, measured: Measured) -> None:
        loop = asyncio.get_running_loop()
        interval = TransactionInterval(loop.time, lambda: self.peers)
        while True:
            await self.filled.wait()
            await asyncio.sleep(interval.wait_s())
            interval.start()
            self.filled.clear()
            batch, self.waiting = self.waiting, []
            await self._transact(batch)
            interval.finish()
            measured.transactions += 1
            measured.latencies_ms += [(loop.time() - came) * 1000 for _, _, came in batch]

    async def _transact(self, batch: Sequence[tuple[int, int, float]]) -> None:
        await self.producer.begin()
        sent = [await self.producer.send(RESULTS, VALUE, partition=p) for p, _, _ in batch]
        await asyncio.gather(*sent)
        ends = {TopicPartition(QUERIES, p): Committed(n + 1, "") for p, n, _ in batch}
        await self.producer.commit(ends, GROUP)


async def run(
    kafka: LocalKafka, name: str, seats_of: Mapping[int, int], per_s: int, seconds: float
) -> Measured:
    """`seats_of`: which producer each partition has."""
    transport = KafkaTransport(KafkaConfig(bootstrap=kafka.bootstrap))
    numbers = set(seats_of.values())
    seats = {n: Seat(transport.transactional(name, f"{name}-{n}"), len(numbers)) for n in numbers}
    await asyncio.gather(*(seat.producer.start() for seat in seats.values()))
    await _arrive(seats, seats_of, per_s, 2.0, Measured())
    measured = Measured()
    client_s, broker_s = time.process_time(), cpu_s(kafka.node(1).pid or 0)
    await _arrive(seats, seats_of, per_s, seconds, measured)
    measured.client_s = time.process_time() - client_s
    measured.broker_s = cpu_s(kafka.node(1).pid or 0) - broker_s
    await asyncio.gather(*(seat.producer.stop() for seat in seats.values()))
    return measured


async def _arrive(
    seats: Mapping[int, Seat],
    seats_of: Mapping[int, int],
    per_s: int,
    seconds: float,
    measured: Measured,
) -> None:
    loop = asyncio.get_running_loop()
    delivering = [asyncio.ensure_future(seat.deliver(measured)) for seat in seats.values()]
    begin, numbers = loop.time(), count()
    while loop.time() < begin + seconds:
        number = next(numbers)
        seat = seats[seats_of[number % len(seats_of)]]
        seat.waiting.append((number % len(seats_of), number, loop.time()))
        seat.filled.set()
        await asyncio.sleep(max(0.0, begin + number / per_s - loop.time()))
    await asyncio.sleep(1.0)  # the last ones are under way
    for task in delivering:
        task.cancel()
    for ended in await asyncio.gather(*delivering, return_exceptions=True):
        if not isinstance(ended, asyncio.CancelledError):
            raise RuntimeError("a producer ended by itself") from ended


async def measure(kafka: LocalKafka, seconds: float) -> list[tuple[str, ...]]:
    admin = KafkaTransport(KafkaConfig(bootstrap=kafka.bootstrap)).admin()
    await admin.start()
    await admin.create({name: TopicState(max(PARTITIONS), {}) for name in (RESULTS, QUERIES)}, 1)
    await admin.stop()
    rows = []
    for partitions, per_s in product(PARTITIONS, RATES):
        ways = {
            "per partition": {p: p for p in range(partitions)},
            "per process": dict.fromkeys(range(partitions), 0),
        }
        for way, seats_of in ways.items():
            name = f"{way.replace(' ', '-')}-{partitions}-{per_s}"
            got = await run(kafka, name, seats_of, per_s, seconds)
            records = len(got.latencies_ms)
            rows.append(
                (
                    str(partitions), str(per_s), way, f"{got.transactions / seconds:.0f}",
                    f"{got.client_s / records * 1e6:.0f}", f"{got.broker_s / records * 1e6:.0f}",
                    f"{median(got.latencies_ms):.0f}",
                    f"{quantiles(got.latencies_ms, n=100)[98]:.0f}",
                )
            )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    seconds = parser.parse_args().seconds
    columns = "partitions", "records/s", "a producer", "transactions/s"
    columns += "client us/record", "broker us/record", "p50 ms", "p99 ms"
    table = Table(*columns, box=None)
    with LocalKafka() as kafka:
        for row in uvloop.run(measure(kafka, seconds)):
            table.add_row(*row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
