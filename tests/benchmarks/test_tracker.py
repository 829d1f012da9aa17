"""The benchmark of trackers measures what it says, at a tiny extent."""

from __future__ import annotations

import pytest

from benchmarks.tracker import Rounds, measure_ours, show
from benchmarks.tracker_load import Extent, is_whole

TINY = Extent(seconds=0.5, torrents=10, connections=2, at_once=4, downloads=1)


@pytest.mark.parametrize(
    ("language", "kind"),
    [("quic", "json-open"), ("quic", "json-new"), ("http", "http"), ("quic", "download")],
)
def test_each_load_is_answered(language: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    measured = measure_ours(language, kind, TINY)
    assert measured.load.count > 0
    assert measured.tracker_cpu_s > 0
    rounds = Rounds(kind, [measured])
    assert rounds.per_s == pytest.approx(measured.load.count / measured.load.seconds)
    show([rounds], [])
    assert kind in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nd", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer", False),
    ],
)
def test_knows_when_an_answer_is_whole(answer: bytes, whole: bool) -> None:
    assert is_whole(answer) is whole
