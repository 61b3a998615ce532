"""The public contract: what stands in the topics, as Structs.

JSON in UTF-8 on the wire. Unknown fields are ignored and missing optional ones take their
default, so producers and workers in any language may be older or newer than this module.
`schemas/` is generated from these classes (`python -m anabranch.schemas`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from anabranch.contract import bounds

__all__ = [
    "DEFAULT_TIMEOUT_MS",
    "HEADER_CLIENT",
    "HEADER_OFFSET",
    "HEADER_TRACEPARENT",
    "HEADER_TRACESTATE",
    "PRIORITIES",
    "Answer",
    "AnswerItem",
    "AnswerLayer",
    "ComponentStats",
    "ControlRecord",
    "Error",
    "ErrorCode",
    "Health",
    "Item",
    "LayerDescriptor",
    "MemberHealth",
    "Missing",
    "Partial",
    "PartialResult",
    "Priority",
    "Query",
    "Source",
    "Strategy",
    "Task",
    "TaskLayer",
]

DEFAULT_TIMEOUT_MS: Final = 1_000

HEADER_TRACEPARENT: Final = "traceparent"
HEADER_TRACESTATE: Final = "tracestate"
HEADER_CLIENT: Final = "anabranch-client"
"""Whose question it was: an answer's reader skips others' without decoding."""
HEADER_OFFSET: Final = "anabranch-offset"
"""The query's offset in `queries`, as decimal digits, on tasks, partials and answers."""

Priority = Literal["critical", "high", "medium", "low"]
PRIORITIES: Final[tuple[Priority, ...]] = ("critical", "high", "medium", "low")
"""Highest first."""

Strategy = Literal["cache", "sequential", "parallel", "distributed"]
Source = Literal["cache", "sequential", "parallel", "distributed", "none"]


class Query(Struct, frozen=True, gc=False):
    """A question, on `queries`."""

    id: bounds.QueryId
    type: bounds.AskedType
    params: dict[str, Any] = {}
    layers: bounds.AskedLayers | None = None
    scope: bounds.Scope = ""
    priority: Priority = "medium"
    timeout_ms: bounds.Timeout | None = None
    """From the query record's timestamp to its deadline; null is the type's, else 1000."""
    limit: bounds.Limit = 20
    min_coverage: bounds.Fraction = 1.0
    max_age_ms: bounds.Count | None = None
    strategy: Literal["auto", "cache", "sequential", "parallel", "distributed"] = "auto"
    reply_to: bounds.TopicName | None = None


class Item(Struct, frozen=True, gc=False):
    """One thing that a layer found. `id` is a URI: the same id from two layers is one item."""

    id: bounds.ItemId
    score: bounds.Score
    data: Any = None


class AnswerItem(Struct, frozen=True, gc=False):
    """An item of the joined answer, with the layers that found it."""

    layers: bounds.LayerNames
    id: bounds.ItemId
    score: bounds.Score
    data: Any = None


class AnswerLayer(Struct, frozen=True, gc=False):
    """How one wanted layer was asked and what came of it."""

    source: Source = "none"
    status: Literal["ok", "timeout", "error", "skipped"] = "ok"
    count: bounds.Count = 0
    age_ms: bounds.Count | None = None
    took_ms: bounds.Millis | None = None
    error: bounds.Chars | None = None


class Missing(Struct, frozen=True, gc=False):
    """A wanted layer that is not in the answer, and why."""

    layer: bounds.LayerName
    why: bounds.Chars


ErrorCode = Literal[
    "invalid_query", "overloaded", "expired", "quarantined", "unavailable", "internal"
]


class Error(Struct, frozen=True, gc=False):
    """Why a query has no answer."""

    code: ErrorCode
    message: str


class Answer(Struct, frozen=True, gc=False):
    """The one joined answer to a query, on `results` (and on `reply_to`)."""

    id: str
    status: Literal["complete", "partial", "failed"]
    strategy: Strategy | None = None
    reason: str = ""
    confidence: bounds.Fraction = 0.0
    items: list[AnswerItem] = []
    truncated: bool = False
    layers: dict[str, AnswerLayer] = {}
    missing: list[Missing] = []
    agreement: bounds.Fraction = 1.0
    estimated_ms: bounds.Millis | None = None
    took_ms: bounds.Millis | None = None
    attempt: bounds.Count = 0
    trace_id: str | None = None
    error: Error | None = None


