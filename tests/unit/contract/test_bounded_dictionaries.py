"""Every dictionary whose keys somebody else chooses, driven beyond its bound.

docs/guarantees.md lists them, with what happens there.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from records import FakeRecord

from anabranch.admin import cluster_view as cluster_view_module
from anabranch.admin.cluster_view import ClusterView
from anabranch.cache import invalidation, prefetch, records, slots
from anabranch.config.settings import CoordinatorConfig
from anabranch.contract.bounds import remember
from anabranch.contract.codec import encode
from anabranch.contract.events import ComponentStats, LayerDescriptor, MemberHealth
from anabranch.contract.rows import QuerySum
from anabranch.coordinator.progress.dedupe_window import DedupeWindow
from anabranch.coordinator.query import crash_tracker
from anabranch.coordinator.query.crash_tracker import CrashTracker
from anabranch.dispatch import group_health, released_epochs
from anabranch.dispatch import layer_registry as directory_module
from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.dispatch.released_epochs import ReleasedEpochs
from anabranch.errors import DecodeError
from anabranch.learn import decayed_sums, dependency_graph, name_filter, seen_batches
from anabranch.learn.decayed_sums import Cell, Cells
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.name_filter import NameFilter
from anabranch.learn.profiler import LayerProfiler
from anabranch.learn.seen_batches import SeenBatches

Fill = Callable[[int], int]
"""Puts in so many keys; returns how many are held."""


def members(count: int) -> int:
    directory = LayerRegistry()
    for n in range(count):
        member = encode(MemberHealth(f"w{n}", "worker", "ready", "io"))
        directory.learn(FakeRecord(member, key=f"member/worker/w{n}".encode()), 0.0)
    return len(directory.members._members)


def epochs(count: int) -> int:
    released = ReleasedEpochs()
    for n in range(count):
        released.add(n, 1)
    assert released.has(count - 1, 1)
    return len(released._epochs)


def groups_of_members(count: int) -> int:
    directory = LayerRegistry()
    for n in range(count):
        member = encode(MemberHealth(f"w{n}", "worker", "ready", f"g{n}"))
        for _ in range(2):
            directory.learn(FakeRecord(member, key=f"member/worker/w{n}".encode()), 0.0)
    held = len(directory.members._workers)
    for _ in range(4):
        directory.members.beat()
    assert directory.members.deaths()
    assert not directory.members._workers
    return held


def partitions_of_members(count: int) -> int:
    directory, each = LayerRegistry(), 10_000
    for n in range(count // each):
        member = encode(MemberHealth(f"w{n}", "worker", "ready", "io", partitions=[0] * each))
        directory.learn(FakeRecord(member, key=f"member/worker/w{n}".encode()), 0.0)
    assert len(directory.members.workers("io", 0.0)) == count // each
    return sum(len(worker.partitions) for worker in directory.members.workers("io", 0.0))


def layers(count: int) -> int:
    return _announced(count, "io").names.__len__()


def groups(count: int) -> int:
    return len(_announced(count, "g{}").groups)


def _announced(count: int, group: str) -> LayerRegistry:
    directory = LayerRegistry()
    first = FakeRecord(encode(LayerDescriptor("first", "first")), key=b"layer/first/first")
    directory.learn(first, 0.0)
    refused = 0
    for n in range(count):
        layer = LayerDescriptor(f"l{n}", group.format(n))
        try:
            directory.learn(FakeRecord(encode(layer), key=f"layer/x/{n}".encode()), 0.0)
        except DecodeError:
            refused += 1
    assert refused
    assert "first" in directory.names
    return directory


def heard(count: int) -> int:
    view = ClusterView()
    for n in range(count):
        member = encode(MemberHealth(f"w{n}", "worker", "ready"))
        view.learn(FakeRecord(member, key=b"%d" % n), alive=True)
    return len(view._heard)


def reports(count: int) -> int:
    view = ClusterView()
    for n in range(count):
        view.learn(FakeRecord(encode(ComponentStats(f"c{n}")), key=b"%d" % n), alive=True)
    return len(view.stats)


def announcements(count: int) -> int:
    view = ClusterView()
    for n in range(count):
        layer = encode(LayerDescriptor(f"l{n}", "io"))
        view.learn(FakeRecord(layer, key=b"%d" % n), alive=True)
    return len(view.layers)


def batches(count: int) -> int:
    counted = SeenBatches()
    for n in range(count):
        counted.first_time(f"c{n}", 1)
    return len(counted._seen)


def types_learned(count: int) -> int:
    names = NameFilter((), lambda: ())
    return len({names.type(f"t{n}") for n in range(count)} - {name_filter.OTHER})


def types_of_the_graph(count: int) -> int:
    graph = DependencyGraph(LayerProfiler())
    for n in range(count):
        graph.fold_query(QuerySum(1, f"t{n}", "parallel", (), 1))
    return len(graph._types)


def cells(count: int) -> int:
    held: Cells[str] = Cells(0.9, 100)
    for n in range(count):
        held.add(f"k{n}", n, "x", (1,))
    return len(held)


def labels(count: int) -> int:
    cell = Cell(0.9)
    for n in range(count):
        cell.add(1, f"l{n}", (1,))
    return len(cell.read())


def orders(count: int) -> int:
    held = invalidation.Invalidations()
    for n in range(count):
        held.add(n, ("layer", f"scope-{n}", None, None))
    assert held.latest("layer", "scope-0", (), str) >= 0  # too much is forgotten, not too little
    return len(held._latest)


def deaths(count: int) -> int:
    held = CrashTracker(apart_ms=1.0)
    held.died("w", {("t", "", str(n)): {"a"} for n in range(count)}, 0.0)
    return len(held._marks)


def ids(count: int) -> int:
    held = DedupeWindow(CoordinatorConfig(dedupe_max_ids=100), ())
    for n in range(count):
        held.is_repeat(f"q{n}", n, 0.0)
    return len(held._seen)


def followers(count: int) -> int:
    guesser = prefetch.Prefetcher(max_keys=100)
    for n in range(count):
        guesser.asked(("t", "", str(n)), 0.0)
    return len(guesser._followers)


def streams(count: int) -> int:
    guesser = prefetch.Prefetcher()
    for n in range(count):
        guesser.asked(("t", f"scope-{n}", ""), 0.0, stream=n)
    return len(guesser._last)


def combinations_of_layers(count: int) -> int:
    one = slots.Slot([], True, 1, 0.0, 1, 0)
    for n in range(count):
        records.Record.of("digest", 0).put(f"l{n}", one)
    held = len(records._combinations)
    records._combinations.clear()  # the process's, which others measure
    return held


@pytest.mark.parametrize(
    ("fill", "bound"),
    [
        (members, group_health.MAX_MEMBERS),
        (epochs, released_epochs.MAX_PARTITIONS),
        (groups_of_members, group_health.MAX_MEMBERS),
        (partitions_of_members, group_health.MAX_PARTITIONS_HELD),
        (layers, directory_module.MAX_LAYERS),
        (groups, directory_module.MAX_GROUPS),
        (heard, cluster_view_module.MAX_HEARD),
        (reports, cluster_view_module.MAX_STATS),
        (announcements, cluster_view_module.MAX_LAYERS),
        (batches, seen_batches.MAX_INSTANCES),
        (types_learned, name_filter.MAX_FOREIGN_TYPES),
        (types_of_the_graph, dependency_graph.MAX_TYPES),
        (cells, 100),
        (labels, decayed_sums.MAX_LABELS),
        (orders, invalidation._MAX_ORDERS),
        (deaths, crash_tracker._MOST),
        (ids, 100),
        (followers, 100),
        (streams, prefetch._STREAMS),
        (combinations_of_layers, records._MOST_COMBINATIONS),
    ],
)
def test_it_holds_no_more_than_its_bound(fill: Fill, bound: int) -> None:
    assert 0 < fill(bound + bound // 2 + 10) <= bound


def test_what_was_longest_not_set_goes() -> None:
    held: dict[str, int] = {}
    for name, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        remember(held, name, value, 2)
    assert held == {"a": 3, "c": 4}


def test_orders_that_are_forgotten_take_no_room() -> None:
    held = invalidation.Invalidations()
    for _ in range(3):
        held.begin_anew()
        for n in range(5_000):  # five megabytes
            held.add(n, ("layer", f"{n:0500}", None, None))
        assert held.latest("layer", "another", (), str) < 0
