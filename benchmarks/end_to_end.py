"""Throughput, CPU and latency of whole pipelines on Apache Kafka: Anabranch, peers, bare relays.

    make bench                                          everything, layers that take no time
    python benchmarks/end_to_end.py --delay-ms 10       layers that wait
    python benchmarks/end_to_end.py --only parallel,handwritten --quick

Driver, broker and contenders share this machine, so only ratios of one run mean something. In each
repetition contenders are started and measured one after the other, so that none idles beside.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import uvloop
from contenders import ALL, RIVALS
from driver import Contender, Driver
from results import Column, Results, show, write
from turns import Measure, Turns, add_arguments

from anabranch.dev.local_kafka import LocalKafka

RATE_PER_S = 100
COLUMNS = (
    Column("per_s", "queries/s", 0),
    Column("cpu_us", "CPU us/query", 0),
    Column("cpu_us_gathers", "gathering", 0, compared=False),
    Column("cpu_us_layers", "layers", 0, compared=False),
    Column("cpu_us_broker", "broker", 0, compared=False),
    Column("cpu_us_driver", "driver", 0, compared=False),
    Column("p50_ms", "p50 ms", 1),
    Column("p99_ms", "p99 ms", 1),
    Column("third_p50_ms", "1/3: p50 ms", 1),
    Column("third_p99_ms", "1/3: p99", 1),
    Column("third_p999_ms", "1/3: p99.9", 1),
)


def measuring(seconds: float) -> Measure:
    """Measures with so many seconds for each part: saturated, at a rate, at a third of capacity."""

    async def measure(driver: Driver, contender: Contender) -> dict[str, float]:
        saturated = await driver.saturate(seconds)
        slowly = await driver.at_rate(RATE_PER_S, seconds)
        third = await driver.at_rate(saturated.per_s / 3, seconds)
        return {
            "per_s": saturated.per_s,
            "cpu_us": sum(saturated.cpu_us[process.role] for process in contender.processes),
            **{f"cpu_us_{role}": us for role, us in saturated.cpu_us.items()},
            "p50_ms": quantile_ms(slowly, 0.5),
            "p99_ms": quantile_ms(slowly, 0.99),
            "third_p50_ms": quantile_ms(third, 0.5),
            "third_p99_ms": quantile_ms(third, 0.99),
            "third_p999_ms": quantile_ms(third, 0.999),
        }

    return measure


def quantile_ms(waits: Sequence[float], share: float) -> float:
    """Of sorted seconds."""
    return waits[min(len(waits) - 1, int(len(waits) * share))] * 1000


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, ALL, delays_ms="0", repetitions=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each of three parts")
    parser.add_argument("--quick", action="store_true", help="one repetition of 1.5 seconds")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repetitions, arguments.seconds = 1, 1.5
    return arguments


def main() -> None:
    given = parsed()
    waits = "-".join(map(str, sorted(set(given.delay_ms))))
    results = Results(f"end_to_end-{waits}ms", delay_ms=waits, seconds=given.seconds)
    with LocalKafka() as kafka:
        turns = Turns(kafka, results, measuring(given.seconds), bound_s=5 * given.seconds + 120)
        uvloop.run(turns.run(given.only, given.repetitions, given.delay_ms))
    report = results.report(RIVALS)
    show(report, COLUMNS)
    print(f"written to {write(report, given.out)}")


if __name__ == "__main__":
    main()
