"""What a story consists of. Data and the face of the world that its script sees."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from gateway.testing.judge import Trial
from gateway.testing.physics import BuildingLoad, LimitBlock
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

    async def join_grid(self, promise_s: float = 120.0) -> None:
        """The DSO registers, shakes hands and sends heartbeats from now on.

        Each promises another within ``promise_s`` story seconds.
        """
        ...

    async def forecast(self, kind: Forecast, blocks: Sequence[LimitBlock]) -> str:
        """The DSO posts a forecast; its request id, after the gateway acknowledged it."""
        ...

    async def repeat(self, request: str) -> None:
        """The DSO posts a forecast of before again, under the same request id."""
        ...

    async def timed_cut(self, blocks: Sequence[LimitBlock]) -> float | None:
        """As ``forecast`` of limits; real ms from the post to the last station's acceptance.

        None if the cut was not kept in time.
        """
        ...

    async def fall_silent(self) -> datetime:
        """The DSO sends nothing any more; the instant for which its last heartbeat promised another."""
        ...

    async def timed_fallback(self, deadline: datetime, blocks: Sequence[LimitBlock], request: str) -> float | None:
        """Wait for ``deadline``, from which on ``blocks`` hold, said before by ``request``.

        Returns as ``timed_cut``, counted from the deadline.
        """
        ...

    def speak_again(self) -> None:
        """The DSO sends heartbeats again."""
        ...

    async def plug_in(self, car: CarPlan) -> None:
        """A car is plugged in and authorised."""
        ...

    async def unplug(self, station: str) -> None:
        """The car at a station leaves."""
        ...

    async def lie(self, station: str) -> None:
        """A station goes on to accept every limit, and keeps none from soon on."""
        ...

    async def kill(self) -> None:
        """SIGKILL for the gateway."""
        ...

    async def restart(self) -> None:
        """The gateway starts again on the same ports and store; returns once it is ready."""
        ...


@dataclass(frozen=True)
class Story:
    """``starts`` and ``ends`` are times of day (hour, minute); ``script`` plays until it returns.

    ``trials`` judge it. ``reaction_s`` is how long a site may take to follow what takes effect at
    once, in story seconds.
    """

    name: str
    title: str
    starts: tuple[int, int]
    ends: tuple[int, int]
    speed: float
    site: Callable[[int], SitePlan]
    house: Callable[[int], BuildingLoad]
    script: Callable[[Scene, datetime], Awaitable[None]]
    trials: Sequence[Trial]
    reaction_s: float = 60.0
