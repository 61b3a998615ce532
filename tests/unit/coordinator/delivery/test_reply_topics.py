"""Which reply topic a failed transaction is blamed on, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from anabranch.coordinator.delivery.reply_topics import ReplyTopics
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.errors import BrokerError, BrokerUnavailable

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


class Broker:
    """Has the topics that do not begin with "no"; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: BrokerError | None = None

    async def lookup(self, topic: str) -> int:
        self.asked.append(topic)
        if self.error is not None:
            raise self.error
        return 0 if topic.startswith("no") else 4


async def avoided(topics: ReplyTopics, *names: str) -> list[bool]:
    return [await topics.objection(name) is not None for name in names]


async def test_a_name_is_looked_up_once_a_minute() -> None:
    clock, broker = Clock(), Broker()
    topics = ReplyTopics(broker.lookup, clock)
    for _ in range(3):
        assert await topics.objection("no-1") == "there is no such topic"
        assert await topics.objection("yes") is None
    assert broker.asked == ["no-1", "yes"]
    clock.s += 60.0
    assert await topics.objection("no-1") == "there is no such topic"
    assert broker.asked == ["no-1", "yes", "no-1"]


async def test_names_that_are_remembered_are_bounded() -> None:
    broker = Broker()
    topics = ReplyTopics(broker.lookup, Clock())
    for n in range(10_001):
        await topics.objection(f"no-{n}")
        await topics.objection("no-1")  # asked for often: kept
    assert len(topics._known) == 10_000
    asked = len(broker.asked)
    await topics.objection("no-1")
    assert len(broker.asked) == asked
    await topics.objection("no-0")
    assert len(broker.asked) == asked + 1


async def test_that_nobody_answers_is_not_remembered_of_a_topic() -> None:
    broker = Broker()
    topics = ReplyTopics(broker.lookup, Clock())
    broker.error = BrokerUnavailable("nobody answers")
    with pytest.raises(BrokerUnavailable):
        await topics.objection("yes")
    broker.error = None
    assert await topics.objection("yes") is None


async def test_a_topic_whose_copy_alone_was_refused_is_avoided_for_a_minute() -> None:
    clock = Clock()
    topics = ReplyTopics(Broker().lookup, clock)
    copies = [(to("bad"), sent(TOO_LARGE)), (to("good"), sent()), (to("later"), sent(pending=True))]
    topics.blame([sent()], copies)
    assert await avoided(topics, "bad", "good", "later") == [True, False, False]
    clock.s += 59.0
    assert await avoided(topics, "bad") == [True]
    clock.s += 1.0
    assert await avoided(topics, "bad") == [False]


@pytest.mark.parametrize(("error", "blamed"), [(FENCED, False), (NOT_ALLOWED, True)])
async def test_where_all_failed_the_error_says_whose_fault_it_was(
    error: Exception, blamed: bool
) -> None:
    topics = ReplyTopics(Broker().lookup, Clock())
    topics.blame([sent(error)], [(to("bad"), sent(error)), (to("innocent"), sent(error))])
    assert await avoided(topics, "bad", "innocent") == [blamed, False]
