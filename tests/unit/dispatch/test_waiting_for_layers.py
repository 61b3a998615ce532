"""A layer that nobody has announced yet is waited for; one whose last worker left is not."""

from __future__ import annotations

import pytest
from hybrid import Hybrid
from records import FakeRecord

from anabranch.config.settings import Config, LayerConfig
from anabranch.contract.codec import encode
from anabranch.contract.events import LayerDescriptor, MemberHealth
from anabranch.dispatch.layer_registry import PATIENCE_MS, LayerRegistry

NEW = encode(LayerDescriptor("new", "io", 1))


def announce(world: Hybrid, value: bytes = NEW, key: str = "layer/io/new") -> None:
    world._announce(world.parts, key, value)
    for partition in world.partitions.values():
        partition.on_health(world.now_ms)
    world.collect()


def worker(world: Hybrid, name: str, state: str, group: str = "io") -> None:
    health = encode(MemberHealth(name, "worker", state, group=group))  # type: ignore[arg-type]
    announce(world, health, f"member/worker/{name}")


def test_a_layer_that_is_announced_in_time_is_asked() -> None:
    world = Hybrid()
    id_ = world.ask("a", "new", timeout_ms=1_000)
    assert world.asked() == []
    world.after(100)
    announce(world)
    world.reply("a")
    world.reply("new")
    assert world.statuses(id_) == {"a": "ok", "new": "ok"}


def test_a_share_of_its_time_is_enough_and_the_others_have_the_rest() -> None:
    world = Hybrid()
    id_ = world.ask("a", "new", timeout_ms=1_000)
    world.after(499)
    assert world.asked() == []
    world.after(1)
    assert world.asked() == ["a"]
    world.reply("a")
    assert world.statuses(id_) == {"a": "ok", "new": "skipped"}
    assert world.answers[id_].missing[0].why == "no worker has announced this layer"


def test_what_was_waited_for_in_vain_is_not_waited_for_again_until_a_worker_comes() -> None:
    world = Hybrid()
    world.ask("new", n=1)
    world.after(PATIENCE_MS)
    later = world.ask("a", "new", n=2)
    assert world.asked() == ["a"]
    world.reply("a")
    assert world.statuses(later)["new"] == "skipped"
    worker(world, "another", "ready")
    world.ask("a", "new", n=3)
    assert world.asked() == []


def test_while_a_worker_starts_its_layers_are_waited_for() -> None:
    world = Hybrid()
    world.ask("new", n=1)
    world.after(PATIENCE_MS)
    worker(world, "slow", "starting")
    world.after(PATIENCE_MS)
    worker(world, "slow", "starting")
    world.ask("a", "new", n=2, timeout_ms=60_000)
    assert world.asked() == []
    worker(world, "slow", "ready")  # and it has not brought it
    world.after(PATIENCE_MS)
    announce(world, encode(MemberHealth("slow", "worker", "ready", group="io")), "member/slow")
    world.after(PATIENCE_MS)
    announce(world, encode(MemberHealth("slow", "worker", "ready", group="io")), "member/slow")
    assert world.asked() == ["a"]


@pytest.mark.parametrize("by_ms", [-20_000.0, 20_000.0])
def test_a_clock_that_is_set_makes_nobody_wait_longer(by_ms: float) -> None:
    world = Hybrid()
    world.ask("a", "new", timeout_ms=10_000)
    world.after(1_000)
    world.set_clock(by_ms)
    world.after(4_000)
    assert world.asked() == ["a"]


def test_the_deadline_holds_while_it_waits() -> None:
    world = Hybrid()
    id_ = world.ask("a", "new", timeout_ms=10)
    world.after(10)
    assert world.answers[id_].status == "failed"


def test_a_takeover_waits_anew() -> None:
    world = Hybrid()
    id_ = world.ask("a", "new")
    world.take_over()
    assert world.asked() == []
    announce(world)
    world.reply("a")
    world.reply("new")
    assert world.statuses(id_) == {"a": "ok", "new": "ok"}


def test_nothing_is_waited_for_that_would_not_be_asked() -> None:
    world = Hybrid()
    id_ = world.ask("new", strategy="cache")
    assert world.answers[id_].status == "failed"


def test_where_layers_are_configured_no_others_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Hybrid()
    layers = {"late": LayerConfig(plugin="p")}
    monkeypatch.setattr(world.parts.planner, "_config", Config(layers=layers))
    assert world.statuses(world.ask("new", n=1)) == {"new": "skipped"}
    id_ = world.ask("late", n=2)
    assert id_ not in world.answers


def test_a_group_whose_last_worker_left_is_skipped_at_once_until_one_comes() -> None:
    world = Hybrid()
    worker(world, "io0", "draining")
    id_ = world.ask("a", "d", n=1)
    world.reply("d")
    assert world.statuses(id_) == {"a": "skipped", "d": "ok"}
    assert world.answers[id_].missing[0].why == "the last worker of group io has left"
    worker(world, "io1", "starting")
    world.ask("a", n=2)
    assert world.asked() == ["a"]


def test_one_of_two_workers_that_leaves_costs_nothing() -> None:
    world = Hybrid()
    worker(world, "cpu0", "draining", "cpu")
    world.ask("d")
    assert world.asked() == ["d"]


def test_names_that_askers_invent_are_remembered_within_a_bound() -> None:
    directory = LayerRegistry()
    assert directory.may_come("first", 0)
    for number in range(100_000):
        directory.may_come(f"invented-{number}", 0)
    assert len(directory._awaited_ms) == 1_000
    assert not directory.may_come("invented-99999", PATIENCE_MS)


def test_ready_is_when_every_layer_can_be_asked() -> None:
    directory = LayerRegistry()
    for name in ("a", "b"):
        assert not directory.ready(["a", "b"])
        value = encode(LayerDescriptor(name, "io", 1))
        directory.learn(FakeRecord(value, key=f"layer/io/{name}".encode()), 0)
    assert not directory.ready(["a", "b"]), "their topics do not exist"
    directory.topics_exist("io", 4)
    assert directory.ready(["a", "b"])
    assert directory.ready([])
