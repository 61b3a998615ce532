"""The layer contract, on the layers that ship and on a plain function."""

from __future__ import annotations

import pytest
from git_repositories import History

from anabranch.layers.api import Item, Layer, Request, layer
from anabranch.testing.layer_contract import LayerContract, ask_for
from anabranch_git import Git, GitConfig
from anabranch_synthetic import Synthetic, SyntheticConfig


class TestFunction(LayerContract):
    @pytest.fixture
    def layer(self) -> Layer:
        @layer("letters")
        async def letters(request: Request) -> list[Item]:
            return [Item(f"letter:{c}", 1.0 / (n + 1)) for n, c in enumerate("abc")][
                : request.limit
            ]

        return letters

    @pytest.fixture
    def question(self) -> Request:
        return ask_for({"text": "letters"})


class TestSynthetic(LayerContract):
    @pytest.fixture(params=[False, True], ids=["async", "blocking"])
    def layer(self, request: pytest.FixtureRequest) -> Layer:
        return Synthetic("s", SyntheticConfig(latency_ms=1, blocking=request.param))

    @pytest.fixture
    def question(self) -> Request:
        return ask_for({"text": "anything"})


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    made = History(tmp_path_factory.mktemp("contract") / "shop.git")
    for doc in ("A pool.", "A big pool."):
        made.commit(f"Pool: {doc}", {"pool.py": f'"{doc}"', "test_pool.py": f'"Tests {doc}"'})
    return made


class TestGit(LayerContract):
    @pytest.fixture(params=["episodic", "semantic", "graph"])
    def layer(self, request: pytest.FixtureRequest, history: History) -> Layer:
        index = history.path.parent / f"{request.param}.sqlite"
        return Git("git", GitConfig(kind=request.param, repo=str(history.path), index=str(index)))

    @pytest.fixture
    def question(self) -> Request:
        return ask_for({"text": "pool"})
