"""Exact max-min for a handful of asks, in plain Python: there, arrays cost more than they save. Pure.

The rule is taken at its word: one level rises, and whatever it meets first stops, an ask at its own
maximum or all free asks of a row that fills up (allocator.md §7.1). Rows that the maxima cannot fill
are left out at once, so a round looks at few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.domain.allocation.admission import FIT_REL
from gateway.domain.allocation.rows import SAME_LEVEL
from gateway.domain.allocation.tree import NO_LIMIT

Path = Sequence[tuple[int, float]]
"""The rows that one ask crosses, each with what one unit of the ask takes of it."""


@dataclass(slots=True)
class _Row:
    """What is left of a row, and its members that still rise: by ask (onset, slope, low, slope * start)."""

    left: float
    free: dict[int, tuple[float, float, float, float]]

    def level(self) -> float:
        """The level at which ``sum(max(slope * (level - start), low))`` of the free members is ``left``."""
        waiting = sum(low for _, _, low, _ in self.free.values())
        rising, behind, level = 0.0, 0.0, 0.0
        for onset, slope, low, late in sorted(self.free.values()):
            if rising * onset - behind + waiting > self.left:
                break
            rising += slope
            waiting -= low
            behind += late
            level = max((self.left - waiting + behind) / rising, 0.0)
        return level


def fill_few(
    paths: Sequence[Path],
    room: Sequence[float],
    caps: Sequence[float],
    mins: Sequence[float],
    weights: Sequence[float],
    starts: Sequence[float],
) -> tuple[list[float], list[int]]:
    """Max-min of admitted asks: ``clip(weight * (level - start), min, cap)`` each.

    Args:
        room: headroom by row, finite.
        caps: by ask; an ask that was not admitted has cap and minimum 0.

    Returns:
        By ask: what it gets, and the row that stopped it (``NO_LIMIT`` for a satisfied ask).
    """
    rows = _rows_that_can_fill(paths, room, caps, mins, weights, starts)
    given, stop = list(caps), [NO_LIMIT] * len(caps)
    own = [start + cap / weight for cap, weight, start in zip(caps, weights, starts, strict=True)]
    rising = dict.fromkeys(ask for row in rows.values() for ask in row.free)
    while rows:
        levels = {number: row.level() for number, row in rows.items()}
        fullest = min(levels, key=levels.__getitem__)
        level = levels[fullest]
        # Levels never fall while others stop, so every maximum that the lowest one passes is met.
        stopped = [ask for ask in rising if own[ask] <= level * (1 + SAME_LEVEL)]
        if not stopped:
            stopped = list(rows[fullest].free)
            for ask in stopped:
                given[ask] = min(max(weights[ask] * (level - starts[ask]), mins[ask]), caps[ask])
                stop[ask] = NO_LIMIT if given[ask] >= caps[ask] else fullest
        for ask in stopped:
            del rising[ask]
            _take_out(rows, paths[ask], ask, given[ask])
    return given, stop


def _rows_that_can_fill(
    paths: Sequence[Path],
    room: Sequence[float],
    caps: Sequence[float],
    mins: Sequence[float],
    weights: Sequence[float],
    starts: Sequence[float],
) -> dict[int, _Row]:
    wanted: dict[int, float] = {}
    for ask, path in enumerate(paths):
        for row, take in path:
            wanted[row] = wanted.get(row, 0.0) + take * caps[ask]
    rows = {row: _Row(room[row], {}) for row, load in sorted(wanted.items()) if load > room[row]}
    for ask, path in enumerate(paths):
        if caps[ask] > 0:
            for row, take in path:
                if row in rows:
                    slope = take * weights[ask]
                    onset = starts[ask] + mins[ask] / weights[ask]
                    rows[row].free[ask] = (onset, slope, take * mins[ask], slope * starts[ask])
    return rows


def _take_out(rows: dict[int, _Row], path: Path, ask: int, given: float) -> None:
    for number, take in path:
        row = rows.get(number)
        if row is not None and row.free.pop(ask, None) is not None:
            row.left = max(row.left - take * given, 0.0)
            if not row.free:
                del rows[number]


def admit_few(
    paths: Sequence[Path],
    room: Sequence[float],
    minima: Sequence[float],
    keep: Sequence[bool],
    ordered: Callable[[Sequence[int]], Sequence[int]],
) -> list[int]:
    """The refused asks in order; see :func:`gateway.domain.allocation.admission.admit`."""
    left = [value + FIT_REL * max(1.0, value) for value in room]
    needed = [0.0] * len(left)
    for ask, path in enumerate(paths):
        for row, take in path:
            needed[row] += take * minima[ask]
            if keep[ask]:
                left[row] -= take * minima[ask]
    crowded = {row for row, need in enumerate(needed) if need > room[row] + FIT_REL * max(1.0, room[row])}
    if not crowded:
        return []
    in_doubt = [
        ask
        for ask, path in enumerate(paths)
        if minima[ask] > 0 and not keep[ask] and any(row in crowded for row, _ in path)
    ]
    refused = []
    for ask in ordered(in_doubt):
        needs = [(row, take * minima[ask]) for row, take in paths[ask] if row in crowded]
        if all(need <= left[row] for row, need in needs):
            for row, need in needs:
                left[row] -= need
        else:
            refused.append(ask)
    return refused


def fill_one_by_one(
    paths: Sequence[Path],
    room: Sequence[float],
    caps: Sequence[float],
    mins: Sequence[float],
    order: Sequence[int],
) -> tuple[list[float], list[int]]:
    """Reserve all minima, then give each ask in turn as much as its rows have left.

    Returns:
        By ask: what it gets, and the row that stopped it (``NO_LIMIT`` for a satisfied ask).
    """
    given, stop = list(mins), [NO_LIMIT] * len(caps)
    left = list(room)
    for ask, path in enumerate(paths):
        for row, take in path:
            left[row] -= take * given[ask]
    for ask in order:
        more, at = caps[ask] - mins[ask], NO_LIMIT
        for row, take in paths[ask]:
            if left[row] < take * more:
                more, at = max(left[row], 0.0) / take, row
        given[ask], stop[ask] = mins[ask] + more if at != NO_LIMIT else caps[ask], at
        for row, take in paths[ask]:
            left[row] -= take * more
    return given, stop


def fill_in_turns(
    paths: Sequence[Path],
    room: Sequence[float],
    caps: Sequence[float],
    mins: Sequence[float],
    weights: Sequence[float],
    tiers: Sequence[Sequence[int]],
) -> tuple[list[float], list[int]]:
    """Reserve all minima, then fill tier after tier, max-min inside each; see :func:`fill_few`."""
    given, stop = list(mins), [NO_LIMIT] * len(caps)
    for mine in tiers:
        left = list(room)
        for ask in set(range(len(caps))).difference(mine):
            for row, take in paths[ask]:
                left[row] -= take * given[ask]
        filled, at = fill_few(
            [paths[ask] for ask in mine],
            [max(value, 0.0) for value in left],
            [caps[ask] for ask in mine],
            [mins[ask] for ask in mine],
            [weights[ask] for ask in mine],
            [0.0] * len(mine),
        )
        for n, ask in enumerate(mine):
            given[ask], stop[ask] = filled[n], at[n]
    return given, stop
