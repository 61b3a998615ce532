"""Sums that commute: any order of the same additions is the same cell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.learn.decayed_sums import KEEP, MAX_LABELS, Cell, Cells

Additions = list[tuple[int, str, tuple[int, int]]]

additions = st.lists(
    st.tuples(
        st.integers(0, 60),
        st.sampled_from("xyz"),
        st.tuples(st.integers(1, 5), st.integers(-1_000, 1_000)),
    ),
    max_size=80,
)


def filled(found: Additions, gamma: float = 0.9) -> Cell:
    cell = Cell(gamma)
    for bucket, label, values in found:
        cell.add(bucket, label, values)
    return cell


@given(found=additions, data=st.data())
def test_the_order_of_additions_does_not_matter(found: Additions, data: st.DataObject) -> None:
    order = data.draw(st.permutations(found))
    assert filled(found).read() == filled(order).read()


@given(found=additions, set_back=st.integers(0, 80))
def test_reading_in_between_changes_nothing(found: Additions, set_back: int) -> None:
    cell, unread = Cell(0.9), Cell(0.9)
    for n, (bucket, label, values) in enumerate(found):
        for one in (cell, unread):
            one.add(bucket, label, values)
            if n == set_back:
                one.forget_after(bucket // 2)
        cell.read()
    assert cell.read() == unread.read()
    assert cell.newest == unread.newest


@given(found=additions)
def test_a_bucket_counts_by_gamma_to_the_power_of_the_updates_after_it(found: Additions) -> None:
    newest = set(sorted({bucket for bucket, *_ in found})[-KEEP:])
    expected: dict[str, list[float]] = {}
    for bucket, label, values in found:
        if bucket in newest:
            later = sum(other[0] for at, _, other in found if at > bucket)
            row = expected.setdefault(label, [0.0, 0.0])
            row[0] += 0.9**later * values[0]
            row[1] += 0.9**later * values[1]
    read = filled(found).read()
    assert set(read) == set(expected)
    for label, row in expected.items():
        assert read[label] == pytest.approx(row)


def test_updates_of_one_label_make_the_others_count_less() -> None:
    cell = filled([(0, "x", (1, 8)), (1, "y", (1, 8)), (2, "y", (1, 8))], gamma=0.5)
    assert cell.row("x") == [0.25, 2.0]


def test_within_a_bucket_nothing_is_forgotten() -> None:
    cell = filled([(0, "x", (1, 8))] * 100, gamma=0.5)
    assert cell.row("x") == [100, 800]


def test_only_the_newest_buckets_are_kept() -> None:
    cell = filled([(bucket, "x", (1, 0)) for bucket in range(100)], gamma=1.0)
    assert list(cell.by_bucket("x")) == list(range(100 - KEEP, 100))


def test_a_bucket_older_than_all_that_are_kept_does_not_come_back() -> None:
    cell = filled([(bucket, "x", (1, 0)) for bucket in range(100)], gamma=1.0)
    cell.add(3, "x", (1, 0))
    assert cell.row("x")[0] == KEEP


def test_a_label_nobody_updated_has_no_row() -> None:
    assert not filled([(0, "x", (1, 1))]).row("y")


def test_labels_are_bounded() -> None:
    cell = filled([(0, f"l{number}", (1, 1)) for number in range(2 * MAX_LABELS)])
    assert len(cell.read()) == MAX_LABELS


def test_cells_beyond_the_limit_replace_those_longest_without_an_update() -> None:
    cells: Cells[str] = Cells(1.0, 8)
    for number in range(9):
        cells.add(f"k{number}", number, "x", (1, 1))
    assert "k0" not in cells.keys
    assert "k8" in cells.keys
    assert len(cells) <= 8


def test_a_cell_that_is_updated_outlives_younger_ones() -> None:
    cells: Cells[str] = Cells(1.0, 8)
    for number in range(8):
        cells.add(f"k{number}", number, "x", (1, 1))
    cells.add("k0", 99, "x", (1, 1))
    cells.add("new", 100, "x", (1, 1))
    assert "k0" in cells.keys
