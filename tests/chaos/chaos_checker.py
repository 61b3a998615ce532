"""Reads a finished run back, read_committed, and says what was promised and not kept."""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from chaos_scene import SESSION_S
from fleet import check_content
from msgspec import Struct

from anabranch.config import Config
from anabranch.kafka.topics import Topics

__all__ = ["PARAMS", "TIMEOUT_MS", "Report", "check", "stuck"]

TIMEOUT_MS: Final = 10_000
PARAMS: Final = 300
"""Questions are asked again after so many: the cache answers some of them."""
LATE_MS: Final = 20_000
"""Beyond the deadline: a session, a rebalance, a takeover, and a machine that is busy."""


class Report(Struct):
    """What came of a run; times in seconds. `recovery` is beyond the session timeout."""

    faults: str
    mode: str
    seed: int
    sent: int
    answered: int = 0
    lost: int = 0
    twice: int = 0
    late: int = 0
    wrong: list[str] = []
    recovery: list[float] = []
    told: list[str] = []

    @property
    def broken(self) -> list[str]:
        """Promises that were not kept."""
        found = [f"{self.lost} lost"] if self.lost else []
        if self.twice and (self.mode == "exactly_once" or not self.faults):
            found.append(f"{self.twice} answered twice")
        if self.late:
            found.append(f"{self.late} late")
        return found + self.wrong

    def recovered(self) -> str:
        """Median and maximum."""
        if not self.recovery:
            return ""
        return f"{statistics.median(self.recovery):.1f} / {max(self.recovery):.1f}"


async def check(config: Config, report: Report, died: Sequence[float], within_s: float) -> None:
    """Fill in the report, once everything is answered or the time is over."""
    topics = Topics(config.namespace)
    asked: dict[str, int] = {}
    answers: dict[str, list[Any]] = defaultdict(list)
    times: dict[int, list[int]] = defaultdict(list)
    consumer = AIOKafkaConsumer(
        topics.queries, topics.results, bootstrap_servers=config.kafka.bootstrap,
        auto_offset_reset="earliest", isolation_level="read_committed",
    )  # fmt: skip
    await consumer.start()
    until, quiet = time.monotonic() + within_s, 0
    while time.monotonic() < until and quiet < 6:
        batches = await consumer.getmany(timeout_ms=500)
        quiet = 0 if batches or len(answers) < report.sent else quiet + 1
        for records in batches.values():
            for record in records:
                event = json.loads(record.value)
                if record.topic == topics.queries:
                    asked[event["id"]] = record.timestamp + event["timeout_ms"]
                else:
                    answers[event["id"]].append((record.timestamp, event))
                    times[record.partition].append(record.timestamp)
    await consumer.stop()
    _count(report, asked, answers)
    report.recovery = [_recovery(times, at) for at in died]
    report.wrong += await stuck(config)


def _count(report: Report, asked: dict[str, int], answers: dict[str, list[Any]]) -> None:
    report.answered = len(answers)
    report.lost = report.sent - len(answers)
    report.twice = sum(len(given) - 1 for given in answers.values())
    for id_, given in answers.items():
        report.late += given[0][0] > asked[id_] + LATE_MS
        attempts = [answer["attempt"] for _, answer in given]
        if attempts != sorted(set(attempts)):
            report.wrong.append(f"{id_} has attempts {attempts}")
        for _, answer in given:
            try:
                if answer["layers"]:
                    check_content(answer, int(id_[1:]) % PARAMS)
            except AssertionError as error:
                report.wrong.append(f"{id_}: {error}")


def _recovery(times: dict[int, list[int]], died_s: float) -> float:
    """How long the partition that waited longest waited for its next answer, in seconds."""
    died_ms, worst = died_s * 1000, 0.0
    for stamps in times.values():
        for last, following in pairwise(sorted(stamps)):
            if last <= died_ms + 1_000 and following > died_ms and following - last > 2_000:
                worst = max(worst, following - died_ms)
    return max(0.0, worst / 1000 - SESSION_S)


async def stuck(config: Config) -> list[str]:
    """Partitions of queries and tasks that nobody has read to their ends."""
    bootstrap = config.kafka.bootstrap
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await admin.start()
    await consumer.start()
    groups = ["coordinators", *(f"workers.{group}" for group in config.groups)]
    found = []
    for group in groups:
        offsets = await admin.list_consumer_group_offsets(f"{config.namespace}{group}")
        at = [TopicPartition(*tp) for tp in offsets]
        ends = await consumer.end_offsets(at)
        found += [
            f"{group} stands at {offsets[tp].offset} of {end} in {tp.topic}[{tp.partition}]"
            for tp, end in ends.items()
            if offsets[tp].offset < end
        ]
    await consumer.stop()
    await admin.close()
    return found
