"""Anabranch as it is measured: a coordinator and a worker, and the questions they are asked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from processes import Process, Processes

SETTINGS = """
namespace = "{namespace}"
mode = "{mode}"
[kafka]
bootstrap = "{bootstrap}"
[topics]
queries = {partitions}
tasks = {partitions}
[worker]
slots = 3000
queue = 6000
[types.t]
layers = ["a", "b", "c"]
[layers.a]
plugin = "scatter_layers:Scatter"
delay_ms = {delays_ms[0]}
[layers.b]
plugin = "scatter_layers:Scatter"
delay_ms = {delays_ms[1]}
[layers.c]
plugin = "scatter_layers:Scatter"
delay_ms = {delays_ms[2]}
"""
"""With room for a full window: how many layers wait at once is not what is measured."""


def fresh(n: int, strategy: bytes = b"parallel") -> bytes:
    """A question that nobody asked before."""
    head = b'{"id":"%d","type":"t","params":{"n":%d},"timeout_ms":60000,"strategy":"%s"}'
    return head % (n, n, strategy)


def spread(n: int) -> bytes:
    """The same, its layers to be spread over workers."""
    return fresh(n, b"distributed")


def repeated(n: int) -> bytes:
    """One of four hundred questions, always in the same partition."""
    return b'{"id":"%d","type":"t","params":{"n":%d},"timeout_ms":60000}' % (n, -(n % 400))


async def start_anabranch(processes: Processes, settings: str) -> list[Process]:
    """A coordinator and a worker of a configuration, and their topics."""
    path = processes.folder / "anabranch.toml"
    path.write_text(settings)
    await make_topics(path)
    both = {}
    for role, word in (("layers", "worker"), ("gathers", "coordinator")):  # which waits for layers
        both[role] = await processes.start(role, *anabranch(word, path), **IMPORTS)
    return [both["gathers"], both["layers"]]


async def make_topics(path: Path) -> None:
    """The topics of a configuration file."""
    await asyncio.to_thread(
        subprocess.run,
        anabranch("topics", path),
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | IMPORTS,
    )


def anabranch(command: str, path: Path) -> tuple[str, ...]:
    """A command line of a configuration file."""
    return (sys.executable, "-m", "anabranch", command, "--config", str(path))


IMPORTS = {"PYTHONPATH": str(Path(__file__).parent)}
"""For the plugin, in the environment of a worker."""
