"""What a worker writes into a partial is believed within bounds (docs/guarantees.md)."""

from __future__ import annotations

from typing import Any

from hybrid import Hybrid
from records import FakeRecord

from anabranch.cache.slots import Slot
from anabranch.config.settings import Config, CoordinatorConfig
from anabranch.contract.bounds import MAX_INT, MAX_SPAN_MS
from anabranch.contract.codec import decode_partial, encode
from anabranch.contract.events import Item, LayerDescriptor, MemberHealth, Partial, PartialResult
from anabranch.coordinator.wiring import QueryParts

NOW_MS = 1_000_000.0


def parts_that_know(layer: str) -> QueryParts:
    parts = QueryParts(Config(), lambda: NOW_MS)
    announced = encode(LayerDescriptor(layer, "io"))
    parts.registry.learn(FakeRecord(announced, key=f"layer/io/{layer}".encode()), NOW_MS)
    parts.registry.topics_exist("io", 4)
    parts.invalidations.position = 3
    return parts


def kept(parts: QueryParts, generation: int = 0, layer: str = "a", **said: Any) -> Slot | None:
    """What is kept of a partial that nobody waits for."""
    result = PartialResult(layer, items=[Item("urn:x", 1.0)], complete=True, **said)
    partial = Partial("q", 7, "t", "", 20, "digest", generation, "w", [result])
    record = FakeRecord(encode(partial), timestamp=int(NOW_MS))
    parts.cache_fill.partial(record, decode_partial(record.value), None, NOW_MS)
    held = parts.cache._records.get("digest")
    return held.slots.get(layer) if held else None


def test_it_cannot_outlive_orders_that_are_still_to_come() -> None:
    assert kept(parts_that_know("a"), generation=4) is None
    assert kept(parts_that_know("a"), generation=MAX_INT) is None
    assert kept(parts_that_know("a"), generation=3) is not None


def test_nor_be_kept_for_longer_than_thirty_days_or_be_worth_more_than_them() -> None:
    slot = kept(parts_that_know("a"), ttl_ms=MAX_INT, took_ms=float(MAX_INT))
    assert slot is not None
    assert slot.ttl_ms == MAX_SPAN_MS
    assert slot.cost_ms == MAX_SPAN_MS


def test_nothing_is_kept_of_a_layer_that_nobody_announced() -> None:
    assert kept(parts_that_know("a"), layer="b") is None


def test_a_wait_that_it_invents_counts_as_thirty_days_at_most() -> None:
    parts = parts_that_know("a")
    for name, waits_ms in (("w1", float(MAX_INT)), ("w2", -5.0)):
        member = encode(MemberHealth(name, "worker", "ready", "io", stats={"queue_ms": waits_ms}))
        key = f"member/worker/{name}".encode()
        parts.registry.learn(FakeRecord(member, key=key, timestamp=int(NOW_MS)), NOW_MS)
    load = parts.registry.members.loads(["io"], NOW_MS)["io"]
    assert load.queue_ms == MAX_SPAN_MS / 2


def test_what_it_says_again_counts_as_nothing_that_is_held() -> None:
    world = Hybrid(coordinator=CoordinatorConfig(max_open_bytes=100_000))
    id_ = world.ask("a", "d")
    (said,) = [sent for sent in world.sent if sent.slot.layer == "a"]
    for _ in range(100):
        world.deliver(said, items=[Item("urn:x", 1.0, "x" * 10_000)])
    assert not world.parts.admission.is_full
    world.reply("d", to=id_)
    assert world.answers[id_].status == "complete"
