"""Whose pieces go out now: in turns, so that each piece is whole somewhere soon, and not all of them late.

Of 32 links that ask at once each would get a 32nd of the uplink, and every piece would take 32 times as long before
anybody can pass it on. A turn is one batch of a request: read, handed to QUIC, sent. So many count at a time; links
take them round robin. The requests of one link go out in order, the most urgent first, and the next is read while
the one before it leaves.

Who takes slowly must not hold up others. A turn that lasts longer than it should among so many counts no more: it
goes on beside those of others. A request that takes long is joined by the next of its link.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from itertools import count
from math import exp, inf

import trio

from p2pnode import config


class _Stage(enum.Enum):
    """How far a request is."""

    WAITING = "it has had no turn yet, and holds nothing"
    BEGUN = "it is read and handed to QUIC, turn by turn"
    HANDED_OVER = "QUIC has all of it"


class Place:
    """One request's place in the line of its link; made by `UploadTurns.place`."""

    def __init__(self, turns: UploadTurns, line: _Line, urgency: tuple[int, int]) -> None:
        self._turns = turns
        self.line = line
        self.urgency = urgency  # the smallest is first
        self.stage = _Stage.WAITING
        self.size = 0  # of the batch that it has or wants a turn for
        self.turn_began_at: float | None = None
        self.counts = False  # whether its turn is one of so many
        self.granted = trio.Event()
        self.first = trio.Event()  # nothing of the link that began before it is still to be sent …
        self._first_at = inf  # … from then on

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the end of a turn."""
        return self._turns.is_awaited

    async def begin_turn(self, size: int) -> None:
        """Wait for a turn to send so many bytes."""
        self.size = size
        self.granted = trio.Event()
        self._turns.want(self)
        await self._turns.wait(self.granted)

    async def wait_in_line(self) -> None:
        """Wait until what began before it is sent."""
        await self._turns.wait(self.first)

    def become_first(self) -> None:
        """It is its turn in the line."""
        if not self.first.is_set():
            self.first.set()
            self._first_at = trio.current_time()

    def first_s(self, now: float) -> float:
        """For how long nothing was before it."""
        return now - self._first_at

    def handed_over(self) -> None:
        """Its last batch was handed to QUIC: the next of the link may be read."""
        self.stage = _Stage.HANDED_OVER
        self._turns.renew(self.line)

    def end_turn(self) -> None:
        """The batch is sent, all but what keeps the connection busy while the next comes."""
        self._turns.end(self)


class _Line:
    """The requests of one link."""

    def __init__(self) -> None:
        self.places = 0
        self.waiting: list[Place] = []  # a link has few requests under way
        self.going_on: deque[Place] = deque()  # begun, and in want of another turn
        self.begun: list[Place] = []  # in the order in which they go out
        self.passed: set[Place] = set()  # that took too long: they are in nobody's way
        self.turns = 0  # that count

    @property
    def next(self) -> Place | None:
        """Who of them should have the next turn, if anybody should."""
        if self.going_on:
            return self.going_on[0]
        return min(self.waiting, key=_urgency, default=None) if self._may_begin else None

    @property
    def _may_begin(self) -> bool:
        """So much is read ahead, while one request leaves; nothing beside one that leaves slowly."""
        handed_over = sum(place.stage is _Stage.HANDED_OVER for place in self.begun)
        ahead = sum(place.size for place in self.begun if place.stage is _Stage.BEGUN)
        is_fast = all(place.counts or place.turn_began_at is None for place in self.begun)
        return is_fast and handed_over <= 1 and ahead < config.UPLOAD_READ_AHEAD

    def begin(self, place: Place) -> None:
        """It has a turn."""
        if place.stage is _Stage.BEGUN:
            self.going_on.remove(place)
            return
        place.stage = _Stage.BEGUN
        self.waiting.remove(place)
        self.begun.append(place)
        self.begun[0].become_first()

    def remove(self, place: Place) -> None:
        """It left, is sent, or is passed: the one behind it is the first."""
        if place in self.begun:
            self.begun.remove(place)
        if self.begun:
            self.begun[0].become_first()


def _urgency(place: Place) -> tuple[int, int]:
    return place.urgency


class UploadTurns:
    """All requests of a node that wait for a turn, or have one. `run` keeps the time."""

    def __init__(self, at_once: int = config.UPLOAD_TURNS) -> None:
        self._at_once = at_once
        self._numbers = count()
        self._lines: dict[Hashable, _Line] = {}
        self._idle: dict[_Line, None] = {}  # lines that have no turn and want one, the longest waiting first
        self._more: dict[_Line, None] = {}  # those that have one and could use another, if nobody else does
        self._in_turn: set[Place] = set()
        self._counting = 0
        self._waiters = 0
        self._somebody_waits = trio.Event()
        self._sent_bytes = 0.0  # in the last second or so: each counts less the longer it is ago
        self._sent_at = 0.0

    @contextmanager
    def place(self, link: Hashable, priority: int) -> Iterator[Place]:
        """Stand in the line of a link; higher priority goes first."""
        line = self._lines.setdefault(link, _Line())
        place = Place(self, line, (-priority, next(self._numbers)))
        line.places += 1
        try:
            yield place
        finally:
            self._leave(place)
            line.places -= 1
            if not line.places:
                del self._lines[link]

    @property
    def is_awaited(self) -> bool:
        """Whether a link without a turn waits for one."""
        return bool(self._idle)

    def want(self, place: Place) -> None:
        """It wants a turn: the first, or another one."""
        line = place.line
        if place.stage is _Stage.BEGUN:
            line.going_on.append(place)
        else:
            line.waiting.append(place)
        self.renew(line)

    async def wait(self, event: trio.Event) -> None:
        """Wait for what another's progress, or lack of it, sets."""
        if event.is_set():
            return
        self._waiters += 1
        self._somebody_waits.set()
        try:
            await event.wait()
        finally:
            self._waiters -= 1

    def end(self, place: Place) -> None:
        """Its turn is over."""
        if place.turn_began_at is None:
            return
        self._note_sent(place.size)
        place.turn_began_at = None
        self._in_turn.discard(place)
        place.line.passed.discard(place)
        if place.stage is _Stage.HANDED_OVER:
            place.line.remove(place)
        self._stop_counting(place)
        self.renew(place.line)

    def renew(self, line: _Line) -> None:
        """Something changed in a line: put it where it belongs, and give out turns."""
        right, wrong = (self._more, self._idle) if line.turns else (self._idle, self._more)
        wrong.pop(line, None)
        if line.next is None:
            right.pop(line, None)
        else:
            right.setdefault(line)
        while (
            line.passed and line.next is not None
        ):  # whoever takes slowly waits for nobody, and is in nobody's way
            self._give_turn(line)
        while self._counting < self._at_once and (first := next(iter(self._idle or self._more), None)):
            self._give_turn(first)

    async def run(self) -> None:
        """While somebody waits, look for turns that last too long; for ever."""
        while True:
            await self._somebody_waits.wait()
            await trio.sleep(config.UPLOAD_TURN_CHECK_S)
            now = trio.current_time()
            for place in list(self._in_turn):
                assert place.turn_began_at is not None
                if now - place.turn_began_at >= self._allowed_s(place.size):
                    self._stop_counting(place)
                if place.first_s(now) >= config.UPLOAD_ORDER_PATIENCE_S:
                    place.line.remove(place)
                    place.line.passed.add(place)
                self.renew(place.line)
            if not self._waiters:
                self._somebody_waits = trio.Event()

    def _leave(self, place: Place) -> None:
        line = place.line
        self.end(place)
        if place in line.waiting:
            line.waiting.remove(place)
        if place in line.going_on:
            line.going_on.remove(place)
        line.remove(place)
        self.renew(line)

    def _give_turn(self, line: _Line) -> None:
        """To the next of a line; it counts, unless one of the line was passed."""
        place = line.next
        assert place is not None
        line.begin(place)
        place.turn_began_at = trio.current_time()
        self._in_turn.add(place)
        if not line.passed:
            place.counts = True
            self._counting += 1
            line.turns += 1
        self._idle.pop(line, None)
        self._more.pop(line, None)
        if line.next is not None:
            (self._more if line.turns else self._idle)[line] = None
        place.granted.set()

    def _stop_counting(self, place: Place) -> None:
        if place.counts:
            place.counts = False
            self._counting -= 1
            place.line.turns -= 1

    def _note_sent(self, size: int) -> None:
        now = trio.current_time()
        self._sent_bytes = self._sent_bytes * exp(self._sent_at - now) + size
        self._sent_at = now

    def _allowed_s(self, size: int) -> float:
        """How long a turn may count: twice what it takes where all go alike fast, within bounds."""
        usual_s = self._at_once * size / max(1.0, self._sent_bytes)
        return min(config.UPLOAD_TURN_MAX_S, max(config.UPLOAD_TURN_MIN_S, 2 * usual_s))
