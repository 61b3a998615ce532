"""Throughput and latency of cached and PARALLEL queries, beside a bare relay of the same run.

    make bench                      three repetitions on a local Apache Kafka
    python benchmarks/end_to_end.py --quick | --json

Each contender runs in as many processes as its rival: one for one hop (a cached answer is
query -> answer), two for three hops (query -> task -> partial -> answer). The driver, the
broker and the contenders share this machine, so only the ratios mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from anabranch.config.settings import KafkaConfig, load
from anabranch.dev.local_kafka import LocalKafka
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.kafka.transport import TopicState

PARTITIONS = 4
WINDOW = 1_000
RATE_PER_S = 100
HERE = Path(__file__).parent

SETTINGS = """
namespace = "{mode}."
mode = "{mode}"
[kafka]
bootstrap = "{bootstrap}"
[topics]
queries = 4
tasks = 4
[types.t]
layers = ["a", "b", "c"]
[layers.a]
plugin = "synthetic"
items = 1
latency_ms = 0
[layers.b]
plugin = "synthetic"
items = 1
latency_ms = 0
[layers.c]
plugin = "synthetic"
items = 1
latency_ms = 0
"""


class Contender(NamedTuple):
    """A pipeline to be measured: where it reads and writes, and what it is asked."""

    name: str
    rival: str | None
    source: str
    sink: str
    value: Callable[[int], bytes]
    pids: list[int]


class Measured(NamedTuple):
    """One repetition."""

    per_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


class Driver:
    """One producer and one consumer for all contenders."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._number = 0

    async def measure(self, contender: Contender, count: int, seconds: float) -> Measured:
        await self._run(contender, count // 5, None)  # warm
        cpu, begin = cpu_s(contender.pids), time.perf_counter()
        await self._run(contender, count, None)
        took = time.perf_counter() - begin
        cpu = cpu_s(contender.pids) - cpu
        waits = sorted(await self._run(contender, int(RATE_PER_S * seconds), RATE_PER_S))
        return Measured(
            count / took,
            cpu / count * 1e6,
            statistics.median(waits) * 1000,
            waits[int(len(waits) * 0.99)] * 1000,
        )

    async def _run(self, contender: Contender, count: int, per_s: int | None) -> list[float]:
        """Ask `count` questions, in a window of so many or at a rate; how long each took.

        At a rate, a question's time counts from when it was due (open loop).
        """
        consumer = AIOKafkaConsumer(
            contender.sink,
            bootstrap_servers=self._bootstrap,
            fetch_max_wait_ms=50,
            isolation_level="read_committed",
        )
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", max_batch_size=262_144
        )
        await consumer.start()
        await producer.start()
        await consumer.seek_to_end()
        sent: dict[bytes, float] = {}
        waits: list[float] = []
        room = asyncio.Semaphore(WINDOW)

        async def read() -> None:
            while len(waits) < count:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    now = time.perf_counter()
                    for record in records:
                        if (since := sent.pop(record.key, None)) is not None:
                            waits.append(now - since)
                            room.release()

        reading = asyncio.ensure_future(read())
        start = time.perf_counter()
        for n in range(count):
            due = start + n / per_s if per_s else 0.0
            if per_s and (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            await room.acquire()
            self._number += 1
            key = b"%d" % self._number
            sent[key] = due or time.perf_counter()
            await producer.send(
                contender.source,
                contender.value(self._number),
                key=key,
                partition=self._number % PARTITIONS,
            )
        async with asyncio.timeout(120):
            await reading
        await producer.stop()
        await consumer.stop()
        return waits


def fresh(n: int) -> bytes:
    """A question that nobody asked before."""
    return b'{"id":"%d","type":"t","params":{"n":%d},"strategy":"parallel","timeout_ms":60000}' % (
        n,
        n,
    )


def repeated(n: int) -> bytes:
    """One of four hundred questions, always in the same partition."""
    return b'{"id":"%d","type":"t","params":{"c":%d},"timeout_ms":60000}' % (n, n % 400)


def cpu_s(pids: list[int]) -> float:
    """CPU seconds that processes have used so far (Linux; elsewhere 0)."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def process(*command: str) -> AsyncIterator[int]:
    """A Python process that says `ready`; ended with the block."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (line := await child.stdout.readline()).startswith(b"ready"):
                if not line:
                    raise SystemExit(f"{command}: ended before it was ready")
        yield child.pid
    finally:
        with suppress(ProcessLookupError):
            child.terminate()
        await child.communicate()


async def bench(bootstrap: str, repetitions: int, count: int, seconds: float) -> dict[str, Any]:
    relay = str(HERE / "relay.py")
    await make_topics(bootstrap)
    results: dict[str, list[Measured]] = {}
    async with (
        process(relay, bootstrap, "one.q:one.r") as one,
        process(relay, bootstrap, "three.q:three.t", "three.p:three.r") as first,
        process(relay, bootstrap, "three.t:three.p") as second,
        ours(bootstrap, "at_least_once") as (cached, parallel),
        ours(bootstrap, "exactly_once") as (cached_once, parallel_once),
    ):
        contenders = [
            Contender("relay, one hop", None, "one.q", "one.r", repeated, [one]),
            cached._replace(name="cached", rival="relay, one hop"),
            cached_once._replace(name="cached, exactly once", rival="cached"),
            Contender("relay, three hops", None, "three.q", "three.r", fresh, [first, second]),
            parallel._replace(name="parallel", rival="relay, three hops"),
            parallel_once._replace(name="parallel, exactly once", rival="parallel"),
        ]
        driver = Driver(bootstrap)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("measuring", total=repetitions * len(contenders))
            for _ in range(repetitions):
                for contender in contenders:
                    progress.update(bar, description=contender.name)
                    measured = await driver.measure(contender, count, seconds)
                    results.setdefault(contender.name, []).append(measured)
                    progress.advance(bar)
    return summary(contenders, results)


@asynccontextmanager
async def ours(bootstrap: str, mode: str) -> AsyncIterator[tuple[Contender, Contender]]:
    """A coordinator and a worker, asked what is cached and what is not; names are to be given."""
    with settings(bootstrap, mode) as path:
        config = load(path, environ={})
        await ensure_topics(KafkaTransport(config.kafka), config, config.groups)
        queries, results = Topics(config.namespace).queries, Topics(config.namespace).results
        async with (
            process("-m", "anabranch", "worker", "--config", str(path)) as worker,
            process("-m", "anabranch", "coordinator", "--config", str(path)) as coordinator,
        ):
            yield (
                Contender("", None, queries, results, repeated, [coordinator]),
                Contender("", None, queries, results, fresh, [coordinator, worker]),
            )


@contextmanager
def settings(bootstrap: str, mode: str) -> Iterator[Path]:
    """The configuration file of the processes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bench.toml")
        path.write_text(SETTINGS.format(mode=mode, bootstrap=bootstrap))
        yield path


async def make_topics(bootstrap: str) -> None:
    """Those of the relays."""
    admin = KafkaTransport(KafkaConfig(bootstrap=bootstrap)).admin()
    await admin.start()
    names = ("one.q", "one.r", "three.q", "three.t", "three.p", "three.r")
    await admin.create(dict.fromkeys(names, TopicState(PARTITIONS, {})), 1)
    await admin.stop()


def summary(contenders: list[Contender], results: dict[str, list[Measured]]) -> dict[str, Any]:
    """Median of each figure, with its spread, and the ratio to the rival's."""
    rows: dict[str, Any] = {}
    for contender in contenders:
        row: dict[str, Any] = {}
        for figure in Measured._fields:
            values = [getattr(m, figure) for m in results[contender.name]]
            row[figure] = statistics.median(values)
            row[f"{figure}_range"] = [min(values), max(values)]
            if contender.rival and (base := rows[contender.rival][figure]):
                row[f"{figure}_ratio"] = row[figure] / base
        rows[contender.name] = row
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "repetitions": len(next(iter(results.values()))),
        "results": rows,
    }


def show(report: dict[str, Any]) -> None:
    table = Table(title=f"{report['machine']}, CPython {report['python']}", box=None)
    for column in ("", "queries/s", "CPU us/query", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in report["results"].items():
        cells = []
        for figure, digits in (("per_s", 0), ("cpu_us", 0), ("p50_ms", 1), ("p99_ms", 1)):
            ratio = row.get(f"{figure}_ratio")
            cells.append(f"{row[figure]:,.{digits}f}" + (f"  ({ratio:.2f}x)" if ratio else ""))
        table.add_row(name, *cells)
    Console().print(table)
    print("in brackets: against the relay above, or exactly_once against at_least_once;")
    print(f"median of {report['repetitions']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short repetition")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    repetitions, count, seconds = (1, 4_000, 3.0) if arguments.quick else (3, 20_000, 10.0)
    with LocalKafka(nodes=1) as kafka:
        report = uvloop.run(bench(kafka.bootstrap, repetitions, count, seconds))
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


if __name__ == "__main__":
    main()
