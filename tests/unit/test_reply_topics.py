"""Which reply topic a failed transaction is blamed on, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from anabranch.coordinator.outbox import AnswerOut
from anabranch.coordinator.reply_topics import ReplyTopics

TOO_LARGE = ValueError("record is too large")
FENCED = ValueError("fenced")
NOT_ALLOWED = ValueError("not allowed: {'bad'}")


class Clock:
    """Seconds, in a test's hands."""

    s = 100.0

    def __call__(self) -> float:
        return self.s


def to(topic: str) -> AnswerOut:
    return AnswerOut(None, 0, b"", b"", [], topic)  # type: ignore[arg-type]


def sent(error: Exception | None = None, *, pending: bool = False) -> asyncio.Future[object]:
    future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    if error is not None:
        future.set_exception(error)
    elif not pending:
        future.set_result(None)
    return future


async def test_a_topic_whose_copy_alone_was_refused_is_avoided_for_a_minute() -> None:
    clock = Clock()
    topics = ReplyTopics(clock)
    copies = [(to("bad"), sent(TOO_LARGE)), (to("good"), sent()), (to("later"), sent(pending=True))]
    topics.blame([sent()], copies)
    assert [topics.avoids(topic) for topic in ("bad", "good", "later")] == [True, False, False]
    clock.s += 59.0
    assert topics.avoids("bad")
    clock.s += 1.0
    assert not topics.avoids("bad")


@pytest.mark.parametrize(("error", "avoided"), [(FENCED, False), (NOT_ALLOWED, True)])
async def test_where_all_failed_the_error_says_whose_fault_it_was(
    error: Exception, avoided: bool
) -> None:
    topics = ReplyTopics(Clock())
    topics.blame([sent(error)], [(to("bad"), sent(error)), (to("innocent"), sent(error))])
    assert topics.avoids("bad") is avoided
    assert not topics.avoids("innocent")
