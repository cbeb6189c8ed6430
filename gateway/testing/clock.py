"""Clocks for tests and stories: one that is moved by hand, one that runs fast.

A story clock is affine: story = anchor_story + (wall - anchor_wall) x speed. Two processes that
are given the same three numbers read the same time, without speaking to each other.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

from gateway.domain.errors import NotUtc
from gateway.domain.timeline import EPOCH, require_utc

MAX_SPEED = 3_600
"""An hour per second: beyond it one story second is shorter than a durable commit."""

MAX_NAP_S = 60.0
"""Longest real sleep before a story clock looks again: wall clocks are stepped now and then."""


class ManualClock:
    """Stands still until it is told to advance. Story time is the only time there is."""

    def __init__(self, start: datetime = datetime(2031, 3, 1, 12, tzinfo=UTC)) -> None:
        self._now = require_utc(start)
        self._elapsed = timedelta(0)
        self._order = itertools.count()
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """The instant that was set last."""
        return self._now

    def monotonic(self) -> float:
        """Seconds advanced so far; :meth:`step` does not count."""
        return self._elapsed.total_seconds()

    def wall_seconds(self, story_s: float) -> float:
        """One to one."""
        return story_s

    async def sleep_until(self, instant: datetime) -> None:
        """Wait until somebody advances to ``instant``."""
        if instant <= self._now:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (instant, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move on by ``seconds``, waking every sleeper at its own instant, in order."""
        if seconds < 0:
            raise ValueError(f"a clock does not run backwards ({seconds} s); step it instead")
        end = self._now + timedelta(seconds=seconds)
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            instant, _, future = heapq.heappop(self._sleepers)
            self._move(max(instant, self._now))
            if not future.done():
                future.set_result(None)
            await self._settle()
        self._move(end)
        await self._settle()

    def step(self, by: timedelta) -> None:
        """Set the wall clock off by ``by`` without letting time pass; wakes nobody."""
        self._now += by

    def _move(self, instant: datetime) -> None:
        self._elapsed += instant - self._now
        self._now = instant

    @staticmethod
    async def _settle() -> None:
        # A woken task may need some turns of the loop until it sleeps again.
        for _ in range(10):
            await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class StoryClock:
    """Runs ``speed`` times as fast as the wall. Anchors are aware UTC instants.

    ``wall`` and ``ticks`` read the machine; tests hand in their own.

    Raises:
        NotUtc: an anchor that is not UTC.
        ValueError: a speed that is not in (0, 3600].
    """

    anchor_wall: datetime
    anchor_story: datetime
    speed: float
    wall: Callable[[], float] = time.time
    ticks: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        require_utc(self.anchor_wall)
        require_utc(self.anchor_story)
        if not 0 < self.speed <= MAX_SPEED:
            raise ValueError(f"speed {self.speed} is not above 0 and at most {MAX_SPEED}")

    @classmethod
    def starting(cls, story: datetime, speed: float) -> StoryClock:
        """A clock that shows ``story`` now."""
        return cls(EPOCH + timedelta(seconds=round(time.time(), 6)), story, speed)

    @classmethod
    def parse(cls, text: str) -> StoryClock:
        """From ``ANCHOR_WALL:ANCHOR_STORY:SPEED``, unix seconds and a factor, as decimals.

        Raises:
            ValueError: not three finite numbers, or a speed out of range.
        """
        parts = text.split(":")
        if len(parts) != 3:
            raise ValueError(f'"{text}" is not ANCHOR_WALL:ANCHOR_STORY:SPEED')
        try:
            wall, story = (_instant(Decimal(part)) for part in parts[:2])
            return cls(wall, story, float(Decimal(parts[2])))
        except (InvalidOperation, OverflowError, NotUtc) as problem:
            raise ValueError(f'"{text}" is not ANCHOR_WALL:ANCHOR_STORY:SPEED: {problem}') from problem

    def __str__(self) -> str:
        """What :meth:`parse` reads."""
        return f"{_seconds(self.anchor_wall)}:{_seconds(self.anchor_story)}:{Decimal(str(self.speed))}"

    def now(self) -> datetime:
        """The story's instant, in whole microseconds."""
        passed = self.wall() - (self.anchor_wall - EPOCH).total_seconds()
        return self.anchor_story + timedelta(seconds=passed * self.speed)

    def monotonic(self) -> float:
        """Real seconds."""
        return self.ticks()

    def wall_seconds(self, story_s: float) -> float:
        """Real seconds that ``story_s`` take."""
        return story_s / self.speed

    async def sleep_until(self, instant: datetime) -> None:
        """Return once :meth:`now` has reached ``instant``."""
        while (left := (instant - self.now()).total_seconds()) > 0:
            await asyncio.sleep(min(self.wall_seconds(left), MAX_NAP_S))


def _instant(seconds: Decimal) -> datetime:
    if not seconds.is_finite():
        raise ValueError(f"{seconds} is no instant")
    return EPOCH + timedelta(microseconds=int(seconds * 1_000_000))


def _seconds(instant: datetime) -> Decimal:
    return Decimal((instant - EPOCH) // timedelta(microseconds=1)).scaleb(-6)