class TaskLayer(Struct, frozen=True, gc=False):
    """One slot of a query to be filled: a layer, a shard of it, and which attempt this is.

    `attempt` is (epoch, n): the epoch of the partition's owner, and a number within it.
    """

    layer: bounds.LayerName
    shard: bounds.Shard = 0
    shards: bounds.Shards = 1
    attempt: bounds.Attempt = (0, 1)


class Task(Struct, frozen=True, gc=False):
    """Work for one worker of a group, on `tasks.<group>.<priority>`.

    `deadline_ms` is absolute, Unix epoch milliseconds on the broker's clock. `key` and
    `generation` are opaque and copied into the partial.
    """

    query: bounds.CarriedId
    partition: bounds.PartitionNumber
    offset: bounds.CarriedOffset
    type: bounds.TypeName
    params: dict[str, Any]
    scope: bounds.Scope
    limit: bounds.Limit
    deadline_ms: bounds.Count
    layers: Annotated[list[TaskLayer], Meta(max_length=bounds.MAX_SLOTS)]
    key: bounds.Key = ""
    generation: bounds.Count = 0


class PartialResult(Struct, gc=False):
    """What one layer (or shard) said, or why it said nothing."""

    layer: bounds.LayerName
    shard: bounds.Shard = 0
    shards: bounds.Shards = 1
    attempt: bounds.Attempt = (0, 1)
    status: Literal["ok", "timeout", "error", "expired", "skipped"] = "ok"
    items: Annotated[Sequence[Item], Meta(max_length=bounds.MAX_ITEMS)] = []
    complete: bool = False
    ttl_ms: bounds.Count | None = None
    tags: bounds.Tags = []
    error: bounds.Chars | None = None
    transient: bool = False
    queued_ms: bounds.Millis = 0.0
    started_ms: bounds.Millis = 0.0
    took_ms: bounds.Millis = 0.0


class Partial(Struct, frozen=True, gc=False):
    """Results of layers that finished together in one worker, on `partials`; never params."""

    query: bounds.CarriedId
    offset: bounds.CarriedOffset
    type: bounds.TypeName
    scope: bounds.Scope
    limit: bounds.Limit
    key: bounds.Key
    generation: bounds.Count
    worker: bounds.Instance
    results: Annotated[Sequence[PartialResult], Meta(max_length=bounds.MAX_SLOTS)]


class LayerDescriptor(Struct, frozen=True, tag="layer", tag_field="kind"):
    """What coordinators must know of a layer, on `health` under `layer/<group>/<name>`."""

    layer: bounds.LayerName
    group: bounds.GroupName
    shards: bounds.Shards = 1
    ttl_ms: bounds.Count = 300_000
    weight: bounds.Weight = 1.0
    mode: Literal["async", "thread", "process"] = "async"


HEALTH_INTERVAL_MS: Final = 1_000
"""How often a member says that it lives."""


class MemberHealth(Struct, frozen=True, tag="member", tag_field="kind"):
    """One running instance, on `health` under `member/<role>/<instance>`.

    A coordinator's last word, `stopped`, has in `epochs` under which it held its partitions to the
    end: whoever takes them over from there knows that no query killed it.
    """

    instance: bounds.Instance
    role: Literal["coordinator", "worker"]
    state: Literal["starting", "ready", "draining", "stopped"]
    group: bounds.MemberGroup = ""
    version: bounds.Label = ""
    host: bounds.HostName = ""
    partitions: bounds.Partitions = []
    queued: bounds.Count = 0
    sent_ms: bounds.Millis = 0.0
    stats: bounds.Stats = {}
    epochs: bounds.Epochs = {}


class ComponentStats(Struct, frozen=True, tag="stats", tag_field="kind"):
    """What the components of one coordinator count, on `health` under `stats/<instance>`.

    `components` is by name: dependency_graph, cross_layer_cache, strategy_selection,
    execution_telemetry; what they hold may grow. `control_position` is the next offset of
    `control` that the instance has not obeyed, `orders` how many cached results each of the
    latest orders concerned there, by its offset.
    """

    instance: bounds.Instance
    sent_ms: bounds.Millis = 0.0
    control_position: bounds.Count = 0
    orders: bounds.Orders = {}
    components: bounds.Components = {}


class ControlRecord(Struct, frozen=True):
    """An order to every coordinator, on `control`, keyed by its target.

    `invalidate` drops cached results of a layer, a scope, a key or of tagged results;
    fields left null match everything.
    """

    action: Literal["invalidate"]
    layer: bounds.LayerName | None = None
    scope: bounds.Scope | None = None
    key: bounds.Key | None = None
    tags: bounds.Tags = []


Health = LayerDescriptor | MemberHealth | ComponentStats
"""What stands on `health`."""
