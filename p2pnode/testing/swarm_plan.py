"""What a simulated swarm is made of, and what befalls it. Sizes are bytes, rates bytes a second, times seconds."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from p2pnode.errors import ConfigError
from p2pnode.testing.bounds import Rates, least_seconds, least_seconds_in_zones
from p2pnode.testing.network import ETHERNET_MTU

SERVER: Final = "server"  # the coordinator, as it is called in plans and results
SEED: Final = "seed"  # the only seed, or all of them
MBIT: Final = 125_000  # bytes a second

_MOMENT: Final = re.compile(r"(?P<percent>\d+(?:\.\d+)?)%|(?P<seconds>\d+(?:\.\d+)?)s|union", re.ASCII)
_INCIDENT: Final = re.compile(r"(?P<who>[a-z]+(?:-\d+)?)@(?P<when>.+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a swarm is. `seconds` are virtual, since the leechers were told to fetch.

    `median_share` is that of the leechers which fetch, 0 … 1. `has_union`: together, the leechers have every
    piece.
    """

    seconds: float = 0.0
    completed: int = 0
    median_share: float = 0.0
    has_union: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happens: at a share of the median leecher, at a time, or once the leechers have it all."""

    share: float | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`50%`, `12.5s` or `union`; `ConfigError` for anything else."""
        match = _MOMENT.fullmatch(text)
        if match is None or float(match["percent"] or 0) > 100:
            raise ConfigError(f"{text!r} is no moment: write 50%, 12.5s or union")
        if match["percent"]:
            return cls(share=float(match["percent"]) / 100)
        return cls(seconds=float(match["seconds"])) if match["seconds"] else cls()

    def has_come(self, progress: Progress) -> bool:
        """Whether it is over."""
        if self.share is not None:
            return progress.median_share >= self.share
        return progress.has_union if self.seconds is None else progress.seconds >= self.seconds


class Happening(enum.Enum):
    """What can befall a host."""

    KILL = "kill"  # from now on no packet leaves it or reaches it, and its process is gone
    FREEZE = "freeze"  # its disk hangs: links live, questions are heard, nothing is read or written any more
    START = "start"  # a leecher starts, or starts again with the directory that it had


