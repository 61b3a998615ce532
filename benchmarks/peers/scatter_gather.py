"""What every peer does: one query, three layers, one answer of nine items.

The events are as small as they can be for that, JSON in UTF-8. A peer is two processes, one that
gathers and one that runs the layers, on the topics `<prefix>.q`, `.t`, `.p` and `.r`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Struct

LAYERS = ("a", "b", "c")
ITEMS = 3

T = TypeVar("T")


class Query(Struct, gc=False):
    """A question: what is asked is `n`."""

    id: str
    params: dict[str, int]


class Task(Struct, gc=False):
    """One layer's part of a query."""

    id: str
    layer: str
    n: int


class Item(Struct, gc=False):
    """What a layer finds."""

    id: str
    score: float


class Partial(Struct, gc=False):
    """A layer's items."""

    id: str
    layer: str
    items: list[Item]


class Answer(Struct, gc=False):
    """All items, best first."""

    id: str
    status: str
    items: list[Item]


encode = msgspec.json.Encoder().encode
decode_query = msgspec.json.Decoder(Query).decode
decode_task = msgspec.json.Decoder(Task).decode
decode_partial = msgspec.json.Decoder(Partial).decode


def tasks(query: Query) -> list[Task]:
    """One for each layer."""
    return [Task(query.id, layer, query.params["n"]) for layer in LAYERS]


def by_layer(given: Iterable[tuple[T, Task]]) -> list[tuple[str, list[tuple[T, Task]]]]:
    """Tasks of each layer, with what they came in: they wait together."""
    groups: dict[str, list[tuple[T, Task]]] = defaultdict(list)
    for record, task in given:
        groups[task.layer].append((record, task))
    return list(groups.items())


def found(task: Task) -> Partial:
    """What a layer finds."""
    items = [Item(f"urn:{task.layer}:{task.n}:{i}", 1.0 / (i + 1)) for i in range(ITEMS)]
    return Partial(task.id, task.layer, items)


def joined(partials: Iterable[Partial]) -> Answer:
    """The answer, once all layers are there."""
    parts = list(partials)
    items = [item for partial in parts for item in partial.items]
    items.sort(key=lambda item: (-item.score, item.id))
    return Answer(parts[0].id, "complete", items)


class Arguments(NamedTuple):
    """BOOTSTRAP PREFIX gather|layers DELAYS_MS, as every peer takes them."""

    bootstrap: str
    prefix: str
    role: str
    delays_s: dict[str, float]
    """What each layer waits; empty if none does."""


def arguments(argv: list[str]) -> Arguments:
    """Those of the command line."""
    bootstrap, prefix, role, delays_ms = argv
    delays_s = [int(ms) / 1000 for ms in delays_ms.split(",")]
    waits = dict(zip(LAYERS, delays_s, strict=True)) if any(delays_s) else {}
    return Arguments(bootstrap, prefix, role, waits)
