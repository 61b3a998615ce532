"""`anabranch ask`: one question and its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from cyclopts import Parameter

from anabranch.cli import runtime
from anabranch.cli.common import COMMON, INTERRUPTED, Common, out, print_json, serve
from anabranch.cli.render import show_answer
from anabranch.client import Client
from anabranch.contract.events import Answer
from anabranch.contract.rejected import QueryRejected
from anabranch.errors import ConfigError

__all__ = ["ask"]

_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m)")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000}

Strategy = Literal["auto", "cache", "sequential", "parallel", "distributed"]


def ask(
    type_: Annotated[str, Parameter(show_default=False)],
    /,
    *params: str,
    layers: str | None = None,
    timeout: str | None = None,
    strategy: Strategy = "auto",
    json: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> int:
    """Ask one question; exit code 1 if nothing could be answered.

    Asks the pipeline that `anabranch up` runs from this folder, unless an option, variable or
    file names a broker.

    Parameters
    ----------
    type_
        The query's type, such as factual.
    params
        Its params: key=text, or key:=JSON for anything that is not text.
    layers
        Ask these layers, separated by commas, instead of the type's.
    timeout
        How long to wait, such as 500ms or 2s.
    strategy
        How to ask for what is not in the cache.
    json
        The answer event itself, a rejection too.
    """
    question: dict[str, Any] = {
        "layers": layers.split(",") if layers is not None else None,
        "timeout_ms": _milliseconds(timeout) if timeout is not None else None,
        "strategy": strategy,
    }
    answer: list[Answer] = []

    async def body() -> int:
        async with Client(runtime.reachable(common)) as client:
            try:
                answer.append(await client.ask(type_, _params(params), **question))
            except QueryRejected as error:
                if not json or error.answer is None:
                    raise
                answer.append(error.answer)
        return 0

    if serve(body(), when_stopped=INTERRUPTED):
        return INTERRUPTED
    if json:
        print_json(answer[0])
    else:
        show_answer(out(), answer[0])
    return 1 if answer[0].status == "failed" else 0


def _params(words: tuple[str, ...]) -> Mapping[str, Any]:
    return dict(_param(word) for word in words)


def _param(word: str) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not equals or key in ("", ":"):
        raise ConfigError(f"{word!r} is no param; write key=text, or key:=JSON")
    if not key.endswith(":"):
        return key, text
    try:
        return key[:-1], msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(
            f"{key[:-1]}: {text!r} is no JSON ({error}); text is {key[:-1]}="
        ) from None


def _milliseconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    milliseconds = round(float(match[1]) * _UNIT_MS[match[2]]) if match else 0
    if milliseconds < 1:
        raise ConfigError(f"--timeout: {text!r} is no duration; write 500ms, 2s or 1m")
    return milliseconds
