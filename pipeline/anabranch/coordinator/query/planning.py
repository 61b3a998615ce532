"""From a query that was looked up to a plan: choose layers, decide for what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from anabranch.aggregate.join import JoinLayer
from anabranch.config.settings import Config
from anabranch.contract.events import LayerDescriptor, Query
from anabranch.contract.keys import digest
from anabranch.contract.plan import Decision, PlanContext
from anabranch.coordinator.query.open_query import OpenQuery
from anabranch.dispatch.intake import Intake
from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.learn.dependency_graph import DependencyGraph, LayerSelection, SelectionContext
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector

__all__ = ["Planner"]

Found: TypeAlias = tuple[JoinLayer, LayerDescriptor | None]
"""A missing layer, and what is known of it if it can be asked."""


class Planner:
    """Chooses layers, and decides how those are fetched that the cache has not."""

    def __init__(
        self,
        intake: Intake,
        registry: LayerRegistry,
        graph: DependencyGraph,
        selector: AdaptiveStrategySelector,
        config: Config,
    ) -> None:
        self._intake = intake
        self._registry = registry
        self._graph = graph
        self._selector = selector
        self._config = config

    def choose_layers(self, query: Query) -> LayerSelection:
        """The wanted layers, and those of the type that were learned to be of no use."""
        wanted = self._intake.layers(query)
        if query.layers is not None or self._config.type_config(query.type).select != "learned":
            return LayerSelection(wanted)
        return self._graph.select_layers(query.type, SelectionContext(query.id, wanted))

    def deadline_ms(self, query: Query, asked_ms: float) -> float:
        """By when it is to be answered, on the broker's clock."""
        return self._intake.deadline_ms(query, asked_ms)

    def plan(self, open_query: OpenQuery, now_ms: float) -> bool:
        """Decide; False if some of the missing layers are still to be waited for."""
        query, join = open_query.query, open_query.join
        found = [(layer, self._registry.descriptor(layer.name)) for layer in join.open]
        if now_ms < open_query.plan_by_ms and self._is_awaited(query, found, now_ms):
            return False
        missing = self._reachable(found)
        if not missing and not join.ok:
            return True
        context = open_query.context = PlanContext(
            query=query.id,
            type=query.type,
            wanted=tuple(join.layers),
            cached=tuple([name for name, layer in join.layers.items() if layer.status == "ok"]),
            missing=missing,
            groups=self._registry.members.loads([d.group for d in missing], now_ms),
            strategy=query.strategy,
            min_coverage=query.min_coverage,
            remaining_ms=open_query.deadline_ms - now_ms,
        )
        decision = open_query.decision = self._selector.decide(context)
        _assign(open_query, missing, decision)
        if decision.arms:
            kind = self._config.type_config(query.type)
            open_query.digest = digest(query.type, query.scope, kind.keyed(query.params))
            self._refresh(open_query, decision)
        return True

    def _is_awaited(self, query: Query, found: Sequence[Found], now_ms: float) -> bool:
        """Whether a missing layer may still be announced: a start or a deployment is no error.

        Where layers are configured, no others are waited for.
        """
        unknown = [layer.name for layer, descriptor in found if descriptor is None]
        if not unknown or query.strategy == "cache":
            return False
        configured = self._config.layers
        return any(
            (not configured or name in configured) and self._registry.may_come(name, now_ms)
            for name in unknown
        )

    def _reachable(self, found: Sequence[Found]) -> tuple[LayerDescriptor, ...]:
        """Descriptors of the missing layers; those that nobody serves are skipped at once."""
        reachable = []
        for layer, descriptor in found:
            if descriptor is None:
                layer.end("skipped", "no worker has announced this layer")
            elif self._registry.has_left(descriptor.group):
                layer.end("skipped", f"the last worker of group {descriptor.group} has left")
            else:
                reachable.append(descriptor)
        return tuple(reachable)

    def _refresh(self, open_query: OpenQuery, decision: Decision) -> None:
        """Fetch what expires soon alongside: it costs no extra round where its group is asked.

        Not while layers are asked one after another, to spare what need not be asked. One missing
        layer alone is SEQUENTIAL too, as the cheapest arm; it is asked now, and what ages with it.
        """
        in_turn = decision.strategy == "sequential" and len(decision.order) > 1
        for layer in open_query.join.layers.values():
            if not layer.refreshing:
                continue
            descriptor = self._registry.descriptor(layer.name)
            layer.refreshing = False
            if descriptor is not None and descriptor.shards == 1 and not in_turn:
                layer.group = descriptor.group
                layer.refreshing = descriptor.group in decision.arms


def _assign(open_query: OpenQuery, missing: Sequence[LayerDescriptor], decision: Decision) -> None:
    for descriptor in missing:
        layer = open_query.join.layers[descriptor.layer]
        arm = decision.arms.get(descriptor.group)
        if arm is None:
            layer.end("skipped", "not in the cache, and nothing else was to be asked")
        else:
            layer.plan(arm, descriptor.group, descriptor.shards)
    if decision.strategy == "sequential":
        open_query.join.sequence = decision.order
