"""The site that the stories share: a depot with a building and six stations of both protocol versions.

All safe shares, the building and what is counted for it stay below ``FALLBACK_W``, which is what the
operator of such a site would have checked.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import datetime, timedelta

from gateway.testing.judge import (
    Trial,
    durable,
    heartbeats,
    meters_heard,
    no_excess,
    power_used,
    registers_agree,
    stations_followed,
)
from gateway.testing.physics import BuildingLoad, LimitBlock
from gateway.testing.proofs import evidence, trace
from gateway.testing.stage import SitePlan, StationPlan
from gateway.testing.story import CarPlan, Forecast, Scene

STATIC_W = 90_000
GARAGE_W = 80_000
GARAGE_A = 120
RESERVE_W = 6_000
FALLBACK_W = 36_000
SHARE_W = 4_140
"""Three phases at 6 A: less would stop a car."""

CAR_W = (11_000, 17_250, 22_000)
"""What cars of the trade take at most on three phases: 16 A, 25 A, 32 A."""

STATIONS = tuple(
    StationPlan(f"CP-{n}", f"main/garage/evse-{n}", version, safe_share_w=SHARE_W)
    for n, version in enumerate(("1.6", "1.6", "1.6", "2.0.1", "2.0.1", "2.0.1"), start=1)
)

WATCHED: tuple[Trial, ...] = (
    no_excess,
    stations_followed,
    durable,
    heartbeats,
    registers_agree,
    meters_heard,
    evidence,
    trace,
)
"""What must be true of every story."""


def house(seed: int) -> BuildingLoad:
    """A building between 4 and 9 kW."""
    return BuildingLoad(seed, 4_000, 9_000)


def site(_seed: int) -> SitePlan:
    """Grid connection, garage circuit with six EVSEs, a building."""
    return depot(RESERVE_W)


def depot(reserve_w: int) -> SitePlan:
    """The same with another reserve for the building, W."""
    return SitePlan(
        id="depot",
        group="DEPOT-7",
        root="main",
        nodes=(
            {"path": "main", "kind": "GRID_CONNECTION", "import_max_w": STATIC_W, "export_max_w": 0},
            {
                "path": "main/garage",
                "kind": "CIRCUIT",
                "import_max_w": GARAGE_W,
                "import_max_a": {"L1": GARAGE_A, "L2": GARAGE_A, "L3": GARAGE_A},
            },
            {"path": "main/house", "kind": "LOAD", "reserve_w": reserve_w},
        ),
        stations=STATIONS,
        meters=("main", "main/house"),
    )


def cars(chance: random.Random, first: datetime, last: datetime) -> tuple[CarPlan, ...]:
    """One for each station, hungry enough for any story, in order of arrival between the two."""
    between_s = (last - first).total_seconds()
    drawn = (
        CarPlan(
            station.id,
            first + timedelta(seconds=chance.uniform(0, between_s)),
            float(chance.choice(CAR_W)),
            chance.uniform(18_000, 40_000),
        )
        for station in STATIONS
    )
    return tuple(sorted(drawn, key=lambda car: car.arrives))


def arriving(scene: Scene, plans: Sequence[CarPlan]) -> asyncio.Task[None]:
    """Plug them in as they come, beside the script."""

    async def arrivals() -> None:
        for car in plans:
            await scene.until(car.arrives)
            await scene.plug_in(car)

    return asyncio.create_task(arrivals())


async def announce_fallback(scene: Scene, start: datetime) -> str:
    """The DSO says what holds when it is not heard; the request id."""
    request = await scene.forecast(Forecast.FALLBACK, fallback(start))
    scene.say(f"DSO announced {kw(FALLBACK_W)} for the time when it is not heard")
    return request


def fallback(start: datetime) -> list[LimitBlock]:
    """The fallback as blocks."""
    return [LimitBlock(start, start + timedelta(days=7), FALLBACK_W)]


def tell_timed(scene: Scene, took_ms: float | None, since: str) -> None:
    """Tell the audience how a signal was followed."""
    if took_ms is None:
        scene.say("the connection did not follow in time")
    else:
        scene.say(f"the last station accepted its lower limit {took_ms:.0f} ms (real) after {since}")


def now(scene: Scene) -> datetime:
    """Story time in whole seconds, as grid parties write it."""
    return scene.now().replace(microsecond=0)


def minute(start: datetime, minutes: float) -> datetime:
    """So long after the start."""
    return start + timedelta(minutes=minutes)


def kw(value: float) -> str:
    """``45.0 kW``."""
    return f"{value / 1000:.1f} kW"


def watched(share: float, *more: Trial) -> tuple[Trial, ...]:
    """Everything that must be true of a story in which cars get ``share`` of what was possible."""
    return (*WATCHED, power_used(share), *more)
