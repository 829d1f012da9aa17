from __future__ import annotations

import pytest

from p2pnode.errors import TrustError
from p2pnode.quic.guard import Escape, guard


def test_what_is_returned_comes_through() -> None:
    assert guard(divmod, 7, 2) == (3, 1)


def test_what_escapes_is_logged_and_becomes_an_escape(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Escape, match="ZeroDivisionError") as escape:
        guard(divmod, 1, 0)
    assert isinstance(escape.value.__cause__, ZeroDivisionError)
    assert "escaped from" in caplog.text


def test_our_own_errors_are_no_escapes() -> None:
    def refuse() -> None:
        raise TrustError("no")

    with pytest.raises(TrustError, match="no"):
        guard(refuse)


def test_an_interrupt_is_no_escape() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guard(interrupt)
