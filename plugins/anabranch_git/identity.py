"""What a repository is called in the ids of its items: the same for all its clones, and no other.

That is its origin without what only says how to get there: scheme, credentials, the usual port,
`.git`. A repository without an origin, or with one that is a folder, is known by that folder and
its first commit: two of one name differ, as do two that lie at one place on different machines.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

__all__ = ["identity", "of_origin"]

_PORTS: Final = {"http": "80", "https": "443", "ssh": "22", "git": "9418"}
_MAX_CHARS: Final = 300


def identity(origin: str | None, folder: Path, root: str) -> str:
    """A path of a URI, without a colon.

    Args:
        origin: the remote's URL as it is written, if there is one.
        folder: what a relative origin starts from, and what stands for it if there is none.
        root: the repository's first commit, for one that nothing else tells apart.
    """
    known = of_origin(origin) if origin else None
    if known is not None:
        return _bounded(known)
    place = (folder / (origin or "").removeprefix("file://")).resolve()
    path = os.fsencode(place).removesuffix(b"/.git")
    digest = hashlib.sha256(path + b"\0" + root.encode()).hexdigest()[:16]
    name = path.rsplit(b"/", 1)[-1].removesuffix(b".git")
    return _bounded(f"{quote_from_bytes(name)[:100]}~{digest}")


def of_origin(url: str) -> str | None:
    """A URL's host and path; None for one that is a folder of this machine."""
    scheme, is_url, rest = url.partition("://")
    if is_url:
        if scheme == "file":
            return None
        authority, _, path = rest.partition("/")
        home_user = path.startswith("~/")
        raw = unquote_to_bytes(os.fsencode(path.partition("?")[0]))
    else:  # user@host:path, as scp has it
        authority, colon, path = url.partition(":")
        if not colon or "/" in authority:
            return None
        scheme, home_user, raw = "ssh", not path.startswith("/"), os.fsencode(path)
    user, _, host = authority.rpartition("@")
    host = host.lower().removesuffix(f":{_PORTS.get(scheme)}")
    parts = [part for part in raw.split(b"/") if part not in (b"", b".", b"~")]
    if home_user and user not in ("", "git"):  # in that user's home; git's is the host's
        parts.insert(0, b"~" + os.fsencode(user.partition(":")[0]))
    return quote_from_bytes(b"/".join([os.fsencode(host), *parts]).removesuffix(b".git"))


def _bounded(name: str) -> str:
    if len(name) <= _MAX_CHARS:
        return name
    return f"{name[: _MAX_CHARS - 20]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
