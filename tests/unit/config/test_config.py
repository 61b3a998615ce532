"""Every configuration error names where the value stands, its key, and what to write."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.config.settings import PRESET_TYPES, Config, TypeConfig, load, provenance
from anabranch.errors import ConfigError


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "anabranch.toml"
        path.write_text(text)
        return path

    return write


def test_without_a_file_the_defaults_are_in_force() -> None:
    config = load(environ={})
    assert config == Config()
    assert config.types == PRESET_TYPES


def test_later_sources_win_key_by_key(write: Any) -> None:
    path = write('[kafka]\nbootstrap = "file:1"\nfetch_max_wait_ms = 7\nrequest_timeout_ms = 8\n')
    config = load(
        path,
        environ={"ANABRANCH_KAFKA__BOOTSTRAP": "env:1", "ANABRANCH_KAFKA__FETCH_MAX_WAIT_MS": "9"},
        overrides={"kafka": {"bootstrap": "call:1"}},
    )
    assert config.kafka.bootstrap == "call:1"
    assert config.kafka.fetch_max_wait_ms == 9
    assert config.kafka.request_timeout_ms == 8
    assert config.source == str(path)


def test_each_key_knows_where_it_was_set(write: Any) -> None:
    path = write('namespace = "a."\n[kafka]\nbootstrap = "b:1"\n')
    found = provenance(
        path,
        environ={"ANABRANCH_KAFKA__BOOTSTRAP": "c:1"},
        overrides={"worker": {"slots": 3}},
    )
    assert found == {
        "namespace": (str(path), "a.", True),
        "kafka.bootstrap": ("ANABRANCH_KAFKA__BOOTSTRAP", "c:1", False),
        "worker.slots": ("command line", 3, False),
    }


def test_reading_changes_neither_the_overrides_nor_a_later_reading(write: Any) -> None:
    overrides = {"kafka": {"client": {"a": 1}}}
    load(
        write("[kafka]\nfetch_max_wait_ms = 5\n"),
        environ={"ANABRANCH_KAFKA__CLIENT__B": "2"},
        overrides=overrides,
    )
    assert overrides == {"kafka": {"client": {"a": 1}}}


def test_a_variable_of_the_command_line_itself_is_no_setting() -> None:
    environ = {"ANABRANCH_CONFIG": "x", "ANABRANCH_DEBUG": "1", "ANABRANCH_KAFKA_HOME": "/y"}
    assert load(environ=environ) == Config()


@pytest.mark.parametrize("text", ["7", "true", "1.5", "[1]", "2024-01-01", 'a"b'])
def test_a_variable_for_a_text_stays_text(text: str) -> None:
    assert load(environ={"ANABRANCH_KAFKA__BOOTSTRAP": text}).kafka.bootstrap == text


def test_variables_are_numbers_booleans_and_lists_as_toml_writes_them() -> None:
    config = load(
        environ={
            "ANABRANCH_COORDINATOR__REPLY_TOPICS": '["a", "b*"]',
            "ANABRANCH_SELECT__CACHE_THRESHOLD": "0.5",
            "ANABRANCH_KAFKA__CLIENT__SASL_MECHANISM": "PLAIN",
        }
    )
    assert config.coordinator.reply_topics == ["a", "b*"]
    assert config.select.cache_threshold == 0.5
    assert config.kafka.client == {"sasl_mechanism": "PLAIN"}


def test_a_plugins_own_keys_are_kept_apart(write: Any) -> None:
    path = write('[layers.x]\nplugin = "git"\ngroup = "io"\nrepo = "${HOME_OF}/r"\ndeep = [1]\n')
    layer = load(path, environ={"HOME_OF": "/srv"}).layers["x"]
    assert layer.group == "io"
    assert layer.settings == {"repo": "/srv/r", "deep": [1]}


def test_a_plugin_may_have_a_key_called_settings(write: Any) -> None:
    path = write('[layers.x]\nplugin = "git"\nsettings = 3\n')
    assert load(path, environ={}).layers["x"].settings == {"settings": 3}


def test_a_file_may_begin_with_a_byte_order_mark(write: Any) -> None:
    assert load(write('\ufeffnamespace = "x."\r\n'), environ={}).namespace == "x."


@pytest.mark.parametrize("odd", ["9" * 5_000, "[" * 5_000, "1e999", ""], ids=len)
def test_a_variable_that_is_no_such_number_is_named(odd: str) -> None:
    with pytest.raises(ConfigError, match=r"^ANABRANCH_WORKER__SLOTS: worker\.slots: expected"):
        load(None, environ={"ANABRANCH_WORKER__SLOTS": odd})


def test_worker_groups_are_those_that_layers_name(write: Any) -> None:
    path = write(
        '[layers.a]\nplugin = "p"\ngroup = "io"\n[layers.b]\nplugin = "p"\n'
        '[layers.c]\nplugin = "p"\ngroup = "io"\n'
    )
    assert load(path, environ={}).groups == ("default", "io")


WRONG_FILES = {
    "no_toml": ("kafka = [", "cannot be read as TOML"),
    "endless_number": (f"mode = {'9' * 5_000}\n", "cannot be read as TOML"),
    "endless_nesting": (f"mode = {'[' * 5_000}\n", "cannot be read as TOML"),
    "unknown_table": ("[kafak]\n", "kafak: there is no such key; did you mean kafka?"),
    "unknown_key": (
        '[kafka]\nbootstrp = "x"\n',
        "kafka.bootstrp: there is no such key; did you mean bootstrap?",
    ),
    "unlike_any_key": (
        "[topics]\nzzz = 1\n",
        "topics.zzz: there is no such key; the keys are queries, tasks, retention_ms",
    ),
    "wrong_type": ('[worker]\nslots = "many"\n', "worker.slots: expected `int`, got `str`"),
    "out_of_range": ("[worker]\nslots = 0\n", "worker.slots: expected `int` >= 1"),
    "choice": (
        '[select]\nmode = "magic"\n',
        "select.mode: invalid enum value 'magic'; write one of rules, learned, shadow",
    ),
    "in_a_list": (
        "[coordinator]\nreply_topics = [1]\n",
        "coordinator.reply_topics[0]: expected `str`, got `int`",
    ),
    "namespace": ('namespace = "team"\n', "namespace: write letters, digits, _ and -, and a dot"),
    "instance": ('instance = "a b"\n', "instance: write letters, digits"),
    "table_expected": ("kafka = 3\n", "kafka: expected `object`, got `int`"),
    "types_no_table": ("types = 3\n", "types: must be a table; write [types.<name>]"),
    "type_no_table": ("[types]\nx = 3\n", "types.x: must be a table; write [types.x]"),
    "type_layers": (
        '[types.x]\nlayers = "a"\n',
        "types.x.layers: expected `array`, got `str`",
    ),
    "type_unknown": (
        '[types.x]\nlayer = ["a"]\n',
        "types.x.layer: there is no such key; did you mean layers?",
    ),
    "type_choice": (
        '[types.x]\nfusion = "sum"\n',
        "types.x.fusion: invalid enum value 'sum'; write one of rrf, score",
    ),
    "type_weights": ('[types.x.weights]\na = "b"\n', "types.x.weights"),
    "layer_no_table": ("[layers]\nx = 3\n", "layers.x: must be a table; write [layers.x]"),
    "layer_plugin": ("[layers.x]\n", 'layers.x.plugin: is missing; write plugin = "git"'),
    "layer_name": (
        '[layers."a b"]\nplugin = "git"\n',
        "layers.a b: a layer's name has letters, digits, _ and -, at most 64",
    ),
    "layer_group": (
        '[layers.x]\nplugin = "git"\ngroup = "a b"\n',
        "layers.x.group: write letters, digits, _ and -",
    ),
    "layer_shards": (
        '[layers.x]\nplugin = "git"\nshards = 0\n',
        "layers.x.shards: expected `int` >= 1",
    ),
    "variable": (
        '[layers.x]\nplugin = "git"\nlist = ["${NOT_SET}"]\n',
        "layers.x.list[0]: the variable NOT_SET is not set; export it",
    ),
    "heartbeat": (
        "[kafka]\nheartbeat_interval_ms = 5000\n",
        "kafka.heartbeat_interval_ms: is 5000; write at most a third of kafka.session_timeout_ms",
    ),
    "source": ('source = "x"\n', "source: there is no such key"),
    "misspelt_layer": (
        '[types.x]\nlayers = ["ordrs"]\n[layers.orders]\nplugin = "p"\n',
        "types.x.layers[0]: no layer 'ordrs' is configured; did you mean 'orders'?",
    ),
    "misspelt_weight": (
        '[types.x.weights]\norder = 2.0\n[layers.orders]\nplugin = "p"\n',
        "types.x.weights.order: no layer 'order' is configured; did you mean 'orders'?",
    ),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_an_error_in_a_file_names_file_key_and_fix(case: str, write: Any) -> None:
    text, message = WRONG_FILES[case]
    path = write(text)
    with pytest.raises(ConfigError) as raised:
        load(path, environ={})
    assert str(raised.value).startswith(f"{path}: {message}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: there is no such file; check --config"):
        load(tmp_path / "nowhere.toml", environ={})


WRONG_VARIABLES = {
    "ANABRANCH_WORKER__SLOTS": ("none", "worker.slots: expected `int`, got `str`"),
    "ANABRANCH_KAFKA__BOOTSTRP": ("x:1", "kafka.bootstrp: there is no such key"),
    "ANABRANCH_NAMESPACE": ("a b", "namespace: write letters"),
    "ANABRANCH_KAFKA": ("x:1", "kafka: expected `object`, got `str`"),
    "ANABRANCH_LAYERS__X__SHARDS": ("2", "layers.x.plugin: is missing"),
    "ANABRANCH_TYPES__X__LAYERS": ("a,b", "types.x.layers: expected `array`, got `str`"),
}


@pytest.mark.parametrize("variable", WRONG_VARIABLES)
def test_an_error_in_the_environment_names_the_variable(variable: str) -> None:
    text, message = WRONG_VARIABLES[variable]
    with pytest.raises(ConfigError) as raised:
        load(environ={variable: text})
    assert message in str(raised.value)
    if "missing" not in message:
        assert str(raised.value).startswith(f"{variable}: ")


def test_the_variable_is_named_when_the_file_sets_the_same_table(write: Any) -> None:
    path = write("[worker]\nqueue = 5\n")
    with pytest.raises(ConfigError, match=r"^ANABRANCH_WORKER__SLOTS: worker\.slots: "):
        load(path, environ={"ANABRANCH_WORKER__SLOTS": "0"})


def test_a_table_set_as_a_whole_and_in_part_is_refused() -> None:
    environ = {"ANABRANCH_KAFKA": "x", "ANABRANCH_KAFKA__BOOTSTRAP": "y"}
    with pytest.raises(
        ConfigError, match="ANABRANCH_KAFKA__BOOTSTRAP: kafka has a variable of its own"
    ):
        load(environ=environ)


def test_an_error_in_the_call_says_so() -> None:
    with pytest.raises(ConfigError, match=r"^command line: kafka\.bootstrap: "):
        load(environ={}, overrides={"kafka": {"bootstrap": 3}})


EXACT = ["pa${HOME}ss", "12345678", "a$$b", "true", "[1]", " x ", "1e3", "\u00fc"]


@pytest.mark.parametrize("text", EXACT)
def test_what_a_variable_says_is_text_exactly(text: str) -> None:
    config = load(
        environ={
            "ANABRANCH_KAFKA__CLIENT__SASL_PLAIN_PASSWORD": text,
            "ANABRANCH_KAFKA__BOOTSTRAP": text,
            "ANABRANCH_LAYERS__X__PLUGIN": "git",
            "ANABRANCH_LAYERS__X__DSN": text,
            "HOME": "/home",
        }
    )
    assert config.kafka.client == {"sasl_plain_password": text}
    assert config.kafka.bootstrap == text
    assert config.layers["x"].settings == {"dsn": text}


@pytest.mark.parametrize("text", EXACT)
def test_what_the_call_says_is_text_exactly(text: str) -> None:
    assert load(environ={}, overrides={"kafka": {"bootstrap": text}}).kafka.bootstrap == text


def test_a_doubled_dollar_in_the_file_is_one(write: Any) -> None:
    path = write(
        '[kafka.client]\na = "$${X}"\nb = "$$$${X}$${X}"\nc = "$$"\nd = "$1"\ne = ["$$"]\n'
    )
    found = load(path, environ={"X": "$$x"}).kafka.client
    assert found == {"a": "${X}", "b": "$${X}${X}", "c": "$", "d": "$1", "e": ["$"]}
    path = write('[kafka.client]\na = "$$${X}"\n')
    assert load(path, environ={"X": "${Y}$$"}).kafka.client == {"a": "$${Y}$$"}


def test_a_layers_numbers_from_variables_are_numbers() -> None:
    environ = {
        "ANABRANCH_LAYERS__X__PLUGIN": "git",
        "ANABRANCH_LAYERS__X__SHARDS": "2",
        "ANABRANCH_TYPES__T__LAYERS": '["x"]',
        "ANABRANCH_TYPES__T__TIMEOUT_MS": "7",
    }
    config = load(environ=environ)
    assert config.layers["x"].shards == 2
    assert config.types["t"] == TypeConfig(layers=["x"], timeout_ms=7)


def test_other_layers_than_those_configured_may_be_served_elsewhere(write: Any) -> None:
    path = write('[types.t]\nlayers = ["elsewhere"]\n[layers.orders]\nplugin = "p"\n')
    assert load(path, environ={}).types["t"].layers == ["elsewhere"]


toml_scalars = st.one_of(st.integers(), st.booleans(), st.text(max_size=5), st.floats())
trees = st.recursive(
    toml_scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["kafka", "layers", "types", "x", "plugin"]), inner),
    ),
)


@given(st.dictionaries(st.sampled_from(["kafka", "layers", "types", "worker", "z"]), trees))
def test_nothing_but_a_config_error_comes_of_any_tree(tree: dict[str, Any]) -> None:
    with suppress(ConfigError):
        load(environ={}, overrides=tree)
