"""A filling of power alone that is held, and repaired below the place where something changed. Pure.

A limit that its members cannot fill cuts nobody. So a change below a place reaches no further than
the highest place above it that is full or becomes full, and everything outside stays as it is.
"""

from __future__ import annotations

import numpy as np

from gateway.domain.allocation.arrays import BoolArray, FloatArray, IntArray, Rise
from gateway.domain.allocation.tree import NO_LIMIT, SLACK, CompiledTree, Layer, Seats, clear


class HeldFilling:
    """Max-min of admitted asks on a tree, as :meth:`CompiledTree.fill` gives it.

    Change ``headroom`` and ``asked`` in place, all at or below one place, then call :meth:`repair` there.

    Args:
        at: by ask, the number of the place it sits at; it stays there.
        headroom: by place, W; ``inf`` where there is no limit.
        asked: by ask, W; one that was not admitted has 0 as its low and high.

    Attributes:
        given: by ask, W.
        bottleneck: by ask, the place that stopped it, or ``NO_LIMIT``.
    """

    def __init__(self, tree: CompiledTree, at: IntArray, headroom: FloatArray, asked: Rise) -> None:
        self.headroom, self.asked = headroom, asked
        self._tree, self._at = tree, at
        self._members = tree.members(at)
        self._parts: dict[int, _Part] = {}
        self.given: FloatArray = np.zeros(len(at))
        self.bottleneck: IntArray = np.full(len(at), NO_LIMIT, dtype=np.intp)
        self._full: BoolArray = np.zeros(len(tree.ids), dtype=np.bool_)
        self._load: FloatArray = np.zeros(len(tree.ids))
        for root in tree.children(NO_LIMIT).tolist():
            self._refill(root)

    def repair(self, place: int) -> IntArray:
        """Fill anew what a change at or below a place can reach; the asks that were looked at."""
        above = self._tree.path(place)
        top = max((n for n, one in enumerate(above) if self._full[one]), default=0)
        self._refill(above[top])
        for n in range(top + 1, len(above)):
            if self._sum_up(above[n]) > self.headroom[above[n]] + SLACK:
                self._refill(above[n])
                top = n
        return self._part(above[top]).members

    def _refill(self, place: int) -> None:
        part = self._part(place)
        asked = self.asked.of(part.members)
        rise = Rise(asked.low, asked.high.copy(), asked.weight, asked.start)
        bottleneck = np.full(len(part.members), NO_LIMIT, dtype=np.intp)
        for layer in part.seats.layers:
            self._full[layer.places] = clear(layer, self.headroom[layer.places], rise, bottleneck)
        bottleneck[rise.high >= asked.high] = NO_LIMIT
        self.given[part.members], self.bottleneck[part.members] = rise.high, bottleneck
        for layer in part.seats.layers:
            self._load[layer.places] = np.bincount(layer.group, weights=rise.high[layer.members])

    def _sum_up(self, place: int) -> float:
        """What a place takes, from what those right below it take."""
        part = self._part(place)
        load = float(self._load[part.children].sum() + self.given[part.own].sum())
        self._load[place] = load
        return load

    def _part(self, place: int) -> _Part:
        known = self._parts.get(place)
        if known is None:
            members = self._members(place)
            known = self._parts[place] = _Part(self._tree, self._at, place, members)
        return known


class _Part:
    """The asks at and below a place, seated from there downwards."""

    def __init__(self, tree: CompiledTree, at: IntArray, place: int, members: IntArray) -> None:
        self.members = members
        self.own = members[at[members] == place]
        self.children = tree.children(place)
        layers: tuple[Layer, ...] = tree.seat(at[members]).layers
        self.seats = Seats(len(members), layers[: len(layers) - len(tree.path(place)) + 1])
