"""`anabranch_synthetic`: content that can be computed again, behaviour that is seeded."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import msgspec
import pytest

from anabranch.errors import LayerError
from anabranch.layers.api import Request, Result
from anabranch.testing import VirtualTimeLoop
from anabranch.testing.layer_contract import answer, ask_for
from anabranch_synthetic import Synthetic, SyntheticConfig, expected_items

replace = msgspec.structs.replace
QUESTION = ask_for({"text": "x"})


def made(**settings: Any) -> Synthetic:
    return Synthetic("s", SyntheticConfig(**settings))


def on_virtual_time(layer: Synthetic, *requests: Request) -> list[tuple[float, Any]]:
    """Each request in turn: how long it took in virtual milliseconds, and what came."""

    async def main() -> list[tuple[float, Any]]:
        outcomes = []
        await layer.start()
        for request in requests:
            begun = loop.time()
            try:
                came: Any = await answer(layer, request)
            except LayerError as error:
                came = error
            outcomes.append(((loop.time() - begun) * 1000, came))
        return outcomes

    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_checker_knows_the_answer_without_the_layer_that_gave_it() -> None:
    ((_, result),) = on_virtual_time(made(latency_ms=3, seed=1), QUESTION)
    assert list(result.items) == expected_items(made(latency_ms=99, seed=2), QUESTION)


@pytest.mark.parametrize(
    "other",
    [
        replace(QUESTION, params={"text": "y"}),
        replace(QUESTION, scope="tenant"),
        replace(QUESTION, type="temporal"),
        replace(QUESTION, shard=1, shards=2),
    ],
)
def test_other_questions_share_no_item(other: Request) -> None:
    def ids(request: Request) -> set[str]:
        return {item.id for item in expected_items(made(), request)}

    assert not ids(QUESTION) & ids(other)


def test_attempt_and_deadline_do_not_change_the_answer() -> None:
    again = replace(QUESTION, attempt=(3, 2), deadline=1.0, remaining_ms=5.0)
    assert expected_items(made(), again) == expected_items(made(), QUESTION)


def test_a_limit_takes_the_best_and_says_whether_more_exists() -> None:
    ((_, whole), (_, cut)) = on_virtual_time(made(items=3), QUESTION, replace(QUESTION, limit=2))
    assert whole.complete
    assert not cut.complete
    assert cut.items == whole.items[:2]


def test_items_have_the_configured_size() -> None:
    assert {len(i.data["text"]) for i in expected_items(made(item_bytes=250), QUESTION)} == {250}


def test_constant_latency_is_waited_for() -> None:
    ((took_ms, _),) = on_virtual_time(made(latency_ms=250), QUESTION)
    assert took_ms == pytest.approx(250)


def test_uniform_latency_stays_in_its_range_and_varies() -> None:
    layer = made(latency="uniform", latency_ms=100, spread_ms=20, jitter_ms=5)
    took = [took_ms for took_ms, _ in on_virtual_time(layer, *[QUESTION] * 200)]
    assert 80 <= min(took) < 90
    assert 115 < max(took) <= 125


def test_lognormal_latency_has_the_configured_median_and_spread() -> None:
    layer = made(latency="lognormal", latency_ms=80, sigma=0.5)
    took = sorted(took_ms for took_ms, _ in on_virtual_time(layer, *[QUESTION] * 2_000))
    assert took[1_000] == pytest.approx(80, rel=0.06)
    assert took[1_682] / took[1_000] == pytest.approx(1.6487, rel=0.1)  # one sigma above


def test_errors_come_at_the_configured_rate_and_kind() -> None:
    outcomes = [came for _, came in on_virtual_time(made(error_rate=0.3), *[QUESTION] * 1_000)]
    errors = [came for came in outcomes if isinstance(came, LayerError)]
    assert 250 < len(errors) < 350
    assert all(error.transient for error in errors)
    ((_, lasting),) = on_virtual_time(made(error_rate=1, transient=False), QUESTION)
    assert not lasting.transient


def test_the_same_seed_behaves_the_same_and_another_does_not() -> None:
    def behaviour(seed: int) -> list[tuple[float, bool]]:
        layer = made(latency="lognormal", latency_ms=10, error_rate=0.5, seed=seed)
        return [(took, isinstance(came, Result)) for took, came in on_virtual_time(layer, *many)]

    many = [QUESTION] * 20
    assert behaviour(1) == behaviour(1) != behaviour(2)


def test_a_hanging_request_ends_when_it_is_cancelled() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await answer(made(hang_rate=1), QUESTION)

    loop = VirtualTimeLoop()
    loop.run_until_complete(main())
    loop.close()


async def test_stopping_releases_a_blocking_request_that_hangs() -> None:
    layer = made(hang_rate=1, blocking=True)
    hanging = asyncio.ensure_future(answer(layer, QUESTION))
    await asyncio.sleep(0)
    await layer.stop()
    assert isinstance(await hanging, Result)


@pytest.mark.parametrize("blocking", [False, True])
async def test_cpu_is_burnt_on_the_loop_or_in_a_thread(blocking: bool) -> None:
    before = time.thread_time()
    process = time.process_time()
    await answer(made(cpu_ms=30, blocking=blocking), QUESTION)
    assert time.process_time() - process >= 0.03
    assert (time.thread_time() - before >= 0.03) is not blocking
    assert threading.current_thread() is threading.main_thread()
