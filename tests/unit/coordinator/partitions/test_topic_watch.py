"""Topics that change under a coordinator are noticed and explained."""

from __future__ import annotations

import pytest

from anabranch.coordinator.partitions.topic_watch import TopicWatch
from anabranch.errors import TopicError
from anabranch.testing import MemoryBroker

SAME = {"q": 2, "p": 2, "r": 2}


@pytest.fixture
def watch() -> TopicWatch:
    return TopicWatch(tuple(SAME), MemoryBroker().transport("c").producer("c"))


def test_a_topic_that_stays_away_is_named(watch: TopicWatch) -> None:
    watch.look(SAME)
    for _ in range(2):
        watch.look(SAME | {"q": 0})
    with pytest.raises(TopicError, match=r"q is gone.*`anabranch topics`"):
        watch.look(SAME | {"q": 0})


def test_one_that_comes_back_is_not(watch: TopicWatch) -> None:
    for _ in range(5):
        watch.look(SAME | {"q": 0})
        watch.look(SAME | {"q": 0})
        watch.look(SAME)


def test_other_counts_are_said_once(watch: TopicWatch, caplog: pytest.LogCaptureFixture) -> None:
    for found in (SAME, SAME, SAME | {"q": 4}, SAME | {"q": 4}):
        watch.look(found)
    (said,) = caplog.messages
    assert "q 4, p 2, r 2" in said
    assert "restart the coordinators" in said
