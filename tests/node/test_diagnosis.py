"""The rules that name a bottleneck, each by a playbook in virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnode.node.bottleneck import Bottleneck
from p2pnode.node.diagnosis import Activity, FetchDiagnosis, UploadDiagnosis
from p2pnode.quic import SendClock, SendLimit
from p2pnode.storage import WorkTimes

A, B = b"a" * 32, b"b" * 32


def never_busy() -> float:
    return 0.0


async def looked(diagnosis: FetchDiagnosis, idle: Bottleneck | None = None) -> Bottleneck | None:
    await trio.sleep(1)
    diagnosis.look(idle)
    return diagnosis.bottleneck


# -- a fetch -----------------------------------------------------------------------------------------------


async def test_a_fetch_without_requests_is_limited_by_what_it_waits_for(autojump_clock: MockClock) -> None:
    diagnosis = FetchDiagnosis(WorkTimes(), never_busy)
    assert diagnosis.bottleneck is None
    for idle in (Bottleneck.PEER_BUSY, Bottleneck.TOO_FEW_SOURCES, None):
        assert await looked(diagnosis, idle) is idle


async def test_why_there_might_be_no_request_is_no_matter_where_there_is_one(
    autojump_clock: MockClock,
) -> None:
    diagnosis = FetchDiagnosis(WorkTimes(), never_busy)
    with diagnosis.request(A):
        assert await looked(diagnosis, Bottleneck.PEER_BUSY) is Bottleneck.SENDER


async def test_who_waits_for_a_source_takes_its_word_until_it_leaves(autojump_clock: MockClock) -> None:
    diagnosis = FetchDiagnosis(WorkTimes(), never_busy)
    with diagnosis.request(A):
        assert await looked(diagnosis) is Bottleneck.SENDER
        diagnosis.source_told(A, "sender_disk")
        diagnosis.source_told(B, "flow_control")
        assert await looked(diagnosis) is Bottleneck.SENDER_DISK
        diagnosis.source_told(A, "never heard of")
        assert await looked(diagnosis) is Bottleneck.SENDER_DISK
        diagnosis.source_left(A)
        assert await looked(diagnosis) is Bottleneck.SENDER


async def test_the_source_that_is_waited_for_by_most_is_named(autojump_clock: MockClock) -> None:
    diagnosis = FetchDiagnosis(WorkTimes(), never_busy)
    diagnosis.source_told(A, "sender_disk")
    diagnosis.source_told(B, "congestion_window")
    with diagnosis.request(A), diagnosis.request(B), diagnosis.request(B):
        assert await looked(diagnosis) is Bottleneck.CONGESTION_WINDOW


@pytest.mark.parametrize(
    ("activity", "named"),
    [(Activity.STORING, Bottleneck.RECEIVER_DISK), (Activity.RATE_CAPPED, Bottleneck.RECEIVER_RATE_CAP)],
)
async def test_what_the_receiver_itself_does_is_its_own(
    autojump_clock: MockClock, activity: Activity, named: Bottleneck
) -> None:
    diagnosis = FetchDiagnosis(WorkTimes(), never_busy)
    diagnosis.source_told(A, "sender_disk")
    with diagnosis.request(A) as task:
        with task.doing(activity):
            await trio.sleep(0.6)
        await trio.sleep(0.4)
        diagnosis.look(None)
        assert diagnosis.bottleneck is named
        assert await looked(diagnosis) is Bottleneck.SENDER_DISK


async def test_a_busy_loop_limits_whatever_tasks_wait_for_but_not_where_none_is(
    autojump_clock: MockClock,
) -> None:
    diagnosis = FetchDiagnosis(WorkTimes(), lambda: 0.95 * trio.current_time())
    with diagnosis.request(A):
        assert await looked(diagnosis) is Bottleneck.RECEIVER_CPU
    assert await looked(diagnosis, Bottleneck.PEER_BUSY) is Bottleneck.PEER_BUSY


async def test_a_loop_that_often_waits_limits_nothing(autojump_clock: MockClock) -> None:
    diagnosis = FetchDiagnosis(WorkTimes(), lambda: 0.8 * trio.current_time())
    with diagnosis.request(A):
        assert await looked(diagnosis) is Bottleneck.SENDER


# -- an upload ---------------------------------------------------------------------------------------------


def sending(limit: SendLimit) -> SendClock:
    clock = SendClock()
    clock.switch(limit, trio.current_time())
    return clock


@pytest.mark.parametrize(
    ("activity", "limit", "named"),
    [
        (Activity.READING, SendLimit.APPLICATION, Bottleneck.SENDER_DISK),
        (Activity.RATE_CAPPED, SendLimit.APPLICATION, Bottleneck.SENDER_RATE_CAP),
        (Activity.SENDING, SendLimit.CONGESTION, Bottleneck.CONGESTION_WINDOW),
        (Activity.SENDING, SendLimit.FLOW_CONTROL, Bottleneck.FLOW_CONTROL),
        (Activity.SENDING, SendLimit.APPLICATION, Bottleneck.FLOW_CONTROL),  # all sent, nothing acknowledged
        (Activity.FINISHING, SendLimit.CONGESTION, Bottleneck.CONGESTION_WINDOW),
        (Activity.FINISHING, SendLimit.FLOW_CONTROL, Bottleneck.FLOW_CONTROL),
        (Activity.FINISHING, SendLimit.APPLICATION, None),  # the receiver alone is waited for
    ],
)
async def test_an_upload_is_limited_by_what_its_tasks_and_the_connection_do(
    autojump_clock: MockClock, activity: Activity, limit: SendLimit, named: Bottleneck | None
) -> None:
    diagnosis = UploadDiagnosis(WorkTimes(), never_busy, sending(limit))
    with diagnosis.request() as task, task.doing(activity):
        assert diagnosis.requests == 1
        await trio.sleep(1)
        assert diagnosis.look() is named
    await trio.sleep(1)
    assert diagnosis.requests == 0
    assert diagnosis.look() is None


async def test_a_busy_loop_limits_an_upload(autojump_clock: MockClock) -> None:
    diagnosis = UploadDiagnosis(WorkTimes(), trio.current_time, sending(SendLimit.CONGESTION))
    with diagnosis.request() as task, task.doing(Activity.SENDING):
        await trio.sleep(1)
        assert diagnosis.look() is Bottleneck.SENDER_CPU
