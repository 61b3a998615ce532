"""The implementation that a test of the transport contract runs on."""

from __future__ import annotations

import pytest
from transports import BROKERS, Broker


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Broker:
    return BROKERS[request.param](request)
