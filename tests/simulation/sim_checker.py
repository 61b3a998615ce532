"""Reads a finished run back and says what was promised and not kept.

It knows the questions (from `queries`) and the layers' content (a pure function), and nothing of
how answers come about.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from typing import Final

from msgspec import Struct
from sim_questions import POISON
from sim_truth import Truth

from anabranch.config.settings import Config
from anabranch.contract.codec import decode, read_id
from anabranch.contract.events import DEFAULT_TIMEOUT_MS, HEADER_OFFSET, Answer, Item, Query
from anabranch.kafka.dead_letters import HEADER_PARTITION, HEADER_SOURCE_OFFSET, HEADER_TOPIC
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import Record, TopicPartition
from anabranch.testing import MemoryBroker

__all__ = ["Promise", "behind", "check", "unanswered"]

SLACK_MS: Final = 150
"""That clocks may seem to differ without a proof that they do."""

Place = tuple[int, int]
"""Partition and offset of a query."""
Part = tuple[str, int, int]
"""Layer, shard and version of its content."""


class Promise(Struct, frozen=True):
    """What a run without these failures promises.

    Attributes:
        once: no query gets a second answer.
        late_ms: an answer is on `results` so long after its deadline at most; None if a failure
            makes it as late as recovery takes.
        fresh_ms: so long after an invalidation nobody is told what it invalidated; None if a
            failure may keep the order from a coordinator for longer than a query.
        true: what answers say is right.
        gone: questions may be gone from their log, answered or not.
        repeats: a repeat is known for one.
        patient: no query is taken for expired before its time.
    """

    once: bool
    late_ms: float | None
    fresh_ms: float | None
    true: bool = True
    gone: bool = False
    repeats: bool = True
    patient: bool = True


def check(broker: MemoryBroker, config: Config, truth: Truth, promise: Promise) -> list[str]:
    """Every promise that was broken, one sentence each."""
    return list(_Checker(broker, config, truth, promise).violations())


def unanswered(broker: MemoryBroker, config: Config) -> list[str]:
    """Ids of queries that have no answer yet."""
    topics = Topics(config.namespace)
    answered = {(record.partition, record.key) for record in broker.records(topics.results)}
    asked = [_Question(record) for record in broker.records(topics.queries)]
    return [
        question.id
        for question in asked
        if question.id is not None and (question.place[0], question.id.encode()) not in answered
    ]


def behind(broker: MemoryBroker, config: Config) -> list[str]:
    """Partitions of `queries` whose commit does not stand at their end."""
    committed = broker.committed(f"{config.namespace}coordinators")
    ends: dict[TopicPartition, int] = {}
    for record in broker.records(Topics(config.namespace).queries):
        ends[TopicPartition(record.topic, record.partition)] = record.offset + 1
    return [
        f"{at} is committed up to {committed[at].offset if at in committed else None} of {end}"
        for at, end in ends.items()
        if at not in committed or committed[at].offset < end
    ]


class _Question:
    """A record of `queries`: a valid query, or something else with or without an id."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.place = (record.partition, record.offset)
        self.id = read_id(record.value)
        self.alike = (record.partition, record.offset if self.id is None else self.id)
        """Equal for a question and its repeats."""

    def query(self) -> Query:
        return decode(self.record.value, Query)


