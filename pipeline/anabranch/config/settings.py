"""Configuration: one tree of Structs, from defaults, a TOML file, `ANABRANCH_*` and the call.

`load` says for every error which file (or variable) and key it is about and what to write.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from anabranch.config.messages import explain, nearest
from anabranch.config.sources import Origin, Sources
from anabranch.contract.bounds import MAX_SPAN_MS, MAX_WEIGHT, AskedLayers
from anabranch.contract.events import DEFAULT_TIMEOUT_MS

__all__ = [
    "MAX_RESULT_BYTES",
    "UNCONFIGURED",
    "Config",
    "CoordinatorConfig",
    "KafkaConfig",
    "LayerConfig",
    "Origin",
    "SelectConfig",
    "TopicsConfig",
    "TypeConfig",
    "WorkerConfig",
    "explain",
    "load",
    "provenance",
]

MAX_RESULT_BYTES: Final = 900_000
"""Of one layer's result, so that with what a partial adds it fits into a record."""

S = TypeVar("S", bound=Struct)
Positive = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class KafkaConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the broker. `client` passes through to aiokafka (SASL and TLS settings)."""

    bootstrap: str = "127.0.0.1:9092"
    client: dict[str, Any] = {}
    session_timeout_ms: Positive = 6_000
    heartbeat_interval_ms: Positive = 400
    rebalance_timeout_ms: Positive = 10_000
    request_timeout_ms: Positive = 45_000
    """How long the broker may be away before an instance gives up and ends."""
    fetch_max_wait_ms: Positive = 50
    replication: Annotated[int, Meta(ge=-1)] = -1
    """Copies of each topic that is created; -1 is one on every broker, three at most."""


class TopicsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How `anabranch topics` makes the topics. Partitions cannot be made fewer afterwards."""

    queries: Positive = 12
    """Partitions of queries, partials and results: at most so many coordinators work."""
    tasks: Positive = 20
    """Partitions of each task topic: at most so many workers of a group work."""
    retention_ms: Positive = 86_400_000
    """Longer than any outage after which open queries are still to be answered."""
    dlq_retention_ms: Positive = 604_800_000


class CoordinatorConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of a coordinator."""

    commit_interval_ms: Positive = 100
    max_open_queries: Positive = 20_000
    max_open_bytes: Positive = 64_000_000
    """Of open queries and what has arrived for them, as they lie in the logs."""
    max_timeout_ms: Positive = 60_000
    dedupe_window_ms: Positive = 600_000
    dedupe_max_ids: Positive = 100_000
    drain_timeout_ms: Positive = 5_000
    reply_topics: list[str] = []
    """Topics (names, or prefixes ending in `*`) that a query may name in `reply_to`."""
    cache_max_entries: Positive = 5_000
    cache_max_bytes: Positive = 64_000_000
    warm: bool = False
    """Refresh what is asked most ahead of its expiry, at LOW priority, within a budget."""
    prefetch: bool = False
    """Fetch what tends to be asked next, at LOW priority, within a budget."""


class WorkerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of a worker process."""

    slots: Positive = 32
    """Layers that run at the same time in one worker."""
    queue: Positive = 1_000
    """Tasks held in the local queue before fetching pauses."""
    commit_interval_ms: Positive = 100
    drain_timeout_ms: Positive = 5_000
    reserve_ms: Annotated[int, Meta(ge=0)] = 20
    """Kept back from a layer's deadline for joining and answering (at most a tenth of it)."""
    max_low_wait_ms: Positive = 2_000
    """Longest time a LOW task waits while a slot is given to younger, higher ones."""


class TypeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A query type: which layers answer it when the query names none, and how."""

    layers: AskedLayers = []
    key_params: list[str] | None = None
    timeout_ms: Positive | None = None
    fusion: Literal["rrf", "score"] = "rrf"
    weights: dict[str, float] = {}
    select: Literal["default", "learned"] = "default"

    def keyed(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The params that make a question: client and coordinator must agree on them."""
        if self.key_params is None:
            return params
        return {name: params[name] for name in self.key_params if name in params}

    def timeout_for(self, asked_ms: int | None) -> int:
        """A query's own timeout, else the type's, else the contract's."""
        if asked_ms is not None:
            return asked_ms
        return DEFAULT_TIMEOUT_MS if self.timeout_ms is None else self.timeout_ms


UNCONFIGURED: Final = TypeConfig()
"""A type that the configuration does not name."""


class LayerConfig(Struct, frozen=True):
    """`[layers.<name>]`: where a layer comes from; all other keys are the plugin's own."""

    plugin: str
    group: Name = "default"
    shards: Annotated[int, Meta(ge=1, le=1024)] = 1
    ttl_ms: Annotated[int, Meta(ge=0, le=MAX_SPAN_MS)] | None = None
    """At most thirty days."""
    weight: Annotated[float, Meta(gt=0, le=MAX_WEIGHT)] = 1.0
    timeout_ms: Positive | None = None
    max_bytes: Annotated[int, Meta(ge=1, le=MAX_RESULT_BYTES)] = 512_000
    settings: dict[str, Any] = {}


class SelectConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How a strategy is chosen; the thresholds are those of the rules tree."""

    mode: Literal["rules", "learned", "shadow"] = "learned"
    cache_threshold: Annotated[float, Meta(ge=0, le=1)] = 0.75
    parallel_threshold: Annotated[float, Meta(ge=1)] = 1.5
    parallel_max_layers: Positive = 4
    distributed_threshold: Annotated[float, Meta(ge=0)] = 500.0


PRESET_TYPES: dict[str, TypeConfig] = {
    name: TypeConfig(layers=layers)
    for name, layers in {
        "temporal": ["episodic", "semantic"],
        "factual": ["semantic", "graph"],
        "relational": ["graph", "semantic"],
        "procedural": ["procedural", "semantic"],
        "prospective": ["prospective", "semantic"],
        "meta": ["meta", "semantic"],
        "planning": ["semantic", "procedural", "graph"],
    }.items()
}

LAYER_TTL_MS: dict[str, int] = {
    "episodic": 180_000,
    "semantic": 300_000,
    "procedural": 600_000,
    "prospective": 240_000,
    "graph": 600_000,
    "meta": 120_000,
}
"""How long a layer's results are served from cache where nothing else is said."""

DEFAULT_TTL_MS = 300_000


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set. See docs/configuration.md for the TOML."""

    namespace: Annotated[str, Meta(pattern=r"^([A-Za-z0-9_-]+\.)*$")] = "anabranch."
    instance: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,128}$")] = ""
    """This instance's name; empty means host, process and a random part."""
    mode: Literal["at_least_once", "exactly_once"] = "at_least_once"
    kafka: KafkaConfig = KafkaConfig()
    topics: TopicsConfig = TopicsConfig()
    coordinator: CoordinatorConfig = CoordinatorConfig()
    worker: WorkerConfig = WorkerConfig()
    select: SelectConfig = SelectConfig()
    types: dict[str, TypeConfig] = field(default_factory=lambda: dict(PRESET_TYPES))
    layers: dict[Name, LayerConfig] = {}
    source: str = "configuration"
    """Where this was read from, for errors that are found later; not a setting."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Worker groups that the configured layers name, sorted."""
        return tuple(sorted({layer.group for layer in self.layers.values()}))

    def type_config(self, name: str) -> TypeConfig:
        """What is configured for a query type, or what goes for all others."""
        return self.types.get(name, UNCONFIGURED)


_LAYER_KEYS = {f.name for f in msgspec.structs.fields(LayerConfig)} - {"settings"}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FORMATS = {
    "namespace": 'write letters, digits, _ and -, and a dot at the end: "anabranch."',
    "instance": "write letters, digits, ., _ and -, at most 128",
    "group": "write letters, digits, _ and -, at most 64",
}
"""What to write where msgspec would only show a regular expression, by the key's last part."""


