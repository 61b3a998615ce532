"""`anabranch invalidate`: have every coordinator forget cached results."""

from __future__ import annotations

from typing import Annotated

import uvloop
from cyclopts import Parameter

from anabranch.admin.diagnostics import Diagnostics, Invalidation
from anabranch.cli import runtime
from anabranch.cli.common import COMMON, Common, note, out, print_json
from anabranch.config.messages import nearest
from anabranch.config.settings import Config
from anabranch.errors import ConfigError

__all__ = ["invalidate"]


def invalidate(
    layer: str | None = None,
    /,
    *,
    scope: str | None = None,
    key: str | None = None,
    tag: tuple[str, ...] = (),
    json: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> int:
    """Forget what matches all that is given; exit code 1 if a coordinator did not confirm it.

    Parameters
    ----------
    layer
        Results of this layer.
    scope
        Results of this scope.
    key
        Results of one question, by its digest as tasks carry it.
    tag
        Results with any of these tags.
    json
        One JSON document.
    """
    if layer is None and scope is None and key is None and not tag:
        raise ConfigError("say what to forget: a layer, --scope, --key or --tag")
    done = uvloop.run(_order(runtime.reachable(common), layer, scope, key, tag))
    if json:
        print_json(done)
    else:
        places = f"{len(done.by_instance)} coordinator{'s' * (len(done.by_instance) != 1)}"
        out().print(f"{done.slots} cached results forgotten in {places}")
        for name in done.silent:
            note(f"{name} did not confirm; it forgets them when it reads the order")
    return 1 if done.silent else 0


async def _order(
    config: Config, layer: str | None, scope: str | None, key: str | None, tags: tuple[str, ...]
) -> Invalidation:
    async with Diagnostics(config) as diagnostics:
        if layer is not None:
            _check(layer, {*config.layers, *(await diagnostics.cluster_view()).layers})
        return await diagnostics.invalidate(layer=layer, scope=scope, key=key, tags=tags)


def _check(layer: str, known: set[str]) -> None:
    """Forgetting what nobody has would look like success."""
    if layer in known:
        return
    near = nearest(layer, known)
    told = f"did you mean {near!r}?" if near else f"known are: {', '.join(sorted(known)) or 'none'}"
    raise ConfigError(f"no layer {layer!r} is configured or announced; {told}")
