"""`anabranch config`: what is in force, and where each value came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from anabranch.cli.common import COMMON, Common, out, print_json
from anabranch.cli.masking import masked
from anabranch.config.settings import Origin, provenance

__all__ = ["config"]


def config(
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> None:
    """Show the configuration in force and where each value came from; secrets are masked.

    Parameters
    ----------
    json
        One JSON document.
    """
    in_force = msgspec.to_builtins(common.load())
    origins = provenance(common.path, overrides=common.overrides)
    rows = [
        (key, masked(key, value, _reference(origin)), origin.source if origin else "default")
        for key, value in _values(in_force)
        for origin in [origins.get(key)]
    ]
    if json:
        print_json({key: {"value": value, "from": source} for key, value, source in rows})
        return
    table = Table("key", "value", "from", box=None, header_style="bold")
    for key, value, source in rows:
        style = "dim" if source == "default" else None
        table.add_row(key, Text(msgspec.json.encode(value).decode()), source, style=style)
    out().print(table)


def _reference(origin: Origin | None) -> Any:
    """What is written, where it may name a variable; all else is not to be shown as it is."""
    return origin.written if origin is not None and origin.expands else None


def _values(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys as they are written in a file, with their values."""
    for key, value in tree.items():
        if prefix.startswith("layers.") and key == "settings":
            yield from _values(value, prefix)
        elif isinstance(value, Mapping) and value:
            yield from _values(value, f"{prefix}{key}.")
        elif f"{prefix}{key}" != "source":
            yield f"{prefix}{key}", value
