"""What all commands share: common options, output, and how a long-running one is stopped."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import msgspec
import uvloop
from cyclopts import CycloptsError, Group, Parameter

from anabranch.config import settings as configuration
from anabranch.config.settings import Config
from anabranch.errors import AnabranchError, ConfigError
from anabranch.observe.terminal import Screen, json_for

__all__ = [
    "COMMON",
    "INTERRUPTED",
    "Common",
    "collect_rarely",
    "give_up",
    "is_text",
    "note",
    "observe",
    "out",
    "print_json",
    "serve",
    "tell",
]

DEFAULT_FILE: Final = "anabranch.toml"
WIDTH: Final = 160
"""Characters a line, where the output goes to no terminal."""
INTERRUPTED: Final = 130
"""Exit code of a command that a signal kept from its end."""
_LAST_S: Final = 3.0
_GROUP: Final = Group("Common options", sort_key=99)


def is_text(value: object) -> None:
    """Arguments are bytes, but only those that name files may be any.

    Raises:
        ConfigError: it is text, or has texts in it, that UTF-8 has no bytes for.
    """
    for each in value if isinstance(value, list | tuple) else [value]:
        if isinstance(each, str) and each != each.encode(errors="replace").decode():
            raise ConfigError(f"{each!r} is no UTF-8")


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    config: Annotated[Path | None, Parameter(negative="")] = None
    """Configuration file; ./anabranch.toml if there is one."""
    bootstrap: str | None = None
    """Address of the broker, host:port."""
    namespace: str | None = None
    """Prefix of all topics and groups, with its dot."""
    debug: Annotated[bool, Parameter(negative="")] = False
    """Show where an error came from."""

    def __post_init__(self) -> None:
        for value in (self.bootstrap, self.namespace):
            is_text(value)

    @property
    def path(self) -> Path | None:
        """The configuration file in force, if any."""
        if self.config is not None:
            return self.config
        if "ANABRANCH_CONFIG" in os.environ:
            return Path(os.environ["ANABRANCH_CONFIG"])
        return Path(DEFAULT_FILE) if Path(DEFAULT_FILE).exists() else None

    @property
    def overrides(self) -> dict[str, Any]:
        """What was given on the command line, as the configuration has it."""
        tree: dict[str, Any] = {}
        if self.bootstrap is not None:
            tree["kafka"] = {"bootstrap": self.bootstrap}
        if self.namespace is not None:
            tree["namespace"] = self.namespace
        return tree

    def load(self) -> Config:
        """The configuration in force.

        Raises:
            ConfigError: naming the file or variable, the key, and what to write instead.
        """
        return configuration.load(self.path, overrides=self.overrides)

    def names(self, key: str) -> bool:
        """Whether an option, a variable or the file sets a key."""
        return key in configuration.provenance(self.path, overrides=self.overrides)


COMMON: Final = Common()


def out() -> Screen:
    """For results, on standard output; colour only on a terminal."""
    return Screen(width=None if sys.stdout.isatty() else WIDTH)


def note(text: str) -> None:
    """A remark for people, on standard error, out of the way of results."""
    Screen(stderr=True, soft_wrap=True).print(text, style="dim")


def tell(error: Exception, *, trace: bool = False) -> int:
    """One red line about an error, after where it came from if that is asked for; its exit code."""
    if trace:
        note("".join(traceback.format_exception(error)))
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, AnabranchError | CycloptsError | OSError):
        text = f"{type(error).__name__}: {text} (a defect; --debug shows where)"
    Screen(stderr=True, soft_wrap=True).print(f"error: {text}", style="red")
    return 2 if isinstance(error, ConfigError | CycloptsError) else 1


def give_up(error: Exception) -> NoReturn:
    """Tell of an error and end the process at once, where there is nobody left to drain to."""
    os._exit(tell(error))


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    document = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    sys.stdout.write(f"{json_for(sys.stdout.encoding, document)}\n")


def serve(body: Coroutine[Any, Any, int], *, when_stopped: int = 0) -> int:
    """Run until done, or until a signal cancels the body, whose contexts then drain.

    A second signal exits at once. The exit code is the body's, or `when_stopped`. Once the body
    has ended, threads of the loop's own pool that hang keep the process for `_LAST_S` at most.
    """
    overdue: list[threading.Timer] = []

    def ends_with(leave: Callable[[], None]) -> None:
        overdue.append(threading.Timer(_LAST_S, leave))
        overdue[0].daemon = True
        overdue[0].start()

    try:
        return uvloop.run(_stoppable(body, when_stopped, ends_with))
    finally:
        for timer in overdue:
            timer.cancel()


def observe(service: str, *, debug: bool = False) -> None:
    """A long-running process shows warnings on standard error, and traces where OTEL_* says.

    The client library's only for debugging: what they mean for us, we say ourselves.
    """
    from anabranch.observe.export import export_traces

    logging.getLogger("aiokafka").setLevel(logging.WARNING if debug else logging.CRITICAL)
    export_traces(service)


def collect_rarely() -> None:
    """Once a long-running process is ready: the collector looks less often, and not at its modules.

    By default it looks at whatever is in flight after every 700 allocations, and finds nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def _stoppable(
    body: Coroutine[Any, Any, int],
    when_stopped: int,
    ends_with: Callable[[Callable[[], None]], None],
) -> int:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    stopping = False

    def stop(number: int) -> None:
        nonlocal stopping
        if stopping:
            os._exit(128 + number)
        stopping = True
        note("stopping; a second signal ends it at once")
        if task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await body
    except asyncio.CancelledError:
        if not stopping:
            raise
        ends_with(partial(os._exit, when_stopped))
        return when_stopped
    except Exception as error:
        ends_with(partial(give_up, error))
        raise
