"""Who has to go when the cache is full.

`S3Fifo` follows Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023): a
small queue on probation, a main queue with second chances, and a memory of what left the small
one. `Lru` is kept to compare with.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from anabranch.cache.keys import Question

__all__ = ["Entry", "Lru", "Policy", "S3Fifo"]


class Entry:
    """What a policy knows of something held."""

    __slots__ = ("hits", "key", "mark", "queue")

    def __init__(self, key: Question | str) -> None:
        self.key = key
        self.hits = 0
        self.mark = 0
        """Hits that the policy has already taken into account."""
        self.queue = 0

    @property
    def worth(self) -> float:
        """What a hit saves for the room that it takes, in any unit."""
        return 1.0


E = TypeVar("E", bound=Entry)


class Policy(Protocol[E]):
    """Decides what is evicted; holds the order, never the content."""

    touch: Callable[[E], None] | None
    """To be called at every hit, where a count of hits is not enough."""

    def add(self, entry: E) -> None:
        """Take up an entry that is not held."""
        ...

    def remove(self, entry: E) -> None:
        """Forget an entry that is gone for another reason."""
        ...

    def evict(self) -> E:
        """Choose, forget and return an entry; it may be the one that came last.

        Raises:
            IndexError: nothing is held.
        """
        ...

    def __len__(self) -> int:
        """Entries held."""
        ...


class Lru(Generic[E]):
    """Least recently used."""

    def __init__(self) -> None:
        self._order: OrderedDict[Question | str, E] = OrderedDict()
        self.touch: Callable[[E], None] | None = self._touch

    def add(self, entry: E) -> None:
        self._order[entry.key] = entry

    def remove(self, entry: E) -> None:
        del self._order[entry.key]

    def evict(self) -> E:
        if not self._order:
            raise IndexError("nothing is held")
        return self._order.popitem(last=False)[1]

    def __len__(self) -> int:
        return len(self._order)

    def _touch(self, entry: E) -> None:
        self._order.move_to_end(entry.key)


_GONE: Final = 0
_SMALL: Final = 1
_MAIN: Final = 2


class S3Fifo(Generic[E]):
    """Small queue, main queue, ghosts.

    Until the first eviction everything goes to the main queue: a loop larger than the cache
    would otherwise push itself out of the small one for ever.
    """

    touch: Callable[[E], None] | None = None

    def __init__(self, small_share: float = 0.1) -> None:
        self._small_share = small_share
        self._queues: tuple[deque[E], deque[E]] = (deque(), deque())
        self._live = [0, 0, 0]
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._warm = False

    def add(self, entry: E) -> None:
        ghost = hash(entry.key)
        known = ghost in self._ghosts
        if known:
            del self._ghosts[ghost]
        self._push(entry, _SMALL if self._warm and not known else _MAIN)

    def remove(self, entry: E) -> None:
        queue = entry.queue
        self._live[queue] -= 1
        entry.queue = _GONE
        order = self._queues[queue - 1]
        if len(order) > 2 * self._live[queue] + 16:
            alive = [e for e in order if e.queue == queue]
            order.clear()
            order.extend(alive)

    def evict(self) -> E:
        self._warm = True
        while True:
            small, main = self._live[_SMALL], self._live[_MAIN]
            if small > self._small_share * (small + main) or not main:
                entry = self._pop(_SMALL)
                if entry.hits == entry.mark:
                    self._remember(entry)
                    return entry
            else:
                entry = self._pop(_MAIN)
                if entry.hits == entry.mark:
                    return entry
                entry.mark = max(entry.mark, entry.hits - 3) + 1
            self._push(entry, _MAIN)

    def __len__(self) -> int:
        return sum(self._live)

    def _push(self, entry: E, queue: int) -> None:
        entry.queue = queue
        self._live[queue] += 1
        self._queues[queue - 1].append(entry)

    def _pop(self, queue: int) -> E:
        order = self._queues[queue - 1]
        while True:
            entry = order.popleft()
            if entry.queue == queue:
                self._live[queue] -= 1
                entry.queue = _GONE
                return entry

    def _remember(self, entry: E) -> None:
        self._ghosts[hash(entry.key)] = None
        if len(self._ghosts) > self._live[_MAIN] + self._live[_SMALL]:
            self._ghosts.popitem(last=False)
