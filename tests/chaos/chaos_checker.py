"""Reads a finished run back, read_committed, and says what was promised and not kept."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from chaos_scene import SESSION_S, Death, Scene
from fleet import check_content
from msgspec import Struct

from anabranch.config.settings import Config
from anabranch.contract.events import HEADER_OFFSET
from anabranch.kafka.topics import Topics

__all__ = ["Report", "check", "read_back", "stuck"]

LATE_MS: Final = 20_000
"""Beyond the deadline: a session, a rebalance, a takeover, and a machine that is busy."""
RIPPLE_S: Final = 20.0
"""After a fault, what it set off may last so long; apart from that all is as if there was none."""


class Report(Struct):
    """What came of a run. `recovery`: seconds beyond the session timeout, a value each death."""

    faults: str
    mode: str
    seed: int
    sent: int = 0
    answered: int = 0
    complete: int = 0
    partial: int = 0
    failed: int = 0
    cached: int = 0
    """Answered from cache alone."""
    lost: int = 0
    twice: int = 0
    late: int = 0
    wrong: list[str] = []
    recovery: list[float] = []
    told: list[str] = []

    @property
    def name(self) -> str:
        """What happened, in a word or two."""
        kinds = dict.fromkeys(self.faults.split(", "))
        return "at random" if len(kinds) > 1 else next(iter(kinds)) or "nothing"

    @property
    def broken(self) -> list[str]:
        """Promises that were not kept."""
        found = [f"{self.lost} lost"] if self.lost else []
        if self.twice and (self.mode == "exactly_once" or not self.faults):
            found.append(f"{self.twice} answered twice")
        if self.late:
            found.append(f"{self.late} late")
        if self.complete < self.answered / 2:
            found.append(f"only {self.complete} of {self.answered} complete")
        return found + self.wrong

    def recovered(self) -> str:
        """Median and maximum, of how many."""
        if not self.recovery:
            return ""
        median, worst = statistics.median(self.recovery), max(self.recovery)
        return f"{median:.1f} / {worst:.1f} of {len(self.recovery)}"


class Asked(NamedTuple):
    """A query as it lies in its topic; times in epoch milliseconds."""

    n: int
    asked_ms: int
    deadline_ms: int


class Given(NamedTuple):
    """An answer as it lies in its topic, and the offset of its question."""

    partition: int
    offset: int
    time_ms: int
    answer: dict[str, Any]


class Records(NamedTuple):
    """All queries and answers of a run, by id."""

    asked: dict[str, Asked]
    given: dict[str, list[Given]]

    @property
    def settled(self) -> bool:
        """Everything is answered."""
        return len(self.given) >= len(self.asked) > 0


async def read_back(config: Config, within_s: float) -> Records:
    """Everything in `queries` and `results`, once it is settled or the time is over."""
    topics = Topics(config.namespace)
    found = Records({}, defaultdict(list))
    consumer = AIOKafkaConsumer(
        topics.queries, topics.results, bootstrap_servers=config.kafka.bootstrap,
        auto_offset_reset="earliest", isolation_level="read_committed",
    )  # fmt: skip
    await consumer.start()
    until, quiet = time.monotonic() + within_s, 0
    while time.monotonic() < until and quiet < 6:
        batches = await consumer.getmany(timeout_ms=500)
        quiet = 0 if batches or not found.settled else quiet + 1
        for records in batches.values():
            for record in records:
                event = json.loads(record.value)
                if record.topic == topics.queries:
                    until_ms = record.timestamp + event["timeout_ms"]
                    asked = Asked(event["params"]["n"], record.timestamp, until_ms)
                    found.asked.setdefault(event["id"], asked)  # repeats are no questions
                else:
                    offset = int(dict(record.headers)[HEADER_OFFSET])
                    given = Given(record.partition, offset, record.timestamp, event)
                    found.given[event["id"]].append(given)
    await consumer.stop()
    return found


def check(report: Report, records: Records, scene: Scene) -> None:
    """Fill in the report."""
    report.sent = len(records.asked)
    report.answered = len(records.given)
    report.lost = len(records.asked.keys() - records.given.keys())
    report.wrong += [f"{id_} was never asked" for id_ in records.given.keys() - records.asked]
    report.twice = sum(len(given) - 1 for given in records.given.values())
    statuses: Counter[str] = Counter()
    for id_, asked in records.asked.items():
        if given := records.given.get(id_):
            first = given[0]
            statuses[first.answer["status"]] += 1
            report.cached += first.answer["strategy"] == "cache"
            excused_ms = _overlap_ms(scene.outages, asked.asked_ms, first.time_ms)
            report.late += first.time_ms > asked.deadline_ms + LATE_MS + excused_ms
            report.wrong += [f"{id_}: {what}" for what in _wrong(asked, given, scene.disturbed)]
    report.complete, report.partial = statuses["complete"], statuses["partial"]
    report.failed = statuses["failed"]
    times: dict[int, list[int]] = defaultdict(list)
    for given in records.given.values():
        for each in given:
            times[each.partition].append(each.time_ms)
    report.recovery = [_recovery(times, death) for death in scene.deaths if death.partitions]


def _wrong(
    asked: Asked, given: Sequence[Given], disturbed: Sequence[tuple[float, float]]
) -> list[str]:
    found = []
    attempts = [each.answer["attempt"] for each in given]
    if len(set(attempts)) < len(attempts):  # in any order: what was cut off may arrive late
        found.append(f"attempts {attempts}")
    for each in given:
        try:
            if each.answer["layers"]:
                check_content(each.answer, asked.n)
        except AssertionError as error:
            found.append(f"content: {error}")
    if len({each.offset for each in given}) > 1:
        found.append("a repeat was answered")
    answer, asked_s, deadline_s = given[0].answer, asked.asked_ms / 1000, asked.deadline_ms / 1000
    calm = not any(begin < deadline_s and asked_s < end + RIPPLE_S for begin, end in disturbed)
    if calm and answer["status"] != "complete":
        found.append(f"{answer['status']} though nothing was wrong: {answer['error']}")
    return found


def _overlap_ms(outages: Sequence[tuple[float, float]], begin_ms: int, end_ms: int) -> float:
    """How much of a time fell into outages."""
    each = (min(end_ms, end * 1000) - max(begin_ms, begin * 1000) for begin, end in outages)
    return sum(max(0.0, ms) for ms in each)


def _recovery(times: dict[int, list[int]], death: Death) -> float:
    """How long the worst of its partitions waited for an answer, beyond the session, in seconds."""
    at_ms, worst = death.at_s * 1000 + 100, 0.0  # what was sent at the last moment may arrive
    for partition in death.partitions:
        following = min((ms for ms in times[partition] if ms > at_ms), default=at_ms)
        worst = max(worst, (following - at_ms) / 1000)
    return max(0.0, worst - SESSION_S)


async def stuck(config: Config) -> list[str]:
    """Partitions of queries and tasks that nobody has read to their ends."""
    bootstrap, topics = config.kafka.bootstrap, Topics(config.namespace)
    readers = {"coordinators": (topics.queries,)}
    readers |= {f"workers.{group}": topics.tasks_of(group) for group in config.groups}
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await admin.start()
    await consumer.start()
    found = []
    for group, read in readers.items():
        offsets = await admin.list_consumer_group_offsets(f"{config.namespace}{group}")
        for topic in read:
            partitions = await admin.describe_topics([topic])
            at = [TopicPartition(topic, p["partition"]) for p in partitions[0]["partitions"]]
            ends = await consumer.end_offsets(at)
            for tp, end in ends.items():
                done = offsets[tp].offset if tp in offsets else 0
                if done < end:
                    found.append(f"{group} stands at {done} of {end} in {topic}[{tp.partition}]")
    await consumer.stop()
    await admin.close()
    return found
