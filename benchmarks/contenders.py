"""Who is measured: Anabranch, its peers, and bare relays, each started as its user would.

All read from Apache Kafka with four partitions, produce with acks=all and idempotence, commit every
100 ms what is acknowledged (FastStream: after every handler), and run in as many processes as their
rivals: one for one hop, two for a scatter-gather, of which one gathers and one runs the layers.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from confluent_kafka.admin import AdminClient, NewTopic
from driver import PARTITIONS, Contender
from ours import SETTINGS, fresh, repeated, spread, start_anabranch
from peers.streams import streams_command
from processes import Processes

from anabranch.errors import BrokerUnavailable

PEERS = Path(__file__).parent / "peers"
COMPLETE = b'"status":"complete"'
JAVA_WARM_S = 15.0
"""Until it has compiled what is hot."""

_PEERS = (
    "handwritten",
    "kafka streams",
    "kafka streams changelog",
    "faststream batches",
    "faststream usual",
)
RIVALS: Mapping[str, tuple[str, ...]] = {
    "cached": ("relay 1 hop",),
    "parallel": ("relay 3 hops", *_PEERS),
    "distributed": ("relay 3 hops", *_PEERS, "parallel"),
    "cached exactly-once": ("cached",),
    "parallel exactly-once": ("parallel",),
    **dict.fromkeys(_PEERS, ("relay 3 hops",)),
}
"""Whom each is set against."""


Delays = tuple[int, int, int]
"""What each layer waits, in milliseconds."""


class Place(NamedTuple):
    """Where contenders are started, what their topics begin with, how long their layers wait."""

    processes: Processes
    bootstrap: str
    prefix: str
    delays_ms: Delays

    def make_topics(self, *names: str) -> None:
        create_topics(self.bootstrap, *(f"{self.prefix}{name}" for name in names))


async def one_hop(place: Place) -> list[Contender]:
    source, sink = f"{place.prefix}one.q", f"{place.prefix}one.r"
    place.make_topics("one.q", "one.r")
    process = await place.processes.start("gathers", *_relay(place, f"{source}:{sink}"))
    return [Contender("relay 1 hop", source, sink, repeated, [process])]


async def three_hops(place: Place) -> list[Contender]:
    queries, tasks, partials, results = (f"{place.prefix}three.{letter}" for letter in "qtpr")
    place.make_topics(*(f"three.{letter}" for letter in "qtpr"))
    gathers = _relay(place, f"{queries}:{tasks}", f"{partials}:{results}")
    both = [
        await place.processes.start("gathers", *gathers),
        await place.processes.start("layers", *_relay(place, f"{tasks}:{partials}")),
    ]
    return [Contender("relay 3 hops", queries, results, fresh, both)]


def _relay(place: Place, *ways: str) -> tuple[str, ...]:
    return (sys.executable, str(PEERS / "relay.py"), place.bootstrap, *ways)


async def at_least_once(place: Place) -> list[Contender]:
    return await anabranch(place, "at_least_once", "")


async def exactly_once(place: Place) -> list[Contender]:
    return await anabranch(place, "exactly_once", " exactly-once")


async def anabranch(place: Place, mode: str, suffix: str) -> list[Contender]:
    """Asked what is cached, and what is not."""
    namespace = f"{place.prefix}{mode}."
    settings = SETTINGS.format(
        namespace=namespace, mode=mode, bootstrap=place.bootstrap,
        partitions=PARTITIONS, delays_ms=place.delays_ms,
    )  # fmt: skip
    both = await start_anabranch(place.processes, settings)
    ends = (f"{namespace}queries", f"{namespace}results")
    return [
        Contender(f"cached{suffix}", *ends, repeated, both[:1], COMPLETE),
        Contender(f"parallel{suffix}", *ends, fresh, both, COMPLETE),
        Contender(f"distributed{suffix}", *ends, spread, both, COMPLETE),
    ]


async def handwritten(place: Place) -> list[Contender]:
    return await peer(place, "handwritten", sys.executable, str(PEERS / "handwritten.py"))


async def faststream_batches(place: Place) -> list[Contender]:
    return await peer(place, "faststream batches", *_faststream(), options=("--batch",))


async def faststream_usual(place: Place) -> list[Contender]:
    return await peer(place, "faststream usual", *_faststream())


async def streams(place: Place) -> list[Contender]:
    return await peer(place, "kafka streams", *_streams(place), warm_s=JAVA_WARM_S)


async def streams_changelog(place: Place) -> list[Contender]:
    command, options = _streams(place), ("--changelog",)
    return await peer(
        place, "kafka streams changelog", *command, options=options, warm_s=JAVA_WARM_S
    )


async def peer(
    place: Place, name: str, *command: str, options: tuple[str, ...] = (), warm_s: float = 2.0
) -> list[Contender]:
    """A peer's two processes, and its topics."""
    short = name.replace(" ", "-")
    place.make_topics(*(f"{short}.{letter}" for letter in "qtpr"))
    prefix = f"{place.prefix}{short}"
    waits = ",".join(map(str, place.delays_ms))
    both = []
    for role, word in (("gathers", "gather"), ("layers", "layers")):
        given = (place.bootstrap, prefix, word, waits, *options)
        both.append(await place.processes.start(role, *command, *given))
    return [Contender(name, f"{prefix}.q", f"{prefix}.r", fresh, both, COMPLETE, warm_s)]


def _faststream() -> tuple[str, str]:
    if importlib.util.find_spec("faststream") is None:
        raise BrokerUnavailable("FastStream is not installed (dependency group `bench`)")
    return sys.executable, str(PEERS / "faststream_peer.py")


def _streams(place: Place) -> tuple[str, ...]:
    java, *rest = streams_command()
    return (java, f"-Djava.io.tmpdir={place.processes.folder}", *rest)


Start = Callable[[Place], Awaitable[list[Contender]]]
GROUPS: Mapping[tuple[str, ...], Start] = {
    ("relay 1 hop",): one_hop,
    ("relay 3 hops",): three_hops,
    ("cached", "parallel", "distributed"): at_least_once,
    ("cached exactly-once", "parallel exactly-once"): exactly_once,
    ("handwritten",): handwritten,
    ("kafka streams",): streams,
    ("kafka streams changelog",): streams_changelog,
    ("faststream batches",): faststream_batches,
    ("faststream usual",): faststream_usual,
}
"""What is started together, by the names of the contenders."""

ALL = tuple(name for names in GROUPS for name in names)


@asynccontextmanager
async def started(
    start: Start, bootstrap: str, turn: int, delays_ms: Delays
) -> AsyncIterator[list[Contender]]:
    """Contenders with topics of their own, which go with them: nobody idles beside another.

    Raises:
        BrokerUnavailable: what they need is not there; says what.
        NotReady: they did not start.
    """
    prefix = f"t{turn}."
    try:
        async with Processes() as processes:
            yield await start(Place(processes, bootstrap, prefix, delays_ms))
    finally:
        delete_topics(bootstrap, prefix)


def create_topics(bootstrap: str, *names: str) -> None:
    """With as many partitions as everybody has."""
    admin = _admin(bootstrap)
    new = [NewTopic(name, PARTITIONS, 1) for name in names]
    for made in admin.create_topics(new).values():
        made.result()


def delete_topics(bootstrap: str, prefix: str) -> None:
    """All that begin with it."""
    admin = _admin(bootstrap)
    old = [name for name in admin.list_topics(timeout=10).topics if name.startswith(prefix)]
    for gone in admin.delete_topics(old).values() if old else ():
        gone.result()


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
