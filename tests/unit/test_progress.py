"""The commit's metadata and the window it is taken from."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.kafka.progress import (
    MAX_METADATA_BYTES,
    Bounds,
    Progress,
    Window,
    decode,
    encode,
)

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
