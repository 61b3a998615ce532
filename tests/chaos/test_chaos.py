"""The short form of `make chaos`: every fault once, in both modes, on three nodes of Kafka."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from chaos_disk import Disk, three_nodes
from chaos_run import chaos, drawn

from anabranch.dev.local_kafka import LocalKafka

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        shutil.which("cc") is None, reason="needs a C compiler: slow disks are made"
    ),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[LocalKafka, Disk]]:
    with three_nodes() as kafka_and_disk:
        yield kafka_and_disk


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_faults_lose_no_answer_and_double_none_that_was_promised_once(
    cluster: tuple[LocalKafka, Disk], mode: str
) -> None:
    report = await chaos(*cluster, drawn(1), mode=mode, seed=1, queries=2_000, per_s=16)
    assert report.answered == report.sent >= 2_000
    assert not report.broken, "\n".join([*report.broken, "what happened:", *report.told])
