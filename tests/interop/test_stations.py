"""Our management system against stations written by others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.ocpp import ADAPTER
from adapters.ocpp.transport import OcppRunning
from gateway.domain.effects import Layer
from gateway.domain.events import (
    CommandAnswered,
    MessageRefused,
    Outcome,
    SessionEnded,
    SessionStarted,
    StationConnected,
)
from gateway.domain.measurement import Quantity
from gateway.infra.clock_system import SystemClock
from gateway.pki.dev import DevPki, make_dev_pki
from gateway.ports.adapter import ListenerSettings
from gateway.ports.fleet import StationSettings
from tests.interop.peers_stations import ForeignStation, require
from tests.support.ocpp import FakeGate, a_command, a_context, a_station, falling, until

pytestmark = [pytest.mark.interop, pytest.mark.anyio]

KINDS = [("ocpp", "1.6"), ("ocpp", "2.0.1"), ("rpc", "1.6"), ("rpc", "2.0.1")]
INTERVAL = {"1.6": "MeterValueSampleInterval", "2.0.1": "TxUpdatedInterval"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def pki(tmp_path: Path) -> DevPki:
    return make_dev_pki(tmp_path, site="depot", stations=[("CP-1", "SN-CP-1")], now=datetime.now(UTC))


@asynccontextmanager
async def a_gateway(
    gate: FakeGate, station: StationSettings, listeners: dict[str, ListenerSettings] | None = None
) -> AsyncIterator[OcppRunning]:
    running = ADAPTER.open(a_context(gate, SystemClock(), station, listeners=listeners))
    assert isinstance(running, OcppRunning)
    await running.start({})
    try:
        yield running
    finally:
        await running.stop(1)


@pytest.mark.parametrize(("kind", "version"), KINDS)
async def test_a_foreign_station_is_limited_and_measured(kind: str, version: str):
    require(kind)
    gate = FakeGate()
    async with a_gateway(gate, a_station()) as running:
        url = f"ws://127.0.0.1:{running.ports['lab']}"
        async with ForeignStation.running(kind, url, "CP-1", version=version) as station:
            assert (await station.heard("booted"))["status"] == "Accepted"
            await until(lambda: running.connected, 20)
            running.apply(a_command("share", limit_w=5_000))
            share = await station.heard("profile", purpose="TxDefaultProfile")
            assert (share["outlet"], share["id"], share["limits"]) == (1, 900_002, [[0, 6.5]])

            station.do("start", token="CARD-1")
            transaction = (await station.heard("started"))["transaction"]
            schedule = falling(SystemClock().now(), (0, 11_000), (900, 5_000))
            running.apply(a_command("session", layer=Layer.SESSION, schedule=schedule, transaction=transaction))
            profile = await station.heard("profile", purpose="TxProfile")
            assert str(profile["transaction"]) == transaction
            assert [limit for _, limit in profile["limits"]] == [14.4, 6.5]

            station.do("meter", power_w=4485)
            await station.heard("metered")
            station.do("stop")
            await station.heard("stopped")
            assert station.of("failed") == station.of("invalid") == []
            configured = {line["key"]: line["value"] for line in station.of("configured")}
            assert configured[INTERVAL[version]] == "10"
    assert [a.outcome for a in gate.of(CommandAnswered)] == [Outcome.ACCEPTED, Outcome.ACCEPTED]
    assert [(s.quantity, s.value) for s in gate.samples if s.quantity is Quantity.P] == [(Quantity.P, 4485)]
    assert [s.transaction for s in gate.of(SessionStarted)] == [transaction]
    assert [s.transaction for s in gate.of(SessionEnded)] == [transaction]
    assert gate.of(MessageRefused) == []


@pytest.mark.parametrize("kind", ["ocpp", "rpc"])
async def test_a_foreign_station_shows_its_certificate(kind: str, pki: DevPki):
    require(kind)
    gate = FakeGate()
    settings = a_station(profile=3, listener="ocpp")
    async with a_gateway(gate, settings, {"ocpp": pki.settings("ocpp")}) as running:
        url = f"wss://127.0.0.1:{running.ports['ocpp']}"
        async with ForeignStation.running(kind, url, "CP-1", identity=pki.stations["CP-1"]) as station:
            assert (await station.heard("booted"))["status"] == "Accepted"
            await until(lambda: gate.of(StationConnected), 20)
    assert gate.of(StationConnected)[0].actor.cert_sha256
