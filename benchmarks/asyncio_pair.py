"""The yardstick: `aioquic.asyncio` `serve` and `connect`, as its documentation shows them.

    python benchmarks/asyncio_pair.py serve PORT FILE CERT KEY
    python benchmarks/asyncio_pair.py fetch PORT FILE

`fetch` prints one JSON line: bytes, seconds (from the request to the last byte written), peak resident bytes.
"""

from __future__ import annotations

import asyncio
import json
import resource
import ssl
import sys
import time
from pathlib import Path

from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration

ALPN = "benchmark"
CHUNK = 256 * 1024
WINDOW = 16 * 1024 * 1024


async def serve_file(port: int, path: str, cert: str, key: str) -> None:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=[ALPN], max_datagram_size=1452)
    configuration.load_cert_chain(cert, key)
    tasks = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        with open(path, "rb") as file:
            while data := file.read(CHUNK):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(0)
        writer.write_eof()

    def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(answer(reader, writer)))

    await serve("127.0.0.1", port, configuration=configuration, stream_handler=on_stream)
    print("ready", flush=True)
    await asyncio.Event().wait()


async def fetch_file(port: int, path: str) -> None:
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=[ALPN],
        max_datagram_size=1452,
        verify_mode=ssl.CERT_NONE,
        max_data=WINDOW,
        max_stream_data=WINDOW,
    )
    async with connect("127.0.0.1", port, configuration=configuration) as client:
        reader, writer = await client.create_stream()
        began = time.perf_counter()
        writer.write(b"x")
        size = 0
        with open(path, "wb") as file:
            while data := await reader.read(CHUNK):
                file.write(data)
                size += len(data)
        seconds = time.perf_counter() - began
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"bytes": size, "seconds": seconds, "peak_rss_bytes": rss}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve_file(int(sys.argv[2]), *map(str, map(Path, sys.argv[3:6]))))
    else:
        asyncio.run(fetch_file(int(sys.argv[2]), sys.argv[3]))
