"""What may be asked: the params of a question, checked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from anabranch import LayerError

__all__ = ["Question", "read_question"]


class Question(Struct, frozen=True):
    """`text` is searched for; the others narrow it down.

    Attributes:
        since: an ISO 8601 date or time (UTC unless it says otherwise): not older than this.
        author: part of a name or e-mail address, in any case.
        path: a path in the repository, its beginning, or a part of it from a folder's name on.
    """

    text: Annotated[str, Meta(max_length=2_000)]
    since: str | None = None
    author: str | None = None
    path: str | None = None

    @property
    def filters(self) -> dict[str, object]:
        """What narrows a search down, as arguments of its conditions.

        Raises:
            LayerError: `since` is no ISO 8601 date.
        """
        path = self.path.removeprefix("./").lstrip("/") if self.path else None
        return {"since": self._since_s(), "author": self.author or None, "path": path or None}

    def _since_s(self) -> int | None:
        if not self.since:
            return None
        try:
            moment = datetime.fromisoformat(self.since)
        except ValueError:
            raise LayerError(
                f"params.since: {self.since!r} is no date; write one like 2025-01-31"
            ) from None
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def read_question(params: dict[str, Any]) -> Question:
    """The params that concern these layers; others are left to other layers.

    Raises:
        LayerError: `text` is missing, or a param is of the wrong type.
    """
    try:
        return msgspec.convert(params, Question)
    except msgspec.ValidationError as error:
        raise LayerError(f"params: {error}") from error
