"""What is lost and doubled when who gathers is killed in mid-flight, and started again at once.

    python benchmarks/killed.py [--only parallel,handwritten] [--repetitions 5]

2,000 queries come at 500/s; after half of them the coordinator (a peer's gatherer) gets a
SIGKILL. Lost is what has no answer when nothing more comes for 20 seconds, doubled is every answer
beyond the first. The longest silence is how long nobody got an answer meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import uvloop
from contenders import ALL
from driver import Contender, Driver
from results import Column, Results, show, write
from turns import Turns, add_arguments

from anabranch.dev.local_kafka import LocalKafka

COUNT, RATE_PER_S = 2_000, 500
PATIENCE_S = 20.0
DOUBLED_S = 1.0
"""What is answered twice may come late."""
BOUND_S = 240.0
CONTENDERS = tuple(name for name in ALL if not name.startswith(("cached", "relay")))
COLUMNS = (
    Column("lost", f"lost of {COUNT:,}", 0),
    Column("doubled", "doubled", 0),
    Column("silence_s", "longest silence s", 1),
    Column("took_s", "until the last s", 1),
)


class Watch:
    """Counts answers, and how long none came."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.answers: Counter[bytes] = Counter()
        self.silence_s = 0.0

    def see(self, records: Sequence[Any]) -> None:
        """Told of everything that comes."""
        self.answers.update(record.key for record in records)
        self.silence_s, self._last = max(self.silence_s, self.quiet_s), time.perf_counter()

    @property
    def quiet_s(self) -> float:
        """Seconds since the last answer."""
        return time.perf_counter() - self._last


async def measure(driver: Driver, contender: Contender) -> dict[str, float]:
    """The figures of one repetition."""
    watch, victim = Watch(), contender.processes[0]
    driver.on_records = watch.see
    begin = time.perf_counter()
    await driver.ask_at_rate(RATE_PER_S, COUNT // 2)
    victim.kill()
    again = asyncio.create_task(victim.start())
    await driver.ask_at_rate(RATE_PER_S, COUNT // 2)
    await again
    while driver.unanswered and watch.quiet_s < PATIENCE_S:
        await driver.progress()
    took_s = time.perf_counter() - begin - watch.quiet_s
    await asyncio.sleep(DOUBLED_S)
    return {
        "lost": driver.unanswered,
        "doubled": watch.answers.total() - len(watch.answers),
        "silence_s": watch.silence_s,
        "took_s": took_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, CONTENDERS, delays_ms="50,100,150", repetitions=3)
    arguments = parser.parse_args()
    waits = ",".join(map(str, arguments.delay_ms))
    results = Results("killed", delay_ms=waits, queries=COUNT)
    with LocalKafka() as kafka:
        turns = Turns(kafka, results, measure, bound_s=BOUND_S)
        uvloop.run(turns.run(arguments.only, arguments.repetitions, arguments.delay_ms))
    report = results.report({})
    show(report, COLUMNS, spreads=True)
    print(f"written to {write(report, arguments.out)}")


if __name__ == "__main__":
    main()
