"""Layers from the configuration: entry points (`plugin = "git"`) and `plugin = "module:Name"`.

What `plugin` names may be

- a class `Orders(name, config)` with an attribute `Config`, a msgspec Struct: the layer's own
  keys become that Struct; without `Config` the class is built as `Orders(name)`;
- a layer that is made already, for instance by `@layer("orders")`;
- a function of a `Request`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from anabranch.config.messages import explain, nearest
from anabranch.config.settings import DEFAULT_TTL_MS, LAYER_TTL_MS, Config, LayerConfig
from anabranch.config.sources import parsed
from anabranch.errors import ConfigError
from anabranch.layers.api import Layer, LayerSpec, layer

__all__ = ["ENTRY_POINTS", "Installed", "installed", "load_layers"]

ENTRY_POINTS: Final = "anabranch.layers"
"""The entry-point group under which a distribution offers layers."""


class Installed(Struct, frozen=True, order=True):
    """A layer plugin that some installed distribution offers."""

    name: str
    target: str
    distribution: str
    version: str


def installed() -> list[Installed]:
    """The plugins that `plugin = "<name>"` can name here, by name; nothing is imported."""
    return sorted(
        Installed(
            name=point.name,
            target=point.value,
            distribution=point.dist.name if point.dist else "",
            version=point.dist.version if point.dist else "",
        )
        for point in _entry_points().values()
    )


def load_layers(config: Config, group: str | None = None) -> list[LayerSpec]:
    """Build the configured layers, or those of one worker group; none is started.

    Raises:
        ConfigError: naming the file, the key (`layers.<name>.<key>`) and what to write.
    """
    return [
        _load(name, settings, f"{config.source}: layers.{name}")
        for name, settings in config.layers.items()
        if group is None or settings.group == group
    ]


def _load(name: str, settings: LayerConfig, where: str) -> LayerSpec:
    target = _resolve(settings.plugin, f"{where}.plugin")
    made = _make(target, name, settings.settings, where)
    if made.name != name:
        raise ConfigError(
            f"{where}: the layer that {settings.plugin!r} names calls itself {made.name!r}; "
            f"write [layers.{made.name}]"
        )
    ttl_ms = settings.ttl_ms
    return LayerSpec(
        layer=made,
        group=settings.group,
        shards=settings.shards,
        ttl_ms=LAYER_TTL_MS.get(name, DEFAULT_TTL_MS) if ttl_ms is None else ttl_ms,
        weight=settings.weight,
        timeout_ms=settings.timeout_ms,
        max_bytes=settings.max_bytes,
    )


def _resolve(plugin: str, where: str) -> Any:
    """The object that `plugin` names."""
    if ":" in plugin:
        _make_folder_importable()
        return _import(EntryPoint(name=plugin, value=plugin, group=ENTRY_POINTS), where)
    known = _entry_points()
    if plugin not in known:
        raise ConfigError(
            f"{where}: no installed package offers a layer {plugin!r}; write one of "
            f"{_listed(known)}, or module:Name for a layer of your own"
        )
    return _import(known[plugin], where)


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _make_folder_importable() -> None:
    """A console script's `sys.path` lacks the folder that it is called in."""
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)


def _import(point: EntryPoint, where: str) -> Any:
    module, _, name = point.value.partition(":")
    if not module or not name:
        raise ConfigError(f"{where}: {point.value!r} is not of the form module:Name")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _is_within(module, error.name):
            raise ConfigError(
                f"{where}: there is no module {error.name!r}; correct the name, install its "
                f"package, or start where {error.name}.py lies (this is {os.getcwd()})"
            ) from error
        raise ConfigError(
            f"{where}: importing {module} failed with {type(error).__name__}: {error}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{where}: {module} has no {part!r}{_nearest(part, dir(found))}")
        found = getattr(found, part)
    return found


def _is_within(module: str, missing: str | None) -> bool:
    """Whether the module that is missing is the wanted one or a package that holds it."""
    return missing is not None and f"{module}.".startswith(f"{missing}.")


def _make(target: Any, name: str, settings: dict[str, Any], where: str) -> Layer:
    if isinstance(target, type):
        return _build(target, name, settings, where)
    _refuse_unknown(settings, (), where)
    if not hasattr(target, "ask") and callable(target):
        return layer(name)(target)
    return _checked(target, where)


def _build(kind: type, name: str, settings: dict[str, Any], where: str) -> Layer:
    struct = getattr(kind, "Config", None)
    if struct is None and settings:
        raise ConfigError(
            f"{where}.{next(iter(settings))}: {kind.__name__} has no settings; give it a class "
            f"`Config` (a msgspec Struct) with them, or remove the key"
        )
    if struct is not None and not (isinstance(struct, type) and issubclass(struct, Struct)):
        raise ConfigError(f"{where}.plugin: {kind.__name__}.Config is no msgspec Struct")
    _refuse_unknown(settings, _keys(struct) if struct else (), where)
    arguments = (_convert(struct, settings, where),) if struct else ()
    try:
        made = kind(name, *arguments)
    except ConfigError as error:  # a plugin's own begin with the key: "repo: there is no ..."
        raise ConfigError(f"{where}.{error}") from error
    except Exception as error:
        call = f"{kind.__name__}({name!r}, ...)"
        hint = "" if struct else f"; {kind.__name__} has no `Config`, so it is given its name only"
        raise ConfigError(
            f"{where}: {call} failed with {type(error).__name__}: {error}{hint}"
        ) from error
    return _checked(made, where)


def _convert(struct: Any, settings: dict[str, Any], where: str) -> Any:
    """The layer's own keys as its `Config`; what came from `${NAME}` is text and may be a number.

    Raises:
        ConfigError: a key is missing or has the wrong type.
    """
    try:
        return msgspec.convert(_listed_out(settings, struct), struct, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(error, where, struct)) from error


def _listed_out(settings: Mapping[str, Any], struct: Any) -> dict[str, Any]:
    """Settings whose text is an array or a table, as from a variable, where one is wanted."""
    kinds = {each.encode_name: each.type for each in msgspec.structs.fields(struct)}
    return {
        key: parsed(value, kinds.get(key)) if isinstance(value, str) else value
        for key, value in settings.items()
    }


def _keys(struct: Any) -> list[str]:
    return [each.encode_name for each in msgspec.structs.fields(struct)]


def _refuse_unknown(settings: Iterable[str], known: Iterable[str], where: str) -> None:
    keys = list(known)
    for key in settings:
        if key not in keys:
            raise ConfigError(f"{where}.{key}: there is no such key{_nearest(key, keys)}")


def _checked(made: Any, where: str) -> Layer:
    if not callable(getattr(made, "ask", None)) or not isinstance(getattr(made, "name", None), str):
        raise ConfigError(
            f"{where}.plugin: {type(made).__name__} is no layer; it needs a `name` and a method "
            f"`ask(request)`"
        )
    return cast(Layer, made)


def _nearest(word: str, known: Iterable[str]) -> str:
    """What may have been meant, as the end of a sentence."""
    public = [name for name in known if not name.startswith("_")]
    near = nearest(word, public)
    return f"; write one of {_listed(public)}" if near is None else f"; did you mean {near!r}?"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "(there are none)"
