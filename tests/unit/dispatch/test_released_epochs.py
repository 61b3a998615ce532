"""The last words of coordinators: a true one is not hidden by what somebody invents."""

from __future__ import annotations

import pytest

from anabranch.contract.bounds import MAX_INT
from anabranch.dispatch.released_epochs import MAX_EPOCHS, ReleasedEpochs


@pytest.mark.parametrize("true_first", [True, False])
def test_an_invented_epoch_does_not_hide_a_true_one(true_first: bool) -> None:
    released = ReleasedEpochs()
    for epoch in (7, MAX_INT) if true_first else (MAX_INT, 7):
        released.add(3, epoch)
    assert released.has(3, 7)
    assert not released.has(3, 8)
    assert not released.has(4, 7)


def test_of_a_partition_the_latest_words_count() -> None:
    released = ReleasedEpochs()
    for epoch in range(MAX_EPOCHS + 1):
        released.add(3, epoch)
        released.add(3, epoch)
    assert [epoch for epoch in range(MAX_EPOCHS + 1) if not released.has(3, epoch)] == [0]
