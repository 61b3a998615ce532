"""What layers raise without meaning to: operators are told, readers of answers are not.

A `LayerError` says what its layer wants everybody to know. Any other error may hold whatever it
was about (an address, a row, a secret), so it stays here.
"""

from __future__ import annotations

import logging
import traceback
from typing import Final

import msgspec

from anabranch.contract.bounds import remember
from anabranch.errors import LayerError
from anabranch.kafka.dead_letters import stack_digest

__all__ = ["ErrorLog"]

log = logging.getLogger(__name__)

MAX_KINDS: Final = 1_000
"""Kinds that are counted; of more, those that came first are forgotten, and told anew."""
MAX_STACK_CHARS: Final = 8_000
_ASKED_WRONG: Final = (msgspec.ValidationError, UnicodeError)


class ErrorLog:
    """Logs each kind (layer, error and place) with its stack once, then at 10, 100, 1,000..."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}

    def write_cause(self, layer: str, error: LayerError) -> None:
        """Tell operators what a layer's own error came from, if it was no question."""
        if isinstance(error.__cause__, Exception) and not isinstance(error.__cause__, _ASKED_WRONG):
            self.write(layer, error)

    def write(self, layer: str, error: BaseException) -> str:
        """Tell operators; returns what everybody may know."""
        kind = layer, stack_digest(error)
        count = self._counts.get(kind, 0) + 1
        remember(self._counts, kind, count, MAX_KINDS)
        name = type(error).__name__
        if count == 1:
            stack = "".join(traceback.format_exception(error))[-MAX_STACK_CHARS:]
            log.error("layer %s raised %s:\n%s", layer, name, stack)
        elif set(str(count)[1:]) <= {"0"} and str(count)[0] == "1":
            log.error("layer %s has raised %s %s times (%s)", layer, name, f"{count:,}", kind[1])
        return f"the layer raised {name}; the log of its worker says more"
