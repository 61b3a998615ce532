"""An instance's own record on `health`, and what reading it back teaches of the broker's clock."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from anabranch.clock import BrokerClock, Clock
from anabranch.events import MemberHealth, encode
from anabranch.kafka.transport import LOG_APPEND_TIME, Producer, Record

__all__ = ["Membership", "instance_name", "package_version"]


def instance_name(role: str) -> str:
    """A name that no other instance has: role, host, process and a random part."""
    return f"{role}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def package_version() -> str:
    """The installed distribution's version."""
    try:
        return version("anabranch")
    except PackageNotFoundError:
        return "unknown"


class Membership:
    """Publishes one instance's state each second, and measures the broker's clock with it.

    Args:
        describe: the state to publish; `sent_ms` is filled in here.
    """

    def __init__(
        self,
        topic: str,
        producer: Producer,
        clock: Clock,
        describe: Callable[[], MemberHealth],
    ) -> None:
        self.broker_clock = BrokerClock(clock)
        self._topic = topic
        self._producer = producer
        self._clock = clock
        self._describe = describe
        self._sent: dict[int, tuple[float, float]] = {}

    async def publish(self) -> None:
        """Send the present state and wait for its acknowledgement."""
        member = self._describe()
        sent = self._clock.monotonic()
        acked = await self._producer.send_and_wait(
            self._topic, encode(member), key=member_key(member), partition=0
        )
        self._sent[acked.offset] = (sent, self._clock.monotonic())
        while len(self._sent) > 60:
            del self._sent[next(iter(self._sent))]

    def read_back(self, record: Record) -> None:
        """Called with every record of `health`; those that are ours become samples."""
        times = self._sent.pop(record.offset, None)
        if times is not None and record.timestamp_type == LOG_APPEND_TIME:
            self.broker_clock.sample(*times, float(record.timestamp))


def member_key(member: MemberHealth) -> bytes:
    """The compaction key of an instance's record."""
    return f"member/{member.role}/{member.instance}".encode()
