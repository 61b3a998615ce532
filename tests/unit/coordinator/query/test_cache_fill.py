"""What of a partial is kept, and what of it is believed."""

from __future__ import annotations

from hybrid import TTL_MS, Hybrid, found
from records import FakeRecord

from anabranch.cache.slots import Slot
from anabranch.contract.codec import encode
from anabranch.contract.events import Partial, PartialResult


def slot_of(scene: Hybrid, layer: str) -> Slot:
    held = [
        record.slots[layer] for record in scene.parts.cache._records.values()
        if layer in record.slots
    ]  # fmt: skip
    assert held, f"{layer} is not held"
    return held[0]


def fill(scene: Hybrid, *shards: dict[str, object]) -> None:
    """Answer the shards of `f`, in this order; each says what it likes."""
    scene.ask("f")
    for number, result in enumerate(shards):
        sent = next(s for s in scene.sent if s.slot.shard == number)
        scene.sent.remove(sent)
        scene.deliver(sent, **result)


class TestSlotOfShards:
    def test_its_tags_are_those_of_all_shards(self) -> None:
        scene = Hybrid()
        fill(scene, {"tags": ["x"]}, {"tags": ["x", "y"]}, {"tags": []})
        slot = slot_of(scene, "f")
        assert set(slot.tags) == {"x", "y"}

    def test_an_order_for_the_tag_of_any_shard_drops_it(self) -> None:
        scene = Hybrid()
        fill(scene, {"tags": ["x"]}, {"tags": []}, {"tags": []})
        scene.invalidate(tags=("x",))
        scene.ask("f")
        assert scene.asked() == ["f"]

    def test_it_lives_as_long_as_the_shortest(self) -> None:
        scene = Hybrid()
        fill(scene, {"ttl_ms": 900}, {"ttl_ms": 100_000}, {})
        slot = slot_of(scene, "f")
        assert slot.ttl_ms == 900

    def test_a_shard_that_says_nothing_lives_as_long_as_its_layer(self) -> None:
        scene = Hybrid()
        fill(scene, {"ttl_ms": 2 * TTL_MS}, {}, {"ttl_ms": 3 * TTL_MS})
        slot = slot_of(scene, "f")
        assert slot.ttl_ms == TTL_MS

    def test_it_saves_what_all_shards_cost(self) -> None:
        scene = Hybrid()
        fill(scene, {"took_ms": 300.0}, {"took_ms": 20.0}, {"took_ms": 1.0})
        slot = slot_of(scene, "f")
        assert slot.cost_ms == 321.0

    def test_it_is_as_old_as_the_first_shard_and_a_repeated_one_makes_it_no_younger(self) -> None:
        scene = Hybrid()
        scene.ask("a", "f")
        first, second, third = [s for s in scene.sent if s.slot.layer == "f"]
        scene.deliver(first)
        began_ms = scene.now_ms
        scene.after(100)
        scene.deliver(second)
        scene.deliver(third)
        scene.after(100)
        scene.deliver(third)
        slot = slot_of(scene, "f")
        assert slot.stored_ms == began_ms


class TestWhatAWorkerClaims:
    def claim(self, scene: Hybrid, generation: int, limit: int = 20) -> None:
        """The worker answers `a` with a partial that says this of itself."""
        sent = next(s for s in scene.sent if s.slot.layer == "a")
        scene.sent.remove(sent)
        task = sent.task
        result = PartialResult("a", items=found("a"))
        partial = Partial(
            task.query, task.offset, task.type, task.scope, limit, task.key, generation, "w",
            [result],
        )  # fmt: skip
        scene.tell(encode(partial))

    def test_the_generation_of_an_open_query_is_its_own(self) -> None:
        scene = Hybrid()
        scene.ask("a")
        scene.invalidate(layer="a")
        self.claim(scene, generation=2**40)
        scene.ask("a")
        assert scene.asked() == ["a"], "what was ordered to go during the fetch was served"

    def test_a_generation_that_nobody_has_read_is_not_believed_of_a_late_one(self) -> None:
        scene = Hybrid()
        scene.ask("a")
        scene.after(2_000)
        self.claim(scene, generation=2**40)
        scene.invalidate(layer="a")
        scene.ask("a")
        assert scene.asked() == ["a"]

    def test_the_limit_of_an_open_query_is_its_own(self) -> None:
        scene = Hybrid()
        scene.ask("a", limit=2)
        self.claim(scene, generation=0, limit=10_000)
        scene.ask("a", limit=50)
        assert scene.asked() == ["a"], "two items were served where fifty were asked for"

    def test_a_layer_that_nobody_announced_is_not_kept(self) -> None:
        scene = Hybrid()
        partial = Partial(
            "q", 7, "t", "", 20, "0" * 64, 0, "w", [PartialResult("invented", items=found("a"))]
        )
        record = FakeRecord(b"", timestamp=int(scene.now_ms))
        scene.parts.cache_fill.partial(record, partial, None, scene.now_ms)
        assert len(scene.parts.cache) == 0
