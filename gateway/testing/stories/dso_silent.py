"""The DSO falls silent: the fallback holds from the instant that it promised, until it speaks afresh.

It comes back in two steps. Heartbeats alone renew nothing; the limit rises only after a new
forecast, and at no second above what was last said.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.testing.judge import fallback_in_time
from gateway.testing.physics import LimitBlock
from gateway.testing.proofs import fallback_recorded
from gateway.testing.stories import depot
from gateway.testing.stories.depot import FALLBACK_W, kw, minute
from gateway.testing.story import CarPlan, Forecast, Scene, Story

END_MIN = 25


@dataclass(frozen=True, slots=True)
class Figures:
    """The seeded numbers of one evening. Watts; minutes after the story's start."""

    usual_w: int
    after_w: int
    silent_min: float
    back_min: float
    fresh_min: float
    cars: tuple[CarPlan, ...]


def figures(seed: int, start: datetime) -> Figures:
    """Draw the numbers of an evening."""
    chance = random.Random(f"dso silent {seed}")
    back_min = 16 + chance.uniform(-0.5, 0.5)
    return Figures(
        usual_w=chance.randrange(60_000, 70_001, 100),
        after_w=chance.randrange(46_000, 54_001, 100),
        silent_min=9 + chance.uniform(-0.5, 0.5),
        back_min=back_min,
        fresh_min=back_min + chance.uniform(1.8, 2.2),
        cars=depot.cars(chance, minute(start, 2), minute(start, 6)),
    )


async def script(scene: Scene, start: datetime) -> None:
    """The evening."""
    drawn = figures(scene.seed, start)
    arrivals = depot.arriving(scene, drawn.cars)
    try:
        await scene.join_grid()
        fallback = await depot.announce_fallback(scene, start)
        tomorrow = start + timedelta(hours=24)
        await scene.forecast(Forecast.LIMIT, [LimitBlock(start, tomorrow, drawn.usual_w)])
        scene.say(f"DSO announced {kw(drawn.usual_w)} until tomorrow")
        await scene.until(minute(start, drawn.silent_min))
        deadline = await scene.fall_silent()
        scene.say(f"the DSO's last heartbeat promised another until {deadline:%H:%M:%S}; there is none")
        took_ms = await scene.timed_fallback(deadline, depot.fallback(start), fallback)
        depot.tell_timed(scene, took_ms, "the promise ran out")
        await scene.until(minute(start, drawn.back_min))
        scene.speak_again()
        scene.say(f"the DSO sends heartbeats again; {kw(FALLBACK_W)} still holds")
        await scene.until(minute(start, drawn.fresh_min))
        await scene.forecast(Forecast.LIMIT, [LimitBlock(depot.now(scene), tomorrow, drawn.after_w)])
        scene.say(f"the DSO allows {kw(drawn.after_w)} afresh")
        await scene.until(minute(start, END_MIN))
        await arrivals
    finally:
        arrivals.cancel()


STORY = Story(
    name="dso-silent",
    title="dso-silent: the grid operator is not heard any more, and then again",
    starts=(17, 50),
    ends=(18, 15),
    speed=60.0,
    site=depot.site,
    house=depot.house,
    script=script,
    trials=depot.watched(0.6, fallback_in_time, fallback_recorded(FALLBACK_W)),
)
