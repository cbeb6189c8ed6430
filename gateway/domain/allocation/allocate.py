"""The allocator's front: places and asks in, a filling out. Pure.

Power limits alone are solved as a tree, anything with phases as general rows; admission, tiers
and the words of the answer are the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import floor, inf, isfinite
from typing import NamedTuple

import numpy as np

from gateway.domain.allocation.admission import Incidence, admit
from gateway.domain.allocation.arrays import BoolArray, FloatArray, IntArray
from gateway.domain.allocation.model import (
    DEMAND,
    NOT_ADMITTED,
    PHASES,
    Ask,
    Binding,
    Filling,
    Limit,
    Place,
    Policy,
    Unit,
    Violation,
)
from gateway.domain.allocation.rows import fill_rows
from gateway.domain.allocation.tree import NO_LIMIT, CompiledTree, Seats
from gateway.domain.errors import InfeasibleAllocation

ROUNDING = 1e-6
"""W; a float this close below a whole watt is that watt. Ten thousand of them make 0.01 W."""

Solve = Callable[[FloatArray, FloatArray, FloatArray, FloatArray], tuple[FloatArray, IntArray]]


class _Row(NamedTuple):
    """One limit of one place in one dimension: ``phase`` is empty for power."""

    place: int
    phase: str
    limit: Limit
    left: float


@dataclass(frozen=True, slots=True)
class _Problem:
    """Rows that can bind, who crosses them, and the solver made for their shape."""

    room: FloatArray
    incidence: Incidence
    solve: Solve
    name: Callable[[int], Binding]


@dataclass(frozen=True, slots=True)
class _Asked:
    """The asks as columns."""

    caps: FloatArray
    mins: FloatArray
    weights: FloatArray
    keep: BoolArray


def allocate(
    places: Sequence[Place], asks: Sequence[Ask], policy: Policy, *, unit: Unit = "W", voltage_v: float = 230.0
) -> Filling:
    """Share out what every limit leaves, exactly; the result does not depend on any order.

    Args:
        unit: of the asks: total power in W, or current per used phase in A.
        voltage_v: phase to neutral; turns current into power where a power limit asks for it.

    Raises:
        InfeasibleAllocation: the places are no tree, an id is doubled, an ask sits nowhere, or
            unit W with a limit on current, which watts cannot prove kept.
    """
    if len({ask.id for ask in asks}) != len(asks):
        raise InfeasibleAllocation("two asks have the same id")
    if not (isfinite(voltage_v) and voltage_v > 0):
        raise InfeasibleAllocation(f"voltage {voltage_v!r} V is not a finite number above 0")
    tree = CompiledTree(places)
    rows = _rows(tree, places, voltage_v)
    seats = tree.seat([ask.place for ask in asks])
    if unit == "W":
        problem = _in_watts(tree, seats, rows)
    else:
        problem = _in_amperes(tree, seats, rows, asks, voltage_v)
    given, stop, refused = _share_out(problem, asks, policy)
    kept = _kept(tree, asks, voltage_v if unit == "A" else None)
    return Filling(
        allocation={ask.id: value for ask, value in zip(asks, given.tolist(), strict=True)},
        binding=_bindings(problem, asks, stop, refused),
        not_admitted=tuple(asks[n].id for n in refused),
        headroom={f"{tree.ids[row.place]}:{row.limit.label}": max(row.left, 0.0) for row in rows},
        violations=_violations(tree, rows, kept),
        minimum={ask.id: ask.min for ask in asks},
    )


def _share_out(problem: _Problem, asks: Sequence[Ask], policy: Policy) -> tuple[FloatArray, IntArray, Sequence[int]]:
    """What each ask gets and the row that stopped it, and the refused ones."""
    asked = _columns(asks, policy)
    admitted, refused = admit(
        problem.incidence, problem.room, asked.mins, asked.keep, lambda some: sorted(some, key=_order(asks))
    )
    caps, mins = np.where(admitted, asked.caps, 0.0), np.where(admitted, asked.mins, 0.0)
    if policy is Policy.STRICT_PRIORITY:
        return *_by_tiers(problem, asks, caps, mins, asked.weights), refused
    return *problem.solve(problem.room, caps, mins, asked.weights), refused


def _bindings(problem: _Problem, asks: Sequence[Ask], stop: IntArray, refused: Sequence[int]) -> dict[str, Binding]:
    blamed = cache(problem.name)
    words = {ask.id: DEMAND if at == NO_LIMIT else blamed(at) for ask, at in zip(asks, stop.tolist(), strict=True)}
    return words | {asks[n].id: NOT_ADMITTED for n in refused}


def round_down(filling: Filling) -> dict[str, int]:
    """Whole watts, towards tighter; what would fall below its minimum becomes 0."""
    whole = {}
    for ask, value in filling.allocation.items():
        rounded = floor(value + ROUNDING)
        whole[ask] = rounded if rounded >= filling.minimum[ask] - ROUNDING else 0
    return whole


def _columns(asks: Sequence[Ask], policy: Policy) -> _Asked:
    plain = policy is Policy.MAX_MIN
    return _Asked(
        caps=np.array([ask.max for ask in asks], dtype=np.float64),
        mins=np.array([ask.min for ask in asks], dtype=np.float64),
        weights=np.array([1.0 if plain else ask.weight for ask in asks], dtype=np.float64),
        keep=np.array([ask.keep for ask in asks], dtype=np.bool_),
    )


def _order(asks: Sequence[Ask]) -> Callable[[int], tuple[int, float, str]]:
    """Order of admission: priority, then deadline, then id."""

    def key(n: int) -> tuple[int, float, str]:
        ask = asks[n]
        return -ask.priority, inf if ask.deadline is None else ask.deadline, ask.id

    return key


def _fixed(tree: CompiledTree, places: Sequence[Place], voltage_v: float) -> dict[str, list[float]]:
    """By phase (and ``""`` for power), what nobody can change at each place and below."""
    own = {"": np.array([place.fixed_w for place in places], dtype=np.float64)}
    own |= {phase: np.zeros(len(places)) for phase in PHASES}
    for n, place in enumerate(places):
        for phase, current in place.fixed_a.items():
            own[phase][n] = current
            own[""][n] += voltage_v * current
    return {dimension: tree.with_below(values).tolist() for dimension, values in own.items()}


def _rows(tree: CompiledTree, places: Sequence[Place], voltage_v: float) -> list[_Row]:
    """Every labelled limit with what fixed load leaves of it; negative where it leaves less than nothing."""
    fixed = _fixed(tree, places, voltage_v)
    rows = []
    for n, place in enumerate(places):
        rows += [_Row(n, "", limit, limit.value - fixed[""][n]) for limit in place.limits_w]
        for phase, limits in place.limits_a.items():
            rows += [_Row(n, phase, limit, limit.value - fixed[phase][n]) for limit in limits]
    return rows


def _tightest(rows: Sequence[_Row]) -> dict[tuple[int, str], _Row]:
    """The smallest limit by place and dimension; of equals the first named."""
    smallest: dict[tuple[int, str], _Row] = {}
    for row in rows:
        key = (row.place, row.phase)
        held = smallest.setdefault(key, row)
        if row.left < held.left:
            smallest[key] = row
    return smallest


def _in_watts(tree: CompiledTree, seats: Seats, rows: Sequence[_Row]) -> _Problem:
    for row in rows:
        if row.phase:
            raise InfeasibleAllocation(f"place {tree.ids[row.place]}: a limit on {row.phase} cannot be held in unit W")
    tightest = _tightest(rows)
    room = np.full(len(tree.ids), np.inf)
    limited = [row.place for row in tightest.values()]
    room[limited] = np.maximum([row.left for row in tightest.values()], 0.0)

    def solve(room: FloatArray, caps: FloatArray, mins: FloatArray, weights: FloatArray) -> tuple[FloatArray, IntArray]:
        return tree.fill(seats, room, caps, mins, weights)

    return _Problem(room, seats.incidence(), solve, lambda place: _named(tree, tightest[place, ""]))


def _in_amperes(
    tree: CompiledTree, seats: Seats, rows: Sequence[_Row], asks: Sequence[Ask], voltage_v: float
) -> _Problem:
    tightest = _tightest(rows)
    numbers = {key: n for n, key in enumerate(tightest)}
    crossing = seats.incidence()
    pairs = [
        (numbers[place, phase], ask, take)
        for place, ask in zip(crossing.row.tolist(), crossing.ask.tolist(), strict=True)
        for phase, take in _takes(asks[ask], voltage_v)
        if (place, phase) in numbers
    ]
    incidence = Incidence(
        np.array([row for row, _, _ in pairs], dtype=np.intp),
        np.array([ask for _, ask, _ in pairs], dtype=np.intp),
        np.array([take for _, _, take in pairs], dtype=np.float64),
    )

    def solve(room: FloatArray, caps: FloatArray, mins: FloatArray, weights: FloatArray) -> tuple[FloatArray, IntArray]:
        return fill_rows(incidence, room, caps, mins, weights)

    ordered = tuple(tightest.values())
    room = np.array([max(row.left, 0.0) for row in tightest.values()], dtype=np.float64)
    return _Problem(room, incidence, solve, lambda row: _named(tree, ordered[row]))


def _named(tree: CompiledTree, row: _Row) -> Binding:
    return Binding("limit", tree.ids[row.place], row.limit.label)


def _takes(ask: Ask, voltage_v: float) -> list[tuple[str, float]]:
    """What one ampere of the ask takes, by dimension."""
    phases = ask.phases or PHASES
    return [*((phase, 1.0) for phase in phases), ("", voltage_v * len(phases))]


def _by_tiers(
    problem: _Problem, asks: Sequence[Ask], caps: FloatArray, mins: FloatArray, weights: FloatArray
) -> tuple[FloatArray, IntArray]:
    """Reserve all minima, then fill tier after tier from the highest priority."""
    given = mins.copy()
    stop = np.full(len(asks), NO_LIMIT, dtype=np.intp)
    priority = np.array([ask.priority for ask in asks], dtype=np.int64)
    left = problem.room - problem.incidence.load(given, len(problem.room))
    for tier in np.unique(priority)[::-1]:
        mine = priority == tier
        held = problem.incidence.load(np.where(mine, mins, 0.0), len(left))
        room = np.maximum(left + held, 0.0)
        filled, at = problem.solve(room, np.where(mine, caps, 0.0), np.where(mine, mins, 0.0), weights)
        given[mine], stop[mine] = filled[mine], at[mine]
        left += held - problem.incidence.load(np.where(mine, filled, 0.0), len(left))
    return given, stop


def _kept(tree: CompiledTree, asks: Sequence[Ask], voltage_v: float | None) -> dict[str, list[float]]:
    """By phase (and ``""`` for power), the minima at each place and below that cannot be taken away."""
    own = {dimension: np.zeros(len(tree.ids)) for dimension in ("", *PHASES)}
    for ask in asks:
        if ask.keep:
            takes = [("", 1.0)] if voltage_v is None else _takes(ask, voltage_v)
            for dimension, take in takes:
                own[dimension][tree.index[ask.place]] += take * ask.min
    return {dimension: tree.with_below(values).tolist() for dimension, values in own.items()}


def _violations(tree: CompiledTree, rows: Sequence[_Row], kept: dict[str, list[float]]) -> tuple[Violation, ...]:
    excess = ((row, kept[row.phase][row.place] - row.left) for row in rows)
    return tuple(Violation(tree.ids[row.place], row.limit.label, by) for row, by in excess if by > ROUNDING)
