"""Options of the tracker's front ends: `tracker` has them on, `server` off, unless they are named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from p2pnode.assembly.front_ends import AiChoice, FrontEndOptions, TrackerOptions
from p2pnode.cli.options import duration, packed, union

_Function = TypeVar("_Function", bound=Callable[..., Any])

QUIC_PORT: Final = 7001
HTTP_PORT: Final = 7000
HTTPS_PORT: Final = 7443
UDP_PORT: Final = 7000
INTERVAL_MIN_S: Final = 30  # more often, announces are most of the traffic
INTERVAL_MAX_S: Final = 24 * 3600
_INFO_HASH: Final = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_PASSKEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class OptionalPort(click.ParamType[int | None]):
    """A port, which may be left out after the flag: then it is the usual one."""

    name = "port"

    def __init__(self, usual: int) -> None:
        self.usual = usual

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Read it; true and false, as a file of settings may have them, are the usual port and none."""
        if isinstance(value, bool):
            return self.usual if value else None
        port = int(str(value)) if str(value).isascii() and str(value).isdigit() else -1
        if not 0 <= port <= 65535:
            self.fail(f"{value!r} is no port: 0 (any) to 65535", param, ctx)
        return port


def port_option(*names: str, usual: int, help: str) -> Callable[[_Function], _Function]:
    """A flag that opens a door at its usual port, or at the one that follows."""
    return click.option(
        *names,
        is_flag=False,
        flag_value=str(usual),
        type=OptionalPort(usual),
        metavar=f"[PORT={usual}]",
        help=help,
    )


def info_hashes(value: str) -> frozenset[bytes]:
    """Read a file with an info hash in hex on each line; `#` begins a comment. Of v2 the first 20 bytes count."""
    words = _words_of(Path(value))
    for number, word in words:
        if not _INFO_HASH.fullmatch(word):
            raise click.BadParameter(f"{value}, line {number}: an info hash has 40 hex digits, of v2 64")
    return frozenset(bytes.fromhex(word)[:20] for _, word in words)


def passkeys(value: str) -> frozenset[str]:
    """Read a passkey, or with `@` before it the path of a file with one on each line."""
    words = _words_of(Path(value[1:])) if value.startswith("@") else [(0, value)]
    for number, word in words:
        if not _PASSKEY.fullmatch(word):
            where = f"{value[1:]}, line {number}: " if number else ""
            raise click.BadParameter(f"{where}a passkey is 1 to 64 letters, digits, - and _")
    return frozenset(word for _, word in words)


def _secret(value: str) -> str:
    """Read a secret, or with `@` before it the first line of the file that has it."""
    if not value.startswith("@"):
        return value
    words = _words_of(Path(value[1:]))
    return words[0][1] if words else ""


def _words_of(path: Path) -> list[tuple[int, str]]:
    """Each line's number and its text without comments, where there is any."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise click.BadParameter(f"{str(path)!r} is no file of text that can be read") from None
    words = ((number, line.partition("#")[0].strip()) for number, line in enumerate(lines, 1))
    return [(number, word) for number, word in words if word]


def interval(value: str) -> float:
    """Read the time between two announces: 30 s to a day."""
    seconds = duration(value)
    if not INTERVAL_MIN_S <= seconds <= INTERVAL_MAX_S:
        raise click.BadParameter(f"{value} is out of range: {INTERVAL_MIN_S} s to {INTERVAL_MAX_S} s")
    return seconds


def front_end_options(function: _Function) -> _Function:
    """`--http` and so on; the function gets `front_ends: FrontEndOptions`, its hosts still empty."""
    return packed(
        "front_ends",
        _front_ends,
        port_option("--http", usual=HTTP_PORT, help="Answer over HTTP/1.1 and HTTP/2, on TCP."),
        port_option("--https", usual=HTTPS_PORT, help="The same over TLS."),
        port_option("--udp", usual=UDP_PORT, help="Answer over UDP as BEP 15 says."),
        click.option(
            "--interval",
            type=interval,
            metavar="SECONDS",
            default="1800",
            show_default=True,
            help="Between two announces over HTTP and UDP.",
        ),
        click.option(
            "--passkey",
            type=passkeys,
            metavar="KEY|@FILE",
            multiple=True,
            help="Only who has one may announce: a private tracker. Repeatable.",
        ),
        click.option(
            "--allow-torrents", type=info_hashes, metavar="FILE", help="Only these info hashes, one a line."
        ),
        click.option("--deny-torrents", type=info_hashes, metavar="FILE", help="None of these info hashes."),
        click.option(
            "--trust-claimed-ip",
            is_flag=True,
            help="Believe the address that a peer claims, not the one its packets come from.",
        ),
        click.option(
            "--announce-url", metavar="URL", help="Of the .torrent files made.  [default: this tracker]"
        ),
        click.option(
            "--web-host",
            metavar="NAME",
            multiple=True,
            help="A name, besides localhost, by which a browser may ask for /stats. Repeatable.",
        ),
        click.option(
            "--public-stats", is_flag=True, help="Show /stats and /metrics to all, not to this site alone."
        ),
        click.option("--ai-url", metavar="URL", help="An OpenAI-compatible service, for queries.  [none]"),
        click.option("--ai-model", metavar="NAME", default="", help="The model that is asked there."),
        click.option("--ai-key", metavar="KEY|@FILE", type=_secret, help="Its key, or the file that has it."),
    )(function)


def _front_ends(
    _context: click.Context,
    *,
    http: int | None,
    https: int | None,
    udp: int | None,
    interval: float,
    passkey: tuple[frozenset[str], ...],
    allow_torrents: frozenset[bytes] | None,
    deny_torrents: frozenset[bytes] | None,
    trust_claimed_ip: bool,
    announce_url: str | None,
    web_host: tuple[str, ...],
    public_stats: bool,
    ai_url: str | None,
    ai_model: str,
    ai_key: str | None,
) -> FrontEndOptions:
    return FrontEndOptions(
        http=None if http is None else ("", http),
        https=None if https is None else ("", https),
        udp=None if udp is None else ("", udp),
        tracker=TrackerOptions(
            interval_s=round(interval),
            passkeys=union(passkey),
            allowed=allow_torrents,
            denied=deny_torrents or frozenset(),
            trust_claimed_hosts=trust_claimed_ip,
        ),
        announce_url=announce_url,
        web_hosts=web_host,
        has_public_statistics=public_stats,
        ai=AiChoice(url=ai_url, model=ai_model, key=ai_key or "") if ai_url else None,
    )


def opened(options: FrontEndOptions, host: str, *, quic: int | None) -> FrontEndOptions:
    """The same at a host, "::" for all addresses, and at the port of the node, where that speaks them too."""
    return replace(
        options,
        quic=None if quic is None else (host, quic),
        http=options.http and (host, options.http[1]),
        https=options.https and (host, options.https[1]),
        udp=options.udp and (host, options.udp[1]),
    )
