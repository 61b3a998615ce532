"""The one answer of a query, as bytes, and what is learned and kept of it."""

from __future__ import annotations

from anabranch.contract.events import Answer
from anabranch.coordinator.query.answering import Composer, attributes, encode_bounded
from anabranch.coordinator.query.cached_answer import CachedAnswers
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.open_query import OpenQuery
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.coordinator.query.telemetry_record import telemetry_record
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector

__all__ = ["AnswerWriter"]


class AnswerWriter:
    """Makes the answer of a query whose join is over."""

    def __init__(
        self, composer: Composer, cached: CachedAnswers, selector: AdaptiveStrategySelector
    ) -> None:
        self._composer = composer
        self._cached = cached
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
        self._cached.remember(open_query, answer)
        self._learn(open_query, answer, now_ms)
        if open_query.trace.is_recorded:
            open_query.trace.set(attributes(answer, _shared(open_query)))
        open_query.trace.end(answer.error.message if answer.error else None)
        return out

    def _learn(self, open_query: OpenQuery, answer: Answer, now_ms: float) -> None:
        learned = telemetry_record(open_query, answer, now_ms)
        if learned is not None:
            self._selector.observe(learned)


def _shared(open_query: OpenQuery) -> str:
    """Layers that another query fetched: they have no span here, so they are named."""
    return ", ".join(name for name, layer in open_query.join.layers.items() if layer.shared)
