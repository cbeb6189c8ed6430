"""Evening peak: the DSO cuts a depot at 18:00 as announced, and further without warning.

Every figure comes from the seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.testing.judge import cut_acknowledged
from gateway.testing.physics import LimitBlock
from gateway.testing.stories import depot
from gateway.testing.stories.depot import STATIC_W, kw, minute
from gateway.testing.story import CarPlan, Forecast, Scene, Story

CUT_MIN, CUT_END_MIN, END_MIN = 13, 29, 33
"""Minutes after the story's start: 18:00, 18:16 and 18:20."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The seeded numbers of one evening. Watts; minutes after the story's start."""

    cut_w: int
    surprise_w: int
    surprise_min: float
    recovery_min: float
    cars: tuple[CarPlan, ...]


def figures(seed: int, start: datetime) -> Figures:
    """Draw the numbers of an evening."""
    chance = random.Random(f"evening peak {seed}")
    return Figures(
        cut_w=chance.randrange(44_000, 48_001, 100),
        surprise_w=chance.randrange(37_000, 39_501, 100),
        surprise_min=20 + chance.uniform(-0.5, 0.5),
        recovery_min=26 + chance.uniform(-0.5, 0.5),
        cars=depot.cars(chance, minute(start, 2), minute(start, 7)),
    )


async def script(scene: Scene, start: datetime) -> None:
    """The evening."""
    drawn = figures(scene.seed, start)
    arrivals = depot.arriving(scene, drawn.cars)
    try:
        await scene.join_grid()
        await depot.announce_fallback(scene, start)
        await _announce(scene, drawn, start)
        await scene.until(minute(start, CUT_MIN))
        scene.say(f"18:00: the announced cut to {kw(drawn.cut_w)} takes effect")
        await scene.until(minute(start, drawn.surprise_min))
        scene.say(f"surprise: the DSO lowers the connection to {kw(drawn.surprise_w)} at once")
        cut = LimitBlock(depot.now(scene), minute(start, CUT_END_MIN), drawn.surprise_w)
        depot.tell_timed(scene, await scene.timed_cut([cut]), "the DSO's post")
        await scene.until(minute(start, drawn.recovery_min))
        raised = LimitBlock(depot.now(scene), minute(start, CUT_END_MIN), drawn.cut_w)
        await scene.forecast(Forecast.LIMIT, [raised])
        scene.say(f"the DSO raised the connection to {kw(drawn.cut_w)} again")
        await scene.until(minute(start, CUT_END_MIN))
        scene.say("18:16: the cut is over")
        await scene.until(minute(start, END_MIN))
        await arrivals
    finally:
        arrivals.cancel()


async def _announce(scene: Scene, drawn: Figures, start: datetime) -> None:
    begins, ends = minute(start, CUT_MIN), minute(start, CUT_END_MIN)
    await scene.forecast(
        Forecast.LIMIT,
        [
            LimitBlock(start, begins, STATIC_W),
            LimitBlock(begins, ends, drawn.cut_w),
            LimitBlock(ends, start + timedelta(hours=6), STATIC_W),
        ],
    )
    scene.say(f"DSO announced a cut to {kw(drawn.cut_w)} from 18:00 to 18:16")


STORY = Story(
    name="evening-peak",
    title="evening-peak: a cut announced for 18:00, and one that nobody announced",
    starts=(17, 47),
    ends=(18, 20),
    speed=60.0,
    site=depot.site,
    house=depot.house,
    script=script,
    trials=depot.watched(0.7, cut_acknowledged),
)