def load(
    path: str | Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Read the configuration in force.

    Later wins: defaults, the file, `ANABRANCH_*` variables, `overrides`. A variable names its
    key with double underscores for dots: `ANABRANCH_KAFKA__BOOTSTRAP=broker:9092`.

    Raises:
        ConfigError: naming the file or variable, the key, and what to write instead.
    """
    sources = Sources(path, environ, overrides, Config)
    config = _convert(sources.expanded(), sources)
    return msgspec.structs.replace(config, source=sources.file)


def provenance(
    path: str | Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Origin]:
    """Where each key that is set comes from, by dotted key."""
    return Sources(path, environ, overrides, Config).origins


def _convert(tree: dict[str, Any], sources: Sources) -> Config:
    types = {
        name: _struct(table, TypeConfig, f"types.{name}", sources)
        for name, table in _table(tree, "types", sources).items()
    }
    layers = {
        name: _layer(name, table, sources)
        for name, table in _table(tree, "layers", sources).items()
    }
    if "source" in tree:
        raise sources.error("source", "there is no such key; remove it")
    whole = {**tree, "types": {**PRESET_TYPES, **types}, "layers": layers}
    config = _struct(whole, Config, "", sources)
    for name, kind in types.items():
        for key, layer in _named_layers(kind):
            _refuse_misspelt(layer, layers, f"types.{name}.{key}", sources)
    if config.kafka.heartbeat_interval_ms * 3 > config.kafka.session_timeout_ms:
        raise sources.error(
            "kafka.heartbeat_interval_ms",
            f"is {config.kafka.heartbeat_interval_ms}; write at most a third of "
            f"kafka.session_timeout_ms ({config.kafka.session_timeout_ms})",
        )
    return config


def _named_layers(kind: TypeConfig) -> list[tuple[str, str]]:
    """The layers that a type names, each with its key."""
    listed = [(f"layers[{n}]", layer) for n, layer in enumerate(kind.layers)]
    return [*listed, *((f"weights.{layer}", layer) for layer in kind.weights)]


def _refuse_misspelt(name: str, layers: Collection[str], key: str, sources: Sources) -> None:
    """A layer may be served from another file; one that is spelt almost like ours is ours."""
    near = nearest(name, layers, likeness=0.8)
    if near is not None and name not in layers:
        raise sources.error(
            key,
            f"no layer {name!r} is configured; did you mean {near!r}? (one that is served from "
            f"another file is named in [layers.{name}] here as well)",
        )


def _struct(table: Any, kind: type[S], key: str, sources: Sources) -> S:
    if not isinstance(table, dict):
        raise sources.error(key, f"must be a table; write [{key}]")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise sources.wrong(error, key, kind, _FORMATS) from error


def _table(tree: Mapping[str, Any], key: str, sources: Sources) -> dict[str, Any]:
    value = tree.get(key, {})
    if not isinstance(value, dict):
        raise sources.error(key, f"must be a table; write [{key}.<name>]")
    return value


def _layer(name: str, table: Any, sources: Sources) -> LayerConfig:
    """Split a layer's table into our keys and the plugin's own."""
    key = f"layers.{name}"
    if not _NAME.fullmatch(name):
        raise sources.error(key, "a layer's name has letters, digits, _ and -, at most 64")
    if not isinstance(table, dict):
        raise sources.error(key, f"must be a table; write [{key}]")
    if "plugin" not in table:
        raise sources.error(f"{key}.plugin", 'is missing; write plugin = "git" or "module:Name"')
    ours = {k: v for k, v in table.items() if k in _LAYER_KEYS}
    own = {k: v for k, v in table.items() if k not in _LAYER_KEYS}
    return _struct({**ours, "settings": own}, LayerConfig, key, sources)
