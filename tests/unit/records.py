"""Records as a test writes them."""

from __future__ import annotations

from typing import Self

from anabranch.kafka.transport import LOG_APPEND_TIME, Headers, Record


class FakeRecord(Record):
    """A record with defaults for all that a test does not care about."""

    def __new__(
        cls,
        value: bytes | None,
        offset: int = 0,
        partition: int = 0,
        topic: str = "anabranch.queries",
        key: bytes | None = None,
        timestamp: int = 0,
        timestamp_type: int = LOG_APPEND_TIME,
        headers: Headers = (),
        error: str | None = None,
    ) -> Self:
        return super().__new__(
            cls, topic, partition, offset, timestamp, timestamp_type, key, value, headers, error
        )
