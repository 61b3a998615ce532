"""One record costs one record: whatever handling one raises, and wherever, ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hybrid import Hybrid, found
from records import FakeRecord

from anabranch.aggregate.join import Join, JoinLayer
from anabranch.aggregate.result_aggregator import ResultAggregator
from anabranch.cache import slots
from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.contract.codec import encode
from anabranch.contract.events import HEADER_CLIENT, Partial, PartialResult, TaskLayer
from anabranch.contract.rows import LayerSum, Rows
from anabranch.contract.telemetry import TelemetryBatch
from anabranch.coordinator.background.telemetry_sync import TelemetrySync
from anabranch.coordinator.partitions.backfill import Backfill
from anabranch.coordinator.partitions.recovery import Recovery
from anabranch.coordinator.progress.restored import Restored
from anabranch.coordinator.progress.window import Bounds, Progress
from anabranch.coordinator.query import (
    answer_writer,
    cache_lookup,
    cached_answer,
    dispatcher,
    open_queries,
)
from anabranch.coordinator.query.answering import Composer
from anabranch.coordinator.query.cache_fill import CacheFill
from anabranch.coordinator.query.cache_lookup import CacheLookup
from anabranch.coordinator.query.cached_answer import CachedAnswers
from anabranch.coordinator.query.crash_tracker import CrashTracker
from anabranch.coordinator.query.flights import SharedFetches
from anabranch.coordinator.query.open_query import OpenQuery, answer_headers
from anabranch.coordinator.query.planning import Planner
from anabranch.coordinator.query.speculation import Speculation
from anabranch.dispatch.group_health import GroupHealth
from anabranch.dispatch.intake import Intake
from anabranch.dispatch.routing import Outstanding
from anabranch.errors import GenerationLost
from anabranch.learn import execution_telemetry
from anabranch.learn.execution_telemetry import ExecutionTelemetryCollector
from anabranch.observe.spans import Trace, Tracer
from anabranch.runtime.containment import contained
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector
from anabranch.testing.memory import MemoryBroker

STEPS: list[tuple[Any, str]] = [
    (Tracer, "process"),
    (Intake, "read"),
    (Planner, "choose_layers"),
    (Intake, "deadline_ms"),
    (open_queries, "OpenQuery"),
    (CacheLookup, "probe"),
    (cache_lookup, "make_key"),
    (CrossLayerCache, "probe"),
    (Speculation, "asked"),
    (Planner, "plan"),
    (GroupHealth, "loads"),
    (AdaptiveStrategySelector, "decide"),
    (OpenQuery, "is_enough"),
    (CrashTracker, "is_quarantined"),
    (dispatcher, "next_attempts"),
    (SharedFetches, "must_fetch"),
    (dispatcher, "bundle"),
    (Outstanding, "choose"),
    (Outstanding, "sent"),
    (OpenQuery, "task"),
    (dispatcher, "encode"),
    (Join, "accept"),
    (JoinLayer, "_settle_alone"),
    (CacheFill, "partial"),
    (slots, "items_bytes"),
    (SharedFetches, "finish"),
    (Composer, "compose"),
    (ResultAggregator, "aggregate"),
    (answer_writer, "encode_bounded"),
    (CachedAnswers, "remember"),
    (answer_writer, "telemetry_record"),
    (AdaptiveStrategySelector, "observe"),
    (CrashTracker, "survived"),
]


def _failing(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, error: Exception) -> None:
    def fail(*args: object, **more: object) -> object:
        raise error

    monkeypatch.setattr(place, name, fail)


def _run(world: Hybrid, query: str) -> None:
    """Workers answer what a query asked for, and its deadline comes."""
    for layer in sorted({sent.slot.layer for sent in world.sent if sent.task.query == query}):
        world.reply(layer, to=query)
    world.after(1_000)


@pytest.mark.parametrize(("place", "name"), STEPS, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("error", [RuntimeError("why"), RecursionError(), OverflowError("inf")])
def test_a_query_that_cannot_be_handled_is_given_up_whole(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, error: Exception
) -> None:
    world = Hybrid()
    with monkeypatch.context() as patch:
        _failing(patch, place, name, error)
        poison = world.ask("a", "d")
        _run(world, poison)
    told = world.answers[poison].error
    assert told is not None
    assert told.code == "internal"
    assert any(letter.stack and letter.stack in told.message for letter in world.letters)
    assert any(type(error).__name__ in letter.reason for letter in world.letters)
    assert world.left() == (0, 0, 0)
    _goes_on(world, poison)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (CrossLayerCache, "prepared"),
        (ExecutionTelemetryCollector, "is_sampled"),
        (ExecutionTelemetryCollector, "count_cached"),
        (cached_answer, "AnswerLayer"),
        (cached_answer, "encode"),
        (ResultAggregator, "confidence"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_so_is_one_that_the_cache_would_have_answered(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str
) -> None:
    world = Hybrid()
    world.cached("a", "d")
    world.ask("a", "d")
    with monkeypatch.context() as patch:
        _failing(patch, place, name, RuntimeError("why"))
        poison = world.ask("a", "d")
    told = world.answers[poison].error
    assert told is not None
    assert told.code == "internal"
    assert world.left() == (0, 0, 0)
    assert world.answers[world.ask("a", "d")].status == "complete"


def _goes_on(world: Hybrid, before: str) -> None:
    """The same question, and another one, are answered as if nothing had been."""
    world.sent.clear()
    letters = len(world.letters)
    for n in (1, 2):
        id_ = world.ask("a", "d", n=n)
        _run(world, id_)
        assert world.answers[id_].status == "complete"
    assert world.left() == (0, 0, 0)
    assert len(world.letters) == letters


@pytest.mark.parametrize(
    ("place", "name"),
    [(Composer, "compose"), (answer_writer, "encode_bounded"), (answer_writer, "telemetry_record")],
)
def test_at_its_deadline_a_query_is_given_up_once(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str
) -> None:
    world = Hybrid()
    poison, other = world.ask("a"), world.ask("d", n=2, timeout_ms=2_000)
    with monkeypatch.context() as patch:
        _failing(patch, place, name, ZeroDivisionError())
        world.after(1_500)
    assert world.answers[poison].error is not None
    assert world.answers[poison].error.code == "internal"
    assert len(world.letters) == 1
    world.after(1_000)
    assert world.answers[other].status == "failed"
    assert world.left() == (0, 0, 0)


def test_whoever_waited_for_a_query_that_is_given_up_fetches_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Hybrid()
    poison, follower = world.ask("d"), world.ask("d")
    accept = Join.accept

    def fail_once(*args: Any) -> bool:
        monkeypatch.setattr(Join, "accept", accept)
        raise RuntimeError("why")

    monkeypatch.setattr(Join, "accept", fail_once)
    world.reply("d", to=poison)
    world.reply("d", to=follower)
    assert world.answers[poison].error is not None
    assert world.answers[follower].status == "complete"
    assert world.left() == (0, 0, 0)


def test_a_follower_that_cannot_take_what_it_waited_for_costs_itself_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Hybrid()
    ids = [world.ask("d") for _ in range(4)]
    share = JoinLayer.share

    def fail_once(*args: Any) -> None:
        monkeypatch.setattr(JoinLayer, "share", share)
        raise RuntimeError("why")

    monkeypatch.setattr(JoinLayer, "share", fail_once)
    world.reply("d")
    statuses = [world.answers[id_].status for id_ in ids]
    assert statuses == ["complete", "failed", "complete", "complete"]


def test_of_a_partial_that_cannot_be_kept_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Hybrid()
    late = world.ask("a", "b")
    sent = list(world.sent)
    world.after(1_000)
    sizes = iter([10])
    monkeypatch.setattr(slots, "items_bytes", lambda items: next(sizes))
    both = _partial_of(world, sent)
    world.tell(both)
    assert late in world.answers
    assert "StopIteration" in world.letters[-1].reason
    assert world.parts.cache.stats()["slots"] == 0


@pytest.mark.parametrize(("place", "name"), [(CacheFill, "partial"), (Join, "accept")])
def test_a_query_that_is_answered_already_is_not_answered_again(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str
) -> None:
    """It is there only because others wait for what it fetches: they fetch it themselves."""
    world = Hybrid()
    early = world.ask("a", "d", min_coverage=0.5)
    patient = world.ask("d")
    world.reply("a", to=early)
    world.after(600)
    assert world.answers[early].status == "partial"
    sent = [sent for sent in world.sent if sent.slot.layer == "d"]
    world.sent.clear()
    with monkeypatch.context() as patch:
        _failing(patch, place, name, RuntimeError())
        world.tell(_partial_of(world, sent))
    assert "RuntimeError" in world.letters[-1].reason
    world.reply("d", to=patient)
    assert world.answers[patient].status == "complete"
    assert world.left() == (0, 0, 0)


def test_a_task_that_is_refused_for_who_is_answered_is_told_to_those_who_wait() -> None:
    world = Hybrid()
    early = world.ask("a", "d", min_coverage=0.5)
    patient = world.ask("d")
    world.reply("a", to=early)
    world.after(600)
    world.sent.clear()
    layers = [TaskLayer("d", attempt=(1, 1))]
    world.partitions[0].on_refused(0, layers, "too large", world.now_ms)
    world.collect()
    world.reply("d", to=patient)
    assert world.answers[patient].status == "complete"
    assert world.left() == (0, 0, 0)


def _partial_of(world: Hybrid, sent: list[Any]) -> bytes:
    """Both layers' results in one late record."""
    task = sent[0].task
    results = [PartialResult(layer=s.slot.layer, items=found(s.slot.layer)) for s in sent]
    partial = Partial(
        task.query, task.offset, task.type, task.scope, task.limit, task.key, 0, "w", results
    )
    return encode(partial)


