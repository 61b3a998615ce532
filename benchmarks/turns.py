"""Starts contenders one group after the other, has each measured, and does so again and again."""

from __future__ import annotations

import argparse
import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import product
from pathlib import Path

from contenders import GROUPS, Delays, Start, one_hop, started
from driver import Contender, Driver, Stuck
from processes import NotReady
from results import Results
from rich.console import Console
from rich.progress import Progress, TaskID

from anabranch.dev.local_kafka import LocalKafka
from anabranch.errors import BrokerUnavailable

WARM_S = 5.0
Measure = Callable[[Driver, Contender], Awaitable[dict[str, float]]]


class Turns:
    """Interleaved repetitions. A contender that fails is named, and left out from there on.

    Args:
        bound_s: longest time of one measurement.
    """

    def __init__(
        self, kafka: LocalKafka, results: Results, measure: Measure, *, bound_s: float
    ) -> None:
        self._kafka = kafka
        self._results = results
        self._measure = measure
        self._bound_s = bound_s
        self._numbers = itertools.count(1)
        self._out: set[str] = set()
        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._bar = TaskID(0)

    async def run(self, wanted: Collection[str], repetitions: int, delays_ms: Delays) -> None:
        """Measure each that is wanted so often."""
        self._bar = self._progress.add_task("", total=repetitions * len(wanted))
        with self._progress:
            await self._warm_broker()
            for turn, (names, start) in product(range(1, repetitions + 1), GROUPS.items()):
                left = [name for name in names if name in wanted and name not in self._out]
                if left:
                    await self._group(left, start, turn, delays_ms)

    async def _warm_broker(self) -> None:
        """It compiles what is hot; else who comes first would seem slower than it is."""
        self._progress.update(self._bar, description="warming the broker")
        bootstrap = self._kafka.bootstrap
        async with (
            started(one_hop, bootstrap, 0, (0, 0, 0)) as (relay,),
            Driver(bootstrap, relay, self._numbers) as driver,
        ):
            await driver.saturate(WARM_S)

    async def _group(self, left: Sequence[str], start: Start, turn: int, delays_ms: Delays) -> None:
        self._progress.update(self._bar, description=f"starting {left[0]}")
        try:
            async with started(start, self._kafka.bootstrap, turn, delays_ms) as contenders:
                for contender in contenders:
                    if contender.name in left:
                        self._progress.update(self._bar, description=contender.name)
                        await self._one(contender)
                        self._progress.advance(self._bar)
        except (BrokerUnavailable, NotReady) as error:
            self._leave_out(left, error)

    async def _one(self, contender: Contender) -> None:
        broker = self._kafka.node(1).pid or 0
        try:
            async with (
                asyncio.timeout(self._bound_s),
                Driver(self._kafka.bootstrap, contender, self._numbers, broker) as driver,
            ):
                self._results.add(contender.name, await self._measure(driver, contender))
        except (Stuck, TimeoutError) as error:
            self._leave_out([contender.name], error)

    def _leave_out(self, names: Sequence[str], error: Exception) -> None:
        self._progress.console.print(f"without {', '.join(names)}: {error or 'it took too long'}")
        self._out.update(names)
        for name in names:
            self._results.drop(name)


def add_arguments(
    parser: argparse.ArgumentParser, known: Sequence[str], *, delays_ms: str, repetitions: int
) -> None:
    """`--only`, `--delay-ms`, `--repetitions` and `--out`, with their defaults."""

    def some(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
        return chosen

    said = f"some of: {', '.join(known)}"
    parser.add_argument("--only", type=some, default=list(known), help=said)
    said = "what layers wait: all the same, or each of three"
    parser.add_argument("--delay-ms", type=delays_of, default=delays_ms, help=said)
    parser.add_argument("--repetitions", type=int, default=repetitions)
    parser.add_argument("--out", type=Path, help="where the report is written, as JSON")


def delays_of(text: str) -> Delays:
    """`10` for all, or `10,20,30`.

    Raises:
        ValueError: it is neither.
    """
    first, *others = map(int, text.split(","))
    second, third = others or (first, first)
    return first, second, third
