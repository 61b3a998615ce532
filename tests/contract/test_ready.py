"""`ready()` means ready: a question right after it is answered, however often one starts."""

from __future__ import annotations

import os
from typing import Final

import pytest
from transports import Broker, fresh, where

from anabranch.client import Client
from anabranch.config.settings import Config, TopicsConfig
from anabranch.coordinator import Coordinator
from anabranch.kafka.topics import ensure_topics
from anabranch.layers.api import Item, LayerSpec, Request, layer
from anabranch.runtime.clock import SystemClock
from anabranch.worker import Worker

RUNS: Final = int(os.environ.get("READY_RUNS", "5"))
"""On a real broker, where each takes a second; in memory there are always a hundred."""


@layer("orders")
async def orders(request: Request) -> list[Item]:
    return [Item("order:17", 1.0)]


@where()
@pytest.mark.parametrize("told", ["worker", "coordinator", "client"])
async def test_a_question_right_after_the_start_is_answered(broker: Broker, told: str) -> None:
    runs = 100 if type(broker).__name__ == "Memory" else RUNS
    for _ in range(runs):
        await start_and_ask(broker, told)


async def start_and_ask(broker: Broker, told: str) -> None:
    """As the README does it; `told` is whose `ready` is awaited (a client has none)."""
    config = Config(namespace=f"{fresh('ready')}.", topics=TopicsConfig(queries=2, tasks=2))
    transport = broker.transport()
    await ensure_topics(transport, config, ["default"])
    specs = [LayerSpec(orders)]
    async with (
        Coordinator(config, transport=transport, clock=SystemClock()) as coordinator,
        Worker(config, layers=specs, transport=transport, clock=SystemClock()) as worker,
        Client(config, transport=transport) as client,
    ):
        if told == "worker":
            await worker.ready()
        elif told == "coordinator":
            await coordinator.ready()
        answer = await client.ask("t", {}, layers=["orders"], timeout_ms=10_000)
        assert answer.status == "complete", answer.missing
