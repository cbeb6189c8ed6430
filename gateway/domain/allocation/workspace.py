"""Places and asks as columns, kept from one filling to the next. Pure as seen from outside.

A site is asked for fillings again and again, and little differs from one to the next. What is kept
here is read anew only where a place or an ask is another object than last time. An answer never
depends on it: a fresh workspace gives the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from gateway.domain.allocation.admission import Incidence
from gateway.domain.allocation.arrays import BoolArray, FloatArray, IntArray, summed
from gateway.domain.allocation.model import PHASES, Ask, Limit, Place, Unit
from gateway.domain.allocation.policy import starts, weights
from gateway.domain.allocation.tree import NO_LIMIT, CompiledTree, Seats
from gateway.domain.errors import InfeasibleAllocation
from gateway.domain.sharing import Policy

DIMENSIONS = ("", *PHASES)
"""Power, then current by phase."""

FEW_ASKS = 24
"""Up to here plain Python is faster than arrays (measured by ``tests.bench allocator``)."""

Thing = TypeVar("Thing")


class Workspace:
    """What the allocator of one site keeps; for one thread.

    Args:
        few: up to so many asks are shared out without arrays.

    Raises:
        InfeasibleAllocation: the places are no tree.
    """

    def __init__(self, places: Sequence[Place], few: int = FEW_ASKS) -> None:
        self.few = few
        self.tree = CompiledTree(places)
        self._rows: Rows | None = None
        self._asked: Asked | None = None

    def rows(self, places: Sequence[Place], voltage_v: float) -> Rows:
        """The limits of these places, which are those of the tree with any limits and loads."""
        known = self._rows
        if known is None or known.voltage_v != voltage_v or not known.update(places):
            known = self._rows = Rows(self.tree, places, voltage_v)
        return known

    def asked(self, asks: Sequence[Ask], rows: Rows, unit: Unit, voltage_v: float) -> Asked:
        """The asks as columns.

        Raises:
            InfeasibleAllocation: two of them have the same id, or one sits nowhere.
        """
        known = self._asked
        if known is None or (known.unit, known.voltage_v) != (unit, voltage_v) or not known.update(asks):
            known = self._asked = Asked(self.tree, asks, unit, voltage_v)
        known.cross(rows)
        return known


def _changed(old: Sequence[Thing], new: Sequence[Thing]) -> list[int]:
    return [n for n, (one, other) in enumerate(zip(old, new, strict=True)) if one is not other]


class Rows:
    """Every labelled limit with what fixed load leaves of it, and by place and dimension the tightest.

    Attributes:
        place, dimension, names, value: by limit; ``dimension`` counts in ``DIMENSIONS``.
        left: by limit, in its own unit; negative where fixed load leaves less than nothing.
        number: by dimension and place, the row that its limits make; ``NO_LIMIT`` without any.
        room: by row, what its tightest limit leaves to asks, 0 or more.
        tightest: by row, that limit; of equals the first named.
    """

    def __init__(self, tree: CompiledTree, places: Sequence[Place], voltage_v: float) -> None:
        self.voltage_v = voltage_v
        self._tree, self._places = tree, list(places)
        limits = [(n, d, limit) for n, place in enumerate(places) for d, limit in _limits(place)]
        self.place = np.array([n for n, _, _ in limits], dtype=np.intp)
        self.dimension = np.array([d for _, d, _ in limits], dtype=np.intp)
        self.labels = [limit.label for _, _, limit in limits]
        self.names = [f"{tree.ids[n]}:{limit.label}" for n, _, limit in limits]
        self.value = np.array([limit.value for _, _, limit in limits], dtype=np.float64)
        self._first_of = np.searchsorted(self.place, np.arange(len(places) + 1))
        key = self.place * len(DIMENSIONS) + self.dimension
        starts_row = np.append(True, key[1:] != key[:-1])[: len(key)]
        self._first = np.flatnonzero(starts_row)
        self._row_of = np.cumsum(starts_row) - 1
        self.number = np.full((len(DIMENSIONS), len(places)), NO_LIMIT, dtype=np.intp)
        self.number[self.dimension[self._first], self.place[self._first]] = np.arange(len(self._first))
        self._own = np.zeros((len(DIMENSIONS), len(places)))
        for n, place in enumerate(places):
            self._read_load(n, place)
        self._settle()

    def update(self, places: Sequence[Place]) -> bool:
        """Read what differs; False if a place has other labels than before, which takes new rows."""
        changed = _changed(self._places, places)
        for n in changed:
            limits = [limit for _, limit in _limits(places[n])]
            here = slice(self._first_of[n], self._first_of[n + 1])
            if self.labels[here] != [limit.label for limit in limits]:
                return False
            self.value[here] = [limit.value for limit in limits]
            self._read_load(n, places[n])
        if changed:
            self._settle()
            self._places = list(places)
        return True

    def excess(self, kept: FloatArray) -> FloatArray:
        """By limit, what ``kept`` (by dimension and place, with all below) and fixed load exceed it by."""
        excess: FloatArray = kept[self.dimension, self.place] - self.left
        return excess

    def by_place(self, room: FloatArray) -> FloatArray:
        """Room on power by place; ``inf`` where there is no limit."""
        power = self.number[0]
        return np.where(power == NO_LIMIT, np.inf, np.append(room, np.inf)[power])

    def _read_load(self, n: int, place: Place) -> None:
        self._own[0, n] = place.fixed_w + self.voltage_v * sum(place.fixed_a.values())
        for d, phase in enumerate(PHASES, start=1):
            self._own[d, n] = place.fixed_a.get(phase, 0.0)

    def _settle(self) -> None:
        fixed = np.array([self._tree.with_below(own) for own in self._own])
        self.left = self.value - fixed[self.dimension, self.place]
        if not len(self._first):
            self.room, self.tightest = self.left, self._first
            return
        least = np.minimum.reduceat(self.left, self._first)
        is_least = self.left == least[self._row_of]
        numbers = np.where(is_least, np.arange(len(self.left)), len(self.left))
        self.tightest = np.minimum.reduceat(numbers, self._first)
        self.room = np.maximum(least, 0.0)


def _limits(place: Place) -> Iterator[tuple[int, Limit]]:
    """A place's limits in the order of ``DIMENSIONS``."""
    for limit in place.limits_w:
        yield 0, limit
    if place.limits_a:
        for d, phase in enumerate(PHASES, start=1):
            for limit in place.limits_a.get(phase, ()):
                yield d, limit


