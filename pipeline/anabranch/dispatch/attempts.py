"""Which open slot gets another attempt? The one place that answers it.

A first dispatch and the dispatch after a takeover are the same question: an open slot without
an attempt of the present epoch gets one. Retries, hedges and re-sends after a worker's death
are further reasons for the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from anabranch.aggregate.join import Join, JoinLayer

__all__ = ["Attempt", "next_attempts"]


class Attempt(NamedTuple):
    """One more try to fill a slot; `number` is (epoch, n)."""

    layer: JoinLayer
    shard: int
    number: tuple[int, int]


def next_attempts(join: Join, epoch: int) -> list[Attempt]:
    """Attempts to make now. They count as made: asking again gives only new ones."""
    return [
        _make(layer, shard, epoch)
        for layer in _eligible(join)
        for shard in layer.open_shards
        if layer.attempts.get(shard, (-1, 0))[0] < epoch
    ]


def _eligible(join: Join) -> Iterator[JoinLayer]:
    """Layers that may be asked now: all planned ones, or the first open one in sequence.

    And those that are refreshed beside them.
    """
    if join.sequence:
        first = next((n for n in join.sequence if join.layers[n].status == "open"), None)
        if first is not None:
            yield join.layers[first]
    for layer in join.layers.values():
        planned = layer.status == "open" and layer.source != "none" and not join.sequence
        if layer.refreshing or planned:
            yield layer


def _make(layer: JoinLayer, shard: int, epoch: int) -> Attempt:
    number = layer.attempts[shard] = (epoch, 1)
    return Attempt(layer, shard, number)
