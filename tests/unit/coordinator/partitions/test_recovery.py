"""What a takeover makes of any commit and any logs: retention, lost tails, forged offsets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from anabranch.config.settings import Config, CoordinatorConfig, TypeConfig
from anabranch.contract.codec import encode, read_id
from anabranch.contract.events import HEADER_OFFSET, Partial, PartialResult, Query
from anabranch.coordinator.partitions import past_ids
from anabranch.coordinator.partitions.recovery import Recovery, progress_of
from anabranch.coordinator.progress.metadata import encode as encode_progress
from anabranch.coordinator.progress.restored import Restored
from anabranch.coordinator.progress.window import Bounds, Mark, Progress
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.coordinator.wiring import QueryParts
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import LOG_APPEND_TIME, Committed, Headers, Reader, TopicPartition
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.memory.log import Log
from anabranch.testing.virtual_time import EPOCH_MS, run

TOPICS = Topics("anabranch.")
CONFIG = Config(types={"t": TypeConfig(layers=["a"])})
NOW_MS = EPOCH_MS + 1_000.0


class Logs:
    """The three logs of partition 0."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(default_partitions=1)
        self.queries = self._log(TOPICS.queries)
        self.results = self._log(TOPICS.results)
        self.partials = self._log(TOPICS.partials)

    def ask(self, id_: str, age_ms: float = 0.0) -> int:
        value = encode(Query(id_, "t", params={"n": id_}))
        stamp = int(NOW_MS - age_ms)
        return self.queries.append(None, value, (), stamp, LOG_APPEND_TIME)

    def answer(self, id_: str, offset: int | bytes, *more: tuple[str, bytes]) -> None:
        digits = offset if isinstance(offset, bytes) else b"%d" % offset
        headers: Headers = [(HEADER_OFFSET, digits), *more]
        self.results.append(id_.encode(), b"{}", headers, int(NOW_MS), LOG_APPEND_TIME)

    def bring(self, id_: str, offset: int) -> None:
        partial = Partial(id_, offset, "t", "", 20, "", 0, "w", [PartialResult("a")])
        self.partials.append(None, encode(partial), (), int(NOW_MS), LOG_APPEND_TIME)

    def mark(self, offset: int) -> Mark:
        (record,) = self.queries.read(offset, offset + 1)
        return Mark.of(record)

    def take_over(
        self, committed: Committed | None, config: CoordinatorConfig | None = None
    ) -> Restored:
        """As `Takeover` does."""
        claimed = progress_of(committed, self.queries.start, self.queries.stable_end)
        encode_progress(claimed)
        chosen = config or CONFIG.coordinator
        reader = self.broker.transport("c").reader("c")
        parts = QueryParts(structs.replace(CONFIG, coordinator=chosen), lambda: NOW_MS)
        read = run(recovery(parts, reader).read_back({0: claimed}))
        encode_progress(read[0].progress)
        return read[0]

    def work_off(self, restored: Restored) -> tuple[QueryPartition, list[AnswerOut]]:
        """Read all that is left, and answer it: nobody has the layer."""
        now_ms = [NOW_MS]
        parts = QueryParts(CONFIG, lambda: now_ms[0])
        partition = parts.new_partition(0, restored)
        answers = []
        for record in self.queries.read(partition.progress.position, self.queries.end):
            partition.on_query(record, now_ms[0])
        for _ in range(self.queries.end + 1):  # suspects take turns, one a commit
            encode_progress(partition.progress.snapshot())
            partition.on_committed(partition.progress.snapshot(), now_ms[0])
            now_ms[0] += 120_000
            for _, offset in parts.deadlines.pop_due(now_ms[0]):
                partition.on_deadline(offset, now_ms[0])
            out = parts.outbox.take()
            for letter in out.dead_letters:
                if letter.answer is None:  # nobody is told, such as of a repeat
                    partition.on_acked(letter.record.offset, None)
            for answer in [*out.answers, *(d.answer for d in out.dead_letters if d.answer)]:
                answers.append(answer)
                partition.on_acked(answer.offset, self.results.end + len(answers))
        return partition, answers

    def _log(self, topic: str) -> Log:
        return self.broker.log(TopicPartition(topic, 0))


