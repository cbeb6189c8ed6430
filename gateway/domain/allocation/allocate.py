"""The allocator's front: places and asks in, a filling out. Pure.

Power limits alone are solved as a tree, anything with phases as general rows, a handful of asks
without arrays; the rows and the words of the answer are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import floor, inf, isfinite
from typing import NamedTuple

import numpy as np

from gateway.domain.allocation.admission import Incidence, admit
from gateway.domain.allocation.arrays import BoolArray, FloatArray, IntArray
from gateway.domain.allocation.few import admit_few, fill_few, fill_few_tiers
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

FEW_ASKS = 24
"""Up to here plain Python is faster than arrays (measured by ``tests.bench allocator``)."""

Solve = Callable[[FloatArray, FloatArray, FloatArray, FloatArray], tuple[FloatArray, IntArray]]


class _Row(NamedTuple):
    """One limit of one place in one dimension: ``phase`` is empty for power."""

    place: int
    phase: str
    limit: Limit
    left: float


@dataclass(frozen=True, slots=True)
class _Shared:
    """What each ask gets, the row that stopped it, the refused asks in order."""

    given: Sequence[float]
    stop: Sequence[int]
    refused: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Problem:
    """Rows that can bind, who crosses them, and the solver made for their shape."""

    room: FloatArray
    incidence: Incidence
    solve: Solve


@dataclass(frozen=True, slots=True)
class _Asked:
    """The asks as columns."""

    caps: FloatArray
    mins: FloatArray
    weights: FloatArray
    keep: BoolArray


def allocate(
    places: Sequence[Place],
    asks: Sequence[Ask],
    policy: Policy,
    *,
    unit: Unit = "W",
    voltage_v: float = 230.0,
    tree: CompiledTree | None = None,
    few: int = FEW_ASKS,
) -> Filling:
    """Share out what every limit leaves, exactly; the result does not depend on any order.

    Args:
        unit: of the asks: total power in W, or current per used phase in A.
        voltage_v: phase to neutral; turns current into power where a power limit asks for it.
        tree: the places compiled, by who allocates on the same ones again and again.
        few: up to so many asks no arrays are made.

    Raises:
        InfeasibleAllocation: the places are no tree, an id is doubled, an ask sits nowhere, or
            unit W with a limit on current, which watts cannot prove kept.
    """
    if len({ask.id for ask in asks}) != len(asks):
        raise InfeasibleAllocation("two asks have the same id")
    if not (isfinite(voltage_v) and voltage_v > 0):
        raise InfeasibleAllocation(f"voltage {voltage_v!r} V is not a finite number above 0")
    tree = CompiledTree(places) if tree is None else tree
    rows = _rows(tree, places, voltage_v)
    if unit == "W":
        _refuse_currents(tree, rows)
    tightest = _tightest(rows)
    if len(asks) <= few:
        shared = _share_out_few(tree, tightest, asks, policy, unit, voltage_v)
    else:
        shared = _share_out(_problem(tree, tightest, asks, unit, voltage_v), asks, policy)
    kept = _kept(tree, asks, voltage_v if unit == "A" else None)
    return Filling(
        allocation={ask.id: value for ask, value in zip(asks, shared.given, strict=True)},
        binding=_bindings(tree, tuple(tightest.values()), asks, shared),
        not_admitted=tuple(asks[n].id for n in shared.refused),
        headroom={f"{tree.ids[row.place]}:{row.limit.label}": max(row.left, 0.0) for row in rows},
        violations=_violations(tree, rows, kept),
        minimum={ask.id: ask.min for ask in asks},
    )


def _share_out(problem: _Problem, asks: Sequence[Ask], policy: Policy) -> _Shared:
    """By arrays, whose cost per ask is small."""
    asked = _columns(asks, policy)
    admitted, refused = admit(
        problem.incidence, problem.room, asked.mins, asked.keep, lambda some: sorted(some, key=_order(asks))
    )
    caps, mins = np.where(admitted, asked.caps, 0.0), np.where(admitted, asked.mins, 0.0)
    if policy is Policy.STRICT_PRIORITY:
        given, stop = _by_tiers(problem, asks, caps, mins, asked.weights)
    else:
        given, stop = problem.solve(problem.room, caps, mins, asked.weights)
    return _Shared(given.tolist(), stop.tolist(), refused)


def _share_out_few(
    tree: CompiledTree,
    tightest: Mapping[tuple[int, str], _Row],
    asks: Sequence[Ask],
    policy: Policy,
    unit: Unit,
    voltage_v: float,
) -> _Shared:
    """By plain loops, whose cost per problem is small."""
    numbers = {key: n for n, key in enumerate(tightest)}
    room = [max(row.left, 0.0) for row in tightest.values()]
    paths = [_crossed(tree, numbers, ask, unit, voltage_v) for ask in asks]
    refused = admit_few(
        paths,
        room,
        [ask.min for ask in asks],
        [ask.keep for ask in asks],
        lambda some: sorted(some, key=_order(asks)),
    )
    out = set(refused)
    caps = [0.0 if n in out else float(ask.max) for n, ask in enumerate(asks)]
    mins = [0.0 if n in out else float(ask.min) for n, ask in enumerate(asks)]
    weights = [1.0 if policy is Policy.MAX_MIN else float(ask.weight) for ask in asks]
    if policy is Policy.STRICT_PRIORITY:
        given, stop = fill_few_tiers(paths, room, caps, mins, weights, [ask.priority for ask in asks])
    else:
        given, stop = fill_few(paths, room, caps, mins, weights)
    return _Shared(given, stop, refused)


def _crossed(
    tree: CompiledTree, numbers: Mapping[tuple[int, str], int], ask: Ask, unit: Unit, voltage_v: float
) -> list[tuple[int, float]]:
    """The rows an ask crosses, each with what one unit of it takes there."""
    takes = [("", 1.0)] if unit == "W" else _takes(ask, voltage_v)
    above = tree.path(tree.at(ask.place))
    return [(numbers[key], take) for place in above for phase, take in takes if (key := (place, phase)) in numbers]


def _bindings(tree: CompiledTree, rows: Sequence[_Row], asks: Sequence[Ask], shared: _Shared) -> dict[str, Binding]:
    blamed = cache(lambda at: Binding("limit", tree.ids[rows[at].place], rows[at].limit.label))
    words = {ask.id: DEMAND if at == NO_LIMIT else blamed(at) for ask, at in zip(asks, shared.stop, strict=True)}
    return words | {asks[n].id: NOT_ADMITTED for n in shared.refused}


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


def _rows(tree: CompiledTree, places: Sequence[Place], voltage_v: float) -> list[_Row]:
    """Every labelled limit with what fixed load leaves of it; negative where it leaves less than nothing."""
    own: dict[str, dict[int, float]] = {dimension: {} for dimension in ("", *PHASES)}
    for n, place in enumerate(places):
        own[""][n] = place.fixed_w + voltage_v * sum(place.fixed_a.values())
        for phase, current in place.fixed_a.items():
            own[phase][n] = current
    fixed = {dimension: tree.sums(values) for dimension, values in own.items()}
    rows = []
    for n, place in enumerate(places):
        rows += [_Row(n, "", limit, limit.value - fixed[""].get(n, 0.0)) for limit in place.limits_w]
        for phase, limits in place.limits_a.items():
            rows += [_Row(n, phase, limit, limit.value - fixed[phase].get(n, 0.0)) for limit in limits]
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


def _refuse_currents(tree: CompiledTree, rows: Sequence[_Row]) -> None:
    for row in rows:
        if row.phase:
            raise InfeasibleAllocation(f"place {tree.ids[row.place]}: a limit on {row.phase} cannot be held in unit W")


def _problem(
    tree: CompiledTree, tightest: Mapping[tuple[int, str], _Row], asks: Sequence[Ask], unit: Unit, voltage_v: float
) -> _Problem:
    seats = tree.seat([ask.place for ask in asks])
    numbers = {key: n for n, key in enumerate(tightest)}
    room = np.array([max(row.left, 0.0) for row in tightest.values()], dtype=np.float64)
    if unit == "W":
        return _in_watts(tree, seats, numbers, room)
    return _in_amperes(seats, numbers, room, asks, voltage_v)


def _in_watts(tree: CompiledTree, seats: Seats, numbers: Mapping[tuple[int, str], int], room: FloatArray) -> _Problem:
    """Rows of power alone: nested, so cleared depth by depth. A place without a limit has no row."""
    row_of = np.full(len(tree.ids), NO_LIMIT, dtype=np.intp)
    row_of[[place for place, _ in numbers]] = np.arange(len(numbers))
    crossing = seats.incidence()
    limited = row_of[crossing.row] != NO_LIMIT
    incidence = Incidence(row_of[crossing.row[limited]], crossing.ask[limited], crossing.take[limited])

    def solve(room: FloatArray, caps: FloatArray, mins: FloatArray, weights: FloatArray) -> tuple[FloatArray, IntArray]:
        by_place = np.where(row_of == NO_LIMIT, np.inf, np.append(room, np.inf)[row_of])
        given, place = tree.fill(seats, by_place, caps, mins, weights)
        return given, np.where(place == NO_LIMIT, NO_LIMIT, row_of[place])

    return _Problem(room, incidence, solve)


def _in_amperes(
    seats: Seats, numbers: Mapping[tuple[int, str], int], room: FloatArray, asks: Sequence[Ask], voltage_v: float
) -> _Problem:
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

    return _Problem(room, incidence, solve)


def _takes(ask: Ask, voltage_v: float) -> list[tuple[str, float]]:
    """What one ampere of the ask takes, by dimension."""
    phases = ask.phases or PHASES
    carried = float(len(phases)) if ask.loose else 1.0
    watts = (voltage_v if ask.voltage_v is None else ask.voltage_v) * len(phases)
    return [*((phase, carried) for phase in phases), ("", watts)]


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


def _kept(tree: CompiledTree, asks: Sequence[Ask], voltage_v: float | None) -> dict[str, dict[int, float]]:
    """By phase (and ``""`` for power), the minima at each place and below that cannot be taken away."""
    own: dict[str, dict[int, float]] = {dimension: {} for dimension in ("", *PHASES)}
    for ask in asks:
        if ask.keep and ask.min:
            at = tree.at(ask.place)
            for dimension, take in [("", 1.0)] if voltage_v is None else _takes(ask, voltage_v):
                own[dimension][at] = own[dimension].get(at, 0.0) + take * ask.min
    return {dimension: tree.sums(values) for dimension, values in own.items()}


def _violations(
    tree: CompiledTree, rows: Sequence[_Row], kept: Mapping[str, Mapping[int, float]]
) -> tuple[Violation, ...]:
    excess = ((row, kept[row.phase].get(row.place, 0.0) - row.left) for row in rows)
    return tuple(Violation(tree.ids[row.place], row.limit.label, by) for row, by in excess if by > ROUNDING)
