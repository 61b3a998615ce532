"""From a read query to a plan: choose layers, probe the cache, decide for what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from anabranch.cache.keys import make_key
from anabranch.contract.events import LayerDescriptor, Query
from anabranch.contract.keys import digest
from anabranch.contract.plan import Decision, PlanContext
from anabranch.coordinator.query.brain import Brain
from anabranch.coordinator.query.open_query import Memo, OpenQuery
from anabranch.learn.dependency_graph import LayerSelection, SelectionContext

__all__ = ["choose_layers", "plan", "probe"]


def choose_layers(brain: Brain, query: Query) -> LayerSelection:
    """The wanted layers, and those of the type that were learned to be of no use."""
    wanted = brain.intake.layers(query)
    if query.layers is not None or brain.kind(query.type).select != "learned":
        return LayerSelection(wanted)
    return brain.graph.select_layers(query.type, SelectionContext(query.id, wanted))


def probe(brain: Brain, open_query: OpenQuery, now_ms: float) -> None:
    """Serve what the cache has; rule 5: before anything is chosen."""
    query, join = open_query.query, open_query.join
    open_query.generation = brain.control_position
    open_query.key = make_key(
        query.type, query.scope, query.params, brain.kind(query.type).key_params
    )
    brain.guessing.asked(open_query.key, now_ms)
    found = brain.cache.probe(
        open_query.key,
        tuple(join.layers),
        limit=query.limit,
        max_age_ms=query.max_age_ms,
        now_ms=now_ms,
    )
    open_query.slots = found.hits
    if found.memo is not None:
        memo: Memo = found.memo
        open_query.memo = memo if memo.weighed == brain.directory.revision else None
    for name, slot in found.hits.items():
        age_ms = max(0, int(now_ms - slot.stored_ms))
        join.layers[name].serve(slot.items, complete=slot.complete, age_ms=age_ms)
    for name in found.refresh:
        join.layers[name].refreshing = True


def plan(brain: Brain, open_query: OpenQuery, now_ms: float) -> bool:
    """Decide how the missing layers are fetched; False if some are still to be waited for."""
    query, join = open_query.query, open_query.join
    if now_ms < open_query.plan_by_ms and _is_awaited(brain, open_query, now_ms):
        return False
    missing = _reachable(brain, open_query)
    if not missing and not join.ok:
        return True
    context = open_query.context = PlanContext(
        query=query.id,
        type=query.type,
        wanted=tuple(join.layers),
        cached=tuple(name for name, layer in join.layers.items() if layer.status == "ok"),
        missing=missing,
        groups=brain.directory.members.loads({d.group for d in missing}, now_ms),
        strategy=query.strategy,
        min_coverage=query.min_coverage,
        remaining_ms=open_query.deadline_ms - now_ms,
    )
    decision = open_query.decision = brain.selector.decide(context)
    _assign(open_query, missing, decision)
    if any(layer.source != "none" for layer in join.open):
        open_query.digest = digest(
            query.type, query.scope, brain.kind(query.type).keyed(query.params)
        )
        _refresh(brain, open_query, decision)
    return True


def _is_awaited(brain: Brain, open_query: OpenQuery, now_ms: float) -> bool:
    """Whether a missing layer may still be announced: a start or a deployment is no error.

    Where layers are configured, no others are waited for.
    """
    if open_query.query.strategy == "cache":
        return False
    configured = brain.config.layers
    return any(
        brain.directory.descriptor(layer.name) is None
        and (not configured or layer.name in configured)
        and brain.directory.may_come(layer.name, now_ms)
        for layer in open_query.join.open
    )


def _reachable(brain: Brain, open_query: OpenQuery) -> tuple[LayerDescriptor, ...]:
    """Descriptors of the missing layers; those that nobody serves are skipped at once."""
    found = []
    for layer in open_query.join.open:
        descriptor = brain.directory.descriptor(layer.name)
        if descriptor is None:
            layer.end("skipped", "no worker has announced this layer")
        elif brain.directory.has_left(descriptor.group):
            layer.end("skipped", f"the last worker of group {descriptor.group} has left")
        else:
            found.append(descriptor)
    return tuple(found)


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


def _refresh(brain: Brain, open_query: OpenQuery, decision: Decision) -> None:
    """Fetch what expires soon alongside: it costs no extra round where its group is asked.

    Not while layers are asked one after another, to spare what need not be asked. One missing
    layer alone is SEQUENTIAL too, as the cheapest arm; it is asked now, and what ages with it.
    """
    in_turn = decision.strategy == "sequential" and len(decision.order) > 1
    for layer in open_query.join.layers.values():
        if not layer.refreshing:
            continue
        descriptor = brain.directory.descriptor(layer.name)
        layer.refreshing = False
        if descriptor is not None and descriptor.shards == 1 and not in_turn:
            layer.group = descriptor.group
            layer.refreshing = descriptor.group in decision.arms