def recovery(parts: QueryParts, reader: Reader) -> Recovery:
    config = parts.config.coordinator
    return Recovery(reader, parts.topics, config, parts.cache_fill, parts.now_ms)


def commit(progress: Progress) -> Committed:
    return Committed(progress.offset, encode_progress(progress)[0])


# ── any commit, any logs ───────────────────────────────────────────────────────────────────

offsets = st.integers(0, 14)
lies = st.one_of(offsets, st.sampled_from([2**31, 2**53, 2**62]))


@st.composite
def logs(draw: st.DrawFn) -> Logs:
    made = Logs()
    for n in range(draw(offsets)):
        made.ask(f"q{n}" if draw(st.booleans()) else draw(st.sampled_from(["x", "y"])))
    for offset in draw(st.lists(lies, max_size=6)):
        found = [read_id(r.value) for r in made.queries.read(offset, offset + 1)]
        id_ = draw(st.sampled_from([*found, "x", "another"]))
        made.answer(str(id_), offset)
    for offset in draw(st.lists(lies, max_size=4)):
        made.bring("x", offset)
    for digits in draw(st.lists(st.sampled_from([b"", b"-1", b"x", b"9" * 5_000]), max_size=2)):
        made.answer("x", digits)
    for log in (made.queries, made.results, made.partials):
        log.delete_before(draw(st.one_of(st.just(0), offsets)))
    return made


@st.composite
def commits(draw: st.DrawFn, made: Logs) -> Committed | None:
    kind = draw(st.sampled_from(["none", "garbage", "progress"]))
    if kind == "none":
        return None
    at = draw(lies)
    if kind == "garbage":
        return Committed(at, draw(st.text(max_size=50)))
    held = range(made.queries.start, made.queries.end)
    marks = [Mark(draw(lies), 7), None, *([made.mark(draw(st.sampled_from(held)))] if held else [])]
    progress = Progress(
        at,
        tuple(sorted(at + n for n in draw(st.sets(offsets, max_size=5)))),
        Bounds(draw(lies), draw(lies)),
        draw(lies),
        draw(offsets),
        draw(st.none() | lies),
        draw(offsets),
        draw(st.sampled_from(marks)),
        draw(st.integers(-(2**40), 2**40)),
    )
    return commit(progress)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_is_committed_and_held_what_is_unanswered_is_answered_once(
    data: st.DataObject,
) -> None:
    made = data.draw(logs())
    committed = data.draw(commits(made))
    restored = made.take_over(committed)
    progress = restored.progress
    before = {id_ for id_, *_ in restored.ids(NOW_MS)}
    assert made.queries.start <= progress.offset
    assert all(progress.offset <= done < made.queries.end for done in progress.completed)
    partition, answers = made.work_off(restored)
    assert partition.progress.position >= made.queries.end
    assert partition.progress.open_count == 0, "silence"
    answered = {
        (int(value), record.key)
        for record in made.results.read(0, made.results.end)
        for _, value in record.headers
        if len(value) < 20 and value.isdigit()
    }
    given_ = Counter((answer.offset, answer.key) for answer in answers)
    assert max(given_.values(), default=1) == 1
    for record in made.queries.read(progress.offset, made.queries.end):
        id_ = read_id(record.value)
        place = (record.offset, str(id_).encode())
        is_owed = record.offset not in progress.completed and id_ not in before
        before.add(id_)  # of what was done before too: what follows it is a repeat
        if not is_owed:
            continue
        assert (place in given_) or (place in answered), "neither answered before nor now"


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_lies_about_offsets_freeze_no_bounds(data: st.DataObject) -> None:
    made = data.draw(logs())
    partition, _ = made.work_off(made.take_over(data.draw(commits(made))))
    partition.on_acked(made.ask("later"), made.results.end + 40)
    for record in made.queries.read(partition.progress.position, made.queries.end):
        partition.on_query(record, NOW_MS)
    bounds = partition.progress.snapshot().bounds
    assert bounds is not None
    assert bounds.results > made.results.end


