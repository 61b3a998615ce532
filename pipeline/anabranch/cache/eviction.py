"""Who has to go when the cache is full.

`S3Fifo` starts from Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023): a
small queue on probation, a main queue, and ghosts, a memory of what was let go. Instead of giving
second chances it lets what leaves probation duel with the weakest of the main queue, by frequency
times worth; the idea is TinyLFU's (Einziger et al., 2017). `Lru` is kept to compare with.
`benchmarks/cache_traces.py` has the figures.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from msgspec import Struct

from anabranch.cache.keys import Question

__all__ = ["Entry", "Lru", "Policy", "S3Fifo"]


class Entry(Struct, gc=False, eq=False):
    """What a policy knows of something held. `hits` is the cache's, all else the policy's.

    Attributes:
        seen_hits: hits when the policy last looked.
        seen_tick: when it last found more hits than before.
        carried: added to the hits: what was counted before it came, less what is forgotten.
    """

    key: Question | str
    hits: int = 0
    seen_hits: int = 0
    seen_tick: int = 0
    born: int = 0
    carried: int = 0
    queue: int = 0

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

_SMALL_SHARE: Final = 0.01
_SAMPLE: Final = 8
"""So many of the main queue are looked at to find a weak one; the weakest stays in front."""
_GHOSTS: Final = 8
"""Ghosts by entry that can be held; six bytes each."""
_KNOWN: Final = 4
"""Hits from which on an entry's usual gap is believed."""
_SILENT: Final = 3
"""Usual gaps without a hit after which an entry is silent: e^-3 of those asked at random are."""
_DEAD: Final = 30
"""Usual gaps after which it is forgotten how often it was asked."""
_CHANGED: Final = 0.3
"""Share of silent entries among the last `_WATCHED` above which the world has changed."""
_WATCHED: Final = 200


