"""Which settings would have served a log better: the original's AutoTuner.

The best of a grid is chosen on every other query and has to prove itself on those between, so
that the luckiest of many candidates is not taken for the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from anabranch.config.settings import SelectConfig
from anabranch.contract.telemetry import TelemetryBatch
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector
from anabranch.select.replay import Evaluation, Interval, Knowledge, Score, estimate, mean, scores

__all__ = ["Tuning", "evaluate", "selector_of", "tune"]

PARALLEL_THRESHOLDS: Final = (1.0, 1.5, 2.5)
PARALLEL_MAX_LAYERS: Final = (2, 4, 8)
DISTRIBUTED_THRESHOLDS: Final = (100.0, 250.0, 500.0, 1_000.0)


class Tuning(Struct, frozen=True):
    """What is proposed. `proposed` is None if nothing is surely better; `reason` says why.

    Attributes:
        gain_ms: mean time saved, on queries that had no part in the choice.
        refused: candidates of which the log says too little.
    """

    present: Evaluation
    proposed: SelectConfig | None
    gain_ms: Interval | None
    refused: int
    reason: str


def selector_of(select: SelectConfig, knowledge: Knowledge) -> AdaptiveStrategySelector:
    """A selector with these settings that never explores."""
    return AdaptiveStrategySelector(
        knowledge.profiler,
        knowledge.dep_graph,
        mode="learned" if select.mode == "learned" else "rules",
        cache_threshold=select.cache_threshold,
        parallel_threshold=select.parallel_threshold,
        parallel_max_layers=select.parallel_max_layers,
        distributed_threshold=select.distributed_threshold,
        explore=0.0,
        cost_model=knowledge.cost_model,
    )


def evaluate(batches: Sequence[TelemetryBatch], select: SelectConfig) -> Evaluation:
    """What these settings would have cost."""
    return estimate(scores(batches, lambda knowledge: [selector_of(select, knowledge)])[0])


def tune(batches: Sequence[TelemetryBatch], present: SelectConfig) -> Tuning:
    """Settings that would surely have been better than the present ones, if there are any."""
    grid = [present, *_grid(present)]
    found = scores(batches, lambda knowledge: [selector_of(one, knowledge) for one in grid])
    evaluation = estimate(found[0])
    choice = {
        index: estimated.mean_ms.value
        for index, own in enumerate(found)
        if (estimated := estimate(own[::2])).mean_ms is not None
    }
    refused = len(grid) - len(choice)
    if not choice:
        why = (
            evaluation.refused if evaluation.refused is not None else "half of the log is too thin"
        )
        return Tuning(evaluation, None, None, refused, why)
    best = min(choice, key=lambda index: (choice[index], index))
    gain = _gain(found[0][1::2], found[best][1::2])
    if gain.low <= 0:
        return Tuning(evaluation, None, gain, refused, "nothing is surely better than what is set")
    share = gain.value / mean(found[0], [score.mean_ms for score in found[0]]).value
    return Tuning(evaluation, grid[best], gain, refused, f"it saves {share:.0%} of the time")


def _grid(present: SelectConfig) -> list[SelectConfig]:
    """The learned mode, and the rules with every combination of thresholds."""
    thresholds = product(PARALLEL_THRESHOLDS, PARALLEL_MAX_LAYERS, DISTRIBUTED_THRESHOLDS)
    rules = [
        replace(
            present,
            mode="rules",
            parallel_threshold=parallel,
            parallel_max_layers=layers,
            distributed_threshold=distributed,
        )
        for parallel, layers, distributed in thresholds
    ]
    return [replace(present, mode="learned"), *rules]


def _gain(present: Sequence[Score], other: Sequence[Score]) -> Interval:
    """Mean difference, query by query."""
    pairs = zip(present, other, strict=True)
    return mean(present, [mine.mean_ms - its.mean_ms for mine, its in pairs])
