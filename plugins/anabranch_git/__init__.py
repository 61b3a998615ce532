"""Layers over any git repository, working tree or bare: what is committed, not what is edited.

    [layers.episodic]
    plugin = "git"
    repo = "."
    kind = "episodic"

`episodic` finds commits, `semantic` documents and docstrings, `graph` files that belong
together. A question's params are `text`, and optionally `since`, `author` and `path`.
"""

from anabranch_git.index import Index
from anabranch_git.layer import Git, GitConfig, open_index
from anabranch_git.progress import Progress, terminal

__all__ = ["Git", "GitConfig", "Index", "Progress", "open_index", "terminal"]
