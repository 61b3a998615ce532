"""The index of `anabranch_git`: incremental, shared, and never confused by a repository."""

from __future__ import annotations

import io
import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pygit2
import pytest
from git_repositories import History

import anabranch_git.history as history_module
import anabranch_git.index as index_module
from anabranch.errors import ConfigError, LayerError, LayerTimeout
from anabranch_git import GitConfig, Index, open_index, terminal
from anabranch_git.index import Updated
from anabranch_git.storage import Cancelled

CONTENT = {
    "commits": "SELECT sha, time, author, email, subject, body, paths FROM commits",
    "files": "SELECT path, blob, changed, author, round(log2(weight), 6) FROM files "
    "WHERE blob IS NOT NULL",
    "sections": "SELECT path, anchor, title, text FROM sections JOIN files ON files.id = file",
    "pairs": "SELECT x.path, y.path, round(log2(pairs.weight), 6), commits FROM pairs "
    "JOIN files AS x ON x.id = min(a, b) JOIN files AS y ON y.id = max(a, b)",
    "edges": "SELECT x.path, y.path FROM edges "
    "JOIN files AS x ON x.id = source JOIN files AS y ON y.id = target",
}
"""What an index says, however it came to be: without row numbers."""


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "shop.git")


def index_of(history: History, name: str = "index.sqlite") -> Index:
    config = GitConfig(
        kind="semantic", repo=str(history.path), index=str(history.path.parent / name)
    )
    return open_index(config)


def content(index: Index) -> dict[str, list[tuple[object, ...]]]:
    with index.reading(60_000) as connection:
        found = {}
        for name, query in CONTENT.items():
            rows = [
                tuple(sorted(row[:2])) + row[2:] if name == "pairs" else row
                for row in connection.execute(query)
            ]
            found[name] = sorted(rows, key=repr)
        for table in ("commits_fts", "files_fts", "sections_fts"):
            words = f"SELECT count(*) FROM {table} WHERE {table} MATCH '\"needle\"'"
            found[table] = connection.execute(words).fetchall()
    return found


def assert_as_if_new(index: Index, history: History) -> None:
    """An updated index says what one says that is built from nothing."""
    fresh = index_of(history, f"fresh-{len(os.listdir(history.path.parent))}.sqlite")
    fresh.update()
    assert content(index) == content(fresh)


def test_what_is_indexed_is_not_read_again(history: History) -> None:
    history.commit("First", {"a.md": "# A\n\nneedle\n", "b.md": "# B\n\ntext\n"})
    index = index_of(history)
    assert index.update() == Updated(commits=1, files=2)
    assert index.update() == Updated(commits=0, files=0)


def test_an_update_reads_only_new_commits_and_changed_files(history: History) -> None:
    history.commit("First", {"a.md": "# A\n\nneedle\n", "b.md": "# B\n\ntext\n"})
    index = index_of(history)
    index.update()
    history.commit("Second", {"a.md": "# A\n\nhay\n", "c.py": '"""A needle."""\nimport b\n'})
    history.commit("Third", {"b.md": None, "b.py": ""})
    assert index.update() == Updated(commits=2, files=4)
    assert_as_if_new(index, history)


def test_rewritten_history_is_forgotten(history: History) -> None:
    first = history.commit("First", {"a.md": "one", "b.md": "one"})
    history.commit("A needle that is taken back", {"a.md": "needle", "b.md": "two"})
    index = index_of(history)
    index.update()
    history.rewind(first)
    history.commit("Instead", {"a.md": "three", "c.md": "one"})
    index.update()
    assert_as_if_new(index, history)
    assert content(index)["commits_fts"] == [(0,)]


def test_rewinding_without_anything_new_is_noticed(history: History) -> None:
    first = history.commit("First", {"a.md": "one"})
    history.commit("Second", {"a.md": "needle"})
    index = index_of(history)
    index.update()
    history.rewind(first)
    index.update()
    assert_as_if_new(index, history)


