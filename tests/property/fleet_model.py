"""What stations physically draw, and what was promised: a world that shares no code with the controller.

A station goes by what reached it, reads times with its own clock, and its car takes a moment to
follow. The judge knows what the grid party was told is known, and since when. Plain numbers, seconds
of true time, watts and amperes; nothing is imported from the gateway.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

VOLTS = 230.0
MAX_A = 32.0
PHASES = ("L1", "L2", "L3")
NEVER = float("-inf")
FAR = float("inf")

FALLBACK = "fallback"
"""Key of the limit that holds while the grid party is silent."""

GRACE_S = 45.0
"""How long the last station that was told may be ahead of those whose room it needs."""

REACTION_S = 100.0
"""A lost command is missed after 20 s, sent again 30 s later, may be missed once more, and is followed."""

BREATH_S = 25.0
"""So long it takes to notice that a command was not answered."""

PATIENCE_S = 110.0
"""Within so long everybody is given what there is: a period of the controller, then a second round."""

AHEAD_S = 20.0
"""A coming cut may be felt so early."""

Profile = Sequence[tuple[float, int]]
"""(start, W): from each start on, at most so much; the first value also holds before."""


def value_at(profile: Profile, instant: float) -> int:
    """What a profile allows."""
    value = profile[0][1]
    for start, watts in profile:
        if start > instant:
            break
        value = watts
    return value


@dataclass
class Station:
    """One EVSE and the car at it. ``told`` is when what it goes by was sent."""

    name: str
    phases: tuple[str, ...]
    skew_s: float
    lag_s: float
    in_watts: bool = False
    car_phases: int = 3
    share: Profile = ((NEVER, int(3 * VOLTS * MAX_A)),)
    share_told: float = NEVER
    schedule: Profile | None = None
    schedule_told: float = NEVER
    plugged: bool = False
    transaction: str = ""
    _before: Profile = ()
    _switched: float = NEVER

    def install_share(self, profile: Profile, told: float, now: float) -> None:
        """Go by a new permanent share."""
        if self.schedule is None:
            self._leave(self.share, now)
        self.share, self.share_told = profile, told

    def install_schedule(self, profile: Profile, told: float, now: float) -> None:
        """Go by a new schedule of the running session."""
        self._leave(self._profile(), now)
        self.schedule, self.schedule_told = profile, told

    def plug(self, transaction: str, car_phases: int) -> None:
        """A car arrives: whoever is there to hear of it, it draws."""
        self.plugged, self.transaction, self.car_phases = True, transaction, car_phases

    def unplug(self) -> None:
        """The car leaves; what was installed for its session is gone."""
        self.plugged, self.schedule, self._switched = False, None, NEVER

    @property
    def told(self) -> float:
        """When what it goes by was sent."""
        return self.share_told if self.schedule is None else self.schedule_told

    @property
    def used(self) -> tuple[str, ...]:
        """The phases that the car draws on."""
        return self.phases[: self.car_phases]

    def settled(self, now: float) -> bool:
        """Whether the car has followed what was installed last."""
        return now >= self._switched + self.lag_s

    def current_a(self, now: float) -> float:
        """What flows on each phase used."""
        if not self.plugged:
            return 0.0
        read = now + self.skew_s - self.lag_s
        watts = value_at(self._profile(), read)
        if not self.settled(now):
            watts = max(watts, value_at(self._before, read))
        return self._current_of(watts)

    def power_w(self, now: float) -> float:
        """What it draws."""
        return self.current_a(now) * VOLTS * len(self.used)

    def kept_a(self, since: float, now: float) -> float:
        """What flows for good when nothing that was sent after ``since`` has reached car and station, else 0."""
        if not self.plugged:
            return 0.0
        kept = self._current_of(self._profile()[-1][1]) if self.told < since else 0.0
        return kept if self.settled(now) else max(kept, self._current_of(self._before[-1][1]))

    def edges(self) -> list[float]:
        """True instants at which the draw may change by itself."""
        starts = [start for profile in (self._profile(), self._before) for start, _ in profile]
        return [start - self.skew_s + self.lag_s for start in starts if start > NEVER] + [self._switched + self.lag_s]

    def _current_of(self, watts: int) -> float:
        """A watt limit is spread over all phases, unless the station knows watts only."""
        spread = len(self.used) if self.in_watts else len(self.phases)
        return min(watts / (VOLTS * spread), MAX_A)

    def _profile(self) -> Profile:
        return self.share if self.schedule is None else self.schedule

    def _leave(self, profile: Profile, now: float) -> None:
        if self.plugged:
            # What it has not yet left goes on for as long as the car takes.
            held = [profile] if self.settled(now) else [profile, self._before]
            read = now + self.skew_s - self.lag_s
            self._before = max(held, key=lambda p: value_at(p, read))
            self._switched = now


@dataclass
class Announcement:
    """A limit at the grid connection that the grid party was told is known, and when.

    W on the sum where ``phases`` is empty, else A on each of them.
    """

    known_at: float
    start: float
    end: float
    value: float
    phases: tuple[str, ...] = ()
    key: str = "sum"
    """What a later word replaces: the same key."""


@dataclass
class Excess:
    """The worst so far: how much, and where."""

    size: float = 0.0
    text: str = ""


Row = tuple[str, str, float]
"""Node, phase (empty: the sum), limit in W or A."""


@dataclass
class Judge:
    """Finds instants at which the fleet draws more than was known in time, or less than it could.

    All stations stand in the garage, the garage below the grid connection ``main`` beside a building
    that draws ``load_w`` evenly. An announcement asks of the stations in reach that they make room
    for those which nothing has reached since: no gateway can lower a share it cannot send.
    """

    rows: Sequence[Row]
    load_w: float
    validity_s: float
    stations: Collection[Station]
    said: list[Announcement] = field(default_factory=list)
    excess: Excess = field(default_factory=Excess)
    idle: Excess = field(default_factory=Excess)
    trouble_at: float = NEVER
    """The last instant at which something was lost, late, dead or out of reach."""
    changed_at: float = NEVER
    """The last instant at which a car came or went, or a limit changed."""

    def look(self, now: float) -> None:
        """Judge this instant."""
        currents = self._currents(now)
        garage_w = sum(currents.values()) * VOLTS
        for node, phase, limit in self.rows:
            load_w = self.load_w if node == "main" else 0.0
            drawn = currents[phase] + load_w / VOLTS / 3 if phase else garage_w + load_w
            self._compare(now, f"{node} {phase}", drawn, limit)
        for said in self._due(now):
            since = self._out_of_reach_since(said, now)
            if not said.phases:
                kept_w = sum(s.kept_a(since, now) * len(s.used) * VOLTS for s in self.stations)
                self._compare(now, "announced", garage_w + self.load_w, max(said.value, self.load_w + kept_w))
            for phase in said.phases:
                kept_a = sum(s.kept_a(since, now) for s in self.stations if phase in s.used)
                load_a = self.load_w / VOLTS / 3
                self._compare(now, f"announced {phase}", currents[phase] + load_a, max(said.value, load_a + kept_a))

    def _out_of_reach_since(self, said: Announcement, now: float) -> float:
        """Who was told nothing after this is excused.

        Where a station missed its command, those told in the same breath could not know that they
        have to make room for it; if the gateway lives on, it tells them.
        """
        missed = any(s.kept_a(said.known_at, now) for s in self.stations)
        return said.known_at + BREATH_S if missed else said.known_at

    def look_for_waste(self, now: float) -> None:
        """With all in reach and nothing new for a while, cars must be given most of what the limits leave."""
        if now < self.trouble_at + self.validity_s + PATIENCE_S or now < self.changed_at + PATIENCE_S:
            return
        if any(phase for _, phase, _ in self.rows) or any(a.phases for a in self.said):
            return
        near = [a for a in self.said if a.start <= now + AHEAD_S and now < a.end]
        if any(a.key == FALLBACK for a in near):
            return
        main = min(*(a.value for a in near), *(limit for node, _, limit in self.rows if node == "main"))
        garage = min(limit for node, _, limit in self.rows if node == "garage")
        plugged = [s for s in self.stations if s.plugged]
        possible = min(garage, main - self.load_w, sum(VOLTS * MAX_A * len(s.phases) for s in plugged))
        # A car that draws on one phase of three is given all three.
        unused = possible - sum(VOLTS * s.current_a(now) * len(s.phases) for s in plugged)
        # A minimum of 6 A that does not fit is not used, by as many cars as there are.
        unused -= sum(6 * VOLTS * len(s.phases) for s in plugged)
        if unused > self.idle.size:
            self.idle = Excess(unused, f"at {now:.1f} s {unused:.0f} W of {possible:.0f} W lie idle")

    def _currents(self, now: float) -> Mapping[str, float]:
        sums = dict.fromkeys(PHASES, 0.0)
        for station in self.stations:
            current = station.current_a(now)
            for phase in station.used:
                sums[phase] += current
        return sums

    def _due(self, now: float) -> list[Announcement]:
        """What must hold: a later word on the same replaces it, both hold while that one is young."""
        covering = [a for a in self.said if a.start <= now < a.end]
        out = []
        for index, said in enumerate(covering):
            newer = [a for a in covering[index + 1 :] if a.key == said.key]
            if all(a.value <= said.value for a in newer) and self._in_time(said, now):
                out.append(said)
        return out

    def _in_time(self, said: Announcement, now: float) -> bool:
        if now >= said.known_at + self.validity_s:
            return True
        if now >= max(said.known_at, self.trouble_at) + REACTION_S:
            return True
        plugged = [s for s in self.stations if s.plugged]
        return all(said.known_at <= s.told <= now - GRACE_S and s.settled(now) for s in plugged)

    def _compare(self, now: float, where: str, drawn: float, limit: float) -> None:
        over = drawn - limit
        if over > max(self.excess.size, 0.02 if where[-2:] in PHASES else 1.0):
            draws = {s.name: round(s.current_a(now), 1) for s in self.stations if s.plugged}
            text = f"at {now:.1f} s {where}: {drawn:.1f} over {limit:.1f}, {draws} A"
            self.excess = Excess(over, self.excess.text or text)


class Agenda:
    """A virtual clock: what is to happen when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(when, self.now), next(self._count), what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.now + seconds, what)

    def run(self, end: float, after_each: Callable[[], None]) -> None:
        while self._heap and self._heap[0][0] <= end:
            self.now, _, what = heapq.heappop(self._heap)
            what()
            after_each()
        self.now = end
