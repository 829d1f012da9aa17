"""Tells what happens in a node: JSON lines for programs, bars for who watches, lines now and then for a log.

Names and reasons come from others and are escaped before a terminal shows them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from p2pnode import config
from p2pnode.cli.console import Console
from p2pnode.cli.units import duration_text, rate_text, size_text
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
    PushReceived,
    ServerConnected,
    ServerLost,
    UploadProgress,
)
from p2pnode.torrent.names import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_INTERVAL_S: Final = 10.0  # between two lines about one transfer where no bar is drawn
_ID_DIGITS: Final = 12  # of a node id, enough for a person to tell nodes apart


class Reporter(AbstractContextManager["Reporter"], Protocol):
    """Somebody who is told every event."""

    def show(self, event: NodeEvent) -> None:
        """Take note of one event."""


def open_reporter(console: Console, *, failure_is_raised: bool = False) -> Reporter:
    """The reporter that fits this console.

    With `failure_is_raised` a failed fetch ends the program, which says why itself.
    """
    if console.json:
        return JsonReporter(console)
    if console.is_live:
        return BarReporter(console, failure_is_raised)
    return LineReporter(console, failure_is_raised)


def hashing_progress(
    reporter: Reporter, path: Path, clock: Callable[[], float] = time.monotonic
) -> Callable[[int, int], None]:
    """What tells `reporter` how far the hashing of `path` is, but not more often than anybody can read."""
    next_at = clock() + config.PROGRESS_INTERVAL_S

    def report(done: int, total: int) -> None:
        nonlocal next_at
        if clock() >= next_at:
            next_at = clock() + config.PROGRESS_INTERVAL_S
            reporter.show(HashingProgress(path=path, bytes_done=done, bytes_total=total))

    return report


def address_text(address: tuple[str, int]) -> str:
    """`10.0.0.1:8080`, `[::1]:8080`."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def event_line(event: NodeEvent) -> str | None:
    """What a person is told of an event, if anything."""
    match event:
        case Listening(role="client"):
            return None  # one command long: nobody will dial it
        case Listening():
            return f"{event.role} {_short(event.node_id)} listens on {address_text(event.address)}"
        case ServerConnected():
            return f"connected to server {_short(event.node_id)} at {address_text(event.address)}"
        case ServerLost():
            return f"no server: {printable(event.reason)}; again in {duration_text(event.retry_s)}"
        case PeerConnected(dialed=False, role="peer"):
            return f"{printable(event.name) or 'a peer'} ({_short(event.node_id)}) joined"
        case FileShared():
            return f"offers {printable(event.name)}, {size_text(event.size)}: {event.file_id.hex()}"
        case FileUnshared():
            return f"no longer offers {printable(event.name)}: {printable(event.reason)}"
        case PushReceived():
            return f"is asked to fetch {printable(event.name)}, {size_text(event.size)}"
        case _:
            return _fetch_line(event)


def _fetch_line(event: NodeEvent) -> str | None:
    match event:
        case FetchStarted() if event.bytes_resumed:
            done = f"{size_text(event.bytes_resumed)} of {size_text(event.size)}"
            return f"resuming {printable(event.name)}: {done} are here already"
        case FetchSourceLost():
            return f"lost source {_short(event.node_id)}: {printable(event.reason)}"
        case FetchCompleted():
            rate = rate_text(event.bytes_fetched / max(event.seconds, 0.001))
            took = f"{size_text(event.bytes_fetched)} in {duration_text(event.seconds)}, {rate}"
            parts = [
                took,
                f"from {_peers(len(event.sources))}",
                *_duplicates(event),
                *_limit(event.bottleneck),
            ]
            return f"fetched {printable(event.name)}: {', '.join(parts)}"
        case NodeBanned():
            return f"banned {_short(event.node_id)}: {printable(event.reason)}"
        case FetchFailed():
            what = printable(event.name) or _short(event.file_id)
            return f"could not fetch {what}: {printable(event.reason)}"
        case _:
            return None


def event_warning(event: NodeEvent) -> str | None:
    """What a person must not miss."""
    match event:
        case NodeWarning():
            return printable(event.text)
        case ServerConnected(verified=False):
            return (
                "--no-verify-tls: nobody checked that this is your server; whoever sits on the way can read, "
                f"list and offer files in its place. It proved the node id {event.node_id.hex()}: "
                "give that to --pin and drop --no-verify-tls"
            )
        case _:
            return None


def progress_text(event: FetchProgress) -> str:
    """`81%  131 of 162 GiB  1.9 GiB/s  ETA 16s  6 peers  dup 0.4%  limited by the receiver's disk`."""
    percent = 100 * event.bytes_done // max(event.size, 1)
    left = (event.size - event.bytes_done) / event.rate_bytes_per_s if event.rate_bytes_per_s > 0 else None
    parts = [
        f"{percent:3}%",
        f"{size_text(event.bytes_done)} of {size_text(event.size)}",
        rate_text(event.rate_bytes_per_s),
        f"ETA {duration_text(left)}" if left is not None else "ETA ?",
        _peers(event.peers),
        *_duplicates(event),
        *_limit(event.bottleneck),
    ]
    return "  ".join(parts)


