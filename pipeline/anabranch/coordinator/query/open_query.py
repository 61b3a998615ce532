"""One query between its reading and its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Final

from anabranch.aggregate.coverage import enough, patience_ms
from anabranch.aggregate.join import Join, JoinLayer
from anabranch.cache.keys import Question
from anabranch.cache.slots import Slot
from anabranch.contract.events import HEADER_CLIENT, HEADER_OFFSET, Query, Source, Task
from anabranch.contract.plan import Decision, PlanContext
from anabranch.dispatch.attempts import Attempt
from anabranch.dispatch.routing import Route
from anabranch.dispatch.tasks import task_layers
from anabranch.kafka.transport import Headers, Record
from anabranch.learn.dependency_graph import LayerSelection
from anabranch.observe.spans import Trace
from anabranch.runtime.clock import moved

__all__ = ["MAX_CLIENT_BYTES", "OpenQuery", "answer_headers"]

MAX_CLIENT_BYTES: Final = 256
"""Longest `anabranch-client` that is forwarded: the first of them, if there are several."""


_WAITING_SHARE: Final = 0.5
"""Of a query's time, that it waits at most for a layer to be announced."""


class OpenQuery:
    """What a coordinator holds of a query until its answer is on its way."""

    __slots__ = (
        "context", "deadline_ms", "decision", "digest", "generation", "headers", "join", "key",
        "leading", "offset", "partition", "patient_until_ms", "plan_by_ms", "query",
        "read_ms", "record", "routes", "selection", "slots", "trace",
    )  # fmt: skip

    def __init__(
        self,
        query: Query,
        record: Record,
        trace: Trace,
        selection: LayerSelection,
        key: Question,
        *,
        read_ms: float,
        deadline_ms: float,
    ) -> None:
        self.query = query
        self.record = record
        self.partition = record.partition
        self.offset = record.offset
        self.trace = trace
        self.headers = answer_headers(record, trace)
        self.join = Join(selection.layers)
        self.selection = selection
        self.read_ms = read_ms
        self.deadline_ms = deadline_ms
        self.context: PlanContext | None = None
        self.decision: Decision | None = None
        self.key = key
        self.slots: Mapping[str, Slot] = {}
        """What the cache had."""
        self.leading: dict[str, bool] = {}
        """Layer to whether this query fetches it, or waits for another that does."""
        self.plan_by_ms = read_ms + (deadline_ms - read_ms) * _WAITING_SHARE
        """When it stops waiting for layers that nobody has announced."""
        self.patient_until_ms: float | None = None
        """When it stops waiting for more than enough."""
        self.digest = ""
        self.generation = 0
        self.routes: dict[tuple[str, int], Route] = {}
        """(layer, shard) to where it was sent, while outstanding."""

    @property
    def place(self) -> tuple[int, int]:
        """Names it among all queries of a coordinator."""
        return self.partition, self.offset

    def layers_at(self, routes: Set[Route]) -> set[str]:
        """Layers that are outstanding there."""
        return {layer for (layer, _), route in self.routes.items() if route in routes}

    def is_enough(self, now_ms: float) -> bool:
        """Coverage is met, and waiting for the rest does not pay (`patient_until_ms`) any more."""
        join, query = self.join, self.query
        if not enough(join.ok, len(join.layers), query.min_coverage):
            return False
        if join.sequence:
            return join.found() >= query.limit
        until_ms = self.patient_until_ms
        if until_ms is not None and now_ms >= until_ms:
            return True
        left_ms = self.deadline_ms - now_ms
        wait_ms = patience_ms(join.ok, len(join.layers), query.min_coverage, left_ms)
        if until_ms is None or now_ms + wait_ms < until_ms:
            self.patient_until_ms = now_ms + wait_ms
        return wait_ms <= 0

    def shift(self, moved_ms: float, now_ms: float) -> None:
        """The clock was set by `moved_ms` to `now_ms`."""
        self.read_ms = moved(self.read_ms, moved_ms, now_ms)
        self.deadline_ms = moved(self.deadline_ms, moved_ms, now_ms)
        self.plan_by_ms = moved(self.plan_by_ms, moved_ms, now_ms)
        if self.patient_until_ms is not None:
            self.patient_until_ms = moved(self.patient_until_ms, moved_ms, now_ms)

    def task(self, attempts: Sequence[Attempt]) -> Task:
        """What a worker group is asked for these attempts."""
        query = self.query
        return Task(
            query=query.id,
            partition=self.partition,
            offset=self.offset,
            type=query.type,
            params=query.params,
            scope=query.scope,
            limit=query.limit,
            deadline_ms=int(self.deadline_ms),
            layers=task_layers(attempts),
            key=self.digest,
            generation=self.generation,
        )

    def refreshed_by(self, layer: JoinLayer) -> Source:
        """How a layer was fetched that the cache had, beside what it had not."""
        return self.decision.arms[layer.group] if self.decision else "none"


def answer_headers(record: Record, trace: Trace) -> Headers:
    """Headers of everything a query causes: its trace, its offset, and whose it is."""
    headers = [*trace.headers, (HEADER_OFFSET, b"%d" % record.offset)]
    for name, value in record.headers:
        if name == HEADER_CLIENT and value and len(value) <= MAX_CLIENT_BYTES:
            return [*headers, (name, value)]
    return headers
