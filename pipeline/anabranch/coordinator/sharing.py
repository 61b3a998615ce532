"""Identical misses of all partitions meet: one fetches, the others are served by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, cast

from anabranch.aggregate.join import JoinLayer
from anabranch.cache.single_flight import Flights, Lead, Ticket
from anabranch.coordinator.open_query import OpenQuery
from anabranch.events import PRIORITIES

__all__ = ["Sharing", "Traveller"]

Place = tuple[int, int]
"""(partition, offset) of a query."""


class Traveller(Protocol):
    """A partition, as far as its queries travel with others'."""

    def on_served(self, offset: int, layer: JoinLayer) -> None:
        """Somebody else's fetch brought a layer that a query waits for."""
        ...

    def on_leading(self, offset: int, layer: str) -> None:
        """Nobody fetches for a query any more: it has to do it itself."""
        ...


class Sharing:
    """Who fetches for whom, across the partitions of this coordinator."""

    def __init__(self) -> None:
        self.flights = Flights()
        self.partitions: Mapping[int, Traveller] = {}

    def must_fetch(self, open_query: OpenQuery, layer: str, now_ms: float) -> bool:
        """Whether a query has to fetch a layer itself; else it is served when it is there."""
        role = self.flights.enter(open_query.key, layer, _ticket(open_query, now_ms))
        return isinstance(role, Lead)

    def ended(self, open_query: OpenQuery, layer: JoinLayer, now_ms: float) -> None:
        """A fetched layer has ended: serve those who wait for it, or let one of them lead."""
        key, place = open_query.key, open_query.place
        if layer.whole:
            for ticket in self.flights.succeed(key, layer.name, place):
                number, offset = _place(ticket)
                self.partitions[number].on_served(offset, layer)
        else:
            self._lead(self.flights.fail(key, layer.name, place, now_ms))

    def left(self, open_query: OpenQuery, now_ms: float) -> None:
        """A query is over: whoever it fetched for goes on without it."""
        self._lead(self.flights.leave(open_query.place, now_ms))

    def _lead(self, leads: Iterable[Lead]) -> None:
        for lead in leads:
            number, offset = _place(lead.ticket)
            if (partition := self.partitions.get(number)) is not None:
                partition.on_leading(offset, lead.layer)


def _place(ticket: Ticket) -> Place:
    return cast(Place, ticket.id)


def _ticket(open_query: OpenQuery, now_ms: float) -> Ticket:
    query = open_query.query
    return Ticket(
        id=open_query.place,
        limit=query.limit,
        urgency=len(PRIORITIES) - PRIORITIES.index(query.priority),
        generation=open_query.generation,
        asked_ms=now_ms,
        deadline_ms=open_query.deadline_ms,
        max_age_ms=query.max_age_ms,
    )
