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
    if policy is Policy.STRICT_PRIORITY:
        tiers = [
            [ask for ask in taking_part if ask.priority == tier]
            for tier in sorted({ask.priority for ask in taking_part}, reverse=True)
        ]
    else:
        tiers = [taking_part]
    for tier in tiers:
        shares |= rise(rows, tier, shares, plain=policy is Policy.MAX_MIN)
    return Answer(shares, frozenset(ask.id for ask in asks if ask not in taking_part))


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


def rise(
    rows: Sequence[Row], asks: Sequence[Ask], shares: Mapping[str, Fraction], *, plain: bool
) -> dict[str, Fraction]:
    """Let the level of ``asks`` rise while the shares of everybody else stay."""
    weight = {ask.id: Fraction(1 if plain else ask.weight) for ask in asks}
    free = {ask.id: ask for ask in asks}
    now = dict(shares)

    def at(ask: Ask, level: Fraction) -> Fraction:
        return min(max(weight[ask.id] * level, Fraction(ask.min)), Fraction(ask.max))

    def saturation(row: Row) -> Fraction | None:
        members = [free[name] for name in row.takes if name in free]
        fixed = sum((take * now[name] for name, take in row.takes.items() if name not in free), Fraction(0))

        def load(level: Fraction) -> Fraction:
            return fixed + sum((row.takes[a.id] * at(a, level) for a in members), Fraction(0))

        turns = sorted({Fraction(v) / weight[a.id] for a in members for v in (a.min, a.max)} | {Fraction(0)})
        if not members or load(turns[-1]) <= row.room:
            return None
        low = Fraction(0)
        for turn in turns:
            if load(turn) > row.room:
                slope = load(turn) - load(low)
                return low + (turn - low) * (row.room - load(low)) / slope if load(low) < row.room else low
            low = turn
        raise AssertionError("the last turn exceeds the room")

    while free:
        levels = [(level, row) for row in rows if (level := saturation(row)) is not None]
        if not levels:
            now |= {name: Fraction(ask.max) for name, ask in free.items()}
            break
        level, row = min(levels, key=lambda pair: pair[0])
        for name in [name for name in row.takes if name in free]:
            now[name] = at(free.pop(name), level)
    return {ask.id: now[ask.id] for ask in asks}
