"""A lying station: it accepts every limit and gives its car what the car wants.

Nobody can prevent what it takes. Asked is that it is noticed by its meter, that the others make
room within the reaction time, that a cut which comes later is kept all the same, and that the
evidence has the excess and the name.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from gateway.testing.judge import cut_acknowledged, made_room
from gateway.testing.physics import LimitBlock
from gateway.testing.proofs import excess_recorded, liar_named
from gateway.testing.stories import depot
from gateway.testing.stories.depot import STATIONS, kw, minute
from gateway.testing.story import CarPlan, Forecast, Scene, Story

CUT_END_MIN, END_MIN = 20, 22
REACTION_S = 60.0


@dataclass(frozen=True, slots=True)
class Figures:
    """The seeded numbers of one evening. Watts; minutes after the story's start."""

    usual_w: int
    cut_w: int
    liar: str
    lie_min: float
    cut_min: float
    cars: tuple[CarPlan, ...]


def figures(seed: int, start: datetime) -> Figures:
    """Draw the numbers of an evening. The liar's car takes all that its cable carries."""
    chance = random.Random(f"lying station {seed}")
    liar = chance.choice(STATIONS).id
    came = depot.cars(chance, minute(start, 2), minute(start, 6))
    return Figures(
        usual_w=chance.randrange(58_000, 66_001, 100),
        cut_w=chance.randrange(52_000, 55_001, 100),
        liar=liar,
        lie_min=10 + chance.uniform(-0.5, 0.5),
        cut_min=15 + chance.uniform(-0.5, 0.5),
        cars=tuple(replace(car, max_w=22_000.0, wants_wh=40_000.0) if car.station == liar else car for car in came),
    )


async def script(scene: Scene, start: datetime) -> None:
    """The evening."""
    drawn = figures(scene.seed, start)
    arrivals = depot.arriving(scene, drawn.cars)
    try:
        await scene.join_grid()
        await depot.announce_fallback(scene, start)
        evening = start + timedelta(hours=6)
        await scene.forecast(Forecast.LIMIT, [LimitBlock(start, evening, drawn.usual_w)])
        scene.say(f"DSO announced {kw(drawn.usual_w)} for the evening")
        await scene.until(minute(start, drawn.lie_min))
        await scene.lie(drawn.liar)
        scene.say(f"{drawn.liar} goes on to accept its limits, and keeps none from now on")
        await scene.until(minute(start, drawn.cut_min))
        scene.say(f"the DSO lowers the connection to {kw(drawn.cut_w)} at once")
        cut = LimitBlock(depot.now(scene), minute(start, CUT_END_MIN), drawn.cut_w)
        depot.tell_timed(scene, await scene.timed_cut([cut]), "the DSO's post")
        await scene.until(minute(start, END_MIN))
        await arrivals
    finally:
        arrivals.cancel()


STORY = Story(
    name="lying-station",
    title="lying-station: one of six accepts its limit and ignores it",
    starts=(17, 50),
    ends=(18, 12),
    speed=60.0,
    site=depot.site,
    house=depot.house,
    script=script,
    trials=depot.watched(0.6, cut_acknowledged, made_room(REACTION_S), liar_named, excess_recorded),
    reaction_s=REACTION_S,
)
