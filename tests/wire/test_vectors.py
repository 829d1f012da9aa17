"""The published vectors: what another implementation must get right, and we too."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from p2pnode.errors import MetainfoError, RemoteProtocolError
from p2pnode.torrent import FileHasher, HashedFile, Metainfo, canonical_metainfo, piece_length_for
from p2pnode.wire.bencoding import decode as bdecode
from p2pnode.wire.bencoding import encode as bencode
from p2pnode.wire.bencoding import raw_value
from p2pnode.wire.communication import UnknownMessage
from p2pnode.wire.framing import FrameDecoder, frame

from . import independent
from .strategies import MESSAGE_TYPES

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())


def by_name(vectors: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


def plain(value: Any) -> Any:
    """JSON with {"hex": …} for bytes → plain values."""
    if isinstance(value, dict):
        return (
            bytes.fromhex(value["hex"]) if set(value) == {"hex"} else {k: plain(v) for k, v in value.items()}
        )
    return [plain(item) for item in value] if isinstance(value, list) else value


def framed(fields: Any) -> bytes:
    body = msgpack.packb(fields)
    return len(body).to_bytes(4, "big") + body


def read(data: bytes) -> Any:
    decoder = FrameDecoder()
    decoder.feed(data)
    message = decoder.next_message()
    decoder.end()
    return message


# -- frames ------------------------------------------------------------------------------------------------


@by_name(VECTORS["frames"])
def test_a_frame_is_read_and_written_as_published(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    message = read(data)
    assert frame(message) == data
    fields = plain(vector["message"])
    assert type(message).__name__ == fields["type"]
    assert msgpack.unpackb(data[4:]) == fields
    assert read(framed(fields)) == message


def test_every_message_has_a_vector() -> None:
    assert {vector["message"]["type"] for vector in VECTORS["frames"]} == {
        cls.__name__ for cls in MESSAGE_TYPES
    }


@by_name(VECTORS["accepted"])
def test_a_frame_that_must_be_accepted_is(vector: dict[str, Any]) -> None:
    message = read(bytes.fromhex(vector["hex"]))
    if vector["message"] is None:
        assert isinstance(message, UnknownMessage)
    else:
        assert message == read(framed(plain(vector["message"])))


@by_name(VECTORS["refused"])
def test_a_frame_that_must_be_refused_is(vector: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        read(bytes.fromhex(vector["hex"]))


# -- the proof of a node key -------------------------------------------------------------------------------


def test_the_published_proof_holds() -> None:
    proof = {
        key: bytes.fromhex(value) for key, value in VECTORS["proof"].items() if key not in ("role", "hash")
    }
    label = "EXPORTER-p2pnode/1 node key"
    assert independent.exporter(proof["exporter_master_secret"], label, "sha256") == proof["exporter"]
    assert independent.exporter(bytes(range(48)), label, "sha384") == proof["exporter_sha384"]
    assert proof["signed"] == b"p2pnode/1 node key proof" + b"dialed" + proof["exporter"]
    assert proof["node_id"] == hashlib.sha256(proof["spki"]).digest()
    key = serialization.load_der_public_key(proof["spki"])
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(proof["signature"], proof["signed"], ec.ECDSA(hashes.SHA256()))


# -- canonical metainfo ------------------------------------------------------------------------------------


def tree_of(vector: dict[str, Any]) -> independent.Tree:
    return {
        tuple(path.split("/")): (
            content["text"].encode() if "text" in content else independent.pattern(content["pattern"])
        )
        for path, content in vector["files"].items()
    }


@by_name(VECTORS["metainfo"])
def test_the_published_metainfo_follows_from_the_document_alone(vector: dict[str, Any]) -> None:
    files = tree_of(vector)
    metainfo, file_id = independent.canonical_metainfo(vector["torrent_name"], files)
    assert file_id.hex() == vector["file_id"]
    assert len(metainfo) == vector["metainfo_size"]
    assert hashlib.sha256(metainfo).hexdigest() == vector["metainfo_sha256"]
    if "metainfo" in vector:
        assert metainfo.hex() == vector["metainfo"]
    assert sum(map(len, files.values())) == vector["size"]
    assert independent.piece_length(vector["size"]) == vector["piece_length"]
    assert sum(-(-len(c) // vector["piece_length"]) for c in files.values()) == vector["piece_count"]


@by_name(VECTORS["metainfo"])
def test_published_metainfo_is_canonical_bencode(vector: dict[str, Any]) -> None:
    metainfo, file_id = independent.canonical_metainfo(vector["torrent_name"], tree_of(vector))
    outer = bdecode(metainfo)
    assert isinstance(outer, dict)
    assert bencode(outer) == metainfo
    assert set(outer) == {b"info", b"piece layers"}
    assert hashlib.sha256(raw_value(metainfo, b"info")).digest() == file_id


@by_name(VECTORS["metainfo"])
def test_the_published_metainfo_is_what_p2pnode_makes_and_reads(vector: dict[str, Any]) -> None:
    files = []
    for path, content in tree_of(vector).items():
        hasher = FileHasher(piece_length_for(vector["size"]))
        hasher.update(content)
        files.append(HashedFile(path, hasher.finish()))
    made = canonical_metainfo(vector["torrent_name"], files, is_directory=vector["is_directory"])
    assert made.file_id.hex() == vector["file_id"]
    assert hashlib.sha256(made.encode()).hexdigest() == vector["metainfo_sha256"]
    read_again = Metainfo.decode_canonical(made.encode())
    assert read_again.is_directory == vector["is_directory"]
    assert (read_again.size, read_again.piece_length, read_again.piece_count) == (
        vector["size"],
        vector["piece_length"],
        vector["piece_count"],
    )


@pytest.mark.parametrize("name", VECTORS["refused_names"], ids=lambda name: repr(name)[:12])
def test_a_name_that_no_file_can_have_has_no_metainfo(name: str) -> None:
    hasher = FileHasher(piece_length_for(1))
    hasher.update(b"x")
    with pytest.raises(MetainfoError):
        canonical_metainfo(name, [HashedFile((name,), hasher.finish())], is_directory=False)


def test_a_directory_of_one_file_of_its_own_name_has_no_metainfo() -> None:
    hasher = FileHasher(piece_length_for(1))
    hasher.update(b"x")
    with pytest.raises(MetainfoError):
        canonical_metainfo("same", [HashedFile(("same",), hasher.finish())], is_directory=True)


@pytest.mark.parametrize(("size", "length"), VECTORS["piece_lengths"])
def test_published_piece_lengths_follow_from_the_document_alone(size: int, length: int) -> None:
    assert independent.piece_length(size) == length
    assert piece_length_for(size) == length
