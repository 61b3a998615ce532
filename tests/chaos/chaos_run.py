"""Faults against coordinators, workers and nodes of a real Apache Kafka, and what came of it.

    make chaos                                          every fault alone, then all at random
    make chaos SEED=7 QUERIES=10000 FAULTS=kill-coordinator MODE=exactly_once

A seed draws the same faults in the same order, at the same times, of the same seats in the fleet.
Exit code 1: a promise broke.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from aiokafka import AIOKafkaProducer
from chaos_checker import Report, check, read_back, stuck
from chaos_disk import Disk, three_nodes
from chaos_faults import FAULTS, hurt
from chaos_scene import PARAMS, Scene, standing
from fleet import SETTINGS
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from anabranch.cli.common import WIDTH
from anabranch.config.settings import Config, load
from anabranch.dev.local_kafka import LocalKafka
from anabranch.kafka.topics import Topics

__all__ = ["chaos", "drawn"]

TIMEOUT_MS: Final = 10_000
REPEATED_AFTER: Final = 200
"""Questions later one in ten is sent again, as it was, whoever has its partition by then."""
COLUMNS: Final = (
    "fault", "mode", "seed", "sent", "answered", "complete", "partial", "failed", "cached",
    "lost", "twice", "late", "recovery s",
)  # fmt: skip
TOPICS: Final = "[topics]\nqueries = 6\ntasks = 4\n"


async def chaos(
    kafka: LocalKafka, disk: Disk, faults: Sequence[str], *,
    mode: str, seed: int, queries: int, per_s: int,
) -> Report:  # fmt: skip
    """One run: ask at a steady rate while these faults happen."""
    report = Report(", ".join(faults), mode, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = _settings(folder, mode, kafka.bootstrap)
        config = load(path, environ={})
        async with standing(path, kafka, disk, config) as scene:
            keeping = asyncio.ensure_future(scene.keep())
            hurting = asyncio.ensure_future(hurt(scene, faults, seed, queries / per_s))
            await _ask(config, queries, per_s, hurting)
            await hurting
            await read_back(config, within_s=90)
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
            report.wrong += await _stop(scene)
            check(report, await read_back(config, within_s=10), scene)
            report.wrong += [*scene.failures, *await stuck(config)]
            report.told = scene.told
    return report


async def _stop(scene: Scene) -> list[str]:
    """Drain who is left; who does not end well."""
    left = {seat.name for seat in scene.seats if scene.alive(seat.name)}
    codes = await scene.fleet.stop()
    return [f"{name} drained with {codes[name]}" for name in sorted(left) if codes[name]]


def _settings(folder: str, mode: str, bootstrap: str) -> Path:
    path = Path(folder, "chaos.toml")
    namespace = f"chaos{random.getrandbits(32):x}."
    text = SETTINGS.format(namespace=namespace, mode=mode, bootstrap=bootstrap)
    path.write_text(text.replace("[types.t]", TOPICS + "[types.t]"))
    return path


async def _ask(config: Config, count: int, per_s: int, hurting: asyncio.Future[None]) -> None:
    """Plain JSON at a steady rate, until so many are asked and whatever happens is over."""
    topic = Topics(config.namespace).queries
    producer = AIOKafkaProducer(
        bootstrap_servers=config.kafka.bootstrap, enable_idempotence=True,
        request_timeout_ms=90_000, max_batch_size=1_000_000,
    )  # fmt: skip
    await producer.start()
    loop = asyncio.get_running_loop()
    begin, sent, repeats = loop.time(), [], []
    while len(sent) < count or not hurting.done():
        n = len(sent)
        await asyncio.sleep(max(0.0, begin + n / per_s - loop.time()))
        sent.append(await producer.send(topic, **_query(n)))
        if n % 10 == 0 and n >= REPEATED_AFTER:
            repeats.append(await producer.send(topic, **_query(n - REPEATED_AFTER)))
    await asyncio.gather(*sent, *repeats)
    await producer.stop()


def _query(n: int) -> dict[str, bytes]:
    """Key and value of a question; the same each time."""
    params = {"n": n % PARAMS}
    query = {"id": f"q{n}", "type": "t", "params": params, "timeout_ms": TIMEOUT_MS}
    return {"key": b"%d" % (n % PARAMS), "value": json.dumps(query).encode()}


def show(reports: Sequence[Report]) -> None:
    """One table, a line for each run."""
    table = Table(box=None)
    for column in COLUMNS:
        table.add_column(column, no_wrap=True)
    for report in reports:
        counts = (
            report.sent, report.answered, report.complete, report.partial, report.failed,
            report.cached, report.lost, report.twice, report.late,
        )  # fmt: skip
        table.add_row(
            report.name,
            report.mode,
            str(report.seed),
            *(f"{n:,}" for n in counts),
            report.recovered(),
        )
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
    print("recovery: seconds beyond the session timeout, median / worst")


def plans(faults: str, times: int, seed: int) -> list[list[str]]:
    """Each fault alone, some times, and all of them in a drawn order; or what is asked for."""
    if faults:
        return [drawn(seed) if f == "random" else [f] * times for f in faults.split(",")]
    return [[], *([name] * times for name in FAULTS), drawn(seed)]


def drawn(seed: int) -> list[str]:
    """Every fault once, in a drawn order."""
    return random.Random(seed).sample(list(FAULTS), len(FAULTS))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--per-s", type=int, default=100)
    parser.add_argument(
        "--faults", default="", help=f"some of {', '.join(FAULTS)}, random; with commas"
    )
    parser.add_argument("--times", type=int, default=3, help="how often each happens in its run")
    parser.add_argument("--mode", default="at_least_once")
    parser.add_argument("--keep", type=Path, help="write the reports there after every run")
    parser.add_argument("--json", action="store_true", help="print the reports as JSON")
    parser.add_argument("--verbose", action="store_true", help="say what was done when")
    asked = parser.parse_args()
    runs, reports = plans(asked.faults, asked.times, asked.seed), []
    with (
        three_nodes() as (kafka, disk),
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        bar = progress.add_task("chaos", total=len(runs))
        for faults in runs:
            progress.update(bar, description=", ".join(dict.fromkeys(faults)) or "nothing")
            reports.append(
                asyncio.run(
                    chaos(
                        kafka, disk, faults, mode=asked.mode, seed=asked.seed,
                        queries=asked.queries, per_s=asked.per_s,
                    )
                )
            )  # fmt: skip
            progress.advance(bar)
            if asked.keep:
                asked.keep.write_bytes(msgspec.json.encode(reports))
    if asked.json:
        print(msgspec.json.encode(reports).decode())
    else:
        show(reports)
    for report in reports:
        for broken in [*report.broken, *(report.told if asked.verbose else ())]:
            print(f"{report.name}: {broken}", file=sys.stderr)
    return int(any(report.broken for report in reports))


if __name__ == "__main__":
    sys.exit(main())
