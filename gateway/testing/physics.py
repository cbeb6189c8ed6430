"""The physical side of a story: what flows where, and what was allowed to.

This is the judge's own model. It knows the tree by plain names, the limits as the grid party
announced them, and what devices physically draw. It shares no code with the controller and reads
nothing that the gateway says about itself. Watts are floats here: nature does not round.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

TOLERANCE_W = 1.0
"""Sums of floats differ in the last digits; a real meter resolves no better than a watt."""

PowerOf = Callable[[datetime], float]
"""Watts drawn at an instant; import is positive."""


@dataclass(frozen=True, slots=True)
class LimitBlock:
    """``watts`` on ``[start, end)``."""

    start: datetime
    end: datetime
    watts: float


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a grid party said: from ``sent_at`` it may be known, from ``acked_at`` (None: not yet) it is."""

    sent_at: datetime
    acked_at: datetime | None
    blocks: tuple[LimitBlock, ...]

    def is_known(self, instant: datetime) -> bool:
        """Whether it had been acknowledged at ``instant``."""
        return self.acked_at is not None and self.acked_at <= instant

    def watts_at(self, instant: datetime) -> float | None:
        """The value that covers ``instant``; None where nothing is said about it."""
        return next((b.watts for b in self.blocks if b.start <= instant < b.end), None)


class LimitBook:
    """Limits of one node over time, as they were announced. A later one overwrites what it covers.

    ``static_w`` is the device's own limit (None: none); ``reaction`` is how long an old value may
    still be used after a tighter one that takes effect at once was acknowledged. Nobody reacts in
    an absence: then the time counts from its end.
    """

    def __init__(self, static_w: float | None = None, reaction: timedelta = timedelta(seconds=60)) -> None:
        self._static_w = math.inf if static_w is None else static_w
        self._reaction = reaction
        self._said: list[Announcement] = []
        self._absences: list[tuple[datetime, datetime | None]] = []

    def announce(self, announcement: Announcement) -> None:
        """Add what is said last, at the moment at which it is sent."""
        self._said.append(announcement)

    def acknowledged(self, at: datetime) -> None:
        """What was said last has been acknowledged."""
        self._said[-1] = replace(self._said[-1], acked_at=at)

    def absent(self, start: datetime) -> None:
        """From ``start`` on nobody is there who could act on what is said."""
        self._absences.append((start, None))

    def present(self, end: datetime) -> None:
        """The absence is over."""
        start, _ = self._absences.pop()
        self._absences.append((start, end))

    def announced_w(self, instant: datetime) -> float:
        """The limit at ``instant`` by everything acknowledged until then."""
        return self._value(instant, sum(a.is_known(instant) for a in self._said))

    def permitted_w(self, instant: datetime) -> float:
        """What a well-behaved site may draw at ``instant``: the loosest of what it may go by.

        With k announcements known a site may go by them from the moment the k-th was sent until
        the reaction time after the next one was acknowledged. A value announced longer ahead than
        the reaction time is the same in all of them, so it has no grace.
        """
        values = [self._value(instant, known) for known in self._may_know(instant)]
        return max(values)

    def _may_know(self, instant: datetime) -> Iterable[int]:
        for known in range(len(self._said) + 1):
            heard = known == 0 or self._said[known - 1].sent_at <= instant
            replaced_at = self._enforceable_at(self._said[known]) if known < len(self._said) else None
            if heard and (replaced_at is None or instant < replaced_at):
                yield known

    def _enforceable_at(self, announcement: Announcement) -> datetime | None:
        """From when on the announcement must be followed; None: nobody can say yet."""
        if announcement.acked_at is None:
            return None
        due = announcement.acked_at + self._reaction
        for start, end in self._absences:
            if start < due and end is None:
                return None
            if end is not None and start < due and announcement.acked_at < end:
                due = end + self._reaction
        return due

    def _value(self, instant: datetime, known: int) -> float:
        for announcement in reversed(self._said[:known]):
            watts = announcement.watts_at(instant)
            if watts is not None:
                return min(watts, self._static_w)
        return self._static_w


@dataclass(frozen=True, slots=True)
class Draw:
    """A device at a leaf. ``wish_w`` is what it would draw if nobody limited it."""

    node: str
    power_w: PowerOf
    wish_w: PowerOf
    controllable: bool = True


class BuildingLoad:
    """A house's load between ``low_w`` and ``high_w``: a slow swing, and small things switching.

    It moves slower than 10 W/s, as the sum of many appliances does.
    """

    def __init__(self, seed: int, low_w: float = 6_000.0, high_w: float = 12_000.0) -> None:
        chance = random.Random(f"building {seed}")
        self._middle = (low_w + high_w) / 2
        self._swing = (high_w - low_w) / 2 * chance.uniform(0.6, 0.9)
        self._period_s = chance.uniform(45, 60) * 60
        self._phase = chance.uniform(0, 2 * math.pi)
        self._ripple_w = chance.uniform(40, 80)
        self._ripple_s = chance.uniform(50, 80)

    def power_w(self, instant: datetime) -> float:
        """Watts at ``instant``."""
        turn = 2 * math.pi * instant.timestamp()
        slow = self._swing * math.sin(turn / self._period_s + self._phase)
        return self._middle + slow + self._ripple_w * math.sin(turn / self._ripple_s)


