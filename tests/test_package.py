"""What `import p2pnode` offers."""

from __future__ import annotations

import pytest

import p2pnode


def test_every_name_that_is_offered_is_there() -> None:
    for name in p2pnode.__all__:
        assert getattr(p2pnode, name) is not None


def test_a_name_that_is_not_offered_is_said_to_be_missing() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = p2pnode.nonsense
