"""The transport contract: topics are created, described and refused alike."""

from __future__ import annotations

import pytest
from transports import Broker, fresh, running, seen, where

from anabranch.errors import TopicError, TopicsOnFirstUse
from anabranch.kafka.transport import TopicState

COMPACTED = {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}


@where("create_topics")
async def test_a_topic_is_made_as_it_was_asked_for(broker: Broker) -> None:
    name, other = fresh("topic"), fresh("topic")
    async with running(broker.transport().admin()) as admin:
        await admin.create({name: TopicState(3, COMPACTED), other: TopicState(1, {})}, -1)
        await seen(admin, [name, other])
        found = await admin.topics([name, other, fresh("missing")])
    assert {topic: state.partitions for topic, state in found.items()} == {name: 3, other: 1}
    assert found[name].settings.items() >= COMPACTED.items()


@where("create_topics")
async def test_a_topic_that_exists_is_left_alone(broker: Broker) -> None:
    name, new = fresh("topic"), fresh("topic")
    async with running(broker.transport().admin()) as admin:
        await admin.create({name: TopicState(3, COMPACTED)}, 1)
        await admin.create({name: TopicState(5, {}), new: TopicState(2, {})}, 1)
        found = await seen(admin, [name, new])
    assert (found[name].partitions, found[new].partitions) == (3, 2)
    assert found[name].settings.items() >= COMPACTED.items()


@where()
async def test_asking_for_a_topic_does_not_make_it(broker: Broker) -> None:
    name = fresh("missing")
    async with running(broker.transport().admin()) as admin:
        for _ in range(2):
            assert await admin.topics([name]) == {}


@where("describe_configs")
async def test_settings_that_the_broker_refuses_are_told_with_their_topic(broker: Broker) -> None:
    wrong, right = fresh("wrong"), fresh("right")
    wanted = {wrong: TopicState(1, {"cleanup.policy": "shred"}), right: TopicState(1, {})}
    async with running(broker.transport().admin()) as admin:
        with pytest.raises(TopicError, match=rf"{wrong}.*cleanup\.policy") as refused:
            await admin.create(wanted, 1)
        assert right not in str(refused.value)
        assert set(await seen(admin, [right])) == {right}
        assert wrong not in await admin.topics(wanted)


@where("describe_configs")
async def test_more_copies_than_brokers_are_refused(broker: Broker) -> None:
    name = fresh("topic")
    async with running(broker.transport().admin()) as admin:
        with pytest.raises(TopicError, match=name):
            await admin.create({name: TopicState(1, {})}, 3)


@where("topics_on_first_use")
async def test_a_broker_that_makes_topics_on_first_use_says_so(broker: Broker) -> None:
    name = fresh("topic")
    async with running(broker.transport().admin()) as admin:
        with pytest.raises(TopicsOnFirstUse):
            await admin.create({name: TopicState(1, {})}, 1)
        assert await admin.topics([name]) == {}
