"""One owned partition of `queries`: its records, and how far it is, without I/O.

Records and ticks go in; tasks, answers and dead letters come out through the outbox. What becomes
of a query between its reading and its answer is `open_queries`.
"""

from __future__ import annotations

from msgspec import structs

from anabranch.contract.codec import decode, encode, read_id
from anabranch.contract.events import Error, Partial
from anabranch.coordinator.partitions.progress import Bounds, Mark, Progress, Window
from anabranch.coordinator.partitions.restored import Restored, SeenIds
from anabranch.coordinator.partitions.stamps import Stamps
from anabranch.coordinator.query.answering import failure
from anabranch.coordinator.query.brain import Brain
from anabranch.coordinator.query.cache_fill import cache_partial
from anabranch.coordinator.query.open_queries import OpenQueries
from anabranch.coordinator.query.open_query import OpenQuery, answer_headers
from anabranch.coordinator.query.outbox import AnswerOut, DeadLetterOut
from anabranch.coordinator.query.suspects import MAX_TRIALS, Trials
from anabranch.errors import DecodeError, TopicError
from anabranch.kafka.dead_letters import stack_digest
from anabranch.kafka.transport import Committed, Record
from anabranch.observe.spans import Trace
from anabranch.runtime.containment import contained, describe

__all__ = ["QueryPartition"]


