"""A backlog that waited on Apache Kafka: how fast it is worked off, and who suffers meanwhile.

    python benchmarks/backlog.py                    1,000,000 queries, half of them expired
    python benchmarks/backlog.py --count 90000 --gzip
    python benchmarks/backlog.py --cached           those that have not are among 400 questions

The queries lie on eleven of twelve partitions when one coordinator and one worker meet them; the
twelfth is free, and somebody asks there all the time. The rate is set against the saturated rate of
the same run. Driver, broker and processes share this machine: only the ratios mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import uvloop
from confluent_kafka import Producer
from driver import Contender, Driver
from ours import SETTINGS, fresh, repeated, start_anabranch
from processes import Process, Processes

from anabranch.client import Client
from anabranch.config.settings import Config, load
from anabranch.contract.codec import encode
from anabranch.contract.events import Answer, Query
from anabranch.dev.local_kafka import LocalKafka
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import TopicPartition

PARTITIONS = 12
FREE = PARTITIONS - 1
SATURATED_S = 5.0
WITHIN_MS = 5_000
HOUR_MS = 3_600_000
NEW = 1_000_000_000
"""From here on nobody asked."""


class Backlog(NamedTuple):
    """So many queries; half of them have expired when they are read, the others have an hour."""

    count: int
    codec: str
    cached: bool

    def value(self, n: int) -> bytes:
        question = -(n // 2 % 400) if self.cached and n % 2 == 0 else n + 1
        strategy = b"auto" if self.cached else b"parallel"
        timeout_ms = 1 if n % 2 else HOUR_MS
        head = b'{"id":"b%d","type":"t","params":{"n":%d},"timeout_ms":%d,"strategy":"%s"}'
        return head % (n, question, timeout_ms, strategy)


def preload(bootstrap: str, topic: str, backlog: Backlog) -> None:
    settings = {"bootstrap.servers": bootstrap, "compression.type": backlog.codec, "linger.ms": 50}
    producer = Producer(settings | {"queue.buffering.max.messages": 200_000})
    for n in range(backlog.count):
        if n % 10_000 == 0:
            producer.flush()
        producer.produce(topic, backlog.value(n), b"b%d" % n, partition=n % FREE)
        producer.poll(0)
    producer.flush()


async def answered(config: Config) -> int:
    """How many answers there are."""
    reader = KafkaTransport(config.kafka).reader("count")
    await reader.start()
    topic = Topics(config.namespace).results
    places = [TopicPartition(topic, n) for n in range(PARTITIONS)]
    ends = await reader.ends(places)
    await reader.stop()
    return sum(ends.values())


async def saturated(config: Config, processes: Sequence[Process], *, cached: bool) -> float:
    """Answers a second while there is always something to do."""
    topics, value = Topics(config.namespace), repeated if cached else fresh
    contender = Contender("", topics.queries, topics.results, value, processes)
    async with Driver(config.kafka.bootstrap, contender, itertools.count(1)) as driver:
        return (await driver.saturate(SATURATED_S)).per_s


async def ask(client: Client, n: int, partition: int) -> float | None:
    """Milliseconds to the answer of a new question; None without one in time."""
    query = Query(id=f"new{n}", type="t", params={"n": NEW + n}, timeout_ms=WITHIN_MS)
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    client._waiting[query.id] = future
    begin = time.perf_counter()
    await client._producer.send(
        client._topics.queries, encode(query), partition=partition, headers=client._headers
    )
    try:
        async with asyncio.timeout(2 * WITHIN_MS / 1000):
            answer = await future
    except TimeoutError:
        return None
    return (time.perf_counter() - begin) * 1000 if answer.status == "complete" else None


async def bench(kafka: LocalKafka, backlog: Backlog) -> dict[str, Any]:
    settings = SETTINGS.format(
        namespace="backlog.", mode="at_least_once", bootstrap=kafka.bootstrap,
        partitions=PARTITIONS, delays_ms=(0, 0, 0),
    )  # fmt: skip
    async with Processes() as processes:
        settings += f"[coordinator]\nmax_timeout_ms = {HOUR_MS}\n"
        both = await start_anabranch(processes, settings)
        config = load(processes.folder / "anabranch.toml", environ={})
        rate = await saturated(config, both, cached=backlog.cached)
        return await worked_off(config, backlog, both[0], rate)


async def worked_off(
    config: Config, backlog: Backlog, coordinator: Process, rate: float
) -> dict[str, Any]:
    """Figures of a coordinator that meets the backlog when it starts."""
    await coordinator.stop()
    before = await answered(config)
    preload(config.kafka.bootstrap, Topics(config.namespace).queries, backlog)
    async with Client(config) as client:
        await coordinator.start()
        begin, waits, asked = time.perf_counter(), list[float | None](), 0
        while (done := await answered(config) - before - asked) < backlog.count:
            waits.append(await ask(client, asked, FREE))
            asked += 1
            if not coordinator.is_alive:
                raise SystemExit(f"the coordinator died after {done} answers")
            await asyncio.sleep(0.5)
        took_s = time.perf_counter() - begin
        after = [await ask(client, asked + n, n % PARTITIONS) for n in range(60)]
    return {
        "saturated per s": round(rate),
        "backlog per s": round(backlog.count / took_s),
        "ratio": round(backlog.count / took_s / rate, 2),
        "asked beside it": waits_of(waits),
        "asked after it": waits_of(after),
    }


def waits_of(waits: list[float | None]) -> dict[str, float]:
    in_time = sorted(ms for ms in waits if ms is not None)
    return {
        "asked": len(waits),
        "in time": len(in_time),
        "p50_ms": round(statistics.median(in_time), 1) if in_time else 0.0,
        "max_ms": round(in_time[-1], 1) if in_time else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--gzip", action="store_true", help="as a producer that compresses")
    parser.add_argument("--cached", action="store_true", help="the answers come from the cache")
    arguments = parser.parse_args()
    backlog = Backlog(arguments.count, "gzip" if arguments.gzip else "none", arguments.cached)
    with LocalKafka() as kafka:
        report = uvloop.run(bench(kafka, backlog))
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