class _Checker:
    def __init__(
        self,
        broker: MemoryBroker,
        config: Config,
        truth: Truth,
        promise: Promise,
    ) -> None:
        topics = Topics(config.namespace)
        self._config = config
        self._truth = truth
        self._promise = promise
        self._questions = {q.place: q for q in map(_Question, _read(broker, topics.queries))}
        self._alike: dict[tuple[int, int | str], list[Place]] = defaultdict(list)
        """The same id on the same partition: repeats, of which one is answered."""
        for place, question in self._questions.items():
            self._alike[question.alike].append(place)
        self._dead = {
            (int(found[HEADER_PARTITION]), int(found[HEADER_SOURCE_OFFSET]))
            for record in broker.records(topics.dlq)
            if (found := dict(record.headers)).get(HEADER_TOPIC) == topics.queries.encode()
        }
        self._answers: dict[Place, list[tuple[Record, Answer]]] = defaultdict(list)
        self._answered: set[tuple[int, int | str]] = set()
        """Partition and id."""
        for record in _read(broker, topics.results):
            if record.error is not None:
                continue
            place = (record.partition, int(dict(record.headers)[HEADER_OFFSET]))
            answer = decode(record.value, Answer)
            self._answered.add((record.partition, answer.id))
            if promise.gone and not self._is_of(self._questions.get(place), record, answer):
                continue  # of one that is gone; another one may be at its place
            self._answers[place].append((record, answer))
        self._times_answered = Counter(record.key for record in broker.records(topics.results))
        self._copies = Counter(
            r.key for t in config.coordinator.reply_topics for r in broker.records(t)
        )

    def violations(self) -> Iterator[str]:
        for place in sorted(set(self._answers) - set(self._questions)):
            yield f"{place}: an answer to no question"
        for place, question in self._questions.items():
            first = self._questions[self._alike[question.alike][0]]
            told = self._of(question) if first is question else self._of_repeat(question, first)
            yield from (f"{place} {question.id}: {what}" for what in told)

    def _is_of(self, question: _Question | None, record: Record, answer: Answer) -> bool:
        """Whether an answer is to this question, which may be younger, though of the same id."""
        known = question is not None and question.id == answer.id
        return known and question.record.timestamp <= record.timestamp

    def _of(self, question: _Question) -> Iterator[str]:
        answers = self._answers[question.place]
        if question.id is None and question.place not in self._dead:
            yield "bytes without an id are not in the dead letters"
        if question.id is not None and question.alike not in self._answered:
            yield "no answer"
        if self._promise.once and len(answers) > 1:
            yield f"answered {len(answers)} times"
        yield from self._of_answers(question)

    def _of_repeat(self, question: _Question, before: _Question) -> Iterator[str]:
        """No second answer, however often the partition changed hands: runs are short."""
        if self._answers[question.place] and self._promise.repeats:
            yield f"a repeat of {before.place} was answered"

    def _of_answers(self, question: _Question) -> Iterator[str]:
        attempts = [answer.attempt for _, answer in self._answers[question.place]]
        if len(set(attempts)) < len(attempts):
            yield f"answered twice by one owner: attempts {attempts}"
        for record, answer in self._answers[question.place]:
            yield from self._of_answer(question, record, answer)

    def _of_answer(self, question: _Question, record: Record, answer: Answer) -> Iterator[str]:
        if record.key != answer.id.encode() or answer.id != question.id:
            yield f"answered as {answer.id!r} under the key {record.key!r}"
        if answer.error is not None and answer.error.code in ("invalid_query", "quarantined"):
            if question.place not in self._dead:
                yield f"answered as {answer.error.code}, but not in the dead letters"
            if answer.error.code == "quarantined" and POISON not in question.query().params:
                yield "quarantined, but it never hurt anybody"
            return
        query = question.query()
        yield from self._of_time(query, question.record, record, answer)
        if self._promise.true:
            yield from self._of_layers(query, answer)
            yield from self._of_content(query, question.record, record, answer)
        copies = self._copies[record.key]
        if query.reply_to is not None and not copies:
            yield "answered, but not where the reply was wanted"
        answers = self._times_answered[record.key]
        if self._promise.once and copies > answers:
            yield f"{copies} copies of {answers} answers"

    def _of_time(
        self, query: Query, asked: Record, record: Record, answer: Answer
    ) -> Iterator[str]:
        if self._promise.late_ms is None:
            return
        timeout_ms = query.timeout_ms or DEFAULT_TIMEOUT_MS
        late_ms = record.timestamp - asked.timestamp - timeout_ms
        if late_ms > self._promise.late_ms:
            yield f"answered {late_ms} ms after its deadline"
        timed_out = any(layer.status == "timeout" for layer in answer.layers.values())
        hurried = answer.strategy is None and timed_out and late_ms < -SLACK_MS
        if hurried and self._promise.patient:
            yield f"taken for expired {-late_ms} ms before its deadline"

    def _of_layers(self, query: Query, answer: Answer) -> Iterator[str]:
        wanted = self._wanted(query)
        if set(answer.layers) != set(wanted):
            yield f"layers {sorted(answer.layers)} where {sorted(wanted)} were wanted"
        ok = [name for name, layer in answer.layers.items() if layer.status == "ok"]
        whole = {name for name in ok if answer.layers[name].error is None}
        status = "complete" if len(whole) == len(wanted) else "partial" if ok else "failed"
        if answer.status != status:
            yield f"{answer.status} with {len(ok)} of {len(wanted)} layers, whole {whole}"
        missing = {missing.layer for missing in answer.missing}
        if missing != set(wanted) - whole:
            yield f"missing names {sorted(missing)}, whole are {sorted(whole)}"
        if (answer.error is not None) != (answer.status == "failed"):
            yield f"{answer.status} with error {answer.error}"
        for name, layer in answer.layers.items():
            most_ms = math.inf if query.max_age_ms is None else query.max_age_ms
            if layer.source == "cache" and ((layer.age_ms or 0) > most_ms or most_ms == 0):
                yield f"{name} is {layer.age_ms} ms old, over {most_ms}"
            if query.strategy == "cache" and layer.source not in ("cache", "none"):
                yield f"{name} was asked although only the cache was to be"

    def _of_content(
        self, query: Query, asked: Record, record: Record, answer: Answer
    ) -> Iterator[str]:
        """The items are those of some version of each shard that was right in between."""
        ok = [name for name, layer in answer.layers.items() if layer.status == "ok"]
        fresh_ms = self._promise.fresh_ms
        asked_ms = -math.inf if fresh_ms is None else asked.timestamp - fresh_ms
        choices = [
            [
                (name, shard, version)
                for version in self._truth.may_say(name, asked_ms, record.timestamp)
            ]
            for name in ok
            for shard in range(self._truth.shards_of(name))
        ]
        parts = {part: self._truth.content(*part, query) for part in chain(*choices)}
        known = {item.id: item.data for items in parts.values() for item in items}
        wrong = [item.id for item in answer.items if known.get(item.id) != item.data]
        if wrong:
            yield f"no layer said {wrong} between asking and answering"
        if any(answer.layers[name].error for name in ok):
            return  # a shard is missing: what came is right, as was just checked
        told = [item.id for item in answer.items]
        possible = (_fused(combination, parts, query.limit) for combination in product(*choices))
        if not wrong and told not in possible:
            yield f"items {told} are not the best ones, or not in their order"
        total = sum(self._truth.items_of(name) * self._truth.shards_of(name) for name in ok)
        if not answer.truncated and len(told) < total:
            yield f"{len(told)} of {total} items, and it is not said that more exist"

    def _wanted(self, query: Query) -> tuple[str, ...]:
        named = query.layers if query.layers is not None else self._config.types[query.type].layers
        return tuple(dict.fromkeys(named))


def _read(broker: MemoryBroker, topic: str) -> Iterator[Record]:
    """Records with the times at which they were really appended, whatever leaders' clocks say."""
    for record in broker.records(topic):
        log = broker.log(TopicPartition(topic, record.partition))
        yield record._replace(timestamp=log.appended_ms(record))


def _fused(
    combination: Sequence[Part], parts: Mapping[Part, Sequence[Item]], limit: int
) -> list[str]:
    """Reciprocal rank fusion where no two layers share an item: by rank, then by id."""
    layers: dict[str, list[Item]] = defaultdict(list)
    for part in combination:
        layers[part[0]] += parts[part][:limit]
    ranked = [
        (rank, item.id)
        for items in layers.values()
        for rank, item in enumerate(sorted(items, key=lambda item: (-item.score, item.id)))
    ]
    return [id_ for _, id_ in sorted(ranked)[:limit]]
