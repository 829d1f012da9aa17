"""How a push ends: by what became of it at each peer."""

from __future__ import annotations

import pytest

from p2pnode.cli.push import _require_complete
from p2pnode.errors import NotFound, Refused

DONE, SAID_NO, FAILED = ("a", "complete"), ("b", "refused"), ("b", "failed")


def test_all_have_it() -> None:
    _require_complete([DONE, DONE])


@pytest.mark.parametrize(
    ("ends", "kind", "exit_code"),
    [
        ([DONE, SAID_NO], Refused, 8),
        ([SAID_NO, SAID_NO], Refused, 8),
        ([DONE, FAILED], NotFound, 3),
        ([SAID_NO, FAILED], NotFound, 3),  # two of one name are two
        ([("b", "fetching")], NotFound, 3),
    ],
)
def test_who_lacks_it_is_named_and_no_is_told_from_failure(
    ends: list[tuple[str, str]], kind: type[Exception], exit_code: int
) -> None:
    lacking = sum(state != "complete" for _, state in ends)
    with pytest.raises(kind, match=f"^{lacking} of {len(ends)} did not get it: b") as caught:
        _require_complete(ends)
    assert caught.value.exit_code == exit_code  # type: ignore[attr-defined]
