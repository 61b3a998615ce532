"""Reads a git repository through libgit2: commits and files, as text that SQLite can hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import pygit2
from msgspec import Struct
from pygit2.enums import FileMode, SortMode

from anabranch import ConfigError
from anabranch_git.identity import identity
from anabranch_git.trees import MAX_DEPTH, Trees

__all__ = ["MAX_PATHS", "Commit", "File", "Repository", "as_bytes", "as_text"]

MAX_PATHS: Final = 50
"""Paths kept of a commit: one that touches more is a sweep, and which files says little."""

_CACHE_BYTES: Final = 32_000_000
"""libgit2's cache of objects, for the whole process: each is read about once, so 256 MB (the
default) would only be filled with what is not needed again."""
_BINARY_PROBE_BYTES: Final = 8_000
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-f]{2}|.)")
_ODD: Final = re.compile(r"[^\w.+-]")
_MAX_PATH_CHARS: Final = 4_096
"""What no file system takes; such files are left out, as are those deeper than `MAX_DEPTH`."""
_MAX_NAME_CHARS: Final = 200
_MAX_SUBJECT_CHARS: Final = 1_000
_MAX_BODY_CHARS: Final = 50_000
"""What is longer was not written for readers; git itself knows no bound."""


class Commit(Struct, frozen=True, gc=False):
    """A commit. `time` is Unix seconds (of committing); `paths` is empty for merges."""

    sha: str
    time: int
    author: str
    email: str
    subject: str
    body: str
    paths: tuple[str, ...]


class File(Struct, frozen=True, gc=False):
    """A file of the tree at the head; `blob` names its content."""

    path: str
    blob: str


class Repository:
    """One repository, for one thread.

    Raises:
        ConfigError: there is no repository, or it may not be read. The message begins with
            the key `repo`.
    """

    def __init__(self, path: Path) -> None:
        pygit2.settings.cache_max_size(_CACHE_BYTES)
        try:
            found = pygit2.discover_repository(str(path))
            if found is None:
                raise ConfigError(f"repo: there is no git repository at {path}; correct the path")
            self._repo = pygit2.Repository(found)
        except (pygit2.GitError, OSError) as error:
            raise ConfigError(
                f"repo: {path} cannot be opened: {error} (if it belongs to another user, run "
                f"git config --global --add safe.directory {path})"
            ) from error
        self._trees = Trees(self._repo.odb)
        self.folder = Path(self._repo.path).resolve()

    def head(self) -> str | None:
        """The commit that is checked out; of a bare one without it, the newest branch's."""
        if not self._repo.head_is_unborn:
            return str(self._repo.head.peel(pygit2.Commit).id)
        branches = [
            self._repo.branches[name].peel(pygit2.Commit) for name in self._repo.branches.local
        ]
        newest = max(branches, key=lambda commit: commit.commit_time, default=None)
        return str(newest.id) if newest else None

    @property
    def name(self) -> str:
        """What a person calls it: by its origin, else by its folder."""
        called = _stem(self._origin or str(self._place))
        return _ODD.sub("_", called)[:_MAX_NAME_CHARS]

    @property
    def identity(self) -> str:
        """What it is called in ids (`anabranch_git.identity`)."""
        return identity(self._origin, self._place, self._root())

    @property
    def is_shallow(self) -> bool:
        return bool(self._repo.is_shallow)

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether `new` was made on top of `old`, so that nothing of `old` was rewritten."""
        return old in self._repo and (old == new or self._repo.descendant_of(new, old))

    def shas(self, head: str, hide: str | None = None) -> Iterator[str]:
        """Commits reachable from `head`, newest first, without those reachable from `hide`."""
        walker = self._repo.walk(head, SortMode.NONE)
        if hide is not None:
            walker.hide(hide)
        return (str(commit.id) for commit in walker)

    def commit(self, sha: str) -> Commit:
        """One commit with the paths it touched."""
        found = self._repo[sha].peel(pygit2.Commit)
        author, encoding = found.author, found.message_encoding
        subject, _, body = _text(found.raw_message, encoding).strip().partition("\n")
        return Commit(
            sha=sha,
            time=found.commit_time,
            author=_text(author.raw_name, encoding)[:_MAX_NAME_CHARS],
            email=_text(author.raw_email, encoding)[:_MAX_NAME_CHARS],
            subject=subject.strip()[:_MAX_SUBJECT_CHARS],
            body=body.strip()[:_MAX_BODY_CHARS],
            paths=tuple(self._touched(found)),
        )

    def files(self, head: str) -> Iterator[File]:
        """Regular files of the tree at `head`: no links, no submodules."""
        yield from self._walk(self._repo[head].peel(pygit2.Tree), "")

    def text(self, blob: str, max_bytes: int) -> str | None:
        """A file's content; None if it is binary, larger than `max_bytes`, or not there."""
        found = self._repo.get(blob)
        if not isinstance(found, pygit2.Blob) or found.size > max_bytes:
            return None
        content = found.data
        if b"\0" in content[:_BINARY_PROBE_BYTES]:
            return None
        return content.decode("utf-8", "replace")

    def _touched(self, commit: pygit2.Commit) -> Iterator[str]:
        """Paths that a commit changed, `MAX_PATHS` at most.

        A merge changes nothing of its own; the oldest commit of a shallow clone has a parent
        that is not there, and is taken to have touched nothing.
        """
        if len(commit.parent_ids) > 1:
            return
        try:
            parents = [self._repo[parent].peel(pygit2.Commit) for parent in commit.parent_ids]
            old = parents[0].tree_id if parents else None
            yield from map(as_text, islice(self._trees.touched(old, commit.tree_id), MAX_PATHS))
        except KeyError:
            return

    def _walk(self, tree: pygit2.Tree, prefix: str) -> Iterator[File]:
        for entry in tree:
            path = prefix + as_text(entry.raw_name or b"")
            if len(path) > _MAX_PATH_CHARS or path.count("/") > MAX_DEPTH:
                continue
            if isinstance(entry, pygit2.Tree):
                yield from self._walk(entry, f"{path}/")
            elif entry.filemode in (FileMode.BLOB, FileMode.BLOB_EXECUTABLE):
                yield File(path, str(entry.id))

    @property
    def _origin(self) -> str | None:
        return next((r.url for r in self._repo.remotes if r.name == "origin" and r.url), None)

    @property
    def _place(self) -> Path:
        return self.folder.parent if self.folder.name == ".git" else self.folder

    def _root(self) -> str:
        """The first of the commits that lead to the head; none of an empty repository."""
        head = self.head()
        if head is None:
            return ""
        walker = self._repo.walk(head, SortMode.NONE)
        walker.simplify_first_parent()
        *_, last = (str(commit.id) for commit in walker)
        return last


def _stem(url: str) -> str:
    return url.rstrip("/").replace(":", "/").rsplit("/", 1)[-1].removesuffix(".git") or "repo"


def as_text(path: bytes) -> str:
    """A path as text on one line, of which `as_bytes` makes the same path.

    Bytes that are no UTF-8 stand as `\\xff`, a newline as `\\n`, and a backslash twice.
    """
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    return escaped.decode("utf-8", "backslashreplace")


def as_bytes(path: str) -> bytes:
    """The path that `as_text` wrote."""
    return _ESCAPE.sub(_unescaped, path.encode())


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes.fromhex(code[1:].decode()) if code[:1] == b"x" else {b"n": b"\n"}.get(code, code)


def _text(raw: bytes, encoding: str | None) -> str:
    """Text that SQLite can hold: whatever it was, no lone surrogates and no NUL."""
    try:
        text = raw.decode(encoding or "utf-8", "replace")
    except LookupError:
        text = raw.decode("utf-8", "replace")
    return text.encode("utf-8", "replace").decode().replace("\0", "")
