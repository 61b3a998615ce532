"""Ids of items: one for one thing, whatever it is called and wherever it lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pygit2
import pytest
from git_repositories import History
from hypothesis import given
from hypothesis import strategies as st

from anabranch.contract.events import Item
from anabranch.layers.api import Request
from anabranch_git.identity import identity, of_origin
from anabranch_git.item import commit_uri, file_uri
from anabranch_git.layer import Git, GitConfig
from anabranch_git.repository import Repository, as_bytes, as_text

ONE = [
    "https://github.com/team-a/docs", "https://github.com/team-a/docs.git",
    "https://github.com/team-a/docs.git/", "http://github.com:80/team-a/docs",
    "https://GitHub.com:443/team-a/docs.git", "https://me:s3cr3t@github.com/team-a/docs",
    "https://ghp_s3cr3t@github.com/team-a/docs.git", "git@github.com:team-a/docs.git",
    "ssh://git@github.com/team-a/docs", "ssh://git@github.com:22/team-a/docs.git",
    "git://github.com/team-a/docs", "https://github.com//team-a/./docs",
    "https://github.com/team%2Da/docs", "github.com:team-a/docs",
]  # fmt: skip
OTHERS = [
    "https://github.com/team-b/docs", "https://gitlab.com/team-a/docs", "https://github.com/docs",
    "https://github.com:8443/team-a/docs", "https://github.com/team-a/docs/more",
    "https://github.com/team-a/Docs", "alice@github.com:team-a/docs",
    "ssh://bob@github.com/~/team-a/docs", "https://github.com/team-a%3Adocs",
    "https://github.com/team-a/docs%FF", "https://github.com/team-a/docs@v1",
]  # fmt: skip


@pytest.mark.parametrize("origin", ONE)
def test_clones_of_one_repository_have_one_name_without_credentials(origin: str) -> None:
    assert of_origin(origin) == "github.com/team-a/docs"


def test_no_two_repositories_have_one_name() -> None:
    names = [of_origin(origin) for origin in [ONE[0], *OTHERS]]
    assert None not in names
    assert len(set(names)) == len(names)
    assert not any(":" in str(name) for name in names)


@pytest.mark.parametrize(
    "origin", ["/srv/git/docs", "../docs.git", "file:///srv/docs", "docs", None]
)
def test_folders_are_told_apart_by_place_and_first_commit(origin: str | None) -> None:
    places = [Path("a/docs"), Path("b/docs")]
    found = [identity(origin, place, root) for place in places for root in ("1", "2")]
    is_absolute = (origin or "").removeprefix("file://").startswith("/")
    assert len(set(found)) == (2 if is_absolute else 4)
    assert all("~" in name and ":" not in name for name in found)


def test_a_name_is_bounded_and_stays_its_own() -> None:
    long = "https://example.org/" + "x" * 5_000
    assert len(identity(f"{long}a", Path(), "")) <= 300
    assert identity(f"{long}a", Path(), "") != identity(f"{long}b", Path(), "")


@given(st.binary(), st.binary())
def test_paths_of_any_bytes_come_back_and_stay_apart(one: bytes, other: bytes) -> None:
    assert as_bytes(as_text(one)) == one
    assert (as_text(one) == as_text(other)) == (one == other)
    assert "\n" not in as_text(one)


def test_no_file_section_or_commit_of_any_repository_has_anothers_id() -> None:
    repositories = [identity(o, Path(), "") for o in (ONE[0], *OTHERS, "../a", "../b")]
    paths = [b"a", b"a/b", b"\xff", rb"\xff", b"a:b", b"a#b", b"commit/1", b"docs:a", b"a%23b"]
    anchors = ["", "b", "a#b", "ü"]
    ids = [file_uri(r, as_text(p), a) for r in repositories for p in paths for a in anchors]
    ids += [commit_uri(r, sha) for r in repositories for sha in ("1", "2")]
    assert len(set(ids)) == len(ids)
    assert all(id.isascii() for id in ids)
    assert file_uri(repositories[0], as_text(b"\xff/a b")) == "git:github.com/team-a/docs:%FF/a%20b"


# ── through the layer ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def ask(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """Ask a kind about a repository, whose index is made for that."""

    def ask(path: Path, text: str, kind: Any = "semantic") -> Sequence[Item]:
        index = tmp_path / f"{path.parent.name}-{path.name}.sqlite"
        layer = Git("a", GitConfig(kind=kind, repo=str(path), index=str(index)))
        layer._index.update()
        asked = Request(
            type="t", params={"text": text}, scope="", limit=20, deadline=1e9, remaining_ms=60_000
        )
        try:
            return layer.ask(asked).items
        finally:
            layer._index.close()

    return ask


def docs(
    folder: Path, origin: str | None = None, text: str = "# Walnuts\n\nAll of them.\n"
) -> Path:
    made = History(folder / "docs", bare=False)
    made.commit(f"Begin {folder.name!a}", {"guide.md": text})
    if origin is not None:
        setting = f'[remote "origin"]\n\turl = {origin}\n'
        with (made.path / ".git" / "config").open("ab") as config:
            config.write(setting.encode(errors="surrogateescape"))
    return made.path


@pytest.mark.parametrize(
    "origins",
    [
        (None, None),
        ("https://github.com/team-a/docs", "https://github.com/team-b/docs"),
        ("../upstream/docs", "../other/docs"),
        ("https://github.com/team-a/docs", None),
    ],
)
@pytest.mark.parametrize("kind", ["semantic", "episodic", "graph"])
def test_two_repositories_called_docs_give_two_items(
    ask: Callable[..., Any], tmp_path: Path, origins: tuple[Any, Any], kind: str
) -> None:
    paths = [docs(tmp_path / team, origin) for team, origin in zip("ab", origins, strict=True)]
    ids = {item.id for path in paths for item in ask(path, "walnuts begin guide", kind)}
    assert len(ids) == 2


def test_two_clones_of_one_repository_give_one_item(
    ask: Callable[..., Any], tmp_path: Path
) -> None:
    url = "https://{}github.com/team-a/docs"
    ids = {
        item.id
        for place in ("", "me:s3cr3t@")
        for item in ask(docs(tmp_path / f"c{len(place)}", url.format(place)), "walnuts")
    }
    assert ids == {"git:github.com/team-a/docs:guide.md#walnuts"}


def test_a_repository_may_lie_in_a_folder_that_is_no_utf_8(
    ask: Callable[..., Any], tmp_path: Path
) -> None:
    path = docs(tmp_path / "\udcff")
    (item,) = ask(path, "walnuts")
    assert item.id.startswith("git:docs~")
    path = docs(tmp_path / "b", origin="https://host/\udcff")
    assert ask(path, "walnuts")[0].id == "git:host/%FF:guide.md#walnuts"
    assert Repository(path).name == "_"


def test_files_whose_names_are_no_utf_8_stay_apart(ask: Callable[..., Any], tmp_path: Path) -> None:
    made = History(tmp_path / "docs")
    made.commit("Begin", {"a.md": "walnuts\n"})
    blob = made.repo.create_blob(b"# Walnuts\n\nwalnuts\n")
    raw = b"".join(b"100644 %s\0%s" % (name, blob.raw) for name in (b"\\xe9.md", b"\xe9.md"))
    tree_id = made.repo.odb.write(pygit2.enums.ObjectType.TREE, raw)
    who = pygit2.Signature("Ada", "a@b", 1_700_000_000)
    head = [made.repo.head.target]
    made.repo.create_commit("refs/heads/main", who, who, "more", tree_id, head)
    ids = {item.id.partition(":docs")[2] or item.id for item in ask(made.path, "walnuts")}
    assert {id.rpartition(":")[2].partition("#")[0] for id in ids} == {"%E9.md", "%5Cxe9.md"}
