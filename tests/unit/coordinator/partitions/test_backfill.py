"""After a takeover the cache comes back from partials before those that were needed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from anabranch.client import Client
from anabranch.config.settings import Config, TopicsConfig, TypeConfig
from anabranch.contract.events import Item
from anabranch.coordinator import Coordinator
from anabranch.kafka.topics import ensure_topics
from anabranch.layers.api import LayerSpec, Request, layer
from anabranch.runtime.supervisor import until
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.virtual_time import VirtualClock, run
from anabranch.worker import Worker

CONFIG = Config(types={"t": TypeConfig(layers=["a"])}, topics=TopicsConfig(queries=2, tasks=2))


@layer("a")
async def a(request: Request) -> Sequence[Item]:
    return [Item(f"urn:{request.params['n']}", 1.0)]


@pytest.mark.parametrize(("questions", "away_s"), [(3, 0), (2_500, 0), (2_500, 1_800)])
def test_a_new_owner_answers_from_what_the_old_one_had_cached(
    questions: int, away_s: float
) -> None:
    """However many partials there are, as far back as any layer's results may be served."""

    async def body() -> None:
        broker, clock = MemoryBroker(), VirtualClock()
        await ensure_topics(broker.transport(), CONFIG, ["default"])

        def coordinator(process: str) -> Coordinator:
            return Coordinator(CONFIG, transport=broker.transport(process=process), clock=clock)

        spec = LayerSpec(a, ttl_ms=600_000 + int(away_s * 1_000))
        worker = Worker(CONFIG, layers=[spec], transport=broker.transport(process="w"), clock=clock)
        async with worker, Client(CONFIG, transport=broker.transport(process="c")) as client:
            await worker.ready()
            async with coordinator("c1") as first:
                await first.ready()
                await until(lambda: first.query.registry.descriptor("a"))
                for n in range(questions):
                    await client.ask("t", {"n": n}, timeout_ms=20_000)
            await asyncio.sleep(away_s)
            async with coordinator("c2") as second:
                await second.ready()
                async with asyncio.timeout(600):
                    await until(lambda: len(second.query.cache) >= questions)
                answer = await client.ask("t", {"n": 0}, strategy="cache")
                assert (answer.status, answer.strategy) == ("complete", "cache")
                assert [item.id for item in answer.items] == ["urn:0"]

    run(body())
