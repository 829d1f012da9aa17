"""Who gets what from us now, how fast, and what limits it: told each second, to us and to them.

A requester asks for a torrent a few MiB at a time, so one request says little: all that one link asks of one
torrent, as long as no second passes without, is an `Upload`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from p2pnode import config
from p2pnode.errors import ConnectionClosed
from p2pnode.node.bottleneck import Bottleneck, Task
from p2pnode.node.diagnosis import Activity, UploadDiagnosis
from p2pnode.node.events import NodeEvent, UploadProgress
from p2pnode.node.loop_load import BusySeconds
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.peer_link import PeerLink
from p2pnode.node.sharing import Shared
from p2pnode.quic import Connection
from p2pnode.wire.communication import SendingLimit


class Upload:
    """What one link gets of one torrent."""

    def __init__(self, link: PeerLink, shared: Shared, busy_s: BusySeconds) -> None:
        self.link = link
        self.shared = shared
        self.diagnosis = UploadDiagnosis(shared.store.times, busy_s, link.connection.statistics.sending)
        self.bytes_sent = 0
        self.told: Bottleneck | None = None
        self._bytes_reported = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is asked for, and nothing was sent since the last report."""
        return not self.diagnosis.requests and self.bytes_sent == self._bytes_reported

    def report(self) -> UploadProgress:
        """The last second."""
        size = self.bytes_sent - self._bytes_reported
        self._bytes_reported = self.bytes_sent
        return UploadProgress(
            file_id=self.shared.file_id,
            name=self.shared.name,
            size=self.shared.size,
            node_id=self.link.node_id,
            bytes_sent=self.bytes_sent,
            rate_bytes_per_s=size / config.DIAGNOSIS_INTERVAL_S,
            requests=self.diagnosis.requests,
            bottleneck=self.diagnosis.look(),
        )


class UploadTask:
    """One of the requests of an upload. It waits for what is read ahead, unless it says something else."""

    def __init__(self, upload: Upload, task: Task[Activity]) -> None:
        self._upload = upload
        self.doing = task.doing

    @property
    def shared(self) -> Shared:
        """What is sent."""
        return self._upload.shared

    def count(self, size: int) -> None:
        """So many more bytes of the file are handed over."""
        self._upload.bytes_sent += size


class Uploads:
    """All uploads of a node."""

    def __init__(self, publish: Callable[[NodeEvent], None], busy_s: BusySeconds) -> None:
        self._publish = publish
        self._busy_s = busy_s
        self._uploads: dict[tuple[Connection, bytes], Upload] = {}
        self.limited_s: defaultdict[Bottleneck, float] = defaultdict(float)  # for how long by what

    @contextmanager
    def request(self, link: PeerLink, shared: Shared) -> Iterator[UploadTask]:
        """A request for pieces is under way."""
        key = (link.connection, shared.file_id)
        upload = self._uploads.get(key)
        if upload is None or upload.shared is not shared:  # it was fetched or hashed anew meanwhile
            upload = self._uploads[key] = Upload(link, shared, self._busy_s)
        with upload.diagnosis.request() as task:
            yield UploadTask(upload, task)

    async def report_for_ever(self) -> None:
        """Each second, publish how each upload goes, and tell its requester what limits it."""
        async with open_flat_nursery() as nursery:
            while True:
                await trio.sleep(config.DIAGNOSIS_INTERVAL_S)
                for key, upload in list(self._uploads.items()):
                    if upload.is_idle:
                        del self._uploads[key]
                    progress = upload.report()
                    self._publish(progress)
                    if progress.bottleneck is not None:
                        self.limited_s[progress.bottleneck] += config.DIAGNOSIS_INTERVAL_S
                        self._tell(nursery, upload, progress.bottleneck)

    def _tell(self, nursery: trio.Nursery, upload: Upload, bottleneck: Bottleneck) -> None:
        """Beside the reports: a requester that does not read must not hold them up."""
        if bottleneck is not upload.told and not upload.link.is_telling:
            upload.told = bottleneck
            nursery.start_soon(_tell, upload.link, SendingLimit(upload.shared.file_id, bottleneck))


async def _tell(link: PeerLink, message: SendingLimit) -> None:
    try:
        await link.tell(message)
    except ConnectionClosed:
        return
