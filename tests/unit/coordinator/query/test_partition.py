"""One owned partition under any order, duplicates, losses, late partials, deadlines, takeovers.

The model is a pair of append-only logs (`results`, `partials`) and a commit; the machine under
test is the very object that runs on Kafka. One answer for every query, with the right content.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from partition_world import LAYERS, World, content
from records import FakeRecord

from anabranch.contract.codec import decode, encode
from anabranch.contract.events import HEADER_OFFSET, Answer, Partial, PartialResult, Query, Task
from anabranch.coordinator.progress.metadata import decode as decode_progress
from anabranch.coordinator.progress.metadata import encode as encode_progress
from anabranch.coordinator.progress.window import Bounds
from anabranch.coordinator.query.outbox import AnswerOut


class PartitionMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.takeover_happened = False
        self._take_over()

    def _take_over(self) -> None:
        restored = self.world.restored()
        self.parts = self.world.parts()
        for record in self.world.partials[(restored.progress.bounds or Bounds()).partials :]:
            found, now_ms = decode(record.value, Partial), self.world.now_ms
            self.parts.cache_fill.partial(record, found, None, now_ms)
        self.partition = self.parts.owned[0] = self.parts.new_partition(0, restored)
        self.world.commit = (
            restored.progress.offset,
            encode_progress(restored.progress)[0],
        )

    def _collect(self) -> None:
        out = self.parts.outbox.take()
        self.world.in_flight += out.answers
        for task_out in out.tasks:
            task = decode(task_out.value, Task)
            self.world.tasks += [(task, layer) for layer in task.layers]

    # ── what may happen ────────────────────────────────────────────────────────────────────

    @rule(
        strategy=st.sampled_from(["auto", "sequential", "parallel", "distributed"]),
        coverage=st.sampled_from([1.0, 0.5, 0.0]),
        layers=st.one_of(st.none(), st.sets(st.sampled_from([*LAYERS, "nobody"]), min_size=1)),
        same=st.booleans(),
        max_age_ms=st.sampled_from([None, 0, 100]),
        timeout_ms=st.integers(1, 500),
    )
    def ask(
        self,
        strategy: Any,
        coverage: float,
        layers: Iterable[str] | None,
        same: bool,
        max_age_ms: int | None,
        timeout_ms: int,
    ) -> None:
        offset = len(self.world.queries)
        query = Query(
            id=f"q{offset}",
            type="t",
            params={"n": offset if not same else -1},
            layers=sorted(layers) if layers is not None else None,
            strategy=strategy,
            min_coverage=coverage,
            timeout_ms=timeout_ms,
            max_age_ms=max_age_ms,
        )
        self.world.wanted[offset] = query
        self.world.queries.append(
            FakeRecord(encode(query), offset=offset, timestamp=int(self.world.now_ms))
        )

    @rule()
    def read_what_is_new(self) -> None:
        for record in self.world.queries[self.partition.progress.position :]:
            self.partition.on_query(record, self.world.now_ms)
        self._collect()

    @precondition(lambda self: self.world.tasks)
    @rule(data=st.data(), status=st.sampled_from(["ok", "ok", "ok", "error", "timeout", "expired"]))
    def a_worker_answers(self, data: st.DataObject, status: Any) -> None:
        at = data.draw(st.integers(0, len(self.world.tasks) - 1))
        task, slot = self.world.tasks[at]
        if data.draw(st.booleans(), label="not again"):
            del self.world.tasks[at]
        result = PartialResult(
            layer=slot.layer,
            shard=slot.shard,
            shards=slot.shards,
            attempt=slot.attempt,
            status=status,
            items=content(task.params, slot.layer, slot.shard) if status == "ok" else [],
            error=None if status == "ok" else status,
        )
        partial = Partial(
            task.query, task.offset, task.type, task.scope, task.limit, task.key,
            task.generation, "w", [result],
        )  # fmt: skip
        record = FakeRecord(
            encode(partial),
            offset=len(self.world.partials),
            topic="anabranch.partials",
            timestamp=int(self.world.now_ms),
        )
        self.world.partials.append(record)
        if data.draw(st.booleans(), label="followed at once"):
            self.follow()

    @rule()
    def follow(self) -> None:
        for record in self.world.partials[self.partition.progress.partials_position :]:
            self.partition.on_partial(record, self.world.now_ms)
        self._collect()

    @precondition(lambda self: self.world.tasks)
    @rule()
    def a_task_is_lost(self) -> None:
        self.world.tasks.pop()

    @precondition(lambda self: self.world.in_flight)
    @rule(data=st.data())
    def an_answer_is_acknowledged(self, data: st.DataObject) -> None:
        out = self.world.in_flight.pop(data.draw(st.integers(0, len(self.world.in_flight) - 1)))
        self._land(out)

    def _land(self, out: AnswerOut) -> None:
        self.world.results.append((out.offset, decode(out.value, Answer)))
        headers = dict(out.headers)
        assert headers[HEADER_OFFSET] == b"%d" % out.offset
        assert out.claim is self.partition.claim
        self.partition.on_acked(out.offset, len(self.world.results) - 1)

    @rule()
    def commit(self) -> None:
        progress = self.partition.progress.snapshot()
        self.world.commit = (progress.offset, encode_progress(progress)[0])

    @rule(ms=st.integers(1, 300))
    def time_passes(self, ms: int) -> None:
        self.world.now_ms += ms
        for _, offset in self.parts.deadlines.pop_due(self.world.now_ms):
            self.partition.on_deadline(offset, self.world.now_ms)
        self._collect()

    @rule(landed=st.booleans())
    def killed_and_taken_over(self, landed: bool) -> None:
        """In-flight answers either reached the broker or they did not."""
        if landed:
            for out in self.world.in_flight:
                self.world.results.append((out.offset, decode(out.value, Answer)))
        self.world.in_flight.clear()
        self._take_over()

    # ── what must hold ─────────────────────────────────────────────────────────────────────

    @invariant()
    def nothing_is_answered_twice(self) -> None:
        offsets = [offset for offset, _ in self.world.results]
        assert len(offsets) == len(set(offsets))

    @invariant()
    def the_commit_never_passes_an_unanswered_query(self) -> None:
        answered = {offset for offset, _ in self.world.results}
        progress = decode_progress(*self.world.commit)
        assert all(offset in answered for offset in range(progress.offset))
        assert set(progress.completed) <= answered

    @invariant()
    def outstanding_work_is_never_negative(self) -> None:
        for group in ("io", "cpu"):
            assert all(n >= 0 for n in self.parts.outstanding._slots.get(group, []))

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.read_what_is_new()
        self.follow()
        self.time_passes(1_000)
        for out in self.world.in_flight:
            self._land(out)
        answers = dict(self.world.results)
        assert set(answers) == set(range(len(self.world.queries))), "silence"
        for offset, answer in answers.items():
            self._check(self.world.wanted[offset], answer)
        assert self.partition.progress.open_count == 0
        assert self.partition.progress.snapshot().offset == len(self.world.queries)
        for group in ("io", "cpu"):
            assert self.parts.outstanding.total(group) == 0

    def _check(self, query: Query, answer: Answer) -> None:
        wanted = query.layers or list(LAYERS)
        assert answer.id == query.id
        assert set(answer.layers) == set(wanted)
        ok = {name for name, layer in answer.layers.items() if layer.status == "ok"}
        whole = {name for name in ok if answer.layers[name].error is None}
        assert {missing.layer for missing in answer.missing} == set(wanted) - whole
        all_there = len(whole) == len(wanted)
        assert answer.status == ("complete" if all_there else "partial" if ok else "failed")
        possible = {
            item.id: name
            for name in ok
            for shard in range(LAYERS[name][1])
            for item in content(query.params, name, shard)
        }
        for item in answer.items:
            assert item.layers == (possible[item.id],)
        if answer.status == "complete":
            assert {item.id for item in answer.items} == set(possible)
        assert (answer.error is None) == (answer.status != "failed")


TestPartition = PartitionMachine.TestCase
TestPartition.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
