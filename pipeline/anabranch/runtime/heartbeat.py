"""An instance's own record on `health`, and what reading it back teaches of the broker's clock."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from anabranch.config.settings import KafkaConfig
from anabranch.contract.codec import encode
from anabranch.contract.events import HEALTH_INTERVAL_MS, MemberHealth
from anabranch.errors import BrokerError, RecordRefused
from anabranch.kafka.availability import answered
from anabranch.kafka.transport import LOG_APPEND_TIME, Producer, Record
from anabranch.runtime.clock import BrokerClock, Clock
from anabranch.runtime.supervisor import Stage

__all__ = ["Heartbeat", "instance_name", "package_version"]

log = logging.getLogger(__name__)

_MAX_UNMATCHED: Final = 4_096
"""Whoever may write to `health` may write under our key, too."""
_FAREWELL_S: Final = 2.0


def instance_name(role: str) -> str:
    """A name that no other instance has: role, host, process and a random part."""
    return f"{role}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


@cache
def package_version() -> str:
    """The installed distribution's version."""
    try:
        return version("anabranch")
    except PackageNotFoundError:
        return "unknown"


class Heartbeat:
    """Publishes one instance's state each second, and measures the broker's clock with it.

    Args:
        describe: the state to publish; `sent_ms` is filled in here.
        on_beat: called when an own record was both acknowledged and read: only then it is our own.
        on_set: see `BrokerClock`.
        kafka: how long the broker may be away: what is published is also how that is noticed.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        topic: str,
        producer: Producer,
        clock: Clock,
        describe: Callable[[], MemberHealth],
        *,
        on_beat: Callable[[], object] | None = None,
        on_set: Callable[[float], object] | None = None,
    ) -> None:
        self.broker_clock = BrokerClock(clock, on_set)
        self._kafka = kafka
        self._topic = topic
        self._producer = producer
        self._clock = clock
        self._describe = describe
        self.measured = asyncio.Event()
        """Set once an own record was read back: from then on it is known what time it is."""
        self._key: bytes | None = None
        self._sent: dict[int, tuple[float, float]] = {}
        self._read: dict[int, float | None] = {}
        """Stamps of the broker's, by offset; None where it stamps none."""
        self._on_beat = on_beat

    async def publish(self) -> None:
        """Send the present state and wait for its acknowledgement."""
        member = self._describe()
        self._key = member_key(member)
        sent = self._clock.monotonic()
        acked = await self._producer.send_and_wait(
            self._topic, encode(member), key=self._key, partition=0
        )
        self._sent[acked.offset] = (sent, self._clock.monotonic())
        self._measure(acked.offset)

    async def farewell(self) -> None:
        """Say the last word, if anybody hears it: whoever says it did not die."""
        if not self.measured.is_set():
            return
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self.publish()
        except (BrokerError, TimeoutError) as error:
            log.debug("nobody heard the last word: %s", error)

    async def run(self, stage: Stage) -> None:
        """Stage: publish every second.

        Raises:
            BrokerUnavailable: the broker was away for too long.
        """
        while True:
            stage.beat()
            try:
                await answered(self.publish(), self._kafka)
            except RecordRefused as error:
                log.warning("nobody is told that this instance is here: %s", error)
            await asyncio.sleep(HEALTH_INTERVAL_MS / 1_000)

    def read_back(self, record: Record) -> None:
        """Called with every record of `health`; those that are ours become samples."""
        if record.key == self._key:
            trusted = record.timestamp_type == LOG_APPEND_TIME
            self._read[record.offset] = float(record.timestamp) if trusted else None
            self._measure(record.offset)

    def _measure(self, offset: int) -> None:
        """Take a sample once a record was both acknowledged and read, in either order."""
        if offset in self._sent and offset in self._read:
            times, stamp_ms = self._sent.pop(offset), self._read.pop(offset)
            if stamp_ms is not None:
                self.broker_clock.sample(*times, stamp_ms)
            self.measured.set()
            if self._on_beat is not None:
                self._on_beat()
        for unmatched in (self._sent, self._read):
            while len(unmatched) > _MAX_UNMATCHED:
                del unmatched[next(iter(unmatched))]


def member_key(member: MemberHealth) -> bytes:
    """The compaction key of an instance's record."""
    return f"member/{member.role}/{member.instance}".encode()
