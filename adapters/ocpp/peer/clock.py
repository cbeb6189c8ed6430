"""The clock on a station's board: it may be wrong, and be set right."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.ports.clock import Clock


class BoardClock:
    """Runs like ``true``, ``off`` ahead of it (negative: behind)."""

    def __init__(self, true: Clock, off: timedelta = timedelta(0)) -> None:
        self.off = off
        self._true = true

    def now(self) -> datetime:
        """What the board shows."""
        return self.shown_at(self._true.now())

    def shown_at(self, instant: datetime) -> datetime:
        """What the board shows at a true instant."""
        return instant + self.off

    def monotonic(self) -> float:
        """Real seconds."""
        return self._true.monotonic()

    def wall_seconds(self, story_s: float) -> float:
        """Real seconds that ``story_s`` take."""
        return self._true.wall_seconds(story_s)

    async def sleep_until(self, instant: datetime) -> None:
        """Return when the board shows ``instant``, by what it is off now."""
        await self._true.sleep_until(instant - self.off)
