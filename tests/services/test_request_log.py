"""Requests are counted by language, kind and outcome; each has a line while somebody reads, and a flood is bounded."""

from __future__ import annotations

import logging

import pytest

from p2pnode import config
from p2pnode.services.request_log import LOGGER, RequestKey, RequestLog

PEER = ("203.0.113.7", 6881)


def note(log: RequestLog, times: int = 1) -> None:
    for _ in range(times):
        log.note("json", "announce", PEER, 0.002, "ok")


def test_counts_by_language_kind_and_outcome() -> None:
    log = RequestLog()
    note(log, 2)
    log.note("udp", "announce", PEER, 0.5, "refused")
    counts = {key: tally.count for key, tally in log.tallies.items()}
    assert counts == {RequestKey("json", "announce", "ok"): 2, RequestKey("udp", "announce", "refused"): 1}
    assert log.tallies[RequestKey("json", "announce", "ok")].seconds == pytest.approx(0.004)


def test_each_request_has_a_line_with_its_parts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)
    log = RequestLog()
    log.note("http/2", "file", ("2001:db8::1", 40000), 0.0123456, "206")
    (record,) = caplog.records
    assert record.getMessage() == "http/2 file from [2001:db8::1]:40000: 206 in 12.3 ms"
    said = {name: record.__dict__[name] for name in ("language", "kind", "peer", "seconds", "outcome")}
    assert said == {
        "language": "http/2",
        "kind": "file",
        "peer": "[2001:db8::1]:40000",
        "seconds": 0.012346,
        "outcome": "206",
    }


def test_nobody_listens_nothing_is_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, LOGGER.name)
    note(RequestLog())
    assert not caplog.records


def test_a_flood_of_requests_is_no_flood_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)
    now = [1000.0]
    log = RequestLog(lambda: now[0])
    note(log, config.REQUEST_LINES_PER_S_MAX + 25)
    assert len(caplog.records) == config.REQUEST_LINES_PER_S_MAX
    now[0] += 1
    note(log)
    assert caplog.records[-2].getMessage() == "25 more requests, not listed"
    assert caplog.records[-1].__dict__["kind"] == "announce"
    assert log.tallies[RequestKey("json", "announce", "ok")].count == config.REQUEST_LINES_PER_S_MAX + 26
