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
from gateway.domain.allocation.arrays import BoolArray, FloatArray, IntArray, running, summed
from gateway.domain.allocation.tree import NO_LIMIT

SAME_LEVEL = 1e-12
"""Relative difference below which two levels are one: rows that bind together meet in one round."""


@dataclass(slots=True)
class _Round:
    """What changes from round to round, by ask and by row."""

    given: FloatArray
    bottleneck: IntArray
    free: BoolArray
    room: FloatArray


def fill_rows(
    incidence: Incidence, room: FloatArray, caps: FloatArray, mins: FloatArray, weights: FloatArray
) -> tuple[FloatArray, IntArray]:
    """Weighted max-min of admitted asks: ``clip(weight * level, min, cap)`` each.

    Args:
        room: headroom by row, finite.
        caps: by ask; an ask that was not admitted has cap and minimum 0.

    Returns:
        By ask: what it gets, and the row that stopped it (``NO_LIMIT`` for a satisfied ask).
    """
    onset = mins / weights
    order = np.lexsort((onset[incidence.ask], incidence.row))
    sorted_rows = Incidence(incidence.row[order], incidence.ask[order], incidence.take[order])
    now = _Round(
        given=np.zeros(len(caps)),
        bottleneck=np.full(len(caps), NO_LIMIT, dtype=np.intp),
        free=np.ones(len(caps), dtype=np.bool_),
        room=room.astype(np.float64, copy=True),
    )
    while now.free.any():
        _round(now, sorted_rows, caps, mins, weights)
    now.bottleneck[now.given >= caps] = NO_LIMIT
    return now.given, now.bottleneck


def _round(now: _Round, incidence: Incidence, caps: FloatArray, mins: FloatArray, weights: FloatArray) -> None:
    """Stop every free ask that meets its own cap or a local bottleneck. At least one stops."""
    live = now.free[incidence.ask]
    row, ask, take = incidence.row[live], incidence.ask[live], incidence.take[live]
    level = row_levels(row, take * weights[ask], take * mins[ask], (mins / weights)[ask], now.room)
    lowest = np.full(len(caps), np.inf)
    np.minimum.at(lowest, ask, level[row])
    own = caps / weights
    sated = now.free & (own <= lowest * (1 + SAME_LEVEL))
    meets = np.full(len(now.room), np.inf)
    np.minimum.at(meets, row, np.minimum(lowest, own)[ask])
    tight = level <= meets * (1 + SAME_LEVEL)
    stops = tight[row]
    now.bottleneck[ask[stops]] = row[stops]
    now.bottleneck[sated] = NO_LIMIT
    stopped = np.zeros(len(caps), dtype=np.bool_)
    stopped[ask[stops]] = True
    stopped |= sated
    value = np.clip(weights * np.minimum(lowest, own), mins, caps)
    now.given[stopped] = value[stopped]
    gone = stopped[ask]
    used = summed(row[gone], (take * now.given[ask])[gone], len(now.room))
    now.room = np.maximum(now.room - used, 0.0)
    now.free &= ~stopped


def row_levels(row: IntArray, slope: FloatArray, low: FloatArray, onset: FloatArray, room: FloatArray) -> FloatArray:
    """By row, the level at which ``sum(max(slope * level, low))`` over its pairs is ``room``.

    Pairs come sorted by row and by ``onset`` (``low / slope``) inside it. 0 where the lows alone
    fill the room, ``inf`` where a row has no pair.
    """
    count = len(room)
    pairs = np.bincount(row, minlength=count)
    first = np.cumsum(pairs) - pairs
    rising = running(slope, first, row)
    waiting = summed(row, low, count)[row] - running(low, first, row)
    fits = rising * onset + waiting <= room[row]
    reached = summed(row, fits, count).astype(np.intp)
    level = np.where(pairs > 0, 0.0, np.inf)
    some = np.flatnonzero(reached > 0)
    at = first[some] + reached[some] - 1
    level[some] = np.maximum(room[some] - waiting[at], 0.0) / rising[at]
    return level
