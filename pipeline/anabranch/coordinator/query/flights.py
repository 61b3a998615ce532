"""Identical misses of all partitions meet: one fetches, the others are served by it.

What happens to one query is news to others; it is told after the event that brought it, in one
loop, as telling may bring more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final, Protocol, cast

from anabranch.aggregate.join import JoinLayer
from anabranch.cache.keys import Question
from anabranch.cache.single_flight import Flights, Lead, Ticket
from anabranch.contract.events import PRIORITIES
from anabranch.coordinator.query.open_query import OpenQuery

__all__ = ["MOST_TRIES", "Listener", "SharedFetches"]

MOST_TRIES: Final = 3
"""Fetches that a layer ends with an error before all who wait are told of it."""

Place = tuple[int, int]
"""(partition, offset) of a query."""


class Listener(Protocol):
    """The open queries of a partition, which are told what others' fetches bring."""

    def on_served(self, offset: int, layer: JoinLayer, now_ms: float) -> None:
        """Another query's fetch brought a layer that this one waits for."""
        ...

    def on_leading(self, offset: int, layer: str, now_ms: float) -> None:
        """The query that fetched for this one is gone."""
        ...

    def on_forsaken(self, offset: int, now_ms: float) -> None:
        """Nobody waits any more for what is fetched for a query that is answered."""
        ...


class SharedFetches:
    """Who fetches for whom, across the partitions of this coordinator.

    Args:
        listener_of: the open queries of a partition that is ours, by its number.
    """

    def __init__(self, listener_of: Callable[[int], Listener | None]) -> None:
        self.flights = Flights()
        self._listener_of = listener_of
        self._news: deque[tuple[Place, JoinLayer | str | None]] = deque()
        """Queries that are served by a layer, have to fetch one, or that nobody waits for."""
        self._refreshes: dict[tuple[Question, str], Place] = {}
        """What is fetched anew beside a miss, and by which query."""

    def may_refresh(self, open_query: OpenQuery, layer: str) -> bool:
        """Whether a query is the first to fetch anew what it has; nobody waits for that."""
        place = open_query.key, layer
        return self._refreshes.setdefault(place, open_query.place) == open_query.place

    def must_fetch(self, open_query: OpenQuery, layer: str, now_ms: float) -> bool:
        """Whether a query has to fetch a layer itself; else it is served when it is there."""
        role = self.flights.enter(open_query.key, layer, _ticket(open_query, now_ms))
        return isinstance(role, Lead)

    def finish(self, open_query: OpenQuery, layer: JoinLayer, now_ms: float) -> None:
        """A fetched layer is over: serve those who wait for it, or let one of them lead.

        What went wrong for one may go well for the next; after a few, all are told.
        """
        key, place = open_query.key, open_query.place
        broke = layer.status != "timeout"
        if layer.whole or (broke and self._tries(open_query, layer) >= MOST_TRIES):
            for ticket in self.flights.succeed(key, layer.name, place):
                self._news.append((_place(ticket), layer))
        else:
            self._lead(self.flights.fail(key, layer.name, place, now_ms, broke=broke))

    def fail(self, open_query: OpenQuery, layer: str, now_ms: float) -> None:
        """A worker died that fetched this: who waits does not wait for that."""
        self._lead(self.flights.fail(open_query.key, layer, open_query.place, now_ms))

    def leave(
        self, open_query: OpenQuery, now_ms: float, running: Collection[str] = ()
    ) -> Collection[str]:
        """A query is over: whoever it fetched for goes on without it.

        Of the layers that are still `running` for it, those that others wait for.
        """
        key, place = open_query.key, open_query.place
        if self._refreshes:
            for name, layer in open_query.join.layers.items():
                if layer.source == "cache" and self._refreshes.get((key, name)) == place:
                    del self._refreshes[key, name]
        if not open_query.leading:
            return ()
        self._lead(self.flights.leave(key, open_query.leading, place, now_ms, running))
        self._news.extend((cast(Place, id_), None) for id_ in self.flights.forsaken())
        return self.flights.led_by(key, running, place) if running else ()

    def is_awaited(self, open_query: OpenQuery) -> bool:
        """Whether others wait for what is fetched for this one."""
        return bool(self.flights.led_by(open_query.key, open_query.leading, open_query.place))

    def drain(self, now_ms: float) -> None:
        """Tell the news, and what telling it brings: to be called after an event, not inside it."""
        while self._news:
            (number, offset), news = self._news.popleft()
            if (listener := self._listener_of(number)) is None:
                continue
            if news is None:
                listener.on_forsaken(offset, now_ms)
            elif isinstance(news, str):
                listener.on_leading(offset, news, now_ms)
            else:
                listener.on_served(offset, news, now_ms)

    def shift(self, moved_ms: float, now_ms: float) -> None:
        """The clock was set by `moved_ms` to `now_ms`."""
        self.flights.shift(moved_ms, now_ms)

    def _tries(self, open_query: OpenQuery, layer: JoinLayer) -> int:
        return self.flights.failures(open_query.key, layer.name, open_query.place) + 1

    def _lead(self, leads: Iterable[Lead]) -> None:
        self._news.extend((_place(lead.ticket), lead.layer) for lead in leads)


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
