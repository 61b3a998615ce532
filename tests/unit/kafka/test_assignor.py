"""Partitions are shared out fairly, the same by everybody, and few of them move."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import mean
from typing import Any

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from anabranch.kafka.assignor import assign
from anabranch.kafka.client.assignment import assignor_for

partitions = st.integers(0, 64)
members = st.lists(st.text(max_size=12), min_size=1, max_size=20, unique=True)


def owners(count: int, names: Sequence[str]) -> dict[int, str]:
    return {number: name for name, numbers in assign(count, names).items() for number in numbers}


@given(partitions, members)
def test_every_partition_has_one_owner_and_nobody_two_more_than_another(
    count: int, names: list[str]
) -> None:
    owned = assign(count, names)
    assert set(owned) == set(names)
    assert sorted(number for numbers in owned.values() for number in numbers) == list(range(count))
    sizes = [len(numbers) for numbers in owned.values()]
    assert max(sizes) - min(sizes) <= 1
    assert all(numbers == sorted(numbers) for numbers in owned.values())


@given(partitions, members, st.randoms(use_true_random=False))
def test_the_order_of_names_does_not_matter(
    count: int, names: list[str], shuffler: random.Random
) -> None:
    shuffled = list(names)
    shuffler.shuffle(shuffled)
    assert assign(count, shuffled) == assign(count, names)


def test_every_process_and_every_release_shares_out_alike() -> None:
    assert assign(12, ["a", "b", "c"]) == {
        "a": [2, 3, 7, 10],
        "b": [4, 5, 6, 11],
        "c": [0, 1, 8, 9],
    }


def test_without_members_nothing_is_owned() -> None:
    assert assign(5, []) == {}


@given(st.integers(1, 64), st.lists(st.text(max_size=12), min_size=2, max_size=20, unique=True))
def test_a_newcomer_takes_its_share_and_a_leaver_leaves_no_more(
    count: int, names: list[str]
) -> None:
    *before, newcomer = names
    share = len(assign(count, names)[newcomer])
    assert share in (count // len(names), count // len(names) + 1)
    moved = sum(1 for n, name in owners(count, before).items() if owners(count, names)[n] != name)
    assert moved >= share


@pytest.mark.parametrize(
    ("count", "size", "times_the_least", "worst"),
    [(12, 2, 1.2, 7), (12, 4, 1.4, 6), (20, 4, 1.4, 9), (20, 9, 2.5, 9), (64, 4, 1.3, 19),
     (64, 9, 1.6, 14), (64, 19, 2.8, 14)],
)  # fmt: skip
def test_few_partitions_move_when_somebody_joins_or_leaves(
    count: int, size: int, times_the_least: float, worst: int
) -> None:
    """Balance costs a little: what a newcomer takes may put others one over their share."""
    moves = []
    for seed in range(100):
        names = [f"member-{seed}-{number}" for number in range(size + 1)]
        before, after = owners(count, names[:-1]), owners(count, names)
        moves.append(sum(before[number] != after[number] for number in range(count)))
    assert mean(moves) <= times_the_least * count / (size + 1)
    assert max(moves) <= worst


# ── in aiokafka's shape ────────────────────────────────────────────────────────────────────


class Cluster:
    """The part of aiokafka's metadata that an assignor looks at."""

    def __init__(self, **topics: int) -> None:
        self._topics = topics

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self._topics[topic])) if topic in self._topics else None


def share_out(cluster: Any, **names: str) -> dict[str, dict[str, list[int]]]:
    """What members get, by member id, where each subscribes to the topics `a` and `b`."""
    metadata = {id_: assignor_for(name).metadata(["a", "b"]) for id_, name in names.items()}
    decoded = {
        id_: ConsumerProtocolMemberMetadata.decode(member.encode())
        for id_, member in metadata.items()
    }
    assigned = assignor_for("leader").assign(cluster, decoded)
    return {id_: dict(assignment.assignment) for id_, assignment in assigned.items()}


def test_what_a_member_gets_depends_on_its_name_and_not_on_the_brokers_id() -> None:
    cluster = Cluster(a=8, b=8)
    once = share_out(cluster, x1="one", x2="two")
    again = share_out(cluster, y9="one", y3="two")
    assert once["x1"] == again["y9"]
    assert once["x2"] == again["y3"]


def test_partition_i_of_every_topic_has_the_same_owner_where_it_exists() -> None:
    assigned = share_out(Cluster(a=8, b=3), x1="one", x2="two")
    for topics in assigned.values():
        assert topics["b"] == [number for number in topics["a"] if number < 3]
    assert sorted(n for topics in assigned.values() for n in topics["a"]) == list(range(8))


def test_two_members_of_one_name_share_as_two() -> None:
    assigned = share_out(Cluster(a=8, b=8), x1="one", x2="one", x3="two")
    assert sorted(n for topics in assigned.values() for n in topics["a"]) == list(range(8))
    assert sorted(len(topics["a"]) for topics in assigned.values()) == [2, 3, 3]
    assert assigned == share_out(Cluster(a=8, b=8), x3="two", x2="one", x1="one")


def test_a_topic_that_nobody_knows_yet_has_no_partitions() -> None:
    assigned = share_out(Cluster(a=2), x1="one")
    assert assigned == {"x1": {"a": [0, 1], "b": []}}
