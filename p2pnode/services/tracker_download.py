"""A download as the users of the known tracker know it: by a `.torrent`, through the tracker, verified.

Announce first; ask for the file in JSON; where it is too large for that, fetch it in the nodes' own protocol from
the same server and port. Either way it lands beside the target under a hidden name, each piece is compared with
its hash, and only then it gets its name, which is never taken from other bytes.
"""

from __future__ import annotations

import filecmp
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import trio

from p2pnode import config
from p2pnode.errors import (
    REMOTE_FAULTS,
    ErrorAnswer,
    HashMismatch,
    InvalidData,
    NetworkError,
    NoSource,
    NotFound,
    TargetExists,
    TimedOut,
)
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.events import NodeEvent
from p2pnode.node.node import Node
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.server_reference import ServerReference
from p2pnode.services.tracker_session import TrackerSession, pauses_s
from p2pnode.storage import Verification, confined, publishing, verify_path
from p2pnode.storage.faults import translated
from p2pnode.storage.partial import hidden_name
from p2pnode.torrent import Metainfo, printable
from p2pnode.wire.communication import FileItem
from p2pnode.wire.tracker_answers import file_in
from p2pnode.wire.tracker_json import ErrorCode

STAGED_SUFFIX: Final = ".p2pnode-fetch"  # of what has come, but is not verified yet

log = logging.getLogger(__name__)

OpenNode = Callable[[ServerReference], AbstractAsyncContextManager[Node]]


