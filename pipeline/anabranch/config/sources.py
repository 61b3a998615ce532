"""Where settings are written: in a file, in `ANABRANCH_*` variables, in the call."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_origin

import msgspec

from anabranch.config.messages import kind_at, locate, unfold
from anabranch.errors import ConfigError

__all__ = ["Origin", "Sources", "parsed"]

_CONTAINERS = (list, tuple, dict, set, frozenset)

_VARIABLE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NOT_SETTINGS = {"ANABRANCH_CONFIG", "ANABRANCH_DEBUG", "ANABRANCH_KAFKA_HOME"}


class Origin(NamedTuple):
    """What set a key (the file, variable or call), and the value as it is written there."""

    source: str
    written: Any
    expands: bool
    """Whether `${NAME}` in it stands for a variable, as in the file; all else is text as it is."""


class Sources:
    """All that is set, merged key by key: the call wins over variables, they over the file.

    Args:
        kind: the Struct that the whole becomes; variables for its texts are not parsed.

    Attributes:
        file: the file's name, for messages.
        tree: what is written, merged.
        origins: where each key's value is written, by dotted key.

    Raises:
        ConfigError: the file cannot be read, or variables contradict each other.
    """

    def __init__(
        self,
        path: str | Path | None,
        environ: Mapping[str, str],
        overrides: Mapping[str, Any] | None,
        kind: type,
    ) -> None:
        self.file = str(path) if path else "configuration"
        self._environ = environ
        self.tree: dict[str, Any] = {}
        self.origins: dict[str, Origin] = {}
        self._add(_read_file(Path(path)) if path else {}, lambda key: self.file, expands=True)
        self._add(_read_environ(environ, kind), _variable_of)
        self._add(overrides or {}, lambda key: "command line")

    def expanded(self) -> dict[str, Any]:
        """The tree with `${NAME}` in the file's strings replaced by the environment's values.

        `$$` is a dollar.

        Raises:
            ConfigError: naming the variable that is not set.
        """
        return {key: self._expand(value, key) for key, value in self.tree.items()}

    def error(self, key: str, what: str) -> ConfigError:
        """An error that names where a key was set."""
        return ConfigError(f"{self._origin(key)}: {key}: {what}")

    def wrong(
        self, error: msgspec.ValidationError, prefix: str, kind: type, formats: Mapping[str, str]
    ) -> ConfigError:
        """What msgspec found; `formats` says what to write instead of a regular expression."""
        key, what = locate(error, prefix, kind)
        if "matching regex" in what:
            what = formats.get(key.rsplit(".", 1)[-1], what)
        return self.error(key, what)

    def _add(
        self, source: Mapping[str, Any], name: Callable[[str], str], *, expands: bool = False
    ) -> None:
        _merge(self.tree, source)
        for key, written in _leaves(source):
            self.origins[key] = Origin(name(key), written, expands)

    def _origin(self, key: str) -> str:
        """What set this key, or something in it, or the table or list it stands in."""
        for set_key, origin in self.origins.items():
            if f"{set_key}.".startswith(f"{key}.") or key.startswith(
                (f"{set_key}.", f"{set_key}[")
            ):
                return origin.source
        return self.file

    def _expand(self, value: Any, key: str) -> Any:
        origin = self.origins.get(key)
        if origin is not None and not origin.expands:
            return value
        if isinstance(value, str):
            return _VARIABLE.sub(lambda match: self._variable(match[1], key), value)
        if isinstance(value, Mapping):
            return {k: self._expand(v, f"{key}.{k}") for k, v in value.items()}
        if isinstance(value, list):
            return [self._expand(v, f"{key}[{i}]") for i, v in enumerate(value)]
        return value

    def _variable(self, name: str | None, key: str) -> str:
        if name is None:
            return "$"
        if name not in self._environ:
            raise self.error(
                key, f"the variable {name} is not set; export it or write the value itself"
            )
        return _text(self._environ, name)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # some editors begin with a BOM
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; check --config") from None
    except (OSError, ValueError, RecursionError) as error:  # endless numbers and nesting, too
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error


def _read_environ(environ: Mapping[str, str], kind: type) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for variable in sorted(environ):
        if not variable.startswith("ANABRANCH_") or variable in _NOT_SETTINGS:
            continue
        keys = variable.removeprefix("ANABRANCH_").lower().split("__")
        node: Any = tree
        for parent in keys[:-1]:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{variable}: {parent} has a variable of its own; unset one")
        node[keys[-1]] = parsed(_text(environ, variable), kind_at(kind, keys))
    return tree


def _text(environ: Mapping[str, str], name: str) -> str:
    """A variable's value: its bytes may be any, and what is configured is text."""
    value = environ[name]
    if value != value.encode(errors="replace").decode():
        raise ConfigError(f"{name}: its value is no UTF-8")  # not shown: it may be a secret
    return value


def parsed(text: str, kind: Any) -> Any:
    """Numbers, booleans, arrays and tables as TOML writes them, where such are wanted.

    Everything else is text, exactly; so is what is of no known kind.
    """
    kind = unfold(kind)
    if get_origin(kind) not in _CONTAINERS and kind not in (bool, int, float, *_CONTAINERS):
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float | str | list | dict) else text


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        present = into.get(key)
        if isinstance(value, Mapping) and isinstance(present, dict):
            _merge(present, value)
        elif isinstance(value, Mapping):
            into[key] = {}  # a copy: what was handed in must not change when more is merged
            _merge(into[key], value)
        else:
            into[key] = value


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _variable_of(key: str) -> str:
    return "ANABRANCH_" + key.replace(".", "__").upper()
