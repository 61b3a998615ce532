"""Which open slot gets another attempt? The one place that answers it.

A first dispatch and the dispatch after a takeover are the same question: an open slot without
an attempt of the present epoch gets one. Retries, hedges and re-sends after a worker's death
are further reasons for the same answer.
"""

from __future__ import annotations

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
    made = []
    for layer in _eligible(join):
        attempts = layer.attempts
        for shard in layer.open_shards:
            if shard not in attempts or attempts[shard][0] < epoch:
                number = attempts[shard] = (epoch, 1)
                made.append(Attempt(layer, shard, number))
    return made


def _eligible(join: Join) -> list[JoinLayer]:
    """Layers that may be asked now: all planned ones, or the first open one in sequence.

    And those that are refreshed beside them.
    """
    if not join.sequence:
        return [
            layer
            for layer in join.layers.values()
            if layer.refreshing or (layer.status == "open" and layer.source != "none")
        ]
    first = next((n for n in join.sequence if join.layers[n].status == "open"), None)
    beside = [layer for layer in join.layers.values() if layer.refreshing]
    return beside if first is None else [join.layers[first], *beside]