class S3Fifo(Generic[E]):
    """Small queue, main queue, ghosts: frequency x worth decides, and is forgotten with reason.

    Until the first eviction everything goes to the main queue: a loop larger than the cache
    would otherwise push itself out of the small one for ever. Time is counted in returns (of what
    was let go), so a scan of things never asked again takes none. Frequencies are never aged; but
    when much of what used to be asked falls silent, all of them are forgotten at once.

    Args:
        max_entries: that will be held; sizes the memory of what was let go.
    """

    touch: Callable[[E], None] | None = None

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._queues: tuple[deque[E], deque[E]] = (deque(), deque())
        self._live = [0, 0, 0]
        self._ghosts = _Ghosts(_GHOSTS * max_entries)
        self._warm = False
        self._tick = 0
        self._changed_tick = 0
        self._watched = 0
        self._silent_share = 0.0

    def add(self, entry: E) -> None:
        frequency = self._ghosts.pop(entry.key)
        self._tick += frequency > 0
        entry.carried = frequency + 1
        entry.born = entry.seen_tick = self._tick
        self._push(entry, _SMALL if self._warm else _MAIN)

    def remove(self, entry: E) -> None:
        queue = entry.queue
        self._let_go(entry)
        self._live[queue] -= 1
        order = self._queues[queue - 1]
        if len(order) > 2 * self._live[queue] + 16:
            alive = [e for e in order if e.queue == queue]
            order.clear()
            order.extend(alive)

    def evict(self) -> E:
        self._warm = True
        while self._live[_MAIN]:
            weakest, score = self._pop_weakest()
            if self._live[_SMALL] <= _SMALL_SHARE * (self._live[_SMALL] + self._live[_MAIN]):
                return self._let_go(weakest)
            self._push(weakest, _MAIN, front=True)
            newcomer = self._pop(_SMALL)
            if self._frequency(newcomer) * newcomer.worth <= score:
                return self._let_go(newcomer)
            self._push(newcomer, _MAIN)
        return self._let_go(self._pop(_SMALL))

    def __len__(self) -> int:
        return sum(self._live)

    def _pop_weakest(self) -> tuple[E, float]:
        """The others of the sample go to the end, in their order."""
        order = self._queues[_MAIN - 1]
        take, frequency = order.popleft, self._frequency
        sample: list[E] = []
        scores: list[float] = []
        for _ in range(min(_SAMPLE, self._live[_MAIN])):
            entry = take()
            while entry.queue != _MAIN:
                entry = take()
            sample.append(entry)
            scores.append(frequency(entry) * entry.worth)
        score = min(scores)
        weakest = sample.pop(scores.index(score))
        self._live[_MAIN] -= 1
        order.extend(sample)
        return weakest, score

    def _frequency(self, entry: E) -> int:
        """How often it was asked, as far as that still says something."""
        hits = entry.hits
        if hits != entry.seen_hits:
            entry.seen_hits = hits
            entry.seen_tick = self._tick
        if entry.born < self._changed_tick:
            self._forget(entry, self._changed_tick)
        # asked as often since it was born, and not only before
        if hits >= _KNOWN and (asked := min(hits, entry.carried + hits - 1)) >= _KNOWN:
            gap = (max(0, entry.seen_tick - entry.born) + self._max_entries) / (asked + 1)
            silence = self._tick - entry.seen_tick
            self._watch(silence > _SILENT * gap)
            if silence > _DEAD * gap:
                self._forget(entry, self._tick)
        return entry.carried + hits

    def _watch(self, silent: bool) -> None:
        self._watched += 1
        self._silent_share += (silent - self._silent_share) / min(self._watched, _WATCHED)
        if self._watched >= _WATCHED and self._silent_share > _CHANGED:
            self._watched = 0
            self._silent_share = 0.0
            self._changed_tick = self._tick
            self._ghosts.fade()

    def _forget(self, entry: E, tick: int) -> None:
        """It counts as asked once, and born at `tick`."""
        entry.carried = 1 - entry.hits
        entry.born = tick

    def _push(self, entry: E, queue: int, *, front: bool = False) -> None:
        entry.queue = queue
        self._live[queue] += 1
        order = self._queues[queue - 1]
        if front:
            order.appendleft(entry)
        else:
            order.append(entry)

    def _pop(self, queue: int) -> E:
        order = self._queues[queue - 1]
        while True:
            entry = order.popleft()
            if entry.queue == queue:
                self._live[queue] -= 1
                entry.queue = _GONE
                return entry

    def _let_go(self, entry: E) -> E:
        entry.queue = _GONE
        frequency = 1 if entry.born < self._changed_tick else entry.carried + entry.hits
        self._ghosts.put(entry.key, frequency)
        return entry


class _Ghosts:
    """Frequencies of what was let go, in a table where later ones overwrite earlier ones.

    It is made when the first goes: six bytes by place, which a cache that is never full need not
    have.
    """

    def __init__(self, size: int) -> None:
        self._mask = (1 << (size - 1).bit_length()) - 1
        self._tags = self._counts = array("I")

    def pop(self, key: Question | str) -> int:
        if not self._tags:
            return 0
        place, tag = self._place(key)
        if self._tags[place] != tag:
            return 0
        count = self._counts[place]
        self._counts[place] = 0
        return count

    def put(self, key: Question | str, frequency: int) -> None:
        if not self._tags:
            self._tags = array("I", bytes(4 * (self._mask + 1)))
            self._counts = array("H", bytes(2 * (self._mask + 1)))
        place, tag = self._place(key)
        self._tags[place] = tag
        self._counts[place] = min(frequency, 0xFFFF)

    def fade(self) -> None:
        """Forget how often, not that."""
        self._counts = array("H", [min(count, 1) for count in self._counts])

    def _place(self, key: Question | str) -> tuple[int, int]:
        hashed = hash(key)
        return hashed & self._mask, hashed >> 24 & 0xFFFFFFFF
