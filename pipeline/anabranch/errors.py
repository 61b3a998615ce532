"""Every error that Anabranch raises, in one tree.

AnabranchError
├── ConfigError            a setting is wrong: names the file, the key and the fix
├── DecodeError            bytes that are not the event they should be
├── LayerError             a layer failed; `transient` says whether asking again may help
│   └── LayerTimeout       a layer did not answer before its deadline
├── BrokerError            the broker refused or cannot be reached
│   ├── BrokerUnavailable  nobody answers at the bootstrap address
│   ├── TopicError         a topic is missing or is not as it must be
│   │   └── TopicsOnFirstUse  this broker makes topics when they are asked for, not on request
│   ├── ProduceError       a record was not acknowledged
│   │   └── RecordRefused   the broker does not take this record, but others
│   ├── ProducerFenced     somebody else uses this transactional id now
│   └── GenerationLost     the consumer group goes on without this member
├── QueryRejected          the pipeline answered with an error (in contract.rejected)
├── QueryTimeout           no answer came before the client stopped waiting
└── StageFailed            a background stage died or got stuck: the process must end
"""

from __future__ import annotations

__all__ = [
    "AnabranchError",
    "BrokerError",
    "BrokerUnavailable",
    "ConfigError",
    "DecodeError",
    "GenerationLost",
    "LayerError",
    "LayerTimeout",
    "ProduceError",
    "ProducerFenced",
    "QueryTimeout",
    "RecordRefused",
    "StageFailed",
    "TopicError",
    "TopicsOnFirstUse",
]


class AnabranchError(Exception):
    """Base of all errors raised on purpose by Anabranch."""


class ConfigError(AnabranchError):
    """A setting is wrong. The message names where it stands, what is wrong and what to write."""


class DecodeError(AnabranchError):
    """Bytes are not the event they should be.

    Attributes:
        query_id: the id that could still be read from them, or None.
    """

    def __init__(self, message: str, query_id: str | None = None) -> None:
        super().__init__(message)
        self.query_id = query_id


class LayerError(AnabranchError):
    """A layer could not answer.

    Attributes:
        transient: True if the same request may succeed a moment later.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class LayerTimeout(LayerError):
    """A layer did not answer before its deadline."""


class BrokerError(AnabranchError):
    """The broker refused a request or cannot be reached."""


class BrokerUnavailable(BrokerError):
    """Nobody answers, or not now (a leader is sought, a group is on the move): try again."""


class TopicError(BrokerError):
    """A topic is missing, or its partitions or settings are not what Anabranch needs."""


class TopicsOnFirstUse(TopicError):
    """This broker (the embedded one) makes topics when they are first used, not on request."""


class ProduceError(BrokerError):
    """A record was not acknowledged; with idempotence its partition cannot be used further."""


class RecordRefused(ProduceError):
    """The broker does not take this record, now or later (it is too large, say); others it does."""


class ProducerFenced(BrokerError):
    """Somebody else uses this transactional id now, or the broker aborted what we left open."""


class GenerationLost(BrokerError):
    """The consumer group goes on without this member; what it holds belongs to others now."""


class QueryTimeout(AnabranchError):
    """No answer came before the client stopped waiting."""


class StageFailed(AnabranchError):
    """A background stage died or got stuck; the process or the `async with` body must end."""
