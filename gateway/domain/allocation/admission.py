"""Who gets at least its minimum when the minima do not all fit. Pure.

Greedy by order, skipping what does not fit (allocator.md §7.2). Asks that cross no
over-subscribed row need no scan, so the cost is linear in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.domain.allocation.arrays import BoolArray, FloatArray, IntArray, summed

FIT_REL = 1e-9
"""Relative slack of a fit: sums of float minima that fill a limit exactly must still fit it."""


@dataclass(frozen=True, slots=True)
class Incidence:
    """Which ask crosses which row, and how much of the row one unit of the ask takes."""

    row: IntArray
    ask: IntArray
    take: FloatArray

    def load(self, values: FloatArray, rows: int) -> FloatArray:
        """By row, what ``values`` (by ask) take."""
        return summed(self.row, self.take * values[self.ask], rows)

    def paths(self, asks: int) -> list[list[tuple[int, float]]]:
        """By ask, the rows that it crosses, each with what one unit takes of it."""
        paths: list[list[tuple[int, float]]] = [[] for _ in range(asks)]
        for ask, row, take in zip(self.ask.tolist(), self.row.tolist(), self.take.tolist(), strict=True):
            paths[ask].append((row, take))
        return paths


def admit(
    incidence: Incidence,
    room: FloatArray,
    minima: FloatArray,
    keep: BoolArray,
    ordered: Callable[[Sequence[int]], Sequence[int]],
) -> list[int]:
    """The refused asks in order; all others are admitted.

    Args:
        room: headroom by row.
        keep: asks admitted whether they fit or not; they take their room first.
        ordered: sorts ask numbers by the order of admission; called only with those in doubt.
    """
    allowed = room + FIT_REL * np.maximum(1.0, room)
    crowded = incidence.load(minima, len(room)) > allowed
    if not crowded.any():
        return []
    kept = np.where(keep, minima, 0.0)
    left = (allowed - incidence.load(kept, len(room))).tolist()
    chosen = crowded[incidence.row] & ((minima > 0) & ~keep)[incidence.ask]
    row, ask = incidence.row[chosen], incidence.ask[chosen]
    paths = Incidence(row, ask, incidence.take[chosen] * minima[ask]).paths(len(minima))
    return _refused(paths, left, ordered(np.unique(ask).tolist()))


def _refused(needs: Sequence[Sequence[tuple[int, float]]], left: list[float], order: Sequence[int]) -> list[int]:
    """Scan in order: who fits takes its needs, by row, of what is left there."""
    refused = []
    for ask in order:
        for row, need in needs[ask]:
            if need > left[row]:
                refused.append(ask)
                break
        else:
            for row, need in needs[ask]:
                left[row] -= need
    return refused
