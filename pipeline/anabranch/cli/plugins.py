"""`anabranch plugins`: the layers that are installed, with their settings."""

from __future__ import annotations

import pkgutil
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from cyclopts import Parameter
from msgspec import NODEFAULT, Struct
from rich.text import Text

from anabranch.cli.common import COMMON, Common, note, out, print_json
from anabranch.layers.loading import ENTRY_POINTS, Installed, installed

__all__ = ["plugins"]


class Setting(Struct):
    """One key that a plugin takes in `[layers.<name>]`."""

    name: str
    type: str
    required: bool
    default: Any = None


class Plugin(Struct):
    """A plugin as it is listed; `error` if it cannot be imported."""

    installed: Installed
    about: str = ""
    settings: list[Setting] = []
    error: str | None = None


def plugins(
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> None:
    """List the layers that are installed, with their settings.

    Parameters
    ----------
    json
        One JSON document.
    """
    found = [_inspect(each) for each in installed()]
    if json:
        print_json(found)
        return
    if not found:
        note(f"no installed package has an entry point in {ENTRY_POINTS}")
    for plugin in found:
        _show(plugin)


def _inspect(each: Installed) -> Plugin:
    try:
        target = pkgutil.resolve_name(each.target)
    except Exception as error:  # any plugin may fail in its own way; the others are listed
        return Plugin(each, error=f"{type(error).__name__}: {error}")
    about = (target.__doc__ or "").strip().partition("\n")[0]
    kind = getattr(target, "Config", None)
    return Plugin(each, about=about, settings=_settings(kind) if kind else [])


def _settings(kind: type[Struct]) -> list[Setting]:
    fields = msgspec.structs.fields(kind)
    return [
        Setting(f.name, _spelled(f.type), f.required, None if f.required else _default(f))
        for f in fields
    ]


def _default(field: msgspec.structs.FieldInfo) -> Any:
    value = field.default_factory() if field.default is NODEFAULT else field.default
    return msgspec.to_builtins(value, enc_hook=str)


def _spelled(kind: Any) -> str:
    """A type as a person writes it."""
    if hasattr(kind, "__metadata__"):  # Annotated
        kind = kind.__origin__
    if get_origin(kind) is Literal:
        return " or ".join(msgspec.json.encode(choice).decode() for choice in get_args(kind))
    return kind.__name__ if type(kind) is type else str(kind).replace("typing.", "")


def _show(plugin: Plugin) -> None:
    console, each = out(), plugin.installed
    origin = f"{each.distribution} {each.version}, {each.target}"
    console.print(
        Text.assemble((each.name, "bold"), f"  {plugin.about}  ", (origin, "dim")), soft_wrap=True
    )
    if plugin.error:
        console.print(f"  cannot be imported: {plugin.error}", style="red")
    for setting in plugin.settings:
        default = "required" if setting.required else f"= {_toml(setting.default)}"
        console.print(f"  {setting.name}: {setting.type} {default}")


def _toml(value: Any) -> str:
    return "none" if value is None else msgspec.json.encode(value).decode()
