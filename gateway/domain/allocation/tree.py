"""Exact max-min on a tree with one dimension, by arrays. Pure.

Theory of operation: limits of one dimension on a tree are nested, so the places can be cleared
one depth after the other, deepest first (allocator.md §7.1). Every ask carries a cap, at first
its maximum. Where the caps below a place exceed its headroom, one level is found at which the
clipped demands fill it exactly, and the caps fall to that level. What is left after the roots is
the answer; the last place that cut an ask is its bottleneck. All places of one depth are handled
by a single sort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.domain.allocation.admission import Incidence
from gateway.domain.allocation.arrays import FloatArray, IntArray, running, summed
from gateway.domain.allocation.model import Place
from gateway.domain.errors import InfeasibleAllocation

NO_LIMIT = -1
"""In an array of bottlenecks: the ask got all it asked for."""

SLACK = 1e-9
"""W; sums of floats that meet a limit differ from it by less, and no limit is that fine."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The places of one depth that have asks at or below them.

    ``group[n]`` is the position in ``places`` of the place above ask ``members[n]``.
    """

    places: IntArray
    members: IntArray
    group: IntArray


@dataclass(frozen=True, slots=True)
class Seats:
    """Where a set of asks sits in a tree, compiled: layers from the deepest to the roots."""

    count: int
    layers: tuple[Layer, ...]

    def incidence(self) -> Incidence:
        """The same as pairs of place and ask."""
        empty = np.empty(0, dtype=np.intp)
        row = np.concatenate([empty, *(layer.places[layer.group] for layer in self.layers)])
        ask = np.concatenate([empty, *(layer.members for layer in self.layers)])
        return Incidence(row, ask, np.ones(len(row)))


class CompiledTree:
    """A tree with places as numbers, for many fillings of the same topology.

    Raises:
        InfeasibleAllocation: a doubled id, an unknown parent or a cycle.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.ids = tuple(place.id for place in places)
        self.index: Mapping[str, int] = {place.id: n for n, place in enumerate(places)}
        if len(self.index) != len(places):
            raise InfeasibleAllocation("two places have the same id")
        self._above = tuple(self._parent(place) for place in places)
        self.parent = np.array(self._above, dtype=np.intp)
        self._paths: dict[int, tuple[int, ...]] = {}
        self._generations = self._by_depth()

    def _parent(self, place: Place) -> int:
        if place.parent is None:
            return NO_LIMIT
        if place.parent not in self.index:
            raise InfeasibleAllocation(f"place {place.id}: no parent {place.parent!r}")
        return self.index[place.parent]

    def _by_depth(self) -> tuple[IntArray, ...]:
        """Places by depth, roots first."""
        generations = []
        below: list[list[int]] = [[] for _ in self.ids]
        current: list[int] = []
        for place, parent in enumerate(self._above):
            (current if parent < 0 else below[parent]).append(place)
        found = 0
        while current:
            generations.append(np.array(current, dtype=np.intp))
            found += len(current)
            current = [child for place in current for child in below[place]]
        if found != len(self.ids):
            raise InfeasibleAllocation("the places form a cycle")
        return tuple(generations)

    def with_below(self, own: FloatArray) -> FloatArray:
        """By place, the sum of ``own`` at it and everywhere below it."""
        total = own.astype(np.float64, copy=True)
        for generation in reversed(self._generations[1:]):
            np.add.at(total, self.parent[generation], total[generation])
        return total

    def sums(self, own: Mapping[int, float]) -> dict[int, float]:
        """The same for few places with anything of their own: only those at or above one are named."""
        total: dict[int, float] = {}
        for place, value in own.items():
            if value:
                for above in self.path(place):
                    total[above] = total.get(above, 0.0) + value
        return total

    def path(self, place: int) -> tuple[int, ...]:
        """The place and everything above it, up to its root."""
        known = self._paths.get(place)
        if known is None:
            above = self._above[place]
            known = (place,) if above < 0 else (place, *self.path(above))
            self._paths[place] = known
        return known

    def at(self, place: str) -> int:
        """The number of a place at which an ask sits.

        Raises:
            InfeasibleAllocation: there is no such place.
        """
        try:
            return self.index[place]
        except KeyError as unknown:
            raise InfeasibleAllocation(f"an ask sits at {unknown}, which is no place") from None

    def seat(self, places: Sequence[str]) -> Seats:
        """Compile the places at which asks sit, one each.

        Raises:
            InfeasibleAllocation: an ask at an unknown place.
        """
        at = np.array([self.at(place) for place in places], dtype=np.intp)
        depth = np.empty(len(self.ids), dtype=np.intp)
        for number, generation in enumerate(self._generations):
            depth[generation] = number
        layers = []
        for number in reversed(range(len(self._generations))):
            members = np.flatnonzero(depth[at] == number)
            if len(members):
                places_here, group = np.unique(at[members], return_inverse=True)
                layers.append(Layer(places_here, members, group.astype(np.intp)))
                at[members] = self.parent[at[members]]
        return Seats(len(places), tuple(layers))

    def fill(
        self, seats: Seats, headroom: FloatArray, caps: FloatArray, mins: FloatArray, weights: FloatArray
    ) -> tuple[FloatArray, IntArray]:
        """Weighted max-min of admitted asks: ``clip(weight * level, min, cap)`` each.

        Args:
            headroom: by place, W left to asks at and below it; ``inf`` where there is no limit.
            caps: by ask, W; an ask that was not admitted has cap and minimum 0.

        Returns:
            By ask: W, and the place that stopped it (``NO_LIMIT`` for a satisfied ask). Where
            minima alone exceed a headroom, all below it get their minima.
        """
        given = caps.astype(np.float64, copy=True)
        bottleneck = np.full(seats.count, NO_LIMIT, dtype=np.intp)
        for layer in seats.layers:
            _clear(layer, headroom[layer.places], given, mins, weights, bottleneck)
        bottleneck[given >= caps] = NO_LIMIT
        return given, bottleneck


