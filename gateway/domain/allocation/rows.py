"""Exact max-min under general rows: per-phase current, power and minima together. Pure.

Theory of operation (allocator.md §7.1): every row has the level at which its free members would
fill it. A row whose level is the lowest that any of its members meets is a local bottleneck: its
members stop there, whatever happens elsewhere, because levels never fall while others stop. Many
rows stop in one round, so rounds follow the depth of the dependencies, not the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.domain.allocation.admission import Incidence
from gateway.domain.allocation.arrays import BoolArray, FloatArray, Groups, IntArray, Rise, levels, summed
from gateway.domain.allocation.tree import NO_LIMIT

SAME_LEVEL = 1e-12
"""Relative difference below which two levels are one: rows that bind together meet in one round."""


@dataclass(slots=True)
class _Open:
    """The rows that can still fill up, with what is left of them, and their pairs with asks that still rise."""

    numbers: IntArray
    room: FloatArray
    row: IntArray
    ask: IntArray
    take: FloatArray

    def keep(self, rows: BoolArray, pairs: BoolArray) -> None:
        """Leave out the other rows, and the other pairs with them."""
        pairs = pairs & rows[self.row]
        self.row = (np.cumsum(rows) - 1)[self.row[pairs]]
        self.ask, self.take = self.ask[pairs], self.take[pairs]
        self.numbers, self.room = self.numbers[rows], self.room[rows]

    def leave_out_slack(self, high: FloatArray) -> None:
        """Forget the rows that their members cannot fill, even with all they want."""
        wanted = summed(self.row, self.take * high[self.ask], len(self.room))
        over = wanted > self.room * (1 + SAME_LEVEL)
        self.keep(over, np.ones(len(self.row), dtype=np.bool_))


def fill_rows(incidence: Incidence, room: FloatArray, rise: Rise) -> tuple[FloatArray, IntArray]:
    """Max-min of admitted asks.

    Args:
        incidence: its pairs in the order of their rows.
        room: headroom by row, finite.
        rise: by ask; one that was not admitted has 0 as its low and high.

    Returns:
        By ask: what it gets, and the row that stopped it (``NO_LIMIT`` for a satisfied ask).
    """
    given = rise.high.astype(np.float64, copy=True)
    bottleneck = np.full(len(given), NO_LIMIT, dtype=np.intp)
    still = _Open(
        np.arange(len(room)), room.astype(np.float64, copy=True), incidence.row, incidence.ask, incidence.take
    )
    still.leave_out_slack(rise.high)
    sated = rise.sated()
    while len(still.room):
        _round(still, rise, sated, given, bottleneck)
        still.leave_out_slack(rise.high)
    bottleneck[given >= rise.high] = NO_LIMIT
    return given, bottleneck


def _round(still: _Open, rise: Rise, sated: FloatArray, given: FloatArray, bottleneck: IntArray) -> None:
    """Stop every ask that meets its own maximum or a local bottleneck. At least one stops."""
    groups = Groups.of(still.row, len(still.room))
    level = levels(groups, still.take, rise.of(still.ask), still.room)
    here = groups.spread(level)
    lowest = np.full(len(given), np.inf)
    np.minimum.at(lowest, still.ask, here)
    # Who is satisfied before any of its rows fills stays so: levels never fall.
    held = sated > lowest
    meets = np.minimum.reduceat(np.where(held, lowest, np.inf)[still.ask], groups.first)
    stops = groups.spread(level <= meets * (1 + SAME_LEVEL)) & held[still.ask]
    stopped = ~held
    stopped[still.ask[stops]] = True
    bottleneck[still.ask[stops]] = still.numbers[still.row[stops]]
    last = held & stopped
    given[last] = rise.of(last).at(lowest[last])
    gone = stopped[still.ask]
    used = summed(still.row, np.where(gone, still.take * given[still.ask], 0.0), len(level))
    still.room = np.maximum(still.room - used, 0.0)
    still.keep(summed(still.row, ~gone, len(level)) > 0, ~gone)
