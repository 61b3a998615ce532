"""Everybody who is measured does the same work."""

from __future__ import annotations

import msgspec
from contenders import ALL, COMPLETE, RIVALS
from ours import fresh
from peers.scatter_gather import ITEMS, LAYERS, decode_query, encode, found, joined, tasks
from scatter_layers import Scatter, ScatterConfig

from anabranch import Request


def test_rivals_are_contenders() -> None:
    assert len(set(ALL)) == len(ALL)
    assert RIVALS.keys() | {rival for rivals in RIVALS.values() for rival in rivals} <= set(ALL)


async def test_our_layers_find_what_those_of_the_peers_find() -> None:
    (task, *_) = tasks(decode_query(fresh(17)))
    ours = await Scatter(task.layer, ScatterConfig()).ask(
        Request("t", {"n": 17}, "", limit=20, deadline=1.0, remaining_ms=1_000)
    )
    theirs = found(task).items
    assert [(item.id, item.score) for item in ours.items] == [(i.id, i.score) for i in theirs]


def test_an_answer_of_a_peer_has_all_items_best_first() -> None:
    partials = [found(task) for task in tasks(decode_query(fresh(17)))]
    answer = encode(joined(reversed(partials)))
    items = msgspec.json.decode(answer)["items"]
    assert COMPLETE in answer
    assert len(items) == ITEMS * len(LAYERS)
    assert [item["id"] for item in items[:4]] == [
        "urn:a:17:0", "urn:b:17:0", "urn:c:17:0", "urn:a:17:1",
    ]  # fmt: skip