def test_a_merge_brings_both_sides_and_no_paths_of_its_own(history: History) -> None:
    base = history.commit("Base", {"a.md": "one"})
    left = history.commit("Left", {"l.md": "l"}, parents=[base])
    right = history.commit("Right", {"r.md": "r"}, parents=[base])
    index = index_of(history)
    index.update()
    history.commit("Merge", {"l.md": "l", "r.md": "r"}, parents=[right, left])
    assert index.update().commits == 2
    assert_as_if_new(index, history)
    (merge,) = [row for row in content(index)["commits"] if row[4] == "Merge"]
    assert merge[-1] == ""


def test_an_update_that_is_broken_off_goes_on_where_it_was(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "_BATCH", 2)
    for n in range(7):
        history.commit(f"Commit {n} needle", {f"{n % 3}.md": str(n), "x.md": str(n)})
    index = index_of(history)
    asked = iter([False, True])
    with pytest.raises(Cancelled):
        index.update(cancelled=lambda: next(asked, True))
    assert 0 < len(content(index)["commits"]) < 7
    assert index.update().commits < 7
    assert_as_if_new(index, history)


def test_history_rewritten_after_a_broken_off_update_leaves_nothing_behind(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "_BATCH", 1)
    first = history.commit("First", {"a.md": "1"})
    index = index_of(history)
    index.update()
    for n in range(4):
        history.commit(f"Lost {n}", {"a.md": f"lost {n}"})
    with pytest.raises(Cancelled):
        index.update(cancelled=lambda: True)
    history.rewind(first)
    history.commit("Kept", {"a.md": "kept"})
    index.update()
    assert_as_if_new(index, history)


def test_progress_is_told_up_to_the_end(history: History) -> None:
    history.commit("First", {"a.md": "1"})
    history.commit("Second", {"b.md": "1"})
    told: list[tuple[str, int, int]] = []
    index_of(history).update(lambda *progress: told.append(progress))
    assert told == [("commits", 2, 2), ("files", 2, 2)]


def test_progress_is_drawn_on_a_terminal_only_and_only_if_there_is_work(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(is_terminal: bool) -> str:
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        with terminal("indexing shop") as progress:
            index_of(history, f"{is_terminal}.sqlite").update(progress)
        return stream.getvalue()

    assert drawn(is_terminal=True) == ""
    history.commit("First", {"a.md": "1"})
    assert "indexing shop: commits" in drawn(is_terminal=True)
    assert drawn(is_terminal=False) == ""


def test_threads_share_the_work(history: History) -> None:
    for n in range(30):
        history.commit(f"Commit {n}", {f"{n}.md": "needle"})
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: index_of(history).update(), range(4)))
    assert sorted(update.commits for update in done) == [0, 0, 0, 30]
    assert_as_if_new(index_of(history), history)


def test_processes_share_the_work(history: History) -> None:
    for n in range(30):
        history.commit(f"Commit {n}", {f"{n}.md": "needle"})
    program = (
        "import sys; from anabranch_git import GitConfig, open_index; print(open_index("
        "GitConfig(kind='graph', repo=sys.argv[1], index=sys.argv[2])).update().commits)"
    )
    arguments = [sys.executable, "-c", program, str(history.path), str(index_of(history).path)]
    both = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in both]
    assert sorted(out.strip() for out, _ in outputs) == ["0", "30"], outputs
    assert_as_if_new(index_of(history), history)


def test_waiting_for_another_can_be_cancelled(history: History) -> None:
    history.commit("First", {"a.md": "1"})
    index = index_of(history)
    inside, leave = threading.Event(), threading.Event()

    def hold(*progress: object) -> None:
        inside.set()
        leave.wait(60)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(index.update, hold)
        assert inside.wait(60)
        with pytest.raises(Cancelled):
            index.update(cancelled=lambda: True)
        leave.set()
        assert first.result().commits == 1


@pytest.mark.parametrize("bare", [True, False])
def test_a_repository_without_commits_is_an_empty_index(tmp_path: Path, bare: bool) -> None:
    history = History(tmp_path / "empty", bare=bare)
    index = index_of(history)
    assert index.update() == Updated(commits=0, files=0)
    history.commit("First", {"a.md": "1"})
    assert index.update() == Updated(commits=1, files=1)


