"""Answers of one partition, as records on `results`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.kafka.transport import Outcome, Producer, ProducerRecord

__all__ = ["hand_over"]


async def hand_over(
    producer: Producer, results: str, claim: Claim, answers: Sequence[AnswerOut]
) -> asyncio.Future[Sequence[Outcome]]:
    """Send them as one batch; what became of each, once the broker has said so."""
    records = [ProducerRecord(out.value, out.key, out.headers) for out in answers]
    return await producer.send_batch(results, claim.number, records)
