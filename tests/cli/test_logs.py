"""Logs: one line of JSON for each record, bounded files, and a full disk that ends nothing."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from p2pnode.cli.console import Console
from p2pnode.cli.logs import LOG_FILES_KEPT, ConsoleFormatter, LogFile, log_file_option, log_to_file
from p2pnode.errors import StorageError

FULL = Path("/dev/full")  # every write to it fails for want of room


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("p2pnode.requests", logging.INFO, __file__, 1, message, None, None)
    made.__dict__.update(extra)
    return made


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Warned(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
def warned() -> Warned:
    return Warned()


@pytest.fixture
def log(tmp_path: Path, warned: Warned) -> Iterator[LogFile]:
    handler = LogFile(tmp_path / "tracker.log", warned, size_max=1000)
    yield handler
    handler.close()


def test_a_line_is_an_object_with_what_the_record_was_given(log: LogFile, tmp_path: Path) -> None:
    log.emit(record("json announce from 192.0.2.1:5: ok", kind="announce", seconds=0.25))
    (line,) = lines(tmp_path / "tracker.log")
    time = line.pop("time")
    assert isinstance(time, str)
    assert time.endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "p2pnode.requests",
        "message": "json announce from 192.0.2.1:5: ok",
        "kind": "announce",
        "seconds": 0.25,
    }


def test_a_traceback_stays_within_its_line(log: LogFile, tmp_path: Path) -> None:
    try:
        raise ValueError("so")
    except ValueError as error:
        made = record("failed")
        made.exc_info = (ValueError, error, error.__traceback__)
    log.emit(made)
    (line,) = lines(tmp_path / "tracker.log")
    assert "ValueError: so" in str(line["traceback"])


def test_c4_names_cannot_break_a_line_of_the_file(log: LogFile, tmp_path: Path) -> None:
    log.emit(record("evil\n\x1b[31m\u202egnp.exe"))
    raw = (tmp_path / "tracker.log").read_bytes()
    assert raw.count(b"\n") == 1
    assert b"\x1b" not in raw
    assert lines(tmp_path / "tracker.log")[0]["message"] == "evil\n\x1b[31m\u202egnp.exe"


def test_c4_names_are_escaped_on_the_console() -> None:
    assert ConsoleFormatter().format(record("evil\n\x1b[31m")) == "INFO p2pnode.requests: evil\\n\\x1b[31m"


def test_files_are_bounded(log: LogFile, tmp_path: Path) -> None:
    for number in range(100):
        log.emit(record(f"{number:100}"))
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["tracker.log", *(f"tracker.log.{number}" for number in range(1, LOG_FILES_KEPT + 1))]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    numbers = [int(str(line["message"])) for name in reversed(found) for line in lines(tmp_path / name)]
    assert numbers == list(range(numbers[0], 100)), "in order, and none lost but the oldest"


def test_a_full_disk_costs_lines_and_one_warning(warned: Warned) -> None:
    log = LogFile(FULL, warned)
    for _ in range(3):
        log.emit(record("hello"))
    log.close()
    assert warned == ["/dev/full: No space left on device; lines of the log are lost until that is better"]


def test_a_log_that_cannot_be_renamed_stays_bounded_and_loses_nothing_old(
    tmp_path: Path, warned: Warned
) -> None:
    path = tmp_path / "tracker.log"
    (tmp_path / f"tracker.log.{LOG_FILES_KEPT - 1}").write_text("older")
    (tmp_path / f"tracker.log.{LOG_FILES_KEPT}").mkdir()  # stands for whatever makes a rename fail
    log = LogFile(path, warned, size_max=200)
    for _ in range(4):
        log.emit(record("hello" * 10))
    log.close()
    assert len(warned) == 1
    assert len(lines(path)) == 1
    assert (tmp_path / f"tracker.log.{LOG_FILES_KEPT - 1}").read_text() == "older"


def test_the_file_has_every_request_whatever_the_console_shows(tmp_path: Path, warned: Warned) -> None:
    root = logging.getLogger()
    before = root.level
    with log_to_file(tmp_path / "tracker.log", warned):
        logging.getLogger("p2pnode.requests").info("one request")
        logging.getLogger("p2pnode.requests").debug("too much")
    assert root.level == before
    logging.getLogger("p2pnode.requests").warning("after the end")
    assert [line["message"] for line in lines(tmp_path / "tracker.log")] == ["one request"]


def test_a_named_file_that_cannot_be_opened_is_an_error(tmp_path: Path, warned: Warned) -> None:
    with pytest.raises(StorageError, match="cannot write the log"), log_to_file(tmp_path, warned):
        pass


@click.command()
@log_file_option("some.log")
def verb() -> None:
    logging.getLogger("p2pnode.test").info("it ran")


@pytest.fixture
def run_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.chdir(tmp_path)
    return lambda *words: verb.main(list(words), standalone_mode=False, obj=Console())


def test_a_verb_logs_to_its_own_file_in_the_working_directory(
    run_verb: Callable[..., None], tmp_path: Path
) -> None:
    run_verb()
    assert [line["message"] for line in lines(tmp_path / "some.log")] == ["it ran"]


@pytest.mark.parametrize("nowhere", ["-", "none", ""])
def test_the_file_can_be_turned_off(run_verb: Callable[..., None], tmp_path: Path, nowhere: str) -> None:
    run_verb("--log-file", nowhere)
    assert not list(tmp_path.iterdir())


def test_the_file_can_be_elsewhere(run_verb: Callable[..., None], tmp_path: Path) -> None:
    run_verb("--log-file", "other.log")
    assert [path.name for path in tmp_path.iterdir()] == ["other.log"]


def test_a_default_file_that_cannot_be_written_is_only_said(
    run_verb: Callable[..., None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "some.log").mkdir()
    run_verb()
    assert "no log is kept" in capfd.readouterr().err


def test_lines_are_appended_to_what_is_there(run_verb: Callable[..., None], tmp_path: Path) -> None:
    run_verb()
    run_verb()
    assert len(lines(tmp_path / "some.log")) == 2
    assert stat.S_ISREG(os.stat(tmp_path / "some.log").st_mode)