@dataclass(slots=True)
class _Lines:
    """Weights and starts under one policy."""

    policy: Policy
    step_s: float
    weight: FloatArray
    start: FloatArray


class Asked:
    """The asks as columns.

    Attributes:
        ids: by ask.
        at: by ask, the number of its place.
        takes: by dimension and ask, what one unit of the ask takes.
        caps, mins, keep: by ask.
        seats: where they sit in the tree.
        incidence: pairs of row and ask, in the order of the rows.
    """

    def __init__(self, tree: CompiledTree, asks: Sequence[Ask], unit: Unit, voltage_v: float) -> None:
        if len({ask.id for ask in asks}) != len(asks):
            raise InfeasibleAllocation("two asks have the same id")
        self.unit, self.voltage_v = unit, voltage_v
        self.asks = list(asks)
        self.ids = [ask.id for ask in asks]
        self.at = np.array([tree.at(ask.place) for ask in asks], dtype=np.intp)
        self.seats: Seats = tree.seat(self.at)
        self.takes = _takes(asks, unit, voltage_v)
        self.caps = _column(asks, lambda ask: ask.max)
        self.mins = _column(asks, lambda ask: ask.min)
        self.keep: BoolArray = np.array([ask.keep for ask in asks], dtype=np.bool_)
        self._lines: _Lines | None = None
        self._numbers: IntArray | None = None
        self._paths: list[list[tuple[int, float]]] | None = None
        self.incidence = Incidence(np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp), np.empty(0))

    def update(self, asks: Sequence[Ask]) -> bool:
        """Read what differs; False if an ask crosses other rows than before, or its name is another."""
        if len(asks) != len(self.asks):
            return False
        changed = _changed(self.asks, asks)
        if any(_shape(self.asks[n]) != _shape(asks[n]) for n in changed):
            return False
        for n in changed:
            self.caps[n], self.mins[n], self.keep[n] = asks[n].max, asks[n].min, asks[n].keep
        if changed:
            self.asks, self._lines = list(asks), None
        return True

    def cross(self, rows: Rows) -> None:
        """Note which rows the asks cross."""
        if self._numbers is rows.number:
            return
        crossing = self.seats.incidence()
        row: list[IntArray] = []
        ask: list[IntArray] = []
        take: list[FloatArray] = []
        for number, takes in zip(rows.number, self.takes, strict=True):
            there = number[crossing.row]
            real = (there != NO_LIMIT) & (takes[crossing.ask] > 0)
            row.append(there[real])
            ask.append(crossing.ask[real])
            take.append(takes[crossing.ask[real]])
        order = np.argsort(np.concatenate(row), kind="stable")
        self.incidence = Incidence(np.concatenate(row)[order], np.concatenate(ask)[order], np.concatenate(take)[order])
        self._numbers, self._paths = rows.number, None

    def paths(self) -> list[list[tuple[int, float]]]:
        """By ask, the rows that it crosses, each with what one unit takes of it."""
        if self._paths is None:
            self._paths = self.incidence.paths(len(self.asks))
        return self._paths

    def lines(self, policy: Policy, step_s: float) -> tuple[FloatArray, FloatArray]:
        """By ask, weight and start under a policy."""
        known = self._lines
        if known is None or (known.policy, known.step_s) != (policy, step_s):
            known = self._lines = _Lines(
                policy, step_s, np.array(weights(self.asks, policy)), np.array(starts(self.asks, policy, step_s))
            )
        return known.weight, known.start

    def kept(self, tree: CompiledTree) -> FloatArray:
        """By dimension and place, the minima at it and below that cannot be taken away."""
        minima = np.where(self.keep, self.mins, 0.0)
        if not minima.any():
            return np.zeros((len(DIMENSIONS), len(tree.ids)))
        return np.array([tree.with_below(summed(self.at, takes * minima, len(tree.ids))) for takes in self.takes])


def _column(asks: Sequence[Ask], value: Callable[[Ask], float]) -> FloatArray:
    return np.array([value(ask) for ask in asks], dtype=np.float64)


def _shape(ask: Ask) -> tuple[object, ...]:
    return ask.id, ask.place, ask.phases, ask.loose, ask.voltage_v


def _takes(asks: Sequence[Ask], unit: Unit, voltage_v: float) -> FloatArray:
    """By dimension and ask: one watt takes a watt; one ampere its power, and on each phase used itself or, if it
    is loose, all it is on the phases together.
    """
    if unit == "W":
        return np.array([np.ones(len(asks)), *(np.zeros(len(asks)) for _ in PHASES)])
    used = [ask.phases or PHASES for ask in asks]
    count = np.array([len(phases) for phases in used], dtype=np.float64)
    volts = _column(asks, lambda ask: voltage_v if ask.voltage_v is None else ask.voltage_v)
    carried = np.where(np.array([ask.loose for ask in asks], dtype=np.bool_), count, 1.0)
    on = (np.array([phase in phases for phases in used], dtype=np.bool_) for phase in PHASES)
    return np.array([volts * count, *(np.where(here, carried, 0.0) for here in on)])
