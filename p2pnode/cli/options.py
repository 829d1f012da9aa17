"""Options that several verbs take, and the types of their values."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import platformdirs
from click.core import ParameterSource

from p2pnode.assembly import Diagnostics, Impairment
from p2pnode.cli.units import parse_duration, parse_fraction, parse_rate, parse_size
from p2pnode.errors import AddressError, ConfigError, StorageError
from p2pnode.node.lan import LanDiscovery
from p2pnode.node.rate_limits import RateLimits
from p2pnode.torrent import Selection

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Item = TypeVar("_Item")

_NODE_ID: Final = re.compile(r"[0-9a-fA-F]{64}")
_LISTEN: Final = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]]+)):(\d{1,5})")


def size(value: str | int) -> int:
    """Read a size for click: `65536`, `256M`, `1.5GiB`; an int, as TOML may give, is bytes."""
    try:
        return value if isinstance(value, int) else parse_size(value)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


def rate(value: str) -> float | None:
    """Read bytes a second for click: `500k`, `10MB`, `100Mbit`; None for `unlimited`."""
    try:
        return parse_rate(value)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


def duration(value: str | float) -> float:
    """Read a duration for click: `20ms`, `1.5s`; a number, as TOML may give, is seconds."""
    try:
        return parse_duration(str(value))
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


def fraction(value: str | float) -> float:
    """Read a fraction for click: `1%`, `0.01`."""
    try:
        return parse_fraction(str(value))
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


def listen_address(value: str) -> tuple[str, int]:
    """Read where to listen: `host:port`, `[v6]:port`, or `all:port` for every address of both families."""
    match = _LISTEN.fullmatch(value)
    if match is None or int(match[3]) > 65535:
        raise click.BadParameter(f"{value!r} is not host:port, as 0.0.0.0:8080, [::1]:8080 or all:8080")
    host = match[1] or match[2]
    return ("::" if host == "all" else host), int(match[3])


def listen_host(value: str) -> str:
    """Read where to listen: a host, or `all` for every address of both families."""
    return "::" if value == "all" else value.removeprefix("[").removesuffix("]")


def node_ids(value: str) -> frozenset[bytes]:
    """Read a node id, or a file with one on each line; `#` begins a comment."""
    if _NODE_ID.fullmatch(value):
        return frozenset({bytes.fromhex(value)})
    try:
        lines = Path(value).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise click.BadParameter(f"{value!r} is neither 64 hex digits nor a file that can be read") from None
    words = [line.partition("#")[0].strip() for line in lines]
    for number, word in enumerate(words, 1):
        if word and not _NODE_ID.fullmatch(word):
            raise click.BadParameter(f"{value}, line {number}: a node id has 64 hex digits")
    return frozenset(bytes.fromhex(word) for word in words if word)


DIRECTORY: Final = click.Path(file_okay=False, path_type=Path)
FILE: Final = click.Path(path_type=Path)  # whoever reads it says what is wrong with it


def union(groups: Iterable[frozenset[_Item]]) -> frozenset[_Item] | None:
    """All values of a repeated option; None when it was not given at all."""
    listed = tuple(groups)
    return frozenset().union(*listed) if listed else None


@dataclass(frozen=True)
class ServerChoice:
    """Which server, and what makes us believe that it is it; at most one of the last three is set."""

    address: str | None
    pin: str | None = None
    certificate: Path | None = None
    verify: bool = True


def server_options(*, required: bool) -> Callable[[_Function], _Function]:
    """`--server-addr` and the ways to trust it; the function gets them as `server: ServerChoice`."""
    return packed(
        "server",
        _server_choice,
        click.option(
            "--server-addr",
            metavar="HOST:PORT",
            required=required,
            help="The server: host:port, [v6]:port or https://host:port.",
        ),
        click.option("--pin", metavar="HEX", help="Trust the server that has this node id or key hash."),
        click.option("--server-cert", type=FILE, help="Trust the server that shows this certificate."),
        click.option("--no-verify-tls", is_flag=True, help="Trust whoever answers. Says so at each start."),
    )


def diagnostic_options(function: _Function) -> _Function:
    """`--qlog` and SSLKEYLOGFILE; the function gets them as `diagnostics: Diagnostics`."""
    return packed(
        "diagnostics",
        _diagnostics,
        click.option("--qlog", type=DIRECTORY, help="Write a qlog of each connection there, for qvis."),
    )(function)


def limit_options(function: _Function) -> _Function:
    """`--limit-up` and so on, and `--upload-slots`; the function gets them as `limits: RateLimits`."""
    options = [
        click.option(f"--limit-{name}", type=rate, metavar="RATE", help=text)
        for name, text in (
            ("up", "Give no more file bytes a second: 500k, 10MB, 1.5MiB, 100Mbit.  [unlimited]"),
            ("down", "Take no more file bytes a second.  [unlimited]"),
            ("peer", "Neither give to one peer nor take from it more than that.  [unlimited]"),
        )
    ]
    slots = click.option(
        "--upload-slots",
        type=click.IntRange(0),
        metavar="N",
        help="Give to N peers at a time, those who give, and to one more for a try; 0: to all.  [0]",
    )
    return packed("limits", _limits, *options, slots)(function)


def lan_option(function: _Function) -> _Function:
    """`--lan`; the function gets `discoveries: Sequence[Discovery]`."""
    return packed(
        "discoveries",
        lambda _context, *, lan: (LanDiscovery(),) if lan else (),
        click.option(
            "--lan", is_flag=True, help="Find other nodes in this network by multicast, and be found."
        ),
    )(function)


def tracker_option(function: _Function) -> _Function:
    """`--tracker`; the function gets `trackers: tuple[str, ...]`, of which each can be asked."""
    return click.option(
        "--tracker",
        "trackers",
        envvar="P2PNODE_TRACKER",
        type=_tracker,
        multiple=True,
        metavar="URL",
        help="Find other nodes through a tracker: udp://HOST:PORT, http(s)://…/announce, quic://HOST:PORT. Repeatable.",
    )(function)


def _tracker(url: str) -> str:
    from p2pnode.assembly.trackers import check_tracker  # most commands need no trackers

    try:
        check_tracker(url)
    except AddressError as error:
        raise click.BadParameter(str(error)) from None
    return url


def selection_options(function: _Function) -> _Function:
    """`--include`, `--exclude`; the function gets them as `select: Selection`."""
    return packed(
        "select",
        _selection,
        click.option(
            "--include",
            multiple=True,
            metavar="GLOB",
            help="Of a directory only the files that this fits; repeatable. As in .gitignore: '*.jpg', docs/, /src/**.",
        ),
        click.option(
            "--exclude", multiple=True, metavar="GLOB", help="Leave these out, whatever is included."
        ),
    )(function)


def packed(
    name: str, pack: Callable[..., Any], *options: Callable[[_Function], _Function]
) -> Callable[[_Function], _Function]:
    """Give a function one argument `name`, made by `pack` of what the options say."""

    def decorate(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        taken: list[str] = [p.name for p in function.__click_params__[-len(options) :]]  # type: ignore[attr-defined]

        @functools.wraps(function)
        def call(*args: Any, **values: Any) -> Any:
            own = {key: values.pop(key) for key in taken}
            return function(*args, **values, **{name: pack(click.get_current_context(), **own)})

        return call  # type: ignore[return-value]

    return decorate


def _server_choice(
    context: click.Context,
    *,
    server_addr: str | None,
    pin: str | None,
    server_cert: Path | None,
    no_verify_tls: bool,
) -> ServerChoice:
    """Of several ways to trust, that of the best source counts: a flag beats the file of settings."""
    given = {"pin": pin, "server_cert": server_cert, "no_verify_tls": no_verify_tls or None}
    ranks = {
        key: context.get_parameter_source(key) or ParameterSource.DEFAULT
        for key, value in given.items()
        if value is not None
    }
    chosen = [key for key, rank in ranks.items() if rank == min(ranks.values())]
    if len(chosen) > 1:
        flags = " and ".join("--" + key.replace("_", "-") for key in sorted(chosen))
        raise click.UsageError(f"{flags} say two things: give one", context)
    return ServerChoice(
        server_addr,
        pin=pin if chosen == ["pin"] else None,
        certificate=server_cert if chosen == ["server_cert"] else None,
        verify=chosen != ["no_verify_tls"],
    )


def _limits(
    context: click.Context,
    *,
    limit_up: float | None,
    limit_down: float | None,
    limit_peer: float | None,
    upload_slots: int | None,
) -> RateLimits:
    try:
        return RateLimits(up=limit_up, down=limit_down, peer=limit_peer, upload_slots=upload_slots or None)
    except ConfigError as error:
        raise click.UsageError(str(error), context) from None


def _selection(context: click.Context, *, include: tuple[str, ...], exclude: tuple[str, ...]) -> Selection:
    try:
        return Selection(include, exclude)
    except ConfigError as error:
        raise click.UsageError(str(error), context) from None


def _diagnostics(_context: click.Context, *, qlog: Path | None) -> Diagnostics:
    keylog = os.environ.get("SSLKEYLOGFILE")
    if qlog is not None:
        made_directory(qlog)
    batching = os.environ.get("P2PNODE_BATCH") != "0"
    impairment = os.environ.get("P2PNODE_IMPAIR")
    return Diagnostics(
        qlog, Path(keylog) if keylog else None, batching, _impairment(impairment) if impairment else None
    )


def _impairment(text: str) -> Impairment:
    """Read `20ms,1%`: how long each datagram waits before it leaves, and how many of them are lost."""
    delay, _, loss = text.partition(",")
    try:
        return Impairment(parse_duration(delay), parse_fraction(loss or "0"))
    except ConfigError as error:
        raise ConfigError(f"P2PNODE_IMPAIR: {error}") from None


def made_directory(path: Path) -> Path:
    """Make a directory that is missing; StorageError when that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the directory {path}: {error.strerror}") from None
    return path


def absolute(path: Path) -> Path:
    """From the root, without `.` and `..`, so that it has a name; a symbolic link keeps its own."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve() would follow the link)


def state_root() -> Path:
    """`$XDG_STATE_HOME/p2pnode`."""
    return platformdirs.user_state_path("p2pnode")


def service_state_dir(role: str, files_dir: Path) -> Path:
    """The state of the server or peer that offers `files_dir`: a node for each role and directory.

    However a directory is called, it has one node. But `share` offers a link by its own name, beside others.
    """
    place = absolute(files_dir) if role == "share" else Path(os.path.realpath(files_dir))
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()
    return state_root() / f"{role}-{digest[:12]}"


def user_state_dir() -> Path:
    """The state of short commands: one key for each user, shared by all that run at once."""
    return state_root() / "user"
