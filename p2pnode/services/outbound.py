"""Where we connect because an address stands in a file that somebody else wrote.

A torrent may name trackers on our machine, in our network, or at the address where a cloud keeps its secrets, to make
us send requests that its author cannot send himself. Names are no hint: `2130706433`, `127.1`, and any name whose owner
wishes so, all lead to this machine. So a host is resolved here, what comes out is judged, and who connects gets the
addresses that were judged, and looks nothing up again.

What may be reached depends on who wrote the URL:

===================  ===========  ============================================  ==================  ========
where it leads       by the user  by a torrent                                  by a redirect       example
===================  ===========  ============================================  ==================  ========
the world            yes          yes                                           yes                 1.1.1.1
a site (private)     yes          udp, quic; http only `/announce`, no query    no                  10.0.0.1
this machine         yes          no                                            no                  127.0.0.1
nowhere of the sort  yes          no                                            no                  169.254.…
===================  ===========  ============================================  ==================  ========

A tracker in a company or at home is a common thing, and its torrents work without a word: what a torrent can have sent
there is an announce, and no more. A redirect may also lead back to the very address and port that it came from.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, Self
from urllib.parse import quote, urljoin, urlsplit

from p2pnode import config
from p2pnode.errors import AddressError, Refused
from p2pnode.quic import Address, resolve
from p2pnode.torrent.names import printable
from p2pnode.tracker.addresses import Reach, reach_of

__all__ = ["Author", "Outbound", "Resolve", "ServiceUrl"]

Resolve = Callable[[str, int], Awaitable[list[Address]]]
"""The addresses of a host, in digits, best first; `AddressError`."""

_PORTS: Final = {"http": 80, "https": 443, "udp": None, "quic": None}  # None: it has to be named
_HOST: Final = re.compile(r"[0-9a-z_.-]+|[0-9a-f:.]+")
_TARGET_SAFE: Final = "%/:@!$&'()*+,;=~?[]"


class Author(Enum):
    """Whose words a URL is."""

    USER = auto()  # who uses this program typed it
    TORRENT = auto()  # a torrent, a magnet link
    REDIRECT = auto()  # the server at another URL


@dataclass(frozen=True, slots=True)
class ServiceUrl:
    """A URL in parts, in ASCII. `target` is path and query; neither user name nor fragment is kept."""

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an `http`, `https`, `udp` or `quic` URL. `AddressError`."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
            if not host.isascii():
                host = host.encode("idna").decode("ascii")
        except ValueError:  # also a name that IDNA cannot say
            raise AddressError(f"{printable(url)} is no URL") from None
        if parts.scheme not in _PORTS or not _HOST.fullmatch(host):
            raise AddressError(f"{printable(url)} is no URL of a tracker")
        port = _PORTS[parts.scheme] if port is None else port
        if port is None:
            raise AddressError(f"{printable(url)} names no port")
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        return cls(parts.scheme, host, port, quote(target, safe=_TARGET_SAFE))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def authority(self) -> str:
        """What the `Host` header says: the port only where it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def with_target(self, target: str) -> Self:
        """The same server, asked for something else."""
        return replace(self, target=target)

    def redirected(self, location: str) -> Self:
        """Where a `Location` header leads that was answered here. `AddressError`."""
        try:
            return self.parse(urljoin(str(self), location))
        except ValueError:
            raise AddressError(f"{self.authority} redirects to {printable(location)}, no URL") from None


class Outbound:
    """The policy: gives the addresses of a URL that may be connected to."""

    def __init__(self, resolve: Resolve = resolve) -> None:
        self._resolve = resolve

    async def addresses(
        self, url: ServiceUrl, author: Author, *, redirected_by: Address | None = None
    ) -> tuple[Address, ...]:
        """Those of the host's addresses that may be connected to, best first; at least one.

        `redirected_by` is the address of who answered with a redirect to `url`. Raises `AddressError` for a host that
        does not resolve, `Refused` where no address of it may be reached.
        """
        found = await self._resolve(url.host, url.port)
        allowed = [
            address
            for address in found
            if author is Author.USER or address == redirected_by or _may_reach(address, url, author)
        ]
        if not allowed:
            shown = ", ".join(sorted({host for host, _ in found})) or "no address"
            raise Refused(
                f"{url.authority} leads to {shown}, where no torrent and no redirect sends us: "
                "give its URL yourself if you trust it"
            )
        return tuple(allowed[: config.TRACKER_ADDRESSES_MAX])


def _may_reach(address: Address, url: ServiceUrl, author: Author) -> bool:
    host, port = address
    if port in config.PORTS_NEVER_DIALED:
        return False
    reach = reach_of(host)
    is_plain_announce = url.scheme not in ("http", "https") or url.target == "/announce"
    return reach is Reach.WORLD or (reach is Reach.SITE and author is Author.TORRENT and is_plain_announce)
