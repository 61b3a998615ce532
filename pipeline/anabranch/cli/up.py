"""`anabranch up`: the whole pipeline in one process."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from anabranch.cli import runtime
from anabranch.cli.common import COMMON, Common, give_up, note, observe, out, serve
from anabranch.cli.health_port import answering
from anabranch.cli.pipeline import embedded, pipeline
from anabranch.cli.ports import chosen, export
from anabranch.config.settings import Config
from anabranch.dev.embedded import EmbeddedBroker
from anabranch.errors import BrokerUnavailable

__all__ = ["up"]


def up(*, port: int | None = None, health_port: str | None = None, common: Common = COMMON) -> int:
    """Run broker, coordinator and a worker for each group, until stopped.

    The embedded broker, unless an option, variable or file names another; it takes one worker
    per group. `anabranch ask` finds what runs in its folder.

    Parameters
    ----------
    port
        Of the embedded broker; by default 9092, or any if that is taken.
    health_port
        Answer GET /ready and /live there: a port, or host:port.
    """
    config = common.load()
    observe("anabranch", debug=common.debug)
    with ExitStack() as stack:
        broker = None
        if not common.names("kafka.bootstrap"):
            broker = stack.enter_context(EmbeddedBroker(chosen(port)))
            config = embedded(config, broker)
        stack.enter_context(runtime.published(config.kafka.bootstrap, config.namespace))
        return serve(_up(config, broker, stack, health_port))


async def _up(
    config: Config, broker: EmbeddedBroker | None, stack: ExitStack, health_port: str | None
) -> int:
    async with (
        answering(health_port) as health,
        pipeline(config, lambda step: note(f"starting {step}")),
    ):
        health.state = lambda: "ready"
        try:
            out().print(f"ready {config.kafka.bootstrap}")
            note(f"for other folders and programs: {export(config.kafka.bootstrap)}")
            if broker is None:
                await asyncio.Event().wait()
            else:
                await broker.ended()
                stack.close()
                give_up(BrokerUnavailable("the embedded broker ended by itself"))
        finally:  # it drains from here on
            health.state = lambda: "draining"
    return 0
