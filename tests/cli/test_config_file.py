from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.cli.app import VERBS
from p2pnode.cli.config_file import SHARED, check_settings, default_path, load_settings
from p2pnode.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_lies_where_xdg_says(own_home: Path) -> None:
    assert default_path() == own_home / "config" / "p2pnode" / "config.toml"


def test_no_file_sets_nothing() -> None:
    assert load_settings(None, VERBS) == {}


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(tmp_path / "missing.toml", VERBS)


def test_shared_settings_reach_every_verb_and_a_table_beats_them(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.toml",
        'server-addr = "a:1"\nlog-level = "info"\n[peer]\nserver_addr = "b:2"\nmirror = true\n'
        '[torrent.create]\npiece-length = "1M"\n',
    )
    settings = load_settings(path, VERBS)
    assert settings["log_level"] == "info"
    assert settings["get"] == {"server_addr": "a:1", "log_level": "info"}
    assert settings["peer"] == {"server_addr": "b:2", "log_level": "info", "mirror": True}
    assert settings["torrent"]["create"]["piece_length"] == "1M"
    assert settings["torrent"]["create"]["log_level"] == "info"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("server-adr = 'x'", "'server-adr' .did you mean 'server-addr'"),
        ("files-dir = 'x'", "no shared setting .* is called 'files-dir'"),
        ("[pear]\nmirror = true", "no verb is called 'pear' .did you mean 'peer'"),
        ("a = = 1", "c.toml"),
        ("\xff", "c.toml"),
    ],
)
def test_says_in_one_line_what_makes_no_sense(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=complaint) as raised:
        load_settings(path, VERBS)
    assert "\n" not in str(raised.value)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory"):
        load_settings(tmp_path, VERBS)


def test_a_verb_refuses_what_is_none_of_its_options() -> None:
    check_settings({"mirror": True, "pin": "5f"}, ["mirror"], "peer")  # pin is shared: for those that have it
    with pytest.raises(ConfigError, match=r"settings \[peer\]: no option is called 'miror' .*'mirror'"):
        check_settings({"miror": True}, ["mirror"], "peer")


def test_shared_names_are_options_of_some_verb() -> None:
    from p2pnode.cli.get import command

    assert {option.name for option in command.params} >= SHARED
