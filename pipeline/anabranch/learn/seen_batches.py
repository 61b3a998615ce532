"""Which batches of telemetry were counted already."""

from __future__ import annotations

from typing import Final

__all__ = ["SeenBatches"]

WINDOW: Final = 1_024
"""How far behind an instance's latest a batch may be and still count."""
MAX_INSTANCES: Final = 4_096


class SeenBatches:
    """Says of each (instance, sequence) once that it is new, in bounded memory."""

    def __init__(self) -> None:
        self._seen: dict[str, set[int]] = {}

    def first_time(self, instance: str, sequence: int) -> bool:
        """Whether this batch is new; from then on it is not."""
        seen = self._seen.pop(instance, None)
        if seen is None:
            seen = set()
            if len(self._seen) >= MAX_INSTANCES:
                del self._seen[next(iter(self._seen))]
        self._seen[instance] = seen
        if sequence in seen or (seen and sequence <= max(seen) - WINDOW):
            return False
        seen.add(sequence)
        if len(seen) > WINDOW:
            seen.discard(min(seen))
        return True
