"""Faults against coordinators, workers and nodes of a real Apache Kafka, and what came of it.

    make chaos                                          every fault alone, then all at random
    make chaos SEED=7 QUERIES=10000 FAULTS=kill-coordinator MODE=exactly_once

A seed draws the same faults in the same order at the same times. Exit code 1: a promise broke.
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

import msgspec
from aiokafka import AIOKafkaProducer
from chaos_checker import PARAMS, TIMEOUT_MS, Report, check
from chaos_scene import FAULTS, NEEDS_NODES, Scene, standing
from fleet import SETTINGS
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from anabranch.config import Config, load
from anabranch.dev.local_kafka import LocalKafka
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import Topics, ensure_topics

__all__ = ["chaos"]

COLUMNS = ("fault", "mode", "seed", "sent", "answered", "lost", "twice", "late", "recovery s")
TOPICS = "[topics]\nqueries = 6\ntasks = 4\n"


async def chaos(
    kafka: LocalKafka,
    faults: Sequence[str],
    *,
    mode: str,
    seed: int,
    queries: int,
    per_s: int,
    nodes: int,
) -> Report:
    """One run: ask at a steady rate while these faults happen, one after another."""
    report = Report(", ".join(faults), mode, seed, queries)
    with tempfile.TemporaryDirectory() as folder:
        path = _settings(folder, mode, kafka.bootstrap)
        config = load(path, environ={})
        await ensure_topics(KafkaTransport(config.kafka), config, config.groups)
        async with standing(path, kafka, seed, nodes) as scene:
            keeping = asyncio.ensure_future(scene.keep())
            hurting = asyncio.ensure_future(_hurt(scene, faults, queries / per_s))
            await _ask(config, queries, per_s)
            await hurting
            await check(config, report, scene.died, within_s=90)
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
            codes = await scene.fleet.stop()
            report.told = [*scene.told, f"exit codes {codes}"]
            report.wrong += scene.failures
    return report


def _settings(folder: str, mode: str, bootstrap: str) -> Path:
    path = Path(folder, "chaos.toml")
    namespace = f"chaos{random.getrandbits(32):x}."
    text = SETTINGS.format(namespace=namespace, mode=mode, bootstrap=bootstrap)
    path.write_text(text.replace("[types.t]", TOPICS + "[types.t]"))
    return path


async def _hurt(scene: Scene, faults: Sequence[str], seconds: float) -> None:
    """Faults at even distances over the time that questions are asked, somewhat shaken."""
    between_s = seconds / (len(faults) + 1)
    for fault in faults:
        await asyncio.sleep(between_s * scene.rng.uniform(0.7, 1.0))
        await FAULTS[fault](scene)


async def _ask(config: Config, count: int, per_s: int) -> None:
    """Plain JSON at a steady rate, by a producer that loses nothing."""
    topic = Topics(config.namespace).queries
    producer = AIOKafkaProducer(
        bootstrap_servers=config.kafka.bootstrap, enable_idempotence=True, request_timeout_ms=90_000
    )
    await producer.start()
    loop = asyncio.get_running_loop()
    begin, sent = loop.time(), []
    for n in range(count):
        await asyncio.sleep(max(0.0, begin + n / per_s - loop.time()))
        params = {"n": n % PARAMS}
        query = {"id": f"q{n}", "type": "t", "params": params, "timeout_ms": TIMEOUT_MS}
        key = b"%d" % (n % PARAMS)
        sent.append(await producer.send(topic, json.dumps(query).encode(), key=key))
    await asyncio.gather(*sent)
    await producer.stop()


def show(reports: Sequence[Report]) -> None:
    """One table, a line for each run."""
    table = Table(box=None)
    for column in COLUMNS:
        table.add_column(column, no_wrap=True)
    for report in reports:
        counts = (report.sent, report.answered, report.lost, report.twice, report.late)
        kinds = dict.fromkeys(report.faults.split(", "))
        name = "at random" if len(kinds) > 1 else next(iter(kinds)) or "nothing"
        table.add_row(
            name, report.mode, str(report.seed), *(f"{n:,}" for n in counts), report.recovered()
        )
    Console().print(table)
    print("recovery: seconds beyond the session timeout, median / worst")


def plans(faults: str, nodes: int, seed: int) -> list[list[str]]:
    """Each fault alone, three times, and all of them in a drawn order; or what is asked for."""
    if faults:
        return [[name] * 3 for name in faults.split(",")]
    possible = [name for name in FAULTS if nodes == 3 or name not in NEEDS_NODES]
    shuffled = random.Random(seed).sample(possible, len(possible))
    return [[], *([name] * 3 for name in possible), shuffled]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--per-s", type=int, default=100)
    parser.add_argument("--faults", default="", help=f"some of {', '.join(FAULTS)}; with commas")
    parser.add_argument("--mode", default="at_least_once")
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=3)
    parser.add_argument("--json", action="store_true", help="print the reports as JSON")
    parser.add_argument("--verbose", action="store_true", help="say what was done when")
    asked = parser.parse_args()
    runs, reports = plans(asked.faults, asked.nodes, asked.seed), []
    with (
        LocalKafka(nodes=asked.nodes) as kafka,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        bar = progress.add_task("chaos", total=len(runs))
        for faults in runs:
            progress.update(bar, description=", ".join(dict.fromkeys(faults)) or "nothing")
            reports.append(
                asyncio.run(
                    chaos(
                        kafka, faults, mode=asked.mode, seed=asked.seed, queries=asked.queries,
                        per_s=asked.per_s, nodes=asked.nodes,
                    )
                )
            )  # fmt: skip
            progress.advance(bar)
    if asked.json:
        print(msgspec.json.encode(reports).decode())
    else:
        show(reports)
    for report in reports:
        for broken in [*report.broken, *(report.told if asked.verbose else ())]:
            print(f"{report.faults or 'nothing'}: {broken}", file=sys.stderr)
    return int(any(report.broken for report in reports))


if __name__ == "__main__":
    sys.exit(main())
