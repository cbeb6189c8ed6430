"""The allocator's front: places and asks in, a filling out. Pure.

Power limits alone are solved as a tree, anything with phases as general rows, a handful of asks
without arrays; the rows and the words of the answer are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, inf, isfinite

import numpy as np

from gateway.domain.allocation.admission import admit
from gateway.domain.allocation.arrays import FloatArray, IntArray, Rise
from gateway.domain.allocation.few import admit_few, fill_few, fill_in_turns, fill_one_by_one
from gateway.domain.allocation.model import (
    DEMAND,
    NOT_ADMITTED,
    Ask,
    Binding,
    Filling,
    Place,
    Stay,
    Unit,
    Violation,
)
from gateway.domain.allocation.policy import ONE_BY_ONE, turns
from gateway.domain.allocation.rotation import Past, admit_in_time
from gateway.domain.allocation.rows import fill_rows
from gateway.domain.allocation.tree import NO_LIMIT, CompiledTree
from gateway.domain.allocation.workspace import DIMENSIONS, Asked, Rows, Workspace
from gateway.domain.errors import InfeasibleAllocation
from gateway.domain.sharing import Policy

ROUNDING = 1e-6
"""W; a float this close below a whole watt is that watt. Ten thousand of them make 0.01 W."""

STEP_S = 300.0
"""How long a share is meant to last where nothing else is said."""


@dataclass(frozen=True, slots=True)
class _Shared:
    """What each ask gets, the row that stopped it, the refused asks in order."""

    given: Sequence[float]
    stop: Sequence[int]
    refused: Sequence[int]
    stays: Mapping[str, Stay]


@dataclass(frozen=True, slots=True)
class _Problem:
    """What is to be shared out, and how."""

    tree: CompiledTree
    rows: Rows
    asked: Asked
    policy: Policy
    step_s: float
    past: Past | None
    few: bool

    def refused(self) -> tuple[list[int], dict[str, Stay]]:
        """The asks whose minimum does not fit, in order, and since when each has been in or out."""
        asked, room = self.asked, self.rows.room
        if self.past is not None:
            return admit_in_time(asked.paths(), room.tolist(), asked.asks, self.past)
        by_order = _order(asked.asks)

        def ordered(some: Sequence[int]) -> list[int]:
            return sorted(some, key=by_order)

        if self.few:
            return admit_few(asked.paths(), room.tolist(), asked.mins.tolist(), asked.keep.tolist(), ordered), {}
        return admit(asked.incidence, room, asked.mins, asked.keep, ordered), {}

    def solve(self, room: FloatArray, rise: Rise) -> tuple[FloatArray, IntArray]:
        """By arrays; power alone is nested, so cleared depth by depth."""
        if self.asked.unit == "A":
            return fill_rows(self.asked.incidence, room, rise)
        given, place = self.tree.fill(self.asked.seats, self.rows.by_place(room), rise)
        return given, np.where(place == NO_LIMIT, NO_LIMIT, self.rows.number[0][place])


def allocate(
    places: Sequence[Place],
    asks: Sequence[Ask],
    policy: Policy,
    *,
    unit: Unit = "W",
    voltage_v: float = 230.0,
    step_s: float = STEP_S,
    past: Past | None = None,
    workspace: Workspace | None = None,
) -> Filling:
    """Share out what every limit leaves, exactly; the result does not depend on any order.

    Args:
        unit: of the asks: total power in W, or current per used phase in A.
        voltage_v: phase to neutral; turns current into power where a power limit asks for it.
        step_s: over how much time LAXITY_LEVEL makes asks equally short of time.
        past: who was admitted before, where that counts; else admission is by priority, deadline and id alone.
        workspace: of these places, by who allocates on them again and again.

    Raises:
        InfeasibleAllocation: the places are no tree, an id is doubled, an ask sits nowhere, or
            unit W with a limit on current, which watts cannot prove kept.
    """
    for name, value in (("voltage", voltage_v), ("step", step_s)):
        if not (isfinite(value) and value > 0):
            raise InfeasibleAllocation(f"{name} {value!r} is not a finite number above 0")
    workspace = Workspace(places) if workspace is None else workspace
    tree, rows = workspace.tree, workspace.rows(places, voltage_v)
    if unit == "W":
        _refuse_currents(rows)
    asked = workspace.asked(asks, rows, unit, voltage_v)
    problem = _Problem(tree, rows, asked, policy, step_s, past, len(asks) <= workspace.few)
    shared = _share_out_few(problem) if problem.few else _share_out(problem)
    return Filling(
        allocation=dict(zip(asked.ids, shared.given, strict=True)),
        binding=_bindings(tree, rows, asked, shared),
        not_admitted=tuple(asked.ids[n] for n in shared.refused),
        headroom=dict(zip(rows.names, np.maximum(rows.left, 0.0).tolist(), strict=True)),
        violations=_violations(tree, rows, asked),
        minimum=dict(zip(asked.ids, asked.mins.tolist(), strict=True)),
        stays=shared.stays,
    )


def _share_out(problem: _Problem) -> _Shared:
    """By arrays, whose cost per ask is small."""
    asked, room = problem.asked, problem.rows.room
    refused, stays = problem.refused()
    admitted = np.ones(len(asked.ids), dtype=np.bool_)
    admitted[refused] = False
    weight, start = asked.lines(problem.policy, problem.step_s)
    rise = Rise(np.where(admitted, asked.mins, 0.0), np.where(admitted, asked.caps, 0.0), weight, start)
    tiers = turns(asked.asks, problem.policy)
    if tiers is not None and problem.policy in ONE_BY_ONE:
        # In turn there is nothing that arrays could do at once.
        order = [n for (n,) in tiers]
        alone = fill_one_by_one(asked.paths(), room.tolist(), rise.high.tolist(), rise.low.tolist(), order)
        return _Shared(*alone, refused, stays)
    given, stop = problem.solve(room, rise) if tiers is None else _by_tiers(problem, rise, tiers)
    return _Shared(given.tolist(), stop.tolist(), refused, stays)


def _share_out_few(problem: _Problem) -> _Shared:
    """By plain loops, whose cost per problem is small."""
    asked, policy = problem.asked, problem.policy
    paths, room, mins, caps = asked.paths(), problem.rows.room.tolist(), asked.mins.tolist(), asked.caps.tolist()
    refused, stays = problem.refused()
    for n in refused:
        caps[n] = mins[n] = 0.0
    weight, start = (column.tolist() for column in asked.lines(policy, problem.step_s))
    tiers = turns(asked.asks, policy)
    if tiers is None:
        given, stop = fill_few(paths, room, caps, mins, weight, start)
    elif policy in ONE_BY_ONE:
        given, stop = fill_one_by_one(paths, room, caps, mins, [n for (n,) in tiers])
    else:
        given, stop = fill_in_turns(paths, room, caps, mins, weight, tiers)
    return _Shared(given, stop, refused, stays)


def _by_tiers(problem: _Problem, rise: Rise, tiers: Sequence[Sequence[int]]) -> tuple[FloatArray, IntArray]:
    """Reserve all minima, then fill tier after tier."""
    incidence, given = problem.asked.incidence, rise.low.copy()
    stop = np.full(len(given), NO_LIMIT, dtype=np.intp)
    left = problem.rows.room - incidence.load(given, len(problem.rows.room))
    for tier in tiers:
        mine = np.zeros(len(given), dtype=np.bool_)
        mine[tier] = True
        low = np.where(mine, rise.low, 0.0)
        held = incidence.load(low, len(left))
        only = Rise(low, np.where(mine, rise.high, 0.0), rise.weight, rise.start)
        filled, at = problem.solve(np.maximum(left + held, 0.0), only)
        given[mine], stop[mine] = filled[mine], at[mine]
        left += held - incidence.load(np.where(mine, filled, 0.0), len(left))
    return given, stop


def _order(asks: Sequence[Ask]) -> Callable[[int], tuple[int, float, str]]:
    """Order of admission: priority, then deadline, then id."""

    def key(n: int) -> tuple[int, float, str]:
        ask = asks[n]
        return -ask.priority, inf if ask.deadline is None else ask.deadline, ask.id

    return key


def _bindings(tree: CompiledTree, rows: Rows, asked: Asked, shared: _Shared) -> dict[str, Binding]:
    limits = {row: int(rows.tightest[row]) for row in set(shared.stop) - {NO_LIMIT}}
    words = {row: Binding("limit", tree.ids[rows.place[at]], rows.labels[at]) for row, at in limits.items()}
    words[NO_LIMIT] = DEMAND
    bindings = dict(zip(asked.ids, map(words.__getitem__, shared.stop), strict=True))
    return bindings | {asked.ids[n]: NOT_ADMITTED for n in shared.refused}


def _refuse_currents(rows: Rows) -> None:
    for at in np.flatnonzero(rows.dimension).tolist():
        phase = DIMENSIONS[rows.dimension[at]]
        raise InfeasibleAllocation(f"{rows.names[at]}: a limit on {phase} cannot be held in unit W")


def _violations(tree: CompiledTree, rows: Rows, asked: Asked) -> tuple[Violation, ...]:
    excess = rows.excess(asked.kept(tree))
    return tuple(
        Violation(tree.ids[rows.place[at]], rows.labels[at], float(excess[at]))
        for at in np.flatnonzero(excess > ROUNDING).tolist()
    )


def round_down(filling: Filling) -> dict[str, int]:
    """Whole watts, towards tighter; what would fall below its minimum becomes 0."""
    whole = {}
    for ask, value in filling.allocation.items():
        rounded = floor(value + ROUNDING)
        whole[ask] = rounded if rounded >= filling.minimum[ask] - ROUNDING else 0
    return whole
