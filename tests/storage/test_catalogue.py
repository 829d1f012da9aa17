from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from p2pnode.storage import Catalogue
from tests.storage.content import names_in

FILE = Path("/shared/file")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.sqlite"


def test_it_remembers_over_a_restart(path: Path) -> None:
    catalogue = Catalogue(path)
    assert catalogue.lookup(FILE, b"print") is None
    catalogue.remember(FILE, b"print", b"metainfo")
    assert catalogue.lookup(FILE, b"print") == b"metainfo"
    catalogue.close()
    catalogue = Catalogue(path)
    assert catalogue.lookup(FILE, b"print") == b"metainfo"
    assert catalogue.lookup(FILE, b"other") is None
    assert catalogue.lookup(FILE.with_name("other"), b"print") is None
    catalogue.close()


def test_a_change_replaces_what_was_known(path: Path) -> None:
    catalogue = Catalogue(path)
    catalogue.remember(FILE, b"print", b"metainfo")
    catalogue.remember(FILE, b"later", b"other metainfo")
    assert catalogue.lookup(FILE, b"print") is None
    assert catalogue.lookup(FILE, b"later") == b"other metainfo"
    catalogue.forget(FILE)
    catalogue.forget(FILE)
    assert catalogue.lookup(FILE, b"later") is None
    catalogue.close()


def test_names_that_are_not_utf8(path: Path) -> None:
    catalogue = Catalogue(path)
    odd = Path("/shared/\udcff")
    catalogue.remember(odd, b"print", b"metainfo")
    assert catalogue.lookup(odd, b"print") == b"metainfo"
    catalogue.close()


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_file_is_set_aside(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    catalogue = Catalogue(path)
    catalogue.remember(FILE, b"print", b"metainfo")
    assert catalogue.lookup(FILE, b"print") == b"metainfo"
    catalogue.close()
    assert path.with_name("catalogue.sqlite.damaged").read_bytes() == content
    catalogue = Catalogue(path)
    assert catalogue.lookup(FILE, b"print") == b"metainfo"
    catalogue.close()


def test_damage_that_shows_later_is_survived(path: Path) -> None:
    catalogue = Catalogue(path)
    for number in range(300):
        catalogue.remember(FILE.with_name(str(number)), b"print", bytes(1000))
    catalogue.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    catalogue = Catalogue(path)
    for number in range(300):
        assert catalogue.lookup(FILE.with_name(str(number)), b"print") in (None, bytes(1000))
    catalogue.remember(FILE, b"print", b"metainfo")
    assert catalogue.lookup(FILE, b"print") == b"metainfo"
    catalogue.close()
    assert "catalogue.sqlite.damaged" in names_in(path.parent)


def test_a_table_of_somebody_else_is_set_aside(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE items (something TEXT)")
    other.close()
    catalogue = Catalogue(path)
    catalogue.remember(FILE, b"print", b"metainfo")
    assert catalogue.lookup(FILE, b"print") == b"metainfo"
    catalogue.close()


def test_a_place_that_cannot_be_written_is_done_without(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalogue = Catalogue(path / "nowhere")
    assert "nothing is remembered" in caplog.text
    catalogue.remember(FILE, b"print", b"metainfo")
    assert catalogue.lookup(FILE, b"print") == b"metainfo"
    catalogue.close()


def test_damage_that_cannot_be_set_aside_is_done_without(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "replace", refuse)
    path.write_bytes(b"no database at all" * 100)
    catalogue = Catalogue(path)
    assert "nothing is remembered" in caplog.text
    catalogue.close()


def test_a_busy_database_costs_nothing_but_the_entry(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("p2pnode.storage.catalogue._BUSY_TIMEOUT_S", 0.0)
    catalogue = Catalogue(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    catalogue.remember(FILE, b"print", b"metainfo")
    assert "of no use now" in caplog.text
    other.execute("ROLLBACK")
    other.close()
    assert catalogue.lookup(FILE, b"print") is None
    catalogue.close()


def test_threads_share_it(path: Path) -> None:
    catalogue = Catalogue(path)

    def work(number: int) -> None:
        for turn in range(20):
            place = FILE.with_name(f"{number} {turn}")
            catalogue.remember(place, b"print", b"%d" % turn)
            assert catalogue.lookup(place, b"print") == b"%d" % turn

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert catalogue.lookup(FILE.with_name(f"{number} 19"), b"print") == b"19"
    catalogue.close()
