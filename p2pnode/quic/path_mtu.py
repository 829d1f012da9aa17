"""How large a datagram a path carries: DPLPMTUD (RFC 8899), as RFC 9000 §14.3 fits it to QUIC.

A pure machine. It searches upwards with *probes*, packets that carry nothing but padding, so that a probe the
path does not carry costs nothing else; and it notices when the path carries less than it used to.

::

    BASE ──── probe acknowledged ───► SEARCHING ──── nothing left to try ───► COMPLETE
      ▲                                   ▲                                       │
      └── black hole (from any of them)   └──────── every RAISE_INTERVAL_S ───────┘

Probes are sent beside data that fills its datagrams: who has nothing to send needs no larger ones, and the
acknowledgements of the data tell soon whether the probe was lost. So there is no timer to wait for: time only
matters at the moment of sending. There is at most one probe on its way.

All sizes are bytes of UDP payload.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf
from typing import Final

SIZES: Final = (
    # What common links leave for UDP: their MTU less 40 + 8 bytes of IPv6 or 20 + 8 of IPv4.
    1232,  # 1280, the least of IPv6
    1280,
    1332,
    1372,  # 1420, WireGuard
    1392,  # 1420 on IPv4
    1412,  # 1460, some clouds
    1432,  # 1480, an IPv4 tunnel
    1444,  # 1492, PPPoE
    1452,  # 1500, Ethernet
    1472,  # 1500 on IPv4
    4000,  # 4092, InfiniBand, and 4352
    8848,  # 8896, some clouds
    8900,  # 9000 and 9001, jumbo frames
    16_000,  # loopback: STREAM frames have lengths of 14 bits in aioquic
)
LANDMARKS: Final = (
    1452,
    8900,
    16_000,
)  # tried upwards, before what lies between the last good and the first bad
PROBES_MAX: Final = 3  # of one size: then the path does not carry it (RFC 8899 §5.1.2, MAX_PROBES) …
CROWDED_PROBES_MAX: Final = (
    12  # … but so many while others were lost too: a full queue drops large ones first
)
PROBE_TIMEOUT_S: Final = 15.0  # for a probe of which nothing is heard at all (§5.1.1, PROBE_TIMER)
RAISE_INTERVAL_S: Final = 600.0  # until what the path did not carry is tried again (§5.1.1, PMTU_RAISE_TIMER)
BLACK_HOLE_LOSSES: Final = 3  # losses of large packets in a row, each sent after the last was noticed
BLACK_HOLE_TIMEOUTS: Final = 2  # probe timeouts in a row in which nothing at all was acknowledged


@lru_cache(maxsize=16)
def _sizes_between(base: int, size_max: int) -> tuple[int, ...]:
    """`base`, the sizes of `SIZES` that are larger, and `size_max` if that is larger than all of them."""
    return base, *(size for size in SIZES if base < size < size_max), *([size_max] if size_max > base else [])


class PathMtu:
    """The datagram size of one direction of one path. `base` is in use until a larger one is confirmed.

    A path that changes is another path: make a new one.
    """

    __slots__ = (
        "_confirmed",
        "_crowded_probes_lost",
        "_loss_seen_at",
        "_loss_size",
        "_losses",
        "_noticed_loss_at",
        "_probe_is_lost",
        "_probed",
        "_probed_at",
        "_probes_lost",
        "_raise_at",
        "_refused",
        "_sizes",
        "_timeouts",
    )

    def __init__(self, base: int, size_max: int) -> None:
        self._sizes = _sizes_between(base, size_max)
        self._confirmed = 0  # index of the size in use
        self._refused = len(self._sizes)  # index of the smallest size that the path does not carry
        self._raise_at: float | None = None  # while nothing is left to try
        self._probed: int | None = None  # index of the size that is being probed
        self._probed_at = 0.0
        self._probe_is_lost = False  # the last one, of which no conclusion was drawn yet
        self._probes_lost = 0  # of the size that is next, alone
        self._crowded_probes_lost = 0  # of the size that is next, among others
        self._noticed_loss_at = -inf  # when anything but a probe was last found lost
        self._losses = 0  # of large packets in a row
        self._loss_size = 0  # the smallest of them
        self._loss_seen_at = 0.0
        self._timeouts = 0  # in a row

    def __repr__(self) -> str:
        return f"<PathMtu {self.size}>"

    @property
    def size(self) -> int:
        """The size that datagrams may have now."""
        return self._sizes[self._confirmed]

    # -- the search ----------------------------------------------------------------------------------------

    def probe_due(self, now: float) -> int | None:
        """The size of the probe that should be sent now, if one should. Tell `on_probe_sent` when it is."""
        if self._raise_at is not None:
            if now < self._raise_at:
                return None
            self._raise_at = None
            self._refused = len(self._sizes)
        if self._probed is not None and not self._probe_is_lost:
            if now < self._probed_at + PROBE_TIMEOUT_S:
                return None
            self._probe_is_lost = True
        self._conclude()
        candidate = self._candidate()
        if candidate == self._confirmed:
            self._raise_at = now + RAISE_INTERVAL_S
            return None
        return self._sizes[candidate]

    def _candidate(self) -> int:
        """Index of the next size to try; of the one in use when none is left.

        Upwards by landmarks, and when one was refused by halves between what is good and what is not.
        """
        if self._refused < len(self._sizes):
            return (self._confirmed + self._refused) // 2
        above = range(self._confirmed + 1, len(self._sizes))
        return next((index for index in above if self._sizes[index] in LANDMARKS), len(self._sizes) - 1)

    def on_probe_sent(self, size: int, now: float) -> None:
        """A probe of `size` is on its way."""
        self._probed = self._sizes.index(size)
        self._probed_at = now

    def on_probe_acked(self, size: int) -> None:
        """The path carried it: that size is in use from now on."""
        if self._is_awaited(size):
            self._confirmed = self._sizes.index(size)
            self._forget_probes()

    def on_probe_lost(self, size: int) -> None:
        """It was lost, perhaps because of its size. What that means is told by what else is found lost with it."""
        self._probe_is_lost |= self._is_awaited(size)

    def _conclude(self) -> None:
        """Count a lost probe, and give its size up when that was tried often enough."""
        if self._probed is None or not self._probe_is_lost:
            return
        if self._noticed_loss_at >= self._probed_at:
            self._crowded_probes_lost += 1
        else:
            self._probes_lost += 1
        if self._probes_lost == PROBES_MAX or self._crowded_probes_lost == CROWDED_PROBES_MAX:
            self._refused = self._probed
            self._forget_probes()
        self._probed, self._probe_is_lost = None, False

    def _forget_probes(self) -> None:
        """What is probed next is another size."""
        self._probed, self._probe_is_lost = None, False
        self._probes_lost = self._crowded_probes_lost = 0

    def _is_awaited(self, size: int) -> bool:
        return self._probed is not None and self._sizes[self._probed] == size

    # -- black holes (RFC 8899 §4.3) -----------------------------------------------------------------------

    def on_acked(self, size: int) -> None:
        """A packet of `size` that was no probe was acknowledged."""
        self._timeouts = 0
        if size >= self._loss_size:
            self._losses = 0

    def on_lost(self, size: int, sent_at: float, now: float) -> None:
        """A packet of `size` that was no probe is lost: by congestion, by chance, or by its size.

        Losses count once for all that was sent before the last of them was noticed: a burst is one loss.
        """
        self._noticed_loss_at = now
        if not self._sizes[0] < size <= self.size or (self._losses and sent_at <= self._loss_seen_at):
            return
        self._loss_size = min(size, self._loss_size) if self._losses else size
        self._loss_seen_at = now
        self._losses += 1
        if self._losses == BLACK_HOLE_LOSSES:
            self._fall(refused=self._confirmed)

    def on_timeout(self) -> None:
        """A probe timeout (RFC 9002 §6.2) has expired: nothing is heard of all that is on its way.

        That may as well be an outage, after which the path carries what it did before.
        """
        self._timeouts += 1
        if self._timeouts == BLACK_HOLE_TIMEOUTS:
            self._fall(refused=len(self._sizes))

    def _fall(self, refused: int) -> None:
        """Back to what every path carries, and search again: below `refused`."""
        if self._confirmed:
            self._confirmed = 0
            self._refused = refused
            self._raise_at = None
            self._forget_probes()
        self._losses = self._timeouts = 0