@dataclass(frozen=True, slots=True)
class Incident:
    """What happens to whom and when. `who` is `server`, `seed`, `seed-2`, `peer-3` or `liar-1`."""

    who: str
    what: Happening
    when: Moment

    @classmethod
    def parse(cls, text: str, what: Happening = Happening.KILL) -> Self:
        """`server@50%`, `seed@union`, `peer-3@12.5s`; `ConfigError` for anything else."""
        match = _INCIDENT.fullmatch(text)
        if match is None:
            raise ConfigError(f"{text!r} is not NAME@MOMENT, as server@50% or seed@union")
        return cls(match["who"], what, Moment.parse(match["when"]))

    def befalls(self, name: str) -> bool:
        """Whether it is about this host."""
        return name == self.who or (self.who == SEED and name.startswith(f"{SEED}-"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmPlan:
    """A coordinator without files, seeds that have the file, leechers that fetch it, and perhaps liars.

    `rate` is the uplink and the downlink of each host, `seed_rate` that of a seed (none: the same), `rates` are
    exceptions by name; they count UDP payload. `delay_s` is the way from any host to any other. With zones,
    leechers are dealt round robin over `zone-1` …; coordinator, seeds and liars are in a zone of their own, and
    each zone has one gateway of `wide_rate` (none: `rate`) each way. A liar announces the whole file and sends
    wrong blocks.
    """

    peers: int = 8
    seeds: int = 1
    liars: int = 0
    size: int = 100_000_000
    rate: float = 100 * MBIT
    seed_rate: float | None = None
    rates: Mapping[str, Rates] = field(default_factory=dict)
    delay_s: float = 0.02
    loss: float = 0.0
    zones: int = 0
    wide_rate: float | None = None
    mtu: int = ETHERNET_MTU
    incidents: tuple[Incident, ...] = ()
    random_seed: int = 0

    def __post_init__(self) -> None:
        self._check_numbers()
        names = {SERVER, SEED, *self.seed_names, *self.peer_names, *self.liar_names}
        for name in [*self.rates, *(incident.who for incident in self.incidents)]:
            if name not in names:
                raise ConfigError(f"nobody is called {name!r}: there are {', '.join(self._name_ranges())}")
        if len(self.lost_names) == self.peers:
            raise ConfigError("all leechers would be killed: nobody is left to complete")
        for incident in self.incidents:
            if incident.what is Happening.START and incident.who not in self.peer_names:
                raise ConfigError(f"{incident.who} cannot start later: only leechers can")

    def _check_numbers(self) -> None:
        if self.peers < 1 or self.seeds < 1 or self.liars < 0:
            raise ConfigError("a swarm has at least one leecher and one seed")
        if self.size < 1:
            raise ConfigError("the file has at least one byte")
        if not 0 <= self.loss < 1:
            raise ConfigError(f"a loss of {self.loss} is not between 0 and 1")
        if self.delay_s < 0 or self.zones < 0:
            raise ConfigError("delay and zones are not negative")
        rates = [self.rate, self.rate_of_seed, self.gateway_rate]
        rates += [rate for own in self.rates.values() for rate in (own.up_bytes_per_s, own.down_bytes_per_s)]
        if min(rates) <= 0:
            raise ConfigError("a rate is more than 0")

    def _name_ranges(self) -> Iterator[str]:
        yield SERVER
        for names in (self.seed_names, self.peer_names, self.liar_names):
            if names:
                yield names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"

    # -- who there is ----------------------------------------------------------------------------------------

    @property
    def seed_names(self) -> tuple[str, ...]:
        """`seed`, or `seed-1` and on where there are several."""
        return (SEED,) if self.seeds == 1 else _numbered(SEED, self.seeds)

    @property
    def peer_names(self) -> tuple[str, ...]:
        """The leechers: `peer-1` and on."""
        return _numbered("peer", self.peers)

    @property
    def liar_names(self) -> tuple[str, ...]:
        """`liar-1` and on."""
        return _numbered("liar", self.liars)

    @property
    def late_names(self) -> frozenset[str]:
        """Leechers that are not there at first."""
        first: dict[str, Happening] = {}
        for incident in self.incidents:
            first.setdefault(incident.who, incident.what)
        return frozenset(name for name, what in first.items() if what is Happening.START)

    @property
    def lost_names(self) -> frozenset[str]:
        """Leechers that are killed and do not start again: nobody waits for them."""
        last = {incident.who: incident.what for incident in self.incidents}
        return frozenset(
            name for name in self.peer_names if last.get(name) in (Happening.KILL, Happening.FREEZE)
        )

    # -- how fast they are -----------------------------------------------------------------------------------

    @property
    def rate_of_seed(self) -> float:
        """Of each seed."""
        return self.rate if self.seed_rate is None else self.seed_rate

    @property
    def gateway_rate(self) -> float:
        """Of each zone's gateway, each way."""
        return self.rate if self.wide_rate is None else self.wide_rate

    def rates_of(self, name: str) -> Rates:
        """The uplink and downlink of a host."""
        rate = self.rate_of_seed if name in self.seed_names else self.rate
        return self.rates.get(name, Rates(rate, rate))

    def zone_of(self, name: str) -> str:
        """The zone of a host; empty without zones."""
        if not self.zones:
            return ""
        if name not in self.peer_names:
            return "origin"
        return f"zone-{self.peer_names.index(name) % self.zones + 1}"

    @property
    def bound_s(self) -> float:
        """The least time in which every leecher can have the file; liars give nothing."""
        leechers = {name: self.rates_of(name) for name in self.peer_names}
        source_up = sum(self.rates_of(name).up_bytes_per_s for name in self.seed_names)
        if not self.zones:
            return least_seconds(self.size, source_up, list(leechers.values()))
        zones: dict[str, list[Rates]] = {}
        for name, rates in leechers.items():
            zones.setdefault(self.zone_of(name), []).append(rates)
        gateway = Rates(self.gateway_rate, self.gateway_rate)
        return least_seconds_in_zones(self.size, source_up, list(zones.values()), gateway)


def _numbered(word: str, count: int) -> tuple[str, ...]:
    return tuple(f"{word}-{number}" for number in range(1, count + 1))
