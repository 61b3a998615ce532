"""What a value on a topic may be: every number finite, every name and list of bounded length.

Whoever writes to a topic chooses what stands in it. The bounds are wide enough for whatever
can be meant, and narrow enough that nothing computed from it overflows, sums of millions
included. They are part of the events' schemas: a record that breaks one is a dead letter. What
is within them and still absurd (a layer that took a year) is clamped where it is folded.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias, TypeVar

from msgspec import Meta

MAX_INT: Final = 2**53
"""Largest integer that every JSON reader keeps exactly; as milliseconds, 285,000 years."""
MAX_SPAN_MS: Final = 2_592_000_000
"""Thirty days: longer than anything takes, waits or is kept. Longer spans count as this."""
MAX_SCORE: Final = 1e300
MAX_ID_CHARS: Final = 16_384
"""Of an item: a path of 4,096 bytes, percent-encoded, and its origin."""
MAX_ITEMS: Final = 10_000
MAX_LAYERS: Final = 256
"""Layers of a query."""
MAX_LAYER_CHARS: Final = 128
MAX_TAGS: Final = 1_000
MAX_TAG_CHARS: Final = 1_024
MAX_SHARDS: Final = 1_024
MAX_SLOTS: Final = 16_384
"""Of a task or partial; as many as its bytes can name."""
MAX_WEIGHT: Final = 1e6
MAX_ROWS: Final = 10_000
"""Of a kind, in a batch of telemetry."""

Fraction: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INT)]
"""Of things, or an offset, an epoch, whole milliseconds."""
CarriedOffset: TypeAlias = Annotated[int, Meta(ge=-1, le=MAX_INT)]
"""Of the query that a task or partial is for; -1 where there is none."""
Signed: TypeAlias = Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)]
Millis: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_INT)]
"""A span, or a time since the Unix epoch."""
Shift: TypeAlias = Annotated[float, Meta(ge=-MAX_INT, le=MAX_INT)]
"""From one time to another, which may be earlier."""
Ratio: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_SCORE)]
Timeout: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_INT)]
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_ITEMS)]
Score: TypeAlias = Annotated[float, Meta(ge=-MAX_SCORE, le=MAX_SCORE)]
Weight: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_WEIGHT)]
Shard: TypeAlias = Annotated[int, Meta(ge=0, lt=MAX_SHARDS)]
Shards: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_SHARDS)]
Attempt: TypeAlias = tuple[Count, Count]
PartitionNumber: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Epochs: TypeAlias = Annotated[dict[PartitionNumber, Count], Meta(max_length=16_384)]
Partitions: TypeAlias = Annotated[list[PartitionNumber], Meta(max_length=16_384)]

Label: TypeAlias = Annotated[str, Meta(max_length=128)]
QueryId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
CarriedId: TypeAlias = Annotated[str, Meta(max_length=256)]
"""Of the query that a task or partial is for; empty where a coordinator guessed ahead."""
ItemId: TypeAlias = Annotated[str, Meta(max_length=MAX_ID_CHARS)]
LayerName: TypeAlias = Annotated[str, Meta(max_length=MAX_LAYER_CHARS)]
LayerNames: TypeAlias = Annotated[tuple[LayerName, ...], Meta(max_length=MAX_LAYERS)]
AskedLayers: TypeAlias = Annotated[list[LayerName], Meta(max_length=MAX_LAYERS)]
AskedType: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
TypeName: TypeAlias = Annotated[str, Meta(max_length=256)]
Scope: TypeAlias = Annotated[str, Meta(max_length=1_024)]
Key: TypeAlias = Annotated[str, Meta(max_length=256)]
"""A question's digest."""
GroupName: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?!\n)$")]
"""Part of a topic's name."""
MemberGroup: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{0,64}(?!\n)$")]
TopicName: TypeAlias = Annotated[str, Meta(max_length=249)]
Instance: TypeAlias = Annotated[str, Meta(max_length=512)]
HostName: TypeAlias = Annotated[str, Meta(max_length=256)]
Chars: TypeAlias = Annotated[str, Meta(max_length=16_384)]
"""Prose: an error, a reason."""
Tag: TypeAlias = Annotated[str, Meta(max_length=MAX_TAG_CHARS)]
Tags: TypeAlias = Annotated[list[Tag], Meta(max_length=MAX_TAGS)]

Stats: TypeAlias = Annotated[dict[Label, Shift], Meta(max_length=256)]
Orders: TypeAlias = Annotated[dict[Count, Count], Meta(max_length=1_024)]
Components: TypeAlias = Annotated[dict[Label, dict[str, Any]], Meta(max_length=64)]


K = TypeVar("K")
V = TypeVar("V")


def remember(known: dict[K, V], key: K, value: V, most: int) -> None:
    """Set a key of a dictionary of at most `most`: of more, what was longest not set goes."""
    known.pop(key, None)
    known[key] = value
    while len(known) > most:
        del known[next(iter(known))]


def clamped_ms(span_ms: float) -> float:
    """A span as it is counted: 0 to `MAX_SPAN_MS`, and 0 for what is no number."""
    if 0 < span_ms <= MAX_SPAN_MS:
        return span_ms
    return MAX_SPAN_MS if span_ms > 0 else 0.0