class QueryPartition:
    """Partition `number` of `queries`, in this coordinator's hands."""

    def __init__(self, number: int, brain: Brain, restored: Restored) -> None:
        progress = restored.progress
        self.number = number
        self.epoch = progress.epoch
        self.takeovers = progress.takeovers
        self.held = False
        """True between revocation and confirmed return: nothing is answered or committed."""
        self.lost = False
        """True once it is somebody else's."""
        self.full = False
        """True while its window does not fit into a commit's metadata: nothing more is read."""
        self.deferred: list[AnswerOut] = []
        """Answers that became ready while held."""
        self.written: Committed | None = None
        """What this instance committed last."""
        self._brain = brain
        self._restored = restored
        self._window = Window(progress.offset, progress.completed)
        self._trials = Trials(
            progress, restored.end, brain.court, brain.config.coordinator.max_open_queries
        )
        self._bounds = restored.bounds
        self._oldest: int | None = None
        """The first query that was open here."""
        self._latest: Record | None = None
        self.stamps = Stamps(progress.stamps_ms)
        self.queries = OpenQueries(self, brain)
        self._ids = SeenIds(brain.config.coordinator, restored.ids(brain.now_ms()))

    # ── what the shell asks ────────────────────────────────────────────────────────────────

    @property
    def open_count(self) -> int:
        """Queries read and not yet acknowledged."""
        return len(self._window)

    @property
    def position(self) -> int:
        """The next offset of `queries` to read."""
        return self._window.position

    @property
    def partials_position(self) -> int:
        """The next offset of `partials` to read."""
        return self._bounds.partials

    def snapshot(self) -> Progress:
        """What to commit now."""
        trial, trials, group = self._trials.fate
        return structs.replace(
            self._window.snapshot(self._bounds_at_reading(self._window.position)),
            epoch=self.epoch,
            takeovers=self.takeovers,
            trial=trial,
            trials=trials,
            group=group,
            mark=self._mark(),
            stamps_ms=round(self.stamps.behind_ms),
        )

    def shift(self, moved_ms: float) -> None:
        """The broker's clock was set by so much."""
        self.queries.shift(moved_ms, self._brain.now_ms())
        self._ids.shift(moved_ms)
        self.stamps.shift(moved_ms)

    # ── events ─────────────────────────────────────────────────────────────────────────────

    def on_query(self, record: Record) -> None:
        """A record of `queries`.

        Raises:
            TopicError: its offset was read before: the log lost its tail, or was made anew.
        """
        if record.offset < self._window.position:
            raise TopicError(
                f"{record.topic}[{record.partition}] goes on at {record.offset}, but was read up "
                f"to {self._window.position}"
            )
        if record.error is None:
            self._latest = record
        if self._window.is_done(record.offset) or self._restored.is_answered(record):
            self._window.skip(record.offset)
            self._restored.forget(record.offset)
            self._remember(record)
            return
        self._brain.counters.queries += 1
        if self._oldest is None:
            self._oldest = record.offset
        self._window.open(record.offset, self._bounds_at_reading(record.offset))
        if self._trials.suspects(record.offset):
            self._remember(record)
            self._trials.wait(record)
        else:
            self._read(record)

    def on_committed(self, progress: Progress) -> None:
        """The broker has the commit; suspects that it names may be started."""
        is_over = self._trials.is_over
        for suspect in self._trials.committed(progress):
            if is_over:
                trace = self._brain.tracer.process(suspect, f"process {suspect.topic}")
                reason = f"it was on trial {MAX_TRIALS} times, and whoever started it died"
                self.reject(suspect, trace, Error("quarantined", reason), read_id(suspect.value))
            else:
                self._read(suspect)

    def on_partial(self, record: Record) -> None:
        """A record of `partials`, with what workers found."""
        self._ended(Bounds(self._bounds.results, record.offset + 1))
        found: OpenQuery | None = None

        def spoiled(error: Exception) -> None:
            self._brain.bury(record, error)
            if found is not None:
                self.queries.give_up(found, error)

        with contained(spoiled):
            partial = decode(record.value, Partial)
            found = self.queries.find(partial.offset, partial.query)
            self._take(record, partial, found)
        self._brain.sharing.settle()

    def on_acked(self, offset: int, results_offset: int | None) -> None:
        """The broker has the answer (at `results_offset`), or none was owed."""
        self._window.complete(offset)
        self._brain.load.remove(self, offset)
        self._trials.survived(offset)
        if offset == self._oldest:  # what is answered beside it says nothing of it
            self.takeovers = 0
        if results_offset is None:
            return
        self._brain.counters.answered += 1
        self._ended(Bounds(results_offset + 1, self._bounds.partials))

    def calm(self) -> None:
        """Whoever comes next does not come because we died."""
        self.takeovers = 0
        self._trials.excuse()

    def release(self) -> None:
        """It is ours after all: what became ready meanwhile goes out."""
        self.held = False
        self._brain.outbox.answers += self.deferred
        self.deferred = []

    def abandon(self) -> None:
        """Somebody else's now: whatever was outstanding is forgotten."""
        self.lost = True
        self._brain.load.drop(self)
        self._trials.abandon()
        self.queries.abandon()

    # ── queries that come to nothing ───────────────────────────────────────────────────────

    def give_up(self, record: Record, trace: Trace, error: Exception) -> None:
        """Handling a query raised this: it is taken out whole, wherever it stood."""
        self.queries.drop(record.offset)
        self._restored.forget(record.offset)
        stack = stack_digest(error)
        told = Error("internal", f"the coordinator failed on it; its dead letter has stack {stack}")
        if isinstance(error, DecodeError):
            told = Error("invalid_query", str(error))
        self.reject(record, trace, told, read_id(record.value), describe(error), stack)

    def reject(
        self,
        record: Record,
        trace: Trace,
        told: Error,
        id_: str | None,
        reason: str = "",
        stack: str = "",
    ) -> None:
        """A dead letter, then a failed answer if somebody can be told.

        Args:
            reason: what operators read of it, if that is more.
        """
        brain, reason = self._brain, reason or told.message
        brain.counters.rejected += 1
        brain.counters.dead_letters += 1
        trace.end(reason)
        answer = None
        if id_ is not None and not self._ids.is_repeat(id_, record.offset, brain.now_ms()):
            failed = failure(id_, told, epoch=self.epoch, trace_id=trace.trace_id)
            headers = answer_headers(record, trace)
            answer = AnswerOut(self, record.offset, id_.encode(), encode(failed), headers)
        brain.outbox.dead_letters.append(DeadLetterOut(record, reason, stack, self, answer))

    # ── details ────────────────────────────────────────────────────────────────────────────

    def _take(self, record: Record, partial: Partial, found: OpenQuery | None) -> None:
        """Keep what a partial brought, and go on with the query that it belongs to."""
        counted = self.queries.take(found, partial.results) if found else []
        if counted and self.queries.is_open(partial.offset):  # what is held, not what is said again
            self._brain.load.add(self, partial.offset, len(record.value or b""))
        cache_partial(self._brain, record, partial, found)
        if found is None and self._is_ahead(partial.offset):
            self._restored.arrive(record, partial)
        elif found is None:
            self._brain.counters.late_partials += 1
        elif counted:
            self.queries.go_on(found, counted)

    def _remember(self, record: Record) -> None:
        """A later repeat must not be taken for the first, though nothing is done here (yet)."""
        id_ = read_id(record.value)
        if id_ is not None:
            self._ids.is_repeat(id_, record.offset, self._brain.now_ms())

    def _read(self, record: Record) -> None:
        """Read a query and start on it."""
        trace = Trace((), None)
        with contained(lambda error: self.give_up(record, trace, error)):
            trace = self._brain.tracer.process(record, f"process {record.topic}")
            self._ask(record, trace)
        self._brain.sharing.settle()

    def _ask(self, record: Record, trace: Trace) -> None:
        brain, now_ms = self._brain, self._brain.now_ms()
        brain.load.add(self, record.offset, len(record.value or b""))
        try:
            query = brain.intake.read(record)
        except DecodeError as error:
            told = Error("invalid_query", str(error))
            self.reject(record, trace, told, error.query_id, stack=stack_digest(error))
            return
        if self._ids.is_repeat(query.id, record.offset, now_ms):
            brain.counters.duplicates += 1
            self._restored.forget(record.offset)
            trace.end()
            self.on_acked(record.offset, None)
            return
        arrived = self._restored.arrived(record.offset, query.id)
        asked_ms = self.stamps.asked_ms(record, now_ms)
        self.queries.start(query, record, trace, asked_ms, now_ms, arrived)

    def _is_ahead(self, offset: int) -> bool:
        """Whether a partial is for a query that is still to be read (again): a takeover."""
        position = self._window.position
        return position <= offset < position + self._brain.config.coordinator.max_open_queries

    def _ended(self, bounds: Bounds) -> None:
        """`results` and `partials` were seen to end there; lower than before is a lost tail."""
        if bounds.lowered(self._bounds) != self._bounds:
            self._window.lower(bounds)
            self._restored.lower(bounds)
        self._bounds = bounds

    def _mark(self) -> Mark | None:
        """Of the last query that was read, by the owner before if it was further."""
        before, latest = self._restored.progress.mark, self._latest
        if latest is None or (before is not None and before.offset > latest.offset):
            return before
        return Mark.of(latest)

    def _bounds_at_reading(self, offset: int) -> Bounds:
        """Restored queries inherit the bounds under which they were first read."""
        return self._restored.bounds_at(offset) or self._bounds
