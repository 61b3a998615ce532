"""`anabranch.layers.loading`: layers from the configuration."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from anabranch.config.settings import DEFAULT_TTL_MS, LAYER_TTL_MS, Config, load
from anabranch.errors import ConfigError
from anabranch.layers.api import LayerSpec
from anabranch.layers.loading import installed, load_layers
from anabranch.testing.layer_contract import answer, ask_for

SHOP = """
from msgspec import Struct, field
from anabranch.layers.api import Item, layer

class Orders:
    class Config(Struct):
        dsn: str
        pool: int = 2

    def __init__(self, name, config):
        self.name, self.config = name, config

    async def ask(self, request):
        return []

class Plain:
    def __init__(self, name):
        self.name = name

    def ask(self, request):
        return []

class Refusing:
    class Config(Struct):
        dsn: str = ""

    def __init__(self, name, config):
        from anabranch.errors import ConfigError
        raise ConfigError("dsn: nobody listens there; write another")

class Broken(Plain):
    def __init__(self, name):
        raise OSError("disk on fire")

class Mute:
    def __init__(self, name):
        self.name = name

@layer("prices")
async def prices(request):
    return [Item("price:1", 1.0)]

async def plain(request):
    return [Item("plain:1", 1.0)]
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the module `shop`, as the current one, not on the path."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "bad.py").write_text("import no_such_package_anywhere\n")
    (tmp_path / "wrong.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    for name in ("shop", "bad", "wrong"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in ("shop", "bad", "wrong"):
        sys.modules.pop(name, None)


def configured(folder: Path, toml: str, **environ: str) -> Config:
    path = folder / "anabranch.toml"
    path.write_text(toml)
    return load(path.name, environ=environ)


def loaded(folder: Path, toml: str, **environ: str) -> list[LayerSpec]:
    return load_layers(configured(folder, toml, **environ))


def refused(folder: Path, toml: str) -> str:
    with pytest.raises(ConfigError) as raised:
        loaded(folder, toml)
    return str(raised.value)


def test_a_class_is_built_with_its_own_keys(shop: Path) -> None:
    (spec,) = loaded(
        shop, '[layers.orders]\nplugin = "shop:Orders"\ngroup = "io"\ndsn = "x"\npool = 7\n'
    )
    built: Any = spec.layer
    assert (built.name, built.config.dsn, built.config.pool) == ("orders", "x", 7)
    assert spec.group == "io"


def test_a_number_may_come_from_the_environment(shop: Path) -> None:
    (spec,) = loaded(
        shop, '[layers.o]\nplugin = "shop:Orders"\ndsn = "x"\npool = "${POOL}"\n', POOL="9"
    )
    built: Any = spec.layer
    assert built.config.pool == 9


def test_a_class_without_settings_is_built_with_its_name(shop: Path) -> None:
    (spec,) = loaded(shop, '[layers.p]\nplugin = "shop:Plain"\n')
    assert spec.layer.name == "p"


@pytest.mark.parametrize(("name", "target"), [("prices", "prices"), ("any", "plain")])
def test_functions_are_layers(shop: Path, name: str, target: str) -> None:
    (spec,) = loaded(shop, f'[layers.{name}]\nplugin = "shop:{target}"\n')
    assert spec.layer.name == name
    assert len(asyncio.run(answer(spec.layer, ask_for({}))).items) == 1


def test_a_made_layer_keeps_its_name(shop: Path) -> None:
    message = refused(shop, '[layers.costs]\nplugin = "shop:prices"\n')
    assert message == (
        "anabranch.toml: layers.costs: the layer that 'shop:prices' names calls itself 'prices'; "
        "write [layers.prices]"
    )


def test_an_installed_plugin_is_found_by_name(shop: Path) -> None:
    (spec,) = loaded(shop, '[layers.slow]\nplugin = "synthetic"\nlatency_ms = 5\n')
    assert type(spec.layer).__name__ == "Synthetic"


def test_ttl_is_the_layers_own_then_by_name_then_the_default(shop: Path) -> None:
    specs = loaded(
        shop,
        '[layers.meta]\nplugin = "shop:plain"\n[layers.other]\nplugin = "shop:plain"\n'
        '[layers.never]\nplugin = "shop:plain"\nttl_ms = 0\n',
    )
    assert [spec.ttl_ms for spec in specs] == [LAYER_TTL_MS["meta"], DEFAULT_TTL_MS, 0]


def test_only_the_groups_layers_are_imported(shop: Path) -> None:
    config = configured(
        shop,
        '[layers.a]\nplugin = "shop:plain"\ngroup = "io"\n'
        '[layers.b]\nplugin = "no_such_module:B"\ngroup = "cpu"\n',
    )
    assert [spec.layer.name for spec in load_layers(config, "io")] == ["a"]


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ('plugin = "gti"', ["layers.x.plugin", "'gti'", "git, synthetic", "module:Name"]),
        ('plugin = "shp:Orders"', ["layers.x.plugin", "no module 'shp'", "shp.py"]),
        ('plugin = "bad:Orders"', ["layers.x.plugin", "importing bad", "no_such_package_anywhere"]),
        ('plugin = "wrong:Orders"', ["layers.x.plugin", "importing wrong", "ZeroDivisionError"]),
        ('plugin = "shop:Ordres"', ["layers.x.plugin", "shop has no 'Ordres'", "'Orders'"]),
        ('plugin = "shop:"', ["layers.x.plugin", "'shop:'", "module:Name"]),
        ('plugin = "shop:Mute"', ["layers.x.plugin", "Mute is no layer", "ask(request)"]),
        ('plugin = "shop:Orders"', ["layers.x.dsn: is missing"]),
        ('plugin = "shop:Orders"\ndsn = 1\ndns = ""', ["layers.x.dns", "no such key", "'dsn'"]),
        ('plugin = "shop:Orders"\ndsn = ""\npool = []', ["layers.x.pool: expected `int`"]),
        ('plugin = "shop:plain"\ndsn = ""', ["layers.x.dsn", "no such key"]),
        ('plugin = "shop:Refusing"', ["layers.x.dsn: nobody listens there"]),
        ('plugin = "shop:Broken"', ["layers.x: Broken('x', ...) failed with OSError: disk on"]),
        ('plugin = "synthetic"\nlatency = "slow"', ["layers.x.latency", "constant, lognormal"]),
    ],
)
def test_a_wrong_layer_is_refused_with_file_key_and_fix(
    shop: Path, keys: str, parts: list[str]
) -> None:
    message = refused(shop, f"[layers.x]\n{keys}\n")
    assert message.startswith("anabranch.toml: ")
    assert [part for part in parts if part not in message] == [], message


