"""The operator's door: a Unix socket in a server's state directory, for its own user only.

The same frames as on a link, one connection for each request. Whoever can open the socket (mode 0600) may
command the server.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

from p2pnode.errors import NotFound
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.requests import ask_files, ask_peers, order_push
from p2pnode.node.responder import Caller, Responder
from p2pnode.wire.communication import FileItem, PeerReport, PushReport

SOCKET_NAME = "control.sock"


@contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """A name for the socket that fits `sun_path` (108 bytes) however deep the directory lies."""
    path = str(directory / SOCKET_NAME)
    if len(os.fsencode(path)) < 100:
        yield path
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


def _bound_socket(state_dir: Path) -> socket.socket:
    """The socket under its name, for our user only. Without a checkpoint, since the umask is the process's."""
    (state_dir / SOCKET_NAME).unlink(missing_ok=True)
    unbound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        with _short_path(state_dir) as path:
            unbound.bind(path)
    except OSError:
        unbound.close()
        raise
    finally:
        os.umask(mask)
    return unbound


async def serve_operators(
    state_dir: Path,
    responder: Responder,
    caller: Caller,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen until cancelled; a socket that a killed server left is replaced (its directory is locked by us)."""
    listening = trio.socket.from_stdlib_socket(_bound_socket(state_dir))
    listening.listen(16)

    async def answer(stream: trio.SocketStream) -> None:
        await responder.answer(MessageStream(stream), caller)

    try:
        task_status.started()
        await trio.serve_listeners(answer, [trio.SocketListener(listening)])
    finally:
        (state_dir / SOCKET_NAME).unlink(missing_ok=True)


class Operator:
    """Commands to a running server on this machine."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    async def _open(self) -> MessageStream:
        connection = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short_path(self._state_dir) as path:
                await connection.connect(path)
        except OSError as error:
            connection.close()
            raise NotFound(f"no server of yours runs on {self._state_dir}: {error.strerror}") from None
        return MessageStream(trio.SocketStream(connection))

    async def list_files(self, prefix: str = "", *, peer: str = "") -> list[FileItem]:
        """What the server knows, or what one of its peers offers."""
        return await ask_files(self._open, prefix, peer)

    async def list_peers(self) -> list[PeerReport]:
        """Whom the server knows."""
        return await ask_peers(self._open)

    def push(self, reference: str, target: str) -> AsyncGenerator[PushReport, None]:
        """Let peers fetch something; yields what each one does."""
        return order_push(self._open, reference, target)


@asynccontextmanager
async def open_operator(state_dir: Path) -> AsyncIterator[Operator]:
    """Reach the server that runs on this state directory, or raise `NotFound`."""
    operator = Operator(state_dir)
    await (await operator._open()).aclose()
    yield operator
