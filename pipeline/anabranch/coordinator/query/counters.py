"""What happened, as plain integers."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Counters"]


class Counters(Struct):
    """Of one coordinator, since its start; a part of its record on `health`."""

    queries: int = 0
    answered: int = 0
    rejected: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    late_partials: int = 0
    replies_lost: int = 0
    answers_refused: int = 0
    tasks_refused: int = 0
    letters_lost: int = 0
    takeovers: int = 0
    window_full: int = 0
    telemetry_lost: int = 0
    open_full: int = 0
