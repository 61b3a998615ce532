"""An instance's own record on `health`: what is ours is what we were told was written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from records import FakeRecord

from anabranch.config.settings import Config, KafkaConfig
from anabranch.contract.codec import encode
from anabranch.contract.events import MemberHealth
from anabranch.kafka.topics import ensure_topics
from anabranch.runtime.heartbeat import Heartbeat, member_key
from anabranch.testing import MemoryBroker, VirtualClock, run

ME = MemberHealth("c1", "coordinator", "ready")
HOUR_MS = 3_600_000


def own(offset: int, later_ms: int = 0) -> FakeRecord:
    """A record under our key, whoever wrote it."""
    clock_ms = int(VirtualClock().time_ms())
    return FakeRecord(encode(ME), key=member_key(ME), offset=offset, timestamp=clock_ms + later_ms)


def measure(body: Callable[[Heartbeat], Awaitable[None]]) -> tuple[int, float]:
    """Beats, and how far the broker's clock is believed to be from here."""

    async def main() -> tuple[int, float]:
        broker, clock, beats = MemoryBroker(), VirtualClock(), list[None]()
        await ensure_topics(broker.transport(), Config(), ["default"])
        producer = broker.transport().producer("c1")
        await producer.start()
        topic = "anabranch.health"
        heartbeat = Heartbeat(
            KafkaConfig(), topic, producer, clock, lambda: ME, on_beat=lambda: beats.append(None)
        )
        await heartbeat.publish()
        await body(heartbeat)
        return len(beats), heartbeat.broker_clock.now_ms() - clock.time_ms()

    return run(main())


@pytest.mark.parametrize("lies", [1, 3_000])
def test_what_another_writes_under_its_key_is_neither_beat_nor_time(lies: int) -> None:
    async def lie(heartbeat: Heartbeat) -> None:
        for n in range(1, lies + 1):
            heartbeat.read_back(own(n, HOUR_MS))
        assert not heartbeat.measured.is_set()

    async def lie_and_read(heartbeat: Heartbeat) -> None:
        await lie(heartbeat)
        heartbeat.read_back(own(0))
        heartbeat.read_back(own(0))

    assert measure(lie)[0] == 0
    beats, off_ms = measure(lie_and_read)
    assert beats == 1
    assert abs(off_ms) < 1_000


def test_what_is_read_before_its_acknowledgement_is_found_among_lies() -> None:
    async def body(heartbeat: Heartbeat) -> None:
        heartbeat.read_back(own(1))
        for n in range(3_000):
            heartbeat.read_back(own(10 + n, HOUR_MS))
        await heartbeat.publish()

    beats, off_ms = measure(body)
    assert beats == 1
    assert abs(off_ms) < 1_000
