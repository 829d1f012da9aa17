"""nginx and curl over TLS 1.3: the kernel's TCP, and programs in C that have had twenty years."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from socket import SOCK_STREAM, create_connection
from time import monotonic, sleep
from typing import Final

from benchmarks.machine import find_program
from benchmarks.measuring import MB, Failed, Place, Sample, free_port
from benchmarks.programs import Program

START_TIMEOUT_S: Final = 10.0
LOOK_INTERVAL_S: Final = 0.02

CONFIGURATION: Final = """
daemon off;
master_process off;
pid {root}/nginx.pid;
error_log stderr error;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {root}/nginx;
    proxy_temp_path {root}/nginx;
    fastcgi_temp_path {root}/nginx;
    uwsgi_temp_path {root}/nginx;
    scgi_temp_path {root}/nginx;
    sendfile on;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {root}/server.crt;
        ssl_certificate_key {root}/server.key;
        ssl_protocols TLSv1.3;
        root {root}/source;
    }}
}}
"""


@dataclass(frozen=True)
class NginxCurlWay:
    """A `Way`."""

    name: str = "nginx"
    title: str = "nginx and curl over TLS 1.3 (TCP)"
    is_ours: bool = False

    def why_not(self) -> str | None:
        """The first program that is missing."""
        for program in ("nginx", "curl"):
            if find_program(program) is None:
                return f"the program {program} is not installed"
        return None

    def measure(self, place: Place) -> Sample:
        """One download with one connection."""
        port = free_port(SOCK_STREAM)
        configuration = place.root / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(root=place.root, port=port))
        nginx = Program(
            [find_program("nginx"), "-e", "stderr", "-p", place.root, "-c", configuration],
            time_limit_s=place.time_limit_s,
        )
        curl = Program(
            [
                find_program("curl"), "--silent", "--show-error", "--fail", "--tlsv1.3", "--cacert", place.certificate,
                "--output", place.target, "--write-out", "%{json}\\n", f"https://localhost:{port}/{place.source.name}",
                "--resolve", f"localhost:{port}:127.0.0.1",
            ],
            time_limit_s=place.time_limit_s,
        )  # fmt: skip
        with nginx:
            _wait_until_listening(port)
            began_at = nginx.cpu_s()
            with curl, _looking_at(curl):
                report = json.loads(curl.wait_for("time_total"))
                sample = Sample(
                    mb_per_s=place.size / (report["time_total"] - report["time_pretransfer"]) / MB,
                    cpu_s_sender=nginx.cpu_s() - began_at,
                    cpu_s_receiver=curl.cpu_s(),
                    rss_mb_sender=nginx.rss_peak() / MB,
                    rss_mb_receiver=curl.rss_peak() / MB,
                )
        place.check_target()
        return sample


def _wait_until_listening(port: int) -> None:
    deadline = monotonic() + START_TIMEOUT_S
    while monotonic() < deadline:
        try:
            create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            sleep(LOOK_INTERVAL_S)
        else:
            return
    raise Failed(f"nginx did not listen within {START_TIMEOUT_S:.0f} s")


@contextmanager
def _looking_at(program: Program) -> Iterator[None]:
    """Look at the memory of a program that says nothing until it ends."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_INTERVAL_S):
            program.rss_peak()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
