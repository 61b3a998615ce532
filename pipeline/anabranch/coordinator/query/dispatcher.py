"""Tasks for open queries: what is asked of whom, and what of it is outstanding."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from anabranch.contract.codec import MAX_VALUE_BYTES, encode
from anabranch.contract.events import PartialResult
from anabranch.contract.results import failed
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.flights import SharedFetches
from anabranch.coordinator.query.open_query import OpenQuery
from anabranch.coordinator.query.outbox import Outbox, TaskOut
from anabranch.dispatch.attempts import Attempt, next_attempts
from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.dispatch.routing import Outstanding
from anabranch.dispatch.tasks import bundle, task_layers
from anabranch.errors import DecodeError
from anabranch.kafka.topics import Topics

__all__ = ["Dispatcher"]


class Dispatcher:
    """Sends the attempts that are due, those that another query's fetch does not spare."""

    def __init__(
        self,
        registry: LayerRegistry,
        outstanding: Outstanding,
        fetches: SharedFetches,
        outbox: Outbox,
        topics: Topics,
    ) -> None:
        self._registry = registry
        self._outstanding = outstanding
        self._fetches = fetches
        self._outbox = outbox
        self._topics = topics

    def dispatch(self, open_query: OpenQuery, claim: Claim, now_ms: float) -> list[PartialResult]:
        """Send what is due; results of what cannot be sent any more: it has failed.

        Raises:
            DecodeError: what workers would be asked does not fit into a record.
        """
        mine = [
            attempt
            for attempt in next_attempts(open_query.join, claim.epoch)
            if self._leads(open_query, attempt, now_ms)
        ]
        for group, attempts in bundle(mine):
            if self._registry.partitions(group):
                self._send(open_query, claim, group, attempts)
        gone = [it for it in mine if not self._registry.partitions(it.layer.group)]
        why = "its group was withdrawn meanwhile"
        return [failed(slot, "error", why) for slot in task_layers(gone)]

    def arrived(self, open_query: OpenQuery, result: PartialResult) -> None:
        """A result came: this is not outstanding any more."""
        route = open_query.routes.pop((result.layer, result.shard), None)
        if route is not None:
            self._outstanding.ended(*route)

    def forget(self, open_query: OpenQuery, but: Collection[str] = ()) -> None:
        """Nobody waits any more for what was sent, but for these layers."""
        routes = open_query.routes
        for slot in [slot for slot in routes if slot[0] not in but]:
            self._outstanding.ended(*routes.pop(slot))

    def _leads(self, open_query: OpenQuery, attempt: Attempt, now_ms: float) -> bool:
        """Single-flight: the first attempt of a layer meets those of other queries."""
        name = attempt.layer.name
        if attempt.layer.refreshing:
            attempt.layer.refreshing = self._fetches.may_refresh(open_query, name)
            return attempt.layer.refreshing
        leads = open_query.leading.get(name)
        if leads is None:
            leads = self._fetches.must_fetch(open_query, name, now_ms)
            open_query.leading[name] = leads
        return leads

    def _send(
        self, open_query: OpenQuery, claim: Claim, group: str, attempts: Sequence[Attempt]
    ) -> None:
        partition = self._outstanding.choose(group, self._registry.partitions(group))
        for attempt in attempts:
            self._outstanding.sent(group, partition)
            open_query.routes[attempt.layer.name, attempt.shard] = (group, partition)
        task = open_query.task(attempts)
        if len(value := encode(task)) > MAX_VALUE_BYTES:
            raise DecodeError(
                f"what workers would be asked has {len(value):,} bytes, over {MAX_VALUE_BYTES:,}"
            )
        topic = self._topics.tasks(group, open_query.query.priority)
        headers, offset = open_query.headers, open_query.offset
        self._outbox.tasks.append(
            TaskOut(topic, partition, value, headers, claim, offset, task.layers)
        )
