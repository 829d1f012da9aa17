from __future__ import annotations

import io
import json
import sys

import pytest

from p2pnode.cli.console import Console, color_wanted


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_data_and_talk_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.data("bytes")
    console.say("talk")
    console.warn("careful")
    assert capsys.readouterr() == ("bytes\n", "talk\np2pnode: warning: careful\n")


def test_an_event_is_one_line_with_bytes_as_hex(capsys: pytest.CaptureFixture[str]) -> None:
    Console().event({"event": "x", "id": b"\x01\xff", "name": "a\nb", "runs": ((0, 2),)})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"event": "x", "id": "01ff", "name": "a\nb", "runs": [[0, 2]]}


def test_a_failure_is_one_line_and_with_json_the_last_event(capsys: pytest.CaptureFixture[str]) -> None:
    Console(json=True).fail("no such file", 3)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"event": "error", "text": "no such file", "exit_code": 3}
    assert err == "p2pnode: no such file\n"
    Console().fail("no such file", 3)
    assert capsys.readouterr() == ("", "p2pnode: no such file\n")


def test_a_program_gets_tabs_and_a_person_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("a.bin", "1"), ("longer.bin", "22")]
    Console().rows(("NAME", "SIZE"), rows)
    assert capsys.readouterr().out == "a.bin\t1\nlonger.bin\t22\n"
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    Console().rows(("NAME", "SIZE"), rows)
    assert terminal.getvalue() == "NAME        SIZE\na.bin       1\nlonger.bin  22\n"


def test_is_live_only_where_a_person_can_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert not Console().is_live
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert Console().is_live
    assert not Console(json=True).is_live
    monkeypatch.setenv("TERM", "dumb")
    assert not Console().is_live


@pytest.mark.parametrize(
    ("no_color", "variable", "term", "wanted"),
    [
        (False, None, "xterm", None),
        (True, None, "xterm", False),
        (False, "1", "xterm", False),
        (False, "", "xterm", None),
        (False, None, "dumb", False),
    ],
)
def test_colour_is_given_up_wherever_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, no_color: bool, variable: str | None, term: str, wanted: bool | None
) -> None:
    if variable is not None:
        monkeypatch.setenv("NO_COLOR", variable)
    monkeypatch.setenv("TERM", term)
    assert color_wanted(no_color) is wanted
