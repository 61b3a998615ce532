"""Records as a test writes them."""

from __future__ import annotations

from typing import NamedTuple

from anabranch.kafka.transport import LOG_APPEND_TIME, Headers


class FakeRecord(NamedTuple):
    """A record with defaults for all that a test does not care about."""

    value: bytes | None
    offset: int = 0
    partition: int = 0
    topic: str = "anabranch.queries"
    key: bytes | None = None
    timestamp: int = 0
    timestamp_type: int = LOG_APPEND_TIME
    headers: Headers = ()
    error: str | None = None
