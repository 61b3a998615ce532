"""When the next transaction of a partition may begin."""

from __future__ import annotations

import pytest

from anabranch.coordinator.delivery.transaction_interval import TransactionInterval


class Clock:
    """Seconds, in a test's hands."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def waits_s(took_s: float, peers: int) -> float:
    """Between the beginnings of two transactions, the first of which took so long."""
    clock = Clock()
    interval = TransactionInterval(clock, lambda: peers)
    interval.start()
    clock.s += took_s
    interval.finish()
    return took_s + interval.wait_s()


def test_what_comes_alone_waits_for_nobody() -> None:
    assert TransactionInterval(Clock(), lambda: 16).wait_s() == 0.0


@pytest.mark.parametrize(
    ("took_s", "peers", "between_s"),
    [
        (0.001, 1, 0.050),
        (0.001, 4, 0.050),
        (0.020, 4, 0.080),
        (0.001, 8, 0.100),
        (0.001, 16, 0.200),
        (0.100, 1, 0.250),
        (0.001, 100, 0.250),
    ],
)
def test_it_is_slower_where_transactions_take_long_or_are_many(
    took_s: float, peers: int, between_s: float
) -> None:
    assert waits_s(took_s, peers) == pytest.approx(between_s)


def test_one_that_took_longer_than_the_longest_wait_is_followed_at_once() -> None:
    assert waits_s(1.0, 1) == pytest.approx(1.0)
