"""What people name a torrent by, and what nodes make of it."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.node.conftest import Swarm, write_random


async def test_a_ticket_alone_leads_to_the_file(autojump_clock: MockClock, swarm: Swarm) -> None:
    sharing = await swarm.start("10.0.1.1")
    data = write_random(sharing.files_dir / "a.bin", 100_000)
    shared = await sharing.node.share(sharing.files_dir / "a.bin")
    ticket = await sharing.node.ticket(shared.file_id)
    fetching = await swarm.start("10.0.1.2")
    with trio.fail_after(60):
        done = await fetching.node.fetch(str(ticket), to=fetching.files_dir)
    assert done.target.read_bytes() == data
