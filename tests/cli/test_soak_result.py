"""What a download of a soak test is called, and what all come to."""

from __future__ import annotations

import pytest

from p2pnode.cli.soak_result import ROW_HEADER, Download, Statistics, Status, classify
from p2pnode.errors import (
    Busy,
    ConnectFailed,
    ConnectionClosed,
    HashMismatch,
    NoSource,
    NotFound,
    P2PNodeError,
    Refused,
    RemoteProtocolError,
    StorageError,
    TimedOut,
    TrustError,
)

GOOD, OTHER = "aa" * 32, "bb" * 32


def test_what_has_the_hash_of_its_reference_is_ok() -> None:
    assert classify(None, GOOD, GOOD)[0] is Status.OK


@pytest.mark.parametrize("error", [None, TimedOut("late")])
def test_other_bytes_are_a_failure_whatever_the_client_says(error: P2PNodeError | None) -> None:
    status, reason = classify(error, OTHER, GOOD)
    assert status is Status.FAIL
    assert "wrong hash" in reason


@pytest.mark.parametrize("reference", [GOOD, None])
def test_no_file_though_the_client_says_that_all_is_well_is_a_failure(reference: str | None) -> None:
    assert classify(None, None, reference)[0] is Status.FAIL


@pytest.mark.parametrize(
    "error",
    [
        TimedOut("silence"),
        ConnectFailed("nobody answers"),
        ConnectionClosed("gone"),
        Refused("no"),
        Busy("later"),
        NoSource("not yet"),
        RemoteProtocolError("the server's error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_server_that_is_busy_or_gone_brings_about_is_tried_again(error: P2PNodeError) -> None:
    assert classify(error, None, GOOD) == (Status.RETRY, str(error))


@pytest.mark.parametrize(
    "error",
    [HashMismatch("piece 3"), NotFound("no such file"), StorageError("disk"), TrustError("another one")],
    ids=lambda error: type(error).__name__,
)
def test_no_file_for_any_other_reason_is_a_failure(error: P2PNodeError) -> None:
    status, reason = classify(error, None, GOOD)
    assert status is Status.FAIL
    assert str(error) in reason


def test_nothing_to_compare_with_is_a_warning() -> None:
    assert classify(None, GOOD, None)[0] is Status.WARN


def test_an_error_though_the_file_is_there_is_a_warning() -> None:
    status, reason = classify(TimedOut("no goodbye"), GOOD, GOOD)
    assert status is Status.WARN
    assert "no goodbye" in reason


def of(status: Status, file: str = "small.txt", size: int = 1024, seconds: float = 1.0) -> Download:
    return Download(1, file, status, "", size, seconds)


def test_statistics_count_each_status_and_time_only_the_good_ones() -> None:
    statistics = Statistics()
    for download in (
        of(Status.OK, seconds=1.0),
        of(Status.OK, seconds=3.0),
        of(Status.RETRY, seconds=60.0),
        of(Status.FAIL, file="large.bin"),
        of(Status.WARN),
    ):
        statistics.add(download)
    assert statistics.event() == {"event": "result", "ok": 2, "retry": 1, "fail": 1, "warn": 1}
    assert statistics.summary() == "5 downloads: OK 2, RETRY 1, FAIL 1, WARN 1"
    assert statistics.rows() == [
        ("small.txt", "2", "1", "0", "1", "2.0s", "3.0s", "512 B/s"),
        ("large.bin", "0", "0", "1", "0", "", "", ""),
    ]
    assert all(len(row) == len(ROW_HEADER) for row in statistics.rows())


def test_a_line_has_the_iteration_the_file_the_status_and_the_reason() -> None:
    assert Download(7, "data.json", Status.RETRY, "late", 39, 1.0).line == "[7] data.json RETRY: late"
