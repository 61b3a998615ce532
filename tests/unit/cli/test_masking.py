"""`anabranch config` shows what is in force, and no secret of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch import cli
from anabranch.cli.masking import MASK, masked

SECRET = "s3cr3t/with space"


@pytest.mark.parametrize(
    "text",
    [
        f"http://me:{SECRET}@host/x",
        f"postgresql://me:{SECRET}@host:5432/db",
        f"host=h password='{SECRET}' user=u",
        f'host=h PASSWORD = "{SECRET}"',
        f"Driver=x;PWD={{{SECRET}}};Server=h",
        f'ScramLoginModule required username="u" password="{SECRET}";',
        f"http://a:b@h1,http://me:{SECRET}@h2",
    ],
)
def test_a_secret_inside_a_text_is_masked(text: str) -> None:
    shown = masked("layers.a.where", text, text)
    assert MASK in shown
    assert "s3cr3t" not in shown
    assert "with space" not in shown


@pytest.mark.parametrize(
    "text", ["https://ghp_s3cr3t@host/x", "redis://:s3cr3t@h", "a?token=s3cr3t&b=1"]
)
def test_a_token_is_masked(text: str) -> None:
    assert "s3cr3t" not in masked("layers.a.where", text, text)


@pytest.mark.parametrize(
    "text", ["ssh://git@host/x", "http://host:80/path", "name@example.org", "a=b"]
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert masked("layers.a.where", text, text) == text


secrets = st.just("S3CR3T")
shapes: Any = st.recursive(
    secrets.map(lambda s: {"password": s}) | secrets.map(lambda s: f"http://me:{s}@h"),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b"]), inner, min_size=1)
    ),
    max_leaves=8,
)


@given(shapes)
def test_no_nesting_hides_a_secret(value: Any) -> None:
    assert "S3CR3T" not in json.dumps(masked("layers.a.hosts", value, value))


def test_the_command_shows_references_and_masks_in_lists_and_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "anabranch.toml"
    path.write_text(
        '[layers.a]\nplugin = "x:Y"\nhosts = ["${S2}", "http://me:topsecret@h/x", "plain"]\n'
        'users = [{name = "n", password = "topsecret"}]\nurl = "http://u:topsecret@${S2}/"\n'
        '[kafka.client]\nsasl_plain_password = "${S2}"\n'
    )
    monkeypatch.setenv("S2", "hidden-value")
    assert cli.run(["config", "--json", "--config", str(path)]) == 0
    printed = capsys.readouterr().out
    shown = json.loads(printed)
    assert "topsecret" not in printed
    assert "hidden-value" not in printed
    assert shown["layers.a.hosts"]["value"] == ["${S2}", f"http://me:{MASK}@h/x", "plain"]
    assert shown["layers.a.users"]["value"] == [{"name": "n", "password": MASK}]
    assert shown["kafka.client.sasl_plain_password"]["value"] == "${S2}"
