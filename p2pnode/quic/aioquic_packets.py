"""What the packets of a run look like, and the masks that protect their headers.

A 1-RTT packet with a packet number of 2 bytes and one STREAM frame, which has an offset of 8 bytes and no
length: it fills the packet (RFC 9000 §17.3.1, §19.8).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from aioquic.quic.crypto import CryptoContext

from p2pnode.quic.configuration import CONNECTION_ID_LENGTH

STREAM_WITH_OFFSET: Final = 0x0C  # the frame type; no length: the frame ends with the packet
STREAM_TYPE: Final = bytes((STREAM_WITH_OFFSET,))
STREAM_TYPE_FIN: Final = bytes((STREAM_WITH_OFFSET | 1,))
OFFSET_SIZE: Final = 8
OFFSET_FLAG: Final = 0xC0 << 56  # of a variable-length integer of 8 bytes (RFC 9000 §16)
TAG_SIZE: Final = 16  # of all AEADs that QUIC v1 has
SAMPLE_SIZE: Final = 16
PACKET_NUMBER_SIZE: Final = 2
NUMBER_AT: Final = 1 + CONNECTION_ID_LENGTH  # in a packet that we receive
PAYLOAD_AT: Final = NUMBER_AT + PACKET_NUMBER_SIZE
SAMPLE: Final = slice(NUMBER_AT + 4, NUMBER_AT + 4 + SAMPLE_SIZE)  # RFC 9001 §5.4.2
MASK: Final = struct.Struct(">BH13x")
SHORT_MASK: Final = struct.Struct(">BH2x")  # ChaCha20 gives 5 bytes
BYTES: Final = [bytes((value,)) for value in range(256)]

Mask = tuple[int, int]  # for the first byte, for the packet number

unpack_header = struct.Struct(f">B{CONNECTION_ID_LENGTH}xH").unpack_from


def header_masks(crypto: CryptoContext, samples: Sequence[bytes]) -> Iterator[Mask]:
    """Header protection masks (RFC 9001 §5.4), split into those of the first byte and the packet number.

    Ends before the first sample that is too short to be one.
    """
    joined = b"".join(samples)
    if len(joined) != SAMPLE_SIZE * len(samples):
        short = next(index for index, sample in enumerate(samples) if len(sample) != SAMPLE_SIZE)
        joined = b"".join(samples[:short])
    protection = crypto.hp
    assert protection is not None
    if protection._is_chacha20:  # the sample is the nonce: each has a key stream of its own
        masks = (protection._mask(joined[at : at + 16]) for at in range(0, len(joined), 16))
        return (SHORT_MASK.unpack(mask) for mask in masks)
    return MASK.iter_unpack(protection._encryptor.update(joined))
