"""Small real repositories for tests, made through libgit2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pygit2

__all__ = ["History"]

DAY_S = 86_400


class History:
    """Writes commits into a repository, a day apart, and moves its branch to them."""

    def __init__(self, path: Path, *, bare: bool = True) -> None:
        self.path = path
        self.repo = pygit2.init_repository(str(path), bare=bare, initial_head="main")
        self.time = 1_600_000_000

    def commit(
        self,
        message: str | bytes,
        files: Mapping[str, str | bytes | None] | None = None,
        *,
        author: str = "Ada Lovelace",
        parents: list[str] | None = None,
    ) -> str:
        """Commit changed files (None deletes); on the branch's head unless `parents` says."""
        if parents is None:
            parents = [] if self.repo.head_is_unborn else [str(self.repo.head.target)]
        self.time += DAY_S
        index = pygit2.Index()
        if parents:
            index.read_tree(self.repo[parents[0]].peel(pygit2.Tree))
        for path, content in (files or {}).items():
            self._stage(index, path, content)
        who = pygit2.Signature(author, f"{author.split()[0].lower()}@example.org", self.time)
        text = message if isinstance(message, str) else message.decode("latin-1")
        made = self.repo.create_commit(
            None, who, who, text, index.write_tree(self.repo), [pygit2.Oid(hex=p) for p in parents]
        )
        self.repo.references.create("refs/heads/main", made, force=True)
        return str(made)

    def raw_commit(
        self, who: bytes, message: bytes, more: bytes = b"", parent: str | None = None
    ) -> str:
        """A commit whose author line and message are these very bytes, with its parent's tree."""
        above = parent or str(self.repo.head.target)
        tree = _field(self.repo.odb.read(pygit2.Oid(hex=above))[1], b"tree")
        lines = [
            b"tree " + tree,
            b"parent " + above.encode(),
            b"author " + who,
            b"committer " + who,
        ]
        content = b"\n".join(lines) + b"\n" + more + b"\n" + message
        made = self.repo.odb.write(pygit2.enums.ObjectType.COMMIT, content)
        self.repo.references.create("refs/heads/main", made, force=True)
        return str(made)

    def rewind(self, sha: str) -> None:
        """Move the branch back, as a forced push would."""
        self.repo.references.create("refs/heads/main", pygit2.Oid(hex=sha), force=True)

    def _stage(self, index: pygit2.Index, path: str, content: str | bytes | None) -> None:
        if content is None:
            index.remove(path)
            return
        data = content.encode() if isinstance(content, str) else content
        blob = self.repo.create_blob(data)
        index.add(pygit2.IndexEntry(path, blob, pygit2.enums.FileMode.BLOB))


def _field(commit: bytes, name: bytes) -> bytes:
    return next(line.split(b" ")[1] for line in commit.split(b"\n") if line.startswith(name + b" "))
