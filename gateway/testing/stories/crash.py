"""Crash: SIGKILL right after a cut was acknowledged; a cut that was announced begins while nobody is there.

Stations keep what they were told, one car comes and one leaves unseen. What was acknowledged in the
last second holds after the restart: the limit that the DSO lowered then is still the lower one when
the announced cut is over.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.testing.judge import cut_acknowledged, kept_while_dead
from gateway.testing.physics import BuildingLoad, LimitBlock
from gateway.testing.proofs import lives, recorded_once, sessions_once
from gateway.testing.stage import SitePlan
from gateway.testing.stories import depot
from gateway.testing.stories.depot import kw, minute
from gateway.testing.story import CarPlan, Forecast, Scene, Story

CUT_MIN, CUT_END_MIN, LAST_MIN, END_MIN = 1.9, 3.9, 4.7, 5.2
"""Minutes after the story's start."""

HOUSE_W = (4_000, 6_000)
RESERVE_W = 6_500
"""More than the building ever takes: nobody can follow it while nobody is there."""

PROMISE_S = 600.0
"""The DSO promises its next heartbeat so far ahead: that it is not heard is another story."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The seeded numbers of one evening. Watts; minutes after the story's start.

    ``kill_after_s`` are real seconds, from the 204 to the SIGKILL.
    """

    usual_w: int
    lowered_w: int
    cut_w: int
    last_w: int
    lowered_min: float
    kill_after_s: float
    dead_s: float
    cars: tuple[CarPlan, ...]

    @property
    def late(self) -> CarPlan:
        """The car that comes while nobody is there."""
        return self.cars[-1]

    @property
    def leaver(self) -> CarPlan:
        """The car that leaves while nobody is there."""
        return self.cars[0]


def figures(seed: int, start: datetime) -> Figures:
    """Draw the numbers of an evening."""
    chance = random.Random(f"crash {seed}")
    return Figures(
        usual_w=chance.randrange(74_000, 78_001, 100),
        lowered_w=chance.randrange(55_000, 57_001, 100),
        cut_w=chance.randrange(41_000, 44_001, 100),
        last_w=chance.randrange(38_500, 40_001, 100),
        lowered_min=1.45 + chance.uniform(-0.1, 0.1),
        kill_after_s=chance.uniform(0, 0.1),
        dead_s=chance.uniform(30, 40),
        cars=depot.cars(chance, minute(start, 0.1), minute(start, 0.4)),
    )


def house(seed: int) -> BuildingLoad:
    """A calm building."""
    return BuildingLoad(seed, *HOUSE_W)


def site(_seed: int) -> SitePlan:
    """The depot, with a reserve that covers the building at any time."""
    return depot.depot(RESERVE_W)


async def script(scene: Scene, start: datetime) -> None:
    """The evening. It is short: a gateway that needed long to get ready shall not shorten it."""
    start = max(start, depot.now(scene))
    drawn = figures(scene.seed, start)
    arrivals = depot.arriving(scene, drawn.cars[:-1])
    try:
        await scene.join_grid(PROMISE_S)
        await depot.announce_fallback(scene, start)
        await _announce(scene, drawn, start)
        await scene.until(minute(start, drawn.lowered_min))
        lowered = await _lower(scene, drawn, start)
        await asyncio.sleep(drawn.kill_after_s)
        await scene.kill()
        await _nobody_there(scene, drawn, start)
        await scene.restart()
        await scene.until(minute(start, CUT_END_MIN))
        scene.say(f"the announced cut is over; {kw(drawn.lowered_w)} still holds, acknowledged before the kill")
        await scene.until(minute(start, LAST_MIN))
        await scene.repeat(lowered)
        scene.say("the DSO was not sure of that answer any more and posted the same forecast again")
        scene.say(f"the DSO lowers the connection to {kw(drawn.last_w)} at once")
        cut = LimitBlock(depot.now(scene), start + timedelta(hours=6), drawn.last_w)
        depot.tell_timed(scene, await scene.timed_cut([cut]), "the DSO's post")
        await scene.until(minute(start, END_MIN))
        await arrivals
    finally:
        arrivals.cancel()


async def _announce(scene: Scene, drawn: Figures, start: datetime) -> None:
    begins, ends = minute(start, CUT_MIN), minute(start, CUT_END_MIN)
    await scene.forecast(
        Forecast.LIMIT,
        [
            LimitBlock(start, begins, drawn.usual_w),
            LimitBlock(begins, ends, drawn.cut_w),
            LimitBlock(ends, start + timedelta(hours=6), drawn.usual_w),
        ],
    )
    scene.say(f"DSO announced {kw(drawn.usual_w)}, and {kw(drawn.cut_w)} from {begins:%H:%M:%S} to {ends:%H:%M:%S}")


async def _lower(scene: Scene, drawn: Figures, start: datetime) -> str:
    scene.say(f"the DSO lowers the connection to {kw(drawn.lowered_w)}, before and after the announced cut")
    return await scene.forecast(
        Forecast.LIMIT,
        [
            LimitBlock(depot.now(scene), minute(start, CUT_MIN), drawn.lowered_w),
            LimitBlock(minute(start, CUT_END_MIN), start + timedelta(hours=6), drawn.lowered_w),
        ],
    )


async def _nobody_there(scene: Scene, drawn: Figures, start: datetime) -> None:
    """A car comes, the announced cut begins, another car leaves."""
    died_at = scene.now()
    await scene.until(died_at + timedelta(seconds=drawn.dead_s / 3))
    await scene.plug_in(drawn.late)
    await scene.until(minute(start, CUT_MIN) + timedelta(seconds=5))
    scene.say(f"the announced cut to {kw(drawn.cut_w)} has begun; no gateway told anybody")
    await scene.unplug(drawn.leaver.station)
    await scene.until(died_at + timedelta(seconds=drawn.dead_s))


STORY = Story(
    name="crash",
    title="crash: the gateway is killed in the middle of it, and comes back",
    starts=(17, 58),
    ends=(18, 3),
    speed=10.0,
    site=site,
    house=house,
    script=script,
    trials=depot.watched(0.5, cut_acknowledged, kept_while_dead, lives, recorded_once, sessions_once),
)
