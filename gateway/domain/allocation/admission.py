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


def admit(
    incidence: Incidence,
    room: FloatArray,
    minima: FloatArray,
    keep: BoolArray,
    ordered: Callable[[Sequence[int]], Sequence[int]],
) -> tuple[BoolArray, list[int]]:
    """Which asks are admitted, and the refused ones in order.

    Args:
        room: headroom by row.
        keep: asks admitted whether they fit or not; they take their room first.
        ordered: sorts ask numbers by the order of admission; called only with those in doubt.
    """
    admitted = np.ones(len(minima), dtype=np.bool_)
    allowed = room + FIT_REL * np.maximum(1.0, room)
    crowded = incidence.load(minima, len(room)) > allowed
    if not crowded.any():
        return admitted, []
    kept = np.where(keep, minima, 0.0)
    left = (allowed - incidence.load(kept, len(room))).tolist()
    paths = _paths(incidence, crowded, (minima > 0) & ~keep)
    refused = []
    for ask in ordered(list(paths)):
        needs = [(row, take * float(minima[ask])) for row, take in paths[ask]]
        if all(need <= left[row] for row, need in needs):
            for row, need in needs:
                left[row] -= need
        else:
            refused.append(ask)
    admitted[refused] = False
    return admitted, refused


def _paths(incidence: Incidence, crowded: BoolArray, in_doubt: BoolArray) -> dict[int, list[tuple[int, float]]]:
    """The crowded rows of every ask that is in doubt and crosses one."""
    chosen = crowded[incidence.row] & in_doubt[incidence.ask]
    paths: dict[int, list[tuple[int, float]]] = {}
    rows, takes = incidence.row[chosen].tolist(), incidence.take[chosen].tolist()
    for ask, row, take in zip(incidence.ask[chosen].tolist(), rows, takes, strict=True):
        paths.setdefault(ask, []).append((row, take))
    return paths
