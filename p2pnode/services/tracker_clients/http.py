"""Trackers over HTTP and HTTPS (BEP 3, 7, 23, 48), asked with httpx2.

The connection goes to an address that `Outbound` allowed: the URL that httpx2 is given has that address for a host,
while the `Host` header and the name in TLS stay those of the tracker. Redirects are followed here, one by one, each
judged anew. Proxies of the environment are not used: they would look the name up again.
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import httpx2
import trio

import p2pnode
from p2pnode import config
from p2pnode.errors import (
    AddressError,
    ConnectFailed,
    NetworkError,
    Refused,
    RemoteProtocolError,
    TimedOut,
    leaves,
)
from p2pnode.quic import Address, format_address
from p2pnode.services.outbound import Author, Outbound, ServiceUrl
from p2pnode.services.tracker_clients.client import AnnounceRequest, TrackerAnswer, believable_peers
from p2pnode.tracker.announces import AnnounceEvent, SwarmCounts, SwarmPeer
from p2pnode.wire.tracker_http_client import encode_query, read_announce, read_scrape

__all__ = ["HttpTrackerClient"]

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_GZIP: Final = 16 + zlib.MAX_WBITS  # zlib's word for a gzip header and trailer


class HttpTrackerClient:
    """A `TrackerClient`. `tls` says which certificates are trusted."""

    def __init__(self, url: ServiceUrl, author: Author, outbound: Outbound, tls: ssl.SSLContext) -> None:
        self._url = url
        self._author = author
        self._outbound = outbound
        self._tls = tls
        self._tracker_id = b""

    async def announce(self, request: AnnounceRequest) -> TrackerAnswer:
        """Announce."""
        body, tracker = await self._fetch(self._url.target, self._query(request))
        answer = read_announce(body)
        self._tracker_id = answer.tracker_id or self._tracker_id
        peers = (SwarmPeer(*peer) for peer in answer.peers)
        return TrackerAnswer(
            answer.interval_s,
            answer.interval_min_s,
            answer.complete,
            answer.incomplete,
            believable_peers(peers, tracker[0]),
            answer.warning,
        )

    async def scrape(self, info_hashes: Sequence[bytes]) -> dict[bytes, SwarmCounts]:
        """Ask for counts. `Refused` where the URL is none that BEP 48 knows how to make a scrape of."""
        path, query_mark, query = self._url.target.partition("?")
        directory, _, last = path.rpartition("/")
        if not last.startswith("announce"):
            raise Refused(
                f"{self._url} is no tracker that can be scraped: its path does not end in /announce"
            )
        target = f"{directory}/scrape{last.removeprefix('announce')}{query_mark}{query}"
        body, _ = await self._fetch(target, encode_query(("info_hash", digest) for digest in info_hashes))
        return {
            info_hash: SwarmCounts(*counts)
            for info_hash, counts in read_scrape(body).items()
            if info_hash in info_hashes
        }

    def _query(self, request: AnnounceRequest) -> str:
        fields: list[tuple[str, bytes | int | str]] = [
            ("info_hash", request.info_hash),
            ("peer_id", request.peer_id),
            ("port", request.port),
            ("uploaded", request.uploaded),
            ("downloaded", request.downloaded),
            ("left", request.left),
            ("compact", 1),
            ("numwant", request.numwant),
            ("key", f"{request.key:08x}"),
        ]
        if request.event is not AnnounceEvent.NONE:
            fields.append(("event", request.event.value))
        if self._tracker_id:
            fields.append(("trackerid", self._tracker_id))
        return encode_query(fields)

    # -- one question, over as many servers as it takes ----------------------------------------------------

    async def _fetch(self, target: str, query: str) -> tuple[bytes, Address]:
        """The body of the answer, and whose it is."""
        separator = "&" if "?" in target else "?"
        url, author = self._url, self._author
        # The policy judges what the torrent says; what we add to it is the announce itself.
        addresses = await self._outbound.addresses(url, author)
        url = url.with_target(f"{target}{separator}{query}")
        for _ in range(config.TRACKER_REDIRECTS_MAX + 1):
            response, body, address = await self._ask_first(url, addresses)
            if response.status_code not in _REDIRECTS:
                return _checked(response, body), address
            url = url.redirected(response.headers.get("location", ""))
            if url.scheme not in ("http", "https"):
                raise AddressError(f"{self._url.authority} redirects to {url}, which is not HTTP")
            addresses = await self._outbound.addresses(url, Author.REDIRECT, redirected_by=address)
        raise Refused(f"{self._url.authority} redirects more than {config.TRACKER_REDIRECTS_MAX} times")

    async def _ask_first(
        self, url: ServiceUrl, addresses: Sequence[Address]
    ) -> tuple[httpx2.Response, bytes, Address]:
        """The answer of the first address that takes a connection."""
        failures = []
        for address in addresses:
            try:
                return *await self._ask(url, address), address
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failures.append(f"{format_address(address)}: {_reason(error)}")
            except httpx2.TimeoutException:
                raise TimedOut(f"{url.authority} does not answer") from None
            except (httpx2.TransportError, httpx2.InvalidURL) as error:
                raise NetworkError(f"{url.authority}: {error}") from error
        raise ConnectFailed("; ".join(failures))

    async def _ask(self, url: ServiceUrl, address: Address) -> tuple[httpx2.Response, bytes]:
        timeout = httpx2.Timeout(config.ANNOUNCE_TIMEOUT_S, connect=config.TRACKER_CONNECT_TIMEOUT_S)
        # A client for each: a connection that is kept would serve another name at the same address.
        async with httpx2.AsyncClient(verify=self._tls, trust_env=False, timeout=timeout) as client:
            request = client.build_request(
                "GET",
                f"{url.scheme}://{format_address(address)}/",
                headers={
                    "Host": url.authority,
                    "User-Agent": f"p2pnode/{p2pnode.__version__}",
                    "Accept": "*/*",
                    "Accept-Encoding": "gzip",
                    "Connection": "close",
                },
                extensions={"target": url.target.encode("ascii"), "sni_hostname": url.host},
            )
            async with aclosing(await client.send(request, stream=True)) as response:
                return response, await _read(response)


def _reason(error: BaseException) -> str:
    """Why there is no connection: what the system or TLS says is wrapped several times, not always by `from`."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    error = next(leaves(error))
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return (isinstance(error, OSError) and error.strerror) or str(error) or "nobody answers"


