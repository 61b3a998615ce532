"""The one answer of a query, as bytes, and what is learned and kept of it."""

from __future__ import annotations

from anabranch.contract.events import Answer
from anabranch.coordinator.query.answering import Composer, attributes, encode_bounded
from anabranch.coordinator.query.cache_fill import CacheFill
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.open_query import OpenQuery
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.coordinator.query.telemetry_record import telemetry_record
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector

__all__ = ["AnswerWriter"]


class AnswerWriter:
    """Makes the answer of a query whose join is over."""

    def __init__(
        self, composer: Composer, cache_fill: CacheFill, selector: AdaptiveStrategySelector
    ) -> None:
        self._composer = composer
        self._cache_fill = cache_fill
        self._selector = selector

    def write(self, open_query: OpenQuery, claim: Claim, now_ms: float) -> AnswerOut:
        """The answer, to be sent; all that can fail of it happens here."""
        answer = self._composer.compose(open_query, epoch=claim.epoch, now_ms=now_ms)
        out = AnswerOut(
            claim,
            open_query.offset,
            open_query.query.id.encode(),
            encode_bounded(answer),
            open_query.headers,
            open_query.query.reply_to,
        )
        self._cache_fill.memoise(open_query, answer)
        self._learn(open_query, answer, now_ms)
        open_query.trace.set(attributes(answer, open_query.join))
        open_query.trace.end(answer.error.message if answer.error else None)
        return out

    def _learn(self, open_query: OpenQuery, answer: Answer, now_ms: float) -> None:
        speedups = self._selector.telemetry.speedups
        learned = telemetry_record(open_query, answer, now_ms, speedups)
        if learned is not None:
            self._selector.observe(learned)
