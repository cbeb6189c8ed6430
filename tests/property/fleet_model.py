"""A physical fleet and a faulty line, sharing no code with the controller's decisions.

Stations hold a permanent share and a session schedule, draw all they are allowed, and obey what
reaches them. The line loses, delays and doubles. The judge knows what the grid party announced, and
what the stations that nobody could tell about it keep for good (design §4, rule 7).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

MAX_W = 22_080
NEVER = datetime.min.replace(tzinfo=UTC)
REACTION = timedelta(seconds=60)


@dataclass
class PhysicalStation:
    """What really happens at an EVSE. ``skew_s`` is the error of its clock.

    ``share_told`` and ``schedule_told`` are when the gateway sent what the station now goes by.
    """

    name: str
    skew_s: float = 0.0
    share_w: int = MAX_W
    share_told: datetime = NEVER
    schedule: list[tuple[datetime, int]] | None = None
    schedule_told: datetime = NEVER
    plugged: bool = False
    transaction: str = ""

    def draw_w(self, now: datetime) -> int:
        if not self.plugged:
            return 0
        own = now + timedelta(seconds=self.skew_s)
        if self.schedule is None:
            return min(self.share_w, MAX_W)
        value = self.schedule[0][1]
        for start, watts in self.schedule:
            if start <= own:
                value = watts
        return min(value, MAX_W)

    def kept_w(self, since: datetime) -> int:
        """What it draws for good when nothing that was sent after ``since`` has reached it, else 0."""
        told, floor_w = (
            (self.share_told, self.share_w) if self.schedule is None else (self.schedule_told, self.schedule[-1][1])
        )
        return min(floor_w, MAX_W) if self.plugged and told < since else 0


@dataclass
class Announcement:
    """A limit that the grid party was told is known, and when."""

    known_at: datetime
    start: datetime
    end: datetime
    watts: int


@dataclass
class Judge:
    """Finds instants at which the fleet draws more than was known in time.

    ``load_w`` is drawn by the building. An announcement asks of the stations in reach that they make
    room for those which nothing has reached since: no gateway can lower a share it cannot send.
    """

    static_w: int
    load_w: int
    validity: timedelta
    stations: Collection[PhysicalStation]
    said: list[Announcement] = field(default_factory=list)
    worst: int = 0
    where: str = ""

    def limit_w(self, now: datetime) -> int:
        """What must hold now: announcements overlay each other; a late one counts once grants that
        were given before it have ended by themselves."""
        standing = self.static_w
        covering = [a for a in self.said if a.start <= now < a.end]
        for index, a in enumerate(covering):
            newer = covering[index + 1 :]
            # A newer one replaces it; both must hold while the newer one is too young to be met.
            loosest_allowed = [b.watts for b in newer]
            in_time = now >= a.known_at + self.validity
            if in_time and all(w <= a.watts for w in loosest_allowed):
                kept = sum(station.kept_w(since=a.known_at) for station in self.stations)
                standing = min(standing, max(a.watts, self.load_w + kept))
        return standing

    def look(self, now: datetime, total_w: int, note: str) -> None:
        excess = total_w - self.limit_w(now)
        if excess > self.worst:
            self.worst, self.where = excess, f"{now}: {total_w} W over {self.limit_w(now)} W, {note}"


class Agenda:
    """A virtual clock: what is to happen when."""

    def __init__(self, start: datetime) -> None:
        self.now = start
        self._heap: list[tuple[datetime, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def at(self, when: datetime, what: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(when, self.now), next(self._count), what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.now + timedelta(seconds=seconds), what)

    def run(self, end: datetime) -> None:
        while self._heap and self._heap[0][0] <= end:
            self.now, _, what = heapq.heappop(self._heap)
            what()
        self.now = end


@dataclass
class Line:
    """How bad the network is."""

    random: random.Random
    loss: float = 0.0
    delay_s: float = 0.2
    doubled: float = 0.0

    def carry(self, agenda: Agenda, what: Callable[[], None]) -> bool:
        """Deliver later, maybe; True when it was lost."""
        if self.random.random() < self.loss:
            return True
        agenda.after(self.random.uniform(0.01, self.delay_s), what)
        if self.random.random() < self.doubled:
            agenda.after(self.random.uniform(0.01, self.delay_s * 3), what)
        return False
