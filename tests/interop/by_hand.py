"""Programs that are too large for every run of the tests: `scripts/interop` installs them and runs this.

    python -m tests.interop.by_hand NPM        NPM: a directory with bittorrent-tracker 9 and @matrixai/quic

Prints a table; the exit code is 1 when anything failed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from p2pnode.errors import P2PNodeError, leaves
from p2pnode.services.announcer import AnnouncedTorrent, Progress, TorrentAnnouncer
from p2pnode.services.outbound import Author
from p2pnode.services.tracker_clients import TrackerClients
from tests.interop.conftest import HELLO, SEEDED, RunningTracker, running_tracker

PATIENCE_S = 60.0
HERE = Path(__file__).parent


class Failure(Exception):
    """Why a program and we did not get on, in a line."""


def expect(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise Failure(f"{what}: {str(found)[:200]!r}, not {str(expected)[:200]!r}")


def run(*command: object, cwd: Path | None = None) -> str:
    """What a program prints, which must end well."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S)
    except FileNotFoundError:
        raise Failure(f"{words[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"{words[0]} did not end within {PATIENCE_S:g} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Failure(f"{words[0]} ended with {done.returncode}: {said[-1] if said else ''}")
    return done.stdout


# -- clients that ask us -----------------------------------------------------------------------------------


def chromium(tracker: RunningTracker, directory: Path) -> None:
    """A page over HTTP/3, from an origin that it may reach by nothing else."""
    certificate = x509.load_pem_x509_certificate(tracker.certificate.read_bytes())
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(spki).digest()).decode()
    origin = f"localhost:{tracker.quic}"
    page = run(
        "chromium",
        "--headless",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        "--disable-gpu",
        f"--user-data-dir={directory}",
        f"--host-resolver-rules=MAP localhost {tracker.host}",
        f"--origin-to-force-quic-on={origin}",
        f"--ignore-certificate-errors-spki-list={pin}",
        "--dump-dom",
        f"https://{origin}/health",
    )
    if "ok" not in page:
        raise Failure(f"it shows {page[-200:]!r}")
    expect(("http/3", "health") in asked(tracker), True, "asked over HTTP/3")


def asked(tracker: RunningTracker) -> set[tuple[str, str]]:
    """Language and kind of what the tracker was asked."""
    with urllib.request.urlopen(f"http://{tracker.host}:{tracker.http}/stats", timeout=PATIENCE_S) as answer:
        return {(one["language"], one["kind"]) for one in json.load(answer)["requests"]}


def gtlsclient(tracker: RunningTracker, directory: Path) -> None:
    """Two files over HTTP/3."""
    names = ("hello_world.txt", "largest.bin")
    urls = [f"https://localhost:{tracker.quic}/files/{name}" for name in names]
    flags = ("--quiet", "--exit-on-all-streams-close", f"--download={directory}")
    run("gtlsclient", *flags, tracker.host, tracker.quic, *urls)
    for name in names:
        expect((directory / name).read_bytes() == {"hello_world.txt": HELLO, **SEEDED}[name], True, name)


def quiche(tracker: RunningTracker, npm: Path) -> None:
    """Files in JSON over QUIC."""
    for name in ("hello_world.txt", "medium.bin"):
        request = json.dumps({"file": name})
        answer = json.loads(run("node", "quiche_client.mjs", tracker.host, tracker.quic, request, cwd=npm))
        expect(bytes(answer["data"]) == {"hello_world.txt": HELLO, **SEEDED}[name], True, name)


def npm_client(url: str, npm: Path) -> None:
    """A seed and a leech announce; the leech hears of the seed, and both are counted."""
    info_hash = os.urandom(20).hex()

    def announce(number: int, left: int) -> dict[str, object]:
        peer_id = f"-IN0001-{number:012}".encode().hex()
        words = (url, info_hash, peer_id, 7000 + number, left)
        answer: dict[str, object] = json.loads(run("node", "bittorrent_tracker_client.mjs", *words, cwd=npm))
        return answer

    expect(announce(1, 0), {"peers": [], "complete": 1, "incomplete": 0}, "a seed")
    expect(announce(2, 5), {"peers": ["127.0.0.1:7001"], "complete": 1, "incomplete": 1}, "a leech")


# -- trackers that we ask ----------------------------------------------------------------------------------


@contextmanager
def listening(command: Sequence[object], port: int) -> Iterator[None]:
    """A tracker, once it listens at `port` over TCP."""
    words = [str(word) for word in command]
    try:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        raise Failure(f"{words[0]} is not installed") from None
    with process:
        try:
            wait_for_port(port)
            yield
        finally:
            process.kill()


