"""SIGKILL of the whole gateway at the two moments that matter: what was acknowledged is neither lost nor doubled."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.oscp.wire import UpdateGroupCapacityForecast, decode
from gateway.infra.clock_system import SystemClock
from gateway.testing.cast import Dso, StationActor
from gateway.testing.story import CarPlan, Forecast
from tests.support.gateway import Depot, a_plan, from_now
from tests.support.ocpp import until

HERE = Path(__file__).parent
CUT_W = 6_000
PATIENCE_S = 20.0
RISE_S = 45.0
"""An increase after another one rests for a while."""

VERSIONS = ("1.6", "2.0.1")

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@dataclass
class Evening:
    """A depot with a DSO and two stations that outlive the gateway."""

    depot: Depot
    dso: Dso
    stations: list[StationActor]
    urls: dict[str, str]

    @property
    def hold(self) -> Path:
        """While it is there, the sabotaged gateways stand still at their moment."""
        return self.depot.stage.folder / "hold"

    async def begin(self) -> None:
        """Everybody connects; cars charge at a generous limit."""
        for station in self.stations:
            await station.start(self.urls["ocpp"])
        await self.dso.join(self.urls["grid"])
        await self.dso.forecast(Forecast.LIMIT, from_now(50_000))
        for station in self.stations:
            await station.plug_in(CarPlan(station.plan.id, SystemClock().now(), 22_000.0, 50_000.0))
        await until(lambda: all(a > 25 for a in self.amperes()), PATIENCE_S)

    def amperes(self) -> list[float]:
        """What the stations' installed profiles allow now."""
        return [station.peer.limit_a() for station in self.stations]

    async def repeat(self, request: str) -> None:
        """Send the forecast of that id once more, byte by byte."""
        sent = next(s for s in self.dso.peer.sent if s.request_id == request)
        message = decode(UpdateGroupCapacityForecast, json.dumps(sent.body).encode())
        await self.dso.peer.send(sent.endpoint, message, request_id=request)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@asynccontextmanager
async def an_evening(folder: Path) -> AsyncIterator[Evening]:
    plan = a_plan(*VERSIONS)
    depot = Depot.build(folder / "depot", plan, "127.0.0.1:1")
    clock = SystemClock()
    dso = Dso(depot.stage, plan.group, clock)
    host = await dso.start()
    ports = dict(zip(("grid", "ocpp", "admin"), _free_ports(3), strict=True))

    def settle(document: dict) -> None:
        document["peers"][0]["url_hosts"] = [host]
        for name, port in ports.items():
            document["listeners"][name]["port"] = port

    depot.edit(settle)
    urls = {"grid": f"https://127.0.0.1:{ports['grid']}", "ocpp": f"wss://127.0.0.1:{ports['ocpp']}"}
    stations = [StationActor(s, depot.stage, clock, 1) for s in plan.stations]
    try:
        yield Evening(depot, dso, stations, urls)
    finally:
        for station in stations:
            await station.stop()
        await dso.stop()


async def test_a_kill_between_the_204_and_the_first_command_loses_nothing(tmp_path: Path) -> None:
    async with an_evening(tmp_path) as evening:
        sabotaged = (sys.executable, str(HERE / "gateway_holds_commands.py"))
        async with evening.depot.running(sabotaged) as (child, _):
            await evening.begin()
            evening.hold.touch()
            request = await evening.dso.forecast(Forecast.LIMIT, from_now(CUT_W))
            await child.kill()
        assert all(a > 25 for a in evening.amperes()), "no command has left"
        async with evening.depot.running() as (child, _):
            await until(lambda: sum(evening.amperes()) * 690 <= CUT_W, PATIENCE_S)
            await evening.repeat(request)
            await child.stop()
    evening.depot.verify()
    revised = [e for e in evening.depot.entries("envelope.revised") if e.subject["request_id"] == request]
    assert len(revised) == 1, "acknowledged once, recorded once"
    assert [e.body["epoch"] for e in evening.depot.entries("gateway.started")] == [1, 2]


async def test_a_kill_between_accepted_and_its_record_counts_the_command_as_possibly_installed(tmp_path: Path) -> None:
    async with an_evening(tmp_path) as evening:
        sabotaged = (sys.executable, str(HERE / "gateway_forgets_answers.py"))
        async with evening.depot.running(sabotaged) as (child, _):
            await evening.begin()
            evening.hold.touch()
            await evening.dso.forecast(Forecast.LIMIT, from_now(CUT_W))
            await until(lambda: sum(evening.amperes()) * 690 <= CUT_W, PATIENCE_S)
            await child.kill()
        kept = [station.peer.limit_a() for station in evening.stations]
        assert sum(kept) * 690 <= CUT_W, "the stations keep the limit while nobody talks to them"
        async with evening.depot.running() as (child, _):
            await until(lambda: all(s.peer.connected for s in evening.stations), PATIENCE_S)
            await evening.dso.forecast(Forecast.LIMIT, from_now(50_000))
            await until(lambda: all(a > 25 for a in evening.amperes()), RISE_S)
            await child.stop()
    evening.depot.verify()
    sent = [e.subject["command"] for e in evening.depot.entries("setpoint.sent")]
    answered = [e.subject["command"] for e in evening.depot.entries("setpoint.acknowledged")]
    assert len(set(sent)) == len(sent)
    assert len(set(answered)) == len(answered), "no answer is recorded twice"
    assert set(answered) < set(sent), "those whose answer died with the gateway are open, not invented"
    started = [e.subject["session"] for e in evening.depot.entries("session.started")]
    assert len(started) == len(VERSIONS), "a session that lasts through a restart is one session"