def _clear(
    layer: Layer, room: FloatArray, given: FloatArray, mins: FloatArray, weights: FloatArray, bottleneck: IntArray
) -> None:
    """Cut ``given`` below every place of the layer whose room it exceeds."""
    wanted = summed(layer.group, given[layer.members], len(room))
    over = wanted > room + SLACK
    if not over.any():
        return
    chosen = over[layer.group]
    asks = layer.members[chosen]
    group = (np.cumsum(over) - 1)[layer.group[chosen]]
    low, high, weight = mins[asks], given[asks], weights[asks]
    share = weight * levels(group, room[over], weight, low, high)[group]
    given[asks] = np.clip(share, low, high)
    # An ask that its minimum holds up here is bound here too: a limit further down that had
    # cut it may be slack again once its neighbours are cut.
    cut = share < high
    bottleneck[asks[cut]] = layer.places[layer.group[chosen]][cut]


def levels(group: IntArray, room: FloatArray, weight: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """By group, the level at which ``sum(clip(weight * level, low, high))`` is ``room``.

    Every group has a member and asks for more than its room. 0 where the lows alone fill it.
    """
    count = len(room)
    lifted = low > 0
    at = np.concatenate([high / weight, (low / weight)[lifted]])
    turn = np.concatenate([-weight, weight[lifted]])
    who = np.concatenate([group, group[lifted]])
    order = np.lexsort((at, who))
    at, turn, who = at[order], turn[order], who[order]
    first = np.searchsorted(who, np.arange(count))
    slope = summed(group, np.where(lifted, 0.0, weight), count)
    before = slope[who] + running(turn, first, who) - turn
    previous = np.roll(at, 1)
    previous[first] = 0.0
    base = summed(group, low, count)
    reached = base[who] + running(before * (at - previous), first, who)
    short = summed(who, reached < room[who], count).astype(np.intp)
    last = np.append(first[1:], len(who)) - 1
    stop = np.minimum(first + short, last)
    flat = before[stop] <= 0
    back = np.where(flat, 0.0, (reached[stop] - room) / np.where(flat, 1.0, before[stop]))
    return _polished(np.maximum(at[stop] - back, 0.0), group, room, weight, low, high)


def _polished(
    level: FloatArray, group: IntArray, room: FloatArray, weight: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """The same level without the rounding that long running sums gather."""
    share = weight * level[group]
    rising = (share > low) & (share < high)
    settled = summed(group, np.where(rising, 0.0, np.clip(share, low, high)), len(room))
    slope = summed(group, np.where(rising, weight, 0.0), len(room))
    return np.where(slope > 0, np.maximum(room - settled, 0.0) / np.where(slope > 0, slope, 1.0), level)
