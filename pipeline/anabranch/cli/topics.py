"""`anabranch topics`: create and check the topics that a configuration needs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated

import uvloop
from cyclopts import Parameter
from rich.table import Table

from anabranch.cli import runtime
from anabranch.cli.common import COMMON, Common, note, out, print_json
from anabranch.config.settings import Config
from anabranch.kafka.default import default_transport
from anabranch.kafka.topics import (
    Topics,
    conflicts,
    differences,
    ensure_topics,
    find_topics,
    kafka_topics_commands,
    topic_specs,
)
from anabranch.kafka.transport import TopicState

__all__ = ["topics"]

Switch = Annotated[bool, Parameter(negative="")]


def topics(
    *,
    check: Switch = False,
    print_: Annotated[bool, Parameter("--print", negative="")] = False,
    json: Switch = False,
    common: Common = COMMON,
) -> int:
    """Create the topics that are missing and say what differs; exit code 1 if anything does.

    On the broker of `anabranch up` from this folder, unless an option, variable or file names one.

    Parameters
    ----------
    check
        Create nothing.
    print_
        Print the kafka-topics.sh commands instead, for a cluster where you may not create them.
    json
        One JSON document.
    """
    config = common.load() if print_ else runtime.reachable(common)
    specs = topic_specs(config, config.groups)
    if not config.groups:
        note("no layers are configured, so there are no task topics; write [layers.<name>]")
    if print_:
        commands = kafka_topics_commands(specs, config.kafka.bootstrap, config.kafka.replication)
        sys.stdout.write("".join(f"{command}\n" for command in commands))
        return 0
    found = uvloop.run(_find(config, specs, create=not check))
    if found and not any(state.settings for state in found.values()):
        note("this broker decides on partitions and settings itself, as the embedded one does")
        wrong = conflicts(Topics(config.namespace), config.groups, found)
    else:
        wrong = differences(specs, found)
    if json:
        print_json({"topics": {n: s._asdict() for n, s in found.items()}, "differences": wrong})
    else:
        _show(specs, found, wrong)
    return 1 if wrong else 0


async def _find(
    config: Config, specs: Mapping[str, TopicState], *, create: bool
) -> dict[str, TopicState]:
    transport = default_transport(config.kafka)
    if create:
        return await ensure_topics(transport, config, config.groups)
    return await find_topics(transport, specs)


def _show(
    specs: Mapping[str, TopicState], found: Mapping[str, TopicState], wrong: list[str]
) -> None:
    table = Table("topic", "partitions", "cleanup", box=None, header_style="bold")
    for name in specs:
        state = found.get(name)
        if state is None:
            table.add_row(name, "missing", "", style="red")
        else:
            table.add_row(name, str(state.partitions), state.settings.get("cleanup.policy", ""))
    console = out()
    console.print(table)
    for sentence in wrong:
        console.print(sentence, style="yellow", soft_wrap=True)
