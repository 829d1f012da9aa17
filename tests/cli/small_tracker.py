"""A tracker in a process of its own: `python -m tests.cli.small_tracker SEED_DIR STATE_DIR PORT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

from p2pnode.node.blocking import in_threads
from p2pnode.node.node import Node
from p2pnode.services.h3_door import H3Door
from p2pnode.services.request_log import RequestLog
from p2pnode.services.seed_files import SeedFiles
from p2pnode.services.tracker import Tracker
from p2pnode.services.tracker_http import application
from p2pnode.services.tracker_json import JsonTracker


async def serve(seed_dir: Path, state_dir: Path, port: int) -> None:
    seed_files = SeedFiles(seed_dir, "http://127.0.0.1:7000/announce", run_blocking=in_threads())
    await seed_files.prepare()
    tracker, log = Tracker(), RequestLog()
    door = H3Door(JsonTracker(tracker, seed_files, None, log).respond, application(tracker, seed_files, log))
    async with Node(
        role="server",
        listen=("127.0.0.1", port),
        files_dir=seed_dir,
        state_dir=state_dir,
        connection_services=[door],
    ) as node:
        sys.stdout.write(
            json.dumps({"port": node.listen_address[1], "pin": node.certificate_pin.hex()}) + "\n"
        )
        sys.stdout.flush()
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(serve, Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
