"""Identical misses meet: one fetches, the rest wait, and nobody waits for nobody."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from anabranch.cache import single_flight
from anabranch.cache.keys import make_key
from anabranch.cache.single_flight import Flights, Join, Lead, Ticket

KEY = make_key("factual", "", {"text": "why"})
OTHER = make_key("factual", "", {"text": "who"})


LAYERS = ("graph", "semantic")


def leave(
    flights: Flights, id: int, now_ms: float, running: Collection[str] = ()
) -> tuple[Lead, ...]:
    return flights.leave(KEY, LAYERS, id, now_ms, running)


def ticket(id: int, **changes: Any) -> Ticket:
    fields: dict[str, Any] = {
        "limit": 20, "urgency": 1, "generation": 5, "asked_ms": 0.0, "deadline_ms": 1_000.0,
    }  # fmt: skip
    return Ticket(id, **(fields | changes))


def test_the_first_to_miss_leads_and_the_next_joins_it() -> None:
    flights = Flights()
    assert flights.enter(KEY, "graph", ticket(1)) == Lead(KEY, "graph", ticket(1))
    assert flights.enter(KEY, "graph", ticket(2)) == Join(KEY, "graph", ticket(2), ticket(1))


def test_other_layers_and_other_questions_fly_apart() -> None:
    flights = Flights()
    flights.enter(KEY, "graph", ticket(1))
    assert isinstance(flights.enter(KEY, "semantic", ticket(2)), Lead)
    assert isinstance(flights.enter(OTHER, "graph", ticket(3)), Lead)


@pytest.mark.parametrize(
    ("changes", "joins"),
    [
        ({"limit": 20}, True),
        ({"limit": 21}, False),
        ({"urgency": 0}, True),
        ({"urgency": 2}, False),
        ({"generation": 4}, True),
        ({"generation": 6}, False),
        ({"asked_ms": 100.0, "max_age_ms": None}, True),
        ({"asked_ms": 100.0, "max_age_ms": 100}, True),
        ({"asked_ms": 100.0, "max_age_ms": 99}, False),
        ({"asked_ms": 0.0, "max_age_ms": 0}, True),
        ({"asked_ms": 1.0, "max_age_ms": 0}, False),
        ({"deadline_ms": 1_100.0}, True),
        ({"deadline_ms": 1_112.0}, False),
        ({"asked_ms": 990.0, "deadline_ms": 1_990.0}, True),
        ({"asked_ms": 990.0, "deadline_ms": 2_990.0}, False),
        ({"deadline_ms": 1.0}, True),
    ],
)
def test_a_flight_is_joined_only_if_it_is_good_enough(changes: dict[str, Any], joins: bool) -> None:
    flights = Flights()
    flights.enter(KEY, "graph", ticket(1))
    assert isinstance(flights.enter(KEY, "graph", ticket(2, **changes)), Join) is joins


def test_a_second_flight_takes_those_whom_the_first_does_not_serve() -> None:
    flights = Flights()
    flights.enter(KEY, "graph", ticket(1, limit=5))
    flights.enter(KEY, "graph", ticket(2, limit=50))
    joined = flights.enter(KEY, "graph", ticket(3, limit=20))
    assert isinstance(joined, Join)
    assert joined.leader.id == 2


def test_a_result_serves_all_who_wait() -> None:
    flights = Flights()
    for id in (1, 2, 3):
        flights.enter(KEY, "graph", ticket(id))
    assert [t.id for t in flights.succeed(KEY, "graph", 1)] == [2, 3]
    assert len(flights) == 0
    assert flights.joined == 2


def test_a_result_that_nobody_leads_to_serves_nobody() -> None:
    flights = Flights()
    flights.enter(KEY, "graph", ticket(1))
    flights.enter(KEY, "graph", ticket(2))
    assert flights.succeed(KEY, "graph", 2) == ()
    assert flights.succeed(OTHER, "graph", 1) == ()
    assert [t.id for t in flights.waiting(KEY, "graph", 1)] == [2]


def test_after_a_failure_the_waiter_with_most_time_left_leads() -> None:
    flights = Flights()
    for id, asked_ms in ((1, 0.0), (2, 200.0), (3, 350.0), (4, 300.0)):
        late = ticket(id, asked_ms=asked_ms, deadline_ms=asked_ms + 1_000)
        flights.enter(KEY, "graph", late)
    (lead,) = flights.fail(KEY, "graph", 1, 400.0)
    assert lead.ticket.id == 3
    assert {t.id for t in flights.waiting(KEY, "graph", 3)} == {4, 2}


def test_a_failure_without_waiters_ends_the_flight() -> None:
    flights = Flights()
    flights.enter(KEY, "graph", ticket(1))
    assert flights.fail(KEY, "graph", 1, 10.0) == ()
    assert isinstance(flights.enter(KEY, "graph", ticket(2)), Lead)


def test_waiters_for_whom_the_new_leader_is_not_good_enough_fetch_themselves() -> None:
    flights = Flights()
    flights.enter(KEY, "graph", ticket(1, limit=50))
    flights.enter(KEY, "graph", ticket(2, limit=10, deadline_ms=1_100.0))
    flights.enter(KEY, "graph", ticket(3, limit=50))
    leads = flights.fail(KEY, "graph", 1, 10.0)
    assert [lead.ticket.id for lead in leads] == [2, 3]


def test_a_hand_over_prefers_a_flight_that_is_under_way_already() -> None:
    flights = Flights()
    flights.enter(KEY, "graph", ticket(1))
    flights.enter(KEY, "graph", ticket(2))
    flights.enter(KEY, "graph", ticket(3, limit=50))
    assert flights.fail(KEY, "graph", 1, 10.0) == ()
    assert [t.id for t in flights.waiting(KEY, "graph", 3)] == [2]


def test_a_flight_handed_over_counts_as_begun_at_that_moment() -> None:
    flights = Flights()
    flights.enter(KEY, "graph", ticket(1))
    flights.enter(KEY, "graph", ticket(2))
    flights.fail(KEY, "graph", 1, 300.0)
    late = ticket(3, asked_ms=350.0, max_age_ms=100)
    assert isinstance(flights.enter(KEY, "graph", late), Join)


def test_a_waiter_that_leaves_is_not_served() -> None:
    flights = Flights()
    for id in (1, 2, 3):
        flights.enter(KEY, "graph", ticket(id))
    assert leave(flights, 2, 10.0) == ()
    assert [t.id for t in flights.succeed(KEY, "graph", 1)] == [3]


def test_a_leader_that_leaves_hands_over_everything_it_led() -> None:
    flights = Flights()
    for layer in ("graph", "semantic"):
        flights.enter(KEY, layer, ticket(1))
        flights.enter(KEY, layer, ticket(2))
    leads = leave(flights, 1, 10.0)
    assert {(lead.layer, lead.ticket.id) for lead in leads} == {("graph", 2), ("semantic", 2)}


def test_one_query_may_lead_one_layer_and_wait_for_another() -> None:
    flights = Flights()
    flights.enter(KEY, "graph", ticket(1))
    flights.enter(KEY, "graph", ticket(2))
    flights.enter(KEY, "semantic", ticket(2))
    assert leave(flights, 2, 10.0) == ()
    assert flights.waiting(KEY, "graph", 1) == ()
    assert len(flights) == 1


def test_leaving_without_having_entered_changes_nothing() -> None:
    assert leave(Flights(), 1, 0.0) == ()


def test_entering_twice_is_refused() -> None:
    flights = Flights()
    flights.enter(KEY, "graph", ticket(1))
    with pytest.raises(ValueError, match="before"):
        flights.enter(KEY, "graph", ticket(1))


def test_whose_own_deadline_has_come_does_not_begin_to_fetch() -> None:
    flights = Flights()
    for id, deadline_ms in ((1, 500.0), (2, 500.0), (3, 499.0)):
        flights.enter(KEY, "graph", ticket(id, deadline_ms=deadline_ms))
    assert leave(flights, 1, 500.0) == ()
    assert len(flights) == 0
    assert leave(flights, 2, 500.0) == ()


def test_of_many_who_suit_nobody_each_fetches_for_itself() -> None:
    flights = Flights()
    for id in range(100):
        assert isinstance(flights.enter(KEY, "graph", ticket(id, limit=1 + id)), Lead)
    assert len(flights) == single_flight._MOST_FLIGHTS
    assert leave(flights, 99, 10.0) == ()
    assert leave(flights, 0, 10.0) == ()


def test_handing_over_and_leaving_look_at_few() -> None:
    """Twice as many who wait cost twice as much, whoever leaves first."""
    costs = [_comparisons(count) for count in (500, 1_000)]
    assert costs[1] < 3 * costs[0]


def _comparisons(count: int) -> int:
    """How often one ticket is compared with another while all of them lead in turn."""
    compared = 0

    class Counted(Ticket, frozen=True, gc=False):
        def may_join(self, leader: Ticket, started_ms: float, now_ms: float) -> bool:
            nonlocal compared
            compared += 1
            return super().may_join(leader, started_ms, now_ms)

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return self is other

        __hash__ = None  # type: ignore[assignment]

    flights = Flights()
    for id in range(count):
        base = ticket(id, deadline_ms=1_000.0 + count - id)
        flights.enter(KEY, "graph", Counted(*(getattr(base, f) for f in base.__struct_fields__)))
    for id in range(count):
        leave(flights, id, 10.0)
    assert len(flights) == 0
    return compared


def test_a_flight_outlives_its_leader_while_its_fetch_runs() -> None:
    flights = Flights()
    for id in (1, 2, 3):
        flights.enter(KEY, "graph", ticket(id))
    assert leave(flights, 1, 10.0, {"graph"}) == ()
    assert flights.led_by(KEY, LAYERS, 1) == {"graph"}
    assert isinstance(flights.enter(KEY, "graph", ticket(4)), Join)
    assert [t.id for t in flights.succeed(KEY, "graph", 1)] == [2, 3, 4]
    assert flights.led_by(KEY, LAYERS, 1) == set()


def test_a_flight_for_nobody_ends_with_its_leader() -> None:
    flights = Flights()
    flights.enter(KEY, "graph", ticket(1))
    assert leave(flights, 1, 10.0, {"graph"}) == ()
    assert len(flights) == 0


def test_failures_are_remembered_for_those_who_go_on() -> None:
    flights = Flights()
    for id in range(4):
        flights.enter(KEY, "graph", ticket(id, limit=50 if id == 3 else 20 + id))
    assert flights.failures(KEY, "graph", 3) == 0
    flights.enter(KEY, "graph", ticket(4, limit=50))
    (lead,) = flights.fail(KEY, "graph", 3, 10.0, broke=True)
    assert flights.failures(KEY, "graph", lead.ticket.id) == 1
    assert flights.failures(KEY, "graph", 0) == 0


class FlightsMachine(RuleBasedStateMachine):
    """Queries that come, are served, fail and leave in any order, checked against a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.flights = Flights()
        self.now_ms = 0.0
        self.tickets: dict[int, Ticket] = {}
        self.leads: dict[int, float] = {}
        """Who was told to fetch, and when."""
        self.outlived: set[int] = set()
        """Who was answered while its fetch runs on for others."""
        self.follows: dict[int, int] = {}
        """Who was told to wait, or found to be waiting: for whom."""
        self.since: dict[int, float] = {}
        """When it was found good enough."""
        self.next_id = 0

    @rule(
        limit=st.sampled_from([5, 20, 50]),
        urgency=st.integers(0, 3),
        generation=st.integers(0, 2),
        left_ms=st.integers(1, 1_000),
        max_age_ms=st.sampled_from([None, 0, 10, 1_000]),
    )
    def enter(
        self, limit: int, urgency: int, generation: int, left_ms: int, max_age_ms: int | None
    ) -> None:
        self.next_id += 1
        new = Ticket(
            self.next_id, limit, urgency, generation, self.now_ms, self.now_ms + left_ms, max_age_ms
        )
        role = self.flights.enter(KEY, "graph", new)
        self.tickets[new.id] = new
        if isinstance(role, Join):
            assert role.leader.id in self.leads
            self.follows[new.id] = role.leader.id
            self.since[new.id] = self.now_ms
        else:
            able = [id for id in self.leads if self._suits(id, new, self.now_ms)]
            assert not able, "it fetches although a flight was good enough"
            self._leads(new.id)

    @rule(step_ms=st.integers(1, 50))
    def time_passes(self, step_ms: int) -> None:
        self.now_ms += step_ms

    @precondition(lambda self: self.leads)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        leader = data.draw(st.sampled_from(sorted(self.leads)))
        served = self.flights.succeed(KEY, "graph", leader)
        assert {t.id for t in served} == {w for w, by in self.follows.items() if by == leader}
        for waiter in served:
            assert self._suits(leader, waiter, self.since[waiter.id])
            del self.follows[waiter.id]
        del self.leads[leader]

    @precondition(lambda self: self.leads)
    @rule(data=st.data())
    def outlive(self, data: st.DataObject) -> None:
        """The leader is answered; its fetch goes on, if anybody waits for it."""
        leader = data.draw(st.sampled_from(sorted(self.leads)))
        assert leave(self.flights, leader, self.now_ms, {"graph"}) == ()
        self.outlived.add(leader)
        self._forsake()

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), leaves=st.booleans())
    def fail_or_leave(self, data: st.DataObject, leaves: bool) -> None:
        present = sorted({*self.leads, *self.follows})
        if not present:
            return
        gone = data.draw(st.sampled_from(present))
        followers = [w for w, by in self.follows.items() if by == gone]
        was_leader = self.leads.pop(gone, None) is not None
        if leaves:
            leads = leave(self.flights, gone, self.now_ms)
            if self.follows.pop(gone, None) is not None:
                self._forsake()
        else:
            leads = self.flights.fail(KEY, "graph", gone, self.now_ms)
        assert was_leader or not leads
        for lead in leads:
            assert lead.ticket.id in followers
            assert lead.ticket.deadline_ms > self.now_ms, "it fetches what comes too late"
            del self.follows[lead.ticket.id]
            self._leads(lead.ticket.id)
        self._find_new_leaders(followers)

    def _suits(self, leader: int, ticket: Ticket, now_ms: float) -> bool:
        return ticket.may_join(self.tickets[leader], self.leads[leader], now_ms)

    def _leads(self, id: int) -> None:
        """It fetches; for others too, unless there are as many flights as may be."""
        if len(self.leads) < single_flight._MOST_FLIGHTS:
            self.leads[id] = self.now_ms

    def _forsake(self) -> None:
        """A fetch that was only for others ends with the last of them."""
        forsaken = self.outlived & self.leads.keys() - set(self.follows.values())
        for leader in forsaken:
            del self.leads[leader]
        assert set(self.flights.forsaken()) <= forsaken

    def _find_new_leaders(self, followers: list[int]) -> None:
        for waiter in followers:
            if waiter not in self.follows:
                continue
            by = [
                leader
                for leader in self.leads
                if self.tickets[waiter] in self.flights.waiting(KEY, "graph", leader)
            ]
            if not by and self.tickets[waiter].deadline_ms <= self.now_ms:
                del self.follows[waiter]  # its own deadline has come as well
                continue
            assert len(by) == 1, "it waits for nobody"
            self.follows[waiter] = by[0]
            self.since[waiter] = self.now_ms

    @invariant()
    def each_flight_has_exactly_one_leader(self) -> None:
        assert len(self.flights) == len(self.leads)

    @invariant()
    def everyone_waits_for_one_that_fetches_what_is_good_enough(self) -> None:
        for waiter, leader in self.follows.items():
            assert self.tickets[waiter] in self.flights.waiting(KEY, "graph", leader)
            assert self._suits(leader, self.tickets[waiter], self.since[waiter])


FlightsMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestFlights = FlightsMachine.TestCase
