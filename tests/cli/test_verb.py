from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.core import ParameterSource

from p2pnode.cli import app
from p2pnode.cli.console import Console
from p2pnode.cli.verb import Chosen, Verb
from tests.cli.conftest import P2PNode


@pytest.fixture(autouse=True)
def verb(monkeypatch: pytest.MonkeyPatch) -> None:
    """`p2pnode peer` that only says what it was given."""

    @click.command(cls=Verb)
    @click.option("--files-dir", default="files")
    @click.option("--mirror", is_flag=True)
    @click.pass_obj
    def command(console: Console, files_dir: str, mirror: bool) -> None:
        console.event(
            {"files_dir": files_dir, "mirror": mirror, "json": console.json, "color": console.color}
        )

    monkeypatch.setattr(app._Verbs, "get_command", lambda *_: command)


def settings(home: Path, text: str) -> None:
    path = home / "config" / "p2pnode" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    p2pnode: P2PNode, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert p2pnode("peer").events[0]["files_dir"] == "files"
    settings(own_home, "[peer]\nfiles-dir = 'from-file'\nmirror = true")
    assert p2pnode("peer").events[0]["files_dir"] == "from-file"
    assert p2pnode("peer").events[0]["mirror"] is True
    monkeypatch.setenv("P2PNODE_FILES_DIR", "from-environment")
    assert p2pnode("peer").events[0]["files_dir"] == "from-environment"
    assert p2pnode("peer", "--files-dir", "from-flag").events[0]["files_dir"] == "from-flag"


def test_another_file_of_settings_takes_the_place_of_the_usual_one(
    p2pnode: P2PNode, own_home: Path, tmp_path: Path
) -> None:
    settings(own_home, "[peer]\nmirror = true")
    other = tmp_path / "other.toml"
    other.write_text("[peer]\nfiles-dir = 'other'")
    (event,) = p2pnode("--config", str(other), "peer").events
    assert (event["files_dir"], event["mirror"]) == ("other", False)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "[peer]\nmiror = true",
            "p2pnode: settings [peer]: no option is called 'miror' (did you mean 'mirror'?)",
        ),
        ("[pear]\nx = 1", "config.toml: no verb is called 'pear' (did you mean 'peer'?)"),
        ("= 1", "config.toml: "),
    ],
)
def test_a_bad_file_of_settings_is_one_line(
    p2pnode: P2PNode, own_home: Path, text: str, complaint: str
) -> None:
    settings(own_home, text)
    outcome = p2pnode("peer")
    assert outcome.code == 2
    assert complaint in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("--json", "peer"), ("peer", "--json"), ("--json", "peer", "--json")])
def test_json_may_stand_before_the_verb_or_after_it(p2pnode: P2PNode, arguments: tuple[str, ...]) -> None:
    assert p2pnode(*arguments).events[0]["json"] is True


def test_json_may_be_set_for_all_and_unset_nowhere_by_default(
    p2pnode: P2PNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert p2pnode("peer").events[0]["json"] is False
    monkeypatch.setenv("P2PNODE_JSON", "1")
    assert p2pnode("peer").events[0]["json"] is True


def test_no_color_reaches_the_console(p2pnode: P2PNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert p2pnode("peer").events[0]["color"] is None
    assert p2pnode("peer", "--no-color").events[0]["color"] is False
    monkeypatch.setenv("NO_COLOR", "1")
    assert p2pnode("peer").events[0]["color"] is False


def test_the_value_with_the_better_source_stays() -> None:
    chosen = Chosen()
    chosen.offer("log_level", ParameterSource.DEFAULT, "warning")
    chosen.offer("log_level", ParameterSource.COMMANDLINE, "debug")
    chosen.offer("log_level", ParameterSource.DEFAULT, "warning")
    assert chosen["log_level"] == "debug"
    chosen.offer("log_level", ParameterSource.COMMANDLINE, "error")
    assert chosen["log_level"] == "error"


def test_a_wrong_log_level_is_a_usage_error(p2pnode: P2PNode) -> None:
    assert p2pnode("peer", "--log-level", "loud").code == 2
