"""`p2pnode get` from a `p2pnode peer`: a server without files, a peer that has the file, peer to peer.

It reads, hashes, encrypts, verifies each block, journals, syncs, and publishes under a name.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.measuring import MB, Place, Sample, free_port
from benchmarks.programs import Program


@dataclass(frozen=True)
class GetWay:
    """A `Way`."""

    name: str = "get"
    title: str = "p2pnode get: disk, hashes, journal"
    is_ours: bool = True

    def why_not(self) -> str | None:
        """It is always there."""
        return None

    def measure(self, place: Place) -> Sample:
        """Server, peer and get, once."""
        address = f"127.0.0.1:{free_port()}"
        with ExitStack() as stack:

            def start(*arguments: object) -> Program:
                command = [sys.executable, "-m", "p2pnode", *arguments, "--json"]
                environment = {"XDG_STATE_HOME": str(place.root / "state")}
                return stack.enter_context(
                    Program(command, time_limit_s=place.time_limit_s, environment=environment)
                )

            to_server = ("--server-addr", address, "--server-cert", place.certificate)
            server = start(
                "server", "--addr", address, "--cert", place.certificate, "--files-dir", place.root / "empty"
            )
            server.wait_for('"listening"')
            peer = start("peer", *to_server, "--files-dir", place.source.parent)
            peer.wait_for('"file_shared"')
            get = start("get", place.source.name, *to_server, "-o", place.target, "--wait")
            get.wait_for('"fetch_started"')
            began_at = peer.cpu_s(), get.cpu_s()
            completed = json.loads(get.wait_for('"fetch_completed"'))
            sample = Sample(
                mb_per_s=place.size / completed["seconds"] / MB,
                cpu_s_sender=peer.cpu_s() - began_at[0],
                cpu_s_receiver=get.cpu_s() - began_at[1],
                rss_mb_sender=peer.rss_peak() / MB,
                rss_mb_receiver=get.rss_peak() / MB,
            )
            get.wait_end()
        place.check_target()
        return sample
