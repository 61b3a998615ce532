"""The open queries of one partition, from their reading to their answer, without I/O.

The path of a query is `start` -> `planning.probe` -> `planning.plan` -> `_advance` -> `_answer`,
with `take`, `on_served`, `on_leading`, `on_death` and `on_deadline` re-entering at `_advance`.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import partial
from typing import TYPE_CHECKING

from anabranch.aggregate.join import JoinLayer
from anabranch.contract.codec import MAX_VALUE_BYTES, encode
from anabranch.contract.events import Error, PartialResult, Query, TaskLayer
from anabranch.coordinator.background.worker_crashes import DEATHS
from anabranch.coordinator.query.answering import attributes, compose, encode_bounded
from anabranch.coordinator.query.brain import Brain
from anabranch.coordinator.query.cache_fill import memoise
from anabranch.coordinator.query.open_query import OpenQuery
from anabranch.coordinator.query.outbox import AnswerOut, TaskOut
from anabranch.coordinator.query.planning import choose_layers, plan, probe
from anabranch.coordinator.query.telemetry_record import telemetry_record
from anabranch.dispatch.attempts import Attempt, next_attempts
from anabranch.dispatch.routing import Route
from anabranch.dispatch.tasks import bundle, task_layers
from anabranch.errors import DecodeError
from anabranch.kafka.transport import Record
from anabranch.observe.spans import Trace
from anabranch.runtime.containment import contained

if TYPE_CHECKING:
    from anabranch.coordinator.query.partition import QueryPartition

__all__ = ["OpenQueries"]


class OpenQueries:
    """What is read and not answered of one partition.

    What an event brings to queries that share fetches with its own happens after it, never
    inside it: whoever calls in here from outside calls `SharedFetches.settle` then.
    """

    def __init__(self, owner: QueryPartition, brain: Brain) -> None:
        self._owner = owner
        self._brain = brain
        self._open: dict[int, OpenQuery] = {}
        self._lingering: dict[int, OpenQuery] = {}
        """Answered early, and others wait for what is still fetched for them."""
        self._unplanned: dict[int, OpenQuery] = {}
        """Those that wait for a layer to be announced."""

    def find(self, offset: int, id_: str) -> OpenQuery | None:
        """The query at an offset that something is fetched for, if it is the one that is meant."""
        found = self._open.get(offset) or self._lingering.get(offset)
        return found if found is not None and found.query.id == id_ else None

    def is_open(self, offset: int) -> bool:
        """Whether a query's answer is still to come."""
        return offset in self._open

    def fetching(self) -> list[OpenQuery]:
        """Queries that something may be outstanding for."""
        return [*self._open.values(), *self._lingering.values()]

    # ── events ─────────────────────────────────────────────────────────────────────────────

    def start(
        self,
        query: Query,
        record: Record,
        trace: Trace,
        asked_ms: float,
        now_ms: float,
        arrived: Sequence[PartialResult],
    ) -> None:
        """A query was read; `arrived` is what had come for it before."""
        brain = self._brain
        open_query = OpenQuery(
            query,
            record,
            trace,
            choose_layers(brain, query),
            read_ms=now_ms,
            deadline_ms=brain.intake.deadline_ms(query, asked_ms),
        )
        self._open[record.offset] = open_query
        probe(brain, open_query, now_ms)
        is_late = now_ms >= open_query.deadline_ms
        # Of a late one nothing is asked: it costs what an answer from the cache costs.
        if not is_late and not plan(brain, open_query, now_ms):
            self._unplanned[record.offset] = open_query
            brain.deadlines.add(open_query.plan_by_ms, self._owner.number, record.offset)
        for result in arrived:
            open_query.join.accept(result, now_ms)
        if is_late:
            open_query.join.expire()
        elif open_query.join.open:
            brain.deadlines.add(open_query.deadline_ms, self._owner.number, record.offset)
        self._advance(open_query)

    def take(self, open_query: OpenQuery, results: Sequence[PartialResult]) -> list[PartialResult]:
        """Take what a partial brought; those results that count."""
        return [result for result in results if self._accept(open_query, result)]

    def go_on(self, open_query: OpenQuery, counted: Sequence[PartialResult]) -> None:
        """After `take`: tell those who wait for the same, then do what is due now."""
        with self._contained(open_query):
            for result in counted:
                layer = open_query.join.layers[result.layer]
                if layer.status != "open" and open_query.leading.get(result.layer):
                    self._brain.sharing.ended(open_query, layer, self._brain.now_ms())
            if self.is_open(open_query.offset):
                self._advance(open_query)
            else:
                self.on_forsaken(open_query.offset)

    def on_deadline(self, offset: int) -> None:
        """A time that a query waits for has come; nothing happens if it was answered."""
        now_ms = self._brain.now_ms()
        lingering = self._lingering.get(offset)
        if lingering is not None and now_ms >= lingering.deadline_ms:
            self._let_go(lingering)
        if (open_query := self._open.get(offset)) is not None:
            with self._contained(open_query):
                self._wake(open_query, now_ms)
        self._brain.sharing.settle()

    def on_health(self) -> None:
        """Layers may have been announced, or the time for that may be over."""
        for open_query in list(self._unplanned.values()):
            with self._contained(open_query):
                self._plan(open_query, self._brain.now_ms())
        self._brain.sharing.settle()

    def on_served(self, offset: int, layer: JoinLayer) -> None:
        """Another query's fetch brought a layer that this one waits for."""
        if (open_query := self._open.get(offset)) is not None:
            with self._contained(open_query):
                open_query.join.layers[layer.name].share(layer)
                self._advance(open_query)

    def on_leading(self, offset: int, layer: str) -> None:
        """The query that fetched for this one is gone: it fetches itself, if there is time."""
        open_query = self._open.get(offset)
        if open_query is not None and self._brain.now_ms() < open_query.deadline_ms:
            with self._contained(open_query):
                open_query.join.layers[layer].attempts.clear()
                open_query.leading[layer] = True
                self._advance(open_query)

    def on_forsaken(self, offset: int) -> None:
        """Nobody waits any more for a layer that is still fetched for an answered query."""
        lingering = self._lingering.get(offset)
        if lingering is not None and not self._brain.sharing.flights.led_by(lingering.place):
            self._let_go(lingering)

    def on_death(self, open_query: OpenQuery, routes: Set[Route]) -> None:
        """A worker that read there died, and had this query: it may be one too many.

        Who waits for what it fetched does not wait for that any more.
        """
        with self._contained(open_query):
            for layer in {name for (name, _), at in open_query.routes.items() if at in routes}:
                self._brain.sharing.lost(open_query, layer, self._brain.now_ms())
            if self.is_open(open_query.offset):
                self._advance(open_query)
        self._brain.sharing.settle()

    def on_refused(self, offset: int, layers: Sequence[TaskLayer], why: str) -> None:
        """The broker took no task for these."""
        open_query = self._open.get(offset) or self._lingering.get(offset)
        if open_query is not None:
            with self._contained(open_query):
                self.go_on(open_query, self.take(open_query, [_failed(it, why) for it in layers]))
        self._brain.sharing.settle()

    def give_up(self, open_query: OpenQuery, error: Exception) -> None:
        """Handling a query raised this: it ends; one that is answered ends without a word."""
        if self.is_open(open_query.offset):
            self._owner.give_up(open_query.record, open_query.trace, error)
        else:
            self._let_go(open_query)

    def drop(self, offset: int, running: Set[str] = frozenset()) -> None:
        """A query is over: nothing of it is left here, nor where it meets others.

        But what is `running` for it goes on if others wait for that.
        """
        open_query = self._open.pop(offset, None)
        self._unplanned.pop(offset, None)
        if open_query is None:
            return
        now_ms, routes = self._brain.now_ms(), open_query.routes
        if now_ms >= open_query.deadline_ms:
            running = frozenset()
        awaited = self._brain.sharing.left(open_query, now_ms, running)
        for slot in [slot for slot in routes if slot[0] not in awaited]:
            self._brain.outstanding.ended(*routes.pop(slot))
        for layer in awaited:
            open_query.join.layers[layer].reopen()
        if awaited:
            self._lingering[offset] = open_query

    def shift(self, moved_ms: float, now_ms: float) -> None:
        """The broker's clock was set: every query keeps the time that it had left."""
        for open_query in (*self._open.values(), *self._lingering.values()):
            open_query.shift(moved_ms, now_ms)

    def abandon(self) -> None:
        """The partition is somebody else's: whatever was outstanding is forgotten."""
        for offset, open_query in list(self._open.items()):
            self.drop(offset)
            open_query.trace.end("partition lost")
        for open_query in list(self._lingering.values()):
            self._let_go(open_query)
        self._brain.sharing.settle()

    # ── details ────────────────────────────────────────────────────────────────────────────

    def _contained(self, open_query: OpenQuery) -> contained:
        return contained(partial(self.give_up, open_query))

    def _plan(self, open_query: OpenQuery, now_ms: float) -> None:
        if plan(self._brain, open_query, now_ms):
            del self._unplanned[open_query.offset]
            self._advance(open_query)

    def _wake(self, open_query: OpenQuery, now_ms: float) -> None:
        """Its deadline has come, or it has waited long enough for more than enough."""
        if now_ms >= open_query.deadline_ms:
            open_query.join.expire()
            self._answer(open_query)
        elif open_query.offset in self._unplanned:
            self._plan(open_query, now_ms)
        elif open_query.patient_until_ms is not None and now_ms >= open_query.patient_until_ms:
            self._advance(open_query)

    def _advance(self, open_query: OpenQuery) -> None:
        """Answer if there is enough; otherwise make the attempts that are due."""
        join = open_query.join
        if join.open and open_query.offset in self._unplanned:
            return
        if join.open and self._is_enough(open_query):
            join.abandon("enough came from the other layers")
        if not join.open:
            self._answer(open_query)
            return
        now_ms = self._brain.now_ms()
        if self._brain.mortality.is_quarantined(open_query.digest, now_ms):
            self._condemn(open_query)
            return
        mine = [
            attempt
            for attempt in next_attempts(join, self._owner.epoch)
            if self._leads(open_query, attempt, now_ms)
        ]
        for group, attempts in bundle(mine):
            if self._brain.directory.partitions(group):
                self._send(open_query, group, attempts)
        if gone := [it for it in mine if not self._brain.directory.partitions(it.layer.group)]:
            slots = [_failed(it, "its group was withdrawn meanwhile") for it in task_layers(gone)]
            self.go_on(open_query, self.take(open_query, slots))

    def _is_enough(self, open_query: OpenQuery) -> bool:
        """Coverage is met, and waiting for the rest does not pay any more."""
        before_ms = open_query.patient_until_ms
        enough = open_query.is_enough(self._brain.now_ms())
        until_ms = open_query.patient_until_ms
        if until_ms is not None and until_ms != before_ms:
            self._brain.deadlines.add(until_ms, self._owner.number, open_query.offset)
        return enough

    def _leads(self, open_query: OpenQuery, attempt: Attempt, now_ms: float) -> bool:
        """Single-flight: the first attempt of a layer meets those of other queries."""
        name = attempt.layer.name
        if attempt.layer.refreshing:
            attempt.layer.refreshing = self._brain.sharing.may_refresh(open_query, name)
            return attempt.layer.refreshing
        leads = open_query.leading.get(name)
        if leads is None:
            leads = self._brain.sharing.must_fetch(open_query, name, now_ms)
            open_query.leading[name] = leads
        return leads

    def _send(self, open_query: OpenQuery, group: str, attempts: list[Attempt]) -> None:
        brain = self._brain
        partition = brain.outstanding.choose(group, brain.directory.partitions(group))
        for attempt in attempts:
            brain.outstanding.sent(group, partition)
            open_query.routes[attempt.layer.name, attempt.shard] = (group, partition)
        task = open_query.task(attempts)
        if len(value := encode(task)) > MAX_VALUE_BYTES:
            raise DecodeError(
                f"what workers would be asked has {len(value):,} bytes, over {MAX_VALUE_BYTES:,}"
            )
        topic, offset = brain.topics.tasks(group, open_query.query.priority), open_query.offset
        headers = open_query.headers
        brain.outbox.tasks.append(
            TaskOut(topic, partition, value, headers, self._owner, offset, task.layers)
        )

    def _accept(self, open_query: OpenQuery, result: PartialResult) -> bool:
        route = open_query.routes.pop((result.layer, result.shard), None)
        if route is not None:
            self._brain.outstanding.ended(*route)
        if result.status in ("ok", "error"):
            self._brain.mortality.survived(open_query.digest, result.layer)
        return open_query.join.accept(result, self._brain.now_ms())

    def _answer(self, open_query: OpenQuery) -> None:
        """What can fail comes first: until the last line the query is open, and can be given up."""
        brain, now_ms = self._brain, self._brain.now_ms()
        answer = compose(brain, open_query, epoch=self._owner.epoch, now_ms=now_ms)
        out = AnswerOut(
            self._owner,
            open_query.offset,
            open_query.query.id.encode(),
            encode_bounded(answer),
            open_query.headers,
            open_query.query.reply_to,
        )
        memoise(brain, open_query, answer)
        learned = telemetry_record(open_query, answer, now_ms, brain.selector.telemetry.speedups)
        if learned is not None:
            brain.selector.observe(learned)
        open_query.trace.set(attributes(answer, open_query.join))
        open_query.trace.end(answer.error.message if answer.error else None)
        self.drop(open_query.offset, {layer for layer, _ in open_query.routes})
        brain.outbox.answers.append(out)

    def _condemn(self, open_query: OpenQuery) -> None:
        self._brain.mortality.gave_up(open_query.routes.values(), open_query.deadline_ms)
        self.drop(open_query.offset)
        told = Error("quarantined", f"{DEATHS} workers died while they had this question")
        self._owner.reject(open_query.record, open_query.trace, told, open_query.query.id)

    def _let_go(self, lingering: OpenQuery) -> None:
        """Nobody waits any more for what was fetched for a query that is answered."""
        self._lingering.pop(lingering.offset, None)
        for route in lingering.routes.values():
            self._brain.outstanding.ended(*route)
        lingering.routes.clear()
        self._brain.sharing.left(lingering, self._brain.now_ms())


def _failed(slot: TaskLayer, why: str) -> PartialResult:
    return PartialResult(
        layer=slot.layer,
        shard=slot.shard,
        shards=slot.shards,
        attempt=slot.attempt,
        status="error",
        error=why,
    )
