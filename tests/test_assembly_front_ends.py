"""A tracker put together: what its torrents name, which certificate it keeps, and what is asked through which door."""

from __future__ import annotations

import datetime
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509

from p2pnode.assembly import kept_credentials
from p2pnode.assembly.front_ends import AiChoice, FrontEndOptions, TrackerOptions, open_front_ends
from p2pnode.assembly.tracker_client import TrackerClient, TrackerTrust, open_tracker_client
from p2pnode.errors import AddressInUse, ConfigError, ErrorAnswer, LocalProtocolError
from p2pnode.node.node import Node
from p2pnode.quic import Credentials, NodeKey
from p2pnode.services.extras import extra
from p2pnode.torrent import Metainfo
from tests.interop.ai_stub import ai_stub

ANY_PORT = ("127.0.0.1", 0)
INFO_HASH = "ab" * 20


# -- certificates and extras ---------------------------------------------------------------------------------


def test_a_certificate_is_made_once_of_the_node_key_and_kept(tmp_path: Path) -> None:
    made = kept_credentials(tmp_path / "state")
    again = kept_credentials(tmp_path / "state")
    assert made.certificate == again.certificate
    assert made.pin == NodeKey.load_or_create(tmp_path / "state" / "node.key").node_id
    assert (tmp_path / "state" / "node.key").stat().st_mode & 0o777 == 0o600
    names = made.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize("spoilt", ["not a certificate", "of another key"])
def test_a_certificate_that_is_of_no_use_is_made_anew(tmp_path: Path, spoilt: str) -> None:
    first = kept_credentials(tmp_path)
    other = Credentials.from_node_key(NodeKey.generate()).pem
    (tmp_path / "tracker.crt").write_bytes(other if spoilt == "of another key" else spoilt.encode())
    again = kept_credentials(tmp_path)
    assert again.pin == first.pin
    assert again.certificate.not_valid_after_utc > datetime.datetime.now(datetime.UTC)
    assert kept_credentials(tmp_path).certificate == again.certificate


def test_a_missing_extra_is_named() -> None:
    with (
        pytest.raises(ConfigError, match=r"this needs p2p_no_such: pip install 'p2pnode\[web\]'"),
        extra("web", "this"),
    ):
        __import__("p2p_no_such.part")


def test_a_defect_of_ours_is_not_taken_for_a_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError), extra("web", "this"):
        __import__("p2pnode.no_such")


# -- doors ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def running(options: FrontEndOptions, seed_dir: Path) -> AsyncIterator[dict[str, int]]:
    """The ports of a tracker by what is spoken there; "quic" is its node's."""
    async with (
        open_front_ends(options, seed_dir, Credentials.from_node_key(NodeKey.generate())) as front_ends,
        Node(role="server", listen=ANY_PORT, connection_services=front_ends.connection_services) as node,
        trio.open_nursery() as nursery,
    ):
        doors = await nursery.start(front_ends.run)
        yield {door.language: door.address[1] for door in doors} | {"quic": node.listen_address[1]}
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(directory: Path, **options: Any) -> AsyncIterator[TrackerClient]:
    def no_node(_server: object) -> Any:
        raise AssertionError("nothing here is too large for JSON")

    trust = TrackerTrust(directory, lambda _text: None)
    async with open_tracker_client(trust, no_node, lambda _event: None, **options) as opened:
        yield opened


async def get(port: int, path: str) -> tuple[int, bytes]:
    def ask() -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    return await trio.to_thread.run_sync(ask)


def announced(passkey: str = "") -> str:
    words = f"info_hash={'%ab' * 20}&peer_id={'p' * 20}&port=6881&left=0"
    return f"{passkey and '/' + passkey}/announce?{words}"


