"""What a story consists of. Data and the face of the world that its script sees."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from gateway.testing.physics import LimitBlock
from gateway.testing.stage import SitePlan


class Forecast(StrEnum):
    """Which of the grid party's timelines a forecast writes."""

    LIMIT = "CONSUMPTION"
    FALLBACK = "FALLBACK_CONSUMPTION"


@dataclass(frozen=True, slots=True)
class CarPlan:
    """A car: when it is plugged in where, what it takes at most, what it wants. W and Wh."""

    station: str
    arrives: datetime
    max_w: float
    wants_wh: float


class Scene(Protocol):
    """The world as a script sees it."""

    @property
    def seed(self) -> int: ...

    def say(self, text: str) -> None:
        """Tell the audience."""
        ...

    def now(self) -> datetime:
        """Story time."""
        ...

    async def until(self, instant: datetime) -> None:
        """Wait for story time."""
        ...

    async def join_grid(self) -> None:
        """The DSO registers, shakes hands and sends heartbeats from now on."""
        ...

    async def forecast(self, kind: Forecast, blocks: Sequence[LimitBlock]) -> str:
        """The DSO posts a forecast; its request id, after the gateway acknowledged it."""
        ...

    async def timed_cut(self, blocks: Sequence[LimitBlock]) -> float | None:
        """As ``forecast`` of limits; real ms from the post to the last station's acceptance.

        None if the cut was not kept in time.
        """
        ...

    async def plug_in(self, car: CarPlan) -> None:
        """A car is plugged in and authorised."""
        ...


@dataclass(frozen=True)
class Story:
    """``starts`` and ``ends`` are times of day (hour, minute); ``script`` plays until it returns.

    ``least_share`` is the part of the physically possible energy that must reach the cars.
    """

    name: str
    title: str
    starts: tuple[int, int]
    ends: tuple[int, int]
    speed: float
    site: Callable[[int], SitePlan]
    script: Callable[[Scene, datetime], Awaitable[None]]
    least_share: float
    reaction_s: float = 60.0
