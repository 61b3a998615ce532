"""A worker's tasks: what a layer may do, and what comes of it. Virtual time, no broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from executing import ITEMS, execute, only

from anabranch.contract.codec import decode, encode
from anabranch.contract.events import Item, Partial
from anabranch.errors import ConfigError, LayerError
from anabranch.layers.api import Ask, LayerSpec, Request, Result, layer
from anabranch.testing.layer_contract import ask_for
from anabranch.testing.virtual_time import run
from anabranch.worker import error_log
from anabranch.worker.threads import LayerThreads
from anabranch.worker.wrappers import guard


def test_items_come_back_under_the_tasks_identity() -> None:
    async def found(_: Request) -> Result:
        return Result(items=ITEMS, ttl_ms=5, tags=["t1"])

    (partial,) = execute({"a": found}, (("a",), 1_000))
    assert (partial.query, partial.offset) == ("q1", 7)
    assert (partial.key, partial.generation) == ("digest", 9)
    assert (partial.worker, partial.limit, partial.scope) == ("w1", 20, "s")
    (result,) = partial.results
    assert (result.status, result.items, result.attempt) == ("ok", ITEMS, (2, 1))
    assert (result.ttl_ms, result.tags, result.complete) == (5, ["t1"], True)


def test_a_sequence_of_items_is_a_result_too() -> None:
    async def found(_: Request) -> list[Item]:
        return ITEMS

    assert only(execute({"a": found}, (("a",), 1_000))).items == ITEMS


def test_results_are_cut_at_the_limit_and_then_not_complete() -> None:
    async def found(_: Request) -> Result:
        return Result(items=ITEMS, complete=True)

    result = only(execute({"a": found}, (("a",), 1_000), limit=2))
    assert result.items == ITEMS[:2]
    assert not result.complete


def test_exactly_limit_items_are_not_taken_for_all_there_is() -> None:
    async def found(request: Request) -> list[Item]:
        return ITEMS[: request.limit]

    assert not only(execute({"a": found}, (("a",), 1_000), limit=5)).complete


def _told(name: str) -> str:
    """All that readers of an answer learn of an error that a layer did not mean to tell."""
    return f"the layer raised {name}; the log of its worker says more"


def test_a_layer_that_raises_costs_its_own_answer_only() -> None:
    async def broken(_: Request) -> Result:
        raise RuntimeError("disk on fire")

    async def found(_: Request) -> list[Item]:
        return ITEMS

    results = {
        r.layer: r
        for p in execute({"a": broken, "b": found}, (("a", "b"), 1_000))
        for r in p.results
    }
    assert (results["a"].status, results["a"].error) == ("error", _told("RuntimeError"))
    assert results["b"].status == "ok"


def test_a_transient_error_is_marked() -> None:
    async def busy(_: Request) -> Result:
        raise LayerError("try later", transient=True)

    result = only(execute({"a": busy}, (("a",), 1_000)))
    assert (result.status, result.error, result.transient) == ("error", "try later", True)


def test_a_layer_that_hangs_is_ended_before_the_deadline() -> None:
    async def hangs(_: Request) -> Result:
        await asyncio.Event().wait()
        raise AssertionError

    result = only(execute({"a": hangs}, (("a",), 1_000)))
    assert result.status == "timeout"
    assert 950 <= result.took_ms < 1_000


def test_a_layers_own_timeout_is_its_own_error_not_ours() -> None:
    async def impatient(_: Request) -> Result:
        raise TimeoutError("my database was slow")

    result = only(execute({"a": impatient}, (("a",), 1_000)))
    assert (result.status, result.error) == ("error", _told("TimeoutError"))


def test_a_configured_timeout_ends_a_layer_earlier() -> None:
    async def slow(_: Request) -> Result:
        await asyncio.sleep(0.5)
        return Result()

    assert only(execute({"a": slow}, (("a",), 1_000), timeout_ms=100)).status == "timeout"


def test_a_deadline_that_nobody_could_have_named_does_not_keep_a_slot() -> None:
    left: list[float] = []

    async def hang(request: Request) -> list[Item]:
        left.append(request.remaining_ms)
        await asyncio.sleep(1e9)
        return []

    result = only(execute({"a": hang}, (("a",), 2.0**52)))
    assert result.status == "timeout"
    assert left == [60_000 - 20]


def test_work_whose_deadline_passed_is_not_begun_and_says_so() -> None:
    asked = []

    async def found(request: Request) -> list[Item]:
        asked.append(request)
        return ITEMS

    assert only(execute({"a": found}, (("a",), -1))).status == "expired"
    assert not asked


def deep(levels: int) -> Any:
    """Arrays in arrays."""
    nested: Any = []
    for _ in range(levels):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    ("nonsense", "said"),
    [
        (None, "NoneType"),
        (42, "int"),
        ("text", "str"),
        ([{"id": "x"}], "list of dict"),
        ([Item("", 1.0)], "without an id"),
        ([Item("urn:x", float("nan"))], "finite"),
        ([Item("urn:x", 1.0, data=object())], "object"),
        (Result(ttl_ms=-1), "ttl_ms"),
        (Result(ttl_ms="soon"), "ttl_ms"),
        (Result(tags=[1]), "tag"),
        (Result(tags=5), "tags"),
        (Result(tags="t"), "tags"),
        (Result(complete="yes"), "complete"),
        ([Item("urn:x", 1.0, data=deep(70))], "nested deeper"),
    ],
)
def test_nonsense_is_an_error_that_says_what_came(nonsense: Any, said: str) -> None:
    async def odd(_: Request) -> Any:
        return nonsense

    async def found(_: Request) -> list[Item]:
        return ITEMS

    published = execute({"a": odd, "b": found}, (("a", "b"), 1_000))
    read = [decode(encode(partial), Partial) for partial in published]
    results = {result.layer: result for partial in read for result in partial.results}
    assert results["b"].items == ITEMS
    assert results["a"].status == "error"
    assert said in (results["a"].error or "")


class Listed(Item, frozen=True, array_like=True):
    """An item that others read as an array."""


class Signed(Item, frozen=True, tag="signed"):
    """An item with more to it."""

    by: str = "nobody"


@pytest.mark.parametrize(
    "odd",
    [
        [Item("urn:x", True)],
        Result(ITEMS, complete=0),  # type: ignore[arg-type]
        Result(ITEMS, complete=1.0),  # type: ignore[arg-type]
        [Listed("urn:x", 1.0)],
        [Item("urn:x", 1.0, msgspec.Raw(b"{"))],
        [Item("urn:x", 1.0, msgspec.Raw(b"\xff"))],
        [Item("urn:x", 1.0, msgspec.Raw(b'"\xff"'))],
        [Item("urn:x", 1.0, msgspec.Raw(b"[1e999]"))],
        [Item("urn:x", 1.0, {"deep": [msgspec.Raw(b'"\xff"')]})],
        [Item("urn:x", 1.0, msgspec.Raw(b"1}], 'results': [{"))],
    ],
    ids=repr,
)
def test_what_others_could_not_read_costs_its_own_part_only(odd: Any) -> None:
    """Python is laxer than the schema, and a subclass may be written in any way."""

    async def odd_one(_: Request) -> Any:
        return odd

    async def found(_: Request) -> list[Item]:
        return ITEMS

    published = execute({"a": odd_one, "b": found}, (("a", "b"), 1_000))
    read = [decode(encode(partial), Partial) for partial in published]
    results = {result.layer: result for partial in read for result in partial.results}
    assert results["b"].items == ITEMS
    assert results["a"].status == "error"
    assert "cannot be read" in (results["a"].error or "")


def test_what_a_layer_changes_later_is_its_own() -> None:
    data = {"seen": 1}

    async def found(_: Request) -> list[Item]:
        return [Item("urn:x", 1.0, data), Signed("urn:y", 0.5)]

    result = only(execute({"a": found}, (("a",), 1_000)))
    data["seen"] = 2
    assert result.items == [Item("urn:x", 1.0, {"seen": 1}), Item("urn:y", 0.5)]


def test_data_that_a_layer_has_as_json_is_sent_as_it_wrote_it() -> None:
    async def found(_: Request) -> list[Item]:
        return [Item("urn:x", 1.0, msgspec.Raw(b'{"n": 1.50}'))]

    async def body() -> object:
        ask = guard(LayerSpec(layer("a")(found)), LayerThreads("a", 1))
        return (await ask(ask_for({}))).items[0].data

    assert run(body()) == msgspec.Raw(b'{"n": 1.50}')


def test_an_error_of_ten_megabytes_is_cut() -> None:
    async def wordy(_: Request) -> Result:
        raise LayerError("x" * 10_000_000)

    assert len(only(execute({"a": wordy}, (("a",), 1_000))).error or "") == 500


def test_a_layer_that_cancels_itself_is_an_error() -> None:
    async def gone(_: Request) -> Result:
        raise asyncio.CancelledError

    assert "cancelled itself" in (only(execute({"a": gone}, (("a",), 1_000))).error or "")


def test_ten_megabytes_are_an_error_that_names_the_bound() -> None:
    async def huge(_: Request) -> list[Item]:
        return [Item("urn:x", 1.0, data="x" * 10_000_000)]

    result = only(execute({"a": huge}, (("a",), 1_000)))
    assert result.status == "error"
    assert "max_bytes = 512,000" in (result.error or "")


def test_a_layer_nobody_has_is_an_error() -> None:
    assert "no layer 'b'" in (only(execute({}, (("b",), 1_000))).error or "")


def test_layers_that_finish_together_travel_together() -> None:
    async def at_once(_: Request) -> list[Item]:
        return ITEMS

    async def later(_: Request) -> list[Item]:
        await asyncio.sleep(0.1)
        return ITEMS

    partials = execute({"a": at_once, "b": at_once, "c": later}, (("a", "b", "c"), 1_000))
    assert [sorted(r.layer for r in p.results) for p in partials] == [["a", "b"], ["c"]]


def test_layers_of_a_task_run_concurrently_and_slots_bound_tasks() -> None:
    running = peak = 0

    async def counts(_: Request) -> list[Item]:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.01)
        running -= 1
        return []

    execute({"a": counts, "b": counts}, *[(("a", "b"), 1_000)] * 5, slots=4)
    assert peak == 4


def test_the_layer_sees_what_was_asked_and_how_long_it_has() -> None:
    seen: list[Request] = []

    async def look(request: Request) -> list[Item]:
        seen.append(request)
        return []

    execute({"a": look}, (("a",), 1_000))
    (request,) = seen
    assert (request.type, request.params, request.scope) == ("t", {"text": "x"}, "s")
    assert (request.limit, request.attempt) == (20, (2, 1))
    assert 970 <= request.remaining_ms <= 980


class Foreign(BaseException):
    """Some library's own way out."""


