"""The console of `p2pnode client`: a line is a command, or a question to the tracker. An error keeps it alive."""

from __future__ import annotations

import json
import shlex
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import click

from p2pnode.cli.client_lines import Lines
from p2pnode.cli.client_talk import Talk, tracker_address
from p2pnode.cli.progress import address_text
from p2pnode.errors import ConfigError, P2PNodeError
from p2pnode.torrent import printable

CONTEXT_MESSAGES_MAX: Final = 20  # of a conversation, what was said last …
CONTEXT_SIZE_MAX: Final = 32_768  # … and bytes of it as JSON: a request may have 65,536

HELP: Final = """\
/download <torrent_file> [output_file] [server] [port]
                  download a file and verify it; '.torrent' is added when missing
/peers            the peers of what was downloaded, as the tracker told
/status           the trackers, and how they were asked
/clear            forget the conversation, and clear the screen
/help, /?         this
/quit, /exit      end; so does the end of input
Everything else is a question to the tracker."""


class Conversation:
    """What was said so far, as much of it as is sent along."""

    def __init__(self) -> None:
        self._messages: deque[dict[str, str]] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def context(self) -> list[dict[str, str]]:
        """`role` and `content` of each message, in order."""
        return list(self._messages)

    def add(self, question: str, answer: str) -> None:
        """One more question, and its answer; the oldest are forgotten."""
        self._messages += ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
        while (
            len(self._messages) > CONTEXT_MESSAGES_MAX
            or len(json.dumps(self.context).encode()) > CONTEXT_SIZE_MAX
        ):
            self._messages.popleft()

    def clear(self) -> None:
        """Begin anew."""
        self._messages.clear()


class ClientConsole:
    """Does what lines say, until they end."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._console = talk.console
        self._conversation = Conversation()
        self._commands: dict[str, Callable[[list[str]], Awaitable[None]]] = {
            "/download": self._download,
            "/peers": self._peers,
            "/status": self._status,
            "/clear": self._clear,
            "/help": self._help,
            "/?": self._help,
        }

    async def run(self, lines: Lines) -> None:
        """Until `/quit`, or the end of input."""
        while True:
            try:
                line = await lines.read()
                if line is None or line.strip() in ("/quit", "/exit"):
                    return
                await self._do(line.strip())
            except P2PNodeError as error:
                self._console.fail(str(error), error.exit_code)

    async def _do(self, line: str) -> None:
        if not line:
            return
        if "\0" in line:
            raise ConfigError("a line with a NUL byte names nothing and asks nothing")
        if not line.startswith("/"):
            await self._ask(line)
            return
        try:
            word, *arguments = shlex.split(line)
        except ValueError as error:
            raise ConfigError(f"{str(error).lower()}: quote names as a shell wants them") from None
        command = self._commands.get(word)
        if command is None:
            raise ConfigError(f"there is no command {word}; /help lists them")
        await command(arguments)

    async def _ask(self, question: str) -> None:
        session = self._talk.client.at(self._talk.address).session
        answer = await session.query(question, self._conversation.context)
        self._conversation.add(question, answer)
        if self._console.json:
            self._console.event({"event": "answer", "text": answer})
            return
        for line in answer.splitlines():
            self._console.data(printable(line))

    async def _download(self, arguments: list[str]) -> None:
        if not 1 <= len(arguments) <= 4:
            raise ConfigError("/download <torrent_file> [output_file] [server] [port]")
        torrent, output, server, port = [*arguments, None, None, None][:4]
        assert torrent is not None
        if port is not None and not (port.isdecimal() and 0 < int(port) < 65_536):
            raise ConfigError(f"{port!r} is no port: ports are 1 to 65535")
        address = tracker_address(server, int(port) if port else None, self._talk.address)
        await self._talk.download(torrent, output, address)

    async def _peers(self, _arguments: list[str]) -> None:
        rows = [
            (info_hash.hex(), address_text(peer))
            for tracker in self._talk.client.trackers
            for info_hash, known in tracker.session.known_peers.items()
            for peer in known.peers
        ]
        if self._console.json:
            for info_hash, peer in rows:
                self._console.event({"event": "tracker_peer", "info_hash": info_hash, "address": peer})
        elif rows:
            self._console.rows(("INFO HASH", "PEER"), [(hash_, printable(peer)) for hash_, peer in rows])
        else:
            self._console.say("no tracker told of any peer lately; /download asks one")

    async def _status(self, _arguments: list[str]) -> None:
        self._talk.client.at(self._talk.address)  # listed even if nothing was asked yet
        for tracker in self._talk.client.trackers:
            session = tracker.session
            counts = session.statistics
            connection = session.connection
            if self._console.json:
                self._console.event(
                    {
                        "event": "tracker_status",
                        "server": session.server.address,
                        "connected": connection is not None,
                        "requests": counts.requests,
                        "answers": counts.answers,
                        "retries": counts.retries,
                        "connections": counts.connections,
                        "messages": len(self._conversation),
                    }
                )
                continue
            rtt_s = None if connection is None else connection.statistics.rtt_s
            state = "not connected" if rtt_s is None else f"connected, round trip {1000 * rtt_s:.1f} ms"
            self._console.data(
                f"{printable(session.server.address)}: {state}; {counts.requests} requests, {counts.answers} answered, "
                f"{counts.retries} asked again, {counts.connections} connections"
            )
        if not self._console.json:
            self._console.data(f"conversation: {len(self._conversation)} messages")

    async def _clear(self, _arguments: list[str]) -> None:
        self._conversation.clear()
        if sys.stdout.isatty():
            click.clear()

    async def _help(self, _arguments: list[str]) -> None:
        self._console.say(HELP)
