"""Charging stations with cars in a process of their own: their CPU is nobody's whom we measure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from gateway.infra.clock_system import SystemClock
from gateway.testing.cast import StationActor
from gateway.testing.stage import Stage, StationPlan
from gateway.testing.story import CarPlan

CAR_W = 22_000.0
CAR_WH = 60_000.0
PATIENCE_S = 30.0
POLL_S = 0.05
"""Coarse, for it takes CPU; the instants come from the stations themselves."""
END_S = 10.0


@dataclass(frozen=True)
class Lowered:
    """What a cut did: monotonic seconds of the first and the last station that went below ``amperes``."""

    first: float
    last: float
    profiles: int
    highest_a: float


class Fleet:
    """The handle of the process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ready(self) -> None:
        """Wait until every station is connected and its car stands there."""
        await self._ask("ready")

    async def charging(self, amperes: float) -> None:
        """Wait until every station may take more than ``amperes``."""
        await self._ask("charging", amperes)

    async def lowered(self, since: float, amperes: float) -> Lowered:
        """Wait until every station has accepted a profile of at most ``amperes`` since then."""
        return await self._ask("lowered", since, amperes)

    async def _ask(self, *question: Any) -> Any:
        self._connection.send(question)
        answer = await asyncio.to_thread(self._connection.recv)
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def a_fleet(stage: Stage, stations: tuple[StationPlan, ...], url: str) -> AsyncIterator[Fleet]:
    """Stations that are connected and have a car each; ended with the block."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_main, args=(theirs, stage, stations, url), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Fleet(ours)
    finally:
        ours.close()
        await asyncio.to_thread(process.join, END_S)
        process.kill()


def _main(connection: Connection, stage: Stage, plans: tuple[StationPlan, ...], url: str) -> None:
    asyncio.run(_serve(connection, [StationActor(plan, stage, SystemClock(), 1) for plan in plans], url))


async def _serve(connection: Connection, actors: list[StationActor], url: str) -> None:
    for actor in actors:
        await actor.start(url)
    for actor in actors:
        await actor.plug_in(CarPlan(actor.plan.id, SystemClock().now(), CAR_W, CAR_WH))
    while True:
        try:
            question, *arguments = await asyncio.to_thread(connection.recv)
        except EOFError:
            break
        try:
            connection.send(await _ANSWERS[question](actors, *arguments))
        except TimeoutError as problem:
            connection.send(problem)
    await asyncio.gather(*(actor.stop() for actor in actors))


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(POLL_S)


async def _ready(actors: list[StationActor]) -> None:
    await _until(lambda: all(actor.peer.connected for actor in actors))


async def _charging(actors: list[StationActor], amperes: float) -> None:
    await _until(lambda: all(actor.peer.limit_a() > amperes for actor in actors))


async def _lowered(actors: list[StationActor], since: float, amperes: float) -> Lowered:
    await _until(lambda: all(_obeyed_at(actor, since, amperes) is not None for actor in actors))
    times = [at for actor in actors if (at := _obeyed_at(actor, since, amperes)) is not None]
    profiles = sum(1 for actor in actors for accepted in actor.peer.accepted if accepted.monotonic >= since)
    return Lowered(min(times), max(times), profiles, max(actor.peer.limit_a() for actor in actors))


def _obeyed_at(actor: StationActor, since: float, amperes: float) -> float | None:
    """When it first accepted a profile that allows no more than that."""
    fitting = (a.monotonic for a in actor.peer.accepted if a.monotonic >= since and a.limit_a <= amperes)
    return next(fitting, None)


_ANSWERS: dict[str, Callable[..., Any]] = {"ready": _ready, "charging": _charging, "lowered": _lowered}
