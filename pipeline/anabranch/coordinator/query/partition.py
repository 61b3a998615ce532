"""One owned partition of `queries`: its records in, effects out, without I/O.

Records and ticks go in; tasks, answers and dead letters come out through the outbox. What becomes
of a query between its reading and its answer is `open_queries`; how far the partition is,
`progress.tracker`.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from anabranch.contract.codec import decode_partial, read_id
from anabranch.contract.events import Error, Partial, TaskLayer
from anabranch.coordinator.progress.dedupe_window import DedupeWindow
from anabranch.coordinator.progress.suspects import MAX_TRIALS
from anabranch.coordinator.progress.tracker import ProgressTracker
from anabranch.coordinator.progress.window import Progress
from anabranch.coordinator.query.admission import Admission
from anabranch.coordinator.query.cache_fill import CacheFill
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.counters import Counters
from anabranch.coordinator.query.flights import SharedFetches
from anabranch.coordinator.query.open_queries import OpenQueries
from anabranch.coordinator.query.open_query import OpenQuery
from anabranch.coordinator.query.outbox import AnswerOut, Outbox
from anabranch.coordinator.query.rejections import Rejections
from anabranch.dispatch.intake import Intake
from anabranch.dispatch.routing import Route
from anabranch.kafka.transport import Committed, Record
from anabranch.observe.spans import Trace, Tracer
from anabranch.runtime.containment import contained

__all__ = ["QueryPartition"]


class QueryPartition:
    """A partition of `queries` in this coordinator's hands."""

    def __init__(
        self,
        claim: Claim,
        progress: ProgressTracker,
        ids: DedupeWindow,
        queries: OpenQueries,
        rejections: Rejections,
        intake: Intake,
        tracer: Tracer,
        admission: Admission,
        cache_fill: CacheFill,
        fetches: SharedFetches,
        outbox: Outbox,
        counters: Counters,
    ) -> None:
        self.claim = claim
        self.number = claim.number
        self.progress = progress
        self.held = False
        """True between revocation and confirmed return: nothing is answered or committed."""
        self.full = False
        """True while its window does not fit into a commit's metadata: nothing more is read."""
        self.deferred: list[AnswerOut] = []
        """Answers that became ready while held."""
        self.written: Committed | None = None
        """What this instance committed last."""
        self.queries = queries
        self._repeats: dict[int, list[int]] = {}
        """Of queries that are open, by the offset of the first."""
        self._ids = ids
        self._rejections = rejections
        self._intake = intake
        self._tracer = tracer
        self._admission = admission
        self._cache_fill = cache_fill
        self._fetches = fetches
        self._outbox = outbox
        self._counters = counters

    # ── events; what they bring to other queries is told at their end ──────────────────────

    def on_query(self, record: Record, now_ms: float) -> None:
        """A record of `queries`.

        Raises:
            TopicError: its offset was read before: the log lost its tail, or was made anew.
        """
        if not self.progress.read(record):
            self._remember(record, now_ms)
            return
        self._counters.queries += 1
        if self.progress.suspects.must_wait(record.offset):
            self._remember(record, now_ms)
            self.progress.suspects.hold_back(record)
        else:
            self._read(record, now_ms)

    def on_partial(self, record: Record, now_ms: float) -> None:
        """A record of `partials`, with what workers found."""
        self.progress.saw_partials(record.offset + 1)
        found: OpenQuery | None = None

        def spoiled(error: Exception) -> None:
            self._outbox.unreadable(record, error)
            if found is not None:
                self.queries.give_up(found, now_ms, error)

        with contained(spoiled):
            partial = decode_partial(record.value)
            found = self.queries.find(partial.offset, partial.query)
            self._take(record, partial, found, now_ms)
        self._fetches.drain(now_ms)

    def on_deadline(self, offset: int, now_ms: float) -> None:
        """A time that a query waits for has come."""
        self.queries.on_deadline(offset, now_ms)
        self._fetches.drain(now_ms)

    def on_health(self, now_ms: float) -> None:
        """Layers may have been announced, or the time for that may be over."""
        self.queries.on_health(now_ms)
        self._fetches.drain(now_ms)

    def on_death(self, open_query: OpenQuery, routes: Set[Route], now_ms: float) -> None:
        """A worker that read there died, and had this query."""
        self.queries.on_death(open_query, routes, now_ms)
        self._fetches.drain(now_ms)

    def on_refused(self, offset: int, layers: Sequence[TaskLayer], why: str, now_ms: float) -> None:
        """The broker took no task for these layers of a query."""
        self.queries.on_refused(offset, layers, why, now_ms)
        self._fetches.drain(now_ms)

    def on_committed(self, progress: Progress, now_ms: float) -> None:
        """The broker has the commit; suspects that it names may be started."""
        is_exhausted = self.progress.suspects.is_exhausted
        for suspect in self.progress.suspects.to_start(progress):
            if is_exhausted:
                self._quarantine(suspect, now_ms)
            else:
                self._read(suspect, now_ms)

    def on_acked(self, offset: int, results_offset: int | None) -> None:
        """The broker has the answer (at `results_offset`), or none was owed."""
        done = [offset]
        for each in done:
            self._admission.remove(self.claim, each)
            self.progress.complete(each)
            done += self._repeats.pop(each, ())
        if results_offset is not None:
            self._counters.answered += 1
            self.progress.saw_results(results_offset + 1)

    def release(self) -> None:
        """It is ours after all: what became ready meanwhile goes out."""
        self.held = False
        self.progress.goes_unread()
        self._outbox.answers += self.deferred
        self.deferred = []

    def abandon(self, now_ms: float) -> None:
        """Somebody else's now: whatever was outstanding is forgotten."""
        self._admission.drop(self.claim)
        self.progress.suspects.abandon()
        self.queries.abandon(now_ms)
        self._fetches.drain(now_ms)

    def shift(self, moved_ms: float, now_ms: float) -> None:
        """The broker's clock was set by so much."""
        self.queries.shift(moved_ms, now_ms)
        self._ids.shift(moved_ms)
        self.progress.stamps.shift(moved_ms)

    # ── details ────────────────────────────────────────────────────────────────────────────

    def _read(self, record: Record, now_ms: float) -> None:
        """Read a query and start on it."""
        trace = Trace((), None)

        def spoiled(error: Exception) -> None:
            self.queries.drop(record.offset, now_ms)
            self.progress.restored.forget(record.offset)
            self._rejections.give_up(record, trace, error, now_ms)

        with contained(spoiled):
            trace = self._tracer.process(record, f"process {record.topic}")
            self._ask(record, trace, now_ms)
        self._fetches.drain(now_ms)

    def _ask(self, record: Record, trace: Trace, now_ms: float) -> None:
        self._admission.grow(self.claim, record.offset, len(record.value or b""))
        query = self._intake.read(record)
        restored = self.progress.restored
        if self._ids.is_repeat(query.id, record.offset, now_ms):
            self._counters.duplicates += 1
            restored.forget(record.offset)
            trace.end()
            self._repeat(record.offset, self._ids.first(query.id))
            return
        arrived = restored.arrived(record.offset, query.id)
        asked_ms = self.progress.stamps.asked_ms(record, now_ms)
        self.queries.start(query, record, trace, asked_ms, now_ms, arrived)

    def _repeat(self, offset: int, first: int) -> None:
        """A repeat is done when its first is: retention may take that one before it is answered."""
        if first < offset and self.progress.is_open(first):
            self._repeats.setdefault(first, []).append(offset)
        else:
            self.on_acked(offset, None)

    def _take(
        self, record: Record, partial: Partial, found: OpenQuery | None, now_ms: float
    ) -> None:
        """Keep what a partial brought, and go on with the query that it belongs to."""
        counted = self.queries.take(found, partial.results, now_ms) if found else []
        if counted and self.queries.is_open(partial.offset):  # what is held, not what is said again
            self._admission.grow(self.claim, partial.offset, len(record.value or b""))
        self._cache_fill.partial(record, partial, found, now_ms)
        if found is None and self.progress.is_ahead(partial.offset):
            self.progress.restored.arrive(record, partial)
        elif found is None:
            self._counters.late_partials += 1
        elif counted:
            self.queries.go_on(found, counted, now_ms)

    def _quarantine(self, suspect: Record, now_ms: float) -> None:
        trace = self._tracer.process(suspect, f"process {suspect.topic}")
        reason = f"it was on trial {MAX_TRIALS} times, and whoever started it died"
        told, id_ = Error("quarantined", reason), read_id(suspect.value)
        self._rejections.reject(suspect, trace, told, id_, now_ms)

    def _remember(self, record: Record, now_ms: float) -> None:
        """A later repeat must not be taken for the first, though nothing is done here (yet)."""
        id_ = read_id(record.value)
        if id_ is not None:
            self._ids.is_repeat(id_, record.offset, now_ms)
