"""Configuration: one tree of Structs, from defaults, a TOML file, `ANABRANCH_*` and the call.

`load` says for every error which file (or variable) and key it is about and what to write.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from anabranch.errors import ConfigError

__all__ = [
    "Config",
    "CoordinatorConfig",
    "KafkaConfig",
    "LayerConfig",
    "TypeConfig",
    "WorkerConfig",
    "load",
    "provenance",
]

Positive = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class KafkaConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the broker. `client` passes through to aiokafka (SASL and TLS settings)."""

    bootstrap: str = "127.0.0.1:9092"
    client: dict[str, Any] = {}
    session_timeout_ms: Positive = 6_000
    heartbeat_interval_ms: Positive = 400
    rebalance_timeout_ms: Positive = 10_000
    request_timeout_ms: Positive = 20_000
    fetch_max_wait_ms: Positive = 50
    replication: Annotated[int, Meta(ge=-1)] = -1
    """Replication factor of topics that `anabranch topics` creates; -1 is the broker's default."""


class CoordinatorConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of a coordinator."""

    commit_interval_ms: Positive = 100
    max_open_queries: Positive = 20_000
    max_timeout_ms: Positive = 60_000
    reserve_ms: Annotated[int, Meta(ge=0)] = 20
    """Kept back from a layer's deadline for joining and answering (at most a tenth of it)."""
    dedupe_window_ms: Positive = 600_000
    dedupe_max_ids: Positive = 100_000
    drain_timeout_ms: Positive = 5_000
    reply_topics: list[str] = []
    """Topics (names, or prefixes ending in `*`) that a query may name in `reply_to`."""
    cache_max_entries: Positive = 5_000
    cache_max_bytes: Positive = 64_000_000


class WorkerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of a worker process."""

    slots: Positive = 32
    """Layers that run at the same time in one worker."""
    queue: Positive = 1_000
    """Tasks held in the local queue before fetching pauses."""
    commit_interval_ms: Positive = 100
    drain_timeout_ms: Positive = 5_000
    max_low_wait_ms: Positive = 2_000
    """Longest time a LOW task waits while a slot is given to younger, higher ones."""


class TypeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A query type: which layers answer it when the query names none, and how."""

    layers: list[str] = []
    key_params: list[str] | None = None
    timeout_ms: Positive | None = None
    fusion: Literal["rrf", "score"] = "rrf"
    weights: dict[str, float] = {}
    select: Literal["default", "learned"] = "default"


class LayerConfig(Struct, frozen=True):
    """`[layers.<name>]`: where a layer comes from; all other keys are the plugin's own."""

    plugin: str
    group: Name = "default"
    shards: Annotated[int, Meta(ge=1, le=1024)] = 1
    ttl_ms: Annotated[int, Meta(ge=0)] | None = None
    weight: Annotated[float, Meta(gt=0)] = 1.0
    timeout_ms: Positive | None = None
    max_bytes: Positive = 512_000
    settings: dict[str, Any] = {}


class SelectConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How a strategy is chosen; the thresholds are those of the rules tree."""

    mode: Literal["rules", "learned", "shadow"] = "rules"
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
    mode: Literal["at_least_once"] = "at_least_once"
    kafka: KafkaConfig = KafkaConfig()
    coordinator: CoordinatorConfig = CoordinatorConfig()
    worker: WorkerConfig = WorkerConfig()
    select: SelectConfig = SelectConfig()
    types: dict[str, TypeConfig] = field(default_factory=lambda: dict(PRESET_TYPES))
    layers: dict[Name, LayerConfig] = {}

    @property
    def groups(self) -> tuple[str, ...]:
        """Worker groups that the configured layers name, sorted."""
        return tuple(sorted({layer.group for layer in self.layers.values()}))


_LAYER_KEYS = {f.name for f in msgspec.structs.fields(LayerConfig)} - {"settings"}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


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
    tree: dict[str, Any] = {}
    for _, source in _sources(path, environ, overrides):
        _merge(tree, source)
    where = str(path) if path else "configuration"
    return _convert(_expand(tree, environ, where), where)


def provenance(
    path: str | Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Where each key that is set comes from: dotted key to the file, variable or call."""
    found: dict[str, str] = {}
    for name, source in _sources(path, environ, overrides):
        for key in _leaves(source):
            found[key] = name if name != "environment" else _variable_of(key)
    return found


