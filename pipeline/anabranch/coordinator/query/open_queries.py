"""The open queries of one partition, from their reading to their answer, without I/O.

The path of a query is `start` -> `CachedAnswers.answer`, and where that has none
`CacheLookup.probe` -> `Planner.plan` -> `_advance` -> `_answer`; what happens to it meanwhile
(`take` and `go_on`, `on_served`, `on_leading`, `on_death`, `on_deadline`) goes on at `_advance`.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import partial

from anabranch.aggregate.join import JoinLayer
from anabranch.contract.events import Error, PartialResult, Query, TaskLayer
from anabranch.contract.results import failed
from anabranch.coordinator.query.answer_writer import AnswerWriter
from anabranch.coordinator.query.cache_lookup import CacheLookup
from anabranch.coordinator.query.cached_answer import CachedAnswers
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.crash_tracker import DEATHS, CrashTracker
from anabranch.coordinator.query.deadlines import Deadlines
from anabranch.coordinator.query.dispatcher import Dispatcher
from anabranch.coordinator.query.flights import SharedFetches
from anabranch.coordinator.query.open_query import OpenQuery
from anabranch.coordinator.query.outbox import Outbox
from anabranch.coordinator.query.planning import Planner
from anabranch.coordinator.query.rejections import Rejections
from anabranch.dispatch.routing import Route
from anabranch.kafka.transport import Record
from anabranch.observe.spans import Trace
from anabranch.runtime.containment import contained

__all__ = ["OpenQueries"]


class OpenQueries:
    """What is read and not answered of one partition.

    What an event brings to queries that share fetches with its own happens after it, never
    inside it: the partition calls `SharedFetches.drain` then.
    """

    def __init__(
        self,
        claim: Claim,
        lookup: CacheLookup,
        cached: CachedAnswers,
        planner: Planner,
        dispatcher: Dispatcher,
        fetches: SharedFetches,
        crashes: CrashTracker,
        writer: AnswerWriter,
        rejections: Rejections,
        deadlines: Deadlines,
        outbox: Outbox,
    ) -> None:
        self._claim = claim
        self._lookup = lookup
        self._cached = cached
        self._planner = planner
        self._dispatcher = dispatcher
        self._fetches = fetches
        self._crashes = crashes
        self._writer = writer
        self._rejections = rejections
        self._deadlines = deadlines
        self._outbox = outbox
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
        selection = self._planner.choose_layers(query)
        deadline_ms = self._planner.deadline_ms(query, asked_ms)
        key = self._lookup.question(query, now_ms)
        if now_ms < deadline_ms:
            out = self._cached.answer(query, key, selection, record, trace, self._claim, now_ms)
            if out is not None:
                self._outbox.answers.append(out)
                return
        open_query = OpenQuery(
            query, record, trace, selection, key, read_ms=now_ms, deadline_ms=deadline_ms
        )
        self._open[record.offset] = open_query
        self._lookup.probe(open_query, now_ms)
        self._go(open_query, arrived, now_ms)

    def _go(self, open_query: OpenQuery, arrived: Sequence[PartialResult], now_ms: float) -> None:
        """Plan what the cache had not, and do what is due at once."""
        is_late = now_ms >= open_query.deadline_ms
        # Of a late one nothing is asked: it costs what an answer from the cache costs.
        if not is_late and not self._planner.plan(open_query, now_ms):
            self._unplanned[open_query.offset] = open_query
            self._watch(open_query, open_query.plan_by_ms)
        for result in arrived:
            open_query.join.accept(result, now_ms)
        if is_late:
            open_query.join.expire()
        elif open_query.join.open:
            self._watch(open_query, open_query.deadline_ms)
        self._advance(open_query, now_ms)

    def take(
        self, open_query: OpenQuery, results: Sequence[PartialResult], now_ms: float
    ) -> list[PartialResult]:
        """Take what a partial brought; those results that count."""
        return [result for result in results if self._accept(open_query, result, now_ms)]

    def go_on(self, open_query: OpenQuery, counted: Sequence[PartialResult], now_ms: float) -> None:
        """After `take`: tell those who wait for the same, then do what is due now."""
        with self._contained(open_query, now_ms):
            self._tell(open_query, counted, now_ms)
            if self.is_open(open_query.offset):
                self._advance(open_query, now_ms)
            else:
                self.on_forsaken(open_query.offset, now_ms)

    def on_deadline(self, offset: int, now_ms: float) -> None:
        """A time that a query waits for has come; nothing happens if it was answered."""
        lingering = self._lingering.get(offset)
        if lingering is not None and now_ms >= lingering.deadline_ms:
            self._end_fetches(lingering, now_ms)
        if (open_query := self._open.get(offset)) is not None:
            with self._contained(open_query, now_ms):
                self._wake(open_query, now_ms)

    def on_health(self, now_ms: float) -> None:
        """Layers may have been announced, or the time for that may be over."""
        for open_query in list(self._unplanned.values()):
            with self._contained(open_query, now_ms):
                self._plan(open_query, now_ms)

    def on_served(self, offset: int, layer: JoinLayer, now_ms: float) -> None:
        """Another query's fetch brought a layer that this one waits for."""
        if (open_query := self._open.get(offset)) is not None:
            with self._contained(open_query, now_ms):
                open_query.join.layers[layer.name].share(layer)
                self._advance(open_query, now_ms)

    def on_leading(self, offset: int, layer: str, now_ms: float) -> None:
        """The query that fetched for this one is gone: it fetches itself, if there is time."""
        open_query = self._open.get(offset)
        if open_query is not None and now_ms < open_query.deadline_ms:
            with self._contained(open_query, now_ms):
                open_query.join.layers[layer].attempts.clear()
                open_query.leading[layer] = True
                self._advance(open_query, now_ms)

    def on_forsaken(self, offset: int, now_ms: float) -> None:
        """Nobody waits any more for a layer that is still fetched for an answered query."""
        lingering = self._lingering.get(offset)
        if lingering is not None and not self._fetches.is_awaited(lingering):
            self._end_fetches(lingering, now_ms)

    def on_death(self, open_query: OpenQuery, routes: Set[Route], now_ms: float) -> None:
        """A worker that read there died, and had this query: it may be one too many.

        Who waits for what it fetched does not wait for that any more.
        """
        with self._contained(open_query, now_ms):
            for layer in open_query.layers_at(routes):
                self._fetches.fail(open_query, layer, now_ms)
            if self.is_open(open_query.offset):
                self._advance(open_query, now_ms)

    def on_refused(self, offset: int, layers: Sequence[TaskLayer], why: str, now_ms: float) -> None:
        """The broker took no task for these."""
        open_query = self._open.get(offset) or self._lingering.get(offset)
        if open_query is not None:
            with self._contained(open_query, now_ms):
                results = [failed(layer, "error", why) for layer in layers]
                self.go_on(open_query, self.take(open_query, results, now_ms), now_ms)

    def give_up(self, open_query: OpenQuery, now_ms: float, error: Exception) -> None:
        """Handling a query raised this: it ends; one that is answered ends without a word."""
        if self.is_open(open_query.offset):
            self.drop(open_query.offset, now_ms)
            self._rejections.give_up(open_query.record, open_query.trace, error, now_ms)
        else:
            self._end_fetches(open_query, now_ms)

    def drop(self, offset: int, now_ms: float, running: Set[str] = frozenset()) -> None:
        """A query is over: nothing of it is left here, nor where it meets others.

        But what is `running` for it goes on if others wait for that.
        """
        open_query = self._open.pop(offset, None)
        self._unplanned.pop(offset, None)
        if open_query is None:
            return
        if now_ms >= open_query.deadline_ms:
            running = frozenset()
        awaited = self._fetches.leave(open_query, now_ms, running)
        self._dispatcher.forget(open_query, but=awaited)
        for layer in awaited:
            open_query.join.layers[layer].reopen()
        if awaited:
            self._lingering[offset] = open_query

    def shift(self, moved_ms: float, now_ms: float) -> None:
        """The broker's clock was set: every query keeps the time that it had left."""
        for open_query in self.fetching():
            open_query.shift(moved_ms, now_ms)

    def abandon(self, now_ms: float) -> None:
        """The partition is somebody else's: whatever was outstanding is forgotten."""
        for offset, open_query in list(self._open.items()):
            self.drop(offset, now_ms)
            open_query.trace.end("partition lost")
        for open_query in list(self._lingering.values()):
            self._end_fetches(open_query, now_ms)

    # ── details ────────────────────────────────────────────────────────────────────────────

    def _contained(self, open_query: OpenQuery, now_ms: float) -> contained:
        return contained(partial(self.give_up, open_query, now_ms))

    def _watch(self, open_query: OpenQuery, until_ms: float) -> None:
        self._deadlines.watch(until_ms, self._claim.number, open_query.offset)

    def _plan(self, open_query: OpenQuery, now_ms: float) -> None:
        if self._planner.plan(open_query, now_ms):
            del self._unplanned[open_query.offset]
            self._advance(open_query, now_ms)

    def _wake(self, open_query: OpenQuery, now_ms: float) -> None:
        """Its deadline has come, or it has waited long enough for more than enough."""
        if now_ms >= open_query.deadline_ms:
            open_query.join.expire()
            self._answer(open_query, now_ms)
        elif open_query.offset in self._unplanned:
            self._plan(open_query, now_ms)
        elif open_query.patient_until_ms is not None and now_ms >= open_query.patient_until_ms:
            self._advance(open_query, now_ms)

    def _advance(self, open_query: OpenQuery, now_ms: float) -> None:
        """Answer if there is enough; otherwise make the attempts that are due."""
        join = open_query.join
        if join.open and open_query.offset in self._unplanned:
            return
        while True:
            if join.open and self._is_enough(open_query, now_ms):
                join.abandon("enough came from the other layers")
            if not join.open:
                self._answer(open_query, now_ms)
                return
            if self._crashes.is_quarantined(open_query.digest, now_ms):
                self._quarantine(open_query, now_ms)
                return
            results = self._dispatcher.dispatch(open_query, self._claim, now_ms)
            if not results:
                return
            self._tell(open_query, self.take(open_query, results, now_ms), now_ms)

    def _is_enough(self, open_query: OpenQuery, now_ms: float) -> bool:
        """Coverage is met, and waiting for the rest does not pay any more."""
        before_ms = open_query.patient_until_ms
        enough = open_query.is_enough(now_ms)
        until_ms = open_query.patient_until_ms
        if until_ms is not None and until_ms != before_ms:
            self._watch(open_query, until_ms)
        return enough

    def _accept(self, open_query: OpenQuery, result: PartialResult, now_ms: float) -> bool:
        self._dispatcher.arrived(open_query, result)
        if result.status in ("ok", "error"):
            self._crashes.survived(open_query.digest, result.layer)
        return open_query.join.accept(result, now_ms)

    def _tell(self, open_query: OpenQuery, counted: Sequence[PartialResult], now_ms: float) -> None:
        """Those who wait for layers that are over now."""
        for result in counted:
            layer = open_query.join.layers[result.layer]
            if layer.status != "open" and open_query.leading.get(result.layer):
                self._fetches.finish(open_query, layer, now_ms)

    def _answer(self, open_query: OpenQuery, now_ms: float) -> None:
        """What can fail comes first: until the last line the query is open, and can be given up."""
        out = self._writer.write(open_query, self._claim, now_ms)
        self.drop(open_query.offset, now_ms, {layer for layer, _ in open_query.routes})
        self._outbox.answers.append(out)

    def _quarantine(self, open_query: OpenQuery, now_ms: float) -> None:
        self._crashes.gave_up(open_query.routes.values(), open_query.deadline_ms)
        self.drop(open_query.offset, now_ms)
        told = Error("quarantined", f"{DEATHS} workers died while they had this question")
        self._rejections.reject(
            open_query.record, open_query.trace, told, open_query.query.id, now_ms
        )

    def _end_fetches(self, lingering: OpenQuery, now_ms: float) -> None:
        """Nobody waits any more for what was fetched for a query that is answered."""
        self._lingering.pop(lingering.offset, None)
        self._dispatcher.forget(lingering)
        self._fetches.leave(lingering, now_ms)
