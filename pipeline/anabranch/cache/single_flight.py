"""Identical misses meet: of those who need a layer's result one fetches it, the rest wait.

Pure state: nobody is woken here. The caller fetches for whoever leads, tells how it ended, and
sends off every waiter at its own deadline (`leave`). A waiter never waits for nobody: when its
leader is gone without a result, one of the waiters leads, and the caller is told which.
"""

from __future__ import annotations

from collections.abc import Hashable

from msgspec import Struct

from anabranch.cache.keys import Question

__all__ = ["Flights", "Join", "Lead", "Ticket"]


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

    def may_join(self, leader: Ticket, started_ms: float) -> bool:
        """Whether what `leader` fetches, begun at `started_ms`, is good enough for this one."""
        return (
            leader.limit >= self.limit
            and leader.urgency >= self.urgency
            and leader.generation >= self.generation
            and (self.max_age_ms is None or started_ms >= self.asked_ms - self.max_age_ms)
        )


class Lead(Struct, frozen=True):
    """Fetch a layer: for the ticket itself, and for whoever waits for it."""

    key: Question
    layer: str
    ticket: Ticket


class Join(Struct, frozen=True):
    """Wait for what `leader` fetches."""

    key: Question
    layer: str
    ticket: Ticket
    leader: Ticket


class _Flight(Struct):
    leader: Ticket
    started_ms: float
    waiting: list[Ticket]


Place = tuple[Question, str]


class Flights:
    """Who fetches what, and who waits for it, by question and layer."""

    def __init__(self) -> None:
        self._flights: dict[Place, list[_Flight]] = {}
        self._places: dict[Hashable, set[Place]] = {}
        self.joined = 0
        """Fetches that were spared so far: tickets that waited and were served."""

    def enter(self, key: Question, layer: str, ticket: Ticket) -> Lead | Join:
        """Find out whether a query has to fetch a layer or may wait.

        Raises:
            ValueError: it is there already.
        """
        place = (key, layer)
        places = self._places.setdefault(ticket.id, set())
        if place in places:
            raise ValueError(f"{ticket.id} has entered for {layer} before")
        places.add(place)
        return self._board(place, ticket, ticket.asked_ms)

    def succeed(self, key: Question, layer: str, leader: Hashable) -> tuple[Ticket, ...]:
        """The leader's result is there: end its flight, and say who is served by it."""
        flight = self._end((key, layer), leader)
        if flight is None:
            return ()
        for ticket in flight.waiting:
            self._forget(ticket, (key, layer))
        self.joined += len(flight.waiting)
        return tuple(flight.waiting)

    def fail(self, key: Question, layer: str, leader: Hashable, now_ms: float) -> tuple[Lead, ...]:
        """The leader gets no result: end its flight, and say who fetches now.

        The waiter with most time left leads, unless another flight is good enough for it. More
        than one leads if that is not good enough for all of them.
        """
        place = (key, layer)
        flight = self._end(place, leader)
        left = sorted(flight.waiting if flight else (), key=lambda ticket: -ticket.deadline_ms)
        boarded = [self._board(place, ticket, now_ms) for ticket in left]
        return tuple(role for role in boarded if isinstance(role, Lead))

    def leave(self, ticket: Hashable, now_ms: float) -> tuple[Lead, ...]:
        """A query is answered, cancelled, or at its deadline: it neither waits nor leads.

        Returns who fetches now what it led. A query that was answered early and whose fetch
        still runs may stay until that ends.
        """
        leads: list[Lead] = []
        for place in tuple(self._places.get(ticket, ())):
            if any(flight.leader.id == ticket for flight in self._flights[place]):
                leads += self.fail(*place, ticket, now_ms)
            else:
                self._stop_waiting(place, ticket)
        return tuple(leads)

    def waiting(self, key: Question, layer: str, leader: Hashable) -> tuple[Ticket, ...]:
        """Who waits for what a leader fetches."""
        for flight in self._flights.get((key, layer), ()):
            if flight.leader.id == leader:
                return tuple(flight.waiting)
        return ()

    def __len__(self) -> int:
        return sum(map(len, self._flights.values()))

    def _board(self, place: Place, ticket: Ticket, now_ms: float) -> Lead | Join:
        flights = self._flights.setdefault(place, [])
        for flight in flights:
            if ticket.may_join(flight.leader, flight.started_ms):
                flight.waiting.append(ticket)
                return Join(*place, ticket, flight.leader)
        flights.append(_Flight(ticket, now_ms, []))
        return Lead(*place, ticket)

    def _end(self, place: Place, leader: Hashable) -> _Flight | None:
        flights = self._flights.get(place, [])
        for flight in flights:
            if flight.leader.id == leader:
                flights.remove(flight)
                if not flights:
                    del self._flights[place]
                self._forget(flight.leader, place)
                return flight
        return None

    def _stop_waiting(self, place: Place, ticket: Hashable) -> None:
        for flight in self._flights[place]:
            for waiter in flight.waiting:
                if waiter.id == ticket:
                    flight.waiting.remove(waiter)
                    self._forget(waiter, place)
                    return

    def _forget(self, ticket: Ticket, place: Place) -> None:
        places = self._places[ticket.id]
        places.discard(place)
        if not places:
            del self._places[ticket.id]
