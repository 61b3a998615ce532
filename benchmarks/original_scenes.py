"""The scenes of the original's table, played by a coordinator, two workers and a client on Kafka.

Layers wait 25 ms each, so that always-sequential without cache takes what the original says a query
took before: 50 ms with two layers, 100 with four, 200 with eight.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
from typing import Literal

from aggregate_micro import parts
from aiokafka import AIOKafkaProducer
from cache_micro import lookups
from contenders import create_topics
from driver import Stuck
from ours import IMPORTS, anabranch, start_anabranch
from processes import Processes
from selection_micro import answered, context, median_us, selector

from anabranch import Answer, Client
from anabranch.aggregate.result_aggregator import ResultAggregator

LAYERS = tuple(f"layer{n}" for n in range(8))
LAYER_MS = 25
TIMEOUT_MS = 20_000
ASKERS = 100
TASK_BYTES = 300
SPARE = "original.spare"
"""A topic that nobody reads."""

Strategy = Literal["auto", "sequential", "parallel", "distributed"]
Figures = dict[str, float]

_SETTINGS = """
namespace = "original."
[kafka]
bootstrap = "{bootstrap}"
[topics]
queries = 4
tasks = 4
[worker]
slots = 2000
queue = 4000
"""
_LAYER = """
[layers.{name}]
plugin = "scatter_layers:Scatter"
delay_ms = {delay_ms}
"""


async def start_pipeline(processes: Processes, bootstrap: str) -> None:
    """A coordinator and two workers; their configuration is `anabranch.toml`."""
    layers = (_LAYER.format(name=name, delay_ms=LAYER_MS) for name in LAYERS)
    await start_anabranch(processes, _SETTINGS.format(bootstrap=bootstrap) + "".join(layers))
    second = anabranch("worker", processes.folder / "anabranch.toml")
    await processes.start("layers", *second, **IMPORTS)
    create_topics(bootstrap, SPARE)


class Scenes:
    """Plays scenes, `count` questions each; figures are medians, in milliseconds."""

    def __init__(self, client: Client, bootstrap: str, count: int, seconds: float) -> None:
        self._client = client
        self._bootstrap = bootstrap
        self._count = count
        self._seconds = seconds
        self._numbers = itertools.count(1)

    async def cached(self, layers: int) -> Figures:
        """A question that was asked before."""
        number = next(self._numbers)
        await self._ask(layers, number)
        took = [await self._ask(layers, number, sources={"cache"}) for _ in range(self._count)]
        return await self._beside_sequential(layers, statistics.median(took))

    async def mixed(self) -> Figures:
        """Half of the layers were asked before, the others are asked in parallel."""
        took = []
        for _ in range(self._count):
            number = next(self._numbers)
            await self._ask(4, number, "parallel")
            took.append(await self._ask(8, number, "parallel", sources={"cache", "parallel"}))
        return await self._beside_sequential(8, statistics.median(took))

    async def fresh(self, layers: int, strategy: Strategy) -> Figures:
        """Questions that nobody asked before, one after the other."""
        took = [
            await self._ask(layers, next(self._numbers), strategy, sources={strategy})
            for _ in range(self._count)
        ]
        return await self._beside_sequential(layers, statistics.median(took))

    async def together(self, count: int, layers: int) -> Figures:
        """So many new questions at once; what the slowest takes."""
        asked = (self._ask(layers, next(self._numbers), "parallel") for _ in range(count))
        return {"ms": max(await asyncio.gather(*asked))}

    async def throughput(self, layers: int) -> Figures:
        """New questions, a hundred always open."""
        until = time.perf_counter() + self._seconds

        async def keep_asking() -> int:
            done = 0
            while time.perf_counter() < until:
                await self._ask(layers, next(self._numbers), "parallel")
                done += 1
            return done

        begin = time.perf_counter()
        done = sum(await asyncio.gather(*(keep_asking() for _ in range(ASKERS))))
        per_s = done / (time.perf_counter() - begin)
        alone_ms = await self._sequential_ms(layers)
        return {"per_s": per_s, "before_per_s": 1_000 / alone_ms, "times": per_s * alone_ms / 1_000}

    async def submission(self) -> Figures:
        """A record as long as a task, until Kafka has acknowledged it, one after the other."""
        value, took = os.urandom(TASK_BYTES), []
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all") as producer:
            for _ in range(self._count + 20):  # the first are slower
                begin = time.perf_counter()
                await producer.send_and_wait(SPARE, value)
                took.append((time.perf_counter() - begin) * 1000)
        return _operation(statistics.median(took[20:]))

    async def _beside_sequential(self, layers: int, ms: float) -> Figures:
        before_ms = await self._sequential_ms(layers)
        return {"ms": ms, "before_ms": before_ms, "times": before_ms / ms}

    async def _sequential_ms(self, layers: int) -> float:
        took = [
            await self._ask(layers, next(self._numbers), "sequential", sources={"sequential"})
            for _ in range(max(3, self._count // 4))
        ]
        return statistics.median(took)

    async def _ask(
        self,
        layers: int,
        number: int,
        strategy: Strategy = "auto",
        sources: set[str] | None = None,
    ) -> float:
        begin = time.perf_counter()
        answer = await self._client.ask(
            "t", {"n": number}, layers=LAYERS[:layers], strategy=strategy, timeout_ms=TIMEOUT_MS
        )
        took_ms = (time.perf_counter() - begin) * 1000
        if answer.status != "complete" or (sources and _sources(answer) != sources):
            raise Stuck(f"wanted {sources}, got {answer.status}: {answer.reason}")
        return took_ms


def _sources(answer: Answer) -> set[str]:
    return {layer.source for layer in answer.layers.values()}


def lookup() -> Figures:
    """A look into the cache, with building the key."""
    return _operation(lookups()["lookup, with key building"] / 1e6)


def decision() -> Figures:
    """The choice of a strategy."""
    contexts, learned = [context(number) for number in range(1_000)], selector("learned")
    return _operation(median_us(lambda n: learned.decide(contexts[n % 1_000])) / 1e3)


def aggregation() -> Figures:
    """Merging three layers of ten items."""
    aggregator, given = ResultAggregator(), parts()
    took_us = median_us(lambda _: aggregator.aggregate(given, wanted=3, limit=20), runs=500)
    return _operation(took_us / 1e3)


def telemetry() -> Figures:
    """Taking in what one query taught."""
    learned = selector("learned")
    records = [answered(learned, number, 20_000 + number) for number in range(1_000)]
    return _operation(median_us(lambda n: learned.observe(records[n % 1_000])) / 1e3)


def _operation(ms: float) -> Figures:
    return {"ms": ms, "per_s": 1_000 / ms}
