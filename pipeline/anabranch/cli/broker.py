"""`anabranch broker`: a broker for development, until it is stopped."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, Literal, NoReturn

from cyclopts import Parameter

from anabranch.cli.common import COMMON, Common, note
from anabranch.cli.ports import chosen, export
from anabranch.dev.embedded import EmbeddedBroker
from anabranch.errors import BrokerUnavailable, ConfigError

__all__ = ["broker"]

WATCH_S: Final = 0.5


def broker(
    *,
    kafka: Annotated[bool, Parameter(negative="")] = False,
    nodes: Literal[1, 3] = 1,
    folder: Path | None = None,
    port: int | None = None,
    common: Common = COMMON,
) -> int:
    """Run a broker for development; prints its address and runs until it is stopped.

    Where everything looks for one (127.0.0.1:9092) if nobody is there yet; else it says what to
    export in other terminals.

    The embedded broker needs nothing installed, keeps nothing, and takes one worker per group.

    Parameters
    ----------
    kafka
        A real Apache Kafka as local processes (needs Java, and Maven once).
    nodes
        How many Kafka nodes.
    folder
        Where Kafka keeps its data and logs; a temporary one is removed at the end.
    port
        Where clients find it; by default 9092, or any if that is taken.
    """
    if not kafka and (nodes != 1 or folder is not None):
        raise ConfigError("--nodes and --folder are for a real Kafka; add --kafka")
    for number in (signal.SIGINT, signal.SIGTERM):  # even where a parent ignored them
        signal.signal(number, _interrupt)
    try:
        if kafka:
            _run_kafka(nodes, folder, chosen(port))
        _run_embedded(chosen(port))
    except KeyboardInterrupt:
        return 0


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _run_embedded(port: int | None) -> NoReturn:
    with EmbeddedBroker(port) as running:
        _announce(running.bootstrap, "the embedded broker")
        while running.alive:
            threading.Event().wait(WATCH_S)
    raise BrokerUnavailable("the embedded broker ended by itself")


def _run_kafka(nodes: Literal[1, 3], folder: Path | None, port: int | None) -> NoReturn:
    from anabranch.dev.local_kafka import LocalKafka

    with LocalKafka(nodes=nodes, folder=folder, port=port) as cluster:
        _announce(cluster.bootstrap, f"Apache Kafka in {cluster.folder}")
        members = [cluster.node(number) for number in range(1, nodes + 1)]
        while any(member.pid for member in members):
            threading.Event().wait(WATCH_S)
    raise BrokerUnavailable("all nodes ended by themselves; see their server.log")


def _announce(address: str, what: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    note(f"{what} runs until Ctrl-C; in other terminals: {export(address)}")