class Way(StrEnum):
    """How a file came."""

    JSON = "json"
    NODE = "node"
    HERE = "here"  # it had come before


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadAnnounced(NodeEvent):
    """The tracker knows that we download, and told who else there is."""

    name: str
    size: int
    info_hash: bytes
    complete: int
    incomplete: int
    peers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadSwitched(NodeEvent):
    """The tracker does not send the file as JSON: it is fetched in the nodes' own protocol."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadCompleted(NodeEvent):
    """The file has its name. It is only not `verified` where pieces were not to be checked."""

    name: str
    size: int
    target: Path
    seconds: float
    way: Way
    verified: bool
    zero_padded: bool


@dataclass(frozen=True)
class TrackerDownloads:
    """Downloads from one tracker. `open_node` gives a node that knows it as its server."""

    session: TrackerSession
    open_node: OpenNode
    run_blocking: RunBlocking
    publish: Callable[[NodeEvent], None]

    async def ask_for_torrent(self, name: str) -> Metainfo:
        """The torrent that the tracker has under a name; raises what `TrackerSession.request` does, InvalidData."""
        answer = await self.session.request({"file": name})
        try:
            return Metainfo.decode(file_in(answer))
        except InvalidData as error:
            raise type(error)(f"{printable(name)!r}, as the tracker has it: {error}") from None

    async def download(
        self, metainfo: Metainfo, target: Path, *, check_pieces: bool = True
    ) -> DownloadCompleted:
        """Download the file of a torrent to `target`, whose directory is made.

        A target that holds these bytes already is success, one that holds others `TargetExists`. Raises what a
        request raises; `HashMismatch` for a file of another size or with wrong pieces, unless `check_pieces` is
        false; `StorageError`.
        """
        began = trio.current_time()
        if metainfo.is_directory:
            raise InvalidData(f"{printable(metainfo.name)!r} is a directory: `p2pnode get` fetches those")
        await self.run_blocking(_make_directory, target.parent)
        found = await self.run_blocking(_here_already, metainfo, target) if check_pieces else None
        way = Way.HERE
        if found is None:
            async with self._taking_part(metainfo):
                way, arrived = await self._fetch(metainfo, target, check_pieces)
                found = await self.run_blocking(_put_in_place, metainfo, arrived, target, check_pieces)
        size = await self.run_blocking(_size_of, target)
        completed = DownloadCompleted(
            name=metainfo.name,
            size=size,
            target=target,
            seconds=trio.current_time() - began,
            way=way,
            verified=found.is_good,
            zero_padded=found.is_zero_padded,
        )
        self.publish(completed)
        return completed

    @asynccontextmanager
    async def _taking_part(self, metainfo: Metainfo) -> AsyncIterator[None]:
        """Tell the tracker that we begin, and at the end how far we came; that we leave is no reason to fail."""
        info_hash = (metainfo.info_hash_v1 or metainfo.file_id)[:20]  # BEP 52 cuts a v2 hash for trackers
        peers = await self.session.announce(info_hash, left=metainfo.size, event="started")
        self.publish(
            DownloadAnnounced(
                name=metainfo.name,
                size=metainfo.size,
                info_hash=info_hash,
                complete=peers.complete,
                incomplete=peers.incomplete,
                peers=peers.peers,
            )
        )
        done = 0
        try:
            async with open_flat_nursery() as nursery:
                nursery.start_soon(self._stay, info_hash, metainfo.size, peers.interval_s)
                yield
                nursery.cancel_scope.cancel()
            done = metainfo.size
        finally:
            await self._leave(info_hash, metainfo.size, done)

    async def _stay(self, info_hash: bytes, size: int, interval_s: float) -> None:
        """Announce as often as the tracker wants it, or it would forget us; that it fails is no reason to."""
        while True:
            await trio.sleep(interval_s)
            try:
                interval_s = (await self.session.announce(info_hash, left=size)).interval_s
            except REMOTE_FAULTS as error:
                log.info("not announced: %s", error)

    async def _leave(self, info_hash: bytes, size: int, done: int) -> None:
        with trio.move_on_after(config.TRACKER_GOODBYE_S, shield=True):
            try:
                if done:
                    await self.session.announce(info_hash, left=0, downloaded=done, event="completed")
                await self.session.announce(info_hash, left=size - done, downloaded=done, event="stopped")
            except REMOTE_FAULTS:
                return

    # -- two ways ------------------------------------------------------------------------------------------

    async def _fetch(self, metainfo: Metainfo, target: Path, check_size: bool) -> tuple[Way, bytes | Path]:
        """The bytes of the file, or where they are now."""
        try:
            data = file_in(await self.session.request({"file": metainfo.asked_name}))
        except ErrorAnswer as error:
            if error.code != ErrorCode.FILE_TOO_LARGE.value:
                raise
            self.publish(DownloadSwitched(name=metainfo.name, reason=str(error)))
        else:
            if check_size:
                _require_size(metainfo, len(data))
            return Way.JSON, data
        staged = target.with_name(hidden_name(target.name, STAGED_SUFFIX))
        if await self.run_blocking(_is_complete, metainfo, staged):
            return Way.NODE, staged
        pauses = pauses_s(self.session.rng)
        while True:
            try:
                await self._fetch_by_node(metainfo, staged, check_size)
                return Way.NODE, staged
            except (NetworkError, NoSource, TimedOut) as error:
                pause_s = next(pauses, None)
                if pause_s is None:
                    raise
                log.info("fetching %r again: %s", metainfo.name, error)
            await trio.sleep(pause_s)

    async def _fetch_by_node(self, metainfo: Metainfo, staged: Path, check_size: bool) -> None:
        """Fetch over `p2pnode/1`, resuming what an earlier try left."""
        async with self.open_node(self.session.server) as node:
            await node.wait_for_server()
            item = await _listed(node, metainfo.asked_name, metainfo.size)
            if check_size:
                _require_size(metainfo, item.size)
            await node.fetch(item.file_id, to=staged)


async def _listed(node: Node, name: str, size: int) -> FileItem:
    """What the server offers by this name; of several, that of this size. It may still be hashing it: wait."""
    with trio.move_on_after(config.TRACKER_LISTED_WITHIN_S):
        while True:
            found = [item for item in await node.list_files(name) if item.name == name]
            if found:
                return next((item for item in found if item.size == size), found[0])
            await trio.sleep(config.RECONNECT_MIN_S)
    raise NotFound(f"the server has {printable(name)!r}, but offers it in no way that suits its size (yet)")


def _require_size(metainfo: Metainfo, size: int) -> None:
    if size != metainfo.size:
        raise HashMismatch(
            f"{printable(metainfo.name)!r} has {size} bytes there, but the torrent says {metainfo.size}: "
            "--no-check-pieces takes it anyway"
        )


# -- on the disk -------------------------------------------------------------------------------------------


def _make_directory(path: Path) -> None:
    with translated("make the directory", path):
        path.mkdir(parents=True, exist_ok=True)


def _size_of(path: Path) -> int:
    with translated("read", path):
        return path.stat().st_size


def _here_already(metainfo: Metainfo, target: Path) -> Verification | None:
    """How the target was verified; None when there is none. `TargetExists` for other bytes."""
    if not os.path.lexists(target):
        return None
    found = verify_path(metainfo, target)
    if not found.is_good:
        raise _exists(target)
    return found


def _is_complete(metainfo: Metainfo, staged: Path) -> bool:
    """Whether an earlier try left the whole file, and was killed before it gave it its name; else it is removed."""
    if not os.path.lexists(staged):
        return False
    if verify_path(metainfo, staged).is_good:
        return True
    with translated("remove", staged):
        staged.unlink()
    return False


def _put_in_place(
    metainfo: Metainfo, arrived: bytes | Path, target: Path, check_pieces: bool
) -> Verification:
    """Verify what came, beside the target, and give it its name; what is not right is removed."""
    unique = (
        f"{target.name[:64]}-{secrets.token_hex(8)}"  # what came whole is nothing that others could resume
    )
    staged = target.with_name(hidden_name(unique, STAGED_SUFFIX)) if isinstance(arrived, bytes) else arrived
    try:
        if isinstance(arrived, bytes):
            _write(staged, arrived)
        found = verify_path(metainfo, staged)
        if check_pieces and not found.is_good:
            reasons = ", ".join(found.bad_files.values())
            raise HashMismatch(f"{printable(metainfo.name)!r} is not what the torrent says: {reasons}")
        _publish(staged, target)
    finally:
        with translated("remove", staged):
            staged.unlink(missing_ok=True)
    return found


def _write(path: Path, data: bytes) -> None:
    with translated("write", path), path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _publish(staged: Path, target: Path) -> None:
    directory_fd = confined.open_root(target.parent)
    try:
        publishing.publish(directory_fd, staged.name, target.name, is_directory=False)
    except TargetExists:
        if not target.is_file() or not filecmp.cmp(staged, target, shallow=False):
            raise _exists(target) from None
    finally:
        os.close(directory_fd)


def _exists(target: Path) -> TargetExists:
    return TargetExists(f"{str(target)!r} holds other bytes: move it away, or name another output file")
