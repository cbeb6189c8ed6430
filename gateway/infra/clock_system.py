"""The machine's clock, and an affine story clock over it. The only place that reads time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.domain.errors import ConfigError, ConfigProblem

MAX_SLEEP_S = 3_600.0
"""Longest single wait: a clock that is set back must be noticed within the hour."""


@dataclass(frozen=True, slots=True)
class SystemClock:
    """Wall time as it is."""

    def now(self) -> datetime:
        """Aware UTC instant."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Real seconds."""
        return time.monotonic()

    def wall_seconds(self, story_s: float) -> float:
        """One to one."""
        return story_s

    async def sleep_until(self, instant: datetime) -> None:
        """Return at ``instant``."""
        while (left := (instant - self.now()).total_seconds()) > 0:
            await asyncio.sleep(min(left, MAX_SLEEP_S))


@dataclass(frozen=True, slots=True)
class AffineClock:
    """Story time: ``story + speed * (wall - anchor)``. For demonstrations and tests only."""

    anchor_wall: float
    anchor_story: float
    speed: float

    def now(self) -> datetime:
        """Aware UTC instant of the story."""
        elapsed = (time.time() - self.anchor_wall) * self.speed
        return datetime.fromtimestamp(0, UTC) + timedelta(seconds=self.anchor_story + elapsed)

    def monotonic(self) -> float:
        """Real seconds."""
        return time.monotonic()

    def wall_seconds(self, story_s: float) -> float:
        """Story seconds in real ones."""
        return story_s / self.speed

    async def sleep_until(self, instant: datetime) -> None:
        """Return at ``instant`` of the story."""
        while (left := (instant - self.now()).total_seconds()) > 0:
            await asyncio.sleep(min(left / self.speed, MAX_SLEEP_S))


def parse_story_clock(text: str) -> AffineClock:
    """``ANCHOR_WALL:ANCHOR_STORY:SPEED`` in Unix seconds.

    Raises:
        ConfigError: not three numbers, or a speed that is not positive.
    """
    try:
        wall, story, speed = (float(part) for part in text.split(":"))
    except ValueError:
        wall = story = speed = 0.0
    if speed <= 0:
        raise ConfigError(
            (ConfigProblem("config.story-clock", "--story-clock", 0, "story-clock", "want WALL:STORY:SPEED", text),)
        )
    return AffineClock(wall, story, speed)
