"""How long merging 3 layers of 10 items takes: median of repeated runs, in microseconds.

python benchmarks/aggregate_micro.py
"""

from __future__ import annotations

import statistics
import timeit

from anabranch.aggregate.result_aggregator import LayerPart, ResultAggregator
from anabranch.contract.events import Item, Source

CALLS, ROUNDS = 5_000, 11


def parts() -> list[LayerPart]:
    """Three layers that overlap: 15 different ids among 30 items."""
    sources: list[Source] = ["cache", "parallel", "distributed"]
    return [
        LayerPart(
            layer=f"layer-{number}",
            source=source,
            items=[
                Item(f"bench:{(rank * (number + 1)) % 15}", 1 / (rank + 1), {"title": f"{rank}"})
                for rank in range(10)
            ],
            age_ms=0,
            complete=True,
        )
        for number, source in enumerate(sources)
    ]


def main() -> None:
    """Print one line for each kind of fusion."""
    aggregator, given = ResultAggregator(), parts()
    for fusion in ("rrf", "score"):
        times = timeit.repeat(
            lambda fusion=fusion: aggregator.aggregate(given, wanted=3, limit=20, fusion=fusion),
            number=CALLS,
            repeat=ROUNDS,
        )
        print(f"{fusion:>5}: {statistics.median(times) / CALLS * 1e6:.1f} us")


if __name__ == "__main__":
    main()
