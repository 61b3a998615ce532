"""A worker on the in-memory broker: what a record of its topics can do to it."""

from __future__ import annotations

from typing import Any

import pytest

from anabranch.config.settings import Config, TopicsConfig
from anabranch.contract.codec import decode, encode
from anabranch.contract.events import Partial, Task, TaskLayer
from anabranch.errors import ConfigError
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.layers.api import Item, LayerSpec, Request, layer
from anabranch.runtime.supervisor import until
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.virtual_time import VirtualClock, run
from anabranch.worker import Worker, service

CONFIG = Config(topics=TopicsConfig(queries=2, tasks=1))
TOPICS = Topics(CONFIG.namespace)


@layer("a")
async def found(_: Request) -> list[Item]:
    return [Item("urn:a", 1.0)]


def task(query: str, partition: int = 0, deadline_ms: float = 2**40) -> bytes:
    return encode(Task(query, partition, 0, "t", {}, "", 20, int(deadline_ms), [TaskLayer("a")]))


def worked_off(*values: bytes) -> tuple[list[str], list[str]]:
    """Tasks are read, then a good one: queries with a partial, and reasons of dead letters."""

    async def body() -> tuple[list[str], list[str]]:
        broker = MemoryBroker()
        await ensure_topics(broker.transport(), CONFIG, ["default"])
        transport = broker.transport(process="w")
        async with Worker(
            CONFIG, layers=[LayerSpec(found)], transport=transport, clock=VirtualClock()
        ) as worker:
            await worker.ready()
            producer = broker.transport().producer("foreign")
            await producer.start()
            for value in (*values, task("good")):
                await producer.send_and_wait(TOPICS.tasks("default", "medium"), value, partition=0)
            await until(lambda: "good" in _answered(broker))
        reasons = [dict(r.headers)["anabranch-reason"] for r in broker.records(TOPICS.dlq)]
        return _answered(broker), [reason.decode() for reason in reasons]

    return run(body())


def _answered(broker: MemoryBroker) -> list[str]:
    return [decode(r.value, Partial).query for r in broker.records(TOPICS.partials)]


def test_a_task_whose_handling_raises_is_a_dead_letter_and_the_next_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def job(task: Task, *rest: Any) -> Any:
        if task.query == "bad":
            raise RecursionError("a defect of ours")
        return service_job(task, *rest)

    service_job = service.Job
    monkeypatch.setattr(service, "Job", job)
    assert worked_off(task("bad")) == (["good"], ["a defect of ours"])


def test_many_tasks_for_partitions_that_never_were_ask_the_broker_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    count = MemoryBroker.count

    def counts(self: MemoryBroker, topic: str) -> int:
        asked.append(topic)
        return count(self, topic)

    monkeypatch.setattr(MemoryBroker, "count", counts)
    answered, reasons = worked_off(*(task(f"q{n}", partition=7) for n in range(50)))
    assert answered == ["good"]
    assert len(reasons) == 50
    assert asked.count(TOPICS.partials) <= 2


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ([LayerSpec(layer("a" * 200)(found.ask))], "cannot be announced: .*length"),
        ([LayerSpec(layer("\udc80")(found.ask))], "cannot be announced"),
        ([LayerSpec(found, weight=float("1e9"))], "layers.a: cannot be announced: .*weight"),
        ([LayerSpec(found, ttl_ms=-1)], "layers.a: cannot be announced: .*ttl_ms"),
        ([LayerSpec(found, shards=0)], "layers.a: cannot be announced: .*shards"),
        ([LayerSpec(found), LayerSpec(found)], "two layers .* one name"),
    ],
)
def test_layers_that_no_coordinator_would_read_of_are_refused(
    specs: list[LayerSpec], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Worker(CONFIG, layers=specs, transport=MemoryBroker().transport())