async def _read(response: httpx2.Response) -> bytes:
    """The body as it was sent, unpacked; at most `ANNOUNCE_ANSWER_SIZE_MAX` bytes of either."""
    body = b""
    # Cancelled, for httpx2 has generators in generators, and does not close those within when it is left halfway.
    with trio.CancelScope() as reading:
        async for part in response.aiter_raw():
            body += part[: config.ANNOUNCE_ANSWER_SIZE_MAX + 1 - len(body)]
            if len(body) > config.ANNOUNCE_ANSWER_SIZE_MAX:
                reading.cancel()
    if len(body) > config.ANNOUNCE_ANSWER_SIZE_MAX:
        raise RemoteProtocolError(
            f"the tracker's answer has more than {config.ANNOUNCE_ANSWER_SIZE_MAX} bytes"
        )
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise RemoteProtocolError("the tracker's answer is packed in a way that was not asked for")
    return _unpack(body)


def _unpack(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP)
    try:
        plain = unpacker.decompress(body, config.ANNOUNCE_ANSWER_SIZE_MAX + 1)
    except zlib.error as error:
        raise RemoteProtocolError(f"the tracker's answer is no gzip: {error}") from None
    if len(plain) > config.ANNOUNCE_ANSWER_SIZE_MAX:
        raise RemoteProtocolError(
            f"the tracker's answer unpacks to more than {config.ANNOUNCE_ANSWER_SIZE_MAX} bytes"
        )
    return plain


def _checked(response: httpx2.Response, body: bytes) -> bytes:
    """A tracker may say why it refuses in bencode under any status; what is not bencode is another server's."""
    if response.status_code != 200 and not body.startswith(b"d"):
        raise Refused(f"HTTP {response.status_code} {response.reason_phrase}")
    return body
