"""`anabranch replay`: what other settings would have cost, from telemetry of what happened."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import uvloop
from cyclopts import Parameter
from msgspec.structs import asdict, replace
from rich.table import Table

from anabranch.cli import runtime
from anabranch.cli.common import COMMON, Common, note, out, print_json
from anabranch.config.settings import Config, SelectConfig
from anabranch.contract.codec import decode
from anabranch.contract.telemetry import TelemetryBatch
from anabranch.errors import ConfigError, DecodeError
from anabranch.kafka.default import default_transport
from anabranch.kafka.ranges import read_ranges
from anabranch.kafka.topics import Topics, require_topics
from anabranch.kafka.transport import TopicPartition, Transport
from anabranch.select.replay import Evaluation, Interval
from anabranch.select.tuning import Tuning, evaluate
from anabranch.select.tuning import tune as find_better

__all__ = ["replay"]

Switch = Annotated[bool, Parameter(negative="")]


def replay(
    file: Path | None = None,
    *,
    topic: Switch = False,
    mode: Literal["rules", "learned"] | None = None,
    parallel_threshold: float | None = None,
    parallel_max_layers: int | None = None,
    distributed_threshold: float | None = None,
    tune: Switch = False,
    write: Switch = False,
    json: Switch = False,
    common: Common = COMMON,
) -> int:
    """Estimate what settings of [select] would have cost, or say that the log cannot tell.

    Parameters
    ----------
    file
        Telemetry batches, one JSON document a line.
    topic
        Read the telemetry topic instead, of `anabranch up` from this folder if nothing else is
        named.
    mode
        Judge this mode instead of the configured one; thresholds are the rules'.
    tune
        Look for settings that would surely have been better; exit code 1 if there are none.
    write
        With --tune: write them into the configuration file.
    json
        One JSON document.
    """
    _check(file, topic, tune, write, common)
    config = runtime.reachable(common) if topic else common.load()
    wished: dict[str, Any] = {
        "parallel_threshold": parallel_threshold,
        "parallel_max_layers": parallel_max_layers,
        "distributed_threshold": distributed_threshold,
    }
    thresholds = any(value is not None for value in wished.values())
    wished["mode"] = mode or ("rules" if thresholds else None)  # only the rules have thresholds
    select = _changed(config.select, {k: v for k, v in wished.items() if v is not None})
    batches = uvloop.run(_read_topic(config)) if file is None else _read_file(file)
    if not tune:
        found = {"these settings": evaluate(batches, select)}
        found |= {"learned": evaluate(batches, replace(select, mode="learned"))}
        print_json(found) if json else _show(found)
        return 0
    tuning = find_better(batches, select)
    print_json(tuning) if json else _show_tuning(tuning)
    if tuning.proposed is None:
        return 1
    if write and common.path is not None:
        _write(common.path, _difference(select, tuning.proposed))
    return 0


def _check(file: Path | None, topic: bool, tune: bool, write: bool, common: Common) -> None:
    if (file is None) != topic:
        raise ConfigError("replay: name a file, or --topic, and not both")
    if write and not tune:
        raise ConfigError("replay: --write writes what --tune finds; add --tune")
    if write and common.path is None:
        raise ConfigError("replay: there is no file to write to; name one with --config")


def _changed(select: SelectConfig, wished: dict[str, Any]) -> SelectConfig:
    try:
        return msgspec.convert({**asdict(select), **wished}, SelectConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"command line: select: {error}") from error


def _read_file(path: Path) -> list[TelemetryBatch]:
    batches = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    batches.append(_decode(line, f"{path}:{number}"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    return batches


def _decode(value: bytes, where: str) -> TelemetryBatch:
    try:
        return decode(value, TelemetryBatch)
    except DecodeError as error:
        raise ConfigError(f"{where}: {error}") from error


async def _read_topic(config: Config) -> list[TelemetryBatch]:
    return await read_topic(default_transport(config.kafka), Topics(config.namespace).telemetry)


async def read_topic(transport: Transport, topic: str) -> list[TelemetryBatch]:
    """All batches on the telemetry topic; what cannot be read is left out and counted.

    Raises:
        TopicError: there is no such topic.
    """
    reader = transport.reader("replay")
    await reader.start()
    batches, unread = [], 0
    try:
        await require_topics(reader, [topic])
        places = [TopicPartition(topic, n) for n in range(await reader.partitions(topic))]
        beginnings, ends = await reader.beginnings(places), await reader.ends(places)
        whole = {place: range(beginnings[place], ends[place]) for place in places}
        async for record in read_ranges(reader, whole):
            try:
                batches.append(decode(record.value, TelemetryBatch))
            except DecodeError:
                unread += 1
    finally:
        await reader.stop()
    if unread:
        note(f"{unread} records could not be read")
    return batches


def _show(found: dict[str, Evaluation]) -> None:
    table = Table("", "queries", "agree", "mean ms", "95th percentile", box=None)
    for name, one in found.items():
        counts = str(one.records), str(one.agreed)
        if one.mean_ms is None or one.p95_ms is None:
            table.add_row(name, *counts, "-", "-")
        else:
            table.add_row(name, *counts, _interval(one.mean_ms), _interval(one.p95_ms))
    out().print(table)
    for name, one in found.items():
        if one.refused is not None:
            note(f"{name}: {one.refused}")


def _show_tuning(tuning: Tuning) -> None:
    _show({"present settings": tuning.present})
    console = out()
    if tuning.proposed is None or tuning.gain_ms is None:
        console.print(tuning.reason)
        return
    for key, value in asdict(tuning.proposed).items():
        console.print(f"{key} = {_toml(value)}")
    console.print(f"{tuning.reason}: {_interval(tuning.gain_ms)} ms a query")


def _interval(found: Interval) -> str:
    return f"{found.value:.1f} ({found.low:.1f} to {found.high:.1f})"


def _difference(present: SelectConfig, proposed: SelectConfig) -> dict[str, Any]:
    before = asdict(present)
    return {key: value for key, value in asdict(proposed).items() if value != before[key]}


def _write(path: Path, values: dict[str, Any]) -> None:
    """Set keys of [select], leaving everything else in the file as it is."""
    text = with_keys(path.read_text(encoding="utf-8"), "select", values)
    found = tomllib.loads(text).get("select", {})
    if any(found.get(key) != value for key, value in values.items()):
        raise ConfigError(
            f"{path}: [select] is written in a way that cannot be edited; set {values}"
        )
    path.write_text(text, encoding="utf-8")
    note(f"{path}: " + ", ".join(f"select.{key} = {_toml(v)}" for key, v in values.items()))


def with_keys(text: str, table: str, values: dict[str, Any]) -> str:
    """TOML with these keys of a table set: in their lines, else after the table's header."""
    if not re.search(rf"^\[{table}\]\s*(#.*)?$", text, re.M):
        text = f"{text.rstrip()}\n\n[{table}]".lstrip()
    text = f"{text.rstrip()}\n"
    head, header, rest = re.split(rf"(^\[{table}\]\s*?(?:#.*)?\n)", text, maxsplit=1, flags=re.M)
    end = re.search(r"^\[", rest, re.M)
    body, tail = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    for key, value in values.items():
        line = f"{key} = {_toml(value)}"
        body, found = re.subn(rf"^{key}\s*=[^#\n]*?(?=\s*(?:#|$))", line, body, count=1, flags=re.M)
        body = body if found else f"{line}\n{body}"
    return head + header + body + tail


def _toml(value: Any) -> str:
    return msgspec.json.encode(value).decode()
