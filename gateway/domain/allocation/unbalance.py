"""Phases that may differ by so much and no more: a pass after the filling. Pure.

Theory of operation (allocator.md §7.4): a difference between phases is no row that a filling could
keep, because taking from one ask may need taking from another. So what loads a phase too far above
the lightest one, without loading that one, is capped by water-filling, and everything is filled
again: what the capped ones leave goes to others. Caps never rise, and the last round only takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from gateway.domain.allocation.model import DEMAND, PHASES, Ask, Binding, Filling, Place

MAX_ROUNDS = 12
"""Fillings; afterwards nothing is given out again that was taken."""

SLACK = 1e-6
"""A; a difference larger by less than this is kept."""

Fill = Callable[[Sequence[Ask]], Filling]


@dataclass(frozen=True, slots=True)
class Spread:
    """The largest difference between two phases of a place, A, among those that it has."""

    most: float
    phases: tuple[str, ...] = PHASES


@dataclass(frozen=True, slots=True)
class _Cut:
    """What ``members`` may take together, A on ``phase``, so that ``place`` is balanced."""

    place: str
    phase: str
    members: tuple[Ask, ...]
    room: float


def balanced(fill: Fill, places: Sequence[Place], asks: Sequence[Ask], spread: Mapping[str, Spread]) -> Filling:
    """A filling whose phases differ by no more than ``spread`` allows, as far as asks can help it.

    Args:
        fill: shares out among asks, in A.
        spread: by place, how far its phases may differ.
    """
    parents = {place.id: place.parent for place in places}
    blamed: dict[str, Binding] = {}
    wanted = {ask.id: ask for ask in asks}
    filling = fill(asks)
    for round_ in range(2 * MAX_ROUNDS):
        cut = _worst(filling, parents, places, wanted, spread)
        if cut is None:
            break
        for ask_id, most in _lowered(cut, filling).items():
            ask = wanted[ask_id]
            is_shed = most < ask.min
            kind: Literal["not_admitted", "limit"] = "not_admitted" if is_shed else "limit"
            blamed[ask_id] = Binding(kind, cut.place, f"unbalance_a:{cut.phase}")
            wanted[ask_id] = replace(ask, min=0.0, max=0.0) if is_shed else replace(ask, max=most)
        if round_ < MAX_ROUNDS:
            filling = fill([wanted[ask.id] for ask in asks])
        else:
            given = {ask_id: min(a, wanted[ask_id].max) for ask_id, a in filling.allocation.items()}
            filling = replace(filling, allocation=given)
    return _explained(filling, blamed)


def _explained(filling: Filling, blamed: Mapping[str, Binding]) -> Filling:
    """What a cap of ours stopped got all that it asked for only in the words of the filling."""
    binding = dict(filling.binding)
    shed = [ask for ask, why in blamed.items() if why.kind == "not_admitted"]
    binding.update({ask: why for ask, why in blamed.items() if binding[ask] is DEMAND or ask in shed})
    refused = tuple(ask for ask in shed if ask not in filling.not_admitted)
    return replace(filling, binding=binding, not_admitted=(*filling.not_admitted, *refused))


def _worst(
    filling: Filling,
    parents: Mapping[str, str | None],
    places: Sequence[Place],
    wanted: Mapping[str, Ask],
    spread: Mapping[str, Spread],
) -> _Cut | None:
    """The phase that is furthest above what its place allows and that an ask can relieve."""
    worst, cut = SLACK, None
    for place, allowed in spread.items():
        inside = {p.id for p in places if place in _path(parents, p.id)}
        members = [ask for ask in wanted.values() if ask.place in inside]
        load = {phase: sum(p.fixed_a.get(phase, 0.0) for p in places if p.id in inside) for phase in PHASES}
        for ask in members:
            for phase in ask.phases or PHASES:
                load[phase] += filling.allocation[ask.id]
        lightest = min(allowed.phases, key=lambda phase: (load[phase], phase))
        for phase in allowed.phases:
            excess = load[phase] - load[lightest] - allowed.most
            able = tuple(a for a in members if _relieves(a, phase, lightest) and _spare(a, filling) > SLACK)
            if excess > worst and able:
                taken = sum(filling.allocation[ask.id] for ask in able)
                worst, cut = excess, _Cut(place, phase, able, max(taken - excess, 0.0))
    return cut


def _path(parents: Mapping[str, str | None], place: str) -> list[str]:
    path, at = [], place
    while True:
        path.append(at)
        above = parents[at]
        if above is None:
            return path
        at = above


def _relieves(ask: Ask, phase: str, lightest: str) -> bool:
    return phase in ask.phases and lightest not in ask.phases


def _spare(ask: Ask, filling: Filling) -> float:
    """What can be taken from an ask, A."""
    return filling.allocation[ask.id] - (ask.min if ask.keep else 0.0)


def _lowered(cut: _Cut, filling: Filling) -> dict[str, float]:
    """New most of each member, by water-filling ``room``; below an ask's least means that it is shed.

    Kept minima first, then by priority, deadline and id: the last are shed until the others' minima fit.
    """
    left, admitted = cut.room, []
    for ask in sorted(cut.members, key=_order):
        if ask.keep or ask.min <= left + SLACK:
            admitted.append(ask)
            left -= ask.min
    lowered = {ask.id: -1.0 for ask in cut.members}
    lowered.update(_levelled(admitted, cut.room, filling))
    return lowered


def _order(ask: Ask) -> tuple[bool, int, float, str]:
    return not ask.keep, -ask.priority, inf if ask.deadline is None else ask.deadline, ask.id


def _levelled(asks: Sequence[Ask], room: float, filling: Filling) -> dict[str, float]:
    """``clip(weight * level, min, given)`` of each, at the level that fills the room."""
    given = {ask.id: filling.allocation[ask.id] for ask in asks}
    turns = sorted({x / ask.weight for ask in asks for x in (ask.min, given[ask.id])})
    level = turns[0] if turns else 0.0

    def at(level: float) -> dict[str, float]:
        return {ask.id: min(max(ask.weight * level, ask.min), given[ask.id]) for ask in asks}

    for turn in turns:
        if sum(at(turn).values()) > room:
            rising = sum(a.weight for a in asks if a.min / a.weight <= level < given[a.id] / a.weight)
            return at(level + (room - sum(at(level).values())) / rising if rising else level)
        level = turn
    return at(level)
