"""What another selector would have cost, estimated from telemetry of what really happened.

Doubly robust (Dudik, Langford, Li 2011): of each sampled query the score is what a model expects
of the candidate's plan, corrected, where the candidate agrees with what was done, by how wrong
the model was there divided by the probability of what was done. It is right if either the model
or the probabilities are. The model is the cost model as it stood *before* the query, so that no
answer explains itself. Where the log holds too little of what the candidate would do, nothing is
claimed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import erf, log, pi, sqrt
from typing import Final, Protocol

from msgspec import Struct

from anabranch.contract.events import Strategy
from anabranch.contract.plan import Arm, Decision, PlanContext
from anabranch.contract.telemetry import ExecutionTelemetry, TelemetryBatch
from anabranch.learn.cost_model import CostModel
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.execution_telemetry import ExecutionTelemetryCollector
from anabranch.learn.profiler import LayerProfiler
from anabranch.learn.seen_batches import SeenBatches
from anabranch.select.plans import Plans

__all__ = [
    "Candidate",
    "Evaluation",
    "Interval",
    "Knowledge",
    "Score",
    "estimate",
    "mean",
    "scores",
]

Z: Final = 1.96
"""Of the normal distribution: intervals hold 95%."""
MIN_EFFECTIVE: Final = 50.0
"""Effective number of agreements (Kish) below which nothing is claimed."""
MIN_BY_STRATEGY: Final = 10
"""Agreements on each strategy that the candidate takes in more than `RARE` of the queries."""
RARE: Final = 0.02
CACHED_MS: Final = 1.0
"""What an answer from the cache takes."""


class Candidate(Protocol):
    """A selector to be judged."""

    def decide(self, context: PlanContext) -> Decision:
        """Plan a query."""
        ...


class Knowledge:
    """What all candidates and the model know at a moment of the log: they learn the same."""

    def __init__(self) -> None:
        self.profiler = LayerProfiler()
        self.dep_graph = DependencyGraph(self.profiler)
        self.cost_model = CostModel()
        self._collector = ExecutionTelemetryCollector(
            "replay", (self.profiler, self.dep_graph, self.cost_model)
        )

    def learn(self, batch: TelemetryBatch) -> None:
        """Go on to after `batch`."""
        self._collector.replay((batch,))


class Interval(Struct, frozen=True, gc=False):
    """An estimate and its 95% confidence interval."""

    value: float
    low: float
    high: float


class Evaluation(Struct, frozen=True):
    """What a candidate would have cost; without figures if `refused` says why.

    Attributes:
        records: sampled queries.
        agreed: of these, those in which the candidate would have done what was done.
        effective: how many equally likely agreements they are worth.
    """

    records: int
    agreed: int
    effective: float
    mean_ms: Interval | None = None
    p95_ms: Interval | None = None
    refused: str | None = None


class Score(Struct, frozen=True, gc=False):
    """One sampled query, as a candidate would have answered it.

    Attributes:
        weight: queries that this one stands for (1 / its probability of being sampled).
        actual_ms: what it took.
        expected_ms: what the model expects of the candidate's plan.
        logged_ms: what the model expects of the plan that was taken.
        sigma: of ln(actual / expected), for either plan.
        match: 1 / the probability of what was done if the candidate agrees, else 0.
    """

    weight: float
    strategy: Strategy
    actual_ms: float
    expected_ms: float
    logged_ms: float
    sigma: float
    match: float

    @property
    def mean_ms(self) -> float:
        """The doubly robust score."""
        return self.expected_ms + self.match * (self.actual_ms - self.logged_ms)

    def below(self, limit_ms: float) -> float:
        """The same for whether it would have taken at most `limit_ms`."""
        expected = _below(limit_ms, self.expected_ms, self.sigma)
        if not self.match:
            return expected
        logged = _below(limit_ms, self.logged_ms, self.sigma)
        return expected + self.match * ((self.actual_ms <= limit_ms) - logged)


def scores(
    batches: Iterable[TelemetryBatch], make: Callable[[Knowledge], Sequence[Candidate]]
) -> list[list[Score]]:
    """For each candidate that `make` builds, the scores of the same sampled queries.

    Only queries that were left to the selector count.
    """
    knowledge = Knowledge()
    candidates = make(knowledge)
    found: list[list[Score]] = [[] for _ in candidates]
    seen = SeenBatches()
    for batch in sorted(batches, key=_time):
        if not seen.first_time(batch.instance, batch.sequence):
            continue
        for record in batch.sampled:
            context = record.context
            if context is None or context.strategy != "auto" or not context.missing:
                continue
            if any(layer.shared for layer in record.layers):
                continue  # what its own plan would have taken is not known
            costs = knowledge.cost_model
            plans = Plans(context, knowledge.profiler, costs, novel=False)
            for candidate, own in zip(candidates, found, strict=True):
                own.append(_score(record, candidate.decide(context), plans, costs))
        knowledge.learn(batch)
    return found


def estimate(found: Sequence[Score]) -> Evaluation:
    """Mean and 95th percentile over `found`, or why nothing can be said."""
    matches = [score.match * score.weight for score in found if score.match]
    effective = sum(matches) ** 2 / sum(m * m for m in matches) if matches else 0.0
    refused = _refusal(found, effective)
    if refused is not None:
        return Evaluation(len(found), len(matches), effective, refused=refused)
    mean_ms = mean(found, [score.mean_ms for score in found])
    p95_ms = _quantile(found, 0.95)
    return Evaluation(len(found), len(matches), effective, mean_ms, p95_ms)


def _score(record: ExecutionTelemetry, decision: Decision, plans: Plans, costs: CostModel) -> Score:
    """Compare what was done with what a candidate would do."""
    done = {part.group: part.arm for part in record.plan}
    wished = {part.group: part.arm for part in decision.parts}
    accuracy = 0.5 if decision.strategy == "cache" else costs.accuracy(decision.strategy)
    return Score(
        weight=1 / record.sampled,
        strategy=decision.strategy,
        actual_ms=record.total_latency_ms,
        expected_ms=_expected(plans, wished, costs),
        logged_ms=_expected(plans, done, costs),
        sigma=max(0.05, -log(accuracy) * sqrt(pi / 2)),
        match=1 / record.probability if done == wished else 0.0,
    )


def _expected(plans: Plans, arms: Mapping[str, Arm], costs: CostModel) -> float:
    """Mean of what the model expects of a plan, given as its arm by group."""
    if not arms:
        return CACHED_MS
    if "" in arms:
        return plans.estimates["sequential"] * costs.risk("sequential")
    return max(
        part.estimated_ms * costs.risk(part.arm)
        for part in (*plans.by_arm["parallel"], *plans.by_arm["distributed"])
        if arms.get(part.group) == part.arm
    )


def _refusal(found: Sequence[Score], effective: float) -> str | None:
    if effective < MIN_EFFECTIVE:
        return (
            f"the log agrees with this choice in {effective:.0f} queries' worth of evidence; "
            f"at least {MIN_EFFECTIVE:.0f} are needed"
        )
    for strategy in sorted({score.strategy for score in found}):
        chosen = [score for score in found if score.strategy == strategy]
        agreed = sum(1 for score in chosen if score.match)
        if agreed < MIN_BY_STRATEGY and len(chosen) > RARE * len(found):
            return (
                f"{strategy} would be taken in {len(chosen)} of {len(found)} queries, but was in "
                f"only {agreed} of them; at least {MIN_BY_STRATEGY} are needed"
            )
    return None


def mean(found: Sequence[Score], values: Sequence[float]) -> Interval:
    """Weighted mean of a value of each score (self-normalised, linearised variance)."""
    total = sum(score.weight for score in found)
    pairs = [(score.weight, value) for score, value in zip(found, values, strict=True)]
    average = sum(weight * value for weight, value in pairs) / total
    spread = sum((weight * (value - average)) ** 2 for weight, value in pairs)
    margin = Z * sqrt(spread) / total
    return Interval(average, average - margin, average + margin)


def _quantile(found: Sequence[Score], share: float) -> Interval:
    """Where the estimated distribution, and the bounds of its interval, reach `share`."""
    actual = sorted({score.actual_ms for score in found})

    def at(limit: float) -> Interval:
        return mean(found, [score.below(limit) for score in found])

    def first(key: Callable[[float], float]) -> float:
        return actual[min(len(actual) - 1, bisect_left(actual, share, key=key))]

    return Interval(
        first(lambda limit: at(limit).value),
        first(lambda limit: at(limit).high),
        first(lambda limit: at(limit).low),
    )


def _below(limit_ms: float, mean_ms: float, sigma: float) -> float:
    """P(X <= limit) of a lognormal with that mean."""
    if limit_ms <= 0 or mean_ms <= 0:
        return float(limit_ms >= mean_ms)
    mu = log(mean_ms) - sigma * sigma / 2
    return 0.5 * (1 + erf((log(limit_ms) - mu) / (sigma * sqrt(2))))


def _time(batch: TelemetryBatch) -> tuple[int, str, int]:
    buckets = [row.bucket for row in batch.rows.queries]
    return min(buckets, default=0), batch.instance, batch.sequence