def test_a_working_tree_is_found_from_a_folder_within(tmp_path: Path) -> None:
    history = History(tmp_path / "shop", bare=False)
    history.commit("First", {"docs/a.md": "1"})
    folder = tmp_path / "shop" / "docs"
    folder.mkdir()
    index = open_index(
        GitConfig(kind="graph", repo=str(folder), index=str(tmp_path / "index.sqlite"))
    )
    assert index.name == "shop"
    assert index.update().commits == 1


def test_without_a_checked_out_branch_the_newest_one_is_indexed(history: History) -> None:
    sha = history.commit("First", {"a.md": "1"})
    history.repo.references.create("refs/heads/other", pygit2.Oid(hex=sha))
    history.repo.references.delete("refs/heads/main")
    assert index_of(history).update().commits == 1


def test_the_origin_names_the_repository(history: History) -> None:
    history.repo.remotes.create("origin", "git@example.org:team/wares.git")
    assert index_of(history).name == "wares"


def test_a_shallow_clone_is_indexed_as_far_as_it_goes_and_on_when_deepened(
    history: History,
) -> None:
    first = history.commit("First", {"a.md": "1"})
    second = history.commit("Second", {"b.md": "1"})
    folder = Path(history.path)
    lost = folder / "objects" / first[:2] / first[2:]
    kept = lost.read_bytes()
    lost.unlink()
    (folder / "shallow").write_text(f"{second}\n")
    index = index_of(history)
    assert index.update().commits == 1
    assert index.update().commits == 0
    lost.write_bytes(kept)
    (folder / "shallow").unlink()
    assert index.update().commits == 2
    assert_as_if_new(index, history)


def test_what_is_no_text_is_known_by_its_path_only(history: History) -> None:
    history.commit(
        "Odd things",
        {
            "binary.md": b"# Title\0\n\nneedle",
            "huge.md": "needle " * 100_000,
            "latin.md": "# Caf\xe9\n\nneedle".encode("latin-1"),
        },
    )
    index = index_of(history)
    index.update()
    found = content(index)
    assert [row[0] for row in found["files"]] == ["binary.md", "huge.md", "latin.md"]
    assert [row[2] for row in found["sections"]] == ["Caf\ufffd"]


def test_names_and_messages_of_any_bytes_are_taken(history: History) -> None:
    history.commit("First", {"a.md": "1"})
    history.raw_commit(b"\xff\xfe Ada <\xe9> 1600000000 +0000", b"caf\xe9 \xff\0 needle")
    history.raw_commit(b"Ada <a> 99999999999999 +0000", b"")
    history.raw_commit(b"Ada <a> 1600000000 +0000", b"caf\xc3\xa9", b"encoding no-such\n")
    index = index_of(history)
    assert index.update().commits == 4
    assert "café" in {row[4] for row in content(index)["commits"]}


def test_a_damaged_repository_is_a_layer_error(history: History) -> None:
    history.commit("First", {"a.md": "1"})
    bad = history.raw_commit(b"nobody", b"Bad")
    history.raw_commit(b"Ada <a> 1600000000 +0000", b"Last", parent=bad)
    with pytest.raises(LayerError, match="cannot be read"):
        index_of(history).update()


def test_links_and_submodules_are_no_files(history: History) -> None:
    first = history.commit("First", {"a.md": "1"})
    index = pygit2.Index()
    index.read_tree(history.repo[first].peel(pygit2.Tree))
    link = history.repo.create_blob(b"a.md")
    index.add(pygit2.IndexEntry("link.md", link, pygit2.enums.FileMode.LINK))
    index.add(pygit2.IndexEntry("vendored", pygit2.Oid(hex=first), pygit2.enums.FileMode.COMMIT))
    tree = history.repo.odb.read(index.write_tree(history.repo))[1]
    odd = history.repo.odb.write(
        pygit2.enums.ObjectType.TREE, b"100644 \xe9.md\0" + link.raw + tree
    )
    who = pygit2.Signature("Ada", "ada@example.org", history.time)
    made = history.repo.create_commit(None, who, who, "Odd", odd, [pygit2.Oid(hex=first)])
    history.repo.references.create("refs/heads/main", made, force=True)
    found = index_of(history)
    found.update()
    assert [row[0] for row in content(found)["files"]] == ["\\xe9.md", "a.md"]


