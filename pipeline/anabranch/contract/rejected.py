"""What a client raises when the pipeline answers with an error."""

from __future__ import annotations

from anabranch.contract.events import Answer
from anabranch.errors import AnabranchError

__all__ = ["QueryRejected"]


class QueryRejected(AnabranchError):
    """The pipeline answered with an error instead of items.

    Attributes:
        code: one of the contract's codes, e.g. `invalid_query` or `unavailable`.
        answer: the event that said so; None if it was not even asked.
    """

    def __init__(self, code: str, message: str, answer: Answer | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.answer = answer
