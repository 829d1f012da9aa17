from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from p2pnode import config
from p2pnode.cli.console import Console
from p2pnode.cli.progress import (
    LINE_INTERVAL_S,
    BarReporter,
    JsonReporter,
    LineReporter,
    address_text,
    event_line,
    event_warning,
    hashing_progress,
    open_reporter,
    progress_text,
    upload_text,
)
from p2pnode.node.bottleneck import Bottleneck
from p2pnode.node.events import (
    FetchCompleted,
    FetchFailed,
    FetchProgress,
    FetchSourceLost,
    FetchStarted,
    FileShared,
    FileUnshared,
    HashingProgress,
    Listening,
    NodeBanned,
    NodeEvent,
    NodeWarning,
    PeerConnected,
    PeerDisconnected,
    PushReceived,
    ServerConnected,
    ServerLost,
    UploadFinished,
    UploadProgress,
)

FILE_ID = b"\xab" * 32
NODE_ID = b"\xcd" * 32
ADDRESS = ("10.0.0.1", 8080)
HOSTILE = "a\x1b[31m\n\u202eb"
GIB = 2**30

PROGRESS = FetchProgress(
    file_id=FILE_ID, name="model.bin", size=4 * GIB, bytes_done=GIB, rate_bytes_per_s=GIB / 2, peers=6
)
COMPLETED = FetchCompleted(
    file_id=FILE_ID,
    name="model.bin",
    size=4 * GIB,
    target=Path("model.bin"),
    seconds=8.0,
    bytes_fetched=4 * GIB,
    sources={NODE_ID: GIB, FILE_ID: 3 * GIB},
)
UPLOAD = UploadProgress(
    file_id=FILE_ID,
    name="model.bin",
    size=4 * GIB,
    node_id=NODE_ID,
    bytes_sent=GIB,
    rate_bytes_per_s=GIB / 2,
    requests=2,
    bottleneck=Bottleneck.CONGESTION_WINDOW,
)
FAILED = FetchFailed(file_id=FILE_ID, name="model.bin", reason="nobody has it", exit_code=3)
CONNECTED = ServerConnected(address=ADDRESS, node_id=NODE_ID, verified=True, observed_address=ADDRESS)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            Listening(address=("::1", 8080), node_id=NODE_ID, role="server", certificate_pin=NODE_ID),
            "server cdcdcdcdcdcd listens on [::1]:8080",
        ),
        (CONNECTED, "connected to server cdcdcdcdcdcd at 10.0.0.1:8080"),
        (
            ServerLost(address=ADDRESS, reason="nobody listens", retry_s=2.0),
            "no server: nobody listens; again in 2.0s",
        ),
        (
            PeerConnected(node_id=NODE_ID, name="gpu-7", role="peer", address=ADDRESS, dialed=False),
            "gpu-7 (cdcdcdcdcdcd) joined",
        ),
        (PeerConnected(node_id=NODE_ID, name="gpu-7", role="peer", address=ADDRESS, dialed=True), None),
        (PeerDisconnected(node_id=NODE_ID, name="gpu-7", reason="bye"), None),
        (
            FileShared(file_id=FILE_ID, name="a", size=1536, path=Path("a")),
            f"offers a, 1.5 KiB: {FILE_ID.hex()}",
        ),
        (
            FileUnshared(file_id=FILE_ID, name="a", path=Path("a"), reason="it is gone"),
            "no longer offers a: it is gone",
        ),
        (PushReceived(file_id=FILE_ID, name="a", size=1536), "is asked to fetch a, 1.5 KiB"),
        (FetchStarted(file_id=FILE_ID, name="a", size=2048, target=Path("a"), bytes_resumed=0), None),
        (
            FetchStarted(file_id=FILE_ID, name="a", size=2048, target=Path("a"), bytes_resumed=1024),
            "resuming a: 1.0 KiB of 2.0 KiB are here already",
        ),
        (
            FetchSourceLost(file_id=FILE_ID, node_id=NODE_ID, reason="it stalled"),
            "lost source cdcdcdcdcdcd: it stalled",
        ),
        (COMPLETED, "fetched model.bin: 4.0 GiB in 8.0s, 512 MiB/s, from 2 peers"),
        (
            replace(COMPLETED, duplicate_bytes=COMPLETED.size // 50),
            "fetched model.bin: 4.0 GiB in 8.0s, 512 MiB/s, from 2 peers, dup 2.0%",
        ),
        (
            NodeBanned(node_id=NODE_ID, reason="block 3 of piece 1"),
            "banned " + NODE_ID.hex()[:12] + ": block 3 of piece 1",
        ),
        (
            replace(COMPLETED, bottleneck=Bottleneck.SENDER_DISK),
            "fetched model.bin: 4.0 GiB in 8.0s, 512 MiB/s, from 2 peers, limited by the sender's disk",
        ),
        (FAILED, "could not fetch model.bin: nobody has it"),
        (UPLOAD, None),
        (UploadFinished(file_id=FILE_ID, name="a", node_id=NODE_ID, bytes_sent=1, seconds=1.0), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, NodeEvent) else "",
)
def test_each_event_has_its_line_or_none(event: NodeEvent, line: str | None) -> None:
    assert event_line(event) == line


def test_warns_of_what_must_not_be_missed() -> None:
    assert event_warning(NodeWarning(text="disk nearly full")) == "disk nearly full"
    assert event_warning(CONNECTED) is None
    unverified = event_warning(replace(CONNECTED, verified=False))
    assert unverified is not None
    assert "--no-verify-tls" in unverified
    assert NODE_ID.hex() in unverified


