"""The result of a layer that gave nothing, as whoever noticed it says so."""

from __future__ import annotations

from typing import Final, Literal

from anabranch.contract.events import PartialResult, TaskLayer

__all__ = ["MAX_ERROR_CHARS", "failed"]

MAX_ERROR_CHARS: Final = 500


def failed(
    slot: TaskLayer | PartialResult,
    status: Literal["timeout", "error", "expired", "skipped"],
    error: str,
    *,
    transient: bool = False,
) -> PartialResult:
    """A result without items for that slot and attempt; of a long error its beginning."""
    return PartialResult(
        layer=slot.layer,
        shard=slot.shard,
        shards=slot.shards,
        attempt=slot.attempt,
        status=status,
        error=error[:MAX_ERROR_CHARS],
        transient=transient,
    )