@pytest.mark.parametrize(
    ("options", "url"),
    [
        (FrontEndOptions(quic=("::", 7001), http=("::", 7000)), "http://127.0.0.1:7000/announce"),
        (FrontEndOptions(quic=("::", 7001), https=("::1", 7443)), "https://[::1]:7443/announce"),
        (FrontEndOptions(quic=("::", 7001), udp=("192.0.2.1", 70)), "udp://192.0.2.1:70/announce"),
        (FrontEndOptions(quic=("0.0.0.0", 7001)), "quic://127.0.0.1:7001"),
        (
            FrontEndOptions(quic=("::", 7001), announce_url="http://t.example/announce"),
            "http://t.example/announce",
        ),
    ],
)
async def test_torrents_name_the_tracker_as_it_is_seen_from_here(
    tmp_path: Path, options: FrontEndOptions, url: str
) -> None:
    async with open_front_ends(options, tmp_path):
        metainfo = Metainfo.decode((tmp_path / "hello_world.txt.torrent").read_bytes())
    assert metainfo.trackers == ((url,),)


async def test_somebody_must_be_able_to_ask(tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError):
        async with open_front_ends(FrontEndOptions(), tmp_path):
            pass


async def test_all_doors_lead_to_one_tracker(tmp_path: Path) -> None:
    options = FrontEndOptions(quic=ANY_PORT, http=ANY_PORT, https=ANY_PORT, udp=ANY_PORT)
    async with running(options, tmp_path / "seed") as ports, client(tmp_path) as asking:
        assert set(ports) == {"quic", "http", "https", "udp"}
        status, answer = await get(ports["http"], announced())
        assert status == 200
        assert b"8:completei1e" in answer
        session = asking.at(f"127.0.0.1:{ports['quic']}").session
        peers = await session.announce(bytes.fromhex(INFO_HASH), left=5, event="started")
        assert (peers.complete, peers.incomplete) == (1, 1)
        assert peers.peers == (("127.0.0.1", 6881),)
        _, statistics = await get(ports["http"], "/stats")
        assert b'"language":"json","kind":"announce","outcome":"ok"' in statistics


async def test_a_private_tracker_is_private_behind_each_door(tmp_path: Path) -> None:
    tracker = TrackerOptions(passkeys=frozenset({"secret"}))
    options = FrontEndOptions(quic=ANY_PORT, http=ANY_PORT, tracker=tracker)
    async with running(options, tmp_path / "seed") as ports:
        for passkey, is_in in (("secret", True), ("wrong", False), ("", False)):
            _, answer = await get(ports["http"], announced(passkey))
            assert (b"failure reason" not in answer) is is_in
            async with client(tmp_path, passkey=passkey or None) as asking:
                session = asking.at(f"127.0.0.1:{ports['quic']}").session
                if is_in:
                    await session.announce(bytes.fromhex(INFO_HASH), left=0)
                else:
                    with pytest.raises(ErrorAnswer, match="passkey"):
                        await session.announce(bytes.fromhex(INFO_HASH), left=0)


async def test_only_some_torrents_are_tracked(tmp_path: Path) -> None:
    tracker = TrackerOptions(denied=frozenset({bytes.fromhex(INFO_HASH)}))
    options = FrontEndOptions(quic=ANY_PORT, http=ANY_PORT, tracker=tracker)
    async with running(options, tmp_path / "seed") as ports:
        _, answer = await get(ports["http"], announced())
        assert b"not tracked here" in answer


async def test_questions_go_to_the_service_that_was_named(tmp_path: Path) -> None:
    with ai_stub() as stub:
        options = FrontEndOptions(quic=ANY_PORT, ai=AiChoice(url=stub.url, model="m", key="sk-1"))
        async with running(options, tmp_path / "seed") as ports, client(tmp_path) as asking:
            session = asking.at(f"127.0.0.1:{ports['quic']}").session
            answer = await session.request({"query": "why?"})
        assert answer["answer"] == "WHY?"
        assert stub.questions[0]["model"] == "m"


async def test_a_service_that_cannot_be_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        async with open_front_ends(FrontEndOptions(quic=ANY_PORT, ai=AiChoice(url="ftp://ai")), tmp_path):
            pass


async def test_a_taken_port_ends_it(tmp_path: Path) -> None:
    async with running(FrontEndOptions(quic=ANY_PORT, http=ANY_PORT), tmp_path / "a") as ports:
        with pytest.RaisesGroup(AddressInUse, flatten_subgroups=True, allow_unwrapped=True):
            async with running(FrontEndOptions(http=("127.0.0.1", ports["http"])), tmp_path / "b"):
                pass
