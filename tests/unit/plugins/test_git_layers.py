"""`anabranch_git`: that a person would call the answers right."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from git_repositories import History
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import anabranch_git.layer as layer_module
from anabranch.contract.codec import encode
from anabranch.contract.events import Item
from anabranch.errors import LayerError
from anabranch.testing.layer_contract import ask_for
from anabranch_git import Git, GitConfig, open_index
from anabranch_git.snippet import snippet

Ask = Callable[..., list[Item]]

CLIENT = '''"""The HTTP client."""
from shop import pool

class Client:
    """Sends requests over pooled connections."""

    def send_request(self, retryCount=3):
        """Send one request, and again after a timeout."""
'''
SYNTAX = re.findall(
    r"\S+", """AND OR NOT NEAR( ) " * ^ : { } - + _ __ % ' / \0 subject: pool a.b"""
)
"""Words and signs that mean something to FTS5, or to nobody."""

GUIDE = """# Guide

Welcome.

## Timeouts

A request ends after five seconds unless you say otherwise.

### Fine tuning

Connect, read and write have timeouts of their own: `connect_timeout`.

## Proxies

See [the list](https://example.org/timeouts) of servers.
"""


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A shop: a client, a pool, documents, and a history that ties some of them together."""
    made = History(tmp_path_factory.mktemp("git") / "shop.git")
    made.repo.remotes.create("origin", "https://me:s3cr3t@example.org/shop.git")
    made.commit("First sketch", {"shop/client.py": "x = 1\n", "shop/__init__.py": ""})
    made.commit(
        "Add connection pool",
        {"shop/pool.py": '"""Keeps connections."""\n', "shop/client.py": "from shop import pool\n"},
        author="Grace Hopper",
    )
    made.commit(
        "Tidy up\n\nThe connection pool gets shorter lines.",
        {"shop/pool.py": '"""Keeps connections.\n"""\n'},
    )
    made.commit("Retry in HttpClient when a timeout occurs", {"shop/client.py": CLIENT})
    made.commit("Guide", {"docs/guide.md": GUIDE}, author="Grace Hopper")
    for n in range(3):
        made.commit(
            f"Tune pool size to {n}",
            {
                "shop/pool.py": f'"""Keeps connections."""\nsize = {n}\n',
                "tests/test_pool.py": str(n),
            },
        )
    made.commit("Bump version", {"VERSION": "2"}, author="Release Bot")
    open_index(config(made, "graph")).update()
    return made


def config(history: History, kind: Any) -> GitConfig:
    return GitConfig(
        kind=kind, repo=str(history.path), index=str(history.path.parent / "index.sqlite")
    )


@pytest.fixture
def ask(history: History) -> Ask:
    def ask(kind: str, text: str, limit: int = 10, **params: Any) -> list[Item]:
        layer = Git(kind, config(history, kind))
        return list(layer.ask(ask_for({"text": text, **params}, limit=limit)).items)

    return ask


def titles(items: list[Item]) -> list[str]:
    return [item.data["title"] for item in items]


class TestEpisodic:
    def test_says_who_what_when_and_where(self, ask: Ask, history: History) -> None:
        (item,) = ask("episodic", "sketch")
        assert item.id.startswith("git:example.org/shop/commit/")
        assert len(item.id) == len("git:example.org/shop/commit/") + 40
        assert item.data == {
            "title": "First sketch",
            "snippet": "",
            "author": "Ada Lovelace",
            "date": "2020-09-14",
            "paths": ["shop/__init__.py", "shop/client.py"],
        }

    def test_a_subject_weighs_more_than_a_body(self, ask: Ask) -> None:
        assert titles(ask("episodic", "connection pool"))[:2] == ["Add connection pool", "Tidy up"]

    def test_having_all_the_words_weighs_more_than_having_some(self, ask: Ask) -> None:
        found = ask("episodic", "who made the pool for a connection?")
        assert titles(found)[0] == "Add connection pool"
        assert found[0].score > found[-1].score
        assert "Tune pool size to 2" in titles(found)

    def test_of_equally_good_ones_the_latest_comes_first(self, ask: Ask) -> None:
        tuned = [t for t in titles(ask("episodic", "tune pool size")) if t.startswith("Tune")]
        assert tuned == ["Tune pool size to 2", "Tune pool size to 1", "Tune pool size to 0"]

    def test_words_are_found_inside_camel_case_and_the_other_way_round(self, ask: Ask) -> None:
        wanted = "Retry in HttpClient when a timeout occurs"
        for text in ("http client", "HttpClient", "retries", "retryTimeout occurs"):
            assert titles(ask("episodic", text))[:1] == [wanted], text

    def test_the_last_word_may_be_unfinished(self, ask: Ask) -> None:
        assert titles(ask("episodic", "connection po"))[0] == "Add connection pool"
        assert titles(ask("episodic", "sket")) == ["First sketch"]

    def test_a_question_for_what_changed_gets_the_latest(self, ask: Ask) -> None:
        latest = titles(ask("episodic", "What has changed recently?", limit=2))
        assert latest == ["Bump version", "Tune pool size to 2"]

    def test_author_since_and_path_narrow_it_down(self, ask: Ask) -> None:
        assert titles(ask("episodic", "", author="grace")) == ["Guide", "Add connection pool"]
        assert titles(ask("episodic", "", since="2020-09-21")) == [
            "Bump version",
            "Tune pool size to 2",
        ]
        assert titles(ask("episodic", "", path="docs")) == ["Guide"]
        assert titles(ask("episodic", "", path="./docs/guide.md")) == ["Guide"]
        assert titles(ask("episodic", "tune", path="client.py")) == []

    def test_merges_of_nothing_known_give_nothing(self, ask: Ask) -> None:
        assert ask("episodic", "kubernetes") == []


class TestSemantic:
    def test_a_heading_weighs_more_than_text(self, ask: Ask) -> None:
        first, *_ = ask("semantic", "timeouts")
        assert first.id == "git:example.org/shop:docs/guide.md#timeouts"
        assert first.data["title"] == "Guide › Timeouts"
        assert first.data["path"] == "docs/guide.md"
        assert first.data["author"] == "Grace Hopper"

    def test_docstrings_are_found_by_name_and_by_what_they_say(self, ask: Ask) -> None:
        wanted = "git:example.org/shop:shop/client.py#Client.send_request"
        assert ask("semantic", "send request")[0].id == wanted
        assert ask("semantic", "how do I send one again after a timeout?")[0].id == wanted

    def test_a_links_target_is_not_text(self, ask: Ask) -> None:
        assert "example.org" not in ask("semantic", "proxies")[0].data["snippet"]
        assert ask("semantic", "example.org") == []

    def test_snake_case_is_one_word_and_its_pieces(self, ask: Ask) -> None:
        for text in ("connect_timeout", "connect timeout", "fine tuning"):
            assert (
                ask("semantic", text)[0].id == "git:example.org/shop:docs/guide.md#fine-tuning"
            ), text

    def test_path_narrows_it_down(self, ask: Ask) -> None:
        assert {i.data["path"] for i in ask("semantic", "timeout", path="docs")} == {
            "docs/guide.md"
        }


class TestGraph:
    def test_a_file_by_name_comes_first_and_then_what_changes_with_it(self, ask: Ask) -> None:
        found = ask("graph", "What changes together with pool.py?")
        assert [item.id for item in found[:3]] == [
            "git:example.org/shop:shop/pool.py",
            "git:example.org/shop:tests/test_pool.py",
            "git:example.org/shop:shop/client.py",
        ]

    def test_ties_say_what_connects_the_files(self, ask: Ask) -> None:
        found = {item.data["path"]: item for item in ask("graph", "shop/client.py")}
        ties = found["shop/pool.py"].data["ties"]
        assert {"relation": "imported by", "path": "shop/client.py", "commits": 0} in ties
        assert {"relation": "changes with", "path": "shop/client.py", "commits": 1} in ties
        assert "imports shop/pool.py" in found["shop/client.py"].data["snippet"]

    def test_files_are_found_by_what_is_written_in_them(self, ask: Ask) -> None:
        assert ask("graph", "what keeps connections?")[0].data["path"] == "shop/pool.py"

    def test_a_path_alone_is_a_question(self, ask: Ask) -> None:
        assert ask("graph", "related files", path="tests")[0].data["path"] == "tests/test_pool.py"

    def test_deleted_files_are_not_shown(self, ask: Ask, tmp_path: Path) -> None:
        history = History(tmp_path / "gone.git")
        history.commit("Both", {"kept.py": "1", "gone.py": "1"})
        history.commit("One", {"gone.py": None})
        open_index(config(history, "graph")).update()
        layer = Git("graph", config(history, "graph"))
        assert titles(list(layer.ask(ask_for({"text": "kept"})).items)) == ["kept.py"]


@pytest.mark.parametrize("kind", ["episodic", "semantic", "graph"])
class TestEveryKind:
    def test_scores_are_between_0_and_1_best_first(self, ask: Ask, kind: str) -> None:
        scores = [item.score for item in ask(kind, "pool of connections with a timeout")]
        assert scores
        assert scores == sorted(scores, reverse=True)
        assert 0 <= scores[-1] <= scores[0] <= 1

    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=st.text(max_size=60) | st.lists(st.sampled_from(SYNTAX)).map(" ".join))
    def test_no_text_is_a_syntax_error(self, ask: Ask, kind: str, text: str) -> None:
        encode(ask(kind, text))

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({}, "text"),
            ({"text": 7}, r"str.*\$\.text"),
            ({"text": "a", "author": []}, r"\$\.author"),
            ({"text": "a", "since": "yesterday"}, "params.since.*write one like 2025-01-31"),
        ],
    )
    def test_wrong_params_are_a_lasting_layer_error(
        self, history: History, kind: str, params: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(LayerError, match=message) as raised:
            Git(kind, config(history, kind)).ask(ask_for(params))
        assert not raised.value.transient

    def test_results_can_be_invalidated_by_repository(self, history: History, kind: str) -> None:
        result = Git(kind, config(history, kind)).ask(ask_for({"text": "pool"}))
        assert result.tags == ("git:example.org/shop",)


async def test_layers_of_one_repository_start_together_and_index_once(tmp_path: Path) -> None:
    history = History(tmp_path / "shop.git")
    history.commit("Add needle", {"needle.md": "# Needle\n\ntext"})
    layers = [Git(kind, config(history, kind)) for kind in ("episodic", "semantic", "graph")]
    await asyncio.gather(*(layer.start() for layer in layers))
    try:
        for layer in layers:
            assert len(layer.ask(ask_for({"text": "needle"})).items) == 1
    finally:
        await asyncio.gather(*(layer.stop() for layer in layers))


async def test_a_running_layer_follows_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_module, "_REFRESH_S", 0.001)
    history = History(tmp_path / "shop.git")
    history.commit("First", {"a.md": "1"})
    layer = Git("episodic", config(history, "episodic"))
    await layer.start()
    history.commit("Needle", {"b.md": "1"})
    async with asyncio.timeout(30):
        while not layer.ask(ask_for({"text": "needle"})).items:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await layer.stop()


async def test_a_repository_that_breaks_leaves_the_layer_answering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(layer_module, "_REFRESH_S", 0.001)
    history = History(tmp_path / "shop.git")
    history.commit("Needle", {"a.md": "1"})
    layer = Git("episodic", config(history, "episodic"))
    await layer.start()
    with caplog.at_level(logging.WARNING):
        (history.path / "HEAD").rename(history.path / "LOST")
        async with asyncio.timeout(30):
            while not caplog.records:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
    assert len(layer.ask(ask_for({"text": "needle"})).items) == 1
    await layer.stop()


async def test_cancelling_a_start_leaves_an_index_that_the_next_one_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(tmp_path / "shop.git")
    history.commit("Needle", {"a.md": "1"})
    layer = Git("episodic", config(history, "episodic"))
    starting = asyncio.ensure_future(layer.start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    await layer.start()
    assert len(layer.ask(ask_for({"text": "needle"})).items) == 1
    await layer.stop()


def test_what_was_answered_before_a_commit_is_invalidated_once_it_is_indexed(
    tmp_path: Path,
) -> None:
    """By each layer for itself, whichever of them did the indexing."""
    made = History(tmp_path / "moves.git")
    made.commit("First", {"a.md": "# One\n"})
    place = {"repo": str(made.path), "index": str(tmp_path / "index")}
    layers = [
        Git("episodic", GitConfig(kind="episodic", **place)),
        Git("semantic", GitConfig(kind="semantic", **place)),
    ]
    told: list[tuple[str, tuple[str, ...]]] = []

    async def body() -> None:
        for layer in layers:
            layer.watch(lambda *tags, name=layer.name: told.append((name, tags)))
            await layer.start()
        told.clear()
        for layer in layers:
            await layer._update(layer_module.silent)
        assert told == [], "nothing has changed"
        made.commit("Second", {"a.md": "# Two\n"})
        for layer in layers:
            await layer._update(layer_module.silent)
        tags = {layer.name: layer.ask(ask_for({"text": "two"})).tags for layer in layers}
        assert told == [(name, tuple(tags[name])) for name in ("episodic", "semantic")]
        for layer in layers:
            await layer.stop()

    asyncio.run(body())


WRITINGS = {
    "ja.md": "# キャッシュ\n\nこの層のキャッシュは無効化できます。取り消しはできません。猫もいる\n",
    "zh.md": "# 缓存\n\n如何使缓存失效:调用接口即可,数据库连接池不受影响。\n",
    "ko.md": "# 캐시\n\n캐시를 무효화하는 방법을 설명한다.\n",
    "th.md": "# แคช\n\nวิธีล้างแคชที่นี่\n",
    "hi.md": "# कैश\n\nहिन्दी में कैश हटाना\n",
    "en.md": "# Cache\n\nKafkaの設定 and the cache.\n",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Asks about documents in scripts with and without spaces."""
    made = History(tmp_path_factory.mktemp("git") / "written.git")
    made.commit("Begin", WRITINGS)
    open_index(config(made, "semantic")).update()

    def ask(kind: str, text: str) -> list[Item]:
        return list(Git(kind, config(made, kind)).ask(ask_for({"text": text})).items)

    return ask


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("無効化", "ja.md"), ("無効", "ja.md"), ("化", "ja.md"), ("猫", "ja.md"), ("る", "ja.md"),
        ("キャッシュの無効化はどうなっていますか", "ja.md"), ("取り消し", "ja.md"),
        ("缓存失效", "zh.md"), ("数据库", "zh.md"), ("如何让缓存失效?", "zh.md"), ("接口", "zh.md"),
        ("무효화", "ko.md"), ("무효화 방법", "ko.md"), ("ล้างแคช", "th.md"), ("ที่นี่", "th.md"),
        ("हिन्दी", "hi.md"), ("हटाना", "hi.md"), ("設定", "en.md"), ("Kafkaの設定", "en.md"),
        ("設定 kafka", "en.md"),
    ],
)  # fmt: skip
def test_text_without_spaces_is_found(written: Ask, text: str, path: str) -> None:
    found = written("semantic", text)
    assert found[0].data["path"] == path
    is_written = all(word in WRITINGS[path].lower() for word in text.lower().split())
    assert found[0].score == (1.0 if is_written else 0.5)


def test_what_is_not_written_is_not_found(written: Ask) -> None:
    for text in ("化無", "หมา", "犬", "效失"):
        assert written("semantic", text) == []


def test_a_snippet_without_spaces_shows_why_it_was_found() -> None:
    text = "あ" * 2_000 + "無効化" + "い" * 2_000
    assert "無効化" in snippet(text, ["無効化"])
    assert len(snippet(text, ["無効化"])) < 260
