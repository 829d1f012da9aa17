"""`p2pnode client` against a tracker in another process, over real UDP."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import stat
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from p2pnode.assembly.tracker_client import DownloadAnnounced, DownloadCompleted, DownloadSwitched, Way
from p2pnode.cli.client_console import CONTEXT_MESSAGES_MAX, CONTEXT_SIZE_MAX, Conversation
from p2pnode.cli.client_talk import event_line, event_warning, tracker_address
from p2pnode.config import JSON_FILE_SIZE_MAX
from tests.cli.conftest import P2PNode
from tests.cli.processes import PATIENCE_S, Home, new_home
from tests.services.known_torrents import known_torrent

HELLO = b"Hello World from QUIC Server!\n"
LARGE = Random(1).randbytes(JSON_FILE_SIZE_MAX + 1)


@dataclass(frozen=True)
class RunningTracker:
    port: int
    pin: str

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def where(self) -> tuple[str, str]:
        return "127.0.0.1", str(self.port)


@contextmanager
def running_tracker(seed_dir: Path, home: Home, port: int = 0) -> Iterator[RunningTracker]:
    """`p2pnode tracker` on this machine; a `home` of its own is a key of its own."""
    arguments = ["--quic", str(port), "--addr", "127.0.0.1", "--seed-dir", str(seed_dir), "--log-file", "-"]
    with home.running("tracker", *arguments) as process:
        listening = process.first("listening")
        process.first("front_ends_ready")
        yield RunningTracker(listening["address"][1], listening["certificate_pin"])


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTracker]:
    root = tmp_path_factory.mktemp("tracker")
    (root / "seed").mkdir()
    past = time.time() - 60
    for name, data in (("large.bin", LARGE), ("data.json", b'{"a":1}')):
        (root / "seed" / name).write_bytes(data)
        os.utime(root / "seed" / name, (past, past))
    with running_tracker(root / "seed", new_home(root / "home")) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return new_home(tmp_path / "home")


# -- download ----------------------------------------------------------------------------------------------


def test_a_name_is_enough_and_the_tracker_is_pinned_at_first_use(home: Home, tracker: RunningTracker) -> None:
    first = home.run("client", "download", "hello_world.txt", "", *tracker.where)
    assert (first.code, first.out) == (0, "downloaded/hello_world.txt\n")
    assert (home.path / "downloaded" / "hello_world.txt").read_bytes() == HELLO
    assert f"first use of {tracker.address}: its key is pinned, {tracker.pin}" in first.err
    again = home.run("client", "download", "hello_world.txt.torrent", "--server-addr", tracker.address)
    assert (again.code, again.out) == (0, "downloaded/hello_world.txt\n")
    assert "first use" not in again.err
    assert "is here already, verified" in again.err
    log = [json.loads(line) for line in (home.path / "client.log").read_text().splitlines()]
    requests = [line for line in log if line["logger"] == "p2pnode.requests"]
    kinds = ["file", "announce", "file", "announce", "announce", "file"]
    assert [line["kind"] for line in requests] == kinds
    assert {line["outcome"] for line in requests} == {"ok"}


def test_a_torrent_from_windows_is_understood_with_one_warning(home: Home, tracker: RunningTracker) -> None:
    (home.path / "known.torrent").write_bytes(known_torrent("E:\\x\\seed\\hello_world.txt", HELLO).encode())
    outcome = home.run("client", "download", "known", "out/", *tracker.where)
    assert (outcome.code, outcome.out) == (0, "out/known\n")
    assert (home.path / "out" / "known").read_bytes() == HELLO
    assert outcome.err.count("warning") == 1
    assert "against BEP 3" in outcome.err


def test_another_size_is_an_error_that_names_both_unless_anything_will_do(
    home: Home, tracker: RunningTracker
) -> None:
    torrent = known_torrent("..\\seed\\data.json", b"{}")
    (home.path / "data.torrent").write_bytes(torrent.encode())
    arguments = ("client", "download", "data.torrent", "data.json", *tracker.where)
    outcome = home.run(*arguments)
    assert outcome.code == 12
    assert "'data.json' has 7 bytes there, but the torrent says 2" in outcome.err
    assert not (home.path / "data.json").exists()
    outcome = home.run(*arguments, "--no-check-pieces")
    assert (outcome.code, outcome.out) == (0, "data.json\n")
    assert "is not what the torrent says" in outcome.err
    assert (home.path / "data.json").read_bytes() == b'{"a":1}'


def test_a_large_file_comes_in_the_nodes_own_protocol(home: Home, tracker: RunningTracker) -> None:
    outcome = home.run("client", "download", "large.bin", "large", *tracker.where, "--json")
    assert outcome.code == 0
    assert (home.path / "large").read_bytes() == LARGE
    kinds = [event["event"] for event in outcome.events]
    assert kinds[:2] == ["download_announced", "download_switched"]
    assert "fetch_completed" in kinds
    last = outcome.events[-1]
    assert last.pop("seconds") > 0
    assert last == {
        "event": "download_completed",
        "name": "large.bin",
        "size": len(LARGE),
        "target": "large",
        "way": "node",
        "verified": True,
        "zero_padded": False,
    }
    assert sorted(path.name for path in home.path.iterdir() if path.name.startswith(".")) == []


def test_a_changed_certificate_is_refused_in_one_line_that_says_what_to_do(
    home: Home, tmp_path: Path
) -> None:
    with running_tracker(tmp_path / "seed", new_home(tmp_path / "one")) as before:
        assert home.run("client", "download", "hello_world.txt", "a", *before.where).code == 0
    with running_tracker(tmp_path / "seed", new_home(tmp_path / "two"), before.port) as after:
        outcome = home.run("client", "download", "hello_world.txt", "b", *after.where)
        assert outcome.code == 5
        [line] = outcome.err.splitlines()
        assert "shows another key than at first use" in line
        assert f"--pin {after.pin}" in line
        assert not (home.path / "b").exists()
        pinned = home.run("client", "download", "hello_world.txt", "b", *after.where, "--pin", after.pin)
        assert pinned.code == 0


def test_trust_that_was_asked_for_pins_nothing(home: Home, tracker: RunningTracker) -> None:
    blind = home.run("client", "download", "hello_world.txt", "a", *tracker.where, "--no-verify-tls")
    assert blind.code == 0
    assert blind.err.count("warning") == 1
    wrong = home.run("client", "download", "hello_world.txt", "b", *tracker.where, "--pin", "ab" * 32)
    assert wrong.code == 5
    assert tracker.pin in wrong.err
    assert not (home.path / "state" / "p2pnode" / "user" / "known_trackers").exists()


def test_C4_an_error_of_the_tracker_is_escaped(home: Home, tracker: RunningTracker) -> None:
    outcome = home.run("client", "download", "nothing\x1b[31m", "a", *tracker.where, "--json")
    assert outcome.code == 3
    assert outcome.events[-1]["exit_code"] == 3
    assert "\x1b" not in outcome.err
    assert "File not found: nothing" in outcome.err


def test_other_bytes_are_never_replaced(home: Home, tracker: RunningTracker) -> None:
    (home.path / "mine").write_bytes(b"mine")
    outcome = home.run("client", "download", "hello_world.txt", "mine", *tracker.where)
    assert outcome.code == 13
    assert (home.path / "mine").read_bytes() == b"mine"


def test_no_tracker_there_is_said(home: Home) -> None:
    outcome = home.run("client", "download", "x", "y", "no-such-host.invalid", "7001")
    assert outcome.code == 6
    assert len(outcome.err.splitlines()) == 1


# -- console -----------------------------------------------------------------------------------------------


def converse(
    home: Home, tracker: RunningTracker, *lines: str, flags: tuple[str, ...] = ()
) -> tuple[str, str]:
    typed = "".join(line + "\n" for line in lines).encode()
    outcome = home.run("client", "--server-addr", tracker.address, *flags, stdin=typed)
    assert outcome.code == 0, outcome.err
    return outcome.out, outcome.err


def test_a_pipe_gets_answers_and_no_prompts(home: Home, tracker: RunningTracker) -> None:
    out, err = converse(home, tracker, "", "/download hello_world.txt 'a file'", "/status", "/quit", "/nope")
    assert out.splitlines()[0] == "a file"
    assert re.fullmatch(
        rf"{tracker.address}: connected, round trip .* ms; 5 requests, 5 answered, 0 asked again, 1 connections",
        out.splitlines()[1],
    )
    assert (home.path / "a file").read_bytes() == HELLO
    assert ">" not in out
    assert "/nope" not in err


def test_an_error_keeps_it_alive_and_the_end_of_input_ends_it(home: Home, tracker: RunningTracker) -> None:
    lines = ["/nope", '/download "x', "/download", "/download a b c 0", "/download missing"]
    lines += [f"/download {'n' * 300}", f"/download hello_world.txt {'n' * 300}", "\x1b[31m?"]
    out, err = converse(home, tracker, *lines, "/download hello_world.txt out")
    assert out == "out\n"
    errors = [line for line in err.splitlines() if line.startswith("p2pnode: ")]
    assert len(errors) == len(lines)
    assert "AI_UNAVAILABLE" in errors[-1]
    assert "\x1b" not in err


def test_help_and_peers_and_clear(home: Home, tracker: RunningTracker) -> None:
    out, err = converse(home, tracker, "/help", "/?", "/peers", "/clear", "/exit")
    assert out == ""
    assert err.count("/download <torrent_file>") == 2
    assert "no tracker told of any peer" in err


def test_everything_is_an_event_with_json(home: Home, tracker: RunningTracker) -> None:
    out, _ = converse(home, tracker, "/status", "what?", "/download hello_world.txt a", flags=("--json",))
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds == ["tracker_status", "error", "download_announced", "download_completed"]
    assert events[1]["exit_code"] == 8


def test_no_input_at_all_is_an_end(home: Home, tracker: RunningTracker) -> None:
    assert converse(home, tracker) == ("", "")


class Terminal:
    """The console in a pseudo terminal."""

    def __init__(self, home: Home, *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.chdir(home.path)
            environment = home.environment | {"TERM": "xterm", "NO_COLOR": "1"}
            os.execve(sys.executable, [sys.executable, "-m", "p2pnode", *arguments], environment)
        self.seen = ""

    def wait_for(self, text: str) -> None:
        """Read on until this shows; what came before it is forgotten."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.seen:
            assert select.select([self.fd], [], [], deadline - time.monotonic())[0], self.seen
            self.seen += os.read(self.fd, 4096).decode()
        self.seen = self.seen.partition(text)[2]

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def end(self) -> int:
        """Its exit code."""
        with suppress(OSError):  # a terminal of which the other end is closed
            while os.read(self.fd, 4096):
                pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextmanager
