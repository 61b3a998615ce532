"""Identical misses meet: of those who need a layer's result one fetches it, the rest wait.

Whoever joins a flight gets what it would have got alone: as many items, as soon, as fresh, with
about as much time. A layer of a question has a few flights at most; for whom none of them is good
enough, that one fetches for itself alone. Pure state: nobody is woken here. The caller fetches for
whoever leads, tells how it ended, and sends off every waiter at its own deadline (`leave`). A
waiter never waits for nobody: when its leader is gone and nothing comes of its fetch, one of the
waiters leads, and the caller is told which.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Hashable, Iterable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from anabranch.cache.keys import Question
from anabranch.runtime.clock import moved

__all__ = ["Flights", "Join", "Lead", "Ticket"]

_MOST_FLIGHTS: Final = 16
"""Of one layer of one question."""
_MOST_GONE: Final = 16
"""Heirs that are gone and may lie about, beside as many as there are waiters."""
_TIME_SHARE: Final = 0.9
"""Share of the time that a query has which a flight must have had in all, to be joined: what comes
in time for the query alone comes in time for the flight. The rest is what reading a batch may make
of equal timeouts, or each of the batch would fetch for itself."""


class Ticket(Struct, frozen=True, gc=False):
    """A query that misses layers, as far as meeting others goes.

    Attributes:
        id: names the query, such as (partition, offset).
        limit: items that it wants.
        urgency: the higher, the sooner its tasks are done (CRITICAL 3 .. LOW 0).
        generation: offset to which `control` had been read when it looked up.
        asked_ms: when it looked up.
        deadline_ms: when it stops waiting.
        max_age_ms: how long before `asked_ms` a fetch may have begun; None is any time.
    """

    id: Hashable
    limit: int
    urgency: int
    generation: int
    asked_ms: float
    deadline_ms: float
    max_age_ms: int | None = None

    def shifted(self, moved_ms: float, now_ms: float) -> Ticket:
        """The same, now that the clock was set by `moved_ms` to `now_ms`."""
        return replace(
            self,
            asked_ms=moved(self.asked_ms, moved_ms, now_ms),
            deadline_ms=moved(self.deadline_ms, moved_ms, now_ms),
        )

    def may_join(self, leader: Ticket, started_ms: float, now_ms: float) -> bool:
        """Whether what `leader` fetches, begun at `started_ms`, is good enough for this one."""
        return (
            leader.deadline_ms - started_ms >= _TIME_SHARE * (self.deadline_ms - now_ms)
            and leader.limit >= self.limit
            and leader.urgency >= self.urgency
            and leader.generation >= self.generation
            and (self.max_age_ms is None or started_ms >= self.asked_ms - self.max_age_ms)
        )


class Lead(Struct, frozen=True, gc=False):
    """Fetch a layer: for the ticket itself, and for whoever waits for it."""

    key: Question
    layer: str
    ticket: Ticket


class Join(Struct, frozen=True, gc=False):
    """Wait for what `leader` fetches."""

    key: Question
    layer: str
    ticket: Ticket
    leader: Ticket


class _Waiters:
    """Who waits for a flight; heirs are found without looking at everybody."""

    def __init__(self) -> None:
        self.tickets: dict[Hashable, Ticket] = {}
        self._heirs: list[tuple[float, int, Ticket]] = []
        """Whoever waits, most time left first, and some who have left."""
        self._boarded = 0
        self._wants = (0, 0, 0)
        """What a leader needs at most to be good enough for everybody."""

    def add(self, ticket: Ticket) -> None:
        """One more waits."""
        self.tickets[ticket.id] = ticket
        self._boarded += 1
        heapq.heappush(self._heirs, (-ticket.deadline_ms, self._boarded, ticket))
        limit, urgency, generation = self._wants
        self._wants = (
            max(limit, ticket.limit),
            max(urgency, ticket.urgency),
            max(generation, ticket.generation),
        )

    def remove(self, ticket: Hashable) -> bool:
        """One waits no more; False if it did not wait here."""
        if self.tickets.pop(ticket, None) is None:
            return False
        if len(self._heirs) > 2 * len(self.tickets) + _MOST_GONE:
            self._heirs = [heir for heir in self._heirs if self.tickets.get(heir[2].id) is heir[2]]
            heapq.heapify(self._heirs)
        return True

    def heir(self) -> Ticket | None:
        """Who has most time left of those who wait."""
        while self._heirs:
            ticket = self._heirs[0][2]
            if self.tickets.get(ticket.id) is ticket:
                return ticket
            heapq.heappop(self._heirs)
        return None

    def are_suited_by(self, leader: Ticket) -> bool:
        """Whether everybody may wait for what this one begins to fetch."""
        limit, urgency, generation = self._wants
        return (
            leader.limit >= limit and leader.urgency >= urgency and leader.generation >= generation
        )


class _Flight(Struct):
    """A fetch under way; most are for their leader alone.

    Attributes:
        failures: fetches for those who wait that the layer itself ended without a result.
        orphaned: its leader needs it no more: it is for those who wait.
    """

    leader: Ticket
    started_ms: float
    failures: int = 0
    orphaned: bool = False
    waiters: _Waiters | None = None

    @property
    def waiting(self) -> tuple[Ticket, ...]:
        """Whoever waits."""
        return tuple(self.waiters.tickets.values()) if self.waiters is not None else ()

    @property
    def is_awaited(self) -> bool:
        """Whether anybody does."""
        return self.waiters is not None and bool(self.waiters.tickets)

    def board(self, ticket: Ticket) -> None:
        """One more waits."""
        if self.waiters is None:
            self.waiters = _Waiters()
        self.waiters.add(ticket)

    def leave(self, ticket: Hashable) -> bool:
        """One waits no more; False if it did not wait here."""
        return self.waiters is not None and self.waiters.remove(ticket)

    def has(self, ticket: Hashable) -> bool:
        """Whether it leads or waits here."""
        return self.leader.id == ticket or (
            self.waiters is not None and ticket in self.waiters.tickets
        )

    def pass_to(self, heir: Ticket, now_ms: float) -> None:
        """One of those who wait begins to fetch."""
        self.leave(heir.id)
        self.leader, self.started_ms, self.orphaned = heir, now_ms, False

    def shift(self, moved_ms: float, now_ms: float) -> None:
        """The clock was set: everybody has as much time left as before."""
        self.leader = self.leader.shifted(moved_ms, now_ms)
        self.started_ms = moved(self.started_ms, moved_ms, now_ms)
        waiting, self.waiters = self.waiting, None
        for ticket in waiting:
            self.board(ticket.shifted(moved_ms, now_ms))


Place = tuple[Question, str]


class Flights:
    """Who fetches what, and who waits for it, by question and layer."""

    def __init__(self) -> None:
        self._flights: dict[Place, list[_Flight]] = {}
        self._forsaken: list[Hashable] = []
        self.joined = 0
        """Fetches that were spared so far: tickets that waited and were served."""

    def enter(self, key: Question, layer: str, ticket: Ticket) -> Lead | Join:
        """Find out whether a query has to fetch a layer or may wait.

        Raises:
            ValueError: it is there already.
        """
        place = (key, layer)
        flights = self._flights.get(place)
        if flights is None:
            self._flights[place] = [_Flight(ticket, ticket.asked_ms)]
            return Lead(key, layer, ticket)
        if any(flight.has(ticket.id) for flight in flights):
            raise ValueError(f"{ticket.id} has entered for {layer} before")
        return self._board(place, ticket, ticket.asked_ms)

    def succeed(self, key: Question, layer: str, leader: Hashable) -> tuple[Ticket, ...]:
        """The leader's result is there: end its flight, and say who is served by it."""
        flight = self._end((key, layer), leader)
        if flight is None or flight.waiters is None:
            return ()
        served = flight.waiting
        self.joined += len(served)
        return served

    def fail(
        self, key: Question, layer: str, leader: Hashable, now_ms: float, *, broke: bool = False
    ) -> tuple[Lead, ...]:
        """The leader gets no result: end its flight, and say who fetches now.

        `broke`: the layer itself said so, which counts for those who go on (`failures`).

        The waiter with most time left leads, unless another flight is good enough for it. More
        than one leads if that is not good enough for all of them. Whose own deadline has come as
        well is neither: it waits for nothing any more.
        """
        place = (key, layer)
        flight = self._end(place, leader)
        if flight is None or flight.waiters is None:
            return ()
        flight.failures += broke
        heir = flight.waiters.heir()
        if heir is None or heir.deadline_ms <= now_ms or not flight.waiters.are_suited_by(heir):
            return self._board_anew(place, flight, now_ms)
        others = self._flights.setdefault(place, [])
        if any(heir.may_join(other.leader, other.started_ms, now_ms) for other in others):
            return self._board_anew(place, flight, now_ms)
        flight.pass_to(heir, now_ms)
        others.append(flight)
        return (Lead(*place, heir),)

    def failures(self, key: Question, layer: str, leader: Hashable) -> int:
        """Fetches before this one, for those who wait now, that the layer itself ended."""
        flight = self._led(key, layer, leader)
        return flight.failures if flight is not None else 0

    def leave(
        self,
        key: Question,
        layers: Iterable[str],
        ticket: Hashable,
        now_ms: float,
        running: Collection[str] = (),
    ) -> tuple[Lead, ...]:
        """A query is answered, cancelled, or at its deadline: it neither waits nor leads.

        `layers` are those for which it has entered. Returns who fetches now what it led. But a
        fetch of layers that are `running` goes on for those who wait: the flight outlives its
        leader, until the caller tells how it ended or that the query leaves again, or nobody waits
        any more (`forsaken`).
        """
        leads: list[Lead] = []
        for layer in layers:
            if (key, layer) not in self._flights:
                continue
            led = self._led(key, layer, ticket)
            if led is None:
                self._stop_waiting((key, layer), ticket)
            elif layer in running and led.is_awaited:
                led.orphaned = True
            else:
                leads += self.fail(key, layer, ticket, now_ms)
        return tuple(leads)

    def forsaken(self) -> list[Hashable]:
        """Who left before with a fetch running that nobody waits for now; each is told once."""
        found, self._forsaken = self._forsaken, []
        return found

    def shift(self, moved_ms: float, now_ms: float) -> None:
        """The clock was set by `moved_ms` to `now_ms`."""
        for flights in self._flights.values():
            for flight in flights:
                flight.shift(moved_ms, now_ms)

    def led_by(self, key: Question, layers: Iterable[str], ticket: Hashable) -> set[str]:
        """Those of `layers` that a query fetches for others too, or might."""
        return {layer for layer in layers if self._led(key, layer, ticket) is not None}

    def waiting(self, key: Question, layer: str, leader: Hashable) -> tuple[Ticket, ...]:
        """Who waits for what a leader fetches."""
        flight = self._led(key, layer, leader)
        return flight.waiting if flight is not None else ()

    def __len__(self) -> int:
        return sum(map(len, self._flights.values()))

    def _led(self, key: Question, layer: str, leader: Hashable) -> _Flight | None:
        for flight in self._flights.get((key, layer), ()):
            if flight.leader.id == leader:
                return flight
        return None

    def _board(self, place: Place, ticket: Ticket, now_ms: float, failures: int = 0) -> Lead | Join:
        """The latest flight is looked at first: it is the likeliest to have time enough."""
        flights = self._flights.setdefault(place, [])
        for flight in reversed(flights):
            if ticket.may_join(flight.leader, flight.started_ms, now_ms):
                flight.board(ticket)
                return Join(*place, ticket, flight.leader)
        if len(flights) < _MOST_FLIGHTS:
            flights.append(_Flight(ticket, now_ms, failures))
        return Lead(*place, ticket)

    def _board_anew(self, place: Place, flight: _Flight, now_ms: float) -> tuple[Lead, ...]:
        """Everybody who waited looks for another flight, those with most time left first."""
        boarded = [
            self._board(place, ticket, now_ms, flight.failures)
            for ticket in sorted(flight.waiting, key=lambda ticket: -ticket.deadline_ms)
            if ticket.deadline_ms > now_ms
        ]
        return tuple(role for role in boarded if isinstance(role, Lead))

    def _end(self, place: Place, leader: Hashable) -> _Flight | None:
        flights = self._flights.get(place, ())
        for n, flight in enumerate(flights):
            if flight.leader.id == leader:
                if len(flights) == 1:
                    del self._flights[place]
                else:
                    del self._flights[place][n]
                return flight
        return None

    def _stop_waiting(self, place: Place, ticket: Hashable) -> None:
        for flight in self._flights[place]:
            if flight.leave(ticket):
                if flight.orphaned and not flight.is_awaited:
                    self._forsaken.append(flight.leader.id)
                    self._end(place, flight.leader.id)
                return
