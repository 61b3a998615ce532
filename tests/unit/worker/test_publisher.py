"""What leaves a worker fits into a record and can be encoded, whatever a layer gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from records import FakeRecord

from anabranch.contract.codec import MAX_VALUE_BYTES, decode
from anabranch.contract.events import Item, Partial, PartialResult, Task, TaskLayer
from anabranch.errors import DecodeError
from anabranch.kafka.topics import Topics
from anabranch.observe.spans import Tracer
from anabranch.runtime.supervisor import Supervisor, until
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.virtual_time import run
from anabranch.worker.job import Job
from anabranch.worker.publisher import Publisher

TOPICS = Topics("anabranch.")
GOOD = PartialResult(layer="good", items=[Item("urn:good", 1.0)])


def sent(
    results: Sequence[PartialResult], *, query: str = "q1", max_message_bytes: int = 6_000_000
) -> list[Partial]:
    """Publish results of one task; the partials that the broker has then."""

    async def body() -> list[Partial]:
        broker = MemoryBroker()
        broker.create(TOPICS.partials, 1, {"max.message.bytes": str(max_message_bytes)})
        producer = broker.transport().producer("w1")
        await producer.start()
        supervisor = Supervisor("test")
        publisher = Publisher("w1", producer, TOPICS, supervisor.fail)
        supervisor.start("partials", publisher.send)
        publisher.publish([finished(results, query)])
        await until(lambda: publisher.idle)
        await supervisor.stop()
        assert supervisor.failure is None
        records = broker.records(TOPICS.partials)
        assert all(len(record.value or b"") <= MAX_VALUE_BYTES for record in records)
        return [decode(record.value, Partial) for record in records]

    return run(body())


def finished(results: Sequence[PartialResult], query: str) -> tuple[Job, Partial]:
    task = Task(
        query=query,
        partition=0,
        offset=7,
        type="t",
        params={},
        scope="",
        limit=20,
        deadline_ms=1_000,
        layers=[TaskLayer(result.layer) for result in results],
    )
    job = Job(task, Tracer().process(FakeRecord(b""), "process"))
    return job, Partial(query, 7, "t", "", 20, "", 0, "w1", list(results))


def by_layer(partials: Sequence[Partial]) -> dict[str, PartialResult]:
    return {result.layer: result for partial in partials for result in partial.results}


def test_results_that_fit_together_travel_together() -> None:
    (partial,) = sent([GOOD, PartialResult(layer="other")])
    assert [result.layer for result in partial.results] == ["good", "other"]


def test_results_that_do_not_fit_together_travel_apart() -> None:
    large = [PartialResult(layer=f"l{n}", items=[Item("urn:x", 1.0, "x" * 400_000)]) for n in "123"]
    partials = sent(large)
    assert len(partials) > 1
    assert {name for name, result in by_layer(partials).items() if result.status == "ok"} == {
        "l1", "l2", "l3",
    }  # fmt: skip


@pytest.mark.parametrize("size", [MAX_VALUE_BYTES, 1_500_000, 5_600_000])
def test_a_result_that_fits_into_no_record_says_so_and_costs_its_neighbours_nothing(
    size: int,
) -> None:
    huge = PartialResult(layer="huge", items=[Item("urn:x", 1.0, "x" * size)], took_ms=5.0)
    found = by_layer(sent([huge, GOOD]))
    assert found["good"] == GOOD
    assert (found["huge"].status, found["huge"].items, found["huge"].took_ms) == ("error", [], 5.0)
    assert "a record holds 1,000,000 bytes" in (found["huge"].error or "")


@pytest.mark.parametrize("data", [object(), "\udc80", {"deep": {1, object()}}])
def test_what_became_unsendable_after_the_layer_gave_it_costs_its_own_part_only(data: Any) -> None:
    odd = PartialResult(layer="odd", items=[Item("urn:x", 1.0, data)])
    found = by_layer(sent([GOOD, odd]))
    assert found["good"] == GOOD
    assert found["odd"].status == "error"
    assert "cannot be encoded" in (found["odd"].error or "")


def test_a_task_whose_own_names_fill_a_record_ends_nothing() -> None:
    assert sent([GOOD], query="q" * MAX_VALUE_BYTES) == []


def test_what_the_broker_refuses_says_so_and_costs_its_neighbours_nothing() -> None:
    large = PartialResult(layer="large", items=[Item("urn:x", 1.0, "x" * 400_000)])
    found = by_layer(sent([large], max_message_bytes=100_000))
    assert found["large"].status == "error"
    assert "the broker refuses the result" in (found["large"].error or "")


def test_a_topic_that_takes_nothing_ends_nothing() -> None:
    assert sent([GOOD], max_message_bytes=10) == []


def test_a_dead_letter_that_the_broker_refuses_is_cut_until_it_fits() -> None:
    async def body() -> None:
        broker = MemoryBroker()
        broker.create(TOPICS.dlq, 1, {"max.message.bytes": "50000"})
        producer = broker.transport().producer("w1")
        await producer.start()
        publisher = Publisher("w1", producer, TOPICS, Supervisor("test").fail)
        await publisher.dead_letter(FakeRecord(b"x" * 900_000), DecodeError("no task"))
        await until(lambda: publisher.idle)
        (letter,) = broker.records(TOPICS.dlq)
        headers = dict(letter.headers)
        assert headers["anabranch-reason"] == b"no task"
        assert headers["anabranch-truncated-bytes"] == b"900000"

    run(body())
