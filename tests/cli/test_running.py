from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import trio

from p2pnode.cli.console import Console
from p2pnode.cli.running import run
from p2pnode.errors import NotFound


async def stopped_by(number: int, tidied: list[str]) -> None:
    try:
        os.kill(os.getpid(), number)
        await trio.sleep_forever()
    finally:
        tidied.append("tidied")


@pytest.mark.parametrize(
    ("number", "is_service", "code"),
    [
        (signal.SIGINT, False, 130),
        (signal.SIGTERM, False, 130),
        (signal.SIGINT, True, 130),
        (signal.SIGTERM, True, 0),
    ],
)
def test_the_first_signal_ends_it_cleanly(
    capsys: pytest.CaptureFixture[str], number: int, is_service: bool, code: int
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    tidied: list[str] = []

    async def main() -> None:
        await stopped_by(number, tidied)

    with pytest.raises(SystemExit) as ended:
        run(main, Console(), is_service=is_service, when_interrupted="run it again to resume")
    assert ended.value.code == code
    assert tidied == ["tidied"]
    assert capsys.readouterr().err == "run it again to resume\n"
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_the_second_signal_ends_it_at_once() -> None:
    program = """
import trio
from p2pnode.cli.console import Console
from p2pnode.cli.running import run

async def hangs():
    print("started", flush=True)
    try:
        await trio.sleep_forever()
    finally:
        print("cleaning", flush=True)
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

run(hangs, Console())
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"started\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"cleaning\n"
        process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT


def test_what_ends_by_itself_just_ends() -> None:
    async def main() -> None:
        await trio.lowlevel.checkpoint()

    run(main, Console())


def test_what_is_raised_comes_out() -> None:
    async def main() -> None:
        await trio.lowlevel.checkpoint()
        raise NotFound("not here")

    with pytest.raises(NotFound):
        run(main, Console())


def test_as_many_descriptors_are_allowed_as_can_be() -> None:
    program = """
import resource, trio
from p2pnode.cli.console import Console
from p2pnode.cli.running import run
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300))
async def show():
    print(resource.getrlimit(resource.RLIMIT_NOFILE))
run(show, Console(json=False, color=False))
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "(300, 300)\n"
