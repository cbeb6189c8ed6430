"""A power schedule as a station holds it: steps that end in an open-ended share. Pure.

The rules are the grant ledger's: a schedule never rises, and its last step never ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import datetime

import msgspec

from gateway.domain.quantities import Watts
from gateway.domain.timeline import EPOCH


class Step(msgspec.Struct, frozen=True, gc=False):
    """From ``start`` on (until the next step, or for ever) at most ``limit_w``."""

    start: datetime
    limit_w: Watts


class Schedule(msgspec.Struct, frozen=True, gc=False):
    """Steps in rising time. Before the first step its value holds as well."""

    steps: tuple[Step, ...]

    def at(self, instant: datetime) -> Watts:
        """The limit at ``instant``."""
        value = self.steps[0].limit_w
        for step in self.steps:
            if step.start > instant:
                break
            value = step.limit_w
        return value

    @property
    def floor_w(self) -> Watts:
        """The open-ended last step."""
        return self.steps[-1].limit_w

    @property
    def ends_at(self) -> datetime:
        """When the last step begins, i.e. when the schedule has run out."""
        return self.steps[-1].start

    @property
    def edges(self) -> tuple[datetime, ...]:
        """Every instant at which the value may change."""
        return tuple(step.start for step in self.steps[1:])

    @property
    def never_rises(self) -> bool:
        """Whether each step is at most its predecessor."""
        return all(b.limit_w <= a.limit_w for a, b in itertools.pairwise(self.steps))


def constant(limit_w: Watts) -> Schedule:
    """One value for ever."""
    return Schedule((Step(EPOCH, limit_w),))


def build(points: Iterable[tuple[datetime, Watts]]) -> Schedule:
    """A schedule from (start, limit) in rising time; equal neighbours are merged."""
    steps: list[Step] = []
    for start, limit_w in points:
        if not steps or steps[-1].limit_w != limit_w:
            steps.append(Step(start, limit_w))
    return Schedule(tuple(steps))
