"""The command line: a thin caller of the library, one file per command.

Commands are imported when they are called, so that `anabranch --help` is quick. What goes wrong
is one line on standard error: exit code 2 for usage and configuration, 1 for everything else.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Final

from cyclopts import App, Parameter

from anabranch.observe.terminal import LogFormatter, Screen, take_any_text

__all__ = ["app", "main", "run"]

_NO_READER: Final = 128 + signal.SIGPIPE
"""What a shell says of a program whose reader went away."""

COMMANDS: Final = {
    "demo": "See it at work on a git repository.",
    "up": "Run broker, coordinator and workers in one process.",
    "coordinator": "Run a coordinator.",
    "worker": "Run a worker of one group.",
    "ask": "Ask one question.",
    "broker": "Run a broker for development.",
    "topics": "Create and check the topics that a configuration needs.",
    "config": "Show the configuration in force and where each value came from.",
    "diagnostics": "Show who runs, and what cache, selection and telemetry count.",
    "dlq": "List, show and replay dead letters.",
    "invalidate": "Have every coordinator forget cached results.",
    "replay": "Estimate what other settings would have cost, from telemetry.",
    "plugins": "List the layers that are installed, with their settings.",
}

_LAST_S: Final = 3.0


def _version() -> str:
    from anabranch.runtime.heartbeat import package_version

    return package_version()


def _is_text(kind: object, value: object) -> None:
    from anabranch.cli.common import is_text

    is_text(value)


app = App(
    name="anabranch",
    help="Ask several back ends over Kafka, join what they say, learn the fastest way.",
    version=_version,
    help_format="plaintext",
    console=Screen(),
    default_parameter=Parameter(validator=_is_text),
)
for _name, _help in COMMANDS.items():
    app.command(f"anabranch.cli.{_name}:{_name}", name=_name, help=_help)


def main() -> None:
    """The `anabranch` command."""
    code = run(sys.argv[1:])
    if any(not thread.daemon for thread in threading.enumerate()[1:]):
        # Threads that a layer started, and left hanging, must not keep the process.
        last = threading.Timer(_LAST_S, os._exit, [code])
        last.daemon = True
        last.start()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    take_any_text()
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    debug = "--debug" in arguments or bool(os.environ.get("ANABRANCH_DEBUG"))
    if not debug:
        # What its errors mean is told in one line; a process that runs on shows warnings again.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        code = app(
            list(arguments),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()  # here, where a reader that went away can be dealt with
        sys.stderr.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return _NO_READER
    except Exception as error:
        from anabranch.cli.common import tell

        return tell(error, trace=debug)
    return code if isinstance(code, int) else 0
