from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import click
import pytest

from p2pnode import __version__, errors
from p2pnode.cli import app
from p2pnode.cli.app import EXIT_CODES, VERBS, cli
from p2pnode.errors import LocalProtocolError, NoSource, NotFound, P2PNodeError, Refused
from tests.cli.conftest import P2PNode


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let `p2pnode list` raise, as any verb may."""

    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr(app._Verbs, "get_command", lambda *_: command)


def all_errors(kind: type[P2PNodeError] = P2PNodeError) -> list[type[P2PNodeError]]:
    """The tree of `p2pnode.errors`; others, which other tests may have loaded, are an inner matter."""
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(inner for child in children for inner in all_errors(child))]


def test_help_lists_every_verb_and_every_exit_code(p2pnode: P2PNode) -> None:
    outcome = p2pnode("--help")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.index("Examples:") < outcome.out.index("Options:")
    for verb in VERBS:
        assert f"\n  {verb} " in outcome.out
    for error in all_errors():
        assert f"\n  {error.exit_code:>5}  " in EXIT_CODES.replace("\n", "\n  ")


def test_short_and_long_help_are_one(p2pnode: P2PNode) -> None:
    assert p2pnode("-h").out == p2pnode("--help").out
    assert p2pnode("completion", "-h").out == p2pnode("completion", "--help").out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples_first(p2pnode: P2PNode, verb: str) -> None:
    outcome = p2pnode(verb, "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(f"Usage: p2pnode {verb} ")
    assert outcome.out.index("Example") < outcome.out.index("Options:")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_module_of_its_own(verb: str) -> None:
    assert find_spec(f"p2pnode.cli.{verb}") is not None


def test_without_a_verb_help_is_shown(p2pnode: P2PNode) -> None:
    outcome = p2pnode()
    assert outcome.code == 2
    assert "Usage: p2pnode" in outcome.out + outcome.err


def test_knows_its_version(p2pnode: P2PNode) -> None:
    assert p2pnode("--version").out == f"p2pnode {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"), [("sever", "server"), ("peeer", "peer"), ("comp", "completion"), ("lst", "list")]
)
def test_a_slip_of_the_hand_is_answered_with_what_was_meant(p2pnode: P2PNode, typed: str, meant: str) -> None:
    outcome = p2pnode(typed)
    assert outcome.code == 2
    assert f"Did you mean {meant!r}?" in outcome.err
    assert outcome.out == ""


def test_nonsense_gets_no_suggestion(p2pnode: P2PNode) -> None:
    outcome = p2pnode("xyzzy")
    assert outcome.code == 2
    assert "Did you mean" not in outcome.err


def test_an_unknown_option_is_a_usage_error_with_a_suggestion(p2pnode: P2PNode) -> None:
    outcome = p2pnode("--jsn", "list")
    assert outcome.code == 2
    assert "--json" in outcome.err


@pytest.mark.parametrize("kind", all_errors())
def test_what_is_raised_on_purpose_is_one_line_and_its_exit_code(
    p2pnode: P2PNode, monkeypatch: pytest.MonkeyPatch, kind: type[P2PNodeError]
) -> None:
    if issubclass(kind, LocalProtocolError):
        return
    raising(monkeypatch, kind("this is why"))
    outcome = p2pnode("list")
    assert outcome.err == "p2pnode: this is why\n"
    assert outcome.code == kind.exit_code


def test_C4_what_another_node_says_is_escaped(p2pnode: P2PNode, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, Refused("go away\x1b[2J\np2pnode: all is well"))
    outcome = p2pnode("list")
    assert outcome.err == "p2pnode: go away\\x1b[2J\\np2pnode: all is well\n"


def test_the_first_reason_in_a_group_is_the_one_that_is_said(
    p2pnode: P2PNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = BaseExceptionGroup("tasks", [NotFound("first"), KeyboardInterrupt()])
    raising(monkeypatch, BaseExceptionGroup("tasks", [inner, NoSource("second")]))
    outcome = p2pnode("list")
    assert outcome.err == "p2pnode: first\n"
    assert outcome.code == 3


@pytest.mark.parametrize(
    "error",
    [
        LocalProtocolError("we broke a rule"),
        ZeroDivisionError("a defect"),
        ExceptionGroup("tasks", [NotFound("expected"), ZeroDivisionError("a defect")]),
    ],
)
def test_a_defect_keeps_its_traceback(
    p2pnode: P2PNode, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    raising(monkeypatch, error)
    with pytest.raises(type(error)):
        cli.main(["list"], standalone_mode=False, obj=app.Chosen())
    with pytest.raises(type(error)):
        app.main(["list"])


def test_an_interrupt_is_130(p2pnode: P2PNode, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert p2pnode("list").code == 130


def test_with_json_the_reason_is_the_last_event(p2pnode: P2PNode, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, NotFound("nobody has it"))
    outcome = p2pnode("--json", "list")
    assert outcome.events == [{"event": "error", "text": "nobody has it", "exit_code": 3}]
    assert outcome.err == "p2pnode: nobody has it\n"


def test_whoever_has_seen_enough_may_close_the_pipe() -> None:
    """`p2pnode completion bash | head -c 1`, with a reader that is gone before the first byte."""
    program = "import sys; from p2pnode.cli.app import main; sys.stdin.read(); main(['completion', 'bash'])"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(b"")
    assert err == b""
    assert process.returncode in (1, 141)


def test_is_a_program_of_the_interpreter_too() -> None:
    done = subprocess.run([sys.executable, "-m", "p2pnode", "--version"], capture_output=True, check=True)
    assert done.stdout.decode() == f"p2pnode {__version__}\n"
