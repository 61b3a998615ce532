"""What every layer must keep to, as tests for plugin authors.

    from anabranch.testing.layer_contract import LayerContract

    class TestOrders(LayerContract):
        @pytest.fixture
        def layer(self):
            return Orders("orders", Orders.Config(dsn="..."))

        @pytest.fixture
        def question(self):
            return ask_for({"text": "blue shoes"})

Needs nothing but pytest. The question should have at least two items for an answer.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Awaitable, Callable, Sequence
from inspect import iscoroutinefunction
from typing import Any, TypeVar

import msgspec
import pytest

from anabranch.contract.codec import encode
from anabranch.contract.events import Item
from anabranch.errors import LayerError
from anabranch.layers.api import Layer, Request, Result

__all__ = ["LayerContract", "answer", "ask_for"]

T = TypeVar("T")

_GUARD_S = 60.0
"""A layer that takes longer than this hangs; no test waits for it otherwise."""


def ask_for(params: dict[str, Any], *, limit: int = 20, type: str = "factual") -> Request:
    """A request with a minute's time, to be adjusted with `msgspec.structs.replace`."""
    return Request(
        type=type,
        params=params,
        scope="",
        limit=limit,
        deadline=math.inf,
        remaining_ms=_GUARD_S * 1000,
    )


async def answer(layer: Layer, request: Request) -> Result:
    """Ask a layer as a worker does: blocking ones in a thread, a sequence becomes a `Result`."""
    if iscoroutinefunction(layer.ask):
        given = await layer.ask(request)
    else:
        given = await asyncio.to_thread(layer.ask, request)
    return given if isinstance(given, Result) else Result(given)


class LayerContract:
    """Subclass as `Test...` and give the fixtures `layer` (not started) and `question`."""

    max_bytes = 512_000
    """The layer's `max_bytes`, to which its encoded items are held."""

    @pytest.fixture
    def layer(self) -> Layer:
        raise NotImplementedError("give the layer under test")

    @pytest.fixture
    def question(self) -> Request:
        raise NotImplementedError("give a request that has at least two items for an answer")

    def test_answers_with_items(self, layer: Layer, question: Request) -> None:
        result = _run(layer, lambda: answer(layer, question))
        assert isinstance(result.items, Sequence), f"no sequence: {type(result.items).__name__}"
        assert all(isinstance(item, Item) for item in result.items), "not all are an Item"
        assert len(result.items) >= 2, "the question needs at least two items for an answer"

    def test_ids_are_distinct_and_not_empty(self, layer: Layer, question: Request) -> None:
        ids = [item.id for item in _items(layer, question)]
        assert all(isinstance(id_, str) and id_.strip() for id_ in ids), f"an empty id in {ids}"
        assert len(set(ids)) == len(ids), f"an id twice in {ids}"

    def test_scores_are_finite_and_best_comes_first(self, layer: Layer, question: Request) -> None:
        scores = [item.score for item in _items(layer, question)]
        assert all(math.isfinite(score) for score in scores), f"not all finite: {scores}"
        assert scores == sorted(scores, reverse=True), f"not best first: {scores}"

    def test_gives_no_more_than_the_limit_and_the_same_best(
        self, layer: Layer, question: Request
    ) -> None:
        best = _items(layer, question)[0]
        first = _items(layer, msgspec.structs.replace(question, limit=1))
        assert [item.id for item in first] == [best.id], "limit=1 must give the best item alone"

    def test_items_are_json_of_bounded_size(self, layer: Layer, question: Request) -> None:
        size = len(encode(list(_items(layer, question))))
        assert size <= self.max_bytes, f"{size:,} bytes, over {self.max_bytes:,}"

    def test_leaves_the_request_as_it_was(self, layer: Layer, question: Request) -> None:
        before = copy.deepcopy(question)
        _items(layer, question)
        assert question == before, "params belong to all layers of a query; copy before changing"

    def test_start_and_stop_may_come_twice(self, layer: Layer, question: Request) -> None:
        async def restart() -> Result:
            await _call(layer, "start")
            await _call(layer, "stop")
            await _call(layer, "stop")
            await _call(layer, "start")
            return await answer(layer, question)

        assert _run(layer, restart).items, "no items after start, stop, stop, start"

    def test_what_it_invalidates_is_named_by_tags(self, layer: Layer, question: Request) -> None:
        watch = getattr(layer, "watch", None)
        if watch is None:
            return  # its results are true for their time to live
        told: list[tuple[str, ...]] = []
        watch(lambda *tags: told.append(tags))
        result = _run(layer, lambda: answer(layer, question))
        for tags in told:
            assert all(isinstance(tag, str) for tag in tags), f"no strings: {tags}"
            assert not tags or set(tags) <= set(result.tags), f"{tags} are none of {result.tags}"

    def test_concurrent_questions_get_their_own_answers(
        self, layer: Layer, question: Request
    ) -> None:
        one = msgspec.structs.replace(question, limit=1)

        async def together() -> list[Result]:
            return await asyncio.gather(*(answer(layer, q) for q in [question, one] * 8))

        results = _run(layer, together)
        assert {_ids(r) for r in results[::2]} == {_ids(results[0])}, "answers got mixed up"
        assert {_ids(r) for r in results[1::2]} == {_ids(results[1])}, "answers got mixed up"

    def test_a_cancelled_question_ends_and_the_next_is_answered(
        self, layer: Layer, question: Request
    ) -> None:
        async def cancel_then_ask() -> Result:
            task = asyncio.ensure_future(answer(layer, question))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            return await answer(layer, question)

        assert _run(layer, cancel_then_ask).items, "no items after a question was cancelled"

    def test_a_passed_deadline_ends_in_an_answer_or_a_layer_error(
        self, layer: Layer, question: Request
    ) -> None:
        async def too_late() -> Result | None:
            now = asyncio.get_running_loop().time()
            late = msgspec.structs.replace(question, deadline=now - 1, remaining_ms=0.0)
            try:
                return await answer(layer, late)
            except LayerError:
                return None

        result = _run(layer, too_late)
        assert result is None or isinstance(result, Result)


def _items(layer: Layer, request: Request) -> Sequence[Item]:
    return _run(layer, lambda: answer(layer, request)).items


def _ids(result: Result) -> tuple[str, ...]:
    return tuple(item.id for item in result.items)


def _run(layer: Layer, body: Callable[[], Awaitable[T]]) -> T:
    """Start the layer, run `body`, stop the layer; all on a loop of their own."""

    async def main() -> T:
        async with asyncio.timeout(_GUARD_S):
            await _call(layer, "start")
            try:
                return await body()
            finally:
                await _call(layer, "stop")

    return asyncio.run(main())


async def _call(layer: Layer, method: str) -> None:
    optional: Callable[[], Awaitable[None]] | None = getattr(layer, method, None)
    if optional is not None:
        await optional()
