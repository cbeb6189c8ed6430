"""What changes by the date, by the time of day and with heat: derating of limits, reserves. Pure.

Local times are those of the site; a time zone is handed in as :class:`datetime.tzinfo`. Everything
here changes on quarter-hours alone: steps of a profile stand on them, and so do the changes of
offset of all zones in use, so that nobody has to search for an instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from gateway.domain.quantities import Watts

QUARTER = timedelta(minutes=15)

WHOLE = 1_000
"""A factor of 1: factors are whole thousandths, rounded down."""


def quarters(after: datetime, until: datetime) -> tuple[datetime, ...]:
    """Every quarter-hour in ``(after, until]``, UTC."""
    first = after.replace(minute=after.minute // 15 * 15, second=0, microsecond=0) + QUARTER
    return tuple(first + QUARTER * n for n in range(max(0, (until - first) // QUARTER + 1)))


@dataclass(frozen=True, slots=True)
class Season:
    """Days from ``first`` to ``last``, both included, as (month, day); it may run over the turn of the year."""

    first: tuple[int, int]
    last: tuple[int, int]
    factor: int

    def covers(self, month: int, day: int) -> bool:
        """Whether that day lies in it."""
        if self.first <= self.last:
            return self.first <= (month, day) <= self.last
        return not self.last < (month, day) < self.first


@dataclass(frozen=True, slots=True)
class Hot:
    """Above ``above_cc`` (0.01 °C) no more than ``factor`` is left."""

    above_cc: int
    factor: int


@dataclass(frozen=True, slots=True)
class Derate:
    """What is left of a node's limits, in thousandths. What holds at once multiplies.

    ``factor`` holds always. Of several seasons or heats that hold, the lowest counts; where heat
    matters and no temperature is known, the lowest of all.
    """

    zone: tzinfo
    factor: int = WHOLE
    seasons: tuple[Season, ...] = ()
    heats: tuple[Hot, ...] = ()

    def at(self, instant: datetime, temperature_cc: int | None = None) -> int:
        """The factor in force; ``temperature_cc`` in 0.01 °C, None where it is not known."""
        local = instant.astimezone(self.zone)
        season = (s.factor for s in self.seasons if s.covers(local.month, local.day))
        heat = (h.factor for h in self.heats if temperature_cc is None or temperature_cc > h.above_cc)
        return self._product(min(season, default=WHOLE), min(heat, default=WHOLE))

    def least(self) -> int:
        """The lowest factor that can ever be in force."""
        return self._product(
            min((s.factor for s in self.seasons), default=WHOLE), min((h.factor for h in self.heats), default=WHOLE)
        )

    def _product(self, season: int, heat: int) -> int:
        return self.factor * season * heat // WHOLE**2


@dataclass(frozen=True, slots=True)
class DayProfile:
    """A power by the time of day: steps of (minute of the day, W), rising; the last holds past midnight."""

    zone: tzinfo
    steps: tuple[tuple[int, Watts], ...]

    def at(self, instant: datetime) -> Watts:
        """The power at an instant."""
        local = instant.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        return next((power for start, power in reversed(self.steps) if start <= minute), self.steps[-1][1])

    def highest(self, since: datetime, until: datetime) -> Watts:
        """The most from ``since`` to ``until``, both included."""
        return max(self.at(instant) for instant in (since, *quarters(since, until)))

    @property
    def peak_w(self) -> Watts:
        """The most at any time."""
        return max(power for _, power in self.steps)