@pytest.mark.parametrize(
    "event",
    [
        PeerConnected(node_id=NODE_ID, name=HOSTILE, role="peer", address=ADDRESS, dialed=False),
        ServerLost(address=ADDRESS, reason=HOSTILE, retry_s=1.0),
        FileShared(file_id=FILE_ID, name=HOSTILE, size=1, path=Path("a")),
        FileUnshared(file_id=FILE_ID, name=HOSTILE, path=Path("a"), reason=HOSTILE),
        PushReceived(file_id=FILE_ID, name=HOSTILE, size=1),
        FetchStarted(file_id=FILE_ID, name=HOSTILE, size=2, target=Path("a"), bytes_resumed=1),
        FetchSourceLost(file_id=FILE_ID, node_id=NODE_ID, reason=HOSTILE),
        replace(COMPLETED, name=HOSTILE),
        replace(FAILED, name=HOSTILE, reason=HOSTILE),
        replace(PROGRESS, name=HOSTILE),
        replace(UPLOAD, name=HOSTILE),
        NodeWarning(text=HOSTILE),
    ],
    ids=lambda event: type(event).__name__,
)
def test_C4_names_from_others_are_escaped(event: NodeEvent, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    reporter = LineReporter(Console(), clock=clock)
    reporter.show(event)
    clock.now += LINE_INTERVAL_S
    reporter.show(event)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\\x1b[31m\\n\\u202eb" in err
    assert not {"\x1b", "\u202e"} & set(err)


def test_shows_an_address_as_it_is_typed() -> None:
    assert address_text(ADDRESS) == "10.0.0.1:8080"
    assert address_text(("fe80::1", 1)) == "[fe80::1]:1"


def test_a_transfer_says_what_a_person_wants_to_know() -> None:
    assert progress_text(PROGRESS) == " 25%  1.0 GiB of 4.0 GiB  512 MiB/s  ETA 6.0s  6 peers"
    limited = replace(PROGRESS, bottleneck=Bottleneck.RECEIVER_DISK)
    assert progress_text(limited) == progress_text(PROGRESS) + "  limited by the receiver's disk"
    twice = replace(PROGRESS, duplicate_bytes=PROGRESS.size // 250)
    assert progress_text(twice) == progress_text(PROGRESS) + "  dup 0.4%"
    waiting = replace(PROGRESS, rate_bytes_per_s=0.0, peers=1)
    assert progress_text(waiting) == " 25%  1.0 GiB of 4.0 GiB  0 B/s  ETA ?  1 peer"


def test_an_upload_says_to_whom_and_what_limits_it() -> None:
    line = "to cdcdcdcdcdcd  1.0 GiB sent  512 MiB/s  limited by the network (congestion window)"
    assert upload_text(UPLOAD) == line


def test_an_empty_file_has_progress_too() -> None:
    assert progress_text(replace(PROGRESS, size=0, bytes_done=0)).startswith("  0%  0 B of 0 B")


def test_json_is_each_event_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonReporter(Console(json=True)) as reporter:
        reporter.show(PROGRESS)
        reporter.show(COMPLETED)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["fetch_progress", "fetch_completed"]
    assert lines[1]["sources"] == {NODE_ID.hex(): GIB, FILE_ID.hex(): 3 * GIB}


def test_without_a_terminal_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with LineReporter(Console(), clock=clock) as reporter:
        for second in range(25):
            clock.now = 100.0 + second
            reporter.show(PROGRESS)
            reporter.show(HashingProgress(path=Path("d/b.bin"), bytes_done=1, bytes_total=4))
            reporter.show(UPLOAD)
        reporter.show(replace(UPLOAD, requests=0, rate_bytes_per_s=0.0))
        clock.now += LINE_INTERVAL_S - 1
        reporter.show(UPLOAD)  # a new one
    err = capsys.readouterr().err
    assert err.count("model.bin   25%") == 2
    assert err.count("model.bin  to cdcdcdcdcdcd") == 2
    assert err.count("b.bin   25%  1 B of 4 B hashed") == 2


def test_a_failure_that_ends_the_program_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    LineReporter(Console()).show(FAILED)
    LineReporter(Console(), failure_is_raised=True).show(FAILED)
    assert capsys.readouterr().err == "could not fetch model.bin: nobody has it\n"


def test_hashing_is_told_no_more_often_than_anybody_can_read(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    report = hashing_progress(JsonReporter(Console(json=True)), Path("a"), clock)
    report(1, 10)
    for done in (2, 3):
        clock.now += config.PROGRESS_INTERVAL_S
        report(done, 10)
        report(done, 10)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["bytes_done"] for line in lines] == [2, 3]


def test_on_a_terminal_bars_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    console = Console()
    reporter = open_reporter(console)
    assert isinstance(reporter, BarReporter)
    with reporter:
        reporter.show(PROGRESS)
        reporter.show(replace(PROGRESS, bytes_done=2 * GIB))
        reporter.show(HashingProgress(path=Path("d/b.bin"), bytes_done=1, bytes_total=4))
        reporter.show(FileShared(file_id=FILE_ID, name="b.bin", size=4, path=Path("d/b.bin")))
        reporter.show(UPLOAD)
        reporter.show(replace(UPLOAD, requests=0, rate_bytes_per_s=0.0))
        reporter.show(COMPLETED)
    before, _, after = terminal.getvalue().rpartition("fetched model.bin")
    assert "50%" in before
    assert "hashed" in before
    assert "sent" in before
    assert "%" not in after
    assert "sent" not in after


def test_the_reporter_fits_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    assert type(open_reporter(Console(json=True))) is JsonReporter
    assert type(open_reporter(Console())) is LineReporter
