"""Finds out what dead workers had, so that a question that kills them is quarantined."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from anabranch.coordinator.query.crash_tracker import CrashTracker
from anabranch.coordinator.query.open_query import OpenQuery
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.dispatch.group_health import GroupHealth
from anabranch.dispatch.routing import Route

__all__ = ["WorkerCrashes"]

_MOST_READERS: Final = 2
"""Dead at once who may have read one partition of tasks: it has one reader at a time, and a
rebalance may have moved it; who pretends to be more is not believed."""


class _Outstanding(NamedTuple):
    partition: QueryPartition
    open_query: OpenQuery


class WorkerCrashes:
    """Lays deaths of workers to the questions that they had.

    Args:
        partitions: those that are ours; followed as they change.
    """

    def __init__(
        self,
        members: GroupHealth,
        crashes: CrashTracker,
        partitions: Mapping[int, QueryPartition],
    ) -> None:
        self._members = members
        self._crashes = crashes
        self._partitions = partitions

    def look(self, now_ms: float) -> None:
        """Mark what workers had that died lately, and give up what is quarantined now."""
        self._crashes.returned(*[member.instance for member in self._members.returned()])
        dead = self._members.deaths()
        tasks = self._by_route() if dead else {}
        readers: Counter[Route] = Counter()
        for member, until_ms in dead:
            routes = {(member.group, number) for number in member.partitions}
            if self._crashes.explains(routes, until_ms):
                continue
            read = {route for route in routes & tasks.keys() if readers[route] < _MOST_READERS}
            readers.update(read)
            had = _distinct(it for route in read for it in tasks[route])
            had = [
                it
                for it in had
                if it.open_query.read_ms <= until_ms and it.open_query.layers_at(read)
            ]
            questions: dict[str, set[str]] = {}
            for _, open_query in had:
                layers = questions.setdefault(open_query.digest, set())
                layers.update(open_query.layers_at(read))
            self._crashes.died(member.instance, questions, now_ms)
            for partition, open_query in had:
                partition.on_death(open_query, read, now_ms)

    def _by_route(self) -> dict[Route, list[_Outstanding]]:
        """Queries by where something of them is outstanding."""
        tasks: defaultdict[Route, list[_Outstanding]] = defaultdict(list)
        for partition in self._partitions.values():
            if partition.held:
                continue
            for open_query in partition.queries.fetching():
                for route in set(open_query.routes.values()):
                    tasks[route].append(_Outstanding(partition, open_query))
        return tasks


def _distinct(found: Iterable[_Outstanding]) -> list[_Outstanding]:
    return list({it.open_query: it for it in found}.values())
