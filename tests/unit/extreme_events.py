"""Events that keep to their Structs and are as extreme as those allow, and now and then more so.

Made from the Structs themselves, so that a field that is new is covered. JSON text and not
objects: there are numbers and strings that only text can hold. Names are mostly those of things
that are there, so that what is extreme is also heeded.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from anabranch.contract.events import (
    Answer,
    ComponentStats,
    ControlRecord,
    LayerDescriptor,
    MemberHealth,
    Partial,
    Query,
    Task,
)
from anabranch.contract.telemetry import TelemetryBatch

__all__ = ["KINDS", "Names", "extreme_event", "extreme_headers"]

KINDS: Final[Mapping[str, Sequence[type[msgspec.Struct]]]] = {
    "queries": [Query],
    "partials": [Partial],
    "results": [Answer],
    "tasks": [Task],
    "health": [LayerDescriptor, MemberHealth, ComponentStats],
    "control": [ControlRecord],
    "telemetry": [TelemetryBatch],
}
"""What belongs on each topic."""

Names: TypeAlias = Mapping[str, Sequence[Any]]
"""By field: what is there, of which an event may speak."""

_NUMBERS: Final = (
    "0", "-0.0", "1", "-1", "-11", "0.5", "1e-320", "2147483648", "9007199254740992",
    "9007199254740993", "9223372036854775807", "-9223372036854775808", "18446744073709551616",
    "1e306", "1.7e308", "-1.7e308", "1e999", "1" + "0" * 309, "-1" + "0" * 309, "9" * 5000,
)  # fmt: skip
_TEXTS: Final = (
    '""', '" "', '"x"', r'"\ud800"', r'"\u0000"', r'"\u001b[2J"', r'"\u202e"', '"a/b"', '".."',
    '"*"', '"無効化"', '"' + "n" * 255 + '"', '"' + "l" * 20_000 + '"', r'"\ud83d"', '"${HOME}"',
    '"-1"', '"__consumer_offsets"',
)  # fmt: skip
_OTHERS: Final = (
    "null", "true", "[]", "{}", "[null]", '{"":{}}', "[" * 60 + "]" * 60, '{"a":1,"a":2}',
    "[" + "0," * 1_999 + "0]", "[" * 4000 + "]" * 4000, "NaN",
)  # fmt: skip
_NAMED: Final = (msgspec.inspect.StrType, msgspec.inspect.IntType)
_WRONG: Final = 0.02
"""How often a value is of another type."""


def extreme_event(rng: random.Random, kind: type[msgspec.Struct], names: Names) -> bytes:
    """JSON, of one event; mostly such that it can be decoded."""
    text = _Writer(rng, names).struct(msgspec.inspect.type_info(kind), "")
    return text.encode()


def extreme_headers(rng: random.Random, most_bytes: int) -> list[tuple[str, bytes]]:
    """Headers that somebody of ours reads, or forwards, with what should not be in them.

    Args:
        most_bytes: of all of them together, their names (a few hundred bytes) apart.
    """
    sizes = (0, 1, 55, 512, 10_000, most_bytes)
    headers, left = [], most_bytes
    for name in ("traceparent", "tracestate", "anabranch-client", "anabranch-offset", "x" * 300):
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            filling = rng.choice((b"\xff", b"0", b"-", b"=", b",", b"9", b"\x00"))
            size = min(rng.choice(sizes), left)
            headers.append((name, filling * size))
            left -= size
    if rng.random() < 0.3:
        valid = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        headers.append(("traceparent", valid))
    return headers


class _Writer:
    def __init__(self, rng: random.Random, names: Names) -> None:
        self._rng = rng
        self._names = names

    def struct(self, info: Any, field: str) -> str:
        parts = []
        if info.tag is not None:
            parts.append(f"{json.dumps(info.tag_field)}:{json.dumps(info.tag)}")
        for each in info.fields:
            if each.required or self._rng.random() < 0.5:
                parts.append(
                    f"{json.dumps(each.encode_name)}:{self.value(each.type, each.encode_name)}"
                )
        return "{" + ",".join(parts) + "}"

    def value(self, info: Any, field: str) -> str:
        rng = self._rng
        if rng.random() < _WRONG:
            return rng.choice(rng.choice((_NUMBERS, _TEXTS, _OTHERS)))
        if field in self._names and isinstance(info, _NAMED) and rng.random() < 0.8:
            return json.dumps(rng.choice(self._names[field]))
        write = getattr(self, "_" + type(info).__name__.removesuffix("Type").lower(), None)
        return str(write(info, field)) if write else rng.choice(_OTHERS[:6])

    def _struct(self, info: Any, field: str) -> str:
        return self.struct(info, field)

    def _union(self, info: Any, field: str) -> str:
        return self.value(self._rng.choice(info.types), field)

    def _literal(self, info: Any, field: str) -> str:
        return json.dumps(self._rng.choice(info.values))

    def _bool(self, info: Any, field: str) -> str:
        return self._rng.choice(("true", "false"))

    def _none(self, info: Any, field: str) -> str:
        return "null"

    def _any(self, info: Any, field: str) -> str:
        return self._rng.choice((*_NUMBERS[:-6], *_TEXTS, *_OTHERS[:6]))

    def _int(self, info: Any, field: str) -> str:
        return self._number(info, whole=True)

    def _float(self, info: Any, field: str) -> str:
        return self._number(info, whole=False)

    def _number(self, info: Any, *, whole: bool) -> str:
        rng = self._rng
        if rng.random() < 2 * _WRONG:
            return rng.choice(_NUMBERS)
        low = info.ge if info.ge is not None else info.gt if info.gt is not None else -(2**53)
        high = info.le if info.le is not None else info.lt if info.lt is not None else 2**53
        middle = [n for n in (0, 1, 2, 1_000) if low <= n <= high]
        found = rng.choice([low, high, *middle, (low + high) / 2])
        return str(int(found)) if whole else repr(float(found))

    def _str(self, info: Any, field: str) -> str:
        rng = self._rng
        if rng.random() < 2 * _WRONG:
            return rng.choice(_TEXTS)
        if info.pattern is not None:
            return '"zz"'
        longest = min(info.max_length or 2_000, 20_000)
        long = rng.choice("無y") * longest if rng.random() < 0.1 else "z\x1b[31m"
        return json.dumps(rng.choice(("x", "", long, long))[: info.max_length])

    def _collection(self, info: Any, field: str) -> str:
        rng = self._rng
        count = rng.choice((0, 1, 1, 2, 3, min(info.max_length or 40, 40)))
        return "[" + ",".join(self.value(info.item_type, field) for _ in range(count)) + "]"

    _list = _collection
    _vartuple = _collection

    def _tuple(self, info: Any, field: str) -> str:
        return "[" + ",".join(self.value(each, field) for each in info.item_types) + "]"

    def _dict(self, info: Any, field: str) -> str:
        rng = self._rng
        keys = [f"k{n}" for n in range(rng.choice((0, 1, 3, 40)))]
        if rng.random() < 0.1:
            keys.append("k" * 5_000)
        pairs = (f"{json.dumps(k)}:{self.value(info.value_type, field)}" for k in keys)
        return "{" + ",".join(pairs) + "}"
