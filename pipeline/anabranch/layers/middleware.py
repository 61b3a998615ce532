"""Wrappers round a layer, folded from one list: the first in the list sees a request first.

The built-in ones (time and size bounds) and a user's own use the same mechanism.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anabranch.errors import ConfigError
from anabranch.layers.api import Ask, LayerSpec

__all__ = ["Wrapper", "fold"]

Wrapper = Callable[[LayerSpec, Ask], Ask]
"""Given a layer's settings and what lies inside, gives what lies around it."""


def fold(wrappers: Sequence[Wrapper], spec: LayerSpec, innermost: Ask) -> Ask:
    """Wrap `innermost` so that `wrappers[0]` is outermost.

    Raises:
        ConfigError: a wrapper gave something that cannot be called.
    """
    ask = innermost
    for wrap in reversed(wrappers):
        ask = wrap(spec, ask)
        if not callable(ask):
            raise ConfigError(
                f"layers.{spec.layer.name}: the wrapper {getattr(wrap, '__name__', wrap)!r} gave "
                f"{type(ask).__name__}; a wrapper returns an async function of a Request"
            )
    return ask