def wait_for_port(port: int) -> None:
    for _ in range(100):
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise Failure("it does not listen")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def opentracker(scheme: str, directory: Path) -> None:
    """Our announcers meet at opentracker, which knows of no torrent that is not in its list."""
    info_hash, port = os.urandom(20), free_port()
    directory.chmod(0o755)  # it gives up its rights
    (directory / "whitelist").write_text(f"{info_hash.hex()}\n")
    configuration = directory / "opentracker.conf"
    configuration.write_text(
        f"listen.tcp 127.0.0.1:{port}\n"
        f"listen.udp 127.0.0.1:{port}\n"
        f"access.whitelist {directory / 'whitelist'}\n"
    )
    with listening(["opentracker", "-f", configuration], port):
        trio.run(announcers_meet, f"{scheme}://127.0.0.1:{port}/announce", info_hash)


def npm_server(scheme: str, npm: Path) -> None:
    """Our announcers meet at npm's bittorrent-tracker."""
    port = free_port()
    info_hash = os.urandom(10).hex().encode()  # it answers a scrape of bytes that are no ASCII with others
    program = npm / "node_modules" / ".bin" / "bittorrent-tracker"
    with listening([program, "--http", "--udp", "--quiet", "--port", port], port):
        trio.run(announcers_meet, f"{scheme}://127.0.0.1:{port}/announce", info_hash)


async def announcers_meet(url: str, info_hash: bytes) -> None:
    """One of ours hears of another, and what they say when they leave is heard."""
    clients = TrackerClients(Random())

    def announcer(
        port: int, left: int, found: Callable[[Sequence[tuple[str, int]]], None]
    ) -> TorrentAnnouncer:
        torrent = AnnouncedTorrent(info_hash, ((url,),), b"-IN0001-%012d" % port, port, typed=(url,))
        return TorrentAnnouncer(torrent, clients.client, lambda: Progress(0, 0, left), found, Random(port))

    async def counts() -> tuple[int, int]:
        swarm = (await clients.client(url, Author.USER).scrape([info_hash])).get(info_hash)
        return (0, 0) if swarm is None else (swarm.complete, swarm.incomplete)

    heard: list[tuple[str, int]] = []
    seed, leech = announcer(7711, 0, heard.extend), announcer(7712, 5, heard.extend)
    try:
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for number, one in enumerate((seed, leech)):
                    nursery.start_soon(one.run)
                    await answered(one)
                    expect(await counts(), (1, number), "complete and incomplete")
                seed.stop()
                leech.stop()
            expect(await counts(), (0, 0), "complete and incomplete when both have left")
    except trio.TooSlowError:
        raise Failure(f"no answer within {PATIENCE_S:g} s") from None
    expect(("127.0.0.1", 7711) in heard, True, "the leech heard of the seed")


async def answered(announcer: TorrentAnnouncer) -> None:
    while (report := announcer.trackers[0]).complete is None and report.peer_count is None:
        if report.status.failures:
            raise Failure(f"our announcer says {report.status}")
        await trio.sleep(0.05)


# -- the table ---------------------------------------------------------------------------------------------


def checks(tracker: RunningTracker, npm: Path, directory: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each check by its name."""

    def own(name: str) -> Path:
        path = directory / name
        path.mkdir()
        return path

    http = f"http://{tracker.host}:{tracker.http}/announce"
    udp = f"udp://{tracker.host}:{tracker.udp}/announce"
    yield "Chromium: a page over HTTP/3", partial(chromium, tracker, own("chromium"))
    yield "gtlsclient (ngtcp2): files over HTTP/3", partial(gtlsclient, tracker, own("gtlsclient"))
    yield "@matrixai/quic (quiche): files in JSON", partial(quiche, tracker, npm)
    yield "bittorrent-tracker (npm) asks us over HTTP", partial(npm_client, http, npm)
    yield "bittorrent-tracker (npm) asks us over UDP", partial(npm_client, udp, npm)
    for scheme in ("http", "udp"):
        yield f"we ask opentracker over {scheme.upper()}", partial(opentracker, scheme, own(scheme))
    for scheme in ("http", "udp"):
        yield f"we ask bittorrent-tracker (npm) over {scheme.upper()}", partial(npm_server, scheme, npm)


def main(npm: Path) -> int:
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, npm)  # packages are looked for beside the script
    failures = 0
    with tempfile.TemporaryDirectory() as temporary, running_tracker(Path(temporary) / "home") as tracker:
        Path(temporary).chmod(0o755)
        for name, check in checks(tracker, npm, Path(temporary)):
            outcome = "OK"
            try:
                check()
            except* (Failure, P2PNodeError, OSError, ValueError) as reasons:
                outcome = f"FAIL  {next(iter(leaves(reasons)))}"
                failures += 1
            print(f"{name:<44} {outcome}", flush=True)  # noqa: T201
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
