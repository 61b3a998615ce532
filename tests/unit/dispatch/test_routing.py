"""Where tasks go: to the partition with the least outstanding, equals in turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anabranch.dispatch.routing import Outstanding


def test_an_idle_group_is_used_evenly() -> None:
    outstanding = Outstanding()
    chosen = [outstanding.choose("io", 4) for _ in range(8)]
    assert sorted(chosen[:4]) == sorted(chosen[4:]) == [0, 1, 2, 3]


def test_the_group_that_was_sent_to_last_is_known() -> None:
    outstanding = Outstanding()
    assert (outstanding.latest, outstanding.total("io")) == ("", 0)
    for group in ("io", "cpu"):
        outstanding.sent(group, outstanding.choose(group, 2))
        assert (outstanding.latest, outstanding.total(group)) == (group, 1)


def test_new_partitions_of_a_group_are_idle_and_those_it_had_keep_their_work() -> None:
    outstanding = Outstanding()
    outstanding.sent("io", outstanding.choose("io", 1))
    assert {outstanding.choose("io", 3) for _ in range(6)} == {1, 2}
    assert outstanding.total("io") == 1


@given(steps=st.lists(st.tuples(st.sampled_from(["io", "cpu"]), st.integers(0, 3)), max_size=60))
def test_it_is_always_the_least_loaded(steps: list[tuple[str, int]]) -> None:
    outstanding, loads = Outstanding(), {"io": [0] * 4, "cpu": [0] * 4}
    for group, ended in steps:
        chosen = outstanding.choose(group, 4)
        assert loads[group][chosen] == min(loads[group])
        outstanding.sent(group, chosen)
        loads[group][chosen] += 1
        if loads[group][ended]:
            outstanding.ended(group, ended)
            loads[group][ended] -= 1
        assert outstanding.total(group) == sum(loads[group])