def terminal(home: Home, *arguments: str) -> Iterator[Terminal]:
    opened = Terminal(home, *arguments)
    try:
        yield opened
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(opened.pid, signal.SIGKILL)
        os.close(opened.fd)


def test_a_terminal_has_editing_and_a_history(home: Home, tracker: RunningTracker) -> None:
    typed = "/halp\x1b[D\x1b[D\x7fe\r"  # left twice, rub out, and the right letter
    recalled = "\x1b[A\r"  # up: the line before, of the time before
    for keys in (typed, recalled):
        with terminal(home, "client", "--server-addr", tracker.address) as console:
            console.wait_for("p2pnode> ")
            console.type(keys)
            console.wait_for("Everything else is a question")
            console.wait_for("p2pnode> ")
            console.type("\x04")  # end of input
            assert console.end() == 0
    history = home.path / "state" / "p2pnode" / "user" / "client_history"
    assert "/help" in history.read_text().splitlines()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_ctrl_c_at_the_prompt_ends_it_and_leaves_the_terminal_as_it_was(
    home: Home, tracker: RunningTracker
) -> None:
    with terminal(home, "client", "--server-addr", tracker.address) as console:
        before = termios.tcgetattr(console.fd)
        console.wait_for("p2pnode> ")
        console.type("half of a li\x03")
        console.wait_for("interrupted")
        after = termios.tcgetattr(console.fd)
        assert console.end() == 130
        assert before[3] == after[3]