def test_what_is_read_back_is_contained_too(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Hybrid()
    world.ask("a")
    partial = FakeRecord(_partial_of(world, world.sent), topic="anabranch.partials")
    _failing(monkeypatch, slots, "items_bytes", OverflowError())
    restored = Restored(Progress(0), Bounds(), end=1)
    parts, reader = world.parts, MemoryBroker().transport().reader("t")
    config, cache_fill = parts.config, parts.cache_fill
    recovery = Recovery(reader, parts.topics, config.coordinator, cache_fill, parts.now_ms)
    recovery._take_partial(restored, partial)
    Backfill(reader, config, parts.registry, cache_fill, parts.now_ms)._fold(partial)
    assert not restored.arrived(0, "q0.0")
    assert not world.parts.outbox.dead_letters


def test_a_batch_of_telemetry_that_cannot_be_learned_from_is_a_dead_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Hybrid()
    parts, transport = world.parts, MemoryBroker().transport()
    exchange = TelemetrySync(
        parts.selector.telemetry,
        parts.topics.telemetry,
        transport.producer("t"),
        transport.reader("t"),
        parts.outbox,
        parts.counters,
    )
    batch = encode(TelemetryBatch("peer", 1, Rows(layers=(LayerSum(0, "t", "parallel", "a"),))))
    with monkeypatch.context() as patch:
        _failing(patch, execution_telemetry, "teach", OverflowError())
        exchange._fold(FakeRecord(batch, topic="anabranch.telemetry"))
        exchange._replay(FakeRecord(batch, topic="anabranch.telemetry"))
    exchange._fold(FakeRecord(b"{", topic="anabranch.telemetry"))
    reasons = [letter.reason for letter in world.parts.outbox.take().dead_letters]
    assert len(reasons) == 2
    assert "OverflowError" in reasons[0]


def test_what_cannot_be_summed_up_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = ExecutionTelemetryCollector()
    collector._records.append("no record")  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        collector.settle()
    collector.settle()


@pytest.mark.parametrize("error", [GenerationLost("gone"), asyncio.CancelledError()])
def test_the_loss_of_the_group_and_cancellation_pass(error: BaseException) -> None:
    spoiled: Callable[[Exception], None] = pytest.fail
    with pytest.raises(type(error)), contained(spoiled):
        raise error


@pytest.mark.parametrize(
    ("values", "forwarded"),
    [
        ([b"mine"], b"mine"),
        ([b"x" * 256], b"x" * 256),
        ([b"x" * 257], None),
        ([b"x" * 4_000_000, b"mine"], b"mine"),
        ([b"mine"] * 1_000, b"mine"),
        ([b""], None),
        ([None], None),
    ],
)
def test_whose_a_query_is_is_forwarded_once_and_bounded(
    values: list[bytes], forwarded: bytes | None
) -> None:
    record = FakeRecord(b"", headers=[(HEADER_CLIENT, value) for value in values])
    headers = answer_headers(record, Trace((), None))
    assert [value for name, value in headers if name == HEADER_CLIENT] == [
        value for value in (forwarded,) if value is not None
    ]
