from __future__ import annotations

import errno
import os

import pytest

from p2pnode.errors import DiskFull, StorageError
from p2pnode.storage.faults import storage_error, translated


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_S4_no_room_is_a_full_disk(code: int) -> None:
    with pytest.raises(DiskFull, match="cannot write '/a': no room is left"), translated("write", "/a"):
        raise OSError(code, os.strerror(code))


@pytest.mark.parametrize(
    "code", [errno.EACCES, errno.EROFS, errno.EIO, errno.EXDEV, errno.EMFILE, errno.EBUSY]
)
def test_S5_everything_else_is_one_line_with_a_reason(code: int) -> None:
    error = storage_error(OSError(code, os.strerror(code)), "read", "a\n\x1bb")
    assert type(error) is StorageError
    assert str(error).startswith(r"cannot read 'a\n\x1bb': ")
    assert str(error).isprintable()


def test_an_error_without_a_number_still_has_a_reason() -> None:
    assert str(storage_error(OSError("why"), "read", "a")) == "cannot read 'a': why"


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="mine"), translated("read", "a"):
        raise ValueError("mine")
