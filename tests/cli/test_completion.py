from __future__ import annotations

import subprocess

import pytest

from tests.cli.conftest import P2PNode


def test_bash_takes_the_script(p2pnode: P2PNode) -> None:
    outcome = p2pnode("completion", "bash")
    assert outcome.code == 0
    checked = subprocess.run(["bash", "-n"], input=outcome.out, text=True, capture_output=True, check=False)
    assert checked.stderr == ""
    assert "_P2PNODE_COMPLETE=bash_complete" in outcome.out


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_one(p2pnode: P2PNode, shell: str) -> None:
    assert f"_P2PNODE_COMPLETE={shell}_complete" in p2pnode("completion", shell).out


def test_an_unknown_shell_is_a_usage_error(p2pnode: P2PNode) -> None:
    assert p2pnode("completion", "tcsh").code == 2


@pytest.mark.parametrize(
    ("words", "index", "completed"),
    [
        ("p2pnode p", "1", ["plain,peer", "plain,peers", "plain,push"]),
        ("p2pnode torrent ", "2", ["plain,create", "plain,magnet", "plain,show", "plain,verify"]),
        ("p2pnode --js", "1", ["plain,--json"]),
        ("p2pnode completion f", "2", ["plain,fish"]),
    ],
)
def test_completes_verbs_options_and_values(
    p2pnode: P2PNode, monkeypatch: pytest.MonkeyPatch, words: str, index: str, completed: list[str]
) -> None:
    monkeypatch.setenv("_P2PNODE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", index)
    assert sorted(p2pnode().out.splitlines()) == completed