# ── what Kafka does to a log ───────────────────────────────────────────────────────────────


def filled(count: int, **fields: Any) -> tuple[Logs, Progress]:
    """So many queries, all read; those from 5 on are open, but for 7."""
    made = Logs()
    for n in range(count):
        made.ask(f"q{n}")
    mark = made.mark(count - 1)
    return made, Progress(5, (7,), Bounds(), 3, mark=mark, **fields)


def answered(made: Logs, progress: Progress) -> list[int]:
    return [answer.offset for answer in made.work_off(made.take_over(commit(progress)))[1]]


def test_what_is_done_is_not_answered_again() -> None:
    assert answered(*filled(10)) == [5, 6, 8, 9]


def test_retention_beyond_the_watermark() -> None:
    made, progress = filled(10, trial=5, trials=2)
    made.queries.delete_before(8)
    assert answered(made, progress) == [8, 9]
    assert made.take_over(commit(progress)).progress.trial is None


def test_retention_beyond_what_was_read() -> None:
    made, progress = filled(10)
    made.queries.delete_before(10)
    made.ask("later")
    assert answered(made, progress) == [10]


def test_a_log_that_lost_its_tail_is_read_anew() -> None:
    made, progress = filled(10)
    made.answer("q6", 6)
    made.queries.truncate(7)
    assert answered(made, progress) == [0, 1, 2, 3, 4, 5]


def test_a_log_that_lost_its_tail_and_grew_again_is_known_by_its_last_record() -> None:
    """Else what is new at an offset that was done before would never be answered, silently."""
    made, progress = filled(10)
    for n in range(10):
        made.answer(f"q{n}", n)
    made.queries.truncate(3)
    for n in range(3, 20):
        made.ask(f"new{n}")
    assert answered(made, progress) == list(range(3, 20))


def test_a_log_whose_mark_is_gone_by_retention_is_believed() -> None:
    made, progress = filled(10)
    made.queries.delete_before(10)
    made.ask("later")
    assert made.take_over(commit(progress)).progress.mark == progress.mark


def test_results_that_lost_their_tail_are_read_whole() -> None:
    made, progress = filled(10)
    made.answer("q6", 6)
    far = Progress(5, (7,), Bounds(1_000, 1_000), 3, mark=progress.mark)
    restored = made.take_over(commit(far))
    assert restored.bounds_at(5) == Bounds(1, 0), "present ends: what comes lies beyond"
    assert [a.offset for a in made.work_off(restored)[1]] == [5, 8, 9]


@pytest.mark.parametrize("read", [5, 6, 10], ids=["none open", "one open", "all open"])
def test_results_that_lose_their_tail_while_they_are_written_lower_the_bounds(read: int) -> None:
    """Else the next takeover would look for what comes now beyond where it lies."""
    made, progress = filled(10)
    for n in range(20):
        made.answer("x", 100 + n)
    before = structs.replace(progress, bounds=Bounds(20, 0))
    parts = QueryParts(CONFIG, lambda: NOW_MS)
    partition = parts.new_partition(0, made.take_over(commit(before)))
    for record in made.queries.read(partition.progress.position, read):
        partition.on_query(record, NOW_MS)
    assert partition.progress.snapshot().bounds == Bounds(20, 0)
    made.results.truncate(4)
    partition.on_acked(9, 4)
    assert partition.progress.snapshot().bounds == Bounds(5, 0)


def test_reading_back_ends_where_a_log_ends_meanwhile() -> None:
    made, progress = filled(10)
    for n in range(10):
        made.answer(f"q{n}", n)

    async def scenario() -> dict[int, Restored]:
        reader = made.broker.transport("c").reader("c")
        ends = reader.ends

        async def then_lose_them(partitions: Any) -> Any:
            found = await ends(partitions)
            made.results.truncate(0)
            return found

        reader.ends = then_lose_them  # type: ignore[method-assign]
        async with asyncio.timeout(60):
            parts = QueryParts(CONFIG, lambda: NOW_MS)
            return await recovery(parts, reader).read_back({0: progress})

    assert not list(run(scenario())[0].ids(NOW_MS))[5:]


