"""Groups on sockets of the operating system."""

from __future__ import annotations

import errno
import os
import socket

import pytest
import trio

from p2pnode.node.lan_sockets import GROUP_IPV4, GROUP_IPV6, GroupSocket


@pytest.mark.parametrize(
    ("family", "host", "group"),
    [(socket.AF_INET, "0.0.0.0", GROUP_IPV4), (socket.AF_INET6, "::", GROUP_IPV6)],
)
async def test_F1_without_a_descriptor_to_list_interfaces_a_word_is_lost_and_nothing_more(
    monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily, host: str, group: str
) -> None:
    asked = 0

    def if_nameindex() -> list[tuple[int, str]]:
        nonlocal asked
        asked += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    heard = trio.socket.socket(family, socket.SOCK_DGRAM)
    own = trio.socket.socket(family, socket.SOCK_DGRAM)
    member = GroupSocket(family, group, host, heard, own)
    monkeypatch.setattr(socket, "if_nameindex", if_nameindex)
    await member.say(b"hello")
    member.close()
    assert asked == 2
