"""What tests of several packages share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.batching import BATCHING

# A machine that has other things to do as well may take any time for an example, or to think of one.
settings.register_profile("timeless", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("timeless")


@pytest.fixture(params=[True, False], ids=["by runs", "packet by packet"])
def both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run twice: with the batch way of the engine, and without. Endpoints, engines and nodes of tests follow."""
    token = BATCHING.set(request.param)
    yield
    BATCHING.reset(token)
