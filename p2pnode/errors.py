"""Every exception that p2pnode raises on purpose, and the exit code each one ends the program with.

::

    P2PNodeError                      1
    ├── ConfigError                   2   an option, a setting or a file of settings makes no sense
    ├── NotFound                      3   no such file, torrent or peer
    │   └── NoSource                  3   it is known, but nobody who has it can be reached
    ├── TimedOut                      4   nothing happened for too long
    ├── CredentialsError              5   our certificate or key is missing, unreadable or does not match
    ├── TrustError                    5   the other side is not who it should be
    ├── NetworkError                  6   unknown host, port in use, nobody listening
    │   ├── AddressError              6
    │   ├── AddressInUse              6
    │   ├── ConnectFailed             6
    │   └── ConnectionClosed          6   the connection ended; carries code, reason and who ended it
    │       └── StreamReset           6   only this stream ended
    ├── Refused                       8   the other side said no
    │   ├── ErrorAnswer               8   a tracker answered with an error; carries its code
    │   └── Busy                      8   not now; carries after how many seconds to ask again
    ├── StorageError                 10   cannot read or write here
    │   ├── DiskFull                  9
    │   ├── AlreadyInProgress        11   another process or task works on the same target
    │   ├── TargetExists             13   the target holds other bytes; it is never replaced
    │   └── SourceChanged            10   a shared file is no longer what was announced
    ├── InvalidData                  12   a .torrent, a ticket, a magnet link or a journal is malformed
    │   ├── BencodeError             12
    │   ├── MetainfoError            12
    │   └── HashMismatch             12   bytes are not what their hash says
    └── RemoteProtocolError          12   they broke a rule of the protocol: that link ends
    LocalProtocolError                1   we broke one: a bug, so outside the tree, and nothing catches it

0 is success, 2 a usage error (click's own), 130 an interrupt. The texts are one line, say what is wrong and
what to do, and are safe to show.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


class P2PNodeError(Exception):
    """The root: whatever p2pnode raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(P2PNodeError):
    """An option, a setting or a file of settings makes no sense."""

    exit_code = 2


class NotFound(P2PNodeError):
    """No such file, torrent or peer."""

    exit_code = 3


class NoSource(NotFound):
    """It is known, but nobody who has it can be reached."""


class TimedOut(P2PNodeError):
    """Nothing happened for too long."""

    exit_code = 4


class CredentialsError(P2PNodeError):
    """Our own certificate or key is missing, unreadable or does not match."""

    exit_code = 5


class TrustError(P2PNodeError):
    """The other side is not who it should be."""

    exit_code = 5


class NetworkError(P2PNodeError):
    """The network does not do what it should."""

    exit_code = 6


class AddressError(NetworkError):
    """A host or port that is malformed or does not resolve."""


class AddressInUse(NetworkError):
    """Another program listens on the port."""


class ConnectFailed(NetworkError):
    """A dial ended without a connection."""


class ConnectionClosed(NetworkError):
    """The connection ended. `code` is an application or QUIC error code, `by_remote` who ended it."""

    def __init__(self, reason: str = "", *, code: int = 0, by_remote: bool = False) -> None:
        super().__init__(reason or "the connection is closed")
        self.code = code
        self.reason = reason
        self.by_remote = by_remote


class StreamReset(ConnectionClosed):
    """The other side reset this stream or asked us to stop sending (RFC 9000 §3); the connection lives."""


class Refused(P2PNodeError):
    """The other side said no."""

    exit_code = 8


class ErrorAnswer(Refused):
    """A tracker answered with an error. `code` is its word for it, as `FILE_TOO_LARGE`; empty if it gave none."""

    def __init__(self, text: str, *, code: str = "") -> None:
        super().__init__(text)
        self.code = code


class Busy(Refused):
    """Not now; ask again after `retry_after_s` seconds."""

    def __init__(self, text: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class StorageError(P2PNodeError):
    """Cannot read or write here."""

    exit_code = 10


class DiskFull(StorageError):
    """No room on the device."""

    exit_code = 9


class AlreadyInProgress(StorageError):
    """Another process or task works on the same target."""

    exit_code = 11


class TargetExists(StorageError):
    """The target holds other bytes; it is never replaced."""

    exit_code = 13


class SourceChanged(StorageError):
    """A shared file is no longer what was announced."""


class InvalidData(P2PNodeError):
    """A `.torrent`, a ticket, a magnet link or a journal is malformed."""

    exit_code = 12


class BencodeError(InvalidData):
    """Bytes that are not strict bencode (BEP 3)."""


class MetainfoError(InvalidData):
    """A metainfo file that breaks a rule of BEP 3, BEP 52 or our policy."""


class HashMismatch(InvalidData):
    """Bytes are not what their hash says."""


class RemoteProtocolError(P2PNodeError):
    """They broke a rule of the protocol: that link ends."""

    exit_code = 12


class LocalProtocolError(Exception):
    """We broke a rule of the protocol: a bug of ours, which ends the program with its traceback."""


# What a remote can cause. Whoever talks to a remote catches these and nothing wider: the rest is our bug or our disk.
REMOTE_FAULTS = (NetworkError, NotFound, Refused, TimedOut, TrustError, InvalidData, RemoteProtocolError)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, however deep; or the exception itself if it is no group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
