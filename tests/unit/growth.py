"""How the cost of something grows with its input: a ratio, whatever the machine is at just now."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["grows_too_fast"]

_SIZES = (200, 1_500)
"""Units in the shorter of two inputs; the longer has four times as many. The first pair is a
quick look, the second decides: bounded repetitions look quadratic up to their bound."""
_TIMES = 4
_LINEAR = 9.0
"""Between 4, which is linear, and 16, which is quadratic."""
_CALL_NS = 10_000
"""What measuring costs by itself."""


def grows_too_fast(work: Callable[[int], Callable[[], object]]) -> bool:
    """Whether four times the input costs much more than four times the CPU.

    Args:
        work: makes, for a size, what is to be measured.
    """
    return all(_ratio(work(size), work(_TIMES * size)) > _LINEAR for size in _SIZES)


def _ratio(small: Callable[[], object], large: Callable[[], object]) -> float:
    """By the least of several runs of each, since nothing makes a run cheaper than it is."""
    best_small = best_large = 2**62
    for _ in range(5):
        best_small = min(best_small, _cost(small), _cost(small))
        best_large = min(best_large, _cost(large))
        if best_large <= _LINEAR * best_small:
            break
    return best_large / best_small


def _cost(work: Callable[[], object]) -> int:
    start = time.thread_time_ns()
    work()
    return time.thread_time_ns() - start + _CALL_NS