def test_the_file_cannot_set_where_it_was_read_from(shop: Path) -> None:
    assert refused(shop, 'source = "elsewhere"\n').startswith("anabranch.toml: source: ")


def test_installed_plugins_are_listed_with_their_distribution() -> None:
    found = {plugin.name: plugin for plugin in installed()}
    assert found["git"].target == "anabranch_git:Git"
    assert found["synthetic"].distribution == "anabranch"


NO_CONFIG = """
class NoConfig:
    def __init__(self, name, config):
        self.name = name

    def ask(self, request):
        return []


class Odd:
    Config = dict

    def __init__(self, name, config):
        self.name = name
"""


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ('plugin = "odd:NoConfig"\ndsn = "x"', "x.dsn: NoConfig has no settings; give it a class"),
        ('plugin = "odd:NoConfig"', "missing 1 required positional argument: 'config'; NoConfig "),
        ('plugin = "odd:Odd"', "x.plugin: Odd.Config is no msgspec Struct"),
    ],
)
def test_a_class_without_a_config_is_refused_in_one_sentence(
    shop: Path, keys: str, what: str
) -> None:
    (shop / "odd.py").write_text(NO_CONFIG)
    assert what in refused(shop, f"[layers.x]\n{keys}\n")


def test_a_layers_arrays_may_come_from_the_environment(shop: Path) -> None:
    (shop / "listing.py").write_text(
        "from msgspec import Struct\n\n\n"
        "class Listing:\n"
        "    class Config(Struct):\n"
        "        names: list[str]\n"
        "        text: str\n\n"
        "    def __init__(self, name, config):\n"
        "        self.name, self.config = name, config\n\n"
        "    def ask(self, request):\n"
        "        return []\n"
    )
    keys = 'plugin = "listing:Listing"\nnames = "${NAMES}"\ntext = "${NAMES}"\n'
    (spec,) = loaded(shop, f"[layers.x]\n{keys}", NAMES='["a", "b"]')
    built: Any = spec.layer
    assert built.config.names == ["a", "b"]
    assert built.config.text == '["a", "b"]'
