"""Runs a verb's coroutine under trio, and ends it as people expect.

The first Ctrl-C or SIGTERM cancels: links are closed, what was fetched is kept. The second ends the process
at once, even if something hangs: by then the signals do again what the system does by default.
"""

from __future__ import annotations

import gc
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

import trio

from p2pnode.assembly import Diagnostics, server_reference
from p2pnode.cli.console import Console
from p2pnode.cli.local_servers import find_server
from p2pnode.cli.options import ServerChoice, user_state_dir
from p2pnode.cli.progress import Reporter, open_reporter
from p2pnode.errors import ConfigError, P2PNodeError
from p2pnode.node.discovery import Discovery
from p2pnode.node.events import NodeEvent
from p2pnode.node.node import Node
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.operator import Operator, open_operator
from p2pnode.node.rate_limits import RateLimits
from p2pnode.node.server_reference import ServerReference
from p2pnode.torrent import printable

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)
_INTERRUPTED: Final = 130


def run(
    function: Callable[[], Awaitable[None]],
    console: Console,
    *,
    is_service: bool = False,
    when_interrupted: str = "interrupted",
    clock: trio.abc.Clock | None = None,
) -> None:
    """Run to the end, in the time of `clock` if one is given. Interrupted, say so and exit with 130.

    A service ends only by being stopped, so SIGTERM, which is how a supervisor does that, ends it with 0.
    """
    _allow_many_descriptors()
    gc.freeze()  # what was imported is never garbage: looking through it again and again costs 5 % of a transfer
    received = trio.run(_until_stopped, function, clock=clock)
    if received is not None:
        console.say(when_interrupted)
        raise SystemExit(0 if is_service and received == signal.SIGTERM else _INTERRUPTED)


def _allow_many_descriptors() -> None:
    """As many as the system allows without asking: the usual 1,024 are fewer than the links that strangers may hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # some systems name a limit that they then refuse
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _until_stopped(function: Callable[[], Awaitable[None]]) -> int | None:
    """The signal that stopped `function`, or None when it ended by itself."""
    scope = trio.CancelScope()
    with _cancelled_by_signals(scope) as received, scope:
        await function()
    return received[0] if scope.cancelled_caught else None


@contextmanager
def _cancelled_by_signals(scope: trio.CancelScope) -> Iterator[list[int]]:
    token = trio.lowlevel.current_trio_token()
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for stopping in _STOPPING:
            signal.signal(stopping, signal.SIG_DFL)
        token.run_sync_soon(scope.cancel)

    before = {number: signal.signal(number, stop) for number in _STOPPING}
    try:
        yield received
    finally:
        for number, action in before.items():
            signal.signal(number, action)


@asynccontextmanager
async def open_node(node: Node, reporter: Reporter) -> AsyncIterator[Node]:
    """Start `node` and tell `reporter` all that happens in it, to the last event."""
    with reporter:
        async with node.events() as events, open_flat_nursery() as nursery:
            nursery.start_soon(_narrate, events, reporter)
            async with node:
                yield node
            nursery.cancel_scope.cancel()


async def _narrate(events: trio.MemoryReceiveChannel[NodeEvent], reporter: Reporter) -> None:
    try:
        async for event in events:
            reporter.show(event)
    finally:
        for _ in range(events.statistics().current_buffer_used):  # what came last says how it ended
            reporter.show(events.receive_nowait())


def reference_of(choice: ServerChoice) -> ServerReference | None:
    """The server to dial, if one was chosen."""
    if choice.address is None:
        return None
    return server_reference(
        choice.address, pin=choice.pin, certificate=choice.certificate, verify=choice.verify
    )


@asynccontextmanager
async def open_client(
    console: Console,
    choice: ServerChoice,
    diagnostics: Diagnostics,
    limits: RateLimits | None = None,
    discoveries: Sequence[Discovery] = (),
) -> AsyncIterator[Node]:
    """A node for one short command, with the user's key; it dials its server, if it has one."""
    node = Node(
        role="client",
        state_dir=user_state_dir(),
        lock_state=False,
        server=reference_of(choice),
        limits=limits or RateLimits(),
        discoveries=discoveries,
        diagnostics=diagnostics,
    )
    async with open_node(node, open_reporter(console, failure_is_raised=True)):
        yield node


async def wait_for_server(
    node: Node, console: Console, tolerated: tuple[type[P2PNodeError], ...] = ()
) -> None:
    """Wait for the first attempt to reach the server. A failure is raised, or said if it is `tolerated`."""
    try:
        await node.wait_for_server()
    except tolerated as error:
        console.say(f"{printable(str(error))}; trying again until it answers")


@asynccontextmanager
async def open_commands(
    console: Console, choice: ServerChoice, state_dir: Path | None, diagnostics: Diagnostics
) -> AsyncIterator[Node | Operator]:
    """What takes `list_files`, `list_peers` and `push`: a server of ours by its socket, another by QUIC."""
    local = await find_server(choice.address, state_dir)
    if local is not None:
        async with open_operator(local.state_dir) as operator:
            yield operator
    elif choice.address is not None:
        async with open_client(console, choice, diagnostics) as node:
            await wait_for_server(node, console)
            yield node
    else:
        raise ConfigError("no server of yours runs on this machine: say which one with --server-addr")
