"""Layers over any git repository, working tree or bare: what is committed, not what is edited.

    [layers.episodic]
    plugin = "git"
    repo = "."
    kind = "episodic"

`episodic` finds commits, `semantic` documents and docstrings, `graph` files that belong
together. A question's params are `text`, and optionally `since`, `author` and `path`.

An item's id is `git:REPOSITORY:path/to/file#section` or `git:REPOSITORY/commit/SHA`. REPOSITORY is
the origin's host and path, so all clones of one origin share their ids, wherever they lie and
however they got there; a fork has an origin of its own. Without an origin that others reach it is
the folder's name with a digest of its path and first commit: give a repository that several
machines serve an origin (`git remote add origin ...`), or each of them has ids of its own.
"""

from anabranch_git.index import Index
from anabranch_git.layer import Git, GitConfig, open_index
from anabranch_git.progress import Progress, terminal

__all__ = ["Git", "GitConfig", "Index", "Progress", "open_index", "terminal"]
