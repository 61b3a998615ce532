"""Merge and join are what their plain description says, however they are made quick."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.aggregate.join import Join, JoinLayer
from anabranch.aggregate.result_aggregator import LayerPart, ResultAggregator
from anabranch.contract.bounds import MAX_SPAN_MS
from anabranch.contract.codec import encode
from anabranch.contract.encoded import EncodedItem
from anabranch.contract.events import Item, PartialResult, Source

SOURCES: list[Source] = ["cache", "sequential", "parallel", "distributed"]
ORDER = {"cache": 0, "parallel": 1, "sequential": 1, "distributed": 2}
ITEM = st.builds(
    Item,
    id=st.sampled_from("pqrstuvwxyz"),
    score=st.floats(-1e6, 1e6),
    data=st.none() | st.integers(0, 3),
)
RESULT = st.builds(
    PartialResult,
    layer=st.just("a"),
    shard=st.integers(0, 3),
    shards=st.integers(1, 3),
    status=st.sampled_from(["ok", "ok", "ok", "timeout", "error", "expired", "skipped"]),
    items=st.lists(ITEM, max_size=4),
    complete=st.booleans(),
    error=st.none() | st.just("broken"),
    queued_ms=st.floats(0, 1e12),
    took_ms=st.floats(0, 1e12),
)


@st.composite
def one_part_each(draw: st.DrawFn) -> list[LayerPart]:
    layers = draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=6))
    return [
        LayerPart(
            layer,
            draw(st.sampled_from(SOURCES)),
            draw(st.lists(ITEM, max_size=6)),
            draw(st.none() | st.integers(0, 2_000)),
            draw(st.booleans()),
            draw(st.floats(0.0, 3.0)),
        )
        for layer in layers
    ]


def described(parts: list[LayerPart], limit: int, fusion: str) -> tuple[Any, bool, float]:
    """What `aggregate` promises, one item at a time: items, truncated, agreement."""
    parts = sorted(parts, key=lambda part: (ORDER[part.source], part.layer))
    found = []
    for id_ in {item.id for part in parts for item in part.items}:
        score, data, layers = 0.0 if fusion == "rrf" else -math.inf, None, []
        for part in parts:
            ranks = [n for n, item in enumerate(part.items) if item.id == id_]
            if not ranks:
                continue
            layers.append(part.layer)
            if fusion == "rrf":
                score += part.weight / (61 + ranks[0])
            else:
                score = max([score, *(part.weight * part.items[n].score for n in ranks)])
            data = part.items[ranks[0]].data if data is None else data
        found.append((-score, id_, sorted(layers), data))
    found.sort(key=lambda entry: entry[:2])
    some = sum(bool(part.items) for part in parts)
    others = sum(len(layers) - 1 for _, _, layers, _ in found)
    agreement = others / (len(found) * (some - 1)) if some > 1 else 1.0
    items = [[layers, id_, -score, data] for score, id_, layers, data in found[:limit]]
    return items, len(found) > limit or not all(p.complete for p in parts), agreement


@given(one_part_each(), st.integers(1, 12), st.sampled_from(["rrf", "score"]))
def test_a_merge_is_as_described(parts: list[LayerPart], limit: int, fusion: Any) -> None:
    merged = ResultAggregator().aggregate(parts, wanted=6, limit=limit, fusion=fusion)
    items, truncated, agreement = described(parts, limit, fusion)
    assert [[*map(list, [i.layers]), i.id, i.data] for i in merged.items] == [
        [layers, id_, data] for layers, id_, _, data in items
    ]
    assert [i.score for i in merged.items] == pytest.approx([score for _, _, score, _ in items])
    assert merged.truncated is truncated
    assert merged.agreement == pytest.approx(agreement)


@given(st.data(), one_part_each(), st.sampled_from(["rrf", "score"]))
def test_data_that_is_still_json_makes_the_same_answer(
    data: st.DataObject, parts: list[LayerPart], fusion: Any
) -> None:
    parts = parts + [
        msgspec.structs.replace(part, items=data.draw(st.lists(ITEM, max_size=3)))
        for part in parts[:1]
    ]  # of one layer two parts: shards, or what was cached beside what is fresh
    encoded = [
        msgspec.structs.replace(
            part, items=msgspec.json.decode(encode(part.items), type=list[EncodedItem])
        )
        for part in parts
    ]
    plain = ResultAggregator().aggregate(parts, wanted=6, limit=20, fusion=fusion)
    opaque = ResultAggregator().aggregate(encoded, wanted=6, limit=20, fusion=fusion)
    shuffled = data.draw(st.permutations(encoded))
    again = ResultAggregator().aggregate(shuffled, wanted=6, limit=20, fusion=fusion)
    assert encode(opaque) == encode(plain)
    assert encode(again) == encode(plain)


class Described:
    """A layer of a join, in plain words."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.came: dict[int, PartialResult] = {}
        self.over = False

    def accept(self, result: PartialResult) -> bool:
        counts = (
            not self.over
            and result.shards == self.shards
            and result.shard < self.shards
            and result.shard not in self.came
        )
        if counts:
            self.came[result.shard] = result
            self.over = len(self.came) == self.shards
        return counts

    def outcome(self) -> dict[str, Any]:
        came = [self.came[n] for n in sorted(self.came)]
        good = [result for result in came if result.status == "ok"]
        lost = self.shards - len(good)
        items = [item for result in good for item in result.items]
        if self.shards > 1:
            items.sort(key=lambda item: (-item.score, item.id))
        said = {
            "took_ms": max(min(result.took_ms, MAX_SPAN_MS) for result in came),
            "queued_ms": max(min(result.queued_ms, MAX_SPAN_MS) for result in came),
            "items": items,
            "complete": bool(good) and not lost and all(result.complete for result in good),
        }
        if good:
            error = f"{lost} of {self.shards} shards are missing" if lost else None
            return {**said, "status": "ok", "age_ms": 0, "error": error}
        status = "timeout" if came[0].status == "expired" else came[0].status
        return {**said, "status": status, "error": came[0].error or came[0].status, "age_ms": None}


@given(st.integers(1, 3), st.lists(RESULT, max_size=8), st.booleans())
def test_a_layer_joins_as_described(
    shards: int, results: list[PartialResult], expires: bool
) -> None:
    join, described = Join(["a", "b"]), Described(shards)
    layer: JoinLayer = join.layers["a"]
    layer.plan("parallel", "io", shards)
    for result in results:
        assert join.accept(result, 1.0) == described.accept(result)
        assert (layer.status == "open") is not described.over
    if expires:
        join.expire()
    if described.came and (expires or described.over):
        outcome = described.outcome()
        assert {name: getattr(layer, name) for name in outcome if name != "items"} == {
            name: value for name, value in outcome.items() if name != "items"
        }
        assert list(layer.items) == outcome["items"]
    elif expires:
        assert (layer.status, list(layer.items)) == ("timeout", [])
