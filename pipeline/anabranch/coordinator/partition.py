"""One owned partition of `queries`: the whole life of a query, without I/O.

Records and ticks go in; tasks, answers and dead letters come out through the outbox. The path
of a query is `on_query` -> `planning.probe` -> `planning.plan` -> `_advance` -> `_answer`, with
`on_partial`, `on_served`, `on_leading` and `on_deadline` re-entering at `_advance`.
"""

from __future__ import annotations

import math
from collections.abc import Set

from msgspec import structs

from anabranch.aggregate.join import JoinLayer
from anabranch.coordinator.answering import attributes, compose, encode_bounded, failure
from anabranch.coordinator.brain import Brain
from anabranch.coordinator.cache_fold import fold_partial, memoise
from anabranch.coordinator.learning import lesson
from anabranch.coordinator.mortality import DEATHS
from anabranch.coordinator.open_query import OpenQuery, answer_headers
from anabranch.coordinator.outbox import AnswerOut, DeadLetterOut, TaskOut
from anabranch.coordinator.planning import choose_layers, plan, probe
from anabranch.coordinator.restored import Restored, SeenIds
from anabranch.coordinator.trial import MAX_TRIALS, Trials
from anabranch.dispatch.attempts import Attempt, next_attempts
from anabranch.dispatch.routing import Route
from anabranch.dispatch.tasks import bundle
from anabranch.errors import DecodeError, TopicError
from anabranch.events import (
    Error,
    ErrorCode,
    Partial,
    PartialResult,
    Query,
    decode,
    encode,
    read_id,
)
from anabranch.kafka.dead_letters import stack_digest
from anabranch.kafka.progress import Bounds, Progress, Window
from anabranch.kafka.transport import Committed, Record
from anabranch.observe.spans import Trace

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
        self._trials = Trials(progress, restored.end, brain.court)
        self._bounds = restored.bounds
        self._latest_ms = -math.inf
        self._open: dict[int, OpenQuery] = {}
        self._ids = SeenIds(brain.config.coordinator, restored.ids, brain.now_ms())
        for record, partial in restored.partials:
            fold_partial(brain, record, partial, None)
        restored.partials.clear()

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

    def sent_to(self, routes: Set[Route], until_ms: float) -> list[OpenQuery]:
        """Queries whose outstanding tasks somebody who reads there may have had by then."""
        return [
            open_query
            for open_query in self._open.values()
            if open_query.read_ms <= until_ms and not routes.isdisjoint(open_query.routes.values())
        ]

    def snapshot(self) -> Progress:
        """What to commit now."""
        return structs.replace(
            self._window.snapshot(self._bounds_at_reading(self._window.position)),
            epoch=self.epoch,
            takeovers=self.takeovers,
            trial=self._trials.offset,
            trials=self._trials.count,
        )

    # ── events ─────────────────────────────────────────────────────────────────────────────

    def on_query(self, record: Record) -> None:
        """A record of `queries`.

        Raises:
            TopicError: it is new and has an old offset.
        """
        if record.offset < self._window.position:
            if record.timestamp > self._latest_ms:
                raise TopicError(f"{record.topic}[{record.partition}] begins anew; restart")
            return
        self._latest_ms = max(self._latest_ms, record.timestamp)
        if self._window.is_done(record.offset) or self._restored.is_answered(record):
            self._window.skip(record.offset)
            self._restored.forget(record.offset)
            return
        self._brain.counters.queries += 1
        self._window.open(record.offset, self._bounds_at_reading(record.offset))
        if self._trials.suspects(record.offset):
            id_ = read_id(record.value)
            if id_ is not None:  # remembered now: a later repeat must not be taken for the first
                self._ids.is_repeat(id_, record.offset, self._brain.now_ms())
            self._trials.wait(record)
        else:
            self._read(record)

    def on_committed(self, progress: Progress) -> None:
        """The broker has the commit; a suspect that it names may be started."""
        suspect = self._trials.committed(progress)
        if suspect is None:
            return
        if self._trials.count > MAX_TRIALS:
            trace = self._brain.tracer.process(suspect, f"process {suspect.topic}")
            reason = f"it was on trial {MAX_TRIALS} times, and whoever started it died"
            self._reject(suspect, trace, "quarantined", reason, read_id(suspect.value))
        else:
            self._read(suspect)

    def on_partial(self, record: Record) -> None:
        """A record of `partials`, with what workers found."""
        self._bounds = Bounds(self._bounds.results, record.offset + 1)
        try:
            partial = decode(record.value, Partial)
        except DecodeError as error:
            self._brain.bury(record, error)
            return
        open_query = self._open.get(partial.offset)
        if open_query is not None and open_query.query.id != partial.query:
            open_query = None
        counted = [r for r in partial.results if open_query and self._accept(open_query, r)]
        fold_partial(self._brain, record, partial, open_query)
        if open_query is None and self._is_ahead(partial.offset):
            self._restored.arrive(partial)
        elif open_query is None:
            self._brain.counters.late_partials += 1
        elif counted:
            self._pass_on(open_query, counted)
            self._advance(open_query)

    def on_deadline(self, offset: int) -> None:
        """A time that a query waits for has come; nothing happens if it was answered."""
        open_query = self._open.get(offset)
        if open_query is None:
            return
        now_ms = self._brain.now_ms()
        if now_ms >= open_query.deadline_ms:
            open_query.join.expire()
            self._answer(open_query)
        elif open_query.patient_until_ms is not None and now_ms >= open_query.patient_until_ms:
            self._advance(open_query)

    def on_served(self, offset: int, layer: JoinLayer) -> None:
        """Another query's fetch brought a layer that this one waits for."""
        open_query = self._open.get(offset)
        if open_query is not None:
            open_query.join.layers[layer.name].share(layer)
            self._advance(open_query)

    def on_leading(self, offset: int, layer: str) -> None:
        """The query that fetched for this one is gone: it fetches itself."""
        open_query = self._open.get(offset)
        if open_query is not None:
            open_query.join.layers[layer].attempts.clear()
            open_query.leading[layer] = True
            self._advance(open_query)

    def on_death(self, offset: int) -> None:
        """A worker died that had this query: it may be one too many."""
        open_query = self._open.get(offset)
        if open_query is not None:
            self._advance(open_query)

    def on_acked(self, offset: int, results_offset: int | None) -> None:
        """The broker has the answer (at `results_offset`), or none was owed."""
        self._window.complete(offset)
        self._trials.survived(offset)
        self.takeovers = 0
        if results_offset is None:
            return
        self._brain.counters.answered += 1
        if results_offset >= self._bounds.results:
            self._bounds = Bounds(results_offset + 1, self._bounds.partials)

    def release(self) -> None:
        """It is ours after all: what became ready meanwhile goes out."""
        self.held = False
        self._brain.outbox.answers += self.deferred
        self.deferred = []

    def abandon(self) -> None:
        """Somebody else's now: whatever was outstanding is forgotten."""
        self.lost = True
        self._trials.adjourn()
        for open_query in list(self._open.values()):
            self._forget(open_query)
            open_query.trace.end("partition lost")

    # ── the path of a query ────────────────────────────────────────────────────────────────

    def _read(self, record: Record) -> None:
        brain, now_ms = self._brain, self._brain.now_ms()
        trace = brain.tracer.process(record, f"process {record.topic}")
        try:
            query = brain.intake.read(record)
        except DecodeError as error:
            stack = stack_digest(error)
            self._reject(record, trace, "invalid_query", str(error), error.query_id, stack)
            return
        if self._ids.is_repeat(query.id, record.offset, now_ms):
            brain.counters.duplicates += 1
            self._restored.forget(record.offset)
            trace.end()
            self.on_acked(record.offset, None)
            return
        self._start(query, record, trace, now_ms)

    def _start(self, query: Query, record: Record, trace: Trace, now_ms: float) -> None:
        brain = self._brain
        open_query = OpenQuery(
            query,
            record,
            trace,
            choose_layers(brain, query),
            read_ms=now_ms,
            deadline_ms=brain.intake.deadline_ms(query, record, now_ms),
        )
        self._open[record.offset] = open_query
        probe(brain, open_query, now_ms)
        plan(brain, open_query, now_ms)
        for result in self._restored.arrived(record.offset, query.id):
            open_query.join.accept(result, now_ms)
        if now_ms >= open_query.deadline_ms:
            open_query.join.expire()
        elif open_query.join.open:
            brain.deadlines.add(open_query.deadline_ms, self.number, record.offset)
        self._advance(open_query)

    def _advance(self, open_query: OpenQuery) -> None:
        """Answer if there is enough; otherwise make the attempts that are due."""
        join = open_query.join
        if join.open and self._is_enough(open_query):
            join.abandon("enough came from the other layers")
        if not join.open:
            self._answer(open_query)
            return
        now_ms = self._brain.now_ms()
        if self._brain.mortality.condemns(open_query.key, now_ms):
            self._condemn(open_query)
            return
        mine = [a for a in next_attempts(join, self.epoch) if self._leads(open_query, a, now_ms)]
        for group, attempts in bundle(mine):
            self._send(open_query, group, attempts)

    def _is_enough(self, open_query: OpenQuery) -> bool:
        """Coverage is met, and waiting for the rest does not pay any more."""
        before_ms = open_query.patient_until_ms
        enough = open_query.is_enough(self._brain.now_ms())
        until_ms = open_query.patient_until_ms
        if until_ms is not None and until_ms != before_ms:
            self._brain.deadlines.add(until_ms, self.number, open_query.offset)
        return enough

    def _leads(self, open_query: OpenQuery, attempt: Attempt, now_ms: float) -> bool:
        """Single-flight: the first attempt of a layer meets those of other queries."""
        name = attempt.layer.name
        if attempt.layer.refreshing:
            return True
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
        task = encode(open_query.task(attempts))
        topic = brain.topics.tasks(group, open_query.query.priority)
        brain.outbox.tasks.append(TaskOut(topic, partition, task, open_query.headers))

    def _answer(self, open_query: OpenQuery) -> None:
        brain, query = self._brain, open_query.query
        now_ms = brain.now_ms()
        answer = compose(brain, open_query, epoch=self.epoch, now_ms=now_ms)
        memoise(brain, open_query, answer)
        self._forget(open_query)
        if answer.status == "complete":
            brain.mortality.survived(open_query.key)
        learned = lesson(open_query, answer, now_ms, brain.selector.telemetry.speedups)
        if learned is not None:
            brain.selector.observe(learned)
        open_query.trace.set(attributes(answer))
        open_query.trace.end(answer.error.message if answer.error else None)
        brain.outbox.answers.append(
            AnswerOut(
                self,
                open_query.offset,
                query.id.encode(),
                encode_bounded(answer),
                open_query.headers,
                query.reply_to,
            )
        )

    def _condemn(self, open_query: OpenQuery) -> None:
        self._forget(open_query)
        self._brain.mortality.gave_up(open_query.routes.values(), open_query.deadline_ms)
        reason = f"{DEATHS} workers died while they had this question"
        id_ = open_query.query.id
        self._reject(open_query.record, open_query.trace, "quarantined", reason, id_)

    # ── details ────────────────────────────────────────────────────────────────────────────

    def _accept(self, open_query: OpenQuery, result: PartialResult) -> bool:
        route = open_query.routes.pop((result.layer, result.shard), None)
        if route is not None:
            self._brain.outstanding.ended(*route)
        return open_query.join.accept(result, self._brain.now_ms())

    def _pass_on(self, open_query: OpenQuery, results: list[PartialResult]) -> None:
        """Tell those who wait for what this query fetched."""
        for result in results:
            layer = open_query.join.layers[result.layer]
            if layer.status != "open" and open_query.leading.get(result.layer):
                self._brain.sharing.ended(open_query, layer, self._brain.now_ms())

    def _reject(
        self,
        record: Record,
        trace: Trace,
        code: ErrorCode,
        reason: str,
        id_: str | None,
        stack: str = "",
    ) -> None:
        """A dead letter, then a failed answer if somebody can be told."""
        brain = self._brain
        brain.counters.rejected += 1
        brain.counters.dead_letters += 1
        trace.end(reason)
        answer = None
        if id_ is not None and not self._ids.is_repeat(id_, record.offset, brain.now_ms()):
            failed = failure(id_, Error(code, reason), epoch=self.epoch, trace_id=trace.trace_id)
            headers = answer_headers(record, trace)
            answer = AnswerOut(self, record.offset, id_.encode(), encode(failed), headers)
        brain.outbox.dead_letters.append(DeadLetterOut(record, reason, stack, self, answer))

    def _forget(self, open_query: OpenQuery) -> None:
        del self._open[open_query.offset]
        for route in open_query.routes.values():
            self._brain.outstanding.ended(*route)
        if open_query.leading:
            self._brain.sharing.left(open_query, self._brain.now_ms())

    def _is_ahead(self, offset: int) -> bool:
        """Whether a partial is for a query that is still to be read (again): a takeover."""
        position = self._window.position
        return position <= offset < position + self._brain.config.coordinator.max_open_queries

    def _bounds_at_reading(self, offset: int) -> Bounds:
        """Restored queries inherit the bounds under which they were first read."""
        return self._restored.bounds_at(offset) or self._bounds
