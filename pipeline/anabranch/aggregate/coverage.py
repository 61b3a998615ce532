"""When an answer may go out although layers are still outstanding."""

from __future__ import annotations

import math

__all__ = ["enough", "patience_ms"]

MAX_PATIENCE = 0.5
"""Share of the remaining time that is waited at most once there is enough."""


def enough(ok: int, wanted: int, min_coverage: float) -> bool:
    """True once `min_coverage` of the `wanted` layers, and at least one, are `ok`.

    Products like 0.1 * 30 come out a little above the integer they mean: hence the tolerance.
    """
    return ok >= max(1, math.ceil(min_coverage * wanted - 1e-9))


def patience_ms(ok: int, wanted: int, min_coverage: float, remaining_ms: float) -> float:
    """How much longer to wait for the layers outstanding, once there is `enough`.

    A share of the remaining time that grows with what is still to be gained: half of it when
    coverage has only just been reached, nothing when all are there. It is asked anew after
    every result. After Vespa's adaptive coverage (its `min-wait-after-coverage-factor` and
    `max-wait-after-coverage-factor`).
    """
    if ok >= wanted:
        return 0.0
    needed = max(1, math.ceil(min_coverage * wanted - 1e-9))
    to_gain = (wanted - ok) / max(1, wanted - needed)
    return max(0.0, remaining_ms) * MAX_PATIENCE * min(1.0, to_gain)
