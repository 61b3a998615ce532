"""A layer that knows better has its own cached results forgotten, everywhere and soon."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from anabranch.client import Client
from anabranch.config.settings import Config, TopicsConfig, TypeConfig, WorkerConfig
from anabranch.contract.codec import decode
from anabranch.contract.events import ControlRecord, Item
from anabranch.coordinator import Coordinator
from anabranch.errors import BrokerError, BrokerUnavailable
from anabranch.kafka.topics import ensure_topics
from anabranch.layers.api import Invalidate, LayerSpec, Request, Result
from anabranch.runtime.supervisor import until
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.virtual_time import VirtualClock, run
from anabranch.worker import Worker
from anabranch.worker.invalidations import Invalidator

CONFIG = Config(types={"t": TypeConfig(layers=["a"])}, topics=TopicsConfig(queries=2, tasks=2))


class News:
    """A layer that notices when what it said is true no more."""

    def __init__(self, name: str) -> None:
        self.name, self.said = name, 0
        self.invalidate: Invalidate

    def watch(self, invalidate: Invalidate) -> None:
        self.invalidate = invalidate

    async def ask(self, request: Request) -> Result:
        return Result([Item(f"urn:{self.said}", 1.0)], tags=(f"n:{request.params['n']}",))


@pytest.mark.parametrize(
    ("tags", "anew"), [(["n:1"], {1}), (["n:1", "n:2"], {1, 2}), ([], {1, 2, 3}), (["x"], set())]
)
@pytest.mark.parametrize("in_thread", [False, True])
def test_what_a_layer_invalidates_is_asked_anew(
    tags: Sequence[str], anew: set[int], in_thread: bool
) -> None:
    async def body() -> None:
        broker, clock = MemoryBroker(), VirtualClock()
        await ensure_topics(broker.transport(), CONFIG, ["default"])
        layer, other = News("a"), News("b")

        def of(process: str) -> dict[str, Any]:
            return {"transport": broker.transport(process=process), "clock": clock}

        worker = Worker(CONFIG, layers=[LayerSpec(layer), LayerSpec(other)], **of("w"))
        async with (
            worker,
            Coordinator(CONFIG, **of("c")) as coordinator,
            Client(CONFIG, transport=broker.transport(process="k")) as client,
        ):
            await worker.ready()
            await coordinator.ready()
            await until(lambda: coordinator.query.registry.descriptor("b"))

            async def said(n: int, *layers: str) -> str:
                answer = await client.ask("t", {"n": n}, layers=layers, timeout_ms=20_000)
                return answer.items[0].id

            for n in (1, 2, 3):
                assert await said(n, "a") == await said(n, "b") == "urn:0"
            layer.said = other.said = 1
            if in_thread:
                await asyncio.to_thread(layer.invalidate, *tags)
            else:
                layer.invalidate(*tags)
            await asyncio.sleep(5)
            for n in (1, 2, 3):
                assert await said(n, "a") == f"urn:{int(n in anew)}"
                assert await said(n, "b") == "urn:0", "another layer's results are not its own"

    run(body())


class Sent:
    """A producer that notes orders, or refuses them."""

    def __init__(self) -> None:
        self.orders: list[ControlRecord] = []
        self.error: BaseException | None = None

    async def send_and_wait(self, topic: str, value: bytes, **_: Any) -> None:
        if self.error is not None:
            raise self.error
        self.orders.append(decode(value, ControlRecord))


def orders_after(*calls: tuple[str, tuple[str, ...]], **errors: Exception) -> list[ControlRecord]:
    async def body() -> list[ControlRecord]:
        sent = Sent()
        invalidator = Invalidator("control", sent)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        for layer, tags in calls:
            invalidator.of(layer, loop)(*tags)
        sent.error = errors.get("error")
        await invalidator.flush()
        sent.error = None
        await invalidator.flush()
        return sent.orders

    return asyncio.run(body())


def test_what_comes_together_is_one_order_for_each_layer() -> None:
    calls = [("a", (f"t{n % 3}",)) for n in range(1_000)] + [("b", ("x",))]
    assert orders_after(*calls) == [
        ControlRecord("invalidate", layer="a", tags=["t0", "t1", "t2"]),
        ControlRecord("invalidate", layer="b", tags=["x"]),
    ]


@pytest.mark.parametrize(
    "calls",
    [
        [("a", (f"t{n}",)) for n in range(1_000)],
        [("a", ("x" * 2_000,))],
        [("a", ("x",)), ("a", ()), ("a", ("y",))],
        [("a", ("x", "\ud800"))],
    ],
    ids=["many", "long", "all", "no text"],
)
def test_what_does_not_fit_is_everything_of_the_layer(calls: Any) -> None:
    assert orders_after(*calls) == [ControlRecord("invalidate", layer="a")]


def test_an_order_waits_for_the_broker_and_a_refused_one_is_given_up() -> None:
    call = ("a", ("x",))
    assert len(orders_after(call, error=BrokerUnavailable("away"))) == 1
    assert orders_after(call, error=BrokerError("not authorized")) == []


def test_a_tag_that_is_no_text_is_the_layers_error() -> None:
    with pytest.raises(TypeError, match=r"layers\.a: invalidate"):
        orders_after(("a", (1,)))  # type: ignore[arg-type]


def test_an_interrupted_order_is_sent_at_the_end() -> None:
    async def body() -> list[ControlRecord]:
        sent, calls = Sent(), [("a", ("x",)), ("b", ())]
        invalidator = Invalidator("control", sent)  # type: ignore[arg-type]
        for layer, tags in calls:
            invalidator.of(layer, asyncio.get_running_loop())(*tags)
        sent.error = asyncio.CancelledError()
        with pytest.raises(asyncio.CancelledError):
            await invalidator.flush()
        sent.error = None
        await invalidator.flush()
        return sent.orders

    assert [(order.layer, order.tags) for order in asyncio.run(body())] == [("a", ["x"]), ("b", [])]


def test_a_drain_waits_for_no_broker_longer_than_it_may(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config(topics=CONFIG.topics, worker=WorkerConfig(drain_timeout_ms=2_000))

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    async def body() -> float:
        broker, layer = MemoryBroker(), News("a")
        await ensure_topics(broker.transport(), config, ["default"])
        async with Worker(
            config, layers=[LayerSpec(layer)], transport=broker.transport(), clock=VirtualClock()
        ) as worker:
            await worker.ready()
            layer.invalidate()
            monkeypatch.setattr(Invalidator, "_send", never)
            end_s = asyncio.get_running_loop().time()
        return asyncio.get_running_loop().time() - end_s

    assert 2.0 <= run(body()) < 2.1
    assert "what layers invalidated at the end stays cached for its TTL" in caplog.messages
