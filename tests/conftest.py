"""What tests of several packages share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.batching import BATCHING


@pytest.fixture(params=[True, False], ids=["by runs", "packet by packet"])
def both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run twice: with the batch way of the engine, and without. Endpoints, engines and nodes of tests follow."""
    token = BATCHING.set(request.param)
    yield
    BATCHING.reset(token)
