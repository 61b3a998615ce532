"""What the original claimed, row by row, and what one run on Apache Kafka reached.

    python benchmarks/original_table.py [--quick]

`before` is always-sequential without cache in the same run (for throughput: one question at a
time). A row holds if its medians keep what was claimed; where they don't, the table says so.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path
from typing import NamedTuple

import uvloop
from original_scenes import (
    Figures,
    Scenes,
    aggregation,
    decision,
    lookup,
    start_pipeline,
    telemetry,
)
from processes import Processes
from results import Report, Results, Spread, said_of, write
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from anabranch import Client
from anabranch.config.settings import load
from anabranch.dev.local_kafka import LocalKafka

Bounds = dict[str, tuple[float, float]]
"""The least and the most of figures."""


class Claim(NamedTuple):
    """A row of the original, what it bounds, and how that is measured here."""

    row: str
    said: str
    bounds: Bounds
    play: Callable[[Scenes], Awaitable[Figures]]


def at_most(ms: float, times: float = 0.0) -> Bounds:
    """Milliseconds, and how many times faster than before."""
    return {"ms": (0.0, ms)} | ({"times": (times, inf)} if times else {})


def operation(ms: float, per_s: float) -> Bounds:
    """Milliseconds, and how many a second."""
    return {"ms": (0.0, ms), "per_s": (per_s, inf)}


CLAIMS = (
    Claim("cached query (hit), 2 layers", "50 to 5 ms, 10x", at_most(5, 10), lambda s: s.cached(2)),
    Claim(
        "simple cached query, 4 layers",
        "100 to 8 ms, 12.5x",
        at_most(8, 12.5),
        lambda s: s.cached(4),
    ),
    Claim(
        "mixed cache and parallel, 8 layers",
        "200 to 40 ms, 5x",
        at_most(40, 5),
        lambda s: s.mixed(),
    ),
    Claim(
        "10 queries at once, 8 layers",
        "time-out to 2,000 ms",
        at_most(2_000),
        lambda s: s.together(10, 8),
    ),
    Claim(
        "200 queries at once, 4 layers",
        "100+ concurrent",
        at_most(2_000),
        lambda s: s.together(200, 4),
    ),
    Claim(
        "throughput, 4 layers",
        "50 to 200+/s, 4x",
        {"per_s": (200, inf), "times": (4, inf)},
        lambda s: s.throughput(4),
    ),
    Claim("CACHE, 4 layers", "10-50x", {"times": (10, 50)}, lambda s: s.cached(4)),
    Claim("PARALLEL, 4 layers", "3-4x", {"times": (3, 4)}, lambda s: s.fresh(4, "parallel")),
    Claim(
        "DISTRIBUTED, 8 layers", "5-10x", {"times": (5, 10)}, lambda s: s.fresh(8, "distributed")
    ),
    Claim("cache lookup", "under 1 ms, any rate", at_most(1), lambda _: asyncio.to_thread(lookup)),
    Claim(
        "strategy decision",
        "under 2 ms, 500+/s",
        operation(2, 500),
        lambda _: asyncio.to_thread(decision),
    ),
    Claim(
        "result aggregation",
        "under 5 ms, 200+/s",
        operation(5, 200),
        lambda _: asyncio.to_thread(aggregation),
    ),
    Claim(
        "telemetry recording",
        "under 1 ms, 1,000+/s",
        operation(1, 1_000),
        lambda _: asyncio.to_thread(telemetry),
    ),
    Claim("task submission", "about 5 ms, 200+/s", operation(5, 200), lambda s: s.submission()),
)


async def bench(
    kafka: LocalKafka, results: Results, count: int, seconds: float, repetitions: int
) -> None:
    async with Processes() as processes:
        await start_pipeline(processes, kafka.bootstrap)
        config = load(processes.folder / "anabranch.toml", environ={})
        async with Client(config) as client:
            scenes = Scenes(client, kafka.bootstrap, count, seconds)
            with Progress(console=Console(stderr=True), transient=True) as progress:
                bar = progress.add_task("", total=repetitions * len(CLAIMS))
                for claim in CLAIMS * repetitions:
                    progress.update(bar, description=claim.row)
                    async with asyncio.timeout(60 + 10 * seconds):
                        results.add(claim.row, await claim.play(scenes))
                    progress.advance(bar)


def verdict(claim: Claim, figures: dict[str, Spread]) -> str:
    """Whether the medians keep what was claimed."""
    medians = {figure: figures[figure].median for figure in claim.bounds}
    short = [
        figure
        for figure, (least, most) in claim.bounds.items()
        if medians[figure] < least or (figure == "ms" and medians[figure] > most)
    ]
    if short:
        return f"DOES NOT HOLD ({', '.join(short)})"
    more = [figure for figure, (_, most) in claim.bounds.items() if medians[figure] > most]
    return "more than claimed" if more else "holds"


def show(report: Report) -> None:
    table = Table(box=box.MARKDOWN)
    for title in ("row", "the original", "before", "reached", "times (least-most)", "a second", ""):
        table.add_column(title, no_wrap=True)
    for claim in CLAIMS:
        figures = report.rows[claim.row]
        table.add_row(
            claim.row,
            claim.said,
            _median(figures, "before_ms", " ms") or _median(figures, "before_per_s", ""),
            _median(figures, "ms", " ms"),
            _spread(figures.get("times")),
            _median(figures, "per_s", ""),
            verdict(claim, figures),
        )
    Console(width=170).print(said_of(report), table)


def _median(figures: dict[str, Spread], figure: str, unit: str) -> str:
    if figure not in figures:
        return ""
    median = figures[figure].median
    digits = 0 if median >= 100 else 1 if median >= 1 else 4
    return f"{median:,.{digits}f}{unit}"


def _spread(got: Spread | None) -> str:
    return f"{got.median:.1f} ({got.min:.1f}-{got.max:.1f})" if got else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repetition of a few questions")
    parser.add_argument("--out", type=Path, help="where the report is written, as JSON")
    given = parser.parse_args()
    repetitions, count, seconds = (1, 10, 2.0) if given.quick else (given.repetitions, 50, 5.0)
    results = Results("original_table", questions=count, seconds=seconds)
    with LocalKafka() as kafka:
        uvloop.run(bench(kafka, results, count, seconds, repetitions))
    report = results.report({})
    show(report)
    print(f"written to {write(report, given.out)}")


if __name__ == "__main__":
    main()
