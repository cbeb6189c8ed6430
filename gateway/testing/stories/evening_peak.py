"""Evening peak: the DSO cuts a depot at 18:00 as announced, and further without warning.

Every figure comes from the seed. At each of them the cars' safe shares and the building fit below
the fallback, which is what the operator of such a site would have checked.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.testing.physics import LimitBlock
from gateway.testing.stage import SitePlan, StationPlan
from gateway.testing.story import CarPlan, Forecast, Scene, Story

STATIC_W = 60_000
GARAGE_W = 44_000
GARAGE_A = 63
RESERVE_W = 8_000
CUT_MIN, CUT_END_MIN, END_MIN = 15, 35, 40
"""Minutes after the story's start: 18:00, 18:20 and 18:25."""

CAR_W = (11_000, 17_250, 22_000)
"""What cars of the trade take at most on three phases: 16 A, 25 A, 32 A."""

STATIONS = (
    StationPlan("CP-1", "main/garage/evse-1", "1.6"),
    StationPlan("CP-2", "main/garage/evse-2", "1.6"),
    StationPlan("CP-3", "main/garage/evse-3", "2.0.1"),
    StationPlan("CP-4", "main/garage/evse-4", "2.0.1"),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """The seeded numbers of one evening. Watts; minutes after the story's start."""

    cut_w: int
    surprise_w: int
    fallback_w: int
    surprise_min: float
    recovery_min: float
    cars: tuple[CarPlan, ...]


def figures(seed: int, start: datetime) -> Figures:
    """Draw the numbers of an evening."""
    chance = random.Random(f"evening peak {seed}")
    cars = tuple(
        CarPlan(
            station.id,
            start + timedelta(minutes=chance.uniform(2, 8)),
            float(chance.choice(CAR_W)),
            chance.uniform(18_000, 40_000),
        )
        for station in STATIONS
    )
    return Figures(
        cut_w=chance.randrange(35_000, 38_001, 100),
        surprise_w=chance.randrange(31_000, 32_501, 100),
        fallback_w=30_000,
        surprise_min=23 + chance.uniform(-0.5, 0.5),
        recovery_min=31 + chance.uniform(-0.5, 0.5),
        cars=tuple(sorted(cars, key=lambda car: car.arrives)),
    )


def site(_seed: int) -> SitePlan:
    """A depot: grid connection, garage circuit with four EVSEs, a building."""
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
            {"path": "main/house", "kind": "LOAD", "reserve_w": RESERVE_W},
        ),
        stations=STATIONS,
        meters=("main", "main/house"),
    )


async def script(scene: Scene, start: datetime) -> None:
    """The evening."""
    drawn = figures(scene.seed, start)
    arrivals = asyncio.create_task(_arrivals(scene, drawn))
    try:
        await scene.join_grid()
        await _announce(scene, drawn, start)
        await scene.until(_minute(start, CUT_MIN))
        scene.say(f"18:00: the announced cut to {_kw(drawn.cut_w)} takes effect")
        await scene.until(_minute(start, drawn.surprise_min))
        await _surprise(scene, drawn, start)
        await scene.until(_minute(start, drawn.recovery_min))
        await _recover(scene, drawn, start)
        await scene.until(_minute(start, CUT_END_MIN))
        scene.say("18:20: the cut is over")
        await scene.until(_minute(start, END_MIN))
        await arrivals
    finally:
        arrivals.cancel()


async def _arrivals(scene: Scene, drawn: Figures) -> None:
    for car in drawn.cars:
        await scene.until(car.arrives)
        await scene.plug_in(car)


async def _announce(scene: Scene, drawn: Figures, start: datetime) -> None:
    await scene.forecast(Forecast.FALLBACK, [LimitBlock(start, start + timedelta(days=7), drawn.fallback_w)])
    scene.say(f"DSO announced {_kw(drawn.fallback_w)} for the time when it is not heard")
    six, twenty_past = _minute(start, CUT_MIN), _minute(start, CUT_END_MIN)
    await scene.forecast(
        Forecast.LIMIT,
        [
            LimitBlock(start, six, STATIC_W),
            LimitBlock(six, twenty_past, drawn.cut_w),
            LimitBlock(twenty_past, start + timedelta(hours=6), STATIC_W),
        ],
    )
    scene.say(f"DSO announced a cut to {_kw(drawn.cut_w)} from 18:00 to 18:20")


async def _surprise(scene: Scene, drawn: Figures, start: datetime) -> None:
    scene.say(f"surprise: the DSO lowers the connection to {_kw(drawn.surprise_w)} at once")
    took_ms = await scene.timed_cut([LimitBlock(_now(scene), _minute(start, CUT_END_MIN), drawn.surprise_w)])
    if took_ms is None:
        scene.say("the connection did not follow in time")
    else:
        scene.say(f"the last station accepted its lower limit {took_ms:.0f} ms (real) after the DSO's post")


async def _recover(scene: Scene, drawn: Figures, start: datetime) -> None:
    await scene.forecast(Forecast.LIMIT, [LimitBlock(_now(scene), _minute(start, CUT_END_MIN), drawn.cut_w)])
    scene.say(f"the DSO raised the connection to {_kw(drawn.cut_w)} again")


def _now(scene: Scene) -> datetime:
    return scene.now().replace(microsecond=0)


def _minute(start: datetime, minutes: float) -> datetime:
    return start + timedelta(minutes=minutes)


def _kw(value: float) -> str:
    return f"{value / 1000:.1f} kW"


STORY = Story(
    name="evening-peak",
    title="evening-peak: a cut announced for 18:00, and one that nobody announced",
    starts=(17, 45),
    ends=(18, 25),
    speed=60.0,
    site=site,
    script=script,
    least_share=0.7,
)
