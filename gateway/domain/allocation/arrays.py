"""Sums over groups of array elements, which numpy has no words for, and the level that fills a group. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)

NEARLY = 1e-12
"""Of a room; a sum that meets it to so much needs one step more, on the piece that it is on."""

MOST_STEPS = 200
"""Every step halves what is short or the bracket; sixty halvings leave nothing of a float. Ten steps are usual."""


@dataclass(frozen=True, slots=True)
class Rise:
    """How asks follow a common level: ``clip(weight * (level - start), low, high)``, each an array by ask.

    ``weight`` is above 0, ``start`` 0 or more.
    """

    low: FloatArray
    high: FloatArray
    weight: FloatArray
    start: FloatArray

    def of(self, chosen: IntArray | BoolArray) -> Rise:
        """The same for some of the asks."""
        return Rise(self.low[chosen], self.high[chosen], self.weight[chosen], self.start[chosen])

    def at(self, level: FloatArray) -> FloatArray:
        """What asks get at a level each."""
        return np.minimum(np.maximum(self.weight * (level - self.start), self.low), self.high)

    def sated(self) -> FloatArray:
        """The levels at which asks have all they want."""
        return self.start + self.high / self.weight


def summed(group: IntArray, values: FloatArray | BoolArray, groups: int) -> FloatArray:
    """Sum of ``values`` by group number, 0 for groups without any."""
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True)
class Groups:
    """Members that come group by group: ``size`` of each group, none empty."""

    size: IntArray
    first: IntArray

    @classmethod
    def of(cls, group: IntArray, groups: int) -> Groups:
        """From the group of every member, in rising order."""
        size = np.bincount(group, minlength=groups)
        return cls(size, np.cumsum(size) - size)

    def sum(self, values: FloatArray) -> FloatArray:
        """By group, the sum over its members."""
        return np.add.reduceat(values, self.first)

    def spread(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """By member, the value of its group."""
        return np.repeat(values, self.size)


def levels(groups: Groups, take: FloatArray | None, rise: Rise, room: FloatArray) -> FloatArray:
    """By group, the level at which what its members take is ``room``.

    Newton's method in a bracket: sums are piecewise linear in the level, so the step that starts on
    the right piece ends at the answer.

    Args:
        groups: every group has members that together want more than its room.
        take: what one unit of a member takes of the room; ``None`` is 1 each.
        rise: by member.

    Returns:
        0 where the lows alone fill the room.
    """
    search = _search(groups, rise if take is None else _taken(take, rise), room, rise.sated())
    answer = search.level
    which = np.arange(len(room))
    for _ in range(MOST_STEPS):
        open_ = search.step()
        answer[which] = search.level
        remain = np.count_nonzero(open_)
        if not remain:
            break
        if 2 * remain < len(open_):
            search, which = search.of(open_), which[open_]
    return answer


@dataclass(slots=True)
class _Search:
    """Where the levels are known to lie, and what the last step left to go, by group."""

    groups: Groups
    taken: Rise
    room: FloatArray
    level: FloatArray
    below: FloatArray
    above: FloatArray
    before: FloatArray

    def step(self) -> BoolArray:
        """Move every level; which of the groups have to go on."""
        share = self.taken.weight * (self.groups.spread(self.level) - self.taken.start)
        held = np.minimum(np.maximum(share, self.taken.low), self.taken.high)
        short = self.room - self.groups.sum(held)
        slope = self.groups.sum(self.taken.weight * (held == share))
        self.below = np.where(short >= 0, self.level, self.below)
        self.above = np.where(short <= 0, self.level, self.above)
        newton = self.level + short / np.where(slope > 0, slope, np.inf)
        met = np.abs(short) <= NEARLY * self.room
        stays = (slope > 0) & (newton >= self.below) & (newton <= self.above)
        stays &= met | (np.abs(short) <= 0.5 * self.before)
        following = np.where(stays, newton, np.where(met, self.level, 0.5 * (self.below + self.above)))
        open_: BoolArray = (following != self.level) & ~met
        self.level, self.before = following, np.abs(short)
        return open_

    def of(self, chosen: BoolArray) -> _Search:
        """The same for some of the groups."""
        size = self.groups.size[chosen]
        return _Search(
            Groups(size, np.cumsum(size) - size),
            self.taken.of(self.groups.spread(chosen)),
            self.room[chosen],
            self.level[chosen],
            self.below[chosen],
            self.above[chosen],
            self.before[chosen],
        )


def _search(groups: Groups, taken: Rise, room: FloatArray, sated: FloatArray) -> _Search:
    """Starts at the levels that would be, were nobody held at a bound."""
    below, above = np.zeros(len(room)), np.maximum.reduceat(sated, groups.first)
    above[groups.sum(taken.low) >= room] = 0.0
    free = (room + groups.sum(taken.weight * taken.start)) / groups.sum(taken.weight)
    return _Search(groups, taken, room, np.clip(free, below, above), below, above, np.full(len(room), np.inf))


def _taken(take: FloatArray, rise: Rise) -> Rise:
    """The same in units of what is taken."""
    return Rise(take * rise.low, take * rise.high, take * rise.weight, rise.start)
