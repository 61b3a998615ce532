"""Wrappers round a layer, folded from one list: the first in the list sees a request first.

The built-in ones (timeout, size bound) and a user's own use the same mechanism.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anabranch.layers import Ask, LayerSpec

__all__ = ["Wrapper", "fold"]

Wrapper = Callable[[LayerSpec, Ask], Ask]
"""Given a layer's settings and what lies inside, gives what lies around it."""


def fold(wrappers: Sequence[Wrapper], spec: LayerSpec, innermost: Ask) -> Ask:
    """Wrap `innermost` so that `wrappers[0]` is outermost."""
    ask = innermost
    for wrap in reversed(wrappers):
        ask = wrap(spec, ask)
    return ask
