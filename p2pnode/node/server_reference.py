"""Where a server is and how we trust it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from p2pnode.errors import AddressError
from p2pnode.quic import Trust


@dataclass(frozen=True)
class ServerReference:
    """A server's address as people write it, and the trust in its certificate and node key.

    `address` is `host:port`, `[v6]:port` or `https://host:port`; anything else is an `AddressError`.
    """

    address: str
    trust: Trust

    def __post_init__(self) -> None:
        split_address(self.address)

    @property
    def host(self) -> str:
        """The name or address to dial, and the name that the certificate must bear."""
        return split_address(self.address)[0]

    @property
    def port(self) -> int:
        """The UDP port."""
        return split_address(self.address)[1]


def split_address(text: str) -> tuple[str, int]:
    """Split `host:port`; the host may be a bracketed IPv6 address, with or without `https://` in front."""
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        host, port = parts.hostname, parts.port
        if parts.scheme in ("", "https") and host and port and parts.path in ("", "/"):
            return host, port
    except ValueError:  # a bracket that is not closed, or a port that is no number
        pass
    raise AddressError(
        f"{text!r} is no server address: write HOST:PORT or [IPV6]:PORT, with a port of 1 to 65535"
    )