def test_other_settings_begin_anew(history: History) -> None:
    history.commit("First", {"a.md": "# A\n\nneedle", "b.txt": "needle"})
    index_of(history).update()
    only_text = GitConfig(
        kind="graph", repo=str(history.path), index=str(index_of(history).path), include=("*.txt",)
    )
    index = open_index(only_text)
    assert index.update() == Updated(commits=1, files=1)
    assert [row[0] for row in content(index)["files"]] == ["b.txt"]


@pytest.mark.parametrize("there", [b"my diary", b"SQLite format 3\0 but damaged"])
def test_a_file_that_is_no_index_is_left_alone(history: History, there: bytes) -> None:
    history.commit("First", {"a.md": "1"})
    index = index_of(history)
    index.path.write_bytes(there * 100)
    with pytest.raises(ConfigError, match=r"^index: .*index\.sqlite"):
        index.update()
    assert index.path.read_bytes() == there * 100


def test_somebody_elses_database_is_left_alone(history: History) -> None:
    history.commit("First", {"a.md": "1"})
    index = index_of(history)
    with sqlite3.connect(index.path) as theirs:
        theirs.execute("CREATE TABLE meta (key TEXT)")
    theirs.close()
    with pytest.raises(ConfigError, match="is something else"):
        index.update()


def test_a_folder_without_a_repository_is_refused_with_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^repo: there is no git repository at "):
        open_index(GitConfig(kind="graph", repo=str(tmp_path)))


def test_a_question_ends_with_its_time(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anabranch_git.index._DEADLINE_CHECK_STEPS", 1)
    history.commit("First", {"a.md": "1"})
    index = index_of(history)
    index.update()
    with pytest.raises(LayerTimeout), index.reading(-1) as connection:
        connection.execute("SELECT count(*) FROM commits").fetchone()
    with index.reading(60_000) as connection:
        assert connection.execute("SELECT count(*) FROM commits").fetchone() == (1,)


def test_an_index_that_is_not_there_is_a_layer_error(history: History) -> None:
    with pytest.raises(LayerError, match="cannot be opened"), index_of(history).reading(1_000):
        pass


def test_by_default_the_index_lies_in_the_users_cache(
    history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    one = open_index(GitConfig(kind="graph", repo=str(history.path)))
    same = open_index(GitConfig(kind="semantic", repo=str(history.path)))
    other = open_index(GitConfig(kind="graph", repo=str(history.path), include=("*.md",)))
    assert one.path == same.path != other.path
    assert tmp_path in one.path.parents


def test_where_no_home_can_be_written_the_index_lies_elsewhere(
    history: History,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("a folder cannot be made in a file, not even by root")
    monkeypatch.setattr(
        index_module.platformdirs, "user_cache_path", lambda name: tmp_path / "file" / name
    )
    indexes = [
        open_index(GitConfig(kind=kind, repo=str(history.path))) for kind in ("graph", "semantic")
    ]
    assert indexes[0].path == indexes[1].path
    indexes[0].update()
    assert caplog.text.count("XDG_CACHE_HOME") == 1


def test_an_index_that_cannot_be_written_names_the_key(history: History, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"index: .*file/index\.sqlite cannot be written"):
        index_of(history, "file/index.sqlite").update()


def test_folders_deeper_than_any_are_left_out(history: History) -> None:
    history.commit("Begin", {"b.md": "shallow"})
    repo = history.repo
    blob = repo.create_blob(b"deep\n")
    tree, mode = blob, b"100644"
    for _ in range(3_000):
        entry = b"%s a\0%s" % (mode, tree.raw)
        tree, mode = repo.odb.write(pygit2.enums.ObjectType.TREE, entry), b"40000"
    who = pygit2.Signature("Ada", "a@b", 1_700_000_000)
    head = [repo.head.target]
    repo.create_commit("refs/heads/main", who, who, "deep needle", tree, head)
    index = index_of(history)
    assert index.update().commits
    found = content(index)
    assert not any("a/a/a" in str(row) for row in found["files"])
