"""A second allocator, slow and exact: one level rises, row after row saturates. Shares no code with the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from gateway.domain.allocation import Ask, Place, Policy


@dataclass(frozen=True)
class Row:
    """``sum(take * x)`` may not exceed ``room``."""

    name: str
    room: Fraction
    takes: Mapping[str, Fraction]


@dataclass(frozen=True)
class Line:
    """``weight * (level - start)``, before it is clipped."""

    weight: Fraction
    start: Fraction


@dataclass(frozen=True)
class Answer:
    """Exact shares and the refused asks."""

    shares: Mapping[str, Fraction]
    refused: frozenset[str]


def solve(
    places: Sequence[Place], asks: Sequence[Ask], policy: Policy, unit: Literal["W", "A"], voltage_v: int
) -> Answer:
    """The rules of the vectors, word by word."""
    rows = rows_of(places, asks, unit, voltage_v)
    taking_part = admitted(rows, asks)
    shares = {ask.id: Fraction(0) for ask in asks} | {ask.id: Fraction(ask.min) for ask in taking_part}
    lines = lines_of(asks, policy)
    for tier in tiers_of(taking_part, policy):
        shares |= rise(rows, tier, shares, lines)
    return Answer(shares, frozenset(ask.id for ask in asks if ask not in taking_part))


STEP_S = 300
UNKNOWN_LAXITY_S = 3600


def lines_of(asks: Sequence[Ask], policy: Policy) -> dict[str, Line]:
    """The line along which every ask follows the level."""
    patience = {ask.id: Fraction(UNKNOWN_LAXITY_S if ask.laxity_s is None else ask.laxity_s) for ask in asks}
    lines = {}
    for ask in asks:
        match policy:
            case Policy.WEIGHTED | Policy.STRICT_PRIORITY:
                lines[ask.id] = Line(Fraction(ask.weight), Fraction(0))
            case Policy.PROPORTIONAL:
                lines[ask.id] = Line(Fraction(ask.max), Fraction(0))
            case Policy.LAXITY_LEVEL:
                lines[ask.id] = Line(Fraction(ask.max), (patience[ask.id] - min(patience.values())) / STEP_S)
            case _:
                lines[ask.id] = Line(Fraction(1), Fraction(0))
    return lines


def tiers_of(asks: Sequence[Ask], policy: Policy) -> list[list[Ask]]:
    """Who rises together, in turn."""
    orders = {Policy.FCFS: "arrived", Policy.EDF: "deadline", Policy.LLF: "laxity_s"}
    if policy is Policy.STRICT_PRIORITY:
        return [
            [ask for ask in asks if ask.priority == tier]
            for tier in sorted({ask.priority for ask in asks}, reverse=True)
        ]
    if policy in orders:
        known = [(getattr(ask, orders[policy]), ask) for ask in asks]
        return [[ask] for _, ask in sorted(known, key=lambda pair: (pair[0] is None, pair[0] or 0, pair[1].id))]
    return [list(asks)]


def rows_of(places: Sequence[Place], asks: Sequence[Ask], unit: Literal["W", "A"], voltage_v: int) -> list[Row]:
    """Every labelled limit as a row over the asks below it."""
    parents = {place.id: place.parent for place in places}

    def below(node: str | None, top: str) -> bool:
        return node is not None and (node == top or below(parents[node], top))

    rows = []
    for place in places:
        inside = [other for other in places if below(other.id, place.id)]
        here = [ask for ask in asks if below(ask.place, place.id)]
        amps = {phase: sum(Fraction(o.fixed_a.get(phase, 0)) for o in inside) for phase in ("L1", "L2", "L3")}
        watts = sum(Fraction(o.fixed_w) for o in inside) + voltage_v * sum(amps.values())
        for limit in place.limits_w:
            volts = {a.id: Fraction(voltage_v if a.voltage_v is None else a.voltage_v) for a in here}
            takes = {a.id: Fraction(1 if unit == "W" else volts[a.id] * len(a.phases or amps)) for a in here}
            rows.append(Row(f"{place.id}:{limit.label}", max(Fraction(limit.value) - watts, Fraction(0)), takes))
        for phase, limits in place.limits_a.items():
            takes = {
                a.id: Fraction(len(a.phases or amps) if a.loose else 1) for a in here if phase in (a.phases or amps)
            }
            rows += [
                Row(f"{place.id}:{limit.label}", max(Fraction(limit.value) - amps[phase], Fraction(0)), takes)
                for limit in limits
            ]
    return rows


def admitted(rows: Sequence[Row], asks: Sequence[Ask]) -> list[Ask]:
    """Greedy by priority, deadline and id; kept asks first and always."""
    inside = [ask for ask in asks if ask.keep]
    others = [ask for ask in asks if not ask.keep]
    for ask in sorted(others, key=lambda a: (-a.priority, a.deadline is None, a.deadline or 0, a.id)):
        trial = [*inside, ask]
        fits = all(
            sum(row.takes.get(a.id, Fraction(0)) * Fraction(a.min) for a in trial) <= row.room
            for row in rows
            if ask.id in row.takes
        )
        if fits or ask.min == 0:
            inside = trial
    return inside


@dataclass
class _Rising:
    """Those whose level still rises, and what everybody has."""

    lines: Mapping[str, Line]
    free: dict[str, Ask]
    now: dict[str, Fraction]

    def at(self, ask: Ask, level: Fraction) -> Fraction:
        line = self.lines[ask.id]
        return min(max(line.weight * (level - line.start), Fraction(ask.min)), Fraction(ask.max))

    def turns(self, ask: Ask) -> set[Fraction]:
        """The levels at which the ask begins and ends to rise."""
        line = self.lines[ask.id]
        return {line.start + Fraction(value) / line.weight for value in (ask.min, ask.max)}

    def saturation(self, row: Row) -> Fraction | None:
        """The level at which the row is full; ``None`` if it never is."""
        members = [self.free[name] for name in row.takes if name in self.free]
        fixed = sum((take * self.now[name] for name, take in row.takes.items() if name not in self.free), Fraction(0))

        def load(level: Fraction) -> Fraction:
            return fixed + sum((row.takes[a.id] * self.at(a, level) for a in members), Fraction(0))

        turns = sorted({Fraction(0)}.union(*map(self.turns, members)))
        if not members or load(turns[-1]) <= row.room:
            return None
        low = Fraction(0)
        for turn in turns:
            if load(turn) > row.room:
                slope = load(turn) - load(low)
                return low + (turn - low) * (row.room - load(low)) / slope if load(low) < row.room else low
            low = turn
        raise AssertionError("the last turn exceeds the room")


def rise(
    rows: Sequence[Row], asks: Sequence[Ask], shares: Mapping[str, Fraction], lines: Mapping[str, Line]
) -> dict[str, Fraction]:
    """Let the level of ``asks`` rise while the shares of everybody else stay."""
    rising = _Rising(lines, {ask.id: ask for ask in asks}, dict(shares))
    while rising.free:
        levels = [(level, row) for row in rows if (level := rising.saturation(row)) is not None]
        if not levels:
            rising.now |= {name: Fraction(ask.max) for name, ask in rising.free.items()}
            break
        level, row = min(levels, key=lambda pair: pair[0])
        for name in [name for name in row.takes if name in rising.free]:
            rising.now[name] = rising.at(rising.free.pop(name), level)
    return {ask.id: rising.now[ask.id] for ask in asks}