class Register:
    """An ever-rising energy register, read back at any instant that it has lived through."""

    def __init__(self) -> None:
        self._times: list[datetime] = []
        self._wh: list[float] = []

    @property
    def wh(self) -> float:
        """What it shows now."""
        return self._wh[-1] if self._wh else 0.0

    def add(self, instant: datetime, power_w: float) -> None:
        """Count ``power_w`` from the last reading to ``instant``."""
        passed_s = (instant - self._times[-1]).total_seconds() if self._times else 0.0
        self._wh.append(self.wh + power_w * passed_s / 3600)
        self._times.append(instant)

    def at(self, instant: datetime) -> float:
        """What it showed at ``instant``, between two readings in proportion."""
        after = bisect_right(self._times, instant)
        if after == 0:
            return 0.0
        if after == len(self._times):
            return self.wh
        start, end = self._times[after - 1], self._times[after]
        part = (instant - start) / (end - start)
        return self._wh[after - 1] + part * (self._wh[after] - self._wh[after - 1])


@dataclass(slots=True)
class Excess:
    """How far and how long a node was above what was permitted; ``at`` is the worst instant.

    ``worst_w`` and ``seconds`` are all that was seen, ``blamed_w`` and ``blamed_s`` what was not
    forgiven, ``blamed_at`` the last instant of that.
    """

    worst_w: float = 0.0
    seconds: float = 0.0
    at: datetime | None = None
    blamed_w: float = 0.0
    blamed_s: float = 0.0
    blamed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One sample of the whole tree."""

    at: datetime
    power_w: Mapping[str, float]
    limit_w: Mapping[str, float]


@dataclass
class Physics:
    """The tree, sampled. ``limits`` names every node that has one; leaves are ``draws``."""

    limits: Mapping[str, LimitBook]
    draws: Sequence[Draw]
    excess: dict[str, Excess] = field(default_factory=dict)
    registers: dict[str, Register] = field(default_factory=dict)
    offered: Register = field(default_factory=Register)
    track: list[Reading] = field(default_factory=list)
    forgiven: list[tuple[datetime, datetime]] = field(default_factory=list)
    """When an excess is seen and not held against the site, because no controller could prevent it."""

    def sample(self, now: datetime) -> Reading:
        """Read every device, add up, compare, integrate."""
        power: dict[str, float] = {}
        for draw in self.draws:
            watts = draw.power_w(now)
            for node in above(draw.node):
                power[node] = power.get(node, 0.0) + watts
        passed_s = (now - self.track[-1].at).total_seconds() if self.track else 0.0
        for node, watts in power.items():
            self.registers.setdefault(node, Register()).add(now, watts)
            self._compare(node, watts, now, passed_s)
        self.offered.add(now, self.possible_w(now))
        limits = {node: book.announced_w(now) for node, book in self.limits.items()}
        self.track.append(Reading(now, power, limits))
        return self.track[-1]

    @property
    def last(self) -> Reading | None:
        """The newest sample."""
        return self.track[-1] if self.track else None

    def overs(self, node: str) -> list[tuple[datetime, float]]:
        """At every sample, how far the node was above what it may draw, W; negative below."""
        book = self.limits[node]
        return [(r.at, r.power_w[node] - book.permitted_w(r.at)) for r in self.track]

    def possible_w(self, now: datetime) -> float:
        """The most that all controllable devices together could draw by the limits known now."""
        fixed = {node: 0.0 for node in self.limits}
        for draw in (d for d in self.draws if not d.controllable):
            for node in above(draw.node):
                if node in fixed:
                    fixed[node] += draw.power_w(now)
        room = {node: max(book.announced_w(now) - fixed[node], 0.0) for node, book in self.limits.items()}
        return _flow(room, {d.node: d.wish_w(now) for d in self.draws if d.controllable})

    def delivered_wh(self) -> float:
        """What all controllable devices took."""
        return sum(self.registers[d.node].wh for d in self.draws if d.controllable and d.node in self.registers)

    def worst(self) -> Excess:
        """The node that was furthest above its limit."""
        return max(self.excess.values(), key=lambda e: e.worst_w, default=Excess())

    def excess_seconds(self) -> float:
        """Seconds in excess at the node where they are most."""
        return max((e.seconds for e in self.excess.values()), default=0.0)

    def blamed_w(self) -> float:
        """The most that any node was above what it may draw, forgiven times left out."""
        return max((e.blamed_w for e in self.excess.values()), default=0.0)

    def _compare(self, node: str, watts: float, now: datetime, passed_s: float) -> None:
        book = self.limits.get(node)
        if book is None:
            return
        seen = self.excess.setdefault(node, Excess())
        over = watts - book.permitted_w(now)
        if over <= TOLERANCE_W:
            return
        seen.seconds += passed_s
        if over > seen.worst_w:
            seen.worst_w, seen.at = over, now
        if not any(start <= now <= end for start, end in self.forgiven):
            seen.blamed_s += passed_s
            seen.blamed_at = now
            seen.blamed_w = max(seen.blamed_w, over)


def above(node: str) -> Iterable[str]:
    """The node itself and every node above it: ``a/b/c``, ``a/b``, ``a``."""
    parts = node.split("/")
    return ("/".join(parts[:length]) for length in range(len(parts), 0, -1))


def _flow(room: Mapping[str, float], wishes: Mapping[str, float]) -> float:
    """The largest total that a tree lets through: each node passes on at most its room."""
    through = dict(wishes)
    nodes = {node for leaf in wishes for node in above(leaf)}
    for node in sorted(nodes, key=lambda n: -n.count("/")):
        total = min(through.get(node, 0.0), room.get(node, math.inf))
        through[node] = total
        parent = node.rpartition("/")[0]
        if parent:
            through[parent] = through.get(parent, 0.0) + total
    return sum(through[node] for node in nodes if "/" not in node)