# -- parts -------------------------------------------------------------------------------------------------


def test_what_is_sent_along_is_bounded() -> None:
    conversation = Conversation()
    for number in range(50):
        conversation.add(f"question {number}", f"answer {number}")
    assert len(conversation) == CONTEXT_MESSAGES_MAX
    assert conversation.context[-2:] == [
        {"role": "user", "content": "question 49"},
        {"role": "assistant", "content": "answer 49"},
    ]
    conversation.add("ü" * 3000, "\x00" * 3000)
    assert len(json.dumps(conversation.context)) <= CONTEXT_SIZE_MAX
    conversation.add("x" * 2 * CONTEXT_SIZE_MAX, "y")
    assert conversation.context == [{"role": "assistant", "content": "y"}]
    conversation.clear()
    assert conversation.context == []


def test_C4_names_of_others_are_escaped() -> None:
    name = "a\x1b[31m\n"
    switched = DownloadSwitched(name=name, reason="x")
    announced = DownloadAnnounced(name=name, size=1, info_hash=b"", complete=0, incomplete=0, peers=())
    for way in Way:
        for verified in (True, False):
            completed = DownloadCompleted(
                name=name, size=1, target=Path(), seconds=0.1, way=way, verified=verified, zero_padded=True
            )
            for event in (switched, announced, completed):
                for text in (event_line(event), event_warning(event)):
                    assert text is None or text.isprintable()


@pytest.mark.parametrize(
    ("server", "port", "address"),
    [
        (None, None, "d:1"),
        ("h", None, "h:7001"),
        ("h", 80, "h:80"),
        ("::1", 80, "[::1]:80"),
        (None, 80, "127.0.0.1:80"),
    ],
)
def test_what_is_not_named_is_the_usual(server: str | None, port: int | None, address: str) -> None:
    assert tracker_address(server, port, "d:1") == address


@pytest.mark.parametrize(
    "arguments", [("client", "-h"), ("client", "download", "-h"), ("client", "console", "-h")]
)
def test_help_has_examples(p2pnode: P2PNode, arguments: tuple[str, ...]) -> None:
    outcome = p2pnode(*arguments)
    assert outcome.code == 0
    assert "Examples:" in outcome.out


def test_a_port_that_is_none_is_a_usage_error(p2pnode: P2PNode) -> None:
    assert p2pnode("client", "download", "x", "y", "h", "70000").code == 2
    assert p2pnode("client", "download").code == 2
