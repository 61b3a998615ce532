"""Generates `schemas/` from the events: a JSON Schema for each and one AsyncAPI 3 document.

    python -m anabranch.schemas [--check] [FOLDER]

`--check` writes nothing and fails if a file differs, or if an event broke its promise to the
last release, whose schemas are kept in `FOLDER/released`. At a release they are replaced by
the current ones, and `FOLDER/narrowed.json` by `{}`: it lists, by reason, the fields that were
given bounds since then.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

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
from anabranch.schemas.asyncapi import document

__all__ = ["EVENTS", "breaking", "generate", "main", "read_narrowed"]

EVENTS: Final[dict[str, type[msgspec.Struct]]] = {
    "query": Query,
    "answer": Answer,
    "task": Task,
    "partial": Partial,
    "layer-descriptor": LayerDescriptor,
    "member-health": MemberHealth,
    "component-stats": ComponentStats,
    "control": ControlRecord,
    "telemetry-batch": TelemetryBatch,
}
"""Public events by the name of their schema's file."""

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_PROSE: Final = {"title", "description"}
_BOUNDS: Final = {
    "minimum", "maximum", "exclusiveMaximum", "minLength", "maxLength", "pattern", "maxItems",
    "maxProperties", "propertyNames",
}  # fmt: skip

Json = dict[str, Any]


def generate() -> dict[str, str]:
    """The text of every generated file, by name."""
    files = {f"{name}.json": _dump(_schema(name)) for name in EVENTS}
    events = tuple(EVENTS.values())
    _, components = msgspec.json.schema_components(
        events, ref_template="#/components/schemas/{name}"
    )
    files["asyncapi.json"] = _dump(document(_portable(components)))
    return files


def breaking(released: Json, current: Json, narrowed: Collection[str] = ()) -> list[str]:
    """What in an event's schema breaks a reader or writer that knows only the released one.

    Events travel both ways between old and new instances, so the rule is strict: a field may
    be added if it is optional; one that is there stays as it is. Those in `narrowed`
    (`Struct.field`) may have bounds that they had not, which are to refuse only what could
    never have worked.
    """
    sentences: list[str] = []
    for name, old in released["$defs"].items():
        new = current["$defs"].get(name)
        if new is None:
            sentences.append(f"{name} is gone")
            continue
        before, after = old.get("properties", {}), new.get("properties", {})
        for field, schema in before.items():
            if field not in after:
                sentences.append(f"{name}.{field} is gone")
            elif not _same(schema, after[field], may_narrow=f"{name}.{field}" in narrowed):
                sentences.append(f"{name}.{field} means something else than before")
        must, had = set(new.get("required", ())), set(old.get("required", ()))
        sentences += [f"{name}.{field} is required now" for field in sorted(must - had)]
        sentences += [f"{name}.{field} may be left out now" for field in sorted(had - must)]
    return sentences


def main(arguments: Sequence[str]) -> int:
    """Write the files, or check them; the exit code."""
    folder = Path(next((word for word in arguments if word != "--check"), "schemas"))
    files = generate()
    if "--check" in arguments:
        problems = _drift(folder, files) + _broken(folder)
        sys.stderr.writelines(f"{problem}\n" for problem in problems)
        return 1 if problems else 0
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


def _schema(name: str) -> Json:
    schema = _portable(msgspec.json.schema(EVENTS[name]))
    return {"$schema": _DIALECT, "$id": f"urn:anabranch:{name}", **schema}


def _portable(node: Any) -> Any:
    """Prose without the indentation of the code, tuples in words that every draft knows."""
    if isinstance(node, list | tuple):
        return [_portable(child) for child in node]
    if not isinstance(node, dict):
        return node
    node = {key: _portable(child) for key, child in node.items()}
    if isinstance(node.get("description"), str):
        node["description"] = inspect.cleandoc(node["description"])
    if "prefixItems" in node:
        first, *others = node.pop("prefixItems")
        if any(other != first for other in others):
            raise TypeError("a tuple of different types has no schema that every draft knows")
        node["items"] = first
    return node


def _same(old: Any, new: Any, *, may_narrow: bool) -> bool:
    """Whether two rules are the same, but for prose, and for bounds where there were none."""
    if isinstance(old, list) and isinstance(new, list):
        pairs = zip(old, new, strict=False)
        return len(old) == len(new) and all(_same(a, b, may_narrow=may_narrow) for a, b in pairs)
    if not isinstance(old, dict) or not isinstance(new, dict):
        return bool(old == new)
    added = new.keys() - old.keys() - _PROSE
    return (
        old.keys() - _PROSE <= new.keys()
        and (not added or (may_narrow and added <= _BOUNDS))
        and all(_same(old[key], new[key], may_narrow=may_narrow) for key in old.keys() - _PROSE)
    )


def _drift(folder: Path, files: dict[str, str]) -> list[str]:
    return [
        f"{folder / name} is not what the events say; run python -m anabranch.schemas"
        for name, text in files.items()
        if not (path := folder / name).is_file() or path.read_text(encoding="utf-8") != text
    ]


def read_narrowed(folder: Path) -> set[str]:
    """Fields that were given bounds since the last release, as `Struct.field`."""
    path = folder / "narrowed.json"
    listed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {field for fields in listed.values() for field in fields}


def _broken(folder: Path) -> list[str]:
    narrowed = read_narrowed(folder)
    return [
        f"{path.stem}: {sentence}"
        for path in sorted((folder / "released").glob("*.json"))
        for sentence in (
            breaking(json.loads(path.read_text(encoding="utf-8")), _schema(path.stem), narrowed)
            if path.stem in EVENTS
            else ["the event is gone"]
        )
    ]


def _dump(schema: Json) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