def _sources(
    path: str | Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any] | None
) -> list[tuple[str, dict[str, Any]]]:
    return [
        (str(path) if path else "", _read_file(Path(path)) if path else {}),
        ("environment", _read_environ(environ)),
        ("command line", dict(overrides or {})),
    ]


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; check --config") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error


def _read_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith("ANABRANCH_") or variable == "ANABRANCH_CONFIG":
            continue
        *parents, leaf = variable.removeprefix("ANABRANCH_").lower().split("__")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = _parse_scalar(text)
    return tree


def _parse_scalar(text: str) -> Any:
    """Numbers, booleans and arrays as TOML writes them; everything else is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        present = into.get(key)
        if isinstance(value, Mapping) and isinstance(present, dict):
            _merge(present, value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        keys += _leaves(value, f"{dotted}.") if isinstance(value, Mapping) else [dotted]
    return keys


def _variable_of(key: str) -> str:
    return "ANABRANCH_" + key.replace(".", "__").upper()


def _expand(value: Any, environ: Mapping[str, str], where: str, key: str = "") -> Any:
    """Replace `${NAME}` in strings by the environment's value."""
    if isinstance(value, str):

        def lookup(match: re.Match[str]) -> str:
            try:
                return environ[match[1]]
            except KeyError:
                raise ConfigError(
                    f"{where}: {key}: the variable {match[1]} is not set; export it or write "
                    f"the value itself"
                ) from None

        return _VARIABLE.sub(lookup, value)
    if isinstance(value, Mapping):
        return {k: _expand(v, environ, where, f"{key}.{k}" if key else k) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, environ, where, f"{key}[{i}]") for i, v in enumerate(value)]
    return value


def _convert(tree: dict[str, Any], where: str) -> Config:
    types = {**PRESET_TYPES, **_table(tree, "types", where)}
    layers = {
        name: _layer_table(name, table, where)
        for name, table in _table(tree, "layers", where).items()
    }
    try:
        config = msgspec.convert({**tree, "types": types, "layers": layers}, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {explain(error)}") from error
    if config.kafka.heartbeat_interval_ms * 3 > config.kafka.session_timeout_ms:
        raise ConfigError(
            f"{where}: kafka.heartbeat_interval_ms is {config.kafka.heartbeat_interval_ms}; write "
            f"at most a third of kafka.session_timeout_ms ({config.kafka.session_timeout_ms})"
        )
    return config


def _table(tree: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = tree.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {key}: must be a table; write [{key}.<name>]")
    return value


def _layer_table(name: str, table: Any, where: str) -> dict[str, Any]:
    """Split a layer's table into our keys and the plugin's own."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: layers.{name}: must be a table; write [layers.{name}]")
    if "plugin" not in table:
        raise ConfigError(
            f"{where}: layers.{name}.plugin is missing; write plugin = \"git\" or \"module:Name\""
        )
    ours = {key: value for key, value in table.items() if key in _LAYER_KEYS}
    own = {key: value for key, value in table.items() if key not in _LAYER_KEYS}
    return {**ours, "settings": own}


_PATH = re.compile(r"^(?P<what>.*?) - at `(?:key in )?\$\.?(?P<path>.*?)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>.*?)`")


def explain(error: msgspec.ValidationError, prefix: str = "") -> str:
    """A msgspec error as `key: what is wrong; what to write`."""
    text = str(error)
    match = _PATH.match(text)
    what, path = (match["what"], match["path"]) if match else (text, "")
    unknown = _UNKNOWN.match(what)
    if unknown:
        path = f"{path}.{unknown['field']}" if path else unknown["field"]
        what = "there is no such key; remove it or correct its name"
    key = ".".join(part for part in (prefix, path) if part)
    return f"{key}: {what}" if key else what
