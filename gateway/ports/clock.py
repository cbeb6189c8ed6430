"""Time, handed in. Only ``gateway.infra.clock_system`` reads the machine's clock."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Two clocks: what was promised (wall) and how long we waited (monotonic)."""

    def now(self) -> datetime:
        """Aware UTC instant of the (possibly accelerated) story."""
        ...

    def monotonic(self) -> float:
        """Seconds of real time, for socket timeouts and latencies only."""
        ...

    async def sleep_until(self, instant: datetime) -> None:
        """Return at ``instant`` of :meth:`now`, at once when it has passed."""
        ...

    def wall_seconds(self, story_s: float) -> float:
        """How many real seconds ``story_s`` of :meth:`now` take (1:1 outside a demo)."""
        ...
