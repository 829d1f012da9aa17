"""The options of the tracker's front ends."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from p2pnode.assembly.front_ends import AiChoice, FrontEndOptions
from p2pnode.cli.front_ends import front_end_options, info_hashes, opened, passkeys, port_option

V1, V2 = "ab" * 20, "cd" * 32


def options_of(*words: str, **settings: object) -> FrontEndOptions:
    seen: list[FrontEndOptions] = []

    @click.command(context_settings={"auto_envvar_prefix": "P2PNODE", "default_map": settings})
    @front_end_options
    def verb(front_ends: FrontEndOptions) -> None:
        seen.append(front_ends)

    verb.main(list(words), standalone_mode=False)
    return opened(seen[0], "127.0.0.1", quic=None)


def test_nothing_is_open_unless_asked_for() -> None:
    options = options_of()
    assert options == FrontEndOptions()
    assert not options.any_open


@pytest.mark.parametrize(
    ("words", "http", "udp"),
    [
        (["--http"], 7000, None),
        (["--http", "--udp"], 7000, 7000),
        (["--http", "8000", "--udp"], 8000, 7000),
        (["--udp=0"], None, 0),
    ],
)
def test_a_port_may_be_left_out(words: list[str], http: int | None, udp: int | None) -> None:
    options = options_of(*words)
    assert options.http == (None if http is None else ("127.0.0.1", http))
    assert options.udp == (None if udp is None else ("127.0.0.1", udp))
    assert options.any_open


@pytest.mark.parametrize("value", ["65536", "eighty", "٣", "1.5"])
def test_what_is_no_port_is_refused(value: str) -> None:
    with pytest.raises(click.BadParameter):
        options_of(f"--http={value}")


def test_a_file_of_settings_may_say_true_or_false() -> None:
    options = options_of(http=True, udp=False)
    assert options.http == ("127.0.0.1", 7000)
    assert options.udp is None


def test_the_environment_opens_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PNODE_HTTP", "8001")
    monkeypatch.setenv("P2PNODE_AI_URL", "http://127.0.0.1:9/v1")
    options = options_of()
    assert options.http == ("127.0.0.1", 8001)
    assert options.ai == AiChoice(url="http://127.0.0.1:9/v1")


def test_lists_of_torrents_come_from_files(tmp_path: Path) -> None:
    path = tmp_path / "torrents"
    path.write_text(f"# ours\n{V1}\n\n{V2.upper()}  # of v2, cut\n")
    options = options_of("--allow-torrents", str(path), "--deny-torrents", str(path))
    assert options.tracker.allowed == options.tracker.denied == {b"\xab" * 20, b"\xcd" * 20}


def test_a_line_that_is_no_info_hash_is_named(tmp_path: Path) -> None:
    path = tmp_path / "torrents"
    path.write_text(f"{V1}\nabc\n")
    with pytest.raises(click.BadParameter, match="line 2"):
        info_hashes(str(path))


def test_passkeys_come_one_by_one_and_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("alice-1\nbob_2 # a friend\n")
    options = options_of("--passkey", "carol", "--passkey", f"@{path}")
    assert options.tracker.passkeys == {"alice-1", "bob_2", "carol"}
    path.write_text("")
    assert options_of("--passkey", f"@{path}").tracker.passkeys == frozenset(), (
        "private, and nobody is let in yet"
    )
    assert options_of().tracker.passkeys is None


@pytest.mark.parametrize("value", ["", "a/b", "a b", "a" * 65, "@/nowhere"])
def test_what_cannot_be_a_passkey_is_refused(value: str) -> None:
    with pytest.raises(click.BadParameter):
        passkeys(value)


def test_the_key_of_the_ai_service_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1\n")
    options = options_of("--ai-url", "http://ai/v1", "--ai-model", "m", "--ai-key", f"@{tmp_path / 'key'}")
    assert options.ai == AiChoice(url="http://ai/v1", model="m", key="sk-1")


def test_a_flag_for_a_port_shows_its_usual_one() -> None:
    @click.command()
    @port_option("--http", usual=7000, help="Answer over HTTP.")
    def verb(http: int | None) -> None: ...

    assert "[PORT=7000]" in verb.get_help(click.Context(verb))


@pytest.mark.parametrize("value", ["0", "29", "86401", "5000000000"])
def test_an_interval_out_of_range_is_refused(value: str) -> None:
    with pytest.raises(click.BadParameter, match="out of range"):
        options_of("--http", "--interval", value)


@pytest.mark.parametrize("value", ["30", "86400"])
def test_the_bounds_of_the_interval_are_allowed(value: str) -> None:
    assert options_of("--http", "--interval", value).tracker.interval_s == int(value)
