"""The runtime file: `ask` finds what runs, and nothing that does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from anabranch.cli import runtime
from anabranch.cli.runtime import Running, find, published
from anabranch.errors import ConfigError


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder and a current folder of their own."""
    monkeypatch.setattr(runtime, "user_state_path", lambda name: tmp_path / "state" / name)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "state" / "anabranch" / "running"


def test_what_runs_is_found_from_its_folder_only(tmp_path: Path) -> None:
    with published("b:1", "n."):
        assert find() == Running("b:1", "n.", os.getpid())
        assert find(tmp_path) is None
    assert find() is None


def test_the_file_goes_away_even_after_an_error(state: Path) -> None:
    with pytest.raises(ZeroDivisionError), published("b:1", "n."):
        raise ZeroDivisionError
    assert list(state.iterdir()) == []


def test_a_second_pipeline_in_the_same_folder_is_refused_and_leaves_the_first_alone() -> None:
    with published("b:1", "n."):
        with pytest.raises(ConfigError, match=f"process {os.getpid()} runs a pipeline"):
            published("b:2", "n.").__enter__()
        assert find() == Running("b:1", "n.", os.getpid())


@pytest.mark.parametrize("pid", [1, os.getpid(), os.getppid()])
def test_what_a_killed_process_left_behind_is_ignored_whoever_has_its_number(
    pid: int, state: Path
) -> None:
    state.mkdir(parents=True)
    with published("b:1", "n."):
        (file,) = state.iterdir()
    file.write_bytes(msgspec.json.encode(Running("b:1", "n.", pid)))
    assert find() is None
    with published("b:2", "n."):
        assert find() == Running("b:2", "n.", os.getpid())


def test_the_lock_ends_with_its_process_however_that_ends(state: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from anabranch.cli import runtime;"
        f"runtime.user_state_path = lambda name: Path({str(state.parent.parent)!r}) / name\n"
        "with runtime.published('b:1', 'n.'): print('up', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"up\n"
    assert find() == Running("b:1", "n.", other.pid)
    with pytest.raises(ConfigError, match=f"process {other.pid} runs a pipeline"):
        published("b:2", "n.").__enter__()
    other.kill()
    other.communicate()
    assert list(state.iterdir()), "it could not tidy up"
    assert find() is None
    with published("b:2", "n."):
        assert find() == Running("b:2", "n.", os.getpid())


def test_without_a_writable_home_it_works_and_says_once_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("a folder cannot be made in a file, not even by root")
    monkeypatch.setattr(runtime, "user_state_path", lambda name: tmp_path / "file" / name)
    with published("b:1", "n."):
        assert find() is None
    told = capsys.readouterr().err
    assert "cannot be written" in told
    assert told.count("XDG_STATE_HOME") == 1


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"bootstrap": 1}'])
def test_a_damaged_file_is_as_good_as_none(content: bytes, state: Path) -> None:
    with published("b:1", "n."):
        (file,) = state.iterdir()
        file.write_bytes(content)
        assert find() is None
