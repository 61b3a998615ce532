"""A broker that is away: said once when it goes and once when it is back, and given up in time.

Many clients of a process wait for the same broker, so what is said of it belongs to the process.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from anabranch.config.settings import KafkaConfig
from anabranch.errors import BrokerUnavailable

__all__ = ["Absence", "absence", "answered", "nobody_answers", "refusal"]

log = logging.getLogger(__name__)

T = TypeVar("T")

NOTICED_S: Final = 3.0
"""A request without an answer for so long: leaders are elected, and disks are slow, in less."""
PROBE_S: Final = 2.0
_PORT: Final = 9092
_STEP_S: Final = 0.5


class Absence:
    """Whether the broker at an address is away, as far as this process has noticed."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._since_s: float | None = None

    def began(self, silent_s: float, limit_s: float, why: str) -> None:
        """Somebody has waited for so long already, and will wait for so long at most."""
        if self._since_s is None:
            self._since_s = _now_s() - silent_s
            log.warning(
                "no Kafka broker answers at %s (%s); waiting for it, %g s at most",
                self._bootstrap,
                why,
                limit_s,
            )

    def __str__(self) -> str:
        """What is the matter; empty if it is not away."""
        if self._since_s is None:
            return ""
        silent_s = _now_s() - self._since_s
        return f"the Kafka broker at {self._bootstrap} has not answered for {silent_s:.0f} s"

    def ended(self) -> None:
        """It has answered."""
        if self._since_s is not None:
            gone_s = _now_s() - self._since_s
            log.warning("the broker at %s is back after %.0f s", self._bootstrap, gone_s)
            self._since_s = None


_absences: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Absence]] = WeakKeyDictionary()


def absence(bootstrap: str) -> Absence:
    """What this process knows of the broker there; by loop, as each has a clock of its own."""
    known = _absences.setdefault(asyncio.get_running_loop(), {})
    return known.setdefault(bootstrap, Absence(bootstrap))


def refusal(bootstrap: str) -> str | None:
    """Why nobody can be reached there; None if somebody can. Blocks, within a bound."""
    why = "no address is given"
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            number = int(port) if host else _PORT
            with socket.create_connection((host.strip("[]") or port, number), PROBE_S):
                return None
        except (OSError, ValueError, OverflowError) as error:
            why = str(error)
    return why


def nobody_answers(config: KafkaConfig, why: str) -> BrokerUnavailable:
    """Says where, why, and what to do."""
    credentials = ", check kafka.client (the log says more)" if config.client else ""
    return BrokerUnavailable(
        f"no Kafka broker answers at {config.bootstrap} ({why}); start one "
        f"(`anabranch broker`){credentials} or set kafka.bootstrap"
    )


async def answered(request: Coroutine[Any, Any, T], config: KafkaConfig) -> T:
    """The broker's answer to a request that it answers at once if it is there.

    Raises:
        BrokerUnavailable: it did not, for as long as it may be away.
    """
    limit_s, silent_s, told = config.request_timeout_ms / 1000, 0.0, False
    task = asyncio.ensure_future(request)
    try:
        while True:
            before_s = _now_s()
            await asyncio.wait({task}, timeout=_STEP_S)
            if task.done():
                break
            silent_s += min(_now_s() - before_s, 2 * _STEP_S)  # a suspended process heard nothing
            if silent_s >= limit_s:
                raise BrokerUnavailable(
                    f"the Kafka broker at {config.bootstrap} has not answered for {limit_s:g} s "
                    f"(kafka.request_timeout_ms)"
                )
            if silent_s >= NOTICED_S and not told:
                told = True
                absence(config.bootstrap).began(silent_s, limit_s, "it has fallen silent")
    finally:
        task.cancel()
    absence(config.bootstrap).ended()
    return task.result()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
