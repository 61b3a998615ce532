"""`anabranch dlq`: list dead letters, show one, send them back to where they came from."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import uvloop
from cyclopts import Parameter
from rich.table import Table

from anabranch.admin.dead_letters import Letter, read_letters, send_back
from anabranch.cli import runtime
from anabranch.cli.common import COMMON, Common, note, out, print_json
from anabranch.config.settings import Config
from anabranch.errors import ConfigError
from anabranch.kafka.default import default_transport
from anabranch.kafka.topics import Topics

__all__ = ["dlq"]

Switch = Annotated[bool, Parameter(negative="")]


def dlq(
    action: Literal["list", "show", "replay"],
    /,
    *places: str,
    all_: Annotated[bool, Parameter("--all", negative="")] = False,
    yes: Switch = False,
    json: Switch = False,
    common: Common = COMMON,
) -> int:
    """List dead letters, show one, or replay: send to its origin what was not sent back before.

    Parameters
    ----------
    action
        `list`, `show PLACE` or `replay PLACE...`.
    places
        Which letters, as `list` names them.
    all_
        Replay all that can be.
    yes
        Replay without asking; without a terminal nobody can be asked.
    json
        One JSON document.
    """
    config = runtime.reachable(common)
    if action == "show" and len(places) != 1:
        raise ConfigError("say which letter to show, as `anabranch dlq list` names it")
    if action == "replay" and not places and not all_:
        raise ConfigError("say which letters to replay, as `anabranch dlq list` names them, or all")
    letters = uvloop.run(_read(config))
    if action == "list":
        return _list(letters, json=json)
    chosen = letters if all_ else _choose(letters, places)
    if action == "show":
        return _show(chosen[0], json=json)
    return _replay(config, chosen, yes=yes, json=json)


async def _read(config: Config) -> list[Letter]:
    reader = default_transport(config.kafka).reader("anabranch-dlq")
    try:
        await reader.start()
        return await read_letters(reader, Topics(config.namespace))
    finally:
        await reader.stop()


async def _send(config: Config, letters: Sequence[Letter]) -> Sequence[Letter]:
    producer = default_transport(config.kafka).producer("anabranch-dlq")
    try:
        await producer.start()
        return await send_back(producer, Topics(config.namespace).dlq, letters)
    finally:
        await producer.stop()


def _choose(letters: Sequence[Letter], places: Sequence[str]) -> list[Letter]:
    by_place = {letter.place: letter for letter in letters}
    for place in places:
        if place not in by_place:
            raise ConfigError(f"there is no dead letter at {place}; see `anabranch dlq list`")
    return [by_place[place] for place in dict.fromkeys(places)]


def _list(letters: Sequence[Letter], *, json: bool) -> int:
    if json:
        print_json([_summary(letter) for letter in letters])
        return 0
    table = Table("place", "age", "topic", "id", "replayed", "stack", "reason", box=None)
    for letter in letters:
        age = f"{max(0, time.time() - letter.time_ms / 1000):.0f} s"
        cells = (letter.place, age, letter.topic or "", letter.id or "")
        table.add_row(*cells, "yes" if letter.replayed else "", letter.stack, letter.reason)
    out().print(table if letters else "there are no dead letters")
    return 0


def _show(letter: Letter, *, json: bool) -> int:
    record = letter.record
    whole = _summary(letter) | {
        "key": _readable(record.key),
        "headers": [[name, _readable(value)] for name, value in record.headers],
        "value": _readable(record.value),
    }
    if json:
        print_json(whole)
        return 0
    for name, value in whole.items():
        inside = str(value).replace("\n", "\n  ")  # no line of a value looks like one of ours
        out().print(f"{name}: {inside}", soft_wrap=True)
    return 0


def _replay(config: Config, letters: Sequence[Letter], *, yes: bool, json: bool) -> int:
    ready = [letter for letter in letters if letter.why_not is None]
    for letter in letters:
        if letter.why_not is not None:
            note(f"{letter.place} stays: {letter.why_not}")
    if ready and not yes and not _confirmed(ready):
        return 1
    sent = uvloop.run(_send(config, ready)) if ready else []
    if json:
        print_json([_summary(letter) for letter in sent])
    else:
        out().print(f"{len(sent)} sent back to where they came from")
    return 0


def _confirmed(letters: Sequence[Letter]) -> bool:
    """Whoever may write to `dlq` says where a letter came from: a person looks at it first."""
    counts = Counter(str(letter.topic) for letter in letters)
    where = ", ".join(f"{count} to {topic}" for topic, count in counts.items())
    if not sys.stdin.isatty():
        raise ConfigError(f"nobody can be asked here; add --yes to send {where}")
    return out().input(f"Send {where}? [y/N] ", markup=False).lower() == "y"


def _summary(letter: Letter) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in letter.__struct_fields__ if name != "record"}


def _readable(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")
