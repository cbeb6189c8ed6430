"""Our management system against stations written by others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.ocpp import ADAPTER
from adapters.ocpp.transport import OcppRunning
from gateway.domain.effects import Layer
from gateway.domain.events import (
    ClaimRefuted,
    ClockCompared,
    CommandAnswered,
    MessageRefused,
    Outcome,
    SessionEnded,
    SessionStarted,
    StationConnected,
    StationNoted,
)
from gateway.domain.measurement import Quantity
from gateway.infra.clock_system import SystemClock
from gateway.pki.dev import DevPki, make_dev_pki
from gateway.ports.adapter import ListenerSettings
from gateway.ports.clock import Clock
from gateway.ports.fleet import StationSettings
from tests.interop.peers_stations import ForeignStation, require
from tests.support.ocpp import PATIENCE_S, FakeGate, a_command, a_context, a_station, falling, until

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
    gate: FakeGate,
    station: StationSettings,
    listeners: dict[str, ListenerSettings] | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[OcppRunning]:
    running = ADAPTER.open(a_context(gate, clock or SystemClock(), station, listeners=listeners))
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


# --- what they hold, by code of their own ---------------------------------------------------------


@pytest.mark.parametrize(("kind", "version"), KINDS)
async def test_a_limit_counts_once_the_foreign_composite_schedule_agrees(kind: str, version: str):
    require(kind)
    gate = FakeGate()
    async with a_gateway(gate, a_station()) as running:
        url = f"ws://127.0.0.1:{running.ports['lab']}"
        async with ForeignStation.running(kind, url, "CP-1", version=version) as station:
            await until(lambda: running.connected, 20)
            running.apply(a_command("share", limit_w=5_000))
            composite = await station.heard("composite")
            assert composite["limits"] == [[0, 6.5]]
            await until(lambda: gate.of(CommandAnswered))

            station.do("start", token="CARD-1")
            transaction = (await station.heard("started"))["transaction"]
            schedule = falling(SystemClock().now(), (0, 11_000), (900, 5_000))
            running.apply(a_command("session", layer=Layer.SESSION, schedule=schedule, transaction=transaction))
            await until(lambda: len(gate.of(CommandAnswered)) == 2)
            await until(lambda: len(station.of("composite")) == 2)
            session = station.of("composite")[-1]["limits"]
            assert [limit for _, limit in session] == [14.4, 6.5]
            assert session[1][0] == pytest.approx(900, abs=5)
            station.do("stop")
            await station.heard("stopped")
            assert station.of("failed") == station.of("invalid") == station.of("refused") == []
    agreed = "Accepted, its composite schedule agrees"
    assert [(a.outcome, a.detail) for a in gate.of(CommandAnswered)] == [(Outcome.ACCEPTED, agreed)] * 2
    assert gate.of(ClaimRefuted) == gate.of(MessageRefused) == []


@pytest.mark.parametrize(("kind", "version"), KINDS)
async def test_a_foreign_station_that_reports_more_than_it_accepted_is_not_believed(kind: str, version: str):
    require(kind)
    gate = FakeGate()
    async with a_gateway(gate, a_station()) as running:
        url = f"ws://127.0.0.1:{running.ports['lab']}"
        async with ForeignStation.running(kind, url, "CP-1", version=version, overstate=4) as station:
            await until(lambda: running.connected, 20)
            running.apply(a_command("share", limit_w=5_000))
            await until(lambda: gate.of(CommandAnswered))
            assert station.of("failed") == station.of("invalid") == []
    (answer,) = gate.of(CommandAnswered)
    assert (answer.outcome, answer.ordered) == (Outcome.TIMEOUT, False)
    assert answer.detail == "accepted, but it allows 10.5 A, not 6.5"
    assert [dict(refuted.detail)["reported"] for refuted in gate.of(ClaimRefuted)] == ["10.5 A"]


@pytest.mark.parametrize(("kind", "version"), KINDS)
async def test_a_profile_of_somebody_else_is_found_at_a_foreign_station_and_cleared(kind: str, version: str):
    require(kind)
    gate = FakeGate()
    async with a_gateway(gate, a_station()) as running:
        url = f"ws://127.0.0.1:{running.ports['lab']}"
        async with ForeignStation.running(kind, url, "CP-1", version=version, foreign=20) as station:
            await until(lambda: running.connected, 20)
            if version == "2.0.1":
                # Asked for at connect; 1.6 has no such message, and its composite schedule tells.
                await station.heard("reported", ids=[5])
            running.apply(a_command("share", limit_w=5_000))
            await until(lambda: gate.of(CommandAnswered))
            await station.heard("composite", limits=[[0, 6.5]])
            cleared = [line for line in station.of("cleared") if line["status"] == "Accepted"]
            assert len(cleared) == 1
            assert station.of("failed") == station.of("invalid") == []
    if version == "2.0.1":
        assert cleared[0]["id"] == 5
        assert [n.type for n in gate.of(StationNoted)].count("station.foreign-profile") == 1
    assert [a.outcome for a in gate.of(CommandAnswered)] == [Outcome.ACCEPTED]
    assert gate.of(ClaimRefuted) == []


class HastyClock(SystemClock):
    """Ten seconds pass in each second of patience: a clock is compared over twenty of them."""

    def monotonic(self) -> float:
        return 10 * super().monotonic()


@pytest.mark.parametrize("ahead_s", [-120, 120])
@pytest.mark.parametrize(("kind", "version"), KINDS)
async def test_a_foreign_station_with_a_wrong_clock_is_found(kind: str, version: str, ahead_s: int):
    require(kind)
    gate = FakeGate()
    async with a_gateway(gate, a_station(), clock=HastyClock()) as running:
        url = f"ws://127.0.0.1:{running.ports['lab']}"
        async with ForeignStation.running(kind, url, "CP-1", version=version, ahead=ahead_s) as station:
            await until(lambda: running.connected, 20)
            station.do("start", token="CARD-1")
            await station.heard("started")
            async with asyncio.timeout(PATIENCE_S):
                while not gate.of(ClockCompared):
                    before = len(station.lines)
                    station.do("meter", power_w=4485)
                    await station.heard("metered", before)
            assert station.of("failed") == station.of("invalid") == []
    (compared,) = gate.of(ClockCompared)
    assert compared.ahead_s == pytest.approx(ahead_s, abs=2)


@pytest.mark.parametrize(("kind", "version"), KINDS)
async def test_a_foreign_station_that_is_wired_otherwise_is_remarked(kind: str, version: str):
    require(kind)
    gate = FakeGate()
    async with a_gateway(gate, a_station()) as running:
        url = f"ws://127.0.0.1:{running.ports['lab']}"
        async with ForeignStation.running(kind, url, "CP-1", version=version, rotation="STR") as station:
            await until(lambda: any(n.type == "station.phase-rotation" for n in gate.of(StationNoted)))
            assert station.of("failed") == station.of("invalid") == []
    (note,) = [n for n in gate.of(StationNoted) if n.type == "station.phase-rotation"]
    assert dict(note.detail) == {"evse": "main/evse-1", "configured": "L1 L2 L3", "says": "L2 L3 L1"}


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
