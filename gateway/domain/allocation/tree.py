"""Exact max-min on a tree with one dimension, by arrays. Pure.

Theory of operation: limits of one dimension on a tree are nested, so the places can be cleared
one depth after the other, deepest first (allocator.md §7.1). Every ask carries a cap, at first
its maximum. Where the caps below a place exceed its headroom, one level is found at which the
clipped demands fill it exactly, and the caps fall to that level. What is left after the roots is
the answer; the last place that cut an ask is its bottleneck. All places of one depth are handled
by a single sort.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.domain.allocation.admission import Incidence
from gateway.domain.allocation.arrays import BoolArray, FloatArray, Groups, IntArray, Rise, levels, summed
from gateway.domain.allocation.model import Place
from gateway.domain.errors import InfeasibleAllocation

NO_LIMIT = -1
"""In an array of bottlenecks: the ask got all it asked for."""

SLACK = 1e-9
"""W; sums of floats that meet a limit differ from it by less, and no limit is that fine."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The places of one depth that have asks at or below them.

    ``group[n]`` is the position in ``places`` of the place above ask ``members[n]``; members come in its order.
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

    def members(self, at: IntArray) -> Callable[[int], IntArray]:
        """For asks that sit at these places: what gives the numbers of those at or below a place."""
        first, size = self._tour()
        order = np.argsort(first[at], kind="stable")
        seated = first[at][order]

        def below(place: int) -> IntArray:
            ends = np.searchsorted(seated, [first[place], first[place] + size[place]])
            return np.sort(order[ends[0] : ends[1]])

        return below

    def children(self, place: int) -> IntArray:
        """The places right below one; ``NO_LIMIT`` asks for the roots."""
        return np.flatnonzero(self.parent == place)

    def _tour(self) -> tuple[IntArray, IntArray]:
        """By place, its number when everything below a place comes right after it, and how many come so, itself too."""
        size = self.with_below(np.ones(len(self.ids))).astype(np.intp)
        first = np.zeros(len(self.ids), dtype=np.intp)
        for generation in self._generations:
            above = self.parent[generation]
            before = np.cumsum(size[generation]) - size[generation]
            # Siblings stand side by side in a generation.
            eldest = np.append(True, above[1:] != above[:-1])
            before -= before[np.flatnonzero(eldest)[np.cumsum(eldest) - 1]]
            first[generation] = before + np.where(above < 0, 0, first[above] + 1)
        return first, size

    def with_below(self, own: FloatArray) -> FloatArray:
        """By place, the sum of ``own`` at it and everywhere below it."""
        total = own.astype(np.float64, copy=True)
        if not total.any():
            return total
        for generation in reversed(self._generations[1:]):
            np.add.at(total, self.parent[generation], total[generation])
        return total

    def path(self, place: int) -> list[int]:
        """The place and everything above it, up to its root."""
        path = [place]
        while (above := self._above[path[-1]]) >= 0:
            path.append(above)
        return path

    def at(self, place: str) -> int:
        """The number of a place at which an ask sits.

        Raises:
            InfeasibleAllocation: there is no such place.
        """
        try:
            return self.index[place]
        except KeyError as unknown:
            raise InfeasibleAllocation(f"an ask sits at {unknown}, which is no place") from None

    def seat(self, at: IntArray) -> Seats:
        """Compile the places at which asks sit, by number, one each."""
        count, at = len(at), at.copy()
        depth = np.empty(len(self.ids), dtype=np.intp)
        for number, generation in enumerate(self._generations):
            depth[generation] = number
        layers = []
        for number in reversed(range(len(self._generations))):
            members = np.flatnonzero(depth[at] == number)
            if len(members):
                members = members[np.argsort(at[members], kind="stable")]
                places_here, group = np.unique(at[members], return_inverse=True)
                layers.append(Layer(places_here, members, group.astype(np.intp)))
                at[members] = self.parent[at[members]]
        return Seats(count, tuple(layers))

    def fill(self, seats: Seats, headroom: FloatArray, asked: Rise) -> tuple[FloatArray, IntArray]:
        """Max-min of admitted asks.

        Args:
            headroom: by place, W left to asks at and below it; ``inf`` where there is no limit.
            asked: by ask, W; one that was not admitted has 0 as its low and high.

        Returns:
            By ask: W, and the place that stopped it (``NO_LIMIT`` for a satisfied ask). Where
            minima alone exceed a headroom, all below it get their minima.
        """
        rise = Rise(asked.low, asked.high.astype(np.float64, copy=True), asked.weight, asked.start)
        bottleneck = np.full(seats.count, NO_LIMIT, dtype=np.intp)
        for layer in seats.layers:
            clear(layer, headroom[layer.places], rise, bottleneck)
        bottleneck[rise.high >= asked.high] = NO_LIMIT
        return rise.high, bottleneck


def clear(layer: Layer, room: FloatArray, rise: Rise, bottleneck: IntArray) -> BoolArray:
    """Cut ``rise.high`` below every place of the layer whose room it exceeds; which places these are."""
    high = rise.high[layer.members]
    alone = len(layer.places) == len(layer.members)
    wanted = high if alone else summed(layer.group, high, len(room))
    over = wanted > room + SLACK
    if not over.any():
        return over
    chosen = over[layer.group]
    asks, group = layer.members[chosen], layer.group[chosen]
    here = rise.of(asks)
    if alone:
        share = room[group]
    else:
        level = np.empty(len(room))
        level[over] = levels(Groups.of((np.cumsum(over) - 1)[group], int(over.sum())), None, here, room[over])
        share = here.weight * (level[group] - here.start)
    rise.high[asks] = np.minimum(np.maximum(share, here.low), here.high)
    # An ask that its minimum holds up here is bound here too: a limit further down that had
    # cut it may be slack again once its neighbours are cut.
    cut = share < here.high
    bottleneck[asks[cut]] = layer.places[group[cut]]
    return over
