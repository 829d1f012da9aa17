"""The files that a tracker seeds, over HTTP: whole, in parts, or only their heads."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from p2pnode import config
from p2pnode.errors import StorageError
from p2pnode.services.network_shares import NetworkShares
from p2pnode.services.seed_files import OpenedFile, SeedFiles
from p2pnode.wire.http_ranges import FileVersion, Part

__all__ = ["SeedFile", "list_seed_files"]

_NEVER_IN_A_NAME: Final = frozenset("/\\\0")


async def list_seed_files(seed_files: SeedFiles, request: Request) -> Response:
    """All names, sorted, as JSON."""
    try:
        return JSONResponse({"files": await seed_files.names()})
    except StorageError:  # whose text names the directory: that is the operator's
        return _refuse(HTTPStatus.INTERNAL_SERVER_ERROR)


class SeedFile:
    """The application (ASGI) behind `/files/{name}`.

    How many bodies are being sent at a time is bounded: each holds a part of its file until its client takes that.
    """

    def __init__(self, seed_files: SeedFiles) -> None:
        self._seed_files = seed_files
        self._shares = NetworkShares(config.HTTP_FILES_MAX, config.HTTP_FILES_PER_NETWORK_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a GET or HEAD. An answer that cannot be finished is left off: its reader sees it cut short."""
        if scope["method"] not in ("GET", "HEAD"):
            await _refuse(HTTPStatus.METHOD_NOT_ALLOWED, allow="GET, HEAD")(scope, receive, send)
            return
        with self._shares.place(scope["client"][0]) as has_place:
            if not has_place:
                answer = _refuse(HTTPStatus.SERVICE_UNAVAILABLE, retry_after=str(config.HTTP_FILES_RETRY_S))
                await answer(scope, receive, send)
                return
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        name: str = scope["path_params"]["name"]
        try:
            # Other languages take the last component of a whole path. Here a path is what it says.
            opened = None if _NEVER_IN_A_NAME & {*name} else await self._seed_files.open(name)
        except StorageError:
            await _refuse(HTTPStatus.INTERNAL_SERVER_ERROR)(scope, receive, send)
            return
        if opened is None:
            await _refuse(HTTPStatus.NOT_FOUND)(scope, receive, send)
            return
        with opened:
            await _send_file(opened, scope, send)


def _refuse(status: HTTPStatus, **headers: str) -> Response:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return PlainTextResponse(f"{status.phrase}\n", status, fields)


async def _send_file(opened: OpenedFile, scope: Scope, send: Send) -> None:
    version = FileVersion(opened.size, opened.modified_ns)
    part = version.part_for(dict(scope["headers"]))
    headers = _headers(opened.name, version, part)
    await send({"type": "http.response.start", "status": part.status, "headers": headers})
    if scope["method"] == "HEAD" or not part.length:
        await send({"type": "http.response.body", "body": b""})
        return
    position, end = part.first, part.first + part.length
    while position < end:
        try:
            data = await opened.read(position, min(config.HTTP_FILE_PART_SIZE, end - position))
        except StorageError:  # it has become shorter: what was promised cannot be kept
            return
        position += len(data)
        await send({"type": "http.response.body", "body": data, "more_body": position < end})


def _headers(name: str, version: FileVersion, part: Part) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"accept-ranges", b"bytes"),
        (b"etag", version.etag),
        (b"last-modified", version.last_modified),
    ]
    if part.status == HTTPStatus.NOT_MODIFIED:
        return headers
    # What a file holds is not guessed from its name: no browser is made to run it.
    content_type = b"application/x-bittorrent" if name.endswith(".torrent") else b"application/octet-stream"
    headers += [(b"content-type", content_type), (b"content-length", b"%d" % part.length)]
    if part.status == HTTPStatus.PARTIAL_CONTENT:
        last = part.first + part.length - 1
        headers.append((b"content-range", b"bytes %d-%d/%d" % (part.first, last, version.size)))
    elif part.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        headers.append((b"content-range", b"bytes */%d" % version.size))
    return headers
