"""The commit's metadata and the window it is taken from."""

from __future__ import annotations

from base64 import b64encode
from random import Random
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.coordinator.progress.metadata import MAX_METADATA_BYTES, decode, encode
from anabranch.coordinator.progress.window import Bounds, Mark, Progress, Window

offsets = st.integers(0, 2**40)


@st.composite
def progresses(draw: st.DrawFn, max_size: int = 300, spread: int = 5_000) -> Progress:
    watermark = draw(offsets)
    done = draw(st.sets(st.integers(watermark, watermark + spread), max_size=max_size))
    return Progress(
        watermark,
        tuple(sorted(done)),
        Bounds(draw(offsets), draw(offsets)),
        draw(st.integers(0, 2**31)),
        draw(st.integers(0, 100)),
        draw(st.none() | offsets),
        draw(st.integers(0, 3)),
        draw(st.none() | st.builds(Mark, offsets, st.integers(0, 2**32 - 1))),
        draw(st.integers(-(2**40), 2**40)),
        draw(st.integers(1, 20_000)),
    )


@given(progresses())
def test_what_fits_is_read_back_as_written(progress: Progress) -> None:
    metadata, whole = encode(progress)
    assert whole
    assert decode(progress.offset, metadata) == progress


@settings(max_examples=25, deadline=None)
@given(progresses(max_size=3_000, spread=2**30))
def test_metadata_never_exceeds_the_brokers_bound(progress: Progress) -> None:
    metadata, whole = encode(progress)
    assert len(metadata.encode()) <= MAX_METADATA_BYTES
    back = decode(progress.offset, metadata)
    assert back.completed == progress.completed[: len(back.completed)]
    assert whole == (back.completed == progress.completed)
    assert (back.bounds, back.epoch) == (progress.bounds, progress.epoch)


def test_alternating_offsets_of_a_long_window_fit_as_a_bitmap() -> None:
    progress = Progress(1_000, tuple(range(1_001, 24_000, 2)), Bounds(1, 2), 3)
    metadata, whole = encode(progress)
    assert whole
    assert decode(1_000, metadata) == progress


def test_one_long_run_is_a_few_bytes() -> None:
    metadata, whole = encode(Progress(5, tuple(range(6, 100_006)), Bounds(1, 2), 3))
    assert whole
    assert len(metadata) < 32


@given(progresses(), st.data())
def test_damaged_metadata_falls_back_to_the_watermark(
    progress: Progress, data: st.DataObject
) -> None:
    metadata, _ = encode(progress)
    at = data.draw(st.integers(0, len(metadata) - 1))
    other = data.draw(st.sampled_from("ABCabc019+/=~é").filter(lambda c: c != metadata[at]))
    damaged = metadata[:at] + other + metadata[at + 1 :]
    assert decode(progress.offset, damaged) == Progress(progress.offset)


@given(st.integers(0, 2**40), st.text(max_size=200))
def test_foreign_metadata_falls_back_to_the_watermark(offset: int, text: str) -> None:
    assert decode(offset, text) == Progress(offset)


@given(st.lists(st.booleans(), max_size=60), st.randoms())
def test_the_watermark_is_the_lowest_open_offset_else_the_position(
    gaps: list[bool], random: Random
) -> None:
    window, opened, offset = Window(0), [], 0
    for gap in gaps:
        offset += 2 if gap else 1
        window.open(offset, Bounds(offset, offset))
        opened.append(offset)
    random.shuffle(opened)
    while opened:
        assert window.watermark == min(opened)
        done = opened.pop()
        window.complete(done)
        snapshot = window.snapshot(Bounds())
        assert all(o > snapshot.offset for o in snapshot.completed)
        assert not set(snapshot.completed) & set(opened)
        assert snapshot.bounds == (Bounds(min(opened), min(opened)) if opened else Bounds())
    assert window.watermark == window.position


def test_a_commit_of_the_last_release_is_read() -> None:
    written = "1CQIIAgMEATK/EWOV"
    assert decode(5, written) == Progress(5, (6, 9, 10), Bounds(3, 4), 9, 2, 7, 2)


def test_what_cannot_be_written_is_an_error_and_no_endless_loop() -> None:
    with pytest.raises(ValueError, match="-1 does not go into a commit"):
        encode(Progress(6, (5,)))


@pytest.mark.parametrize(
    "numbers",
    [
        [2**64] + [0] * 9,  # a number that was never written
        [0] * 9 + [0, 0, 2**40],  # runs that would fill the memory
        [0] * 9 + [0] + [0, 2**20] * 3,
    ],
)
def test_a_commit_that_was_made_to_hurt_falls_back_to_the_watermark(numbers: list[int]) -> None:
    payload = b"".join(map(varint, numbers))
    payload += crc32(payload).to_bytes(4, "big")
    assert decode(5, "2" + b64encode(payload).decode().rstrip("=")) == Progress(5)


def varint(number: int) -> bytes:
    more, low = number >> 7, number & 0x7F
    return bytes([low | 0x80]) + varint(more) if more else bytes([low])