def upload_text(event: UploadProgress) -> str:
    """`to 5f0c1b2a3d4e  1.2 GiB sent  38 MB/s  limited by the network (congestion window)`."""
    parts = [
        f"to {_short(event.node_id)}",
        f"{size_text(event.bytes_sent)} sent",
        rate_text(event.rate_bytes_per_s),
        *_limit(event.bottleneck),
    ]
    return "  ".join(parts)


def hashing_text(event: HashingProgress) -> str:
    """`40% 4.0 GiB of 10.0 GiB hashed`."""
    percent = 100 * event.bytes_done // max(event.bytes_total, 1)
    return f"{percent:3}%  {size_text(event.bytes_done)} of {size_text(event.bytes_total)} hashed"


def _upload_key(event: UploadProgress) -> str:
    return f"{event.file_id.hex()} to {event.node_id.hex()}"


def _short(node_id: bytes) -> str:
    return node_id.hex()[:_ID_DIGITS]


def _limit(bottleneck: Bottleneck | None) -> list[str]:
    return [] if bottleneck is None else [f"limited by {bottleneck.phrase}"]


def _duplicates(event: FetchProgress | FetchCompleted) -> list[str]:
    """What came for nothing, as a part of the file; nothing where that is nothing."""
    return [f"dup {100 * event.duplicate_bytes / event.size:.1f}%"] if event.duplicate_bytes else []


def _peers(count: int) -> str:
    return "1 peer" if count == 1 else f"{count} peers"


class JsonReporter:
    """Every event, one a line, on stdout."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, event: NodeEvent) -> None:
        """Print it."""
        self._console.event(event.to_json())


class LineReporter:
    """Lines on stderr; of a transfer one now and then."""

    def __init__(
        self, console: Console, failure_is_raised: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._failure_is_raised = failure_is_raised
        self._clock = clock
        self._next_line_at: dict[str, float] = {}
        self._server_was_tried = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, event: NodeEvent) -> None:
        """Say it, if it is worth a line."""
        match event:
            case FetchProgress():
                self._now_and_then(event.file_id.hex(), printable(event.name), progress_text(event))
            case UploadProgress(requests=0, rate_bytes_per_s=0):
                self._next_line_at.pop(_upload_key(event), None)
            case UploadProgress():
                self._now_and_then(_upload_key(event), printable(event.name), upload_text(event))
            case HashingProgress():
                self._now_and_then(str(event.path), printable(event.path.name), hashing_text(event))
            case FetchFailed() if self._failure_is_raised:
                pass
            case ServerLost() if not self._server_was_tried:
                self._server_was_tried = True  # whoever waits for the server says why it cannot be reached
            case _:
                self._say(event)

    def _say(self, event: NodeEvent) -> None:
        self._server_was_tried |= isinstance(event, ServerConnected)
        if line := event_line(event):
            self._console.say(line)
        if warning := event_warning(event):
            self._console.warn(warning)

    def _now_and_then(self, key: str, name: str, text: str) -> None:
        """The first line comes only when a transfer lasts: a short one needs none."""
        now = self._clock()
        due = self._next_line_at.setdefault(key, now + LINE_INTERVAL_S)
        if now >= due:
            self._next_line_at[key] = now + LINE_INTERVAL_S
            self._console.say(f"{name}  {text}")


class BarReporter(LineReporter):
    """A bar for each transfer that runs, and the lines above them. Needs a terminal."""

    def __init__(self, console: Console, failure_is_raised: bool = False) -> None:
        super().__init__(console, failure_is_raised)
        self._progress = _bars(console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, event: NodeEvent) -> None:
        """Move a bar or say a line."""
        match event:
            case FetchProgress():
                name = printable(event.name)
                self._move(event.file_id.hex(), name, event.bytes_done, event.size, progress_text(event))
            case UploadProgress(requests=0, rate_bytes_per_s=0):
                self._remove(_upload_key(event))
            case UploadProgress():
                self._move(_upload_key(event), printable(event.name), 0, None, upload_text(event))
            case HashingProgress():
                name = printable(event.path.name)
                self._move(str(event.path), name, event.bytes_done, event.bytes_total, hashing_text(event))
            case _:
                self._drop(event)
                super().show(event)

    def _move(self, key: str, name: str, done: int, total: int | None, text: str) -> None:
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(name, total=total, text=text)
        self._progress.update(self._tasks[key], completed=done, total=total, text=text)
        self._progress.refresh()

    def _drop(self, event: NodeEvent) -> None:
        """Take away the bar of what ended."""
        match event:
            case FetchCompleted() | FetchFailed():
                self._remove(event.file_id.hex())
            case FileShared():
                self._remove(str(event.path))

    def _remove(self, key: str) -> None:
        if key in self._tasks:
            self._progress.remove_task(self._tasks.pop(key))
            self._progress.refresh()


def _bars(console: Console) -> Progress:
    """Bars on stderr that are drawn only when an event comes, by the one thread that there is."""
    from rich.console import Console as RichConsole  # slow to import, and only a terminal needs it
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[text]}", markup=False),
        console=RichConsole(stderr=True, no_color=console.color is False, highlight=False),
        auto_refresh=False,
        redirect_stdout=False,  # stdout is data, even when both are one terminal
    )
