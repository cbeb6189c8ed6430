"""Judging what was measured against what was in force. Pure: same input, same verdict, for ever.

Everything is an integer, so that whoever holds the same steps and samples reaches the same record
to the watt: power is summed in W·µs, the limit is rounded down, the mean to nearest, and the
verdict is taken from the two rounded numbers that the record shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from gateway.domain.quantities import Direction, WattHours, Watts
from gateway.domain.timeline import FOREVER, Interval

TOLERANCE_PERMILLE = 20
"""Relative tolerance of a limit, 2 % (allocator.md §12). A meter's class comes on top."""

TOLERANCE_W = Watts(100)
"""Absolute tolerance: standby draw of chargers and meters under a limit of 0."""

MAX_GAP_S = 20.0
"""Longest time that a sample stands for: twice the sampling interval of a site meter."""

MIN_COVERAGE_PCT = 90
"""Below this share of known time no verdict is honest."""

_US = timedelta(microseconds=1)
_US_PER_HOUR = 3_600_000_000
_US_PER_SECOND = 1_000_000

LimitStep = tuple[datetime, int | None]
Sample = tuple[datetime, int]


class Verdict(StrEnum):
    """On one window."""

    COMPLIANT = "COMPLIANT"
    WITHIN_TOLERANCE = "WITHIN_TOLERANCE"
    BREACH = "BREACH"
    UNKNOWN = "UNKNOWN"
    """Too little was measured to say."""
    EXEMPT = "EXEMPT"
    """No limit in force, or all excess falls to the time allowed for reacting."""


@dataclass(frozen=True, slots=True)
class ComplianceRecord:
    """The verdict on one window and the figures it rests on.

    Powers are magnitudes in the judged direction. They speak of the time in which a limit was in
    force, from ``judged_from`` to the window's end.

    Args:
        limit_w: time-weighted limit, rounded down; ``None`` when none was in force.
        mean_w: time-weighted mean of what is known, to nearest; ``None`` when nothing is.
        excess_w: mean above limit.
        excess_wh: energy above limit in the known time, rounded up.
        excess_s: whole seconds in which a sample stood above the limit then in force.
        worst_w: the sample furthest above its limit (or least below), taken inside the window.
        coverage_pct: share of the limited time that samples cover, rounded down.
    """

    verdict: Verdict
    direction: Direction
    window: Interval
    judged_from: datetime
    limit_w: int | None
    mean_w: int | None
    excess_w: int
    excess_wh: int
    excess_s: int
    worst_w: int | None
    worst_at: datetime | None
    coverage_pct: int


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a limit may be exceeded by without a breach."""

    permille: int = TOLERANCE_PERMILLE
    absolute_w: Watts = TOLERANCE_W

    def highest_w(self, limit_w: int) -> int:
        """The largest mean that is no breach, rounded down."""
        return limit_w * (1000 + self.permille) // 1000 + self.absolute_w


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """What became of one charging session: the end of every lineage.

    Args:
        asked_wh: energy asked for; ``None`` when the car did not say.
        delivered_wh: energy that the meter saw; ``None`` when it did not.
        ready: whether it got what it asked for; ``None`` when that cannot be known.
        curtailed_wh: energy denied, by the id of the envelope (or name of the limit) to blame.
        reason: why the session ended.
    """

    asked_wh: WattHours | None
    delivered_wh: WattHours | None
    started_at: datetime
    ended_at: datetime
    ready: bool | None
    curtailed_wh: Mapping[str, WattHours] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Time in which neither the limit nor the held sample changes."""

    span_us: int
    limit_w: int
    power_w: int | None


def is_ready(asked_wh: WattHours | None, delivered_wh: WattHours | None) -> bool | None:
    """Whether a session got what it asked for; ``None`` when either is unknown."""
    return None if asked_wh is None or delivered_wh is None else delivered_wh >= asked_wh


def judge(
    limit_steps: Sequence[LimitStep],
    samples: Sequence[Sample],
    window: Interval,
    *,
    direction: Direction = Direction.IMPORT,
    tolerance: Tolerance = Tolerance(),
    reaction_until: datetime | None = None,
    max_gap_s: float = MAX_GAP_S,
) -> ComplianceRecord:
    """Judge the average power of a window (allocator.md §12).

    Args:
        limit_steps: ``(from, W)`` in order of validity; each holds until the next, before the
            first there is no limit. ``None`` is no limit, 0 allows nothing.
        samples: ``(measured at, signed W)`` in any order. Those shortly before the window count
            where they reach into it. Of two at one instant the larger magnitude counts.
        reaction_until: end of the time allowed for reacting. It only ever excuses: a window that
            keeps its limit as a whole is compliant, one that does not is judged again on what was
            measured from then on, and is exempt if that shows no breach.
        max_gap_s: longest time that one sample stands for.
    """
    steps = _ordered(limit_steps)
    known = sorted((at, _magnitude(value, direction)) for at, value in samples)
    gap = timedelta(seconds=max_gap_s)
    whole = _record(steps, known, window, window.start, direction, tolerance, gap)
    if whole.verdict is not Verdict.BREACH or reaction_until is None or reaction_until <= window.start:
        return whole
    if reaction_until < window.end:
        later = [sample for sample in known if sample[0] >= reaction_until]
        rest = _record(steps, later, window, reaction_until, direction, tolerance, gap)
        if rest.verdict is Verdict.BREACH:
            return rest
    return replace(whole, verdict=Verdict.EXEMPT)


