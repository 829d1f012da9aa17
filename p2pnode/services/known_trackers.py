"""Trust on first use: the key that a tracker showed first is the key that it must show from then on.

A line of the file is an address and the pin of a certificate's key, `127.0.0.1:7001 5f0c…`, as in OpenSSH's
`known_hosts`. Of a tracker whose certificate an authority vouches for it says `ca`: its key may change, but from then
on an authority must vouch for it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from p2pnode.errors import StorageError, TrustError
from p2pnode.quic import SystemTrust, Trust, pin_of_certificate
from p2pnode.storage.faults import translated

_LINE: Final = re.compile(r"(\S+) ([0-9a-f]{64}|ca)")
_VOUCHED_FOR: Final = b""  # in place of a pin
_FILE_MODE: Final = 0o600

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownTrackers:
    """The file at `path`, made when it is needed; `say` is told of each pin that is written down."""

    path: Path
    say: Callable[[str], None]

    def trust(self, address: str) -> Trust:
        """What to think of whoever answers at `address`, "host:port"."""
        return _FirstUseTrust(self, address.lower())

    def pin_of(self, address: str) -> bytes | None:
        """The pin of an address, empty for one that was vouched for; None: not met yet.

        StorageError for a file that cannot be read or makes no sense.
        """
        with translated("read", self.path):
            try:
                lines = self.path.read_text("utf-8", "replace").splitlines()
            except FileNotFoundError:
                return None
        for number, line in enumerate(lines, 1):
            match = _LINE.fullmatch(line)
            if match is None:
                raise StorageError(f"{self.path}, line {number}, is no address and pin: remove it")
            if match[1] == address:  # the first counts, should two processes have met a tracker at once
                return _VOUCHED_FOR if match[2] == "ca" else bytes.fromhex(match[2])
        return None

    def remember(self, address: str, pin: bytes) -> None:
        """Write a pin down, or that an authority vouched, durably. StorageError."""
        line = f"{address} {pin.hex() or 'ca'}\n".encode()
        with translated("write", self.path):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
            try:
                os.write(fd, line)
                os.fsync(fd)
            finally:
                os.close(fd)
        if pin == _VOUCHED_FOR:
            return
        self.say(
            f"first use of {address}: its key is pinned, {pin.hex()}; another one will be refused "
            f"(kept in {self.path})"
        )


@dataclass(frozen=True)
class _FirstUseTrust:
    """One tracker's. The file is small, and it is read once for each dial."""

    known: KnownTrackers
    address: str

    def check_certificate(self, chain: list[x509.Certificate], server_name: str | None) -> bool:
        """True, or `TrustError`; StorageError where the file cannot be used."""
        pin = pin_of_certificate(chain[0])
        known = self.known.pin_of(self.address)
        if known is None:
            is_vouched_for = _is_vouched_for(chain, server_name)
            self.known.remember(self.address, _VOUCHED_FOR if is_vouched_for else pin)
        elif known == _VOUCHED_FOR:
            if not _is_vouched_for(chain, server_name):
                raise TrustError(
                    f"an authority vouched for {self.address} at first use, and none does now; if that was meant to "
                    f"change, remove its line from {self.known.path} or give --pin {pin.hex()}, else somebody sits in "
                    "between"
                )
        elif known != pin:
            raise TrustError(
                f"{self.address} shows another key than at first use; if it was meant to change, remove its line "
                f"from {self.known.path} or give --pin {pin.hex()}, else somebody sits in between"
            )
        return True

    def check_node_id(self, node_id: bytes, certificate_trusted: bool) -> None:
        """The certificate was enough."""


def _is_vouched_for(chain: list[x509.Certificate], server_name: str | None) -> bool:
    try:
        return SystemTrust().check_certificate(chain, server_name)
    except TrustError as error:
        log.info("no authority vouches for it: %s", error)
        return False
