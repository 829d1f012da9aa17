from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import trio

from p2pnode.cli.client_lines import LINE_SIZE_MAX, PipedLines
from p2pnode.errors import ConfigError


class Pipe:
    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.lines = PipedLines(self.reading)

    def write(self, data: bytes) -> None:
        os.write(self.writing, data)

    def end(self) -> None:
        os.close(self.writing)

    async def rest(self) -> list[str]:
        found = []
        while (line := await self.lines.read()) is not None:
            found.append(line)
        return found


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    opened = Pipe()
    yield opened
    os.close(opened.reading)


async def test_lines_come_whole_however_they_are_cut(pipe: Pipe) -> None:
    pipe.write(b"one\ntw")
    assert await pipe.lines.read() == "one"
    pipe.write(b"o\n\nfour\nlast")
    pipe.end()
    assert await pipe.rest() == ["two", "", "four", "last"]
    assert await pipe.lines.read() is None


async def test_an_end_without_a_line_is_an_end(pipe: Pipe) -> None:
    pipe.end()
    assert await pipe.lines.read() is None


async def test_bytes_that_are_no_text_are_replaced(pipe: Pipe) -> None:
    pipe.write(b"a\xffb\n")
    pipe.end()
    assert await pipe.rest() == ["a�b"]


async def test_a_line_without_end_is_an_error_and_not_memory(pipe: Pipe) -> None:
    def flood() -> None:
        for _ in range(LINE_SIZE_MAX // 65_536 + 2):
            pipe.write(b"x" * 65_536)
        pipe.write(b"\nnext\n")
        pipe.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, flood)
        with pytest.raises(ConfigError, match="longer than"):
            await pipe.lines.read()
        *_, last = await pipe.rest()
    assert last == "next"


async def test_who_waits_can_be_cancelled(pipe: Pipe) -> None:
    with trio.move_on_after(0.05) as scope:
        await pipe.lines.read()
    assert scope.cancelled_caught
    pipe.end()