def _ordered(steps: Sequence[LimitStep]) -> list[LimitStep]:
    """By time; of several at one instant the last one said holds."""
    return sorted(steps, key=lambda step: step[0])


def _magnitude(power_w: int, direction: Direction) -> int:
    """Power in the judged direction; what flows the other way counts 0, as in its register."""
    return max(power_w if direction is Direction.IMPORT else -power_w, 0)


def _record(
    steps: Sequence[LimitStep],
    samples: Sequence[Sample],
    window: Interval,
    start: datetime,
    direction: Direction,
    tolerance: Tolerance,
    gap: timedelta,
) -> ComplianceRecord:
    pieces = tuple(_pieces(steps, samples, Interval(start, window.end), gap))
    known = [(piece.span_us, piece.limit_w, piece.power_w) for piece in pieces if piece.power_w is not None]
    limited_us = sum(piece.span_us for piece in pieces)
    known_us = sum(span for span, _, _ in known)
    limit_w = sum(piece.span_us * piece.limit_w for piece in pieces) // limited_us if limited_us else None
    mean_w = _nearest(sum(span * power for span, _, power in known), known_us) if known_us else None
    coverage_pct = 100 * known_us // limited_us if limited_us else 0
    excess_w = max(mean_w - limit_w, 0) if mean_w is not None and limit_w is not None else 0
    worst = _worst(steps, samples, Interval(start, window.end))
    return ComplianceRecord(
        verdict=_verdict(limit_w, mean_w, coverage_pct, tolerance),
        direction=direction,
        window=window,
        judged_from=start,
        limit_w=limit_w,
        mean_w=mean_w,
        excess_w=excess_w,
        excess_wh=-(-excess_w * known_us // _US_PER_HOUR),
        excess_s=sum(span for span, limit, power in known if power > limit) // _US_PER_SECOND,
        worst_w=worst[1] if worst else None,
        worst_at=worst[0] if worst else None,
        coverage_pct=coverage_pct,
    )


def _verdict(limit_w: int | None, mean_w: int | None, coverage_pct: int, tolerance: Tolerance) -> Verdict:
    if limit_w is None:
        return Verdict.EXEMPT
    if mean_w is None or coverage_pct < MIN_COVERAGE_PCT:
        return Verdict.UNKNOWN
    if mean_w <= limit_w:
        return Verdict.COMPLIANT
    return Verdict.WITHIN_TOLERANCE if mean_w <= tolerance.highest_w(limit_w) else Verdict.BREACH


def _pieces(steps: Sequence[LimitStep], samples: Sequence[Sample], span: Interval, gap: timedelta) -> Iterator[_Piece]:
    """The limited part of ``span``, cut wherever the limit or the held sample changes."""
    edges = {span.start, span.end, *(at for at, _ in steps), *(at for at, _ in samples)}
    edges |= {at + gap for at, _ in samples}
    cuts = sorted(edge for edge in edges if span.start <= edge <= span.end)
    limit = sample = 0
    for start, end in pairwise(cuts):
        while limit < len(steps) and steps[limit][0] <= start:
            limit += 1
        while sample < len(samples) and samples[sample][0] <= start:
            sample += 1
        limit_w = steps[limit - 1][1] if limit else None
        if limit_w is None:
            continue
        fresh = sample > 0 and start < samples[sample - 1][0] + gap
        yield _Piece((end - start) // _US, limit_w, samples[sample - 1][1] if fresh else None)


def _worst(steps: Sequence[LimitStep], samples: Sequence[Sample], span: Interval) -> Sample | None:
    """The sample inside ``span`` with the most above its limit; of equals the first."""
    bounds = [*steps, (FOREVER, None)]
    worst: Sample | None = None
    most = 0
    step = 0
    for at, power in samples:
        while bounds[step][0] <= at:
            step += 1
        limit_w = bounds[step - 1][1] if step else None
        if limit_w is not None and span.covers(at) and (worst is None or power - limit_w > most):
            worst, most = (at, power), power - limit_w
    return worst


def _nearest(total: int, count: int) -> int:
    """``total / count`` for non-negative numbers, halves up."""
    return (2 * total + count) // (2 * count)
