"""What can be imported from `anabranch` itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

import anabranch


def test_every_name_can_be_imported_and_is_the_one_of_its_module() -> None:
    for name in anabranch.__all__:
        exported = getattr(anabranch, name)
        home = sys.modules[exported.__module__]
        assert exported is getattr(home, name)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        _ = anabranch.Klient


def test_everything_is_listed_before_it_is_used() -> None:
    assert set(anabranch.__all__) <= set(dir(anabranch))


def test_importing_the_package_imports_no_broker_client() -> None:
    listing = "import sys, anabranch; print('\\n'.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "anabranch" in loaded
    assert not {"aiokafka", "msgspec", "opentelemetry"} & set(loaded)
