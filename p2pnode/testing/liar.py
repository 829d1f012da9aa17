"""A node that lies, as a process of its own: it offers what is in a directory, and sends something else.

    python -m p2pnode.testing.liar HOST:PORT SERVERS_NODE_ID FILES_DIR

For trying out how others cope; it says its events on stdout, a line of JSON each, until it is stopped.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

from p2pnode.node.node import Node
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import PinTrust
from p2pnode.testing.disks import Lie, LyingDisk


async def lie(address: str, server_id: str, files_dir: Path) -> None:
    """Offer and lie until cancelled."""
    node = Node(
        files_dir=files_dir,
        listen=("127.0.0.1", 0),
        server=ServerReference(address, PinTrust(server_id)),
        run_blocking=LyingDisk(Lie.BLOCKS).run_blocking,
        name="liar",
    )
    async with node, node.events() as events:
        async for event in events:
            sys.stdout.write(json.dumps(event.to_json()) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    trio.run(lie, sys.argv[1], sys.argv[2], Path(sys.argv[3]))