class MuteError(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        Foreign(),
        GeneratorExit(),
        StopIteration(),
        MuteError(),
        BaseExceptionGroup("several", [SystemExit(1), ValueError("x")]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("blocking", [False, True])
def test_whatever_a_layer_raises_costs_its_own_part_only(
    error: BaseException, blocking: bool
) -> None:
    async def raises(_: Request) -> Result:
        raise error

    def raises_in_thread(_: Request) -> Result:
        raise error

    async def found(_: Request) -> list[Item]:
        return ITEMS

    layers = {"a": raises_in_thread if blocking else raises, "b": found}
    partials = execute(layers, (("a", "b"), 1_000), (("b",), 1_000))
    results = {result.layer: result for partial in partials for result in partial.results}
    assert results["a"].status == "error"
    assert results["b"].items == ITEMS
    assert [decode(encode(partial), Partial) for partial in partials] == partials


def test_a_lone_surrogate_in_an_error_costs_its_neighbours_nothing() -> None:
    async def broken(_: Request) -> Result:
        raise LayerError("no such file: caf\udce9")

    async def found(_: Request) -> list[Item]:
        return ITEMS

    (partial,) = execute({"a": broken, "b": found}, (("a", "b"), 1_000))
    results = {result.layer: result for result in decode(encode(partial), Partial).results}
    assert results["a"].error == "no such file: caf?"
    assert results["b"].items == ITEMS


def test_a_layer_that_cancels_the_task_it_runs_in_is_an_error() -> None:
    async def gone(_: Request) -> Result:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)
        raise AssertionError

    assert "cancelled itself" in (only(execute({"a": gone}, (("a",), 1_000))).error or "")


def test_what_one_layer_does_to_the_params_no_other_sees() -> None:
    seen: list[Any] = []

    async def changes(request: Request) -> list[Item]:
        seen.append(dict(request.params))
        request.params["text"] = "mine"
        request.params["more"] = [1]
        return []

    execute({"a": changes, "b": changes}, (("a", "b"), 1_000))
    assert seen == [{"text": "x"}, {"text": "x"}]


def test_what_a_wrapper_gives_is_held_to_the_same_rules() -> None:
    def forgets(_: LayerSpec, ask: Ask) -> Ask:
        async def ask_and_forget(request: Request) -> Any:
            await ask(request)

        return ask_and_forget

    async def found(_: Request) -> list[Item]:
        return ITEMS

    result = only(execute({"a": found}, (("a",), 1_000), wrappers=[forgets]))
    assert (result.status, "gave NoneType" in (result.error or "")) == ("error", True)


def test_a_wrapper_that_hangs_is_ended_at_the_deadline() -> None:
    def hangs(_: LayerSpec, ask: Ask) -> Ask:
        async def ask_never(request: Request) -> Result:
            await asyncio.Event().wait()
            return await ask(request)

        return ask_never

    async def found(_: Request) -> list[Item]:
        return ITEMS

    assert only(execute({"a": found}, (("a",), 1_000), wrappers=[hangs])).status == "timeout"


def test_a_wrapper_gets_a_result_whatever_the_layer_gave() -> None:
    given: list[Any] = []

    def looks(_: LayerSpec, ask: Ask) -> Ask:
        async def ask_and_look(request: Request) -> Result:
            given.append(await ask(request))
            return given[-1]

        return ask_and_look

    async def found(_: Request) -> list[Item]:
        return ITEMS

    assert only(execute({"a": found}, (("a",), 1_000), wrappers=[looks])).items == ITEMS
    assert given == [Result(items=ITEMS)]


def test_a_wrapper_that_makes_no_function_is_refused_at_once() -> None:
    def broken(_: LayerSpec, ask: Ask) -> Ask:
        return None  # type: ignore[return-value]

    with pytest.raises(ConfigError, match=r"layers\.a: the wrapper 'broken' gave NoneType"):
        execute({"a": lambda _: []}, (("a",), 1_000), wrappers=[broken])


def raising(error: Callable[[], BaseException]) -> Ask:
    async def ask(_: Request) -> Result:
        raise error()

    return ask


@pytest.mark.parametrize("kind", [KeyError, RuntimeError, SystemExit, KeyboardInterrupt])
def test_what_a_layer_did_not_mean_to_say_is_for_operators(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    secret = "postgresql://me:s3cr3t@host"
    result = only(execute({"a": raising(lambda: kind(secret))}, (("a",), 1_000)))
    assert result.error == _told(kind.__name__)
    (told,) = caplog.messages
    assert secret in told
    assert "Traceback" in told


def test_what_a_layer_says_is_for_everybody_and_its_cause_for_operators(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def caused() -> LayerError:
        error = LayerError("the index cannot be read")
        error.__cause__ = OSError("my/own/index")
        return error

    asks = {"a": raising(caused), "b": raising(lambda: LayerError("no such customer"))}
    done = [r for p in execute(asks, (("a", "b"), 1_000)) for r in p.results]
    assert {r.error for r in done} == {"the index cannot be read", "no such customer"}
    (told,) = caplog.messages
    assert "my/own/index" in told


def test_a_kind_of_error_is_told_once_with_its_stack_and_then_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def ask(request: Request) -> Result:
        raise KeyError(f"missing {request.deadline}")

    async def other(_: Request) -> Result:
        raise KeyError("another place")

    execute({"a": ask, "b": other}, *[(("a",), 1_000)] * 100, (("b",), 1_000))
    stacks = [message for message in caplog.messages if "Traceback" in message]
    assert len(stacks) == 2
    assert [m for m in caplog.messages if m not in stacks] == [
        f"layer a has raised KeyError {n} times ({m.rpartition('(')[2].rstrip(')')})"
        for n, m in zip((10, 100), [m for m in caplog.messages if m not in stacks], strict=True)
    ]


def test_kinds_of_errors_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_log, "MAX_KINDS", 10)
    told = error_log.ErrorLog()
    for n in range(100):
        told.write("a", type(f"E{n}", (Exception,), {})("x" * 100_000))
    assert len(told._counts) == 10
