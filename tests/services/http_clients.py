"""Servers on loopback, and clients that say exactly the bytes they are told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from p2pnode.quic import Credentials
from p2pnode.services.asgi import Application
from p2pnode.services.http_server import serve_http

Address = tuple[str, int]


@asynccontextmanager
async def serving(
    application: Application, host: str = "127.0.0.1", credentials: Credentials | None = None
) -> AsyncIterator[Address]:
    """A server of `application`; whatever it raises comes out of the block."""
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[Address]]) -> None:
            await serve_http(application, [(host, 0)], credentials=credentials, task_status=task_status)

        [address] = await nursery.start(serve)
        yield address
        nursery.cancel_scope.cancel()


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """What comes until the other side ends it, or breaks it."""
    received = b""
    try:
        while data := await stream.receive_some():
            received += data
    except trio.BrokenResourceError:
        pass
    return received


async def speak(address: Address, *said: bytes) -> bytes:
    """Say this on a fresh connection, and read all that is answered, until the server closes."""
    async with await trio.open_tcp_stream(*address) as stream:
        try:
            for data in said:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass
        return await read_all(stream)


def statuses(answers: bytes) -> list[int]:
    """The status of each answer; the bodies must not look like one."""
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]