# ── ids come back ──────────────────────────────────────────────────────────────────────────


def past(made: Logs, config: CoordinatorConfig | None = None) -> Sequence[str]:
    """Ids below the watermark, all of the log being done."""
    end = made.queries.end
    progress = Progress(end, mark=made.mark(end - 1))
    return [past.id for past in made.take_over(commit(progress), config).ids(NOW_MS)]


def test_a_repeat_of_what_was_done_before_a_takeover_is_a_repeat() -> None:
    made, _ = filled(10)
    progress = Progress(10, mark=made.mark(9))
    made.ask("q0")
    made.ask("q9")
    made.ask("new")
    assert answered(made, progress) == [12]


def test_ids_come_back_as_far_as_the_window_goes() -> None:
    made = Logs()
    for n in range(3_000):
        made.ask(f"q{n}", age_ms=3_000 - n)
    assert past(made) == [f"q{n}" for n in range(3_000)]
    short = CoordinatorConfig(dedupe_window_ms=1_000)
    assert past(made, short) == [f"q{n}" for n in range(2_001, 3_000)]


def test_a_repeat_is_known_though_its_first_is_gone() -> None:
    """A repeat above the watermark is done without an answer of its own."""
    made = Logs()
    for id_ in ("twice", "open", "twice"):
        made.ask(id_)
    progress = Progress(1, completed=(2,), bounds=Bounds(1, 0), mark=made.mark(2))
    made.queries.delete_before(1)
    made.ask("twice")
    assert answered(made, progress) == [1]


WINDOW_MS = CONFIG.coordinator.dedupe_window_ms


@given(
    ages_ms=st.lists(st.integers(0, 3 * WINDOW_MS), min_size=1, max_size=60),
    ahead_ms=st.sampled_from([-10 * WINDOW_MS, 0, 10 * WINDOW_MS]),
    share=st.floats(0, 1),
)
@settings(deadline=None)
def test_no_id_is_forgotten_because_leaders_differ(
    ages_ms: list[int], ahead_ms: int, share: float
) -> None:
    """The last leader's clock is off, and known to be: those before it may have had the time."""
    made, ages_ms = Logs(), sorted(ages_ms, reverse=True)
    changed = round(share * len(ages_ms))
    for n, age_ms in enumerate(ages_ms):
        made.ask(f"q{n}", age_ms - (ahead_ms if n >= changed else 0))
    end = made.queries.end
    progress = Progress(end, mark=made.mark(end - 1), stamps_ms=-ahead_ms)
    back = {past.id for past in made.take_over(commit(progress)).ids(NOW_MS)}
    recent = {f"q{n}" for n, age_ms in enumerate(ages_ms) if age_ms < WINDOW_MS}
    assert recent <= back
    if not ahead_ms:
        assert back == recent


def test_ids_from_before_a_leader_that_was_behind_come_back() -> None:
    made = Logs()
    for n in range(10):
        made.ask(f"q{n}", 2_000 - n)
    for n in range(10, 15):
        made.ask(f"q{n}", 2_000 - n + 10 * WINDOW_MS)
    made.ask("last", 0)
    assert past(made) == [*(f"q{n}" for n in range(15)), "last"]


def test_as_many_ids_come_back_as_are_remembered() -> None:
    made = Logs()
    for n in range(3_000):
        made.ask(f"q{n}")
    few = CoordinatorConfig(dedupe_max_ids=700)
    assert past(made, few) == [f"q{n}" for n in range(2_300, 3_000)]


def test_ids_come_back_as_far_as_the_bytes_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest first, and never many more bytes than that: junk of a megabyte is no backlog."""
    monkeypatch.setattr(past_ids, "MAX_BYTES", 100_000)
    made = Logs()
    for n in range(3_000):
        made.ask(f"q{n}")
    ids = past(made)
    size = sum(len(r.value or b"") for r in made.queries.read(3_000 - len(ids), 3_000))
    assert 90_000 < size < 110_000
    assert ids[-1] == "q2999"
