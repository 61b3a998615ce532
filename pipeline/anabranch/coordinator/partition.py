"""One owned partition of `queries`: the whole life of a query, without I/O.

Records and ticks go in; tasks, answers and dead letters come out through the outbox. The path
of a query through this file is `on_query` -> `_probe` -> `_plan` -> `_advance` -> `_answer`,
with `on_partial` and `on_deadline` re-entering at `_advance`.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable

from anabranch.aggregate.coverage import enough
from anabranch.cache.cross_layer_cache import Slot
from anabranch.cache.keys import make_key
from anabranch.coordinator.answering import compose, encode_bounded, failure
from anabranch.coordinator.brain import Brain
from anabranch.coordinator.learning import lesson
from anabranch.coordinator.open_query import OpenQuery, answer_headers
from anabranch.coordinator.outbox import AnswerOut, DeadLetterOut, TaskOut
from anabranch.dispatch.attempts import Attempt, next_attempts
from anabranch.dispatch.tasks import bundle, task_layers
from anabranch.errors import DecodeError
from anabranch.events import (
    Answer,
    Error,
    Partial,
    PartialResult,
    Query,
    Task,
    decode,
    digest,
    encode,
)
from anabranch.kafka.progress import Bounds, Progress, Window
from anabranch.kafka.transport import Committed, Record
from anabranch.observe.spans import Trace
from anabranch.select.decision import PlanContext

__all__ = ["QueryPartition", "Restored"]

log = logging.getLogger(__name__)


class Restored:
    """What a takeover read back: where to start, what is answered, what has arrived."""

    def __init__(self, progress: Progress, bounds: Bounds) -> None:
        self.progress = progress
        self.bounds = bounds
        """Ends of results and partials when the reading stopped."""
        self.answered: set[int] = set(progress.completed)
        self.ids: list[str] = []
        self.arrived: dict[int, list[PartialResult]] = {}
        self.partials: list[tuple[Record, Partial]] = []
        """What fills the cache again."""


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
        self.deferred: list[AnswerOut] = []
        """Answers that became ready while held."""
        self.written: Committed | None = None
        """What this instance committed last."""
        self._brain = brain
        self._window = Window(progress.offset, restored.answered)
        self._inherited = progress.bounds or Bounds()
        self._bounds = restored.bounds
        self._restored_up_to = max(restored.answered | set(restored.arrived), default=-1)
        self._arrived = restored.arrived
        self._open: dict[int, OpenQuery] = {}
        self._ids: OrderedDict[str, tuple[float, int]] = OrderedDict(
            (id_, (brain.now_ms(), -1)) for id_ in restored.ids
        )
        for record, partial in restored.partials:
            self._remember(partial, record, partial.results)

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
        here = self._bounds_at_reading(self._window.position)
        return self._window.snapshot(here, self.epoch, self.takeovers)

    # ── events ─────────────────────────────────────────────────────────────────────────────

    def on_query(self, record: Record) -> None:
        """A record of `queries`."""
        if record.offset < self._window.position:
            return
        if self._window.is_done(record.offset):
            self._window.skip(record.offset)
            return
        brain = self._brain
        brain.counters.queries += 1
        now_ms = brain.now_ms()
        trace = brain.tracer.process(record, f"process {record.topic}")
        try:
            query = brain.intake.read(record)
        except DecodeError as error:
            self._reject(record, trace, error)
            return
        if self._is_repeat(query.id, record.offset, now_ms):
            brain.counters.duplicates += 1
            self._window.skip(record.offset)
            trace.end()
            return
        self._window.open(record.offset, self._bounds_at_reading(record.offset))
        self._start(query, record, trace, now_ms)

    def on_partial(self, record: Record) -> None:
        """A record of `partials`, with what workers found."""
        self._bounds = Bounds(self._bounds.results, record.offset + 1)
        try:
            partial = decode(record.value, Partial)
        except DecodeError as error:
            self._brain.counters.dead_letters += 1
            self._brain.outbox.dead_letters.append(DeadLetterOut(record, str(error)))
            return
        open_query = self._open.get(partial.offset)
        if open_query is not None and open_query.query.id == partial.query:
            counted = [result for result in partial.results if self._accept(open_query, result)]
            self._remember(partial, record, counted or partial.results)
            if counted:
                self._advance(open_query)
            return
        if partial.offset >= self._window.position:
            self._arrived.setdefault(partial.offset, []).extend(partial.results)
        else:
            self._brain.counters.late_partials += 1
        self._remember(partial, record, partial.results)

    def on_deadline(self, offset: int) -> None:
        """The deadline of a query has come; nothing happens if it was answered."""
        open_query = self._open.get(offset)
        if open_query is not None:
            open_query.join.expire()
            self._answer(open_query)

    def on_acked(self, offset: int, results_offset: int | None) -> None:
        """The broker has the answer (at `results_offset`), or none was owed."""
        self._window.complete(offset)
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
        for open_query in list(self._open.values()):
            self._forget(open_query)
            open_query.trace.end("partition lost")

    # ── the path of a query ────────────────────────────────────────────────────────────────

    def _start(self, query: Query, record: Record, trace: Trace, now_ms: float) -> None:
        brain = self._brain
        open_query = OpenQuery(
            query,
            record,
            trace,
            brain.intake.layers(query),
            read_ms=now_ms,
            deadline_ms=brain.intake.deadline_ms(query, record, now_ms),
        )
        self._open[record.offset] = open_query
        self._probe(open_query, now_ms)
        self._plan(open_query, now_ms)
        for result in self._arrived.pop(record.offset, ()):
            open_query.join.accept(result, now_ms)
        if now_ms >= open_query.deadline_ms:
            open_query.join.expire()
        else:
            brain.deadlines.add(open_query.deadline_ms, self.number, record.offset)
        self._advance(open_query)

    def _probe(self, open_query: OpenQuery, now_ms: float) -> None:
        """Serve what the cache has; rule 5: before anything is chosen."""
        query, brain = open_query.query, self._brain
        kind = brain.config.types.get(query.type)
        open_query.generation = brain.control_position
        open_query.key = make_key(
            query.type, query.scope, query.params, kind.key_params if kind else None
        )
        probe = brain.cache.probe(
            open_query.key,
            tuple(open_query.join.layers),
            limit=query.limit,
            max_age_ms=query.max_age_ms,
            now_ms=now_ms,
        )
        for name, slot in probe.hits.items():
            open_query.join.layers[name].serve(
                slot.items, complete=slot.complete, age_ms=max(0, int(now_ms - slot.stored_ms))
            )

    def _plan(self, open_query: OpenQuery, now_ms: float) -> None:
        """Decide how the missing layers are fetched."""
        brain, query, join = self._brain, open_query.query, open_query.join
        known = [(layer, brain.directory.descriptor(layer.name)) for layer in join.open]
        for layer, descriptor in known:
            if descriptor is None:
                layer.end("skipped", "no worker has announced this layer")
        missing = tuple(descriptor for _, descriptor in known if descriptor is not None)
        if not missing and not join.ok:
            return
        context = open_query.context = PlanContext(
            query=query.id,
            type=query.type,
            wanted=tuple(join.layers),
            cached=tuple(name for name, layer in join.layers.items() if layer.status == "ok"),
            missing=missing,
            groups=brain.directory.loads({d.group for d in missing}, now_ms),
            strategy=query.strategy,
            min_coverage=query.min_coverage,
            remaining_ms=open_query.deadline_ms - now_ms,
        )
        decision = open_query.decision = brain.selector.decide(context)
        for descriptor in missing:
            layer = join.layers[descriptor.layer]
            arm = decision.arms.get(descriptor.group)
            if arm is None:
                layer.end("skipped", "not in the cache, and nothing else was to be asked")
            else:
                layer.plan(arm, descriptor.group, descriptor.shards)
        if decision.strategy == "sequential":
            join.sequence = decision.order
        if any(layer.source != "none" for layer in join.open):
            open_query.digest = digest(query.type, query.scope, self._key_params(query))

    def _advance(self, open_query: OpenQuery) -> None:
        """Answer if there is enough; otherwise make the attempts that are due."""
        join, query = open_query.join, open_query.query
        open_layers = join.open
        if open_layers and self._is_enough(open_query):
            join.abandon("enough came from the other layers")
            open_layers = []
        if not open_layers:
            self._answer(open_query)
            return
        for group, attempts in bundle(next_attempts(join, self.epoch)):
            self._send(open_query, query, group, attempts)

    def _is_enough(self, open_query: OpenQuery) -> bool:
        join, query = open_query.join, open_query.query
        if not enough(join.ok, len(join.layers), query.min_coverage):
            return False
        return not join.sequence or join.found() >= query.limit

    def _send(
        self, open_query: OpenQuery, query: Query, group: str, attempts: list[Attempt]
    ) -> None:
        brain = self._brain
        partition = brain.outstanding.choose(group, brain.directory.partitions(group))
        for attempt in attempts:
            route = (attempt.layer.name, attempt.shard)
            brain.outstanding.sent(group, partition)
            open_query.routes[route] = (group, partition)
        task = Task(
            query=query.id,
            partition=self.number,
            offset=open_query.offset,
            type=query.type,
            params=query.params,
            scope=query.scope,
            limit=query.limit,
            deadline_ms=int(open_query.deadline_ms),
            layers=task_layers(attempts),
            key=open_query.digest,
            generation=open_query.generation,
        )
        topic = brain.topics.tasks(group, query.priority)
        brain.outbox.tasks.append(TaskOut(topic, partition, encode(task), open_query.headers))

    def _answer(self, open_query: OpenQuery) -> None:
        brain, query = self._brain, open_query.query
        now_ms = brain.now_ms()
        answer = compose(
            open_query,
            brain.aggregator,
            brain.config.types.get(query.type),
            epoch=self.epoch,
            now_ms=now_ms,
        )
        self._forget(open_query)
        learned = lesson(open_query, answer, now_ms)
        if learned is not None:
            brain.selector.observe(learned)
        open_query.trace.set(_attributes(answer))
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

    # ── details ────────────────────────────────────────────────────────────────────────────

    def _accept(self, open_query: OpenQuery, result: PartialResult) -> bool:
        if not open_query.join.accept(result, self._brain.now_ms()):
            return False
        route = open_query.routes.pop((result.layer, result.shard), None)
        if route is not None:
            self._brain.outstanding.ended(*route)
        return True

    def _remember(self, partial: Partial, record: Record, results: Iterable[PartialResult]) -> None:
        """Rule 7: the cache is a fold over partials, late ones included."""
        open_query = self._open.get(partial.offset)
        key = partial.key if open_query is None else open_query.key
        if not partial.key or (open_query is not None and open_query.digest != partial.key):
            return
        good = [r for r in results if r.status == "ok" and r.shards == 1]
        size_bytes = len(record.value or b"")
        for result in good:
            descriptor = self._brain.directory.descriptor(result.layer)
            ttl_ms = result.ttl_ms
            if ttl_ms is None:
                ttl_ms = descriptor.ttl_ms if descriptor else 0
            slot = Slot(
                items=result.items,
                complete=result.complete,
                limit=partial.limit,
                stored_ms=float(record.timestamp),
                ttl_ms=ttl_ms,
                generation=partial.generation,
                tags=tuple(result.tags),
                cost_ms=result.took_ms,
                size_bytes=size_bytes // len(good),
            )
            self._brain.cache.store(key, result.layer, slot, self._brain.now_ms())

    def _reject(self, record: Record, trace: Trace, error: DecodeError) -> None:
        """A dead letter, then a failed answer if somebody can be told."""
        brain, reason = self._brain, str(error)
        brain.counters.rejected += 1
        brain.counters.dead_letters += 1
        self._window.open(record.offset, self._bounds_at_reading(record.offset))
        trace.end(reason)
        answer = None
        if error.query_id is not None and not self._is_repeat(
            error.query_id, record.offset, brain.now_ms()
        ):
            value = encode(
                failure(
                    error.query_id,
                    Error("invalid_query", reason),
                    epoch=self.epoch,
                    trace_id=trace.trace_id,
                )
            )
            headers = answer_headers(record, trace)
            answer = AnswerOut(self, record.offset, error.query_id.encode(), value, headers)
        brain.outbox.dead_letters.append(DeadLetterOut(record, reason, self, answer))

    def _forget(self, open_query: OpenQuery) -> None:
        del self._open[open_query.offset]
        for route in open_query.routes.values():
            self._brain.outstanding.ended(*route)

    def _is_repeat(self, id_: str, offset: int, now_ms: float) -> bool:
        """Whether this id was seen at another offset; it is remembered either way."""
        ids, config = self._ids, self._brain.config.coordinator
        while ids:
            oldest, (seen_ms, _) = next(iter(ids.items()))
            if seen_ms > now_ms - config.dedupe_window_ms and len(ids) < config.dedupe_max_ids:
                break
            del ids[oldest]
        if id_ in ids:
            return ids[id_][1] != offset
        ids[id_] = (now_ms, offset)
        return False

    def _bounds_at_reading(self, offset: int) -> Bounds:
        """Restored queries inherit the bounds under which they were first read."""
        return self._inherited if offset <= self._restored_up_to else self._bounds

    def _key_params(self, query: Query) -> dict[str, object]:
        kind = self._brain.config.types.get(query.type)
        if kind is None or kind.key_params is None:
            return query.params
        return {name: query.params[name] for name in kind.key_params if name in query.params}


def _attributes(answer: Answer) -> dict[str, str | float | int]:
    """The decision and the outcome, as span attributes."""
    return {
        "anabranch.query.id": answer.id,
        "anabranch.status": answer.status,
        "anabranch.strategy": answer.strategy or "none",
        "anabranch.reason": answer.reason,
        "anabranch.confidence": answer.confidence,
        "anabranch.items": len(answer.items),
    }
