"""The short form of `make chaos`: every fault once, in both modes, on three nodes of Kafka."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from chaos_run import chaos
from chaos_scene import FAULTS

from anabranch.dev.local_kafka import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[LocalKafka]:
    with LocalKafka(nodes=3) as kafka:
        yield kafka


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_faults_lose_no_answer_and_double_none_that_was_promised_once(
    three_nodes: LocalKafka, mode: str
) -> None:
    faults = random.Random(1).sample(list(FAULTS), len(FAULTS))
    report = await chaos(three_nodes, faults, mode=mode, seed=1, queries=2_000, per_s=25, nodes=3)
    assert report.answered == 2_000
    assert not report.broken, "\n".join([*report.broken, "what happened:", *report.told])
